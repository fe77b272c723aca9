"""The plane of a path's first two components: against an oracle, from files, in bounded memory."""

from __future__ import annotations

import itertools
import re
import tracemalloc
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_lightning.analysis import evaluate, trajectory_plane, trajectory_surface
from nas_lightning.analysis.stored_weights import CheckpointWeights, Span, StoredWeights
from nas_lightning.analysis.trajectory import difference_products, plane_axes, plane_directions
from nas_lightning.torch_files import write_torch_file
from tests.oracles import trajectory as oracle
from tests.oracles.loss_surface import loss_surface as slow_surface

NAMES = ["0.weight", "0.bias", "1.weight"]


def small_network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))


def path_of(count: int, step: float = 0.1) -> list[dict[str, Tensor]]:
    """States along a random walk; the statistics of batch norm do not count."""
    torch.manual_seed(0)
    states = [dict(small_network().state_dict())]
    while len(states) < count:
        states.append(
            {
                name: value + step * torch.randn(value.shape) if value.is_floating_point() else value
                for name, value in states[-1].items()
            }
        )
    return states


def stored(states: list[dict[str, Tensor]]) -> list[StoredWeights]:
    return [StoredWeights(state, NAMES, f"checkpoint {index}") for index, state in enumerate(states)]


def saved(states: list[dict[str, Tensor]], folder: Path) -> list[StoredWeights]:
    weights: list[StoredWeights] = []
    for index, state in enumerate(states):
        path = folder / f"epoch{index:04d}.ckpt"
        write_torch_file(
            path, {"before": torch.zeros(5), "state_dict": {f"network.{k}": v for k, v in state.items()}}
        )
        weights.append(CheckpointWeights(path, NAMES, "network."))
    return weights


