"""Mean and population standard deviation of each channel over all pixels of a set's training images, in float64.

python benchmarks/statistics_of_train.py ../shared/data/cifar10-jpeg.tar.xz
"""

import sys

import numpy as np

from sightline.data.cache import open_images
from sightline.data.sources.find_source import find_source
from sightline.data.splits import statistics


def main() -> None:
    images = open_images(find_source(sys.argv[1]))
    rows = np.array([row for row, split in enumerate(images.splits) if split == "train"])
    mean, deviation = statistics(images, rows)
    print(f"{images.name}: {len(rows):,} training images of {images.size[0]}×{images.size[1]} px")
    print("mean               ", *(f"{value:.4f}" for value in mean))
    print("standard deviation ", *(f"{value:.4f}" for value in deviation))


if __name__ == "__main__":
    main()
