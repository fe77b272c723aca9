"""Loss and accuracy of several splits along random directions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from torch import nn

from nas_lightning.analysis import line_scalars, loss_line, loss_profile, new_line, random_direction
from nas_lightning.provenance import weights_hash
from tests.analysis.cases import make_batches, small_network
from tests.oracles.loss_surface import batch_statistics, displaced_copy, loss_and_accuracy

STEPS = [-0.5, 0.0, 0.25]
TRAIN, TEST = make_batches((4, 3)), make_batches((5,), size=12)


@pytest.mark.parametrize("batch_norm", ["frozen", "reestimated"])
def test_a_line_is_the_loss_of_displaced_copies(batch_norm: str) -> None:
    network = small_network(nn.BatchNorm2d(4), nn.ReLU())
    before = weights_hash(network.state_dict())
    line = loss_line(network, {"train": TRAIN, "test": TEST}, STEPS, [3, 7], batch_norm)  # type: ignore[arg-type]
    assert weights_hash(network.state_dict()) == before
    for seed in (3, 7):
        for step in STEPS:
            moved = displaced_copy(network, [random_direction(network, seed)] * 2, step, 0.0)
            if batch_norm == "reestimated":
                batch_statistics(moved, TRAIN)  # for both splits
            for split, batches in (("train", TRAIN), ("test", TEST)):
                point = line.sel(direction_seed=seed, position=step)
                loss, accuracy = loss_and_accuracy(moved, batches)
                assert float(point[f"{split}_loss"]) == pytest.approx(loss, rel=1e-9)
                assert float(point[f"{split}_accuracy"]) == accuracy


def test_one_side_of_a_line_is_the_loss_profile() -> None:
    network = small_network(nn.BatchNorm2d(4), nn.ReLU())
    line = loss_line(network, {"test": TEST}, [0.0, 0.5, 1.0], [0, 1])
    profile = loss_profile(network, TEST, [0.0, 0.5, 1.0], [0, 1])
    assert np.array_equal(line["test_loss"].values, profile["loss"].values)
    assert line["test_mean_rise"].values == pytest.approx(profile["mean_rise"].values, rel=1e-12)


def test_the_mean_rise_counts_both_sides_and_is_capped() -> None:
    def rise(*losses: float) -> float:
        line = xr.Dataset(
            {"test_loss": (("direction_seed", "position"), [losses])},
            {"direction_seed": [0], "position": [-1.0, 0.0, 1.0]},
            attrs={"num_classes": 10},
        )
        return float(line_scalars(line)["test_mean_rise"][0])

    assert rise(1.5, 0.5, 2.5) == pytest.approx(0.75)
    assert rise(math.nan, 0.5, math.inf) == pytest.approx(math.log(10) / 2)
    assert math.isnan(rise(1.0, math.nan, 1.0))
    without = xr.Dataset(coords={"position": [-1.0, 1.0]}, attrs={"num_classes": 10})
    assert not line_scalars(without)


def test_settings_that_do_not_fit_are_refused() -> None:
    network = small_network(nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match="needs `statistics`, or the split 'train'"):
        loss_line(network, {"test": TEST}, STEPS, [0], "reestimated")
    with pytest.raises(ValueError, match="has none"):
        loss_line(small_network(), {"train": TEST}, STEPS, [0], "reestimated")
    with pytest.raises(ValueError, match=r"`positions` \(=\[0.0\]\) must be two or more"):
        new_line([0], [0], ["test"], {})
