"""Each augmentation against torchvision's own transform with the same numbers, image by image, and laws.

Tolerances are in levels of 255 unless said otherwise. torchvision rounds uint8 pixels after every operation; ours stay
in float32, so they are compared with its float32 arithmetic to 0.01 of a level, and with its uint8 to 2 levels: it cuts
the fraction off (1 level) and rounds the grey or the blur that it blends with (up to 1 more).
"""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

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
from sightline.data.augment.augment import Parameters, apply, color_jitter, draw, normalize, resample
from sightline.data.augment.mixing import cut, draw_mixing, mix
from sightline.data.augment.trivial_augment import OPERATIONS, draw_operations, strengths, trivial_augment
from sightline.data.batches import Batch
from sightline.training.losses import classification_loss

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
ANGLES = [0.0, 7.5, -30.0, 90.0, 135.0, -180.0]  # degrees
FACTORS = [0.0, 0.3, 1.0, 1.7, 3.0]
MOVING = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
WHOLE = ("identity", "posterize", "solarize", "equalize")


def _pixels(count: int, height: int = 32, width: int = 32) -> Tensor:
    """Smooth colours with noise and some flat, dark and bright parts, uint8, (B, H, W, 3)."""
    generator = torch.Generator().manual_seed(height)
    smooth = functional.interpolate(torch.rand(count, 3, 4, 4, generator=generator), (height, width), mode="bicubic")
    levels = 255 * smooth + 20 * torch.randn(count, 3, height, width, generator=generator)
    levels[:, :, :5, :7] = 128
    return levels.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _images(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) to (B, 3, H, W)."""
    return pixels.permute(0, 3, 1, 2)


def _parameters(count: int, height: float, width: float, **numbers) -> Parameters:
    """The whole image where nothing else is said."""

    def column(value: object) -> Tensor:
        return torch.tensor(value if isinstance(value, list) else [value] * count)

    box = {"flip_B": False, "top_B": 0.0, "left_B": 0.0, "height_B": float(height), "width_B": float(width)}
    holes = torch.zeros(count, 0, dtype=torch.long)
    given = {name: value if isinstance(value, Tensor) else column(value) for name, value in {**box, **numbers}.items()}
    return Parameters(**given, hole_tops_BK=holes, hole_lefts_BK=holes)


def _close(found: Tensor, wanted: Tensor, atol: float) -> None:
    torch.testing.assert_close(found.contiguous(), wanted.contiguous(), atol=atol, rtol=0)


# ── crop and rotation ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40)])
def test_an_image_turns_as_torchvision_turns_it_and_zero_is_outside(height, width):
    """To 0.0001 of a deviation: the same bilinear weights, from grids computed in another order."""
    images = normalize(_pixels(len(ANGLES), height, width), MEAN, STD, torch.float32)
    numbers = _parameters(len(ANGLES), height, width, angle_B=torch.tensor(ANGLES).deg2rad())
    found = resample(images, numbers, (height, width), "zero")
    for image, angle, turned in zip(images, ANGLES, found, strict=True):
        matrix_only = reference.affine(image, -angle, [0, 0], 1.0, [0.0, 0.0], v2.InterpolationMode.BILINEAR)
        _close(turned, matrix_only, 1e-3 if abs(angle) in (90, 180) else 1e-4)
        if abs(angle) not in (90, 180):  # of these torchvision.rotate transposes, without a grid
            _close(turned, reference.rotate(image, angle, v2.InterpolationMode.BILINEAR), 1e-4)


def test_reflected_surroundings_turn_into_the_image():
    images = _images(_pixels(3)).float()
    angles = [10.0, -45.0, 120.0]
    found = resample(images, _parameters(3, 32, 32, angle_B=torch.tensor(angles).deg2rad()), (32, 32), "reflect")
    wide = torch.cat([images.flip(3), images, images.flip(3)], 3)
    surrounded = torch.cat([wide.flip(2), wide, wide.flip(2)], 2)
    for image, angle, turned in zip(surrounded, angles, found, strict=True):
        wanted = reference.rotate(image, angle, v2.InterpolationMode.BILINEAR)[:, 32:64, 32:64]
        _close(turned, wanted, 0.02)


@pytest.mark.parametrize("fill", ["zero", "reflect"])
def test_a_crop_turns_about_its_own_middle_in_one_resampling(fill):
    image = _images(_pixels(1, 48, 48)).float()
    numbers = _parameters(1, 32, 32, top_B=5.0, left_B=9.0, angle_B=torch.tensor([20.0]).deg2rad())
    whole = reference.rotate(image, 20.0, v2.InterpolationMode.BILINEAR, center=[9 + 16, 5 + 16])
    found = resample(image, numbers, (32, 32), fill)
    if fill == "zero":
        _close(found, whole[:, :, 5:37, 9:41], 0.02)
    else:
        _close(found[:, :, 8:24, 8:24], whole[:, :, 13:29, 17:33], 0.02)  # the surroundings differ


@pytest.mark.parametrize("angle", [15.0, -70.0])
def test_a_turned_image_that_is_mirrored_is_the_mirror_image_turned_the_other_way(angle):
    images = _images(_pixels(2)).float()
    turned = _parameters(2, 32, 32, angle_B=torch.tensor([angle] * 2).deg2rad())
    other = _parameters(2, 32, 32, angle_B=torch.tensor([-angle] * 2).deg2rad())
    both = _parameters(2, 32, 32, angle_B=torch.tensor([angle] * 2).deg2rad(), flip_B=True)
    _close(resample(images, both, (32, 32), "zero"), resample(images, turned, (32, 32), "zero").flip(3), 0.01)
    _close(resample(images, both, (32, 32), "zero"), resample(images.flip(3), other, (32, 32), "zero"), 0.02)


@pytest.mark.parametrize("crop", [None, PadCropConfig(fill="zero"), RandomResizedCropConfig()])
@pytest.mark.parametrize("color", [None, ColorJitterConfig()])
def test_a_turn_by_nothing_changes_nothing(crop, color):
    plain = AugmentConfig(crop=crop, color=color)
    turning = AugmentConfig(crop=crop, color=color, rotation=RotationConfig(fill="zero" if crop else "reflect"))
    pixels = _pixels(6, 40, 40)
    numbers = draw(plain, 6, (40, 40), (32, 32), torch.Generator().manual_seed(0))
    still = Parameters(**{**vars(numbers), "angle_B": torch.zeros(6)})
    size = (32, 32)
    wanted = apply(plain, pixels, numbers, size, MEAN, STD, torch.float32)
    found = apply(turning, pixels, still, size, MEAN, STD, torch.float32)
    inner = (
        slice(2, -2) if isinstance(crop, RandomResizedCropConfig) else slice(None)
    )  # it blends with zero at a border
    _close(found[..., inner, inner], wanted[..., inner, inner], 1e-3)


def test_angles_are_drawn_evenly_between_both_ends():
    numbers = draw(
        AugmentConfig(rotation=RotationConfig(degrees=30)), 5000, (8, 8), (8, 8), torch.Generator().manual_seed(0)
    )
    assert numbers.angle_B is not None
    degrees = numbers.angle_B.rad2deg()
    assert (degrees.min().item(), degrees.max().item()) == pytest.approx((-30, 30), abs=0.1)
    assert degrees.mean().item() == pytest.approx(0, abs=0.6)
    assert degrees.std().item() == pytest.approx(30 / math.sqrt(3), abs=0.3)


@pytest.mark.parametrize("flip", [False, True])
def test_a_box_is_stretched_as_torchvision_stretches_it(flip):
    """To 0.02 of a level, where the box is not enlarged: beyond its edge ours sees the image, torchvision the edge."""
    images = _images(_pixels(4, 40, 48)).float()
    boxes = [(0, 0, 40, 48), (3, 5, 32, 36), (8, 16, 32, 32), (7, 0, 33, 47)]
    tops, lefts, heights, widths = ([float(number) for number in side] for side in zip(*boxes, strict=True))
    numbers = _parameters(4, 0, 0, top_B=tops, left_B=lefts, height_B=heights, width_B=widths, flip_B=flip)
    for image, box, found in zip(images, boxes, resample(images, numbers, (32, 32)), strict=True):
        wanted = reference.resized_crop(image, *box, [32, 32], antialias=False)
        _close(found, wanted.flip(2) if flip else wanted, 0.02)


# ── colours ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_colours_change_as_torchvisions(kind):
    pixels = _pixels(len(FACTORS))
    factors = torch.ones(len(FACTORS), 3)
    factors[:, ["brightness", "contrast", "saturation"].index(kind)] = torch.tensor(FACTORS)
    config = ColorJitterConfig(**{name: float(name == kind) for name in ("brightness", "contrast", "saturation")})
    found = color_jitter(pixels.float(), _parameters(len(FACTORS), 32, 32, factors_B3=factors), config)
    adjust = getattr(reference, f"adjust_{kind}")
    for image, factor, changed in zip(_images(pixels), FACTORS, _images(found), strict=True):
        _close(changed, 255 * adjust(image / 255, factor), 0.01)


def test_all_three_follow_each_other_and_factors_of_one_change_nothing():
    pixels = _pixels(2)
    numbers = _parameters(2, 32, 32, factors_B3=torch.tensor([[1.0, 1.0, 1.0], [1.3, 0.6, 1.5]]))
    found = _images(color_jitter(pixels.float(), numbers, ColorJitterConfig()))
    assert torch.equal(found[0], _images(pixels)[0].float())
    wanted = reference.adjust_brightness(_images(pixels)[1] / 255, 1.3)
    wanted = reference.adjust_saturation(reference.adjust_contrast(wanted, 0.6), 1.5)
    _close(found[1], 255 * wanted, 0.01)


def test_factors_are_drawn_for_each_image_between_both_ends_and_never_below_zero():
    config = AugmentConfig(color=ColorJitterConfig(brightness=0.4, contrast=3.0, saturation=0.0))
    factors = draw(config, 5000, (8, 8), (8, 8), torch.Generator().manual_seed(0)).factors_B3
    assert factors is not None
    assert factors.amin(0).tolist() == pytest.approx([0.6, 0.0, 1.0], abs=0.01)
    assert factors.amax(0).tolist() == pytest.approx([1.4, 4.0, 1.0], abs=0.01)
    assert len(factors[:, 0].unique()) > 4900


# ── TrivialAugment ───────────────────────────────────────────────────────────────────────────────────────────────────


def _torchvisions(name: str, image: Tensor, strength: float) -> Tensor:
    """What torchvision's TrivialAugmentWide does, by its own names."""
    theirs = {"shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX", "translate_y": "TranslateY"}
    theirs["autocontrast"] = "AutoContrast"
    policy = v2.TrivialAugmentWide()
    if name == "solarize":
        strength /= 255
    return policy._apply_image_or_video_transform(
        image, theirs.get(name, name.capitalize()), strength, policy.interpolation, policy._fill
    )


