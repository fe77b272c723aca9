"""Partial rank correlation and Freedman and Lane's permutations, by least squares, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from statistics import NormalDist

import numpy as np


def mid_ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; those that are equal share the mean of their places."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


def design(covariates: Sequence[Sequence[float]]) -> np.ndarray:
    """Columns of the regression: a constant, and of each covariate the values and the ranks."""
    columns = [np.ones(len(covariates[0]))]
    for covariate in covariates:
        columns += [np.array(covariate), np.array(mid_ranks(covariate))]
    return np.array(columns).T


def left(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Residuals of least squares."""
    return np.asarray(values - columns @ np.linalg.lstsq(columns, values, rcond=None)[0])


def scores(values: Sequence[float]) -> np.ndarray:
    """Normal scores of the ranks."""
    return np.array([NormalDist().inv_cdf((rank - 0.5) / len(values)) for rank in mid_ranks(values)])


def partial_rank_correlation(
    predictor: Sequence[float], covariates: Sequence[Sequence[float]], values: Sequence[float]
) -> float:
    """Correlation of the predictor's ranks and the values' normal scores, both given the covariates."""
    columns = design(covariates)
    x, y = left(columns, np.array(mid_ranks(predictor))), left(columns, scores(values))
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def freedman_lane_p(
    predictor: Sequence[float], covariates: Sequence[Sequence[float]], values: Sequence[float]
) -> float:
    """Two-sided p-value: fit + exchanged residuals of the reduced model in place of the values."""
    columns = design(covariates)
    x, y = left(columns, np.array(mid_ranks(predictor))), scores(values)
    residuals = left(columns, y)
    fit = y - residuals

    def correlation(of_values: np.ndarray) -> float:
        again = left(columns, of_values)
        return abs(float(x @ again / np.sqrt((x @ x) * (again @ again))))

    observed = correlation(y)
    every = [correlation(fit + residuals[list(order)]) for order in permutations(range(len(values)))]
    return sum(value >= observed - 1e-9 for value in every) / len(every)
