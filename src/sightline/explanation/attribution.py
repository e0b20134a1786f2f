"""Attribution methods: which pixels spoke for a class. Each is a function on tensors; captum computes most of them.

B images, C channels, H × W pixels, K classes.

A class is asked about by its logit. Where a method compares with an image that says nothing, its baseline, that is the
mean image of the training's normalisation: zero after it. Everything is computed in float32. captum sets hooks on the
network and seeds the global generators meanwhile: explain in one thread at a time.

Source:
    saliency: Simonyan et al., "Deep Inside Convolutional Networks", 2014. integrated_gradients: Sundararajan et al.,
    "Axiomatic Attribution for Deep Networks", ICML 2017; smoothed: Smilkov et al., "SmoothGrad", 2017, and its square:
    Hooker et al., "A Benchmark for Interpretability Methods", NeurIPS 2019. deeplift: Shrikumar et al., "Learning
    Important Features Through Propagating Activation Differences", ICML 2017, rescale rule. occlusion: Zeiler and
    Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014. gradient_shap: Lundberg and Lee, "A
    Unified Approach to Interpreting Model Predictions", NeurIPS 2017. grad_cam and attention: ``models/gradcam.py``,
    ``models/rollout.py``.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from sightline.config.explaining import COMPLETE, AttributionConfig, Method
from sightline.explanation.requirements import layer_named, refuse_unfit, window_of
from sightline.machine.devices import exact_dtype, generators_kept, seed_generators
from sightline.models.base import Network
from sightline.models.deeplift import refuse_without_rules, rules
from sightline.models.gradcam import grad_cam
from sightline.models.rollout import attention

__all__ = [
    "Attribution",
    "attribute",
    "completeness_gaps",
    "deeplift",
    "gradient_shap",
    "integrated_gradients",
    "integrated_gradients_smoothgrad",
    "occlusion",
    "saliency",
]

PIXELS = 256 * 32 * 32  # of the images that are computed side by side on a processor
CLOSE = 0.01  # of the difference to the baseline: a larger gap asks for more steps
# 64 were enough for all of 20 images of a speednet (CIFAR-10) and for 13 of 20 of a ResNet-18 (photographs of hands).
# An EfficientNet-Lite0 (ImageNet, 3 photographs at 224 px) is at 9 to 11 % with 64 and at 0.3 to 2.2 % with 256.
STEPS, MOST_STEPS, STEPS_WITH_NOISE = 64, 4096, 16
MOST_PIXELS = 1024 * 128 * 128  # steps × pixels of an image, where nobody asked for a number: at 224 px 256 steps
SAMPLES_SMOOTHGRAD, NOISE_SMOOTHGRAD = 8, 0.15
SAMPLES_SHAP, NOISE_SHAP, COLORS_SHAP = 64, 0.1, 64
SEED = 42  # of every image's noise, so that a map depends on nothing but the image
NEGLIGIBLE = 1e-5  # difference of two activations below which their ratio would be rounding noise


@dataclass(frozen=True)
class Attribution:
    """The maps of some images by one method."""

    maps_BHW: Tensor
    gaps_B: Tensor | None
    """Share of the difference to the baseline that the map fails to add up to; None where a method promises no sum."""


def attribute(
    method: Method,
    network: Network,
    images_BCHW: Tensor,
    classes_B: Tensor,
    settings: AttributionConfig,
) -> Attribution:
    """Explain images by one method, so many at a time as fit.

    Args:
        method: by its name.
        network: in evaluation mode; its parameters and their gradients are left as they are.
        images_BCHW: normalized.
        classes_B: the class of each image that is asked about, as its index.
        settings: numbers of the methods; those of others are not read.
    Raises:
        ConfigError: the network lacks what the method needs.
    """
    rows = max(1, PIXELS // (images_BCHW.shape[2] * images_BCHW.shape[3])) * (8 if images_BCHW.is_cuda else 1)
    refuse_unfit(method, network, images_BCHW, settings)
    layer = layer_named(network, settings.layer, images_BCHW) if method == "grad_cam" else nn.Identity()
    steps, samples, noise = settings.steps, settings.samples, settings.noise

    def some(images: Tensor, classes: Tensor) -> Tensor:
        match method:
            case "saliency":
                return saliency(network, images, classes)
            case "integrated_gradients":
                if steps is not None:
                    return integrated_gradients(network, images, classes, steps, rows)
                return _refined(network, images, classes, rows)
            case "integrated_gradients_smoothgrad":
                return integrated_gradients_smoothgrad(
                    *(network, images, classes, steps or STEPS_WITH_NOISE, samples or SAMPLES_SMOOTHGRAD),
                    noise or NOISE_SMOOTHGRAD,
                    rows,
                )
            case "deeplift":
                return deeplift(network, images, classes)
            case "occlusion":
                return occlusion(network, images, classes, *window_of(settings, images), rows)
            case "gradient_shap":
                return gradient_shap(network, images, classes, samples or SAMPLES_SHAP, noise or NOISE_SHAP, rows)
            case "grad_cam":
                return grad_cam(network, images, classes, layer)
            case "attention":
                return attention(network, images)

    maps_BHW = torch.cat([some(*part) for part in _parts(images_BCHW, classes_B, rows)]).detach()
    complete = method in COMPLETE
    return Attribution(maps_BHW, completeness_gaps(network, images_BCHW, classes_B, maps_BHW) if complete else None)


def completeness_gaps(network: Network, images_BCHW: Tensor, classes_B: Tensor, maps_BHW: Tensor) -> Tensor:
    """Measure how far maps are from adding up to what each image does to the logit of its class.

    Returns:
        (B,), exact: |sum of the map - (logit of the image - logit of the mean image)|, as a share of that difference.
    """
    with torch.no_grad():
        logits_B = _logits(network, images_BCHW, classes_B)
        baseline_1K: Tensor = network(torch.zeros_like(images_BCHW[:1])).to(exact_dtype(images_BCHW.device))
    differences_B: Tensor = logits_B - baseline_1K[0, classes_B]
    gaps_B: Tensor = (maps_BHW.to(differences_B.dtype).sum(dim=(1, 2)) - differences_B).abs()
    return gaps_B / differences_B.abs().clamp(min=torch.finfo(torch.float32).tiny)


# ── by the gradient ──────────────────────────────────────────────────────────────────────────────────────────────────


def saliency(network: Network, images_BCHW: Tensor, classes_B: Tensor) -> Tensor:
    """Compute the largest change of the logit by a small step of any channel of a pixel, (B, H, W), from 0 up."""
    from captum.attr import Saliency

    with _quiet():
        changes_BCHW: Tensor = Saliency(network).attribute(_leaf(images_BCHW), target=classes_B, abs=True)
    return changes_BCHW.amax(dim=1)


def integrated_gradients(
    network: Network, images_BCHW: Tensor, classes_B: Tensor, steps: int, rows: int | None = None
) -> Tensor:
    """Compute the gradient's mean on the straight way from the mean image, times the way; summed over channels.

    Args:
        network: in evaluation mode.
        images_BCHW: normalized.
        classes_B: indices of classes.
        steps: points on the way, at those of Gauss and Legendre.
        rows: images that are computed side by side; None for all.
    Returns:
        (B, H, W), of either sign, in units of the logit.
    """
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(network)
    at_once = len(images_BCHW) if rows is None else max(1, rows // steps)
    with _quiet():
        maps = [
            method.attribute(images, target=classes, n_steps=steps, internal_batch_size=rows and max(rows, len(images)))
            for images, classes in _parts(images_BCHW, classes_B, at_once)
        ]
    return torch.cat(maps).float().sum(dim=1)


def integrated_gradients_smoothgrad(
    network: Network,
    images_BCHW: Tensor,
    classes_B: Tensor,
    steps: int,
    samples: int,
    noise: float,
    rows: int | None = None,
) -> Tensor:
    """Average the squared integrated gradients of noisy copies (SmoothGrad-Squared), (B, H, W), from 0 up.

    Args:
        network, images_BCHW, classes_B, steps, rows: as ``integrated_gradients`` has them.
        samples: copies of an image; every image's noise is the same.
        noise: its standard deviation, in those of the training images' pixels.
    """
    from captum.attr import IntegratedGradients, NoiseTunnel

    method = NoiseTunnel(IntegratedGradients(network))

    def one(image_1CHW: Tensor, class_1: Tensor) -> Tensor:
        map_1CHW: Tensor = method.attribute(
            image_1CHW,
            nt_type="smoothgrad_sq",
            nt_samples=samples,
            nt_samples_batch_size=samples if rows is None else max(1, rows // steps),
            stdevs=float(noise),
            target=class_1,
            n_steps=steps,
            internal_batch_size=rows and max(rows, samples),
        )
        return map_1CHW

    return _one_by_one(one, images_BCHW, classes_B)


def gradient_shap(
    network: Network, images_BCHW: Tensor, classes_B: Tensor, samples: int, noise: float, rows: int | None = None
) -> Tensor:
    """Average gradients at random points between noisy copies of an image and random baselines, times the way.

    The baselines are plain images, of colors that are distributed as the pixels of the training images are: by the mean
    and the deviation of each channel.

    Args:
        network, images_BCHW, classes_B, rows: as ``integrated_gradients`` has them.
        samples: copies of an image; every image's random numbers are the same.
        noise: standard deviation of the noise, in those of the training images' pixels.
    Returns:
        (B, H, W), of either sign, in units of the logit.
    """
    from captum.attr import GradientShap

    method = GradientShap(network)
    at_once = min(rows or samples, samples)

    def one(image_1CHW: Tensor, class_1: Tensor) -> Tensor:
        colors = torch.randn(COLORS_SHAP, image_1CHW.shape[1], 1, 1).to(image_1CHW)
        baselines = colors.expand(-1, -1, *image_1CHW.shape[2:]).contiguous()
        counts = [min(at_once, samples - start) for start in range(0, samples, at_once)]
        parts = [
            count * method.attribute(image_1CHW, baselines, n_samples=count, stdevs=float(noise), target=class_1)
            for count in counts  # captum would compute all of them at once
        ]
        return torch.stack(parts).sum(dim=0) / samples

    return _one_by_one(one, images_BCHW, classes_B)


def deeplift(network: Network, images_BCHW: Tensor, classes_B: Tensor) -> Tensor:
    """Propagate the difference to the mean image from the logit to the pixels, layer by layer (rescale rule).

    captum knows few of the layers that are not linear, and for the others passes their gradient on without a word, so
    the map no longer adds up. Here GELU and its like have a rule as well, and what is left is refused.

    Returns:
        (B, H, W), of either sign, in units of the logit.
    Raises:
        ConfigError: the network computes something that there is no rule for.
    """
    from captum.attr import DeepLift
    from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR

    refuse_without_rules(network, images_BCHW[:1])
    # captum replaces the whole gradient of what a layer reads, also that of others who read it: each reads a copy.
    own = [module for module in network.modules() if type(module) in rules()]
    hooks = [module.register_forward_pre_hook(lambda _, read: tuple(item.clone() for item in read)) for module in own]
    try:
        with _quiet(), patch.dict(SUPPORTED_NON_LINEAR, rules(), clear=True):
            map_BCHW: Tensor = DeepLift(network, eps=NEGLIGIBLE).attribute(_leaf(images_BCHW), target=classes_B)
    finally:
        for hook in hooks:
            hook.remove()
    return map_BCHW.detach().sum(dim=1)


# ── without a gradient ───────────────────────────────────────────────────────────────────────────────────────────────


def occlusion(
    network: Network, images_BCHW: Tensor, classes_B: Tensor, window: int, stride: int, rows: int | None = None
) -> Tensor:
    """Measure how much the logit falls when a square is covered by the mean color; where squares overlap, the mean.

    Args:
        network, images_BCHW, classes_B: as ``integrated_gradients`` has them.
        window: side of the square, in pixels.
        stride: pixels from one square to the next.
        rows: images that are computed side by side; None for one square at a time.
    Returns:
        (B, H, W), of either sign, in units of the logit.
    """
    from captum.attr import Occlusion

    channels = images_BCHW.shape[1]
    with _quiet(), torch.no_grad():
        map_BCHW: Tensor = Occlusion(network).attribute(
            images_BCHW,
            sliding_window_shapes=(channels, window, window),
            strides=(channels, stride, stride),
            baselines=0,
            target=classes_B,
            perturbations_per_eval=max(1, (rows or 0) // len(images_BCHW)),
        )
    return map_BCHW[:, 0]  # all channels are covered at once


# ── what they share ──────────────────────────────────────────────────────────────────────────────────────────────────


def _refined(network: Network, images_BCHW: Tensor, classes_B: Tensor, rows: int) -> Tensor:
    """Integrate gradients with more steps for the images whose maps do not add up, as long as they are affordable."""
    steps, maps_BHW = STEPS, integrated_gradients(network, images_BCHW, classes_B, STEPS, rows)
    most = min(MOST_STEPS, MOST_PIXELS // (images_BCHW.shape[2] * images_BCHW.shape[3]))
    while 4 * steps <= most:
        gaps_B = completeness_gaps(network, images_BCHW, classes_B, maps_BHW)
        (coarse,) = (gaps_B > CLOSE).nonzero(as_tuple=True)
        if not len(coarse):
            break
        steps *= 4
        maps_BHW[coarse] = integrated_gradients(network, images_BCHW[coarse], classes_B[coarse], steps, rows)
    return maps_BHW


def _parts(images_BCHW: Tensor, classes_B: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over the images with their classes, so many at a time."""
    for start in range(0, len(images_BCHW), count):
        yield images_BCHW[start : start + count], classes_B[start : start + count]