def test_operations_and_strengths_are_torchvisions():
    theirs = v2.TrivialAugmentWide._AUGMENTATION_SPACE
    assert [name.replace("_", "") for name in OPERATIONS] == [name.lower() for name in theirs]
    table, directed = strengths()
    for row, turns, (name, (steps, signed)) in zip(table, directed, theirs.items(), strict=True):
        wanted = steps(31, 32, 32)
        scale = 255 if name == "Solarize" else 1
        wanted = torch.zeros(31) if wanted is None else wanted.float() * scale
        _close(row, wanted.trunc() if name.startswith("Translate") else wanted, 1e-4)
        assert bool(turns) == signed


@pytest.mark.parametrize("number", range(len(OPERATIONS)), ids=list(OPERATIONS))
def test_every_operation_is_torchvisions_at_every_strength_in_both_directions(number):
    name = list(OPERATIONS)[number]
    table, directed = strengths()
    strength_B = torch.cat([table[number], -table[number]]) if directed[number] else table[number]
    pixels = _pixels(len(strength_B), 24, 32)
    pixels[0] = 77  # one flat image
    found = _images(trivial_augment(pixels.float(), torch.full((len(strength_B),), number), strength_B))
    for image, strength, changed in zip(_images(pixels), strength_B.tolist(), found, strict=True):
        rounded = _torchvisions(name, image, strength).float()
        if name in MOVING:  # pixels between two neighbours may take the other one
            assert (changed != rounded).any(0).float().mean() <= 0.01
        elif name in WHOLE:
            assert torch.equal(changed, rounded)
        else:
            _close(changed, rounded, 2.0)
            exact = 255 * _torchvisions(name, image / 255, strength)
            _close(changed, exact, 0.01)


