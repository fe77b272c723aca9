"""The tables of a report: the paper's with our numbers beside them, the architectures, the claims."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import pandas as pd

from nas_lightning.cells import (
    cell_depth,
    cell_width,
    count_parameters,
    format_width,
    get_genotype,
)
from nas_lightning.cells.published import SECTION4_CELLS
from nas_lightning.cells.table2 import is_stand_in
from nas_lightning.cells.variants import table3_spec
from nas_lightning.report.budget_picks import budget_table
from nas_lightning.report.claims import Claim, examine_claims, examine_paper_table1
from nas_lightning.report.initialisation import initialisation_table
from nas_lightning.report.observation_views import observation_table
from nas_lightning.report.paper import (
    Table1Entry,
    data_title,
    family_title,
    paper_classes,
    paper_misprints,
    paper_table1,
    paper_table2,
    paper_table3,
    paper_topologies,
    paper_training,
)
from nas_lightning.report.samples import SETTINGS, group_columns, group_keys
from nas_lightning.report.table_files import ReportTable
from nas_lightning.report.words import (
    MISSING,
    SETTING_NAMES,
    architecture_entries,
    mean_and_spread,
    p_value_text,
    say,
    signed,
)
from nas_lightning.study.results import Results

_MAY_LACK = (
    *("Mean path", "Unread input", "Parameters (M)", "Mean test loss (nat)"),
    *("Near-convex radius", "Gradient variance (nat²)"),
)
"""Columns of the table of architectures that it leaves out where no run has a value."""


def report_tables(results: Results, claims: Sequence[Claim] | None = None) -> list[ReportTable]:
    """All tables of a report.

    Args:
        results: Results of the study.
        claims: The claims, where they were tested before; they are tested here otherwise.

    Returns:
        Table 1, table 2, section 4's variants, table 3, the architectures, their initial weights where runs
        were measured there, the claims, the places of published cells, and, where there are pools of cells
        with curves, what a search would have picked.
    """
    runs = results.runs
    tested = examine_claims(runs) if claims is None else claims
    initial = initialisation_table(runs)
    tables = [
        table1(runs),
        table2(),
        numbering_table(runs),
        table3(),
        architecture_table(runs),
        *([] if initial is None else [initial]),
        claim_table(tested),
        observation_table(),
    ]
    picks = budget_table(results)
    return [*tables, picks] if picks else tables


def table1(runs: pd.DataFrame) -> ReportTable:
    """Table 1: test errors of the original and the adapted cells, and their parameters, counted anew.

    Of each data set the regularised runs with one set of settings are taken, those closest to the paper's;
    the caption says in what they differ.
    """
    chosen, differences = {}, []
    for data in paper_classes():
        chosen[data] = _closest(runs, data)
        if len(chosen[data]) and (words := _differences(chosen[data].iloc[0])):
            differences.append(f"on {data_title(data)} {', '.join(words)}")
    rows, agreeing, missing = [], 0, 0
    for entry in paper_table1():
        ours = _errors(chosen[entry.data], entry)
        counted = f"{_parameters(entry) / 1e6:.2f}"
        agrees = counted == f"{entry.parameters_M:.2f}"
        agreeing, missing = agreeing + agrees, missing + ours.empty
        rows.append(
            {
                "Data": data_title(entry.data),
                "Base cell": family_title(entry.family),
                "Cell": entry.cell,
                "Error, paper (%)": f"{entry.error_percent:.2f}",
                "Error, ours (%)": mean_and_spread(ours, 2),
                "Seeds": len(ours),
                "Parameters, paper (M)": f"{entry.parameters_M:.2f}",
                "Parameters, counted (M)": counted,
                "Count": "agrees" if agrees else "differs",
            }
        )
    caption = say(
        "table1",
        agreeing=agreeing,
        missing=missing,
        total=len(rows),
        differences=differences,
        paper=examine_paper_table1().explanation,
    )
    title = "Test error and parameters of the original and the adapted cells"
    return ReportTable("table1", "Table 1", title, caption, pd.DataFrame(rows))


def table2() -> ReportTable:
    """Table 2: width and depth of the originals and of C1 to C13, computed from the cells."""
    entries = paper_table2()
    families = list(dict.fromkeys(entry.family for entry in entries))
    originals = [t for t in paper_topologies() if t.variant == "original" and t.family in families]
    printed, counted = {}, {}
    stand_ins = {(e.family, e.variant) for e in entries if is_stand_in(e.family, e.variant)}
    for entry in (*originals, *entries):
        spec = entry.family if entry.variant == "original" else f"{entry.family}:{entry.variant}"
        printed[entry.family, entry.variant] = _topology(entry.width, entry.depth)
        genotype = get_genotype(spec)
        counted[entry.family, entry.variant] = _topology(
            cell_width(genotype.normal, genotype.normal_concat),
            cell_depth(genotype.normal, genotype.normal_concat),
        )
    variants = ["original", *(f"C{i}" for i in range(1, 14))]
    frame = _side_by_side(families, variants, printed, counted, stand_ins)
    slips = _slips("Figure 2", "Figure 10", "Figure 25")
    caption = say("table2", agreement=_agreement(printed, counted), slips=slips)
    return ReportTable("table2", "Table 2", "Width and depth of the variants by connections", caption, frame)


def table3() -> ReportTable:
    """Table 3: parameters of the variants by operations, counted anew."""
    entries = paper_table3()
    families = list(dict.fromkeys(entry.family for entry in entries))
    printed, counted = {}, {}
    notes: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        genotype = get_genotype(table3_spec(entry.family, entry.number))
        key = (entry.family, f"C{entry.number}")
        printed[key] = f"{entry.parameters_M:.2f}"
        counted[key] = f"{count_parameters(genotype) / 1e6:.2f}"
        if counted[key] != printed[key]:
            notes.setdefault((entry.family, entry.note or "unexplained"), []).append(key[1])
    frame = _side_by_side(families, [f"C{number}" for number in range(11)], printed, counted)
    differing = [f"{family_title(f)} {', '.join(names)} ({note})" for (f, note), names in notes.items()]
    agreement = _agreement(printed, counted)
    caption = say("table3", agreement=agreement, differing=differing, slips=_slips("Table 3"))
    title = "Parameters of the variants by operations"
    return ReportTable("table3", "Table 3", title, caption, frame)


def _side_by_side(
    families: list[str],
    variants: list[str],
    printed: dict[tuple[str, str], str],
    counted: dict[tuple[str, str], str],
    stand_ins: Collection[tuple[str, str]] = (),
) -> pd.DataFrame:
    rows = []
    for variant in variants:
        row: dict[str, object] = {"Variant": variant}
        differing = []
        for family in families:
            key = (family, variant)
            row[f"{family_title(family)}, paper"] = printed[key]
            row[f"{family_title(family)}, counted"] = counted[key] + " (stand-in)" * (key in stand_ins)
            if printed[key] != counted[key]:
                differing.append(family_title(family))
        row["Count"] = f"differs: {', '.join(differing)}" if differing else "agrees"
        rows.append(row)
    return pd.DataFrame(rows)


def _agreement(printed: dict[tuple[str, str], str], counted: dict[tuple[str, str], str]) -> str:
    same = sum(counted[key] == value for key, value in printed.items())
    return f"{same} of {len(printed)} agree with the paper's"


def _slips(*places: str) -> str:
    """The paper's slips in some of its figures and tables."""
    return say("slips", found=[f"{where}: {text}" for where, text in paper_misprints() if where in places])


