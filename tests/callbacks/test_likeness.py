"""Checkpoints of one architecture and one data set."""

from __future__ import annotations

import re
from typing import Any

import pytest

from nas_lightning.callbacks.likeness import check_alike, common_facts

DATA = {"_class_path": "CIFAR10", "batch_size": 5, "train_size": None}
FIRST: dict[str, Any] = {
    "genotype": "a cell",
    "hyper_parameters": {"num_cells": 8, "drop_path": 0.2},
    "images": {"name": "CIFAR10", "image_size": 32, "mean": [0.1] * 3},
    "datamodule_hyper_parameters": DATA,
}


def check(**entries: Any) -> None:
    facts = (common_facts(FIRST), common_facts(FIRST | entries))
    check_alike(*facts, ("A", "B"), "runs in one plane are")


def test_what_leaves_network_and_images_alone_may_differ() -> None:
    check(
        hyper_parameters={"num_cells": 8, "drop_path": 0.0, "optimizer": "Adam"},
        datamodule_hyper_parameters=DATA | {"batch_size": 9, "seed": 3, "cutout": 16, "root": "elsewhere"},
        images=FIRST["images"] | {"mean": [0.2] * 3},
    )
    check(hyper_parameters=None, images=None, datamodule_hyper_parameters=None)  # they do not say


@pytest.mark.parametrize(
    ("entries", "difference"),
    [
        ({"genotype": "another"}, "the genotype a cell, B with another"),
        ({"hyper_parameters": {"num_cells": 20}}, "`model.num_cells` 8, B with 20"),
        ({"images": {"name": "Digits"}}, "the images CIFAR10, B with Digits"),
        ({"images": {"name": "CIFAR10", "image_size": 16}}, "images of size 32, B with 16"),
        (
            {"datamodule_hyper_parameters": DATA | {"train_size": 24}},
            "`data.train_size` None, B with 24",
        ),
        (
            {"datamodule_hyper_parameters": {"_class_path": "CIFAR100"}},
            "the data CIFAR10, B with CIFAR100",
        ),
    ],
)
def test_others_are_refused_by_their_first_difference(entries: dict[str, Any], difference: str) -> None:
    line = f"A was trained with {difference}: runs in one plane are of one architecture and one data set"
    with pytest.raises(ValueError, match=re.escape(line)):
        check(**entries)
