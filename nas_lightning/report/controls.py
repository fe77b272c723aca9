r"""One cell against k random controls: the power of its exact rank.

All k + 1 networks are trained with the same number n of seeds. The cell's p-value is its rank among them
over k + 1, one-sided: under the null hypothesis the cell is drawn like its controls, and any rank is as
likely. Of 19 controls only the first rank has p = 0.05.

The model: a control's accuracy is normal around the controls' mean with the variance
:math:`\sigma_a^2 + \sigma_s^2 / n`; that of the cell, which stays one and the same, lies D above that mean
and has the variance :math:`\sigma_s^2 / n`. With m controls that may be better,

.. math:: P = \int \varphi(u)\, B_{m,k}\left(1 - \Phi\left(
    \frac{D + u \sigma_s / \sqrt{n}}{\sqrt{\sigma_a^2 + \sigma_s^2 / n}}\right)\right) du, \qquad
    m = \lfloor \alpha (k + 1) \rfloor - 1

with the binomial distribution function B. More seeds cannot help a cell whose true rank is too low: at
infinitely many its power is that of D alone. Source of the test: Phipson and Smyth, Statistical
Applications in Genetics and Molecular Biology 9, 2010.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy import optimize, stats

from nas_lightning.report.power import FARTHEST, POWER, Noise
from nas_lightning.report.uncorrected import ALPHA

CONTROLS = (19, 39, 59, 99)
"""Numbers of controls of a table; 19 is the smallest that reaches 0.05."""
SEEDS = (1, 2, 3, 5, 10)
_NODES = 400
_TAIL = 8.5


def controls_power(
    difference: float,
    architecture_sd: float,
    seed_sd: float,
    controls: int,
    seeds: int = 1,
    *,
    alpha: float = ALPHA,
) -> float:
    """Probability that the cell's rank among its controls has a p-value of at most alpha.

    Args:
        difference: How far the cell's true accuracy lies above the mean of all controls, in any unit.
        architecture_sd: Standard deviation of the controls' true accuracies, in the same unit.
        seed_sd: Standard deviation between trainings of one architecture.
        controls: Number k of controls.
        seeds: Trainings of each architecture, the cell's as well.
        alpha: Level of the test.

    Raises:
        ValueError: If a number is out of range; the message names it.
    """
    noise = Noise(seed_sd, architecture_sd)
    for name, number in (("controls", controls), ("seeds", seeds)):
        if number < 1:
            raise ValueError(f"`{name}` (={number}) must be at least 1")
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` (={alpha:g}) must lie between 0 and 1")
    better = math.floor(alpha * (controls + 1) * (1 + 1e-12)) - 1
    if better < 0:
        return 0.0
    error = noise.seed / math.sqrt(seeds)
    # The integrand is as smooth as the ratio of the two errors allows; Legendre's nodes take any.
    nodes, weights = _legendre()
    places = _TAIL * nodes
    above = stats.norm.sf((difference + error * places) / math.hypot(noise.architecture, error))
    found = stats.binom.cdf(better, controls, above) * stats.norm.pdf(places)
    return min(1.0, float(_TAIL * weights @ found))


@cache
def _legendre() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(_NODES)


def detectable_difference(
    noise: Noise, controls: int, seeds: int = 1, *, power: float = POWER, alpha: float = ALPHA
) -> float:
    """The smallest difference between the cell and its controls' mean that is detected with a power.

    A design calculator for one cell among k random controls:
    ``detectable_difference(Noise(seed=0.1, architecture=0.2), 19, 3)`` is in points if the noise is. Divided
    by ``noise.architecture`` it is in standard deviations of the controls.

    Args:
        noise: Standard deviations between seeds and between the controls' true accuracies.
        controls: Number k of controls.
        seeds: Trainings of each architecture, the cell's as well.
        power: Probability that the cell's rank has a p-value of at most alpha.
        alpha: Level of the one-sided test; of a two-sided one, half its level.

    Returns:
        The difference in the unit of the noise; NaN with fewer than ``1 / alpha - 1`` controls, where no
        rank has so small a p-value.

    Raises:
        ValueError: If a number is out of range; the message names it.
    """
    if not 0 < power < 1:
        raise ValueError(f"`power` (={power:g}) must lie between 0 and 1")

    def lacks(difference: float) -> float:
        found = controls_power(difference, noise.architecture, noise.seed, controls, seeds, alpha=alpha)
        return found - power

    farthest = FARTHEST * math.hypot(noise.architecture, noise.seed)
    if lacks(farthest) < 0:
        return math.nan
    low = 0.0 if lacks(0.0) < 0 else -farthest
    return float(optimize.brentq(lacks, low, farthest, xtol=1e-6 * farthest))


def controls_table(
    noise: Noise, controls: Sequence[int] = CONTROLS, seeds: Sequence[int] = SEEDS
) -> dict[int, dict[int, float]]:
    """Smallest detectable differences, by number of controls and of seeds."""
    return {k: {n: detectable_difference(noise, k, n) for n in seeds} for k in controls}
