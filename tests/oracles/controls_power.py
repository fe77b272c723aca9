"""The power of a cell's rank among random controls, an adaptive integral a rank."""

from __future__ import annotations

import math

from scipy import integrate


def normal_cdf(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2))


def controls_power(
    difference: float, architecture_sd: float, seed_sd: float, controls: int, seeds: int, alpha: float = 0.05
) -> float:
    """P(rank / (k + 1) <= alpha): sum over the ranks that are small enough, each an integral.

    The cell's accuracy is x with density N(D, s^2 / n). It has rank r if exactly r - 1 of the controls, each
    N(0, a^2 + s^2 / n), are above x. The seeds' standard deviation must be above 0.
    """
    error = seed_sd / math.sqrt(seeds)
    spread = math.sqrt(architecture_sd**2 + error**2)

    def term(x: float, rank: int) -> float:
        density = math.exp(-(((x - difference) / error) ** 2) / 2) / (error * math.sqrt(2 * math.pi))
        above = 1 - normal_cdf(x / spread)
        ways = math.comb(controls, rank - 1)
        return density * ways * above ** (rank - 1) * (1 - above) ** (controls - rank + 1)

    total = 0.0
    for rank in range(1, controls + 2):
        if rank <= alpha * (controls + 1) + 1e-9:
            ends = difference - 10 * error, difference + 10 * error
            total += integrate.quad(term, *ends, args=(rank,), epsabs=1e-12, limit=400)[0]
    return total