def test_the_identity_changes_nothing_and_neither_does_any_operation_without_strength():
    pixels = _pixels(len(OPERATIONS)).float()
    made = trivial_augment(pixels, torch.zeros(len(OPERATIONS), dtype=torch.long), torch.rand(len(OPERATIONS)))
    assert torch.equal(made, pixels)
    table, directed = strengths()
    still = directed.nonzero().flatten()
    _close(trivial_augment(pixels[still], still, table[still, 0]), pixels[still], 1e-3)
    posterize = torch.tensor([list(OPERATIONS).index("posterize")])
    assert torch.equal(trivial_augment(pixels[:1], posterize, table[posterize, 0]), pixels[:1])  # all eight bits


def test_every_operation_and_both_directions_are_drawn_alike():
    operation_B, strength_B = draw_operations(14_000, torch.Generator().manual_seed(0))
    counts = operation_B.bincount(minlength=14)
    assert counts.min() > 880  # of 1,000 each
    assert counts.max() < 1120
    rotate = strength_B[operation_B == list(OPERATIONS).index("rotate")]
    assert (rotate.min().item(), rotate.max().item()) == (-135, 135)
    assert len(rotate.unique()) == 61
    assert (rotate > 0).float().mean().item() == pytest.approx(0.48, abs=0.06)


