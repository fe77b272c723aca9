"""Pictures of the files that hold loss and accuracy along lines."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from nas_lightning.figures.facts import file_facts, shared_note
from nas_lightning.figures.line import LineCurve, LinePanel, draw_lines

if TYPE_CHECKING:
    import xarray as xr

SPLITS = ("train", "val", "test")
"""In the order in which they are drawn and named."""
STEP = "step (in norms of the filters)"
"""Name of the horizontal axis of random lines."""
_STATISTICS = {"loss": "loss (nat)", "accuracy": "accuracy"}


def splits_of(dataset: xr.Dataset, path: str | os.PathLike[str] = "the dataset") -> list[str]:
    """The splits whose losses lines have; a ValueError, with the file, if there are none."""
    splits = [split for split in SPLITS if f"{split}_loss" in dataset]
    if not splits:
        raise ValueError(f"{path} is damaged: it has no loss of a split, such as `test_loss`")
    return splits


def finished_part(
    dataset: xr.Dataset, name: str
) -> tuple[Float[np.ndarray, " position"], Float[np.ndarray, "row position"]]:
    """Positions and rows of a variable that are measured.

    These are the complete rows; while there is none, the measured positions of the first one that is begun.
    """
    values = dataset[name].transpose(..., "position").values.astype(np.float64)
    done = dataset["done"].transpose(..., "position").values.astype(bool)
    positions = dataset["position"].values.astype(np.float64)
    complete = done.all(axis=1)
    if complete.any():
        return positions, values[complete]
    row = int(done.any(axis=1).argmax())
    return positions[done[row]], values[[row]][:, done[row]]


def line_panels(datasets: Sequence[xr.Dataset], names: Sequence[str]) -> list[LinePanel]:
    """The panels of loss and accuracy along the lines of some files, whose names are those of the paths.

    An accuracy that no point has, as with an own loss, is left out. The panels of a complete file that stands
    alone say its barriers, where it has them.
    """
    panels = []
    for statistic, label in _STATISTICS.items():
        curves = []
        for dataset, name in zip(datasets, names, strict=True):
            for split in splits_of(dataset):
                positions, rows = finished_part(dataset, f"{split}_{statistic}")
                if len(positions) and not (statistic == "accuracy" and np.isnan(rows).all()):
                    curves.append(LineCurve(name, split, positions, rows))
        first = datasets[0][f"{splits_of(datasets[0])[0]}_loss"]
        is_own = statistic == "loss" and first.attrs.get("units") != "nat"
        shown = "loss" if is_own else label
        said = _barriers(datasets[0], statistic) if len(datasets) == 1 else ""
        if curves:
            panels.append(LinePanel(curves, shown, said, is_gain=statistic == "accuracy"))
    return panels


def _barriers(dataset: xr.Dataset, statistic: str) -> str:
    """The barriers of every split in words: with several rows the mean and the standard deviation."""
    kind = "barrier" if statistic == "loss" else "accuracy_barrier"
    words = []
    for split in splits_of(dataset):
        if f"{split}_{kind}" in dataset:
            heights = dataset[f"{split}_{kind}"].values
            with np.errstate(invalid="ignore"):
                spread = f" ± {heights.std(ddof=1):.2g}" if heights.size > 1 else ""
                words.append(f"{split} {heights.mean():.3g}{spread}")
    return f"barrier: {', '.join(words)}" if words else ""


def draw_loss_lines(datasets: Sequence[xr.Dataset], names: Sequence[str], title: str = "") -> Figure | None:
    """Draw the files of loss lines in two panels, or None if nothing is measured yet."""
    panels = line_panels(datasets, names)
    if not panels:
        return None
    note = shared_note([file_facts(dataset) for dataset in datasets])
    return draw_lines(panels, x_label=STEP, marks={0.0: "w*"}, title=title, note=note)


def draw_interpolations(
    datasets: Sequence[xr.Dataset], names: Sequence[str], title: str = ""
) -> Figure | None:
    """Draw the files of lines between networks, or None if nothing is measured yet."""
    panels = line_panels(datasets, names)
    if not panels:
        return None
    labels = [pair_labels(dataset) for dataset in datasets]
    ends = labels[0][0] if len(datasets) == 1 and len(labels[0]) == 1 else None
    x_label = "position t" if ends is None else f"position t, from {ends[0]} (A) to {ends[1]} (B)"
    facts = [file_facts(dataset) for dataset in datasets]
    note = ", ".join(filter(None, [shared_note(facts), *_pairs_in_words(labels[0], datasets)]))
    marks = {0.0: "A", 1.0: "B"}
    return draw_lines(
        panels, x_label=x_label, marks=marks, chords=True, each_row=True, title=title, note=note
    )


def pair_labels(dataset: xr.Dataset) -> list[tuple[str, str]]:
    """What both ends of every pair are called."""
    labels: Sequence[Sequence[str]] = json.loads(str(dataset.attrs.get("labels", "[]")))
    return [(str(first), str(second)) for first, second in labels]


def _pairs_in_words(labels: Sequence[tuple[str, str]], datasets: Sequence[xr.Dataset]) -> list[str]:
    """How many pairs a figure has, and of what."""
    if len(datasets) > 1 or len(labels) < 2:
        return []
    ends = list(dict.fromkeys(end for pair in labels for end in pair))
    return [f"{len(labels)} pairs of {'; '.join(ends)}"]
