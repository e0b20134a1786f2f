"""Samplers of a diffusion generator: how far its images lie from real ones, by how often the network is asked for each.

    python benchmarks/samplers.py DATA FOLDER [--guidance 1.8] [--images 2000] [--seeds 3] [--evaluations 10 20 50 500]
        [--sampler dpm++ ...] [--recipe ddpm] [--guide-below 2]

A generator (ddpm, or edm) for each seed and one classifier (small), in whose features distances are measured, are trained on
DATA; every row makes so many images, those of a generator from the same seeds in every row. FOLDER is gone on with where
it was stopped. The ratios to the most evaluations are paired by generator; their interval of 95 % is Student's over the
seeds. No test image is looked at.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from against_real import Reference, told
from sightline.config.resolving import read_recipe, resolve_generator
from sightline.machine.environment import environment
from sightline.measures.significance import mean_interval
from sightline.runs.folder import read_any_recipe, read_model


def sightline(*arguments: object) -> None:
    """Run a command of ours."""
    subprocess.run([sys.executable, "-m", "sightline", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def train(data: str, run: Path, *arguments: object) -> Path:
    """Train, or go on with a training; nothing where it is finished."""
    if not (run / "DONE").exists():
        sightline("train", data, *arguments, "--run", run, "--resume")
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--guidance", type=float, default=1.8)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[10, 20, 50, 500], help="of each guided half")
    parser.add_argument("--sampler", nargs="+", help="unless named all of the generator")
    parser.add_argument("--recipe", default="ddpm")
    parser.add_argument("--guide-below", type=float, help="strength of noise below which there is guidance")
    options = parser.parse_args()
    root = options.folder.absolute()
    judge = train(options.data, root / "judge", "--recipe", "small", "--evaluate", "none")
    reference = Reference(judge, options.images)
    print(
        f"torch {environment()['torch']}; {options.recipe}, guidance {options.guidance}{interval_of(options)}, n = {options.images:,} images a row"
    )
    print(f"real images of validation: {told(reference.floor(options.images))}", flush=True)
    for sampler in options.sampler or resolve_generator(read_recipe(options.recipe)).generator.samplers:
        found = [measure(options, root, reference, sampler, seed) for seed in range(options.seeds)]
        most = max(found[0])
        for steps in found[0]:
            ratios = np.array([distances[steps] / distances[most] for distances in found])
            interval = mean_interval(ratios)
            within = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
            each = ", ".join(f"{ratio:.3f}" for ratio in ratios)
            print(
                f"{sampler}, {steps} evaluations: {ratios.mean():.3f}{within} times the distance of {most}; by seed {each}",
                flush=True,
            )


def interval_of(options: argparse.Namespace) -> str:
    """The interval of guidance, where there is one."""
    return "" if options.guide_below is None else f" below {options.guide_below:g}"


def measure(options: argparse.Namespace, root: Path, reference: Reference, sampler: str, seed: int) -> dict[int, float]:
    """Fréchet distances of one generator's images by evaluations an image."""
    generator = train(options.data, root / f"generator-{seed}", "--recipe", options.recipe, "--seed", seed)
    each = options.images // len(read_model(generator)["classes"])
    most = read_any_recipe(generator).generator.most_steps
    found = {}
    for steps in sorted({min(steps, most) for steps in options.evaluations}):
        out = root / f"{sampler}-{seed}-{options.guidance}-{steps}-{options.images}{interval_of(options)}"
        started = time.perf_counter()
        how = ("--sampler", sampler, "--steps", steps, "--guidance", options.guidance)
        how += () if options.guide_below is None else ("--guide-below", options.guide_below)
        sightline("generate", generator, *how, "--per-class", each, "--out", out)
        took = time.perf_counter() - started
        measured, agreed = reference.measure(out)
        found[steps] = measured.frechet
        print(f"seed {seed}, {sampler}, {steps} evaluations: {told(measured, agreed)}; {took:.0f} s", flush=True)
    return found


if __name__ == "__main__":
    main()
