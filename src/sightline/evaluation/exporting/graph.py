"""A finished classifier as one graph, from uint8 pixels to calibrated answers, and the ONNX model that it becomes.

B images, V views, height H and width W, P = H × W positions, K classes, D features, R axes.
"""

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sightline.data.augment.augment import center
from sightline.errors import ConfigError
from sightline.inference.classifier import Classifier
from sightline.inference.ood import HEAD, Reference, pooled_features
from sightline.inference.views import VIEWS, Views, combine, logits_of_views, shown
from sightline.measures.mahalanobis import FARTHEST
from sightline.models.base import recorded

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["INPUT", "OPSET", "OUTPUTS", "VIEWS_INPUT", "ClassifierGraph", "kind_of", "to_onnx", "why_not"]

OPSET = 20  # the first with Gelu as one operator
INPUT, VIEWS_INPUT = "pixels", "views"
OUTPUTS = ("probabilities", "logits", "unknown_score")


class ClassifierGraph(nn.Module):
    """All that ``Classifier`` computes of an image, by tensors alone, as its exported file will."""

    scale_C: Tensor
    shift_C: Tensor
    places_VP: Tensor
    """Which pixel of a cached image each pixel of each view shows."""
    weights_V: Tensor
    temperatures: Tensor
    """By the number of views, from 0."""
    prior_K: Tensor
    mean_D: Tensor
    axes_DR: Tensor
    variances_R: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        views = shown(classifier.views)
        self.network = classifier.network
        self.size = classifier.size
        self.reference = classifier.reference
        self.scored = classifier.trust is not None
        scale_C, shift_C = 1 / (classifier.std * 255), -classifier.mean / classifier.std
        self.constant("scale_C", scale_C)
        self.constant("shift_C", shift_C)
        self.constant("places_VP", places_of_views(classifier.resize, classifier.size, views))
        each_VV1 = np.eye(VIEWS[views], dtype=np.float32)[..., None]  # of one view 1, of the others 0
        self.constant("weights_V", torch.from_numpy(combine(each_VV1, views)[:, 0]))
        self.constant("temperatures", temperatures_by_count(classifier))
        prior_K = classifier.model.get("prior_shift") or [0.0] * len(classifier.classes)
        self.constant("prior_K", torch.tensor(prior_K, dtype=torch.float32))
        if self.reference is not None:
            normal = self.reference.normal
            self.constant("mean_D", torch.from_numpy(normal.mean_D))
            self.constant("axes_DR", torch.from_numpy(normal.axes_RD).T.contiguous())
            self.constant("variances_R", torch.from_numpy(normal.variances_R))

    def constant(self, name: str, value: Tensor) -> None:
        """Keep a tensor that never learns."""
        self.register_buffer(name, value.detach().clone())

    def forward(self, pixels_BHWC: Tensor, views_V: Tensor) -> tuple[Tensor, ...]:
        """Answer for images at the cached size.

        Args:
            pixels_BHWC: uint8.
            views_V: indices of the views to average, in the order of ``inference.views``; int64.
        Returns:
            Calibrated probabilities, (B, K); the averaged logits, before temperature and prior, (B, K); and of a
            classifier with a threshold for it the score of images of no class, (B,).
        """
        images, views = pixels_BHWC.shape[0], views_V.shape[0]
        seen = self.see(pixels_BHWC, views_V)
        watched = {} if self.reference is None else {"layer": self.network.get_submodule(self.reference.layer)}
        with recorded(watched, lambda inputs, output: (inputs, output)) as calls:
            logits_VBK = self.network(seen).float().reshape(views, images, -1)
        weights_V11 = self.weights_V.index_select(0, views_V)[:, None, None]
        weights_V11 = weights_V11 / weights_V11.sum()
        count_1 = torch.ones_like(views_V).sum().reshape(1)
        temperature_1 = self.temperatures.index_select(0, count_1)
        shifted_VBK = logits_VBK + self.prior_K * temperature_1
        # the arithmetic may overflow though all weights are finite: every class then gets the same
        finite_VB1 = torch.isfinite(shifted_VBK).all(-1, keepdim=True)
        logits_BK = (torch.where(finite_VB1, logits_VBK, 0.0) * weights_V11).sum(0)
        shifted_BK = (torch.where(finite_VB1, shifted_VBK, 0.0) * weights_V11).sum(0)
        probabilities_BK = torch.softmax(shifted_BK / temperature_1, dim=-1)
        if not self.scored:
            return probabilities_BK, logits_BK
        score_B = -torch.logsumexp(shifted_BK, dim=-1)
        if self.reference is not None:
            features_BD = pooled_features(self.reference.layer, *calls[-1][1], images)
            score_B = self.distances(features_BD, self.reference) + self.reference.energy_weight * score_B
        return probabilities_BK, logits_BK, score_B

    def see(self, pixels_BHWC: Tensor, views_V: Tensor) -> Tensor:
        """Return the views of images, normalized, (V · B, 3, H, W), one view after the other."""
        places = self.places_VP.index_select(0, views_V).flatten()
        levels = pixels_BHWC.flatten(1, 2).index_select(1, places).to(torch.float32) * self.scale_C + self.shift_C
        height, width = self.size
        by_view = levels.reshape(pixels_BHWC.shape[0], views_V.shape[0], height, width, 3).permute(1, 0, 4, 2, 3)
        return by_view.reshape(-1, 3, height, width)

    def distances(self, features_BD: Tensor, reference: Reference) -> Tensor:
        """Compute the squared Mahalanobis distance of each image, (B,), as ``measures.mahalanobis`` does."""
        if reference.layer == HEAD:
            lengths_B1 = torch.linalg.vector_norm(features_BD, dim=1, keepdim=True)
            features_BD = features_BD / lengths_B1.clamp(min=torch.finfo(torch.float32).tiny)
        centered_BD = features_BD - self.mean_D
        along_BR = (centered_BD @ self.axes_DR).square()
        across_B = (centered_BD.square().sum(1) - along_BR.sum(1)).clamp(min=0)
        distances_B = (along_BR / self.variances_R).sum(1) + across_B / reference.normal.rest
        return torch.where(torch.isfinite(distances_B), distances_B, FARTHEST).clamp(max=FARTHEST)