def _logits(network: Network, images_BCHW: Tensor, classes_B: Tensor) -> Tensor:
    logits_BK: Tensor = network(images_BCHW)
    return logits_BK.to(exact_dtype(logits_BK.device)).gather(1, classes_B.unsqueeze(1)).squeeze(1)


def _leaf(images_BCHW: Tensor) -> Tensor:
    return images_BCHW.detach().clone().requires_grad_()


def _one_by_one(attribute_one: Callable[[Tensor, Tensor], Tensor], images_BCHW: Tensor, classes_B: Tensor) -> Tensor:
    """Explain images one at a time, each with the same random numbers; summed over channels, (B, H, W)."""
    maps = []
    for image_1CHW, class_1 in _parts(images_BCHW, classes_B, 1):
        with _quiet(), _seeded(image_1CHW.device):
            maps.append(attribute_one(image_1CHW, class_1))
    return torch.cat(maps).float().sum(dim=1)


def _quiet() -> AbstractContextManager[object]:
    return warnings.catch_warnings(action="ignore", category=UserWarning)  # captum warns of what it does on purpose


@contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    """Seed the global generators of PyTorch and NumPy, from which captum draws, and put them back."""
    state = np.random.get_state()
    with generators_kept(device):
        seed_generators(device, SEED)
        np.random.seed(SEED)
        try:
            yield
        finally:
            np.random.set_state(state)
