"""Genotypes published by architecture search papers, each with its citation and reported figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nas_lightning.cells.genotype import FIELDS, Genotype
from nas_lightning.yaml_files import read_yaml

ALIASES: Mapping[str, str] = MappingProxyType({"darts": "darts_v2", "snas": "snas_mild"})
"""Short names: the paper's DARTS is the second-order cell, its SNAS the one with the mild constraint."""


@dataclass(frozen=True)
class Reported:
    """Figures for CIFAR-10 as a publication reports them: quotations, never computed here.

    Attributes:
        where: The table or file that says so.
        parameters_M: Millions of parameters, or None where none are reported.
        error_percent: Test error in percent, or None.
    """

    where: str
    parameters_M: float | None = None
    error_percent: float | None = None


@dataclass(frozen=True)
class PublishedGenotype:
    """A genotype with its citation.

    Attributes:
        name: Name in genotype specs.
        method: Name the authors use.
        authors: Authors, separated by commas.
        title: Title of the paper.
        venue: Where it appeared.
        year: When it appeared.
        searched_on: Data set of the search.
        source: Public repository, file and variable from which the genotype was taken.
        note: A remark on this transcription; empty for most.
        reported: Figures reported for CIFAR-10, or None.
        genotype: The cells.
    """

    name: str
    method: str
    authors: str
    title: str
    venue: str
    year: int
    searched_on: str
    source: str
    note: str
    reported: Reported | None
    genotype: Genotype

    @property
    def citation(self) -> str:
        """Authors, title, venue and year in one line."""
        stop = "" if self.title.endswith(("?", "!")) else "."
        return f"{self.authors}. {self.title}{stop} {self.venue}, {self.year}."


@cache
def published_genotypes() -> Mapping[str, PublishedGenotype]:
    """All published genotypes, by name, in the order of the data file (the paper's own first)."""
    entries: dict[str, dict[str, Any]] = read_yaml(Path(__file__).with_name("published.yaml"))
    for values in entries.values():
        values.setdefault("note", "")
        values["genotype"] = Genotype(*(values.pop(key) for key in FIELDS))
        values["reported"] = Reported(**values["reported"]) if "reported" in values else None
    return MappingProxyType({name: PublishedGenotype(name, **values) for name, values in entries.items()})
