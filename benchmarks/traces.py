"""Traces of a generator too fine to be seen: what lies in made images where photographs have next to nothing, and whether it names the class.

    python benchmarks/traces.py DATA FOLDER...

JPEG keeps little of colour that changes from a pixel to the next, so of the twelve directions in which 2 x 2 pixels can vary six are
nearly empty in photographs. For the training images of DATA and each FOLDER of made ones: the variance along those six (levels from 0
to 255), and how many classes a linear classifier tells by their means and deviations in an image: of other images like those it learnt
from (five folds), and of real ones.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sightline.data.cache import open_images
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split

MOST = 5000  # images
EMPTY = 6  # directions


def patches(pixels: np.ndarray) -> np.ndarray:
    """The 2 x 2 pixels that images are made of, (N, patches, 12), as float32."""
    count, height, width, _ = pixels.shape
    parts = pixels.reshape(count, height // 2, 2, width // 2, 2, 3).transpose(0, 1, 3, 2, 4, 5)
    return parts.reshape(count, -1, 12).astype(np.float32)


def in_directions(pixels: np.ndarray, mean: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """How far the patches of images lie along directions, (N, patches, D)."""
    return (patches(pixels) - mean) @ directions


def features(along: np.ndarray) -> np.ndarray:
    """Means and deviations within each image, (N, 2D)."""
    return np.concatenate([along.mean(1), np.log(along.std(1) + 1e-2)], 1)


def main() -> None:
    data, folders = sys.argv[1], [Path(name) for name in sys.argv[2:]]
    images = open_images(find_source(data), None)
    train = split(images, selects=False).train
    rows = np.sort(np.random.default_rng(0).choice(train, min(MOST, len(train)), replace=False))
    flat = patches(images.pixels[rows]).reshape(-1, 12)
    mean, (_, directions) = flat.mean(0), np.linalg.eigh(np.cov(flat.T))  # the emptiest first
    empty = directions[:, :EMPTY].astype(np.float32)
    real, real_labels = in_directions(images.pixels[rows], mean, empty), np.array(images.classes)[images.labels[rows]]
    sets = [(data, real, real_labels)]
    for folder in folders:
        made = open_images(find_source(folder), None)
        names = np.array(made.classes)[made.labels[made.readable]]
        sets.append((folder.name, in_directions(made.pixels[made.readable], mean, empty), names))
    for name, along, labels in sets:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
        own = cross_val_score(classifier, features(along), labels, cv=5).mean()
        of_real = classifier.fit(features(along), labels).score(features(real), real_labels)
        variances = " ".join(f"{value:.2f}" for value in along.reshape(-1, EMPTY).var(0))
        told = "" if along is real else f", of real ones {of_real:.3f}"
        print(f"{name}: variances {variances}; classes told {own:.3f}{told}; n = {len(along):,}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main()
