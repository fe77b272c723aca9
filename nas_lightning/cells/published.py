"""Genotypes published by architecture search papers, each with its citation and reported figures.

Beside the cells that a search found stand the variants that the paper's authors published: section 4's C1 to
C4, table 3's C1 to C5 of DARTS, and four adapted cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from nas_lightning.cells.genotype import FIELDS, Genotype
from nas_lightning.yaml_files import read_yaml

Kind: TypeAlias = Literal["original", "connections", "operations", "adapted"]

SECTION4_CELLS: Mapping[str, str] = MappingProxyType({f"C{i}": f"darts_conn{i}" for i in range(1, 5)})
"""Section 4's C1 to C4 (figures 2, 3, 4, 6, 7 and 8): variants of ``darts_v2``."""


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
        variant_of: Name of the searched cell that it varies; empty for a searched cell.
        kind: ``"original"`` for a searched cell, else what a variant changes: ``"connections"``,
            ``"operations"`` or ``"adapted"`` (connections, as section 5 chooses them).
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
    variant_of: str = ""
    kind: Kind = "original"

    @property
    def citation(self) -> str:
        """Authors, title, venue and year in one line."""
        stop = "" if self.title.endswith(("?", "!")) else "."
        return f"{self.authors}. {self.title}{stop} {self.venue}, {self.year}."


def published_genotypes() -> Mapping[str, PublishedGenotype]:
    """The cells that searches found, by name, in the order of the data file (the paper's own first)."""
    return _split()[0]


def published_variants() -> Mapping[str, PublishedGenotype]:
    """Variants of searched cells that the paper's authors published, by name; no search found them."""
    return _split()[1]


@cache
def _split() -> tuple[Mapping[str, PublishedGenotype], Mapping[str, PublishedGenotype]]:
    """Searched cells and variants."""
    entries: dict[str, dict[str, Any]] = read_yaml(Path(__file__).with_name("published.yaml"))
    searched: dict[str, PublishedGenotype] = {}
    variants: dict[str, PublishedGenotype] = {}
    for name, values in entries.items():
        values.setdefault("note", "")
        values["genotype"] = Genotype(*(values.pop(key) for key in FIELDS))
        values["reported"] = Reported(**values["reported"]) if "reported" in values else None
        entry = PublishedGenotype(name, **values)
        (variants if entry.variant_of else searched)[name] = entry
    return MappingProxyType(searched), MappingProxyType(variants)
