"""What figures show: the runs that can be compared, the architectures in order, their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from nas_lightning.cells import Genotype, format_width, parse_genotype
from nas_lightning.cells.published import SECTION4_CELLS
from nas_lightning.cells.table2 import is_stand_in
from nas_lightning.report.claims import Claim, examine_claims
from nas_lightning.report.paper import (
    data_title,
    family_title,
    paper_families,
    paper_table2,
    paper_training,
)
from nas_lightning.report.samples import group_columns, group_keys
from nas_lightning.report.words import distinct, listed, say
from nas_lightning.study.results import Results

SECTION4_FAMILY = "darts_v2"
"""The base cell of section 4's figures."""
_KINDS = ("original", "own", "connections", "operations", "adapted", "sampled")
_CONDITIONS = ("num_cells", "init_channels", "evaluation_split", "regularized")
_OF_TABLE2 = re.compile(r"C(\d+)")


@dataclass(frozen=True)
class Shown:
    """An architecture as figures name it; the label is its name in the results, such as ``"darts_v2:C4"``.

    Width (in units of c) and depth are those of the normal cell; the literal is the genotype as search codes
    print it.
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
        """Its name in print: ``"DARTS"``, ``"C4"``, ``"C1 (stand-in)"``, ``"connections=7"``."""
        return family_title(self.family) if self.is_base else self.variant + self.mark

    @property
    def full_name(self) -> str:
        """Its label in print: ``"darts_v2:C4"``, ``"darts_v2:C1 (stand-in)"``."""
        return self.label + self.mark

    @property
    def mark(self) -> str:
        """What a name says of a stand-in; empty for all others."""
        return " (stand-in)" if self.is_stand_in else ""

    @property
    def is_stand_in(self) -> bool:
        """Whether it stands in for a variant of table 2 whose connections are not public."""
        return is_stand_in(self.family, self.variant)

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
    """The runs of a study that figures compare.

    Runs of one data set are compared where they differ in nothing but architecture, learning rate and seed:
    of several sets of settings the one without regularisation is taken, as in the paper's section 4, then the
    one with the most runs.
    """

    def __init__(self, results: Results, claims: Sequence[Claim] | None = None) -> None:
        self.results = results
        self._claims = claims
        parts = [_comparable(runs) for _, runs in results.runs.groupby("data", sort=False)]
        self.all_rates: pd.DataFrame = pd.concat(parts) if parts else results.runs
        """Comparable runs at all learning rates."""

    @cached_property
    def claims(self) -> Sequence[Claim]:
        """The claims, examined on all runs."""
        return examine_claims(self.results.runs) if self._claims is None else self._claims

    @cached_property
    def data_sets(self) -> list[str]:
        """Data classes: the paper's in its order, then the others."""
        return _ordered(self.all_rates["data"], list(paper_training().epochs))

    @cached_property
    def families(self) -> list[str]:
        """Base cells: the paper's in its order, then the others."""
        return _ordered(self.results.runs["family"], paper_families())

    def default_rate(self, data: str) -> float | None:
        """The learning rate of figures that show one: the paper's 0.025 if there is, else that of most."""
        rates = self._rates(data)
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
        return sorted(set(self._rates(data).tolist()) - {self.default_rate(data)})

    def _rates(self, data: str) -> pd.Series:
        rates: pd.Series = self.all_rates.loc[self.all_rates["data"] == data, "learning_rate"].dropna()
        return rates


def architectures(runs: pd.DataFrame, families: Sequence[str] = (), kinds: Sequence[str] = ()) -> list[Shown]:
    """The architectures of runs, each once, originals first; of all base cells and kinds by default."""
    chosen = runs.drop_duplicates("architecture")
    if families:
        chosen = chosen[chosen["family"].isin(list(families))]
    if kinds:
        chosen = chosen[chosen["kind"].isin(list(kinds))]
    columns = ["architecture", "family", "variant", "kind", "width", "depth", "genotype"]
    chosen = chosen[columns].astype({"depth": int})
    found = [Shown(*row) for row in chosen.itertuples(index=False)]
    return sorted(found, key=lambda shown: shown.order)


