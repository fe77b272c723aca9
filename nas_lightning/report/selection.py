"""What pictures are made of: the runs that can be compared, the architectures in order, their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from nas_lightning.cells import Genotype, format_width, parse_genotype
from nas_lightning.cells.table2 import SECTION4_NUMBERING
from nas_lightning.report.paper import (
    data_title,
    family_title,
    paper_families,
    paper_table2,
    paper_training,
)
from nas_lightning.report.samples import group_columns
from nas_lightning.report.summary import counted, distinct, listed
from nas_lightning.study.results import Results

SECTION4_FAMILY = "darts_v2"
"""The base cell of section 4's figures."""
_KINDS = ("original", "own", "connections", "operations", "adapted")
_OF_TABLE2 = re.compile(r"C(\d+)")


@dataclass(frozen=True)
class Shown:
    """An architecture as pictures name it.

    Attributes:
        label: Its name in the results, such as ``"darts_v2:C4"``.
        family: Its base cell.
        variant: ``"original"``, ``"C4"``, ``"connections=7"``, ...
        kind: What the variant changes.
        width: Width of the normal cell in units of c.
        depth: Depth of the normal cell.
        literal: The genotype, as search codes print it.
    """

    label: str
    family: str
    variant: str
    kind: str
    width: float
    depth: int
    literal: str

    @property
    def is_base(self) -> bool:
        """Whether it is no variant of another one."""
        return self.kind in ("original", "own")

    @property
    def genotype(self) -> Genotype:
        """The cells."""
        return parse_genotype(self.literal)

    @property
    def name(self) -> str:
        """Its name in print: ``"DARTS"``, ``"C4"``, ``"connections=7"``."""
        return family_title(self.family) if self.is_base else self.variant

    @property
    def size(self) -> str:
        """Width and depth: ``"2.5c, 3"``."""
        return f"{format_width(self.width)}, {self.depth}"

    @property
    def order(self) -> tuple[int, int, int, str]:
        """Original cells first, then C1 to C13, then other variants by kind and seed."""
        number = re.search(r"\d+", self.variant)
        of_table2 = _OF_TABLE2.fullmatch(self.variant)
        kind = _KINDS.index(self.kind) if self.kind in _KINDS else len(_KINDS)
        return kind, of_table2 is None, int(number.group()) if number else 0, self.label


class Selection:
    """The runs of a study that pictures compare.

    Runs of one data set are compared where they differ in nothing but architecture, learning rate and seed:
    of several sets of settings the one without regularisation is taken, as in the paper's section 4, then the
    one with the most runs.

    Args:
        results: What the study gave so far.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self.left_out: dict[str, int] = {}
        parts = []
        for data, runs in results.runs.groupby("data", sort=False):
            chosen = _comparable(runs)
            self.left_out[str(data)] = len(runs) - len(chosen)
            parts.append(chosen)
        self.all_rates: pd.DataFrame = pd.concat(parts) if parts else results.runs
        """Comparable runs at all learning rates."""

    @cached_property
    def data_sets(self) -> list[str]:
        """Data classes: the paper's in its order, then the others."""
        found = self.all_rates["data"].drop_duplicates().tolist()
        known = list(paper_training().epochs)
        return sorted(found, key=lambda data: known.index(data) if data in known else len(known))

    @cached_property
    def families(self) -> list[str]:
        """Base cells: the paper's in its order, then the others."""
        found = self.results.runs["family"].drop_duplicates().tolist()
        known = paper_families()
        return sorted(found, key=lambda family: known.index(family) if family in known else len(known))

    def default_rate(self, data: str) -> float | None:
        """The learning rate of pictures that show one: the paper's 0.025 if there is, else that of most."""
        rates = self.all_rates.loc[self.all_rates["data"] == data, "learning_rate"].dropna()
        if rates.empty:
            return None
        default = paper_training().learning_rate
        return default if (rates == default).any() else float(rates.value_counts(sort=True).index[0])

    def runs(self, data: str, rate: float | None = None) -> pd.DataFrame:
        """Comparable runs on a data set at a learning rate, the default one unless another is given."""
        runs = self.all_rates[self.all_rates["data"] == data]
        rate = self.default_rate(data) if rate is None else rate
        return runs if rate is None else runs[runs["learning_rate"] == rate]

    def other_rates(self, data: str) -> list[float]:
        """Learning rates besides the default one, ascending."""
        rates = self.all_rates.loc[self.all_rates["data"] == data, "learning_rate"].dropna()
        return sorted(set(rates.tolist()) - {self.default_rate(data)})


def architectures(runs: pd.DataFrame, families: Sequence[str] = (), kinds: Sequence[str] = ()) -> list[Shown]:
    """The architectures of runs, originals first.

    Args:
        runs: Rows of Results.runs.
        families: Base cells to take; all by default.
        kinds: Kinds of variants to take; all by default.

    Returns:
        Each once.
    """
    chosen = runs
    if families:
        chosen = chosen[chosen["family"].isin(list(families))]
    if kinds:
        chosen = chosen[chosen["kind"].isin(list(kinds))]
    rows = chosen.drop_duplicates("architecture")
    found = [
        Shown(
            str(row["architecture"]),
            str(row["family"]),
            str(row["variant"]),
            str(row["kind"]),
            float(row["width"]),
            int(row["depth"]),
            str(row["genotype"]),
        )
        for _, row in rows.iterrows()
    ]
    return sorted(found, key=lambda shown: shown.order)


