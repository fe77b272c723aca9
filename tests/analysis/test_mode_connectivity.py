from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_lightning.analysis import estimate_running_statistics, evaluate, mode_connectivity
from nas_lightning.analysis.bezier_curve import line_point

Weights = dict[str, Tensor]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)
    return nn.Sequential(*layers).double()


def weights(seed: int) -> Weights:
    return {name: values.detach().clone() for name, values in network(seed).named_parameters()}


def batches(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (count,), generator=generator)
    return [(inputs[: count // 2], targets[: count // 2]), (inputs[count // 2 :], targets[count // 2 :])]


SPLITS = {"train": batches(20, 0), "test": batches(15, 1)}
CURVE = weights(0), weights(1), weights(2)


def test_every_point_is_a_network_of_its_own_with_its_own_statistics() -> None:
    module = network()
    before = {name: values.clone() for name, values in module.state_dict().items()}
    found = mode_connectivity(module, SPLITS, CURVE, [0, 0.25, 1])
    assert all(torch.equal(values, before[name]) for name, values in module.state_dict().items())
    start, bend, end = CURVE
    for row, path in enumerate(("curve", "line")):
        for column, t in enumerate((0, 0.25, 1)):
            other = network(5)
            for name, values in other.named_parameters():
                point = (1 - t) * start[name] + t * end[name]
                if path == "curve":
                    point = (1 - t) ** 2 * start[name] + 2 * t * (1 - t) * bend[name] + t**2 * end[name]
                values.data.copy_(point)
            estimate_running_statistics(other, SPLITS["train"])
            for split, images in SPLITS.items():
                loss, accuracy = evaluate(other, images)
                assert float(found[f"{split}_loss"][row, column]) == pytest.approx(loss, rel=1e-12)
                assert float(found[f"{split}_accuracy"][row, column]) == accuracy


def test_barriers_rise_above_the_line_of_the_ends() -> None:
    found = mode_connectivity(network(), SPLITS, CURVE, np.linspace(0, 1, 5))
    t = found["position"].values
    for row, path in enumerate(("curve", "line")):
        loss, accuracy = found["test_loss"].values[row], found["train_accuracy"].values[row]
        rise = max(loss - ((1 - t) * loss[0] + t * loss[-1]))
        fall = max((1 - t) * accuracy[0] + t * accuracy[-1] - accuracy)
        assert float(found[f"{path}_test_barrier"]) == pytest.approx(rise, abs=1e-12)
        assert float(found[f"{path}_train_accuracy_barrier"]) == pytest.approx(fall, abs=1e-12)
    assert found["train_loss"].values[0, 0] == found["train_loss"].values[1, 0]


def scaled(one: Weights, factor: float) -> Weights:
    """The weights before the batch norm times a factor."""
    return {name: values * (factor if name == "0.weight" else 1) for name, values in one.items()}


def test_a_common_scale_before_batch_norm_changes_nothing_and_one_of_an_end_does() -> None:
    plain = mode_connectivity(network(), SPLITS, CURVE, [0, 0.5, 1])
    common = mode_connectivity(network(), SPLITS, tuple(scaled(w, 7) for w in CURVE), [0, 0.5, 1])  # type: ignore[arg-type]
    np.testing.assert_allclose(common["test_loss"], plain["test_loss"], rtol=1e-3)
    one = mode_connectivity(network(), SPLITS, (scaled(CURVE[0], 7), *CURVE[1:]), [0, 0.5, 1])
    np.testing.assert_allclose(one["test_loss"][:, [0, 2]], plain["test_loss"][:, [0, 2]], rtol=1e-3)
    assert abs(one["test_loss"][:, 1] / plain["test_loss"][:, 1] - 1).min() > 1e-3


def test_a_bend_half_way_is_the_line() -> None:
    start, _, end = CURVE
    half_way = line_point(start, end, 0.5)
    found = mode_connectivity(network(), SPLITS, (start, half_way, end), np.linspace(0, 1, 4))
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(found[name][0], found[name][1], rtol=1e-12)


def test_what_is_not_finite_is_kept() -> None:
    start, bend, end = CURVE
    bend = bend | {"3.bias": torch.full((3,), math.nan, dtype=torch.float64)}
    found = mode_connectivity(network(), SPLITS, (start, bend, end), [0, 0.5, 1])
    assert np.isnan(found["train_loss"].values).tolist() == [[False, True, False], [False] * 3]
    assert math.isnan(float(found["curve_train_barrier"]))
    assert math.isfinite(float(found["line_train_barrier"]))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"`positions` \(=\[0.0, 0.5\]\) must be three or more, from 0 to 1"):
        mode_connectivity(network(), SPLITS, CURVE, [0, 0.5])
    with pytest.raises(ValueError, match="`statistics` is missing"):
        mode_connectivity(network(), {"test": SPLITS["test"]}, CURVE, [0, 0.5, 1])