@pytest.mark.parametrize("block_bytes", [8 * 7, 2**20])
def test_the_plane_is_that_of_a_full_decomposition(block_bytes: int, tmp_path: Path) -> None:
    states = path_of(7)
    directions, coordinates, shares, distances = oracle.plane(states, NAMES)
    for weights in (stored(states), saved(states, tmp_path)):
        plane = trajectory_plane(weights, states[-1], block_bytes=block_bytes)
        np.testing.assert_allclose(plane.coordinates, coordinates, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(plane.explained_variance, shares, rtol=1e-10)
        np.testing.assert_allclose(plane.distances, distances, rtol=1e-9, atol=1e-7)
        doubles = {name: value.double() for name, value in states[-1].items()}
        found = plane_directions(weights, doubles, plane.coefficients)
        for direction, expected in zip(found, directions, strict=True):
            flat = np.concatenate([direction[name].flatten() for name in NAMES])
            np.testing.assert_allclose(flat, expected, rtol=1e-9, atol=1e-12)


def test_one_origin_for_the_path_and_the_surface() -> None:
    """w* is (0, 0), every checkpoint is where its coordinates say, up to its distance from the plane."""
    states = path_of(5)
    plane = trajectory_plane(stored(states), states[-1])
    assert plane.coordinates[-1].tolist() == [0.0, 0.0]
    assert plane.distances[-1] == 0
    directions = plane_directions(stored(states), states[-1], plane.coefficients)
    for state, (alpha, beta), distance in zip(states, plane.coordinates, plane.distances, strict=True):
        rest = [
            state[name].double()
            - (states[-1][name].double() + alpha * directions[0][name] + beta * directions[1][name])
            for name in NAMES
        ]
        assert sum(float(part.square().sum()) for part in rest) ** 0.5 == pytest.approx(distance, abs=1e-5)
    steps = [
        sum(float((b[name] - a[name]).double().square().sum()) for name in NAMES) ** 0.5
        for a, b in itertools.pairwise(states)
    ]
    np.testing.assert_allclose(plane.steps, [0.0, *steps], rtol=1e-6)


def test_signs_do_not_depend_on_the_decomposition() -> None:
    states = path_of(6)
    plane = trajectory_plane(stored(states), states[-1])
    farthest = plane.coordinates[np.abs(plane.coordinates).argmax(axis=0), [0, 1]]
    assert farthest[0] < 0 < farthest[1]
    # Parameters in another order: other sums, other eigenvectors up to the sign, the same picture.
    turned = [StoredWeights(state, NAMES[::-1]) for state in states]
    other = trajectory_plane(turned, states[-1])
    np.testing.assert_allclose(other.coordinates, plane.coordinates, rtol=1e-9, atol=1e-12)


def test_of_a_random_walk_two_components_hold_three_quarters() -> None:
    """What `docs/method.md` warns of: shares of 6 / (pi k)^2 and cosines, of no training at all."""
    walk = np.cumsum(np.random.default_rng(0).normal(size=(60, 20_000)), axis=0)
    states = [{"w": torch.from_numpy(weights)} for weights in walk]
    plane = trajectory_plane([StoredWeights(state, ["w"]) for state in states], states[-1])
    np.testing.assert_allclose(plane.explained_variance[:2], [6 / np.pi**2, 6 / (2 * np.pi) ** 2], atol=0.02)
    half = np.pi * (np.arange(60) + 0.5) / 60
    for index in range(2):
        cosine = np.corrcoef(plane.coordinates[:, index], np.cos((index + 1) * half))[0, 1]
        assert abs(cosine) > 0.99


def test_memory_is_bounded_by_the_block(tmp_path: Path) -> None:
    states = [{"w": torch.randn(200_000)} for _ in range(8)]  # 12.8 MB in float64
    for index, state in enumerate(states):
        write_torch_file(tmp_path / f"{index}.ckpt", {"state_dict": state})
    weights = [CheckpointWeights(tmp_path / f"{index}.ckpt", ["w"]) for index in range(8)]
    expected = np.stack([state["w"].double() - states[-1]["w"].double() for state in states])
    tracemalloc.start()
    products = difference_products(weights, states[-1], block_bytes=2**19)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
    np.testing.assert_allclose(products, expected @ expected.T, rtol=1e-12, atol=1e-9)


def test_files_are_read_where_they_lie_whatever_they_hold(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {
        "a": torch.randn(3, 4).bfloat16(),
        "b": torch.randn(5).double(),
        "c": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    spans = [Span("a", 5, 9), Span("b", 0, 5), Span("c", 3, 70)]
    expected = StoredWeights(state, list(state)).read(spans)
    files = {"new": {}, "old": {"_use_new_zipfile_serialization": False}}
    for name, settings in files.items():
        path = tmp_path / f"{name}.ckpt"
        torch.save({"state_dict": state, "others": [torch.ones(7), (torch.ones(2),)]}, path, **settings)
        weights = CheckpointWeights(path, list(state))
        np.testing.assert_array_equal(weights.read(spans), expected)
        assert weights.sha256() == StoredWeights(state, list(state)).sha256()


def test_the_rectangle_holds_the_path_with_the_same_room_on_all_sides() -> None:
    coordinates = np.array([[-8.0, 0.0], [-3.0, 2.0], [0.0, 0.0]])
    alphas, betas = plane_axes(coordinates, 5, margin=0.25)
    assert (alphas[0], alphas[-1], betas[0], betas[-1]) == (-10.0, 2.0, -2.0, 4.0)
    assert len(alphas) == len(betas) == 5


def test_what_spans_no_plane_is_refused() -> None:
    states = path_of(3)
    first, second = states[0], states[1]
    between = {name: (first[name].double() + second[name].double()) / 2 for name in NAMES}
    broken = {**second, "0.bias": torch.full((3,), torch.nan)}
    other = {**first, "0.weight": torch.zeros(3, 2, 5, 5)}
    refused = {
        "needs 3 checkpoints or more, and there is 1": [first],
        "needs 3 checkpoints or more, and there are 2": [first, second],
        "all 3 checkpoints hold the same weights": [first, first, first],
        "the 3 checkpoints lie on one line": [first, between, second],
        "the 4 checkpoints lie on one line": [first, second, first, second],
        "checkpoint 1 holds weights that are NaN": [first, broken, second],
        "the last weights hold NaN": [first, second, broken],
        "checkpoint 1 is of another network: its 0.weight has shape": [first, other, second],
    }
    for message, chosen in refused.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            trajectory_plane(stored(chosen), chosen[-1])
    with pytest.raises(ValueError, match="has no weights 'head'"):
        StoredWeights(first, ["head"], "a.ckpt")


@pytest.mark.parametrize("batch_norm", ["reestimated", "frozen"])
def test_the_loss_over_the_plane_and_along_the_path(batch_norm: Literal["frozen", "reestimated"]) -> None:
    states = path_of(4)
    module = small_network().double()
    module.load_state_dict(states[-1])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(1)
    batches = [(torch.randn(n, 2, 4, 4).double(), torch.randint(4, (n,))) for n in (6, 3)]
    found = trajectory_surface(module, batches, stored(states[:-1]), 3, batch_norm=batch_norm)
    directions, *_ = oracle.plane(states, NAMES)
    sizes = [states[0][name].numel() for name in NAMES]
    keyed = []
    for direction in directions:
        parts = zip(NAMES, np.split(direction, np.cumsum(sizes)[:-1]), strict=True)
        keyed.append({name: torch.from_numpy(part).view_as(states[0][name]) for name, part in parts})
    axes = found["alpha"].values.tolist(), found["beta"].values.tolist()
    loss, accuracy = slow_surface(module, batches, keyed, *axes, batch_norm == "reestimated")
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-9)
    np.testing.assert_array_equal(found["accuracy"], accuracy)
    for state, value in zip(states, found["checkpoint_loss"].values, strict=True):
        other = small_network().double()
        # What a checkpoint does not hold among its weights is its own, too: the last layer, the statistics.
        other.load_state_dict(state)
        assert value == pytest.approx(evaluate(other, batches)[0], rel=1e-9)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert float(found["path_length"]) == pytest.approx(float(found["path_step"].sum()))
    ends = [
        sum(float((states[i][n] - states[-1][n]).double().square().sum()) for n in NAMES) for i in (0, -1)
    ]
    assert float(found["path_straightness"]) == pytest.approx(ends[0] ** 0.5 / float(found["path_length"]))
