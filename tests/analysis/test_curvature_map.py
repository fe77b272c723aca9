from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nas_lightning.acceleration import twice_differentiable
from nas_lightning.analysis import (
    Surface,
    curvature_map,
    curvature_scalars,
    filter_scale,
    hessian_eigenvalues,
    random_directions,
)
from nas_lightning.analysis.curvature_map import curvature_at_points, curvature_variables
from tests.analysis.test_hessian import batches_of, cell_network, perceptron, samples
from tests.oracles.dense_hessian import dense_hessian

STEPS = [-0.5, 0.0, 1.0]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def moved(module: nn.Module, directions: Any, alpha: float, beta: float) -> nn.Module:
    module = copy.deepcopy(module)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_(alpha * directions[0][name] + beta * directions[1][name])
    return module


@pytest.mark.parametrize("normalized", [True, False])
def test_every_point_has_the_ends_of_the_dense_spectrum_there(normalized: bool) -> None:
    module, (inputs, targets) = perceptron(), samples(7, 3)
    batches = batches_of(4, inputs.double(), targets)
    directions = random_directions(module, 0)
    found = curvature_map(module, batches, directions, STEPS, STEPS, normalized=normalized, tolerance=1e-10)
    scale = filter_scale(module) if normalized else np.ones(39)  # of w*, at every point
    for alpha in STEPS:
        for beta in STEPS:
            matrix = dense_hessian(moved(module, directions, alpha, beta), inputs, targets).numpy()
            values = np.linalg.eigvalsh(scale[:, None] * matrix * scale)
            point = found.sel(alpha=alpha, beta=beta)
            size = np.abs(values).max()
            assert float(point["largest_eigenvalue"]) == pytest.approx(values[-1], abs=1e-10 * size)
            assert float(point["smallest_eigenvalue"]) == pytest.approx(values[0], abs=1e-10 * size)
            assert float(point["eigenvalue_ratio"]) == pytest.approx(abs(values[0] / values[-1]))
            assert point["converged"] == 1
    assert found.attrs["samples"] == 7
    assert found["largest_eigenvalue"].attrs["units"] == ("nat" if normalized else "nat per squared weight")


def test_the_centre_is_the_hessian_spectrum_of_a_cell_network_and_nothing_is_left_behind() -> None:
    network = cell_network().double()
    inputs, targets = samples(7, 3, 8, 8)
    batches = batches_of(4, inputs.double(), targets)
    before = copy.deepcopy(network.state_dict())
    forward = twice_differentiable(network)
    settings: dict[str, Any] = {"tolerance": 1e-9, "forward": forward}
    found = curvature_map(network, batches, random_directions(network, 0), [-0.5, 0], [0], **settings)
    expected = hessian_eigenvalues(
        network, batches, 1, trace_samples=0, tolerance=1e-9, scale=filter_scale(network)
    )
    center = found.sel(alpha=0, beta=0)
    assert float(center["largest_eigenvalue"]) == pytest.approx(expected.eigenvalues[0], rel=1e-8)
    assert float(center["smallest_eigenvalue"]) == pytest.approx(expected.smallest[0], rel=1e-6)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    # The cheaper layers follow the weights to other points.
    plain = curvature_map(network, batches, random_directions(network, 0), [-0.5], [0], tolerance=1e-9)
    assert found["largest_eigenvalue"].values[0] == pytest.approx(plain["largest_eigenvalue"].values[0])


def test_points_without_a_finite_loss_are_nan_and_outside_the_share() -> None:
    module, (inputs, targets) = perceptron(), samples(7, 3)
    batches = batches_of(4, inputs.double(), targets)
    directions = random_directions(module, 0)
    directions[1]["3.weight"].mul_(1e308).mul_(10)
    found = curvature_map(module, batches, directions, [-0.1, 0, 0.1], [-1.0, 0, 1.0])
    broken = found.sel(beta=[-1.0, 1.0])
    assert broken["largest_eigenvalue"].isnull().all()
    assert broken["eigenvalue_ratio"].isnull().all()
    assert not broken["converged"].any()
    assert not broken["products"].any()
    assert np.isfinite(found.sel(beta=0)["eigenvalue_ratio"]).all()
    scalars = curvature_scalars(found, ratio_bound=1e9)
    assert float(scalars["nearly_convex_share"]) == pytest.approx(0.5)
    assert math.isnan(float(scalars["mean_ratio"]))
    assert math.isfinite(float(scalars["largest_eigenvalue_center"]))


def test_scalars_by_hand() -> None:
    variables = curvature_variables(True)
    surface = Surface.create("curvature_map", variables, [-1, 0, 1], [-1, 0, 1], [0, 5], {})
    for seed in (0, 1):
        ratio = np.array([[0.5, 0.1, 0.5], [0.05, 0.02, 0.5], [0.5, 0.5, 0.5]]) * (1 + seed)
        surface.dataset["eigenvalue_ratio"].values[seed] = ratio
        surface.dataset["largest_eigenvalue"].values[seed] = 4 + seed
        surface.dataset["smallest_eigenvalue"].values[seed] = -1
        surface.dataset["converged"].values[seed] = np.eye(3)
    surface.dataset["done"].values[:] = 1
    scalars = curvature_scalars(surface.dataset)
    # The centre stands for a quarter of the square, edge centres for an eighth, corners for a sixteenth.
    assert scalars["nearly_convex_share"].values.tolist() == [0.25 + 2 / 8, 0.25 + 1 / 8]
    mean = 0.02 / 4 + (0.1 + 0.05 + 0.5 + 0.5) / 8 + 4 * 0.5 / 16
    assert scalars["mean_ratio"].values == pytest.approx([mean, 2 * mean])
    assert scalars["eigenvalue_ratio_center"].values == pytest.approx([0.02, 0.04])
    assert scalars["largest_eigenvalue_center"].values.tolist() == [4, 5]
    assert scalars["smallest_eigenvalue_center"].values.tolist() == [-1, -1]
    assert scalars["converged_share"].values == pytest.approx([1 / 3, 1 / 3])
    assert "at most 0.1" in scalars["nearly_convex_share"].attrs["long_name"]


def test_settings_out_of_range_are_refused() -> None:
    module, batch = perceptron(), samples(7, 3)
    for settings, message in (({"tolerance": 0.0}, "`tolerance`"), ({"max_products": 0}, "`max_products`")):
        with (
            pytest.raises(ValueError, match=message),
            curvature_at_points(module, [batch], {}, **settings),
        ):
            pass
    with pytest.raises(ValueError, match=r"`ratio_bound` \(=0\) must be above 0"):
        curvature_scalars(Surface.create("a", {"b": {}}, [0], [0], [0], {}).dataset, 0)
