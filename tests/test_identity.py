"""Two trainings have one identity if and only if the same settings decide them."""

from __future__ import annotations

from typing import Any

import pytest

from nas_lightning.identity import (
    NOT_DECIDING,
    analysis_name,
    deciding_settings,
    differing_settings,
    flatten,
    identity_hash,
)

SETTINGS: dict[str, Any] = {
    "model.genotype": "Genotype(...)",
    "model.num_cells": 20,
    "model.speed": "auto",
    "data.class_path": "nas_lightning.datamodules.CIFAR10",
    "data.init_args.root": "data",
    "data.init_args.validation_fraction": 0.0,
    "data.init_args.validation_seed": 0,
    "trainer.max_steps": -1,
    "trainer.precision": None,
    "trainer.limit_train_batches": 1.0,
    "trainer.callbacks": None,
}
DEFAULTS = {"trainer.max_steps": -1, "model.num_cells": 20, "model.speed": "auto"}


def identity(**changes: Any) -> str:
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    return identity_hash(deciding_settings({**SETTINGS, **changed}, DEFAULTS))


def test_settings_at_their_default_are_left_out_unless_they_describe_every_training() -> None:
    deciding = deciding_settings(SETTINGS, DEFAULTS)
    assert "trainer.max_steps" not in deciding
    assert "data.init_args.root" not in deciding
    assert deciding["model.num_cells"] == 20
    assert deciding["data.class_path"] == "CIFAR10"
    # A version with another setting gives the same identity; one with another default does not.
    later = deciding_settings({**SETTINGS, "model.new": 1}, {**DEFAULTS, "model.new": 1})
    assert identity_hash(later) == identity()
    other = deciding_settings({**SETTINGS, "model.num_cells": 8}, {**DEFAULTS, "model.num_cells": 8})
    assert identity_hash(other) != identity()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model__speed", "compiled"),
        ("data__class_path", "CIFAR10"),
        ("data__init_args__root", "elsewhere"),
        ("data__init_args__cache_folder", "scratch"),
        ("data__init_args__validation_fraction", 0),
        ("data__init_args__validation_seed", 7),
        ("trainer__precision", "32"),
        ("trainer__strategy__init_args__static_graph", True),
        ("trainer__callbacks", [{"class_path": "nas_lightning.callbacks.LossContour"}]),
        ("trainer__callbacks", ["GradientVariance"]),
        ("trainer__callbacks", [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}]),
        (
            "trainer__callbacks",
            [{"class_path": "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint"}],
        ),
    ],
)
def test_what_decides_nothing_or_is_said_otherwise(key: str, value: object) -> None:
    assert identity(**{key: value}) == identity()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model__speed", "max"),
        ("trainer__precision", "bf16"),
        ("trainer__max_steps", 10),
        ("trainer__limit_train_batches", 1),  # one batch, and not all of them
        ("trainer__callbacks", [{"class_path": "mine.LossContour"}]),
        ("trainer__callbacks", [{"class_path": "mine.ModelCheckpoint"}]),
        ("data__class_path", "mine.CIFAR10"),
    ],
)
def test_what_decides(key: str, value: object) -> None:
    assert identity(**{key: value}) != identity()


def test_the_hash_depends_on_no_order() -> None:
    assert identity_hash({"a": 1, "b": [2]}) == identity_hash({"b": [2], "a": 1})
    assert len(identity_hash({})) == 64


def test_differences_are_named_with_both_values() -> None:
    planned, found = {"b.x": 1, "a.y": None, "model.genotype": "A"}, {"b.x": 2.5, "model.genotype": "B"}
    texts = ["a.y the default, planned None", "b.x 2.5, planned 1", "another genotype"]
    assert differing_settings(planned, found) == texts
    assert differing_settings(planned, found, common=True) == texts[1:]
    assert differing_settings({"b.x": 2.0}, {"b.x": 2}) == []
    assert differing_settings(dict.fromkeys(NOT_DECIDING, 1), {}) == []


def test_flat_settings_keep_lists_empty_mappings_and_genotypes() -> None:
    nested = {"a": {"b": {"c": 1}, "d": [1], "e": {}}, "model": {"genotype": {"normal": []}}}
    assert flatten(nested) == {"a.b.c": 1, "a.d": [1], "a.e": {}, "model.genotype": {"normal": []}}


def test_only_the_package_s_analyses_are_analyses() -> None:
    assert analysis_name("nas_lightning.callbacks.HessianSpectrum") == "HessianSpectrum"
    assert analysis_name({"class_path": "LossContour"}) == "LossContour"
    assert analysis_name({"class_path": "mine.LossContour"}) is None
    assert analysis_name({"class_path": "lightning.pytorch.callbacks.EarlyStopping"}) is None
