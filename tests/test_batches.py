"""Batches are a function of (seed, epoch, position), which is what makes a resumed training the same training."""

import hashlib
import itertools

import numpy as np
import pytest
import torch

from sightline.config.augmentation import (
    AugmentConfig,
    ColorJitterConfig,
    CutmixConfig,
    CutoutConfig,
    MixupConfig,
    PadCropConfig,
    RandomResizedCropConfig,
    RotationConfig,
    TrivialAugmentConfig,
)
from sightline.config.resolving import read_recipe, resolve
from sightline.data.batches import (
    Batch,
    EvaluationBatches,
    Normalization,
    TrainingBatches,
    balanced_order,
    derived_seed,
)

CPU = torch.device("cpu")
NORMALIZATION = Normalization([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
CONFIGS = [
    AugmentConfig(flip="none"),
    AugmentConfig(crop=PadCropConfig(padding=2), cutout=CutoutConfig(size=3)),
    AugmentConfig(flip="alternating", crop=PadCropConfig(padding=2, fill="zero")),
    AugmentConfig(crop=RandomResizedCropConfig(), cutout=CutoutConfig(size=3, holes=2)),
    AugmentConfig(crop=RandomResizedCropConfig(), rotation=RotationConfig(fill="zero"), color=ColorJitterConfig()),
    AugmentConfig(crop=PadCropConfig(padding=2), policy=TrivialAugmentConfig(), mix=CutmixConfig()),
    AugmentConfig(
        rotation=RotationConfig(), policy=TrivialAugmentConfig(), color=ColorJitterConfig(), mix=MixupConfig(alpha=1)
    ),
]


@pytest.fixture
def images(in_memory):
    """Sixty images of noise; the class of an image is its row, so that a batch says which images it holds."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 9, 9, 3), np.uint8)
    return in_memory(list(range(60)), pixels=pixels, size=(8, 8))


@pytest.fixture
def batches(images):
    """Make the training batches of 50 of the 60 images."""

    def make(config: AugmentConfig = CONFIGS[1], *, batch_size: int = 8, seed: int = 1, **options) -> TrainingBatches:
        return TrainingBatches(
            images,
            np.arange(5, 55),
            NORMALIZATION,
            config,
            batch_size=batch_size,
            epochs=4,
            seed=seed,
            device=CPU,
            dtype=torch.float32,
            **options,
        )

    return make


def _equal(one: Batch, other: Batch) -> bool:
    """Whether two batches are the same to the bit."""
    same = torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
    assert (one.shares is None) == (other.shares is None) == (one.partner_labels is None)
    if one.shares is not None:
        same &= torch.equal(one.shares, other.shares) and torch.equal(one.partner_labels, other.partner_labels)
    return same and (one.epoch, one.position) == (other.epoch, other.position)


def _epochs(loader: TrainingBatches, count: int) -> list[Batch]:
    return [batch for _ in range(count) for batch in loader]


# ── an epoch ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("batch_size", [1, 7, 8, 25, 49, 50, 1000])
def test_every_image_comes_once_an_epoch_in_batches_that_differ_by_one_at_most(batches, batch_size):
    loader = batches(batch_size=batch_size)
    for epoch in range(2):
        found = list(loader)
        sizes = [len(batch.labels) for batch in found]
        assert len(found) == len(loader) == -(-50 // batch_size)
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch_size
        assert sorted(torch.cat([batch.labels for batch in found]).tolist()) == list(range(5, 55))
        assert [(batch.epoch, batch.position) for batch in found] == [(epoch, n) for n in range(len(found))]


def test_an_image_comes_with_its_own_label(batches, images):
    for batch in batches(AugmentConfig(flip="none")):
        middle = torch.from_numpy(images.pixels[batch.labels, :8, :8]).permute(0, 3, 1, 2).float() / 255
        found = batch.images * torch.tensor(NORMALIZATION.std)[:, None, None]
        torch.testing.assert_close(found + torch.tensor(NORMALIZATION.mean)[:, None, None], middle, atol=1e-5, rtol=0)


def test_the_order_is_new_in_every_epoch_and_for_every_seed(batches):
    orders = [tuple(batches(seed=seed).order(epoch).tolist()) for seed in (1, 2) for epoch in range(5)]
    assert len(set(orders)) == 10
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_alternating_flips_show_the_mirror_image_in_the_next_epoch(batches):
    loader = batches(AugmentConfig(flip="alternating"))
    seen = []
    for _ in range(3):
        epoch = list(loader)
        labels = torch.cat([batch.labels for batch in epoch])
        seen.append(torch.cat([batch.images for batch in epoch])[labels.argsort()])
    assert torch.equal(seen[1], seen[0].flip(-1))
    assert torch.equal(seen[2], seen[0])
    plain = torch.cat([batch.images for batch in batches(AugmentConfig(flip="none"))])
    order = torch.cat([batch.labels for batch in batches(AugmentConfig(flip="none"))]).argsort()
    unflipped = (seen[0] == plain[order]).flatten(1).all(dim=1).sum()
    assert 15 <= unflipped <= 35  # about half of 50


# ── a batch is a function of (seed, epoch, position) ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("config", CONFIGS)
def test_a_batch_can_be_made_again_by_its_position_alone(batches, config):
    history = _epochs(batches(config), 3)
    torch.manual_seed(12345)  # the global generator has no say
    for batch in reversed(history):
        loader = batches(config)
        assert _equal(loader.make(batch.epoch, batch.position, loader.order(batch.epoch)), batch)


@pytest.mark.parametrize("config", CONFIGS)
def test_another_seed_gives_other_batches(batches, config):
    one, other = next(iter(batches(config, seed=1))), next(iter(batches(config, seed=2)))
    assert not torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("config", CONFIGS[1:])
def test_the_same_images_are_varied_anew_in_every_epoch_and_at_every_position(batches, config):
    loader = batches(config, batch_size=25)
    order = loader.order(0)
    first, next_epoch, next_position = (
        loader.make(0, 0, order),
        loader.make(2, 0, order),  # alternating flips are the same in every other epoch
        loader.make(0, 1, order.roll(25)),
    )
    for other in (next_epoch, next_position):
        assert torch.equal(other.labels, first.labels)
        assert (other.images == first.images).flatten(1).all(dim=1).sum() < 5  # of 25


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("done", [0, 1, 3, 6, 7, 8, 14, 15])
def test_a_loader_goes_on_where_another_stood(batches, config, done):
    history = _epochs(batches(config), 4)  # 7 batches an epoch
    stopped = batches(config)
    assert len(stopped) == 7
    for _ in itertools.islice(itertools.chain.from_iterable(itertools.repeat(stopped)), done):
        pass
    resumed = batches(config)
    resumed.load_state_dict(stopped.state_dict())
    rest = _epochs(resumed, 3)[: 28 - done]
    assert len(rest) >= 13
    assert all(_equal(*pair) for pair in zip(rest, history[done:], strict=False))
    assert [(batch.epoch, batch.position) for batch in rest[:2]] == [divmod(done, 7), divmod(done + 1, 7)]


def test_a_batch_counts_as_handed_out_once_it_is_handed_out(batches):
    loader = batches()
    iterator = iter(loader)
    assert loader.state_dict() == {"epoch": 0, "position": 0}
    next(iterator)
    next(iterator)
    assert loader.state_dict() == {"epoch": 0, "position": 2}
    list(iterator)
    assert loader.state_dict() == {"epoch": 0, "position": 7}
    next(iter(loader))
    assert loader.state_dict() == {"epoch": 1, "position": 1}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("world_size", [2, 3])
def test_the_slices_of_all_processes_are_the_batch_of_one(batches, config, world_size):
    alone = _epochs(batches(config), 2)
    together = zip(
        *(_epochs(batches(config, rank=rank, world_size=world_size), 2) for rank in range(world_size)), strict=True
    )
    for whole, parts in zip(alone, together, strict=True):
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
        if config.mix is not None:  # partners of other processes' slices among them
            assert torch.equal(torch.cat([part.shares for part in parts]), whole.shares)
            assert torch.equal(torch.cat([part.partner_labels for part in parts]), whole.partner_labels)
        sizes = [len(part.labels) for part in parts]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_has_the_number_format_that_was_asked_for(images, dtype):
    loader = TrainingBatches(
        images, np.arange(60), NORMALIZATION, CONFIGS[3], batch_size=30, epochs=4, seed=0, device=CPU, dtype=dtype
    )
    batch = next(iter(loader))
    assert (batch.images.dtype, batch.labels.dtype) == (dtype, torch.int64)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_seeds_are_their_own_for_every_tuple_and_fit_into_a_generator():
    tuples = [(1,), (2,), (1, 2), (12,), (1, 2, 3), (1, 23), (12, 3), (1, "flip")]
    seeds = [derived_seed(*numbers) for numbers in tuples]
    assert len(set(seeds)) == len(tuples)
    assert seeds == [derived_seed(*numbers) for numbers in tuples]
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("config", "digest"),
    [
        (resolve(read_recipe("fast")).augment, "ce62606fcfe0324c"),
        (resolve(read_recipe("small")).augment, "a299aa67489f5049"),
        (resolve(read_recipe("resnet18")).augment, "71233f197264c5d9"),
        (AugmentConfig(crop=PadCropConfig(padding=2, fill="zero"), cutout=CutoutConfig(size=3)), "da0e81b39bf86654"),
        (AugmentConfig(crop=RandomResizedCropConfig(), cutout=CutoutConfig(size=3, holes=2)), "b1dddb30439c213c"),
        (AugmentConfig(flip="none"), "b77ba88dd1ccf08f"),
    ],
    ids=["fast", "small", "resnet18", "zero padding", "holes", "nothing"],
)
def test_settings_that_exist_keep_their_batches_to_the_bit_when_new_ones_are_added(batches, config, digest):
    """Digests of quarters, made before rotation and its neighbours were; no value is within 0.00001 of a boundary.

    Those of random resized crops were made when parts that do not fit came to be drawn again, as torchvision does.
    """
    loader = batches(config)
    made = [loader.make(epoch, position, loader.order(epoch)).images for epoch, position in ((0, 1), (3, 2))]
    shift = 0.11 if isinstance(config.crop, RandomResizedCropConfig) else 0  # means of levels lie on boundaries
    quarters = torch.cat([images.mul(4).add(shift).round().to(torch.int8).contiguous().flatten() for images in made])
    assert hashlib.sha256(quarters.numpy().tobytes()).hexdigest()[:16] == digest


# ── evaluation ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("batch_size", [1, 7, 20, 100])
def test_evaluation_shows_the_middle_of_each_image_in_order(in_memory, batch_size):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 9, 12, 3), np.uint8)
    images = in_memory(list(range(20)), pixels=pixels, size=(5, 6))
    rows = np.array([1, 3, 4, 7, 8, 9, 15, 16, 18])
    loader = EvaluationBatches(images, rows, NORMALIZATION, batch_size=batch_size, device=CPU, dtype=torch.float32)
    found = list(loader)
    assert len(found) == len(loader) == -(-9 // batch_size)
    assert torch.cat([batch.labels for batch in found]).tolist() == rows.tolist()
    made = torch.cat([batch.images for batch in found]).permute(0, 2, 3, 1).numpy()
    wanted = (pixels[rows, 2:7, 3:9] / 255 - NORMALIZATION.mean) / NORMALIZATION.std
    np.testing.assert_allclose(made, wanted, atol=1e-5)
    assert all(_equal(*pair) for pair in zip(found, loader, strict=True))


def test_evaluation_of_no_images_is_no_batch(images):
    loader = EvaluationBatches(
        images, np.array([], np.int64), NORMALIZATION, batch_size=4, device=CPU, dtype=torch.float32
    )
    assert (len(loader), list(loader)) == (0, [])


def test_a_channel_that_never_varies_is_divided_by_one_level():
    mean, std = Normalization([0.5, 0.5, 0.5], [0.0, 0.25, 1e-9]).tensors(CPU)
    assert std.tolist() == pytest.approx([1 / 255, 0.25, 1 / 255])
    assert mean.dtype == std.dtype == torch.float32


def test_the_first_epochs_are_shown_smaller_and_the_others_in_full(in_memory):
    images = in_memory([0, 1] * 10, pixels=np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8))
    config = AugmentConfig(flip="none", scales=(0.5, 0.75, 1, 1))
    loader = TrainingBatches(
        images, images.readable, NORMALIZATION, config, batch_size=8, epochs=4, seed=1, device=CPU, dtype=torch.float32
    )
    sides = {batch.epoch: tuple(batch.images.shape[2:]) for batch in _epochs(loader, 4)}
    assert sides == {0: (16, 16), 1: (24, 24), 2: (32, 32), 3: (32, 32)}


# ── balanced sampling ────────────────────────────────────────────────────────────────────────────────────────────────

UNEQUAL = torch.tensor([0] * 40 + [1] * 15 + [2] * 3)  # 58 images


def test_a_balanced_epoch_has_as_many_draws_as_images_and_every_class_as_often_give_or_take_one():
    for epoch in range(6):
        order = balanced_order(UNEQUAL, 1, epoch)
        assert len(order) == 58
        assert sorted(torch.bincount(UNEQUAL[order]).tolist()) == [19, 19, 20]
    drawn = torch.cat([balanced_order(UNEQUAL, 1, epoch) for epoch in range(3)])
    assert torch.bincount(UNEQUAL[drawn]).tolist() == [58, 58, 58]  # who is one short changes from epoch to epoch


def test_no_image_is_drawn_again_before_all_others_of_its_class_have_been():
    for epochs in range(1, 8):
        drawn = torch.cat([balanced_order(UNEQUAL, 1, epoch) for epoch in range(epochs)])
        times = torch.bincount(drawn, minlength=58)
        for label in range(3):
            assert int(times[label == UNEQUAL].max() - times[label == UNEQUAL].min()) <= 1


def test_a_balanced_epoch_is_a_function_of_seed_and_epoch_in_an_order_of_its_own():
    one = balanced_order(UNEQUAL, 1, 2)
    assert one.equal(balanced_order(UNEQUAL, 1, 2))
    assert not one.equal(balanced_order(UNEQUAL, 2, 2))
    assert not one.equal(balanced_order(UNEQUAL, 1, 3))
    first_half = torch.bincount(UNEQUAL[one[:29]], minlength=3)
    assert first_half.min() >= 4  # mixed, not class after class


def test_processes_share_a_balanced_batch_as_they_share_any_other(in_memory):
    pixels = np.random.default_rng(0).integers(0, 256, (58, 8, 8, 3), np.uint8)
    images = in_memory(UNEQUAL.tolist(), pixels=pixels, size=(8, 8))

    def made(rank: int = 0, world_size: int = 1) -> list[Batch]:
        options = {"batch_size": 8, "epochs": 2, "seed": 1, "device": CPU, "dtype": torch.float32, "balanced": True}
        loader = TrainingBatches(
            images, np.arange(58), NORMALIZATION, CONFIGS[1], rank=rank, world_size=world_size, **options
        )
        return list(loader)

    for whole, first, second in zip(made(), made(0, 2), made(1, 2), strict=True):
        assert whole.images.equal(torch.cat([first.images, second.images]))
        assert whole.labels.equal(torch.cat([first.labels, second.labels]))
