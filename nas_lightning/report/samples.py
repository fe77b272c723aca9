"""Result tables as the tests need them: one value an architecture and group, seeds averaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nas_lightning.report.effects import RankBlock, SpreadBlock
from nas_lightning.report.original import OriginalBlock
from nas_lightning.report.partial import PartialBlock

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


UNIT_COLUMNS = ("width", "depth", "network_path", "live_parameters")
"""What an architecture brings along; NaN where the results lack it."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A statistic of the architectures, averaged over seeds.

    The table has a row per group and architecture: ``group`` (its number), ``family``, ``data``,
    ``learning_rate``, ``unit`` (the genotype), ``architecture``, ``kind``, the columns ``UNIT_COLUMNS``,
    ``value`` (mean over seeds), ``given`` (mean of the covariate, NaN without one), ``seeds``, ``noise``
    (variance of the value that is due to seeds, NaN where no architecture of the group has two),
    ``direction_noise`` (variance of the value that is due to the random directions of the measurement, NaN
    where it is unknown), ``regularization_known``. Runs without a value are dropped; censored ones never
    reached what the statistic waits for and rank last.
    """

    table: pd.DataFrame
    dropped: int
    censored: int

    def of_kinds(self, kinds: Sequence[str]) -> pd.DataFrame:
        """The rows of some kinds of architectures."""
        return self.table[self.table["kind"].isin(list(kinds))]


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
    given: str = "",
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

    Directions: of a mean over m of them with the standard deviation ``STATISTIC.sd``, the variance is sd²/m,
    and 1/k of it remains in the mean over k seeds, whose weights differ. It is unknown for one direction.

    Args:
        runs: Results.runs.
        statistic: A column.
        kinds: Kinds of architectures to take.
        given: A column to average along: the covariate.
        censored: Whether a missing value means "never reached".
        logarithm: Whether to take logarithms.
    """
    if runs.empty:
        return Sample(_empty(), 0, 0)
    of_kind = runs["kind"].isin(list(kinds))
    if statistic not in runs.columns:
        return Sample(_empty(), int(of_kind.sum()), 0)
    chosen = runs[of_kind].copy()
    chosen["value"] = _numbers(chosen, statistic)
    chosen["direction_noise"] = _direction_variance(chosen, statistic)
    if logarithm:
        chosen["value"] = np.log(chosen["value"].where(chosen["value"] > 0))
        chosen["direction_noise"] /= np.exp(2 * chosen["value"])
    late = pd.Series(False, index=chosen.index)
    if censored:
        late = chosen["value"].isna() & (chosen["mean_error"].notna() | chosen["diverged"].eq(True))
        chosen.loc[late, "value"] = np.inf
    known = chosen["value"].notna() if censored else np.isfinite(chosen["value"])
    dropped = int((~known).sum())
    chosen = chosen[known]
    if chosen.empty:
        return Sample(_empty(), dropped, 0)
    # By column: a further one would copy every group.
    chosen["group"] = chosen.groupby(group_columns(chosen), dropna=False, sort=False).ngroup()
    if censored:
        chosen["value"] = chosen.groupby("group")["value"].rank()
    chosen["unit"] = chosen["genotype"].fillna(chosen["architecture"])
    chosen["given"] = _numbers(chosen, given)
    chosen["regularization_known"] = chosen["regularized"].notna()
    for name in UNIT_COLUMNS:
        chosen[name] = _numbers(chosen, name)
    grouped = chosen.groupby(["group", "unit"], sort=False)
    first = ["family", "data", "learning_rate", "architecture", "kind", "regularization_known"]
    table = grouped[[*first, *UNIT_COLUMNS]].first()
    table[["value", "given"]] = grouped[["value", "given"]].mean()
    table["seeds"] = grouped["value"].size()
    table["direction_noise"] = grouped["direction_noise"].mean() / table["seeds"]
    squares = grouped["value"].var(ddof=1).fillna(0.0) * (table["seeds"] - 1)
    freedom = (table["seeds"] - 1).groupby("group").sum()
    within = squares.groupby("group").sum() / freedom.where(freedom > 0)
    table = table.reset_index()
    table["noise"] = table["group"].map(within) / table["seeds"]
    return Sample(table, dropped, int(late.sum()))