def test_an_image_is_changed_as_if_it_were_alone_and_the_levels_that_came_in_are_left():
    pixels = _pixels(40, 16, 16).float()
    before = pixels.clone()
    operation_B, strength_B = draw_operations(40, torch.Generator().manual_seed(0))
    whole = trivial_augment(pixels, operation_B, strength_B)
    assert torch.equal(pixels, before)
    for row in range(40):
        one = slice(row, row + 1)
        assert torch.equal(trivial_augment(pixels[one], operation_B[one], strength_B[one]), whole[one])


# ── mixing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixup_is_torchvisions(share):
    images, labels = torch.rand(6, 3, 8, 8), torch.arange(6)
    theirs = v2.MixUp(num_classes=6)
    theirs.make_params = lambda _: {"lam": share}
    wanted, wanted_labels = theirs(images, labels)
    found = mix(images, images.roll(1, 0), torch.full((6,), share), None)
    _close(found, wanted, 1e-6)
    _close(share * torch.eye(6) + (1 - share) * torch.eye(6).roll(1, 0), wanted_labels, 1e-6)


def test_cutmix_is_torchvisions_box_share_and_pixels(monkeypatch):
    images, labels = torch.rand(4, 3, 9, 14), torch.arange(4)
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(60, generator=generator, dtype=torch.float64)
    rows, columns = torch.randint(9, (60,), generator=generator), torch.randint(14, (60,), generator=generator)
    left_B, box_B4 = cut(shares, rows, columns, (9, 14))
    for share, row, column, left, box in zip(shares, rows, columns, left_B, box_B4, strict=True):
        theirs, middles = v2.CutMix(num_classes=4), iter([column[None], row[None]])  # it asks for x first
        theirs._dist.sample = lambda _, share=share: share
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", lambda *_, **__: next(middles))  # noqa: B023 - asked for at once
            params = theirs.make_params([images])
        top, bottom, first, last = box.tolist()
        assert params["box"] == (first, top, last, bottom)
        assert left.item() == pytest.approx(params["lam_adjusted"], abs=1e-6)
        wanted = theirs.transform(images, {**params, "labels": labels, "batch_size": 4})
        found = mix(images, images.roll(1, 0), left.expand(4), box.expand(4, 4))
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 5.0])
def test_the_area_of_a_box_is_what_the_partner_has_of_the_label(alpha):
    mixing = draw_mixing(CutmixConfig(alpha=alpha), 500, (12, 10), torch.Generator().manual_seed(0))
    partners = torch.ones(500, 1, 12, 10)
    shown = mix(torch.zeros(500, 1, 12, 10), partners, mixing.share_B, mixing.box_B4)
    assert torch.equal(shown.sum(dim=(1, 2, 3)), ((1 - mixing.share_B) * 120).round())
    assert torch.equal(1 - shown.sum(dim=(1, 2, 3)).long() / 120, mixing.share_B)  # exactly, boxes at the border too
    assert mixing.box_B4 is not None
    assert (mixing.box_B4[:, 0] == 0).any()
    assert (mixing.box_B4[:, 1] == 12).any()


@pytest.mark.parametrize("config", [MixupConfig(alpha=0.4), CutmixConfig(alpha=1.0)])
def test_partners_are_a_permutation_and_each_image_has_a_share_of_its_own(config):
    mixing = draw_mixing(config, 1000, (32, 32), torch.Generator().manual_seed(0))
    assert sorted(mixing.partner_B.tolist()) == list(range(1000))
    assert len(mixing.share_B.unique()) > 100  # boxes have a limited number of areas
    assert mixing.share_B.min() >= 0
    assert mixing.share_B.max() <= 1