def _topology(width: float, depth: int) -> str:
    return f"{format_width(width)}, {depth}"


def _parameters(entry: Table1Entry) -> int:
    genotype = get_genotype(entry.family if entry.cell == "original" else f"{entry.family}:adapted")
    return count_parameters(genotype, num_classes=paper_classes()[entry.data], auxiliary=True)


def _errors(runs: pd.DataFrame, entry: Table1Entry) -> pd.Series:
    if runs.empty:
        return pd.Series(dtype=float)
    chosen = runs[(runs["family"] == entry.family) & (runs["kind"] == entry.cell)]
    return chosen["final_error_percent"].astype(float).dropna()


def _closest(runs: pd.DataFrame, data: str) -> pd.DataFrame:
    """The regularised runs on a data set whose common settings differ least from the paper's."""
    if runs.empty:
        return runs
    matching = runs[
        runs["regularized"].eq(True) & runs["data"].eq(data) & runs["kind"].isin(["original", "adapted"])
    ]
    if matching.empty:
        return matching
    keys = group_keys(matching, [name for name in group_columns(matching) if name != "family"])
    groups = [matching[keys == key] for key in keys.unique()]
    best: pd.DataFrame = min(groups, key=lambda group: (len(_differences(group.iloc[0])), -len(group)))
    return best


