"""The line between two networks written the plain way: a copy for every point, weight by weight."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tests.oracles.loss_surface import batch_statistics, loss_and_accuracy


def losses_on_the_line(
    module: nn.Module,
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    positions: Sequence[float],
    batches: Sequence[tuple[Tensor, Tensor]],
    statistics: Sequence[tuple[Tensor, Tensor]] | None = None,
) -> np.ndarray:
    """Loss and accuracy, [position, 2]; batch norm's statistics interpolated, or from `statistics`."""
    found = []
    for t in positions:
        moved = copy.deepcopy(module).double().eval()
        own = moved.state_dict()
        for name, value in start.items():
            if value.is_floating_point():
                flat = [
                    (1 - t) * a + t * b
                    for a, b in zip(value.flatten().tolist(), end[name].flatten().tolist(), strict=True)
                ]
                own[name] = torch.tensor(flat, dtype=torch.float64).reshape(value.shape)
        moved.load_state_dict(own)
        if statistics is not None:
            batch_statistics(moved, statistics)
        found.append(loss_and_accuracy(moved, batches))
    return np.array(found)


def highest_above_the_chord(positions: Sequence[float], values: Sequence[float]) -> float:
    """The barrier, point by point."""
    heights = []
    for t, value in zip(positions, values, strict=True):
        if 0 <= t <= 1:
            first, last = values[list(positions).index(0)], values[list(positions).index(1)]
            heights.append(value - ((1 - t) * first + t * last))
    return max(heights)
