"""A generator of images of a class, and a discriminator that tells real from generated and names the class (ACGAN).

B images, K classes, Z numbers of noise, channels D, height H, width W. Images lie between -1 and 1.

The two learn against each other, a step each in turn: ``discriminator_loss`` and ``generator_loss`` are plain functions
of both. Nothing here draws from PyTorch's own generators but dropout and the first weights.

Source:
    Odena, Olah and Shlens, "Conditional Image Synthesis with Auxiliary Classifier GANs", ICML 2017. What keeps the
    training stable: spectral normalization (Miyato et al., ICLR 2018), the penalty R1 (Mescheder et al., ICML 2018),
    and differentiable augmentation (Zhao et al., NeurIPS 2020).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

from sightline.config.acgan import ACGANConfig, Disguise

__all__ = [
    "ACGAN",
    "Discriminator",
    "Generator",
    "discriminator_loss",
    "disguise",
    "generator_loss",
    "gradient_penalty",
    "settle",
]

DEVIATION = 0.02  # of the first weights; Odena et al., 2017, appendix A
SLOPE = 0.2  # of the discriminator's activations below zero
BRIGHTNESS, SATURATION, CONTRAST = 0.5, (0.0, 2.0), (0.5, 1.5)  # Zhao et al., 2020
SETTLED = 20  # iterations
SHIFT = 1 / 8  # of a side, at most
HOLE = 1 / 2  # side of what is cut out, as a share of the image's


class ACGAN(nn.Module):
    """A generator and a discriminator of the same classes."""

    def __init__(self, config: ACGANConfig, classes: int, size: tuple[int, int]) -> None:
        """
        Args:
            config: their widths, and what keeps the training stable.
            classes: how many there are.
            size: (height, width) of the images in pixels, multiples of ``config.side_multiple``.
        """
        super().__init__()
        self.generator = Generator(config, classes, size)
        self.discriminator = Discriminator(config, classes, size)

    def forward(self, images_BCHW: Tensor, noise_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Compute what a step of learning does: logits of the classes of real, then of generated images, (2B, K)."""
        generated_BCHW = self.generator(noise_BZ, labels_B)
        return torch.cat([self.discriminator(images)[1] for images in (images_BCHW, generated_BCHW)])

    def example(self, size: tuple[int, int], count: int = 1) -> tuple[Tensor, ...]:
        """Return what the networks take: images of nothing but zeros, of a (height, width) in pixels; noise, labels."""
        noise = torch.zeros(count, self.generator.noise_width)
        return torch.zeros(count, 3, *size), noise, torch.zeros(count, dtype=torch.long)


