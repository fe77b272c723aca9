"""The tables of the report: the paper's with our numbers, the architectures, the claims."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from nas_lightning.cells import cell_depth, cell_width, format_width, get_genotype
from nas_lightning.cells.table2 import SECTION4_NUMBERING, TABLE2
from nas_lightning.report.blocks import ReportTable
from nas_lightning.report.claims import Claim, examine_claims
from nas_lightning.report.measures import PREDICTORS
from nas_lightning.report.paper import data_title
from nas_lightning.report.paper_tables import table1, table2, table3
from nas_lightning.report.samples import SETTINGS, group_columns, group_keys
from nas_lightning.report.table_text import MISSING, mean_and_spread, p_value_text
from nas_lightning.study.results import Results

_CLAIMS = {
    "convergence": "faster convergence",
    "landscape": "smoother landscape",
    "gradient_variance": "smaller gradient variance",
    "operations": "operations matter less",
    "generalization": "no better generalisation",
}
_SETTING_TITLES = {
    "learning_rate": "Learning rate",
    "epochs": "Epochs",
    "batch_size": "Batch size",
    "cutout": "Cutout",
    "drop_path": "Drop path",
    "auxiliary_weight": "Tower weight",
    "evaluation_split": "Split",
    "init_channels": "Channels",
    "num_cells": "Cells",
}


def report_tables(results: Results, claims: Sequence[Claim] | None = None) -> list[ReportTable]:
    """All tables of a report.

    Args:
        results: Results of the study.
        claims: The claims, where they were tested before; they are tested here otherwise.

    Returns:
        Table 1, table 2, the numbering of figure 2, table 3, the architectures and the claims.
    """
    runs = results.runs
    tested = examine_claims(runs) if claims is None else claims
    return [
        table1(runs),
        table2(),
        numbering_table(runs),
        table3(),
        architecture_table(runs),
        claim_table(tested),
    ]


def numbering_table(runs: pd.DataFrame) -> ReportTable:
    """Both numberings of the DARTS variants in figures 2, 3, 4, 6, 7 and 8.

    Args:
        runs: Results.runs.

    Returns:
        The table: a row per variant of section 4.
    """
    rows = []
    for section4, of_table2 in SECTION4_NUMBERING.items():
        genotype = get_genotype(f"darts_v2:{of_table2}")
        width = cell_width(genotype.normal, genotype.normal_concat)
        trained = (
            0 if runs.empty else int((runs["family"].eq("darts_v2") & runs["variant"].eq(of_table2)).sum())
        )
        rows.append(
            {
                "Figures 2 to 8": section4,
                "Table 2": of_table2,
                "Width": format_width(width),
                "Depth": cell_depth(genotype.normal, genotype.normal_concat),
                "Seed of the connections": TABLE2["darts_v2"][int(of_table2[1:]) - 1].seed,
                "Runs": trained,
            }
        )
    caption = (
        "Figures 2, 3, 4, 6, 7 and 8 number four variants of the DARTS cell by falling width, table 2 numbers"
        " thirteen by rising width; this report prints table 2's names."
    )
    return ReportTable(
        "numbering",
        "",
        "Names of the DARTS variants in section 4 and in table 2",
        caption,
        pd.DataFrame(rows),
    )


def architecture_table(runs: pd.DataFrame) -> ReportTable:
    """Every architecture with its measures, averaged over seeds.

    Args:
        runs: Results.runs.

    Returns:
        The table: a row per architecture and settings, wide cells first; settings that differ between rows
        have columns.
    """
    title = "The architectures and their measures"
    if runs.empty:
        columns = ["Architecture", "Data", "Width", "Depth", "Parameters (M)", "Seeds", "Final error (%)"]
        return ReportTable(
            "architectures", "", title, "No run has finished yet.", pd.DataFrame(columns=columns)
        )
    varying = [name for name in SETTINGS[2:] if name in runs and runs[name].astype(str).nunique() > 1]
    keys = group_keys(runs, group_columns(runs))
    order = ["data", *varying, "family", "width", "depth", "architecture"]
    falling = [name != "width" for name in order]
    rows = []
    for _, group in runs.groupby([keys, runs["architecture"]], sort=False):
        first = group.iloc[0]
        row: dict[str, object] = {"Architecture": first["architecture"], "Data": data_title(first["data"])}
        row |= {_SETTING_TITLES[name]: _plain(first[name]) for name in varying}
        row |= {
            "Width": format_width(float(first["width"])),
            "Depth": int(first["depth"]),
            "Parameters (M)": f"{first['parameters'] / 1e6:.3g}",
            "Seeds": len(group),
            "Final error (%)": mean_and_spread(group["final_error_percent"], 2),
            "Mean test loss (nat)": _column(group, "area_under_loss_clipped"),
            "Epochs to 90 %": _epochs(group),
            "Near-convex radius": _column(group, "loss_contour.near_convex_radius"),
            "Gradient variance (nat²)": _column(group, "gradient_variance.center_variance"),
            "_order": tuple(first[name] for name in order),
        }
        rows.append(row)
    sortable = pd.DataFrame([row.pop("_order") for row in rows], columns=order)
    frame = pd.DataFrame(rows).loc[sortable.sort_values(order, ascending=falling).index]
    diverged = int(runs["diverged"].eq(True).sum())
    caption = (
        "Mean and standard deviation over seeds. The mean test loss is over all epochs, cut at chance level;"
        " the radius is of the near-convex region, in units of alpha; the variance is of one image's gradient"
        f" at the end of the training. {MISSING}: not measured."
    )
    if diverged:
        caption += f" {diverged} run{' has' if diverged == 1 else 's have'} diverged."
    return ReportTable("architectures", "", title, caption, frame.reset_index(drop=True))


def claim_table(claims: Sequence[Claim]) -> ReportTable:
    """The claims with effect, interval, p-values and verdict.

    Args:
        claims: The claims.

    Returns:
        The table: a row per test, the primary ones of a claim first.
    """
    rows, untested = [], 0
    for claim in claims:
        no_data = claim.verdict == "no data"
        if no_data and not claim.primary:
            untested += 1
            continue
        rows.append(
            {
                "Claim": _CLAIMS[claim.key],
                "Section": claim.section,
                "Measure": claim.measure_name,
                "Against": PREDICTORS[claim.predictor],
                "Primary": "yes" if claim.primary else "no",
                "Verdict": claim.verdict,
                "Effect": MISSING if math.isnan(claim.effect) else f"{claim.effect:.2f}",
                "95 % interval": MISSING if no_data else f"{claim.low:.2f} to {claim.high:.2f}",
                "p": MISSING if no_data else p_value_text(claim.p_value),
                "p (Holm)": MISSING if no_data else p_value_text(claim.p_adjusted),
                "Groups": int(claim.groups["effect"].notna().sum()),
            }
        )
    caption = (
        "Effects: against width and small depth Kendall's tau-b within base cell and settings, averaged over"
        " groups; for connections against operations the logarithm of the ratio of their standard deviations;"
        " for adapted cells the logarithm of the ratio of errors, positive where they are better. The signs"
        " are such that a claim predicts positive effects, only that about generalisation none. Intervals are"
        " bootstrap percentiles, p-values two-sided: against width and small depth, architectures are drawn"
        " and permuted within base cells; for connections against operations, variants are drawn within"
        " kinds, and kinds exchanged within base cells after their means were taken off; for adapted cells,"
        " whole base cells are drawn and change their sign. p-values are corrected by Holm's method among the"
        " primary tests and among the rest. Undecided is absence of evidence, not evidence of absence."
    )
    if untested:
        caption += f" {untested} further test{' lacks' if untested == 1 else 's lack'} data."
    return ReportTable("claims", "", "The paper's claims, tested", caption, pd.DataFrame(rows))


def _column(group: pd.DataFrame, name: str) -> str:
    return mean_and_spread(group[name]) if name in group else MISSING


def _epochs(group: pd.DataFrame) -> str:
    """Epochs to 90 % accuracy; runs that never reached it are counted, not averaged."""
    if group["mean_error"].isna().all():
        return MISSING
    reached = group["epochs_to_accuracy_0.9"].astype(float).dropna()
    if reached.empty:
        return "never"
    text = mean_and_spread(reached, 1)
    missing = len(group) - len(reached)
    return f"{text} ({missing} never)" if missing else text


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
