"""Loss and accuracy on the straight line between two networks."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from nas_lightning.analysis import (
    InterpolationSurface,
    Point,
    distance_between,
    evaluate,
    interpolated,
    loss_interpolation,
    measure_pending,
    new_interpolation,
    path_positions,
)
from nas_lightning.analysis.interpolation import State
from nas_lightning.provenance import weights_hash
from tests.analysis.cases import make_batches, small_network
from tests.oracles.interpolation import highest_above_the_chord, losses_on_the_line

POSITIONS = [-0.25, 0.0, 0.25, 0.5, 0.75, 1.0]
TRAIN, TEST = make_batches((4, 3)), make_batches((5,), size=12)


def network_of(seed: int, *layers: nn.Module) -> nn.Sequential:
    """A network whose weights and statistics are those of a seed."""
    network = small_network(*(layers or (nn.BatchNorm2d(4), nn.ReLU())))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=generator, dtype=value.dtype))
    return network


def state_of(seed: int, *layers: nn.Module) -> State:
    return network_of(seed, *layers).state_dict()


@pytest.mark.parametrize("batch_norm", ["interpolated", "reestimated"])
def test_a_line_is_the_loss_of_copies_with_interpolated_weights(
    batch_norm: Literal["interpolated", "reestimated"],
) -> None:
    network, pairs = network_of(0), [(state_of(1), state_of(2)), (state_of(2), state_of(3))]
    before = weights_hash(network.state_dict())
    line = loss_interpolation(network, {"train": TRAIN, "test": TEST}, pairs, POSITIONS, batch_norm)
    assert weights_hash(network.state_dict()) == before
    assert line["test_loss"].dims == ("pair", "position")
    for number, (start, end) in enumerate(pairs):
        for split, batches in (("train", TRAIN), ("test", TEST)):
            statistics = TRAIN if batch_norm == "reestimated" else None
            expected = losses_on_the_line(network, start, end, POSITIONS, batches, statistics)
            found = line.sel(pair=number)
            assert found[f"{split}_loss"].values == pytest.approx(expected[:, 0], rel=1e-9)
            assert found[f"{split}_accuracy"].values == pytest.approx(expected[:, 1], rel=1e-12)
            for name, sign, column in (("barrier", 1, 0), ("accuracy_barrier", -1, 1)):
                height = highest_above_the_chord(POSITIONS, (sign * expected[:, column]).tolist())
                assert float(found[f"{split}_{name}"]) == pytest.approx(height, rel=1e-9, abs=1e-12)


def test_with_interpolated_statistics_the_ends_are_the_two_networks_bit_for_bit() -> None:
    first, second = network_of(1).float(), network_of(2).float()
    batches = [(inputs.float(), targets) for inputs, targets in TEST]
    pair = (first.state_dict(), second.state_dict())
    line = loss_interpolation(network_of(0).float(), {"test": batches}, [pair], [0, 0.5, 1], "interpolated")
    for network, t in ((first, 0), (second, 1)):
        loss, accuracy = evaluate(network, batches)
        assert float(line["test_loss"].sel(pair=0, position=t)) == loss
        assert float(line["test_accuracy"].sel(pair=0, position=t)) == accuracy


def test_a_module_is_as_before_when_its_line_ends_by_an_error() -> None:
    network = network_of(0)
    before = weights_hash(network.state_dict())

    def interrupted() -> None:
        with interpolated(network, state_of(1), state_of(2)) as move:
            move(0.5)
            assert weights_hash(network.state_dict()) != before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert weights_hash(network.state_dict()) == before


def test_the_network_itself_may_be_an_end() -> None:
    network, start = network_of(0), state_of(1)
    kept = copy.deepcopy(network.state_dict())
    found = loss_interpolation(network, {"train": TRAIN}, [(start, network.state_dict())], [0, 0.5, 1])
    expected = loss_interpolation(network, {"train": TRAIN}, [(start, kept)], [0, 0.5, 1])
    assert found.equals(expected)


@pytest.mark.parametrize("batch_norm", ["interpolated", "reestimated"])
def test_swapping_the_ends_turns_the_line(batch_norm: Literal["interpolated", "reestimated"]) -> None:
    pair, splits = (state_of(1), state_of(2)), {"train": TRAIN}
    steps = [0, 0.25, 0.5, 1]
    there = loss_interpolation(network_of(0), splits, [pair], steps, batch_norm)
    back = loss_interpolation(network_of(0), splits, [pair[::-1]], [0, 0.5, 0.75, 1], batch_norm)
    assert np.array_equal(there["train_loss"].values[0], back["train_loss"].values[0, ::-1])
    assert there["train_barrier"].values == pytest.approx(back["train_barrier"].values, abs=1e-12)
    assert there["distance"].values == back["distance"].values


def scaled(state: State, factor: float) -> State:
    """A network whose filters before the batch norm are larger: the same function, up to eps."""
    scales = {"0.weight": factor, "0.bias": factor, "1.running_mean": factor, "1.running_var": factor**2}
    return {name: value * scales[name] if name in scales else value for name, value in state.items()}


@pytest.mark.parametrize("batch_norm", ["interpolated", "reestimated"])
def test_a_scale_that_both_ends_share_is_not_seen(batch_norm: Literal["interpolated", "reestimated"]) -> None:
    def losses(first: float, second: float) -> np.ndarray:
        pair = (scaled(state_of(1), first), scaled(state_of(2), second))
        line = loss_interpolation(network_of(0), {"train": TRAIN}, [pair], POSITIONS[1:], batch_norm)
        found: np.ndarray = line["train_loss"].values[0]
        return found

    usual = losses(1, 1)
    assert losses(3, 3) == pytest.approx(usual, rel=1e-3)
    other = losses(1, 3)  # the scale of one end decides what lies between
    assert other[[0, -1]] == pytest.approx(usual[[0, -1]], rel=1e-3)
    assert other[2] != pytest.approx(usual[2], rel=1e-3)


def test_a_quartic_has_the_barrier_of_its_formula_and_a_parabola_has_none() -> None:
    class Weight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    def end(value: float) -> State:
        return {"weight": torch.tensor([value], dtype=torch.float64)}

    batches = [(torch.ones(3, 1, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64))]
    shapes: list[tuple[Any, float]] = [
        (lambda outputs, targets: ((outputs**2 - 1) ** 2)[:, 0], 1.0),  # minima at -1 and 1
        (lambda outputs, targets: ((outputs - 0.3) ** 2)[:, 0], 0.0),
    ]
    for loss, height in shapes:
        settings: dict[str, Any] = {"loss": loss}
        line = loss_interpolation(
            Weight(), {"train": batches}, [(end(-1.0), end(1.0))], path_positions(9), **settings
        )
        assert line["train_barrier"].values == pytest.approx([height], abs=1e-15)
        assert float(line["distance"][0]) == 2.0
        assert np.isnan(line["train_accuracy"].values).all()


def test_weights_that_diverged_keep_their_losses_and_buffers_are_restored() -> None:
    start, end = (dict(state_of(seed)) for seed in (1, 2))
    end["0.weight"] = end["0.weight"].clone()
    end["0.weight"][0, 0, 0, 0] = math.nan
    network = network_of(0)
    kept = copy.deepcopy(network.state_dict())
    line = loss_interpolation(network, {"train": TRAIN}, [(start, end)], [0, 0.5, 1])
    losses = line["train_loss"].values[0]
    assert np.isfinite(losses).tolist() == [True, False, False]
    assert math.isnan(float(line["train_barrier"][0]))
    assert math.isnan(float(line["distance"][0]))
    assert all(torch.equal(kept[name], value) for name, value in network.state_dict().items())


def test_a_network_without_batch_norm_needs_no_statistics() -> None:
    layers = (nn.ReLU(),)
    pair = (state_of(1, *layers), state_of(2, *layers))
    found = [
        loss_interpolation(network_of(0, *layers), {"test": TEST}, [pair], [0, 0.5, 1], batch_norm)
        for batch_norm in ("interpolated", "reestimated")
    ]
    assert found[0].equals(found[1])


def test_ends_that_do_not_fit_are_refused() -> None:
    network, start = network_of(0), state_of(1)
    refused: list[tuple[State, str]] = [
        (start, "both ends of the line have the same weights"),
        (
            {**start, "0.weight": torch.zeros(5, 3, 3, 3)},
            r"'0.weight' has shape \(4, 3, 3, 3\) at the first end of the line, \(5, 3, 3, 3\) at the second",
        ),
        ({name: value for name, value in start.items() if name != "0.bias"}, "'0.bias' has shape"),
        ({**start, "0.scale": torch.zeros(1)}, "hold '0.scale', which the network does not have"),
    ]
    for end, message in refused:
        with pytest.raises(ValueError, match=message):
            loss_interpolation(network, {"train": TRAIN}, [(start, end)], [0, 1])
    pair = (start, state_of(2))
    with pytest.raises(ValueError, match=r"must hold 0 and 1"):
        loss_interpolation(network, {"train": TRAIN}, [pair], [0, 0.5])
    with pytest.raises(ValueError, match="needs `statistics`"):
        loss_interpolation(network, {"test": TEST}, [pair], [0, 1])
    with pytest.raises(ValueError, match="at least one pair"):
        loss_interpolation(network, {"test": TEST}, [], [0, 1])


def test_positions_hold_both_ends_exactly() -> None:
    assert path_positions(5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    steps = path_positions(31, (-1, 2)).tolist()
    assert {0.0, 1.0} <= set(steps)
    assert len(steps) == 31
    with pytest.raises(ValueError, match=r"`extent` \(=\(0, 0.5\)\) must reach from 0"):
        path_positions(5, (0, 0.5))


def test_interrupted_and_continued_is_unbroken(tmp_path: Path) -> None:
    def value_at(point: Point) -> dict[str, float]:
        return {"test_loss": point.direction_seed + point.alpha**2, "test_accuracy": 0.5}

    def until_stop(point: Point) -> dict[str, float]:
        if len(measured) == 4:
            raise KeyboardInterrupt
        measured.append(point)
        return value_at(point)

    def fresh() -> InterpolationSurface:
        return new_interpolation([0, 0.5, 1], [0, 1], ["test"], {"samples": 3})

    measured: list[Point] = []
    path, whole = tmp_path / "broken.nc", tmp_path / "whole.nc"
    with pytest.raises(KeyboardInterrupt):
        measure_pending(fresh(), until_stop, chunk_size=1, after_chunk=lambda surface: surface.save(path))
    surface = InterpolationSurface.resume_or_create(path, fresh())
    assert surface.finished == 4
    measure_pending(surface, value_at)
    surface.save(path)
    unbroken = fresh()
    measure_pending(unbroken, value_at)
    unbroken.save(whole)
    assert path.read_bytes() == whole.read_bytes()
    assert InterpolationSurface.read(path)["test_loss"].dims == ("pair", "position")


def test_the_distance_is_that_of_the_parameters() -> None:
    network, start, end = network_of(0), state_of(1), state_of(2)
    square = sum(float(((end[name] - start[name]) ** 2).sum()) for name, _ in network.named_parameters())
    assert distance_between(network, start, end) == pytest.approx(math.sqrt(square), rel=1e-12)