def rank_blocks(table: pd.DataFrame, predictor: str, sign: int) -> tuple[list[RankBlock], list[int]]:
    """The base cells of a sample for a rank association, and the number of each group in their order.

    A group needs three architectures. The sign (1 or -1) multiplies the values. An architecture without the
    predictor is left out.
    """
    blocks, groups = [], []
    for family in _large_groups(table[table[predictor].notna()], 3):
        wide = family.pivot(index="group", columns="unit", values="value")
        blocks.append(RankBlock(_of_unit(family, predictor, wide), sign * _array(wide), _jitter(family)))
        groups += [int(group) for group in wide.index]
    return blocks, groups


def partial_blocks(
    table: pd.DataFrame, predictor: str, covariates: Sequence[str], sign: int
) -> tuple[list[PartialBlock], list[int]]:
    """As :func:`rank_blocks`, for a partial association given some columns of the sample."""
    blocks, groups = [], []
    complete = table[table[[predictor, *covariates]].notna().all(axis=1)]
    for family in _large_groups(complete, 3):
        wide = family.pivot(index="group", columns="unit", values="value")
        held = [_array(family.pivot(index="group", columns="unit", values=name)) for name in covariates]
        predicting = _of_unit(family, predictor, wide)
        blocks.append(PartialBlock(predicting, np.array(held), sign * _array(wide), _jitter(family)))
        groups += [int(group) for group in wide.index]
    return blocks, groups


def original_blocks(table: pd.DataFrame, sign: int) -> tuple[list[OriginalBlock], list[int]]:
    """As :func:`rank_blocks`, for the rank of an original among its variants; a group needs three of them."""
    blocks, groups = [], []
    with_original = table[table["kind"].eq("original").groupby(table["group"]).transform("any")]
    for family in _large_groups(with_original, 4):
        wide = family.pivot(index="group", columns="unit", values="value")
        of_unit = family.groupby("unit")["kind"].first().reindex(wide.columns)
        originals = [unit for unit, kind in of_unit.items() if kind == "original"]
        # Of two originals of one name, as in a study of all cells of a family, neither is the searched one.
        if len(originals) == 1:
            order = [*originals, *(unit for unit in wide.columns if unit not in originals)]
            blocks.append(OriginalBlock(sign * _array(wide[order])))
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


def _large_groups(table: pd.DataFrame, least: int) -> Iterator[pd.DataFrame]:
    """The rows of each base cell in groups of at least this many architectures."""
    if table.empty:
        return
    large = table[table.groupby("group")["unit"].transform("size") >= least]
    for _, family in large.groupby("family", sort=True):
        yield family


def _array(wide: pd.DataFrame) -> np.ndarray:
    return wide.to_numpy(float)


def _of_unit(family: pd.DataFrame, column: str, wide: pd.DataFrame) -> np.ndarray:
    """A column by architecture, in the order of a wide table."""
    return family.groupby("unit")[column].first().reindex(wide.columns).to_numpy(float)


def _jitter(family: pd.DataFrame) -> np.ndarray | None:
    """Standard deviations that are due to seeds or directions, by group and architecture; None if unknown.

    The larger of the two: seeds that measure in directions of their own differ by both.
    """
    noise = family[["noise", "direction_noise"]].max(axis=1)
    if noise.isna().all():
        return None
    wide = family.assign(jitter=noise).pivot(index="group", columns="unit", values="jitter")
    return np.asarray(np.sqrt(_array(wide.fillna(0.0))))


def _numbers(runs: pd.DataFrame, column: str) -> pd.Series:
    """A column as floats; NaN without it."""
    if column not in runs:
        return pd.Series(np.nan, index=runs.index)
    return pd.to_numeric(runs[column], errors="coerce").astype(float)


def _direction_variance(runs: pd.DataFrame, statistic: str) -> pd.Series:
    """Variance of a mean over directions; NaN where it is unknown."""
    stem = statistic.partition(".")[0]
    deviation, directions = _numbers(runs, f"{statistic}.sd"), _numbers(runs, f"{stem}.direction_seeds")
    return deviation**2 / directions.where(directions > 1)


def _empty() -> pd.DataFrame:
    columns = ["group", "unit", "family", "data", "learning_rate", "architecture", "kind", *UNIT_COLUMNS]
    columns += ["value", "given", "seeds", "noise", "direction_noise"]
    made = pd.DataFrame({name: pd.Series(dtype=float) for name in columns})
    return made.assign(regularization_known=pd.Series(dtype=bool))
