"""Small networks at the ends of a curve, and the curve between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas_lightning.classifier import CellClassifier
from nas_lightning.curve_classifier import CurveClassifier
from tests.acceleration.cases import TINY

SETTINGS: dict[str, Any] = {"genotype": str(TINY), "num_classes": 10, "init_channels": 2, "num_cells": 3}


def write_end(path: Path, seed: int = 0, content: dict[str, Any] | None = None, **settings: Any) -> Path:
    """Write a checkpoint of a network with random weights, with other entries if they are given."""
    torch.manual_seed(seed)
    classifier = CellClassifier(**SETTINGS | settings)
    for layer in classifier.network.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.affine:
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    checkpoint = {
        "state_dict": classifier.state_dict(),
        "genotype": str(classifier.genotype),
        "epoch": 0,
        "hyper_parameters": dict(classifier.hparams),
    }
    torch.save(checkpoint | (content or {}), path)
    return path


def curve_between(folder: Path, **settings: Any) -> CurveClassifier:
    """A curve whose ends are the networks of seeds 0 and 1, and whose bend is not half-way."""
    ends = [str(write_end(folder / f"{name}.ckpt", seed)) for name, seed in (("a", 0), ("b", 1))]
    curve = CurveClassifier(ends=ends, **SETTINGS | settings)
    curve.load_ends()
    with torch.no_grad():
        for values in curve.network.parameters():
            values.add_(0.1 * torch.randn_like(values))
    return curve
