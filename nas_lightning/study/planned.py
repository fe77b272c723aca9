"""The runs of a study as a table before they are trained, in the columns that the report groups them by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pandas as pd

from nas_lightning.cells import Genotype, topology
from nas_lightning.study.state import RunState, Status


def planned_runs(states: Sequence[RunState]) -> pd.DataFrame:
    """A row for each run that the study plans.

    Args:
        states: The runs and how far they are.

    Returns:
        The columns of ``Results.runs`` that are known beforehand (the cell, its width, depth and paths, the
        settings), and ``final_accuracy``, NaN where a run is not finished.
    """
    sizes: dict[tuple[Genotype, int | None], dict[str, object]] = {}
    rows = []
    for state in states:
        run, cell = state.run, state.run.architecture
        num_cells = run.deciding.get("model.num_cells")
        if (cell.genotype, num_cells) not in sizes:
            sizes[cell.genotype, num_cells] = dataclasses.asdict(topology(cell.genotype, num_cells))
        done = state.status is Status.FINISHED and state.accuracy is not None
        rows.append(
            {
                "run": run.name,
                "genotype": str(cell.genotype),
                "architecture": cell.label,
                **{name: getattr(cell, name) for name in ("family", "variant", "kind")},
                **sizes[cell.genotype, num_cells],
                "data": run.data_set,
                "learning_rate": math.nan if run.learning_rate is None else run.learning_rate,
                "seed": run.seed,
                "epochs": run.epochs,
                "regularized": run.is_regularized,
                "final_accuracy": state.accuracy if done else math.nan,
                **{f"settings.{_short(key)}": str(value) for key, value in run.deciding.items()},
            }
        )
    return pd.DataFrame(rows)


def _short(key: str) -> str:
    """The name of a setting in results, which leave out that a class has arguments."""
    return key.replace("data.init_args.", "data.")
