"""A module is known by its protocol on every Python."""

from __future__ import annotations

import inspect

import pytest
from typing_extensions import get_protocol_members

from nas_lightning.callbacks.protocols import CellModule, CellNetworkLike
from nas_lightning.callbacks.resuming import CountsTraining
from nas_lightning.classifier import CellClassifier


@pytest.mark.parametrize(
    ("value", "protocol"),
    [
        (CellClassifier(init_channels=2, num_cells=3), CellModule),
        (CellClassifier(init_channels=2, num_cells=3), CountsTraining),
        (CellClassifier(init_channels=2, num_cells=3).network, CellNetworkLike),
    ],
)
def test_isinstance_looks_for_no_submodule(value: object, protocol: type) -> None:
    """From Python 3.12 on, ``isinstance`` reads attributes without ``nn.Module.__getattr__``."""
    assert isinstance(value, protocol)
    for name in get_protocol_members(protocol):
        inspect.getattr_static(value, name)
