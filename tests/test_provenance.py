"""Provenance tells apart what differs, and only that."""

from __future__ import annotations

import pytest
import torch

from nas_lightning.provenance import run_seed, software_versions, weights_hash


def test_the_hash_depends_on_names_shapes_types_and_values_but_not_on_order() -> None:
    state = {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)}
    # Other strides, same values.
    same = {"count": torch.tensor(3), "weight": torch.arange(6.0).view(2, 3).t().contiguous().t()}
    assert weights_hash(state) == weights_hash(same)
    changed = [
        {**state, "count": torch.tensor(4)},
        {**state, "weight": state["weight"].view(3, 2)},
        {**state, "weight": state["weight"].double()},
        {"other": state["weight"], "count": state["count"]},
    ]
    assert len({weights_hash(state), *map(weights_hash, changed)}) == 5


def test_the_seed_is_known_only_where_one_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert run_seed() is None
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert run_seed() == 7


def test_versions_are_those_installed() -> None:
    versions = software_versions()
    assert versions["torch"] == torch.__version__.partition("+")[0]
    assert versions["nas-lightning"] == "0.1.0"
