"""Result tables as the tests need them: one value an architecture and group, seeds averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nas_lightning.report.effects import RankBlock, SpreadBlock

SETTINGS = (
    "family",
    "data",
    "learning_rate",
    "epochs",
    "batch_size",
    "cutout",
    "drop_path",
    "auxiliary_weight",
    "evaluation_split",
    "init_channels",
    "num_cells",
)
"""Columns in which the runs of a group agree, besides the settings of the command line."""

NOT_COMPARED = (
    "settings.model.genotype",
    "settings.model.speed",
    "settings.data.root",
    "settings.data.evaluation_batch_size",
    "settings.data.seed",
    "settings.seed_everything",
    "settings.trainer.world_size",
)
"""Settings in which the runs of a group may differ. Of the seeds those of the training: `validation_seed`
decides on which images a run is trained and measured."""


GROUP_COLUMNS = ["family", "data", "learning_rate", "n", "seeds", "seed_noise", "effect"]
"""Columns of a claim's table of groups."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A statistic of the architectures, averaged over seeds.

    The table has a row per group and architecture: ``group`` (its number), ``family``, ``data``,
    ``learning_rate``, ``unit`` (the genotype), ``architecture``, ``kind``, ``width``, ``depth``, ``value``
    (mean over seeds), ``seeds``, ``noise`` (variance of the value that is due to seeds, NaN where no
    architecture of the group has two). Runs without a value are dropped; censored ones never reached what the
    statistic waits for and rank last.
    """

    table: pd.DataFrame
    dropped: int
    censored: int


def group_columns(runs: pd.DataFrame) -> list[str]:
    """Columns that make a group: base cell, data, learning rate and every other setting but cell and seed."""
    settings = [name for name in runs.columns if name.startswith("settings.") and name not in NOT_COMPARED]
    return [name for name in SETTINGS if name in runs.columns] + settings


def group_keys(runs: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """One text for each combination of settings; missing values equal one another."""
    texts = runs[list(columns)].astype(object).fillna("").astype(str)
    return texts.agg("\x1f".join, axis=1) if columns else pd.Series("", index=runs.index)


def take_sample(
    runs: pd.DataFrame,
    statistic: str,
    kinds: Sequence[str],
    *,
    censored: bool = False,
    logarithm: bool = False,
) -> Sample:
    """Average a statistic over seeds.

    Seeds repeat an architecture and are no units of their own: more seeds make a value surer and nothing
    else. Runs of one genotype are one architecture, whatever its name. Where the statistic is censored, a
    missing value means "never reached": runs are ranked within their group, those without a value last and
    alike, and the ranks are averaged; a run whose curve is unknown (no ``mean_error``, not diverged) is left
    out. Logarithms (NaN of what is not positive) are taken before averaging. The table is empty where no run
    has a value.
    """
    if runs.empty:
        return Sample(_empty(), 0, 0)
    of_kind = runs["kind"].isin(list(kinds))
    if statistic not in runs.columns:
        return Sample(_empty(), int(of_kind.sum()), 0)
    chosen = runs[of_kind].copy()
    chosen["value"] = pd.to_numeric(chosen[statistic], errors="coerce").astype(float)
    if logarithm:
        chosen["value"] = np.log(chosen["value"].where(chosen["value"] > 0))
    late = pd.Series(False, index=chosen.index)
    if censored:
        late = chosen["value"].isna() & (chosen["mean_error"].notna() | chosen["diverged"].eq(True))
        chosen.loc[late, "value"] = np.inf
    known = chosen["value"].notna() if censored else np.isfinite(chosen["value"])
    dropped = int((~known).sum())
    chosen = chosen[known]
    if chosen.empty:
        return Sample(_empty(), dropped, 0)
    chosen["group"] = pd.factorize(group_keys(chosen, group_columns(chosen)))[0]
    if censored:
        chosen["value"] = chosen.groupby("group")["value"].rank()
    chosen["unit"] = chosen["genotype"].fillna(chosen["architecture"])
    grouped = chosen.groupby(["group", "unit"], sort=False)
    first = ["family", "data", "learning_rate", "architecture", "kind", "width", "depth"]
    table = grouped[first].first()
    table["value"] = grouped["value"].mean()
    table["seeds"] = grouped["value"].size()
    squares = grouped["value"].var(ddof=1).fillna(0.0) * (table["seeds"] - 1)
    freedom = (table["seeds"] - 1).groupby("group").sum()
    within = squares.groupby("group").sum() / freedom.where(freedom > 0)
    table = table.reset_index()
    table["noise"] = table["group"].map(within) / table["seeds"]
    return Sample(table, dropped, int(late.sum()))


def rank_blocks(table: pd.DataFrame, predictor: str, sign: int) -> tuple[list[RankBlock], list[int]]:
    """The base cells of a sample for a rank association, and the number of each group in their order.

    A group needs three architectures. The sign (1 or -1) multiplies the values.
    """
    if table.empty:
        return [], []
    blocks, groups = [], []
    large = table[table.groupby("group")["unit"].transform("size") >= 3]
    for _, family in large.groupby("family", sort=True):
        wide = family.pivot(index="group", columns="unit", values="value")
        of_unit = family.groupby("unit")[predictor].first().reindex(wide.columns)
        blocks.append(RankBlock(of_unit.to_numpy(float), sign * wide.to_numpy(float)))
        groups += [int(group) for group in wide.index]
    return blocks, groups


def spread_blocks(table: pd.DataFrame) -> tuple[list[SpreadBlock], list[int]]:
    """The base cells for the spread of connection against operation variants, and their groups' numbers.

    A group needs three variants of each kind.
    """
    if table.empty:
        return [], []
    counts = table.groupby(["group", "kind"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=["connections", "operations"], fill_value=0)
    enough = counts.index[(counts >= 3).all(axis=1)]
    blocks, groups = [], []
    for _, family in table[table["group"].isin(enough)].groupby("family", sort=True):
        wide = family.pivot(index="group", columns="unit", values="value")
        noise = family.pivot(index="group", columns="unit", values="noise").fillna(0.0)
        first = family.groupby("unit")["kind"].first().reindex(wide.columns) == "connections"
        blocks.append(SpreadBlock(first.to_numpy(bool), wide.to_numpy(float), noise.to_numpy(float)))
        groups += [int(group) for group in wide.index]
    return blocks, groups


def describe_groups(
    table: pd.DataFrame, groups: Sequence[int | str], effects: Sequence[float]
) -> pd.DataFrame:
    """What each group is, with its effect: the columns ``GROUP_COLUMNS``.

    ``n`` counts architectures, ``seeds`` is the mean number of an architecture, ``seed_noise`` the share of
    the variance between architectures that seeds explain, NaN for one seed.
    """
    rows = []
    for group, effect in zip(groups, effects, strict=True):
        members = table[table["group"] == group]
        first = members.iloc[0]
        between = members["value"].var(ddof=1)
        rows.append(
            {
                "family": first["family"],
                "data": first["data"],
                "learning_rate": first["learning_rate"],
                "n": len(members),
                "seeds": members["seeds"].mean(),
                "seed_noise": members["noise"].mean() / between if between > 0 else np.nan,
                "effect": effect,
            }
        )
    return pd.DataFrame(rows, columns=GROUP_COLUMNS)


def _empty() -> pd.DataFrame:
    columns = ["group", "unit", "family", "data", "learning_rate", "architecture", "kind", "width", "depth"]
    return pd.DataFrame({name: pd.Series(dtype=float) for name in (*columns, "value", "seeds", "noise")})