def _section4_names(shown: Sequence[Shown]) -> dict[str, str] | None:
    """``"C1 (C6 of table 2)"`` for ``"darts_v2:C6"`` and so on, in section 4's order; None if one lacks."""
    labels = {one.variant: one.label for one in shown if one.family == SECTION4_FAMILY}
    numbers = SECTION4_NUMBERING
    if not set(numbers.values()) <= set(labels):
        return None
    return {labels[table2]: f"{ours} ({table2} of table 2)" for ours, table2 in numbers.items()}


def section4_cells(runs: pd.DataFrame) -> tuple[list[Shown], dict[str, str], str]:
    """The original DARTS cell and its variants for the figures of section 4.

    Args:
        runs: Rows of Results.runs.

    Returns:
        The architectures; the name of each by label; and what the caption says about the numbering. Where
        section 4's four variants are not all there, every variant by random connections is taken.
    """
    shown = architectures(runs, [SECTION4_FAMILY], ["original", "connections"])
    names = _section4_names(shown)
    bases = [one for one in shown if one.is_base]
    if names is None:
        variants = [one for one in shown if not one.is_base]
        note = "Variants are numbered as in table 2; section 4's C1 to C4 are its C6, C7, C1 and C2"
        missing = set(SECTION4_NUMBERING.values()) - {one.variant for one in variants}
        note += f", of which {listed(sorted(missing, key=_number))} {_be(missing)} missing."
    else:
        of_label = {one.label: one for one in shown}
        variants = [of_label[label] for label in names]
        note = "C1 to C4 are section 4's numbers; table 2's stand beside them."
    known = {one.label: one.name for one in shown} | (names or {})
    return bases + variants, known, note


def missing_variants(family: str, shown: Sequence[Shown]) -> str:
    """Which of table 2's variants a picture lacks, as a sentence; empty where it has all."""
    wanted = [entry.variant for entry in paper_table2() if entry.family == family]
    missing = [variant for variant in wanted if variant not in {one.variant for one in shown}]
    if not missing:
        return ""
    if len(missing) == len(wanted):
        return "Table 2's C1 to C13 are missing."
    return f"Missing of table 2: {listed(missing)}."


def conditions(runs: pd.DataFrame) -> str:
    """How runs were made, as a sentence: data, epochs, learning rate, network, seeds.

    Args:
        runs: The runs that a picture shows, all on one data set.

    Returns:
        Such as "Digits, test split; 8 epochs, learning rate 0.025; 6 cells, 8 initial channels; seeds 0 and
        1. The paper: 600 epochs." The paper's settings stand there where they differ.
    """
    first = runs.iloc[0]
    data = str(first["data"])
    parts = [f"{data_title(data)}, {first['evaluation_split']} split"]
    training = counted(int(first["epochs"]), "epoch")
    rates = distinct(runs["learning_rate"])
    if rates:
        training += f", learning rate {listed(rates)}"
    parts.append(training)
    parts.append(f"{first['num_cells']} cells, {first['init_channels']} initial channels")
    if bool(first["regularized"]):
        parts.append("with regularisation")
    parts.append(seeds(runs))
    paper = paper_training()
    text = "; ".join(parts) + "."
    differs = []
    if data not in paper.epochs:
        differs.append(f"{listed([data_title(name) for name in list(paper.epochs)[:2]])}")
    wanted = paper.epochs.get(data, paper.epochs["CIFAR10"])
    if int(first["epochs"]) != wanted:
        differs.append(f"{wanted} epochs")
    if (int(first["num_cells"]), int(first["init_channels"])) != (paper.num_cells, paper.init_channels):
        differs.append(f"{paper.num_cells} cells, {paper.init_channels} channels")
    return text + (f" The paper: {', '.join(differs)}." if differs else "")


def seeds(runs: pd.DataFrame) -> str:
    """The seeds of runs in words, such as "seeds 0 and 1", and how many an architecture has at least."""
    found = distinct(runs["seed"])
    words = f"seed{'' if len(found) == 1 else 's'} {listed(found)}"
    keys = ["architecture", "data", "learning_rate"]
    fewest = int(runs.groupby(keys, dropna=False)["seed"].nunique().min())
    return words if fewest == len(found) else f"{words} (an architecture has {fewest} at least)"


def _comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of one data set that differ in nothing but architecture, learning rate and seed."""
    columns = [
        name
        for name in group_columns(runs)
        if name not in ("family", "data", "learning_rate") and not name.endswith((".lr", ".learning_rate"))
    ]
    # As text, so that missing values equal one another.
    keys = runs[columns].map(str).agg("\x1f".join, axis=1)
    sizes = keys.map(keys.value_counts())
    plain = ~runs["regularized"].fillna(False).astype(bool)
    best = pd.DataFrame({"plain": plain, "size": sizes}).sort_values(
        ["plain", "size"], ascending=False, kind="stable"
    )
    chosen: pd.DataFrame = runs[keys == keys[best.index[0]]]
    return chosen.drop_duplicates(["architecture", "learning_rate", "seed"])


def _number(variant: str) -> int:
    return int(variant.removeprefix("C"))


def _be(items: set[str]) -> str:
    return "is" if len(items) == 1 else "are"
