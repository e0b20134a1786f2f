"""Classifiers with random weights, one of each kind of network and head that is exported."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from sightline.config.building import build as build_settings
from sightline.config.heads import HeadConfig
from sightline.config.resolving import resolve
from sightline.inference.classifier import Classifier
from sightline.inference.ood import Reference, compared_layer
from sightline.models.build import build_network

Array = np.ndarray[Any, Any]

SPEEDNET = {"kind": "speednet", "widths": [8, 16, 16]}
NETWORKS: dict[str, tuple[dict[str, Any], int, dict[str, Any] | None]] = {
    "three convolutions a group, large images": (SPEEDNET | {"depth": 3}, 72, None),
    "custom_resnet": ({"kind": "custom_resnet"}, 32, None),
    "resnet18": ({"kind": "resnet18"}, 32, None),
    "tokens of timm": ({"kind": "timm", "name": "vit_tiny_patch16_224"}, 32, None),
    "graph_attention": (SPEEDNET, 32, {"kind": "graph_attention", "heads": 2, "patch": 1}),
    "self_attention": (SPEEDNET, 32, {"kind": "self_attention", "heads": 2, "patch": 1}),
    "attention_pool": (SPEEDNET, 32, {"kind": "attention_pool", "heads": 2}),
}


def untrained(network: dict[str, Any], side: int, head: dict[str, Any] | None = None) -> tuple[Classifier, Array]:
    """A classifier of five classes with random weights, a prior and a score, whose images are cropped from larger."""
    torch.manual_seed(0)
    size, cached = (side, side), (side + 4, side + 6)
    settings = None if head is None else build_settings(HeadConfig, head, "head")
    built = build_network(resolve({"network": network}).network, 5, size, settings, size)
    for parameter in built.head.parameters():
        nn.init.normal_(parameter, std=0.1)
    limits = dict.fromkeys(("one", "flip"), 0.0)
    model = {
        "classes": list("abcde"),
        "size": size,
        "resize": cached,
        "views": "flip",
        "precision": "float32",
        "network": network,
        "normalization": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3]},
        "temperatures": {"one": 1.3, "flip": 0.7},
        "prior_shift": [0.1, -0.2, 0.0, 0.3, 0.2],
        "trust": {"sets": {"thresholds": {views: {} for views in limits}}, "unknown": {"thresholds": limits}},
    }
    classifier = Classifier(built, model, torch.device("cpu"), "float32")
    pixels = np.random.default_rng(0).integers(0, 256, (12, *cached, 3), np.uint8)
    layer = compared_layer(built, network["kind"] == "timm")
    reference = Reference.fit(layer, classifier.features_at(layer, pixels, np.arange(12)))
    classifier.reference = replace(reference, energy_weight=1.5)
    return classifier, pixels[:5]
