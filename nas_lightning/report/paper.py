"""The paper's own numbers, typed. Source: Shu, Wang and Cai, ICLR 2020; the data are in ``paper.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import yaml

from nas_lightning.cells.table2 import TABLE2

Cell: TypeAlias = Literal["original", "adapted"]


@dataclass(frozen=True)
class Table1Entry:
    """A test error of table 1, in percent, and millions of parameters, auxiliary tower included."""

    family: str
    data: str
    cell: Cell
    error_percent: float
    parameters_M: float


@dataclass(frozen=True)
class Topology:
    """Width (in units of c) and depth of a normal cell, from figure 1, figure 25 or table 2."""

    family: str
    variant: str
    width: float
    depth: int


@dataclass(frozen=True)
class Table3Entry:
    """A size of table 3: millions of parameters without tower; number 0 is the original.

    The note says why a count may differ; it is mostly empty.
    """

    family: str
    number: int
    parameters_M: float
    note: str


@dataclass(frozen=True)
class Training:
    """Settings of appendix A; cutout, drop path and tower are those of table 1 only."""

    learning_rate: float
    other_learning_rates: tuple[float, ...]
    momentum: float
    weight_decay: float
    batch_size: int
    epochs: Mapping[str, int]
    num_cells: int
    init_channels: int
    cutout: int
    drop_path: float
    auxiliary_weight: float


def family_title(family: str) -> str:
    """Name of a base cell in print: ``darts_v2`` is DARTS; other names stay."""
    return str(_content()["families"].get(family, family))


def data_title(data: str) -> str:
    """Name of a data set in print: ``CIFAR10`` is CIFAR-10; other names stay."""
    return str(_content()["data"].get(data, data))


def paper_families() -> tuple[str, ...]:
    """The five base cells, in the order of table 1."""
    return tuple(_content()["families"])


def paper_classes() -> Mapping[str, int]:
    """Number of classes of the paper's data sets, by data class."""
    return MappingProxyType(_content()["classes"])


def paper_table1() -> tuple[Table1Entry, ...]:
    """Table 1: by data set, base cell, original before adapted."""
    cells: tuple[Cell, Cell] = ("original", "adapted")
    return tuple(
        Table1Entry(family, data, cell, figures["error"][index], figures["parameters"][index])
        for data, families in _content()["table1"].items()
        for family, figures in families.items()
        for index, cell in enumerate(cells)
    )


def paper_topologies() -> tuple[Topology, ...]:
    """Figures 1 and 25: the original and the adapted cells."""
    return tuple(
        Topology(family, cell, float(width), depth)
        for cell, families in _content()["topologies"].items()
        for family, (width, depth) in families.items()
    )


def paper_table2() -> tuple[Topology, ...]:
    """Table 2: C1 to C13 of four base cells."""
    return tuple(
        Topology(family, f"C{index}", float(width), depth)
        for family, variants in TABLE2.items()
        for index, (width, depth, _) in enumerate(variants, start=1)
    )


def paper_table3() -> tuple[Table3Entry, ...]:
    """Table 3: the originals and their ten variants by random operations."""
    notes = _content()["table3_differs"]
    return tuple(
        Table3Entry(family, number, size, notes.get(family, {}).get(f"C{number}", ""))
        for family, sizes in _content()["table3"].items()
        for number, size in enumerate(sizes)
    )


def paper_training() -> Training:
    """Training settings of appendix A."""
    values = dict(_content()["training"])
    values["other_learning_rates"] = tuple(values["other_learning_rates"])
    values["epochs"] = MappingProxyType(values["epochs"])
    return Training(**values)


def paper_misprints() -> tuple[tuple[str, str], ...]:
    """Slips of the paper: where, and what is right."""
    return tuple((slip["where"], slip["text"]) for slip in _content()["misprints"])


@cache
def _content() -> dict[str, Any]:
    text = Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content