def places_of_views(cached: tuple[int, int], size: tuple[int, int], views: Views) -> Tensor:
    """Return which pixel of a cached image each pixel of each view shows, (V, P), int32.

    An image whose pixels are their own numbers goes through the function that makes the views.
    """
    numbers_BHWC = torch.arange(cached[0] * cached[1], dtype=torch.float64).reshape(1, *cached, 1)
    numbers_B1HW = center(numbers_BHWC, size).permute(0, 3, 1, 2)
    positions_VBP = logits_of_views(lambda images: images.flatten(1), numbers_B1HW, views)
    return positions_VBP[:, 0].to(torch.int32)


def temperatures_by_count(classifier: Classifier) -> Tensor:
    """Return the temperature for each number of views from 0; that of the run's views where none was calibrated."""
    by_count = {VIEWS[views]: value for views, value in classifier.model["temperatures"].items()}
    usual = classifier.model["temperatures"][classifier.views]
    return torch.tensor([by_count.get(count, usual) for count in range(VIEWS[classifier.views] + 1)])


def to_onnx(classifier: Classifier) -> "ModelProto":
    """Turn a classifier into an ONNX model, weights inside; its views are a second input without a default yet.

    Args:
        classifier: on the CPU, in float32.
    Raises:
        ConfigError: its network has an operator that ONNX does not have, or takes one number of images only.
    """
    from torch.onnx import OnnxExporterError

    graph = ClassifierGraph(classifier).eval()
    # two images and three views, so that neither number is taken for a constant
    pixels, views = torch.zeros(2, *classifier.resize, 3, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)
    dynamic = {"pixels_BHWC": {0: torch.export.Dim("B")}, "views_V": {0: torch.export.Dim("V")}}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (pixels, views),
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                input_names=[INPUT, VIEWS_INPUT],
                output_names=list(OUTPUTS[: 2 + graph.scored]),
                dynamic_shapes=dynamic,
                verbose=False,
            )
    except OnnxExporterError as error:
        raise ConfigError(why_not(error, classifier)) from error
    assert program is not None
    model: ModelProto = _plain(program.model_proto)
    return model


def kind_of(classifier: Classifier) -> str:
    """Return what a sentence calls the network of a classifier."""
    kind: str = (classifier.model.get("network") or {}).get("kind", type(classifier.network).__name__)
    return kind


def why_not(error: BaseException, classifier: Classifier) -> str:
    """Return the sentence on a network that is not exported: by an operator, or by what torch says."""
    kind = kind_of(classifier)
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__
    operator = re.search(r"op='([\w.:]+)'", "\n".join(texts))
    if operator:
        return (
            f"the network {kind} has the operator {operator[1]}, which ONNX does not have; export a run with another"
            " network."
        )
    reason = " ".join(texts[-1].split())[:300]
    return f"the network {kind} cannot be exported ({reason}); export a run with another network."


def _plain(model: Any) -> Any:
    """Return a model without traces of the machine that it was made on: paths of source files, notes on nodes."""
    graph = model.graph
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, graph, model):
        del part.metadata_props[:]
        part.doc_string = ""
    for function in model.functions:
        for part in (*function.node, function):
            del part.metadata_props[:]
            part.doc_string = ""
    del graph.value_info[:]  # sizes of the example, of which the quantization would make constants
    return model
