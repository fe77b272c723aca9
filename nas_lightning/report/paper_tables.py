"""Tables 1, 2 and 3 of the paper, our numbers beside them."""

from __future__ import annotations

import pandas as pd

from nas_lightning.cells import (
    Genotype,
    cell_depth,
    cell_width,
    count_parameters,
    format_width,
    get_genotype,
    random_operations,
)
from nas_lightning.report.blocks import ReportTable
from nas_lightning.report.claims import examine_paper_table1
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
from nas_lightning.report.samples import group_columns, group_keys
from nas_lightning.report.table_text import MISSING, mean_and_spread

_COMPARED = {
    "learning_rate": "learning rate",
    "batch_size": "images a batch",
    "num_cells": "cells",
    "init_channels": "initial channels",
    "cutout": "cutout",
    "drop_path": "drop path",
    "auxiliary_weight": "weight of the tower",
}


def table1(runs: pd.DataFrame) -> ReportTable:
    """Table 1: test errors of the original and the adapted cells, and their parameters, counted anew.

    Of each data set the regularised runs with one set of settings are taken, those closest to the paper's;
    the caption says in what they differ.

    Args:
        runs: Results.runs.

    Returns:
        The table: a row per data set, base cell and cell.
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
    caption = [
        "Test error after training with cutout, drop path and auxiliary tower; ours with the standard"
        " deviation over seeds.",
        f"{agreeing} of {len(rows)} parameter counts (auxiliary tower included) agree with the paper's.",
        _absence(missing, len(rows)),
    ]
    if differences:
        caption.append(f"Ours differ from the paper's settings: {'; '.join(differences)}.")
    caption.append(f"The paper's own numbers, tested: {examine_paper_table1().explanation}")
    title = "Test error and parameters of the original and the adapted cells"
    return ReportTable("table1", "Table 1", title, " ".join(filter(None, caption)), pd.DataFrame(rows))


def table2() -> ReportTable:
    """Table 2: width and depth of the originals and of C1 to C13, computed from the cells.

    Returns:
        The table: a row per variant, two columns per base cell.
    """
    entries = paper_table2()
    families = list(dict.fromkeys(entry.family for entry in entries))
    originals = [t for t in paper_topologies() if t.variant == "original" and t.family in families]
    printed, counted = {}, {}
    for entry in (*originals, *entries):
        spec = entry.family if entry.variant == "original" else f"{entry.family}:{entry.variant}"
        printed[entry.family, entry.variant] = _topology(entry.width, entry.depth)
        genotype = get_genotype(spec)
        counted[entry.family, entry.variant] = _topology(
            cell_width(genotype.normal, genotype.normal_concat),
            cell_depth(genotype.normal, genotype.normal_concat),
        )
    frame = _side_by_side(families, ["original", *(f"C{i}" for i in range(1, 14))], printed, counted)
    caption = (
        f"Width and depth of the normal cell; {_agreement(printed, counted)}. The paper gives no seeds: a"
        " variant here is the next wiring, by seed, that has the printed width and depth."
        f"{_misprints('Figure 2', 'Figure 10', 'Figure 25')}"
    )
    return ReportTable("table2", "Table 2", "Width and depth of the variants by connections", caption, frame)


def table3() -> ReportTable:
    """Table 3: parameters of the variants by operations, counted anew.

    Returns:
        The table: a row per variant, two columns per base cell.
    """
    entries = paper_table3()
    families = list(dict.fromkeys(entry.family for entry in entries))
    printed, counted = {}, {}
    notes: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        base = get_genotype(entry.family)
        genotype = random_operations(base, entry.number) if entry.number else base
        key = (entry.family, f"C{entry.number}")
        printed[key] = f"{entry.parameters_M:.2f}"
        counted[key] = f"{count_parameters(genotype) / 1e6:.2f}"
        if counted[key] != printed[key]:
            notes.setdefault((entry.family, entry.note or "unexplained"), []).append(key[1])
    frame = _side_by_side(families, [f"C{number}" for number in range(11)], printed, counted)
    differing = [f"{family_title(f)} {', '.join(names)} ({note})" for (f, note), names in notes.items()]
    caption = (
        "Millions of parameters without auxiliary tower, CIFAR-10, 36 initial channels, 20 cells."
        " C0 is the original, C1 to C10 have random operations of seeds 1 to 10."
        f" {_agreement(printed, counted)}; differing: {'; '.join(differing) if differing else 'none'}."
        f"{_misprints('Table 3')}"
    )
    title = "Parameters of the variants by operations"
    return ReportTable("table3", "Table 3", title, caption, frame)


def _side_by_side(
    families: list[str],
    variants: list[str],
    printed: dict[tuple[str, str], str],
    counted: dict[tuple[str, str], str],
) -> pd.DataFrame:
    rows = []
    for variant in variants:
        row: dict[str, object] = {"Variant": variant}
        differing = []
        for family in families:
            key = (family, variant)
            row[f"{family_title(family)}, paper"] = printed[key]
            row[f"{family_title(family)}, counted"] = counted[key]
            if printed[key] != counted[key]:
                differing.append(family_title(family))
        row["Count"] = f"differs: {', '.join(differing)}" if differing else "agrees"
        rows.append(row)
    return pd.DataFrame(rows)


def _agreement(printed: dict[tuple[str, str], str], counted: dict[tuple[str, str], str]) -> str:
    same = sum(counted[key] == value for key, value in printed.items())
    return f"{same} of {len(printed)} agree with the paper's"


def _misprints(*places: str) -> str:
    """The paper's slips in some of its figures and tables, as the end of a caption."""
    slips = [f"{where}: {text}" for where, text in paper_misprints() if where in places]
    return f" Slips of the paper: {'. '.join(slips)}." if slips else ""


def _topology(width: float, depth: int) -> str:
    return f"{format_width(width)}, {depth}"


def _parameters(entry: Table1Entry) -> int:
    genotype: Genotype = get_genotype(entry.family if entry.cell == "original" else f"{entry.family}:adapted")
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
    pairs = [("epochs", "epochs", training.epochs[run["data"]])]
    pairs += [(column, name, getattr(training, column)) for column, name in _COMPARED.items()]
    words = []
    for column, name, paper in pairs:
        ours = float(run[column])
        if abs(ours - paper) > 1e-9:
            words.append(f"{name} {ours:g} (paper: {paper:g})")
    return words


def _absence(missing: int, total: int) -> str:
    if missing == 0:
        return ""
    which = "None" if missing == total else f"{total - missing}"
    return (
        f"{which} of the {total} errors {'has' if total - missing == 1 else 'have'} a regularised run in this"
        f" study; {MISSING} marks the others."
    )
