"""Samplers of a diffusion generator: how far its images lie from real ones, by how often the network is asked for each.

    python benchmarks/samplers.py DATA FOLDER [GUIDANCE [N [SAMPLER...]]]

A generator (ddpm) and a classifier (small), in whose features distances are measured, are trained on DATA; every row makes N images
from the same seeds. FOLDER is gone on with where it was stopped. No test image is looked at.
"""

import subprocess
import sys
import time
from pathlib import Path

from against_real import Reference, told
from sightline.config.generators import SAMPLERS
from sightline.machine.environment import environment
from sightline.runs.folder import read_any_recipe, read_model

EVALUATIONS = (10, 20, 50, 500)  # of each guided half


def sightline(*arguments: object) -> None:
    """Run a command of ours."""
    subprocess.run([sys.executable, "-m", "sightline", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def train(data: str, run: Path, *arguments: object) -> Path:
    """Train, or go on with a training; nothing where it is finished."""
    if not (run / "DONE").exists():
        sightline("train", data, *arguments, "--run", run, "--resume")
    return run


def main() -> None:
    data, root = sys.argv[1], Path(sys.argv[2]).absolute()
    guidance, count, *samplers = (*sys.argv[3:], *("1.8", "2000")[len(sys.argv) - 3 :])
    generator = train(data, root / "generator", "--recipe", "ddpm")
    reference = Reference(train(data, root / "judge", "--recipe", "small", "--evaluate", "none"), int(count))
    model = read_model(generator)
    each = int(count) // len(model["classes"])
    most = read_any_recipe(generator).generator.noise_steps
    print(f"{model['cost']['device']}; torch {environment()['torch']}; guidance {guidance}")
    print(f"real images of validation: {told(reference.floor(int(count)))}")
    for sampler in samplers or SAMPLERS:
        found = {}
        for steps in sorted({min(steps, most) for steps in EVALUATIONS}):
            out = root / f"{sampler}-{guidance}-{steps}-{count}"
            started = time.perf_counter()
            how = ("--sampler", sampler, "--steps", steps, "--guidance", guidance)
            sightline("generate", generator, *how, "--per-class", each, "--out", out)
            took = time.perf_counter() - started
            measured, agreed = reference.measure(out)
            found[steps] = measured.frechet
            print(f"{sampler}, {steps} evaluations: {told(measured, agreed)}; {took:.0f} s", flush=True)
        last = found[max(found)]
        ratios = ", ".join(f"{steps}: {distance / last:.3f}" for steps, distance in found.items())
        print(f"{sampler}: distance as a multiple of that of {max(found)} evaluations: {ratios}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main()
