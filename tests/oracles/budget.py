"""What a search keeps, by making all draws one by one, or many at random."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def enumerated_pick(scores: np.ndarray, budget: int) -> np.ndarray:
    """Probability of every cell to be kept, over all sets of so many cells; equal scores share."""
    chances = np.zeros(len(scores))
    draws = list(combinations(range(len(scores)), budget))
    for draw in draws:
        best = max(scores[cell] for cell in draw)
        winners = [cell for cell in draw if scores[cell] == best]
        chances[winners] += 1 / len(winners)
    return chances / len(draws)


def enumerated_regret(scores: np.ndarray, outcomes: np.ndarray, budget: int) -> float:
    """Mean over all sets of the best outcome less that of the cell kept."""
    lost = []
    for draw in map(list, combinations(range(len(scores)), budget)):
        winners = [cell for cell in draw if scores[cell] == scores[draw].max()]
        lost.append(outcomes[draw].max() - outcomes[winners].mean())
    return float(np.mean(lost))


def simulated_picks(scores: np.ndarray, budget: int, draws: int, seed: int = 0) -> np.ndarray:
    """The cell kept in each of many random draws; scores differ."""
    generator = np.random.default_rng(seed)
    kept = [generator.choice(len(scores), budget, replace=False) for _ in range(draws)]
    return np.array([draw[scores[draw].argmax()] for draw in kept])
