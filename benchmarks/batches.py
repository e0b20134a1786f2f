"""What a batch costs: making one of the recipe ``fast`` against a step with it, and against torchvision's DataLoader.

python benchmarks/batches.py ../shared/data/cifar10-jpeg.tar.xz
"""

import statistics
import sys
import time

import numpy as np
import torch
from torchvision.transforms import v2

from sightline.config.resolving import read_recipe, resolve
from sightline.data.batches import TrainingBatches, prepare
from sightline.data.sources.find_source import find_source
from sightline.machine.devices import arithmetic, choose_device, describe, keep_freed_memory
from sightline.models.build import build_network
from sightline.training.losses import classification_loss
from sightline.training.optimizers import build_optimizer

BATCHES = 12


class Reference(torch.utils.data.Dataset):
    """The same images through torchvision's transforms, one at a time, as its tutorials do it."""

    def __init__(self, pixels, labels, mean, std) -> None:
        self.pixels, self.labels = pixels, labels
        self.transform = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomCrop(32, padding=2, padding_mode="reflect"),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(self.pixels[index]), self.labels[index]


def main() -> None:
    keep_freed_memory()
    recipe = resolve(read_recipe("fast"))
    images, splits, normalization = prepare(find_source(sys.argv[1]), recipe)
    device = choose_device()
    dtype = arithmetic("auto", device)
    size = recipe.fit.batch_size
    batches = TrainingBatches(
        images,
        splits.train,
        normalization,
        recipe.augment,
        batch_size=size,
        epochs=recipe.fit.epochs,
        seed=0,
        device=device,
        dtype=dtype,
    )
    late = recipe.fit.epochs - 1  # at full size
    order = batches.order(late)
    making = [_seconds(lambda index=index: batches.make(late, index, order)) for index in range(BATCHES)]
    step = _step_seconds(recipe, images, batches.make(late, 0, order), device, dtype)
    share = statistics.median(making) / step
    print(
        f"a batch of {size}: {statistics.median(making) * 1e3:.1f} ms to make, {step * 1e3:,.0f} ms a step: {share:.2%}"
    )
    rows = splits.train
    reference = Reference(np.asarray(images.pixels[rows]), images.labels[rows], normalization.mean, normalization.std)
    loader = iter(torch.utils.data.DataLoader(reference, batch_size=size, shuffle=True, num_workers=2))
    next(loader)  # starts the workers
    count = len(loader) - 1 - 4  # the four that were made ahead meanwhile are taken first
    for _ in range(4):
        next(loader)
    seconds = _seconds(lambda: [next(loader) for _ in range(count)]) / count
    ours = size / statistics.median(making)
    print(
        f"images/s: {ours:,.0f} here, {size / seconds:,.0f} from torchvision's DataLoader with 2 workers: {ours * seconds / size:.1f} times"
    )
    print(describe(device))


def _step_seconds(recipe, images, batch, device, dtype) -> float:
    network = build_network(recipe.network, len(images.classes), images.size)
    network.to(device=device, memory_format=torch.channels_last)
    optimizer = build_optimizer(recipe.optimizer, network)

    def step() -> None:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss, _ = classification_loss(network, batch, recipe.fit.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    return statistics.median(_seconds(step) for _ in range(4))


def _seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