def _differences(run: pd.Series) -> list[str]:
    """In what a run differs from the training of table 1, in words."""
    training = paper_training()
    papers = {name: value for name, value in vars(training).items() if name in SETTINGS}
    papers["epochs"] = training.epochs[run["data"]]
    return [
        f"{SETTING_NAMES[name]} {run[name]:g} (paper: {paper:g})"
        for name, paper in papers.items()
        if abs(run[name] - paper) > 1e-9
    ]


def numbering_table(runs: pd.DataFrame) -> ReportTable:
    """Section 4's C1 to C4: the DARTS variants of figures 2, 3, 4, 6, 7 and 8."""
    rows = []
    for number, name in SECTION4_CELLS.items():
        genotype = get_genotype(name)
        rows.append(
            {
                "Section 4": number,
                "Cell": name,
                "Width": format_width(cell_width(genotype.normal, genotype.normal_concat)),
                "Depth": cell_depth(genotype.normal, genotype.normal_concat),
                "Runs": 0 if runs.empty else int(runs["variant"].eq(name).sum()),
            }
        )
    title = "The variants of the DARTS cell in section 4"
    return ReportTable("numbering", "", title, say("numbering_table"), pd.DataFrame(rows))


def architecture_table(runs: pd.DataFrame) -> ReportTable:
    """Every architecture with its statistics, averaged over seeds, wide cells first.

    Settings that differ between architectures have columns.
    """
    title = "The architectures and their statistics"
    if runs.empty:
        columns = ["Architecture", "Data", "Width", "Depth", "Parameters (M)", "Seeds", "Final error (%)"]
        caption = "No run has finished yet."
        return ReportTable("architectures", "", title, caption, pd.DataFrame(columns=columns))
    varying = [name for name in SETTINGS[2:] if name in runs and runs[name].astype(str).nunique() > 1]
    keys = group_keys(runs, group_columns(runs))
    order = ["data", *varying, "family", "width", "depth", "architecture"]
    falling = [name != "width" for name in order]
    rows = []
    for _, group in runs.groupby([keys, runs["architecture"]], sort=False):
        first = group.iloc[0]
        row = architecture_entries(first, varying)
        row |= {
            "Mean path": f"{first['network_path']:.1f}" if pd.notna(first["network_path"]) else MISSING,
            "Unread input": _unread(first),
            "Parameters (M)": MISSING if pd.isna(first["parameters"]) else f"{first['parameters'] / 1e6:.3g}",
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
    empty = [name for name in _MAY_LACK if (frame[name] == MISSING).all()]
    frame = frame.drop(columns=empty)
    diverged = int(runs["diverged"].eq(True).sum())
    caption = say("architectures", diverged=diverged, columns=" ".join(map(str, frame)))
    return ReportTable("architectures", "", title, caption, frame.reset_index(drop=True))


def _unread(run: pd.Series) -> str:
    """The cell input that the normal cell never reads."""
    return next((str(source) for source in (0, 1) if not run[f"reads_input_{source}"]), MISSING)


def claim_table(claims: Sequence[Claim]) -> ReportTable:
    """The claims with effect, interval, p-values and verdict; a row a test, a claim's primary ones first."""
    shown = [claim for claim in claims if claim.primary or claim.verdict != "no data"]
    rows = [
        {
            "Claim": claim.statement.label,
            "Section": claim.statement.section,
            "Statistic": claim.statistic.name,
            "Against": claim.compared,
            "Effect is": claim.effect_name,
            "Primary": "yes" if claim.primary else "no",
            "Verdict": claim.verdict,
            "Effect": signed(claim.effect),
            "95 % interval": f"{signed(claim.low)} to {signed(claim.high)}"
            if math.isfinite(claim.low)
            else MISSING,
            "p": p_value_text(claim.p_value),
            "p (Holm)": p_value_text(claim.p_adjusted),
            "Smallest p": p_value_text(claim.smallest_p),
            "Groups": int(claim.groups["effect"].notna().sum()),
        }
        for claim in shown
    ]
    caption = say("claim_table", untested=len(claims) - len(shown))
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