class Generator(nn.Module):
    """Images of a class out of noise: a linear layer, and transposed convolutions that double the side."""

    def __init__(self, config: ACGANConfig, classes: int, size: tuple[int, int]) -> None:
        """
        Args:
            config: the noise, the widths of the maps, the coarsest first, of which each has half the side of the one
                after it, and how often the images are enlarged at the end.
            classes: K.
            size: of the images.
        """
        super().__init__()
        self.noise_width, self.classes, self.patch = config.noise_width, classes, config.patch
        widths = config.widths
        self.coarsest = (widths[0], *(side // config.patch // 2 ** len(widths) for side in size))
        self.linear = nn.Linear(config.noise_width + classes, math.prod(self.coarsest))
        layers: list[nn.Module] = []
        for width, channels in zip(widths, [*widths[1:], 1 if config.grey else 3], strict=True):
            layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.ConvTranspose2d(width, channels, 5, 2, 2, output_padding=1)]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        self.apply(begin)

    def forward(self, noise_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Make images of classes, (B, 3, H, W), from -1 to 1."""
        classes_BK = functional.one_hot(labels_B, self.classes).to(noise_BZ.dtype)
        maps = self.linear(torch.cat([noise_BZ, classes_BK], 1)).unflatten(1, self.coarsest)
        images: Tensor = self.layers(maps.contiguous(memory_format=torch.channels_last))
        if self.patch > 1:
            images = functional.interpolate(images, scale_factor=self.patch, mode="bicubic").clamp(-1, 1)
        return images.expand(-1, 3, -1, -1)


class Discriminator(nn.Module):
    """Tells whether an image is real, and of which class: convolutions of which every other one halves the side."""

    def __init__(self, config: ACGANConfig, classes: int, size: tuple[int, int]) -> None:
        """
        Args:
            config: the widths of the layers, the finest first; pixels of a side of which it sees the mean (``patch``);
                dropout; ``spectral`` holds the largest factor by which a layer can stretch its input at 1, without
                norms.
            classes: K.
            size: of the images.
        """
        super().__init__()
        self.patch = config.patch
        layers: list[nn.Module] = []
        width, sides = 3, [side // config.patch for side in size]
        for index, channels in enumerate(config.discriminator_widths):
            halves = index % 2 == 0
            layers.append(nn.Conv2d(width, channels, 3, 2 if halves else 1, 1))
            layers += [] if config.spectral or index == 0 else [nn.BatchNorm2d(channels)]
            layers.append(nn.LeakyReLU(SLOPE))
            layers += [nn.Dropout(config.dropout)] if config.dropout else []
            sides = [(side + 1) // 2 for side in sides] if halves else sides
            width = channels
        self.layers = nn.Sequential(*layers)
        self.real = nn.Linear(width * math.prod(sides), 1)
        self.label = nn.Linear(width * math.prod(sides), classes)
        self.apply(begin)
        if config.spectral:
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    spectral_norm(module)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of being real, (B,), and of the classes, (B, K)."""
        if self.patch > 1:  # times their side, or they would lie that much nearer together than all their pixels do
            images_BCHW = functional.avg_pool2d(images_BCHW, self.patch) * self.patch
        features_BD = self.layers(images_BCHW).flatten(1)
        return self.real(features_BD)[:, 0], self.label(features_BD)


def begin(module: nn.Module) -> None:
    """Draw the first weights of a layer."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0, DEVIATION)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def settle(network: nn.Module) -> None:
    """Measure anew how far layers stretch what they are given, where spectral normalization asks for it.

    The estimate follows the weights a step at a time; an average of weights comes with an average of estimates, which
    says nothing of it.
    """
    for module in network.modules():
        if is_parametrized(module, "weight"):
            training = module.training
            module.train()
            for _ in range(SETTLED):
                _ = module.weight  # computed when it is asked for, with one iteration of the estimate
            module.train(training)


# ── learning ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Losses:
    """The loss that one step has to lower, and its parts, each a scalar."""

    total: Tensor
    source: Tensor
    """Of telling real from generated."""
    label: Tensor
    """Of naming the class."""


def discriminator_loss(
    discriminator: nn.Module, real_BCHW: Tensor, generated_BCHW: Tensor, labels_B: Tensor, *, penalty: float = 0.0
) -> Losses:
    """Return what the discriminator lowers: mistakes in telling real from generated, and in naming the class of either.

    Args:
        discriminator: as ``Discriminator``.
        real_BCHW: real images, as they are shown to it.
        generated_BCHW: generated images of the same classes, which no gradient reaches.
        labels_B: the classes of both.
        penalty: weight of ``gradient_penalty``.
    Source:
        Odena et al., 2017, eq. 2 and 3, as cross-entropies to lower.
    """
    if penalty:
        real_BCHW = real_BCHW.detach().requires_grad_()
    # each by itself, as the generator's step shows them: batch-norm over both would change generated images there
    real_B, real_label_BK = discriminator(real_BCHW)
    generated_B, generated_label_BK = discriminator(generated_BCHW.detach())
    source = functional.softplus(-real_B).mean() + functional.softplus(generated_B).mean()
    label = functional.cross_entropy(torch.cat([real_label_BK, generated_label_BK]), torch.cat([labels_B, labels_B]))
    total = source + label
    if penalty:
        total = total + penalty * gradient_penalty(real_B, real_BCHW)
    return Losses(total, source, label)


def generator_loss(discriminator: nn.Module, generated_BCHW: Tensor, labels_B: Tensor) -> Losses:
    """Return what the generator lowers: that its images are taken for generated, or for another class.

    Args:
        discriminator: its weights are held; only the images get a gradient.
        generated_BCHW: of the generator, as they are shown to the discriminator.
        labels_B: the classes they were asked for.
    Source:
        Odena et al., 2017; the non-saturating form of Goodfellow et al., "Generative Adversarial Nets", 2014.
    """
    real_B, label_BK = discriminator(generated_BCHW)
    source, label = functional.softplus(-real_B).mean(), functional.cross_entropy(label_BK, labels_B)
    return Losses(source + label, source, label)


def gradient_penalty(real_B: Tensor, images_BCHW: Tensor) -> Tensor:
    """Return R1: half the squared length of the gradient of an image's logit of being real, the mean over images.

    Args:
        real_B: logits of real images.
        images_BCHW: those images, which gradients are followed to.
    Source:
        Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do actually Converge?", ICML 2018, eq. 9.
    """
    (gradient_BCHW,) = torch.autograd.grad(real_B.sum(), images_BCHW, create_graph=True)
    return gradient_BCHW.square().sum((1, 2, 3)).mean() / 2


# ── disguises ────────────────────────────────────────────────────────────────────────────────────────────────────────


def disguise(images_BCHW: Tensor, kinds: Sequence[Disguise], draws: torch.Generator) -> Tensor:
    """Change images at random, each in its own way, so that a gradient passes through.

    The discriminator sees real and generated images only like this, so it cannot learn few real ones by heart, and the
    generator still has to make images without a disguise.

    Args:
        images_BCHW: from -1 to 1.
        kinds: which changes, in this order: ``color`` (brightness, saturation, contrast), ``translation`` (up to an
            eighth of a side, zeros come in), ``cutout`` (a square of half a side becomes zero).
        draws: of the processor.
    Source:
        Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020.
    """
    for kind in kinds:
        match kind:
            case "color":
                images_BCHW = _recolored(images_BCHW, draws)
            case "translation":
                images_BCHW = _shifted(images_BCHW, draws)
            case "cutout":
                images_BCHW = _cut(images_BCHW, draws)
    return images_BCHW


def _recolored(images: Tensor, draws: torch.Generator) -> Tensor:
    drawn = torch.rand(3, len(images), 1, 1, 1, generator=draws).to(images, non_blocking=True)
    images = images + (2 * drawn[0] - 1) * BRIGHTNESS
    gray = images.mean(1, keepdim=True)
    images = gray + (images - gray) * _between(SATURATION, drawn[1])
    level = images.mean((1, 2, 3), keepdim=True)
    return level + (images - level) * _between(CONTRAST, drawn[2])


def _between(ends: tuple[float, float], share: Tensor) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * share


def _shifted(images: Tensor, draws: torch.Generator) -> Tensor:
    height, width = images.shape[2:]
    rows_BH1 = _places(len(images), height, int(SHIFT * height + 0.5), draws)[:, :, None]
    columns_B1W = _places(len(images), width, int(SHIFT * width + 0.5), draws)[:, None, :]
    each = torch.arange(len(images))[:, None, None]
    padded = functional.pad(images, (1, 1, 1, 1))  # places before the first and behind the last are zero
    where = (item.to(images.device, non_blocking=True) for item in (each, rows_BH1, columns_B1W))
    moved: Tensor = padded.permute(0, 2, 3, 1)[tuple(where)].permute(0, 3, 1, 2)
    return moved


def _places(count: int, side: int, most: int, draws: torch.Generator) -> Tensor:
    """Return the row, or column, that each pixel is taken from, in an image with one more at both ends."""
    shift_B = torch.randint(-most, most + 1, (count,), generator=draws)
    return (torch.arange(side)[None] + shift_B[:, None] + 1).clamp(0, side + 1)


def _cut(images: Tensor, draws: torch.Generator) -> Tensor:
    inside: list[Tensor] = []
    for side in images.shape[2:]:
        hole = int(side * HOLE + 0.5)
        start_B = torch.randint(0, side + 1 - hole % 2, (len(images),), generator=draws) - hole // 2
        place = torch.arange(side)[None]
        inside.append((place >= start_B[:, None]) & (place < start_B[:, None] + hole))
    keep = ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])
    return images * keep.to(images, non_blocking=True)