def section4_cells(
    runs: pd.DataFrame, wanted: Sequence[str] = tuple(SECTION4_CELLS)
) -> tuple[list[Shown], Mapping[str, str], str]:
    """The DARTS cell and section 4's C1 to C4, their names by label, and a note that says which are missing.

    Where none of the four is there, every variant by random connections is taken.
    """
    shown = architectures(runs, [SECTION4_FAMILY], ["original", "connections"])
    numbers = {name: number for number, name in SECTION4_CELLS.items()}
    there = {numbers[one.variant] for one in shown if one.variant in numbers}
    if there:
        shown = [one for one in shown if one.is_base or one.variant in numbers]
    names = {one.label: numbers.get(one.variant, one.name) for one in shown}
    missing = [f"{number} ({SECTION4_CELLS[number]})" for number in wanted if number not in there]
    return shown, names, say("numbering", missing=missing, any=bool(there))


def other_connections(runs: pd.DataFrame, family: str) -> list[Shown]:
    """A base cell and its variants by random connections, without section 4's C1 to C4."""
    shown = architectures(runs, [family], ["original", "connections"])
    return [one for one in shown if one.variant not in SECTION4_CELLS.values()]


def panels_by_width(variants: Sequence[Shown], most: int) -> list[tuple[str, list[Shown]]]:
    """Variants from narrow to wide in panels of nearly equal size, longer ones last, with their titles."""
    ordered = sorted(variants, key=lambda one: (one.width, -one.depth))
    count = min(most, max(1, len(ordered) // 3))
    panels = []
    for part in range(count):
        start, end = (len(ordered) * edge // count for edge in (part, part + 1))
        group = ordered[start:end]
        low, high = format_width(group[0].width), format_width(group[-1].width)
        panels.append((f"width {low}" if low == high else f"width {low} to {high}", group))
    return panels


def table2_note(family: str, shown: Sequence[Shown]) -> str:
    """Which of table 2's variants a figure lacks, and which are stand-ins; empty where neither is so."""
    wanted = [entry.variant for entry in paper_table2() if entry.family == family]
    missing = [variant for variant in wanted if variant not in {one.variant for one in shown}]
    stand_ins = any(one.is_stand_in for one in shown)
    return say("table2_note", missing=missing, all=len(wanted), stand_ins=stand_ins)


def conditions(runs: pd.DataFrame) -> str:
    """How the runs of a figure, all on one data set, were made, and where the paper's settings differ."""
    first, paper = runs.iloc[0], paper_training()
    data, epochs = str(first["data"]), int(first["epochs"])
    known = {name: None if pd.isna(first[name]) else first[name] for name in _CONDITIONS}
    network = known["num_cells"], known["init_channels"]
    wanted = paper.epochs.get(data, paper.epochs["CIFAR10"])
    differs = []
    if data not in paper.epochs:
        differs.append(listed([data_title(name) for name in list(paper.epochs)[:2]]))
    if epochs != wanted:
        differs.append(f"{wanted} epochs")
    if None not in network and network != (paper.num_cells, paper.init_channels):
        differs.append(f"{paper.num_cells} cells, {paper.init_channels} channels")
    keys = ["architecture", "data", "learning_rate"]
    return say(
        "conditions",
        data=data,
        split=known["evaluation_split"],
        epochs=epochs,
        rates=distinct(runs["learning_rate"]),
        cells=network[0],
        channels=network[1],
        regularized=None if known["regularized"] is None else bool(known["regularized"]),
        seeds=distinct(runs["seed"]),
        fewest=int(runs.groupby(keys, dropna=False)["seed"].nunique().min()),
        paper=differs,
    )


def _comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of one data set that differ in nothing but architecture, learning rate and seed."""
    columns = [
        name
        for name in group_columns(runs)
        if name not in ("family", "data", "learning_rate") and not name.endswith((".lr", ".learning_rate"))
    ]
    keys = group_keys(runs, columns)
    plain = ~runs["regularized"].fillna(False).astype(bool)
    order = pd.DataFrame({"plain": plain, "size": keys.map(keys.value_counts())})
    best = order.sort_values(["plain", "size"], ascending=False, kind="stable").index[0]
    chosen: pd.DataFrame = runs[keys == keys[best]]
    return chosen.drop_duplicates(["architecture", "learning_rate", "seed"])


def _ordered(names: pd.Series, known: Sequence[str]) -> list[str]:
    """Different names, those that are known first and in their order."""
    found = names.drop_duplicates().tolist()
    return sorted(found, key=lambda name: known.index(name) if name in known else len(known))
