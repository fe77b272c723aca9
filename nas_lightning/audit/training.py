"""A cell and its controls, trained alike: what an audit's level 1 or 2 says of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from nas_lightning.audit.controls import LEAST_CONTROLS, Controls
from nas_lightning.audit.ranks import (
    BySeed,
    Measure,
    Quantity,
    SearchPicks,
    compare,
    search_picks,
)
from nas_lightning.audit.referee import sentences
from nas_lightning.audit.standing import finite
from nas_lightning.audit.study import Budget
from nas_lightning.cells import Genotype
from nas_lightning.report.controls import detectable_difference
from nas_lightning.report.power import POWER
from nas_lightning.report.resampling import holm
from nas_lightning.report.statements import statistics
from nas_lightning.report.words import counted, p_value_text
from nas_lightning.study.results import Results
from nas_lightning.study.study import Run

if TYPE_CHECKING:
    from nas_lightning.audit.subjects import Subject

_SHOWN_CLAIMS = ("landscape", "gradient_variance")

ACCURACY = Measure("accuracy", "final test accuracy", "%", "final_accuracy", "larger", 100.0)
CONVERGENCE = (
    Measure(
        "convergence",
        "mean test loss over the training (cut at chance level)",
        "nat",
        "area_under_loss_clipped",
        "smaller",
    ),
    Measure("convergence", "mean test error over the training", "%", "mean_error", "smaller", 100.0),
)
"""Convergence, and what stands in where no run has it."""


@dataclass(frozen=True)
class Training:
    """A trained cell among its trained controls.

    Attributes:
        budget: What was asked for.
        data: Name of the data set.
        split: On which split the curves and the accuracy are.
        epochs: Length of every training.
        planned: Number of runs of the cell and of its controls.
        finished: How many of them are finished.
        missing: Why the others are missing, a line each.
        ended: Runs that ended before their last epoch, a line each.
        diverged: Names of the runs that learnt nothing; they count with what they reached.
        settings: Settings that decide the trainings.
        asked: Number of controls that were to be trained.
        quantities: Accuracy and convergence, then what was measured at convergence.
        detectable: Difference in points of accuracy that is detected with a probability of 80 %; NaN where
            there is none.
        picks: What a search would have kept.
        curves: Loss and accuracy, ``[seeds, epochs]`` of the cell and ``[controls, epochs]``, means over
            seeds.
    """

    budget: Budget
    data: str
    split: str
    epochs: int
    planned: int
    finished: int
    missing: tuple[str, ...]
    ended: tuple[str, ...]
    diverged: tuple[str, ...]
    settings: Mapping[str, Any]
    asked: int
    quantities: tuple[Quantity, ...]
    detectable: float
    picks: SearchPicks
    curves: Mapping[str, Mapping[str, Float[np.ndarray, "cells epochs"]]]

    @property
    def accuracy(self) -> Quantity:
        """Final accuracy, on which the verdict rests."""
        return self.quantities[0]

    @property
    def controls(self) -> int:
        """Number of controls with a finished training."""
        return len(self.accuracy.controls)

    @property
    def badge(self) -> str:
        """The shortest verdict, ``"level 1: rank 3 of 20, p = 0.15"``, and how many runs are missing."""
        rank, lacking = self.accuracy.rank, self.planned - self.finished
        p = p_value_text(rank.p_value, sign=True)
        missing = f", {lacking} of {counted(self.planned, 'training')} missing" if lacking else ""
        return f"level {self.budget.level}: rank {rank.rank} of {rank.of}, p {p}{missing}"

    def record(self) -> dict[str, Any]:
        """Plain values for JSON; what is not finite is None."""
        epochs = list(range(1, self.epochs + 1))
        return {
            "level": self.budget.level,
            "data": self.data,
            "split": self.split,
            "epochs": self.epochs,
            "seeds": list(self.budget.seeds),
            "controls": self.controls,
            "runs": {"finished": self.finished, "planned": self.planned},
            "missing": list(self.missing),
            "ended": list(self.ended),
            "diverged": list(self.diverged),
            "settings": dict(self.settings),
            "quantities": [quantity.record() for quantity in self.quantities],
            "detectable": {
                "difference": finite(self.detectable),
                "power": POWER,
                "noise_from": "these trainings"
                if self.accuracy.estimate.repeats
                else "the spread of these trainings; one seed does not tell that between seeds, taken as in "
                "published trainings",
            },
            "budget": self.picks.record(),
            "curves": {"epochs": epochs}
            | {
                whose: {name: [list(map(finite, row)) for row in rows] for name, rows in curves.items()}
                for whose, curves in self.curves.items()
            },
            "sentences": list(sentences(self)),
            "badge": self.badge,
        }


def training_comparison(
    results: Results, subject: Subject, controls: Controls, budget: Budget
) -> Training | None:
    """Compare a cell with its controls, as far as they are trained.

    Args:
        results: Those of the study that :func:`write_study` wrote.
        subject: The cell.
        controls: Its controls.
        budget: What they are trained with.

    Returns:
        The comparison; None while the cell or all but two of its controls have no finished run.
    """
    runs = _Runs(results)
    own = runs.of(subject.genotype)
    others = {
        name: table for genotype in controls.genotypes for name, table in [runs.of(genotype)] if len(table)
    }
    name, own_table = own
    if not len(own_table) or len(others) < LEAST_CONTROLS:
        return None
    tables = {name: own_table, **others}
    everyone = pd.concat(tables.values())
    quantities = [_quantity(ACCURACY, own_table, others)]
    quantities += [
        _quantity(measure, own_table, others)
        for measure in [one for one in CONVERGENCE if _is_measured(everyone, one.column)][:1]
    ]
    quantities += _shown(everyone, own_table, others)
    planned = runs.planned((subject.genotype, *controls.genotypes))
    names = {run.name for run in planned}
    accuracy = _cell_curves(tables, results.curves, "accuracy", planned[0].epochs)
    return Training(
        budget=budget,
        data=planned[0].data_set,
        split=str(own_table["evaluation_split"].iloc[0]),
        epochs=planned[0].epochs,
        planned=len(planned),
        finished=len(everyone),
        missing=_about(results.problems, names),
        ended=_about(results.notes, names),
        diverged=tuple(everyone["run"][everyone["diverged"].fillna(False).astype(bool)]),
        settings={
            key: value
            for key, value in planned[0].deciding.items()
            if key not in ("model.genotype", "seed_everything")
        },
        asked=len(controls.genotypes),
        quantities=tuple(quantities),
        detectable=_detectable(quantities[0]),
        picks=search_picks(accuracy, list(tables)),
        curves={
            "own": {
                column: _run_curves(own_table, results.curves, column, planned[0].epochs)
                for column in ("loss", "accuracy")
            },
            "controls": {
                column: _cell_curves(others, results.curves, column, planned[0].epochs)
                for column in ("loss", "accuracy")
            },
        },
    )


class _Runs:
    """The runs of a study by genotype."""

    def __init__(self, results: Results) -> None:
        self._table = results.runs
        self._planned: dict[Genotype, list[Run]] = {}
        for run in results.study.runs:
            self._planned.setdefault(run.architecture.genotype, []).append(run)

    def of(self, genotype: Genotype) -> tuple[str, pd.DataFrame]:
        """The label of a cell, and its finished runs by seed."""
        planned = self.planned([genotype])
        found = self._table[self._table["run"].isin([run.name for run in planned])]
        return planned[0].architecture.label, found.sort_values("seed")

    def planned(self, genotypes: Iterable[Genotype]) -> list[Run]:
        """The runs of cells; a ValueError if the study has none of one."""
        found = []
        for genotype in genotypes:
            if genotype not in self._planned:
                raise ValueError(f"the study does not train {genotype}")
            found += self._planned[genotype]
        return found


def _is_measured(runs: pd.DataFrame, column: str) -> bool:
    return column in runs and bool(np.isfinite(runs[column].to_numpy(float, na_value=math.nan)).any())


def _quantity(measure: Measure, own: pd.DataFrame, controls: Mapping[str, pd.DataFrame]) -> Quantity:
    if (own["evaluation_split"] == "val").all():
        measure = replace(measure, label=measure.label.replace(" test ", " validation "))
    return compare(
        measure, _by_seed(own, measure), {name: _by_seed(table, measure) for name, table in controls.items()}
    )


def _by_seed(runs: pd.DataFrame, measure: Measure) -> BySeed:
    values = measure.scale * runs[measure.column].to_numpy(float, na_value=math.nan)
    return dict(zip(runs["seed"].astype(int).tolist(), values.tolist(), strict=True))


def _shown(everyone: pd.DataFrame, own: pd.DataFrame, controls: Mapping[str, pd.DataFrame]) -> list[Quantity]:
    """The primary statistics of the paper's claims about convergence, with Holm's correction."""
    measures = [
        Measure(one.column, one.name, one.unit, one.column, "larger" if one.larger else "smaller")
        for one in statistics("sizes")
        if one.primary and one.claim in _SHOWN_CLAIMS and _is_measured(everyone, one.column)
    ]
    found = [_quantity(measure, own, controls) for measure in measures]
    adjusted = holm([quantity.rank.p_value for quantity in found])
    return [replace(quantity, p_adjusted=float(p)) for quantity, p in zip(found, adjusted, strict=True)]


def _detectable(accuracy: Quantity) -> float:
    """NaN where all controls have one accuracy, or so few controls can detect nothing."""
    if not accuracy.estimate.between > 0:
        return math.nan
    noise = accuracy.estimate.noise()
    return detectable_difference(noise, len(accuracy.controls), len(accuracy.own))


def _about(lines: Iterable[str], names: set[str]) -> tuple[str, ...]:
    """The lines that begin with the name of a run."""
    beginnings = tuple(f"{name}{after}" for name in names for after in (": ", " has "))
    return tuple(line for line in lines if line.startswith(beginnings))


def _run_curves(
    runs: pd.DataFrame, curves: pd.DataFrame, column: str, epochs: int
) -> Float[np.ndarray, "runs epochs"]:
    """A curve of every run; NaN where an epoch has no value."""
    of_runs = curves[curves["run"].isin(runs["run"])]
    table = of_runs.pivot_table(index="run", columns="epoch", values=column, dropna=False)
    return table.reindex(index=runs["run"], columns=range(epochs)).to_numpy(float)


def _cell_curves(
    cells: Mapping[str, pd.DataFrame], curves: pd.DataFrame, column: str, epochs: int
) -> Float[np.ndarray, "cells epochs"]:
    """A curve of every cell: means over the seeds that have a value; NaN where none has."""
    rows = [_run_curves(runs, curves, column, epochs) for runs in cells.values()]
    means = []
    for row in rows:
        known = np.isfinite(row)
        counts = known.sum(axis=0)
        sums = np.where(known, row, 0).sum(axis=0)
        means.append(np.where(counts > 0, sums / np.maximum(counts, 1), math.nan))
    return np.stack(means)
