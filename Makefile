# What one types here; `make help` lists it. Everything that is needed is installed into .venv first.
.SILENT:
.DEFAULT_GOAL := help
.PHONY: help install train test test-mobile check docs notebooks screenshots dist licenses matrix box box-backbone box-groceries

PYTHON ?= python3
DATA ?= groceries
RECIPE ?= auto
GROCERY ?= ../shared/data/grocery.tar
CIFAR ?= ../shared/data/cifar10-jpeg.tar.xz
SIGNS ?= ../shared/data/sign-digits.tar.xz
PROGRAMS := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
BIN := .venv/$(PROGRAMS)
RELEASE := .venv-release/$(PROGRAMS)

help:
	echo "make install                             only set up .venv"
	echo "make train [DATA=groceries] [RECIPE=auto] train a classifier; the last line is its folder"
	echo "make test                                run the tests"
	echo "make test-mobile                         test ExecuTorch's files, in .venv-mobile with the extra mobile"
	echo "make check                               ruff, mypy and import-linter"
	echo "make docs                                write the reference of the docs from the code; build the site into site/"
	echo "make notebooks [ARGS=photos]              run the notebooks of the docs, and keep what their cells show"
	echo "make screenshots                         draw the pictures of the README from a run on the embedded photographs"
	echo "make licenses                            list the licenses of all that is installed in docs/reference/licenses.md"
	echo "make dist                                wheel and sdist of both distributions into dist/, checked"
	echo "make matrix [FULL=1] [ARGS=...]          use the wheels of dist/ in empty environments, each Python; all tests with FULL"
	echo "make box RUN=runs/...                    pack a finished run as the classifier that comes along; what half floats cost"
	echo "make box-backbone                        make the backbone that comes along; compare it with its source"
	echo "make box-groceries [GROCERY=archive]     pack the embedded photographs anew, from the Grocery Store Dataset"
	echo "make bench-...                           benchmarks: see docs/benchmarks.md"

bench-generated bench-samplers bench-traces: DATA = digits

bench-photos: install
	$(BIN)/python benchmarks/photos.py $(GROCERY) $(or $(PART),probe) $(SEEDS) $(ARGS)

bench-few: install
	$(BIN)/python benchmarks/few.py $(GROCERY) $(ARGS)

bench-hostile: install
	$(BIN)/python benchmarks/hostile.py $(ARGS)
	$(BIN)/python benchmarks/hostile_http.py

bench-http: install
	$(BIN)/python benchmarks/contract.py $(or $(EXAMPLES),200) $(or $(SEED),1)

bench-generated: install
	$(BIN)/python benchmarks/generated.py $(DATA) $(or $(OUT),studies/generated) $(ARGS)

bench-ddpm: install
	$(BIN)/python benchmarks/ddpm.py $(CIFAR) $(RUN) $(or $(OUT),studies/ddpm) $(ARGS)

bench-samplers: install
	$(BIN)/python benchmarks/samplers.py $(DATA) $(or $(OUT),studies/samplers) $(ARGS)

bench-traces: install
	$(BIN)/python benchmarks/traces.py $(DATA) $(FOLDERS)

box: install
	$(BIN)/python benchmarks/box.py $(RUN)

box-backbone: install
	$(BIN)/python benchmarks/box_backbone.py
box-groceries: install
	$(BIN)/python benchmarks/embed_groceries.py $(GROCERY)

screenshots: install
	$(BIN)/python docs/make_screenshots.py

notebooks: install
	$(BIN)/python docs/make_notebooks.py $(ARGS)

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	echo "Setting up .venv (a few minutes: PyTorch is large) ..."
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sightline needs Python 3.11 or newer; name one with PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

train: install
	$(BIN)/sightline train $(DATA) --recipe $(RECIPE)

test: install
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# ExecuTorch brings some hundred megabytes that nothing else here needs, and keeps out of .venv
.venv-mobile/installed: pyproject.toml constraints.txt
	echo "Setting up .venv-mobile (a few minutes) ..."
	$(PYTHON) -m venv .venv-mobile
	.venv-mobile/$(PROGRAMS)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[mobile]' 'pytest>=8'
	touch $@

test-mobile: .venv-mobile/installed
	.venv-mobile/$(PROGRAMS)/python -m pytest tests/mobile

check: install
	$(BIN)/ruff check
	$(BIN)/ruff check --quiet --preview --select PLW1514 src # a file without an encoding is read otherwise on Windows
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: install
	$(BIN)/python docs/make_names.py
	$(BIN)/zensical build --strict --clean

licenses: install
	$(BIN)/python docs/make_licenses.py

# Tools of a release, apart from .venv; pip before 25.1 knows no groups
.venv-release/installed: pyproject.toml
	$(PYTHON) -m venv .venv-release
	$(RELEASE)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(RELEASE)/python -m pip install --quiet --group release
	touch $@