@pytest.mark.parametrize("alpha", [1e-6, 0.2, 1.0, 8.0, 1e6])
def test_shares_have_the_mean_and_deviation_of_their_beta_distribution(alpha):
    shares = draw_mixing(MixupConfig(alpha=alpha), 5000, (8, 8), torch.Generator().manual_seed(0)).share_B
    deviation = 0.5 / math.sqrt(2 * alpha + 1)
    assert shares.mean().item() == pytest.approx(0.5, abs=0.06 * deviation + 1e-6)
    assert shares.std().item() == pytest.approx(deviation, rel=0.05)


def test_mixed_images_that_are_all_one_stay_one():
    for config in (MixupConfig(alpha=1.0), CutmixConfig()):
        mixing = draw_mixing(config, 50, (8, 8), torch.Generator().manual_seed(0))
        ones = torch.ones(50, 3, 8, 8)
        _close(mix(ones, ones, mixing.share_B, mixing.box_B4), ones, 1e-6)  # shares sum to one


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_a_mixed_batch_is_the_cross_entropy_with_mixed_labels(smoothing):
    images, labels, partners = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 1, 0, 0, 2, 2])
    shares = torch.tensor([0.0, 0.25, 0.5, 0.75, 0.9, 1.0])
    network = torch.nn.Identity()
    found, logits = classification_loss(network, Batch(images, labels, 0, 0, 1.0, partners, shares), smoothing)
    mixed = shares[:, None] * torch.eye(4)[labels] + (1 - shares[:, None]) * torch.eye(4)[partners]
    _close(found, functional.cross_entropy(images, mixed, label_smoothing=smoothing), 1e-6)
    assert torch.equal(logits, images)
    plain, _ = classification_loss(network, Batch(images, labels, 0, 0), smoothing)
    assert torch.equal(plain, functional.cross_entropy(images, labels, label_smoothing=smoothing))


def test_the_label_that_counts_is_the_images_own_where_it_has_at_least_a_half():
    labels, partners = torch.tensor([1, 1, 1, 1]), torch.tensor([2, 2, 2, 2])
    shares = torch.tensor([0.2, 0.49, 0.5, 0.9])
    assert Batch(torch.zeros(4), labels, 0, 0, 1.0, partners, shares).main_labels.tolist() == [2, 2, 1, 1]
    assert Batch(torch.zeros(4), labels, 0, 0).main_labels is labels


# ── all together ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("crop", [None, PadCropConfig(), PadCropConfig(fill="zero"), RandomResizedCropConfig()])
@pytest.mark.parametrize("turning", [False, True])
@pytest.mark.parametrize("colored", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whatever_is_asked_for_a_batch_is_channels_last_and_an_image_is_made_as_if_alone(crop, turning, colored, dtype):
    fill = crop.fill if isinstance(crop, PadCropConfig) else "zero"
    config = AugmentConfig(
        crop=crop,
        rotation=RotationConfig(fill=fill) if turning else None,
        policy=TrivialAugmentConfig() if colored else None,
        color=ColorJitterConfig() if colored else None,
        cutout=CutoutConfig(size=3),
    )
    pixels = _pixels(7, 20, 20)
    before = pixels.clone()
    numbers = draw(config, 7, (20, 20), (16, 16), torch.Generator().manual_seed(3))
    whole = apply(config, pixels, numbers, (16, 16), MEAN, STD, dtype)
    assert whole.shape == (7, 3, 16, 16)
    assert whole.dtype == dtype
    assert whole.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, before)
    for rows in (slice(2, 3), torch.tensor([5, 0, 3])):
        some = apply(config, pixels[rows], numbers.part(rows, torch.device("cpu")), (16, 16), MEAN, STD, dtype)
        assert torch.equal(some, whole[rows])


@pytest.mark.parametrize("color", [None, ColorJitterConfig(brightness=0, contrast=0, saturation=0.5)])
def test_outside_of_a_turned_image_is_the_mean_colour(color):
    config = AugmentConfig(flip="none", rotation=RotationConfig(degrees=45, fill="zero"), color=color)
    numbers = _parameters(1, 32, 32, angle_B=torch.tensor([45.0]).deg2rad(), factors_B3=torch.ones(1, 3))
    images = apply(config, _pixels(1), numbers, (32, 32), MEAN, STD, torch.float32)
    for row, column in ((0, 0), (0, 31), (31, 0), (31, 31)):
        _close(images[0, :, row, column], torch.zeros(3), 1e-5)
