"""The recipe ``custom-resnet-onecycle``: images a second of its steps by number format, then the training in full.

The original form is float32 with channels first; ours is channels last. Steps on one batch, forms in turn, medians.

    python benchmarks/onecycle.py ../shared/data/cifar10-jpeg.tar.xz [speed]
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console

import sightline
from sightline.config.resolving import read_recipe, resolve
from sightline.data.batches import Batch
from sightline.display.lines import Lines
from sightline.machine.devices import choose_device, convolution_flops, describe, has_fast_bfloat16, keep_freed_memory
from sightline.models.build import build_network
from sightline.training.losses import classification_loss
from sightline.training.optimizers import build_optimizer

RECIPE = "custom-resnet-onecycle"
FORMS = {
    "float32, channels first": (torch.float32, torch.contiguous_format),
    "float32, channels last": (torch.float32, torch.channels_last),
    "bfloat16, channels last": (torch.bfloat16, torch.channels_last),
}
ROUNDS = 3


def main() -> None:
    keep_freed_memory()
    speed()
    if sys.argv[2:] == ["speed"]:
        return
    with tempfile.TemporaryDirectory() as folder:
        run = sightline.train(
            sys.argv[1], recipe=RECIPE, run=Path(folder) / "run", on_event=Lines(Console(force_terminal=False))
        )
        assert run is not None
        measured = json.loads((run / "evaluation.json").read_text())
    print(f"accuracy {measured['accuracy']:.4f}, n = {measured['n']:,}; {measured['cost']}")


def speed() -> None:
    """Print the images a second of forward, backward and optimizer in each form."""
    recipe, device = resolve(read_recipe(RECIPE)), choose_device()
    size = recipe.fit.batch_size
    fast = has_fast_bfloat16(device)  # elsewhere a step takes minutes
    forms = {name: form for name, form in FORMS.items() if fast or form[0] != torch.bfloat16}
    steps = {}
    for name, (dtype, memory) in forms.items():
        network = build_network(recipe.network, 10, (32, 32)).to(device=device, memory_format=memory)
        images = torch.randn(size, 3, 32, 32, device=device, dtype=dtype).contiguous(memory_format=memory)
        batch = Batch(images, torch.randint(10, (size,), device=device), 0, 0)
        steps[name] = (network, build_optimizer(recipe.optimizer, network), batch, dtype)
    found: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(ROUNDS + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            _step(*step, device)
            if number:  # the first prepares the kernels
                found[name].append(time.perf_counter() - start)
    for name, seconds in found.items():
        print(f"{name}: {size / statistics.median(seconds):,.0f} images/s in batches of {size}")
    for dtype in (torch.float32, torch.bfloat16):
        print(f"probe in {str(dtype).removeprefix('torch.')}: {convolution_flops(device, dtype):.3g} FLOP/s")
    print(f"median of {ROUNDS} steps each, on {describe(device)}, {'with' if fast else 'without'} fast bfloat16")


def _step(network, optimizer, batch, dtype, device) -> None:
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        loss, _ = classification_loss(network, batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    loss.item()


if __name__ == "__main__":
    main()