# The license texts of the box lie beside what they are of, too (W002); sightline brings its runtime (W009)
dist: .venv-release/installed
	$(RELEASE)/python packaging/distributions.py
	$(RELEASE)/twine check --strict dist/*.whl dist/*.tar.gz
	$(RELEASE)/check-wheel-contents --src-dir src --ignore W002,W009 dist/sightline_vision-*.whl
	$(RELEASE)/check-wheel-contents --toplevel sightline_runtime dist/sightline_vision_runtime-*.whl

matrix: .venv-release/installed
	$(RELEASE)/python packaging/matrix.py $(if $(FULL),--full) $(ARGS)

bench-resume: install
	$(BIN)/python benchmarks/resume.py

bench-resume-ways: install
	for way in swa ema accumulation stopping mixup finetune ddp; do $(BIN)/python benchmarks/resume.py 10 $$way || exit 1; done

bench-unbalanced: install
	$(BIN)/python benchmarks/unbalanced.py

bench-cifar: install
	$(BIN)/python benchmarks/cifar.py $(CIFAR) $(RECIPE:auto=fast) $(SEEDS)

bench-onecycle: install
	$(BIN)/python benchmarks/onecycle.py $(CIFAR)

bench-leak: install
	$(BIN)/python benchmarks/leak.py $(CIFAR) $(STUDY)

bench-finders: install
	$(BIN)/python benchmarks/finders.py $(CIFAR)

bench-batches: install
	$(BIN)/python benchmarks/batches.py $(CIFAR)

bench-memory: install
	$(BIN)/python benchmarks/memory.py $(CIFAR)

bench-overhead: install
	$(BIN)/python benchmarks/overhead.py $(CIFAR) $(ARGS)

bench-side-by-side: install
	$(BIN)/python benchmarks/side_by_side.py $(ARGS)

bench-features: install
	$(BIN)/python benchmarks/features.py $(CIFAR)

bench-contest: install
	$(BIN)/python benchmarks/contest/run.py $(GROCERY) $(WEIGHTS) $(addprefix --fastai ,$(FASTAI)) $(addprefix --timm ,$(TIMM)) $(addprefix --scripts ,$(SCRIPTS)) $(ARGS)

bench-trust: install
	$(BIN)/python benchmarks/trust.py $(RUN) $(ARGS)

bench-ood: install
	$(BIN)/python benchmarks/ood.py $(RUN) $(or $(ARGS),$(SIGNS) $(GROCERY))

bench-calibration: install
	$(BIN)/python benchmarks/calibration.py calibration $(RUNS)

bench-adaptive: install
	$(BIN)/python benchmarks/adaptive.py $(or $(DATA),digits) $(or $(RECIPE),small) $(ARGS)

bench-coverage: install
	$(BIN)/python benchmarks/calibration.py coverage $(RUNS)

bench-signs: install
	$(BIN)/python benchmarks/signs.py $(SIGNS)

bench-doctor: install
	$(BIN)/python benchmarks/doctor.py $(CIFAR) $(SIGNS) $(PAGES)

bench-check-memory: install
	$(BIN)/python benchmarks/check_memory.py $(CIFAR) $(RUN) $(TIMES)

bench-duplicates: install
	$(BIN)/python benchmarks/duplicates.py $(CIFAR) "$(RUN)" "$(VECTORS)" $(TIMES)

bench-mirrored: install
	$(BIN)/python benchmarks/mirrored.py $(or $(OUT),studies/mirrored) arrows power test digits groceries $(GROCERY) $(CIFAR) $(SIGNS)

bench-labels: install
	$(BIN)/python benchmarks/labels.py $(CIFAR) $(or $(NOISE),../shared/data/cifar10n.csv.xz) --heads $(ARGS)

bench-classes: install
	$(BIN)/python benchmarks/classes.py digits 1797 $(CIFAR) 6000

bench-active: install
	$(BIN)/python benchmarks/active.py $(GROCERY) $(ARGS)

bench-start: install
	$(BIN)/python benchmarks/start.py

bench-statistics: install
	$(BIN)/python benchmarks/statistics_of_train.py $(CIFAR)

bench-decode: install
	$(BIN)/python benchmarks/decode.py $(CIFAR)

bench-explain: install
	$(BIN)/python benchmarks/explain.py $(RUNS)

bench-predict: install
	$(BIN)/python benchmarks/predict.py $(CIFAR) $(RUN) $(MODEL)

bench-runtime: install
	$(BIN)/python benchmarks/runtime.py $(MODEL) $(IMAGES) $(ARGS)

bench-export: install
	$(BIN)/python benchmarks/export.py $(CIFAR) $(ARGS)

bench-mobile: .venv-mobile/installed
	.venv-mobile/$(PROGRAMS)/python benchmarks/export.py $(CIFAR) pte $(ARGS)

bench-serve: install
	$(BIN)/python benchmarks/serve.py $(RUN) $(CIFAR) $(or $(MINUTES),10)

bench-mutations: install
	$(BIN)/python benchmarks/mutations.py $(RUN) 10000 $(or $(SEED),42)

clean:
	rm -rf .venv .venv-mobile .venv-release build dist site .cache .pytest_cache .mypy_cache .ruff_cache
