"""The linear cells, their losses' curvature bounds, and their random instances."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nas_lightning.analysis.linear_cells import (
    KINDS,
    CrossEntropyObjective,
    Objective,
    TanhNetworkObjective,
    block_norms,
    narrowest_cell,
    random_instances,
    widest_cell,
)
from nas_lightning.analysis.theory import (
    chain_products,
)
from tests.analysis.linear_cases import ROUNDING, gaussian, hessian, loss_of_output


def test_the_cells_compute_what_figure_26_shows() -> None:
    weights, x = gaussian(0, 3, 2, 2), gaussian(1, 5, 2)
    first, second, third = weights
    expected = torch.cat([x @ first.T, x @ (second @ first).T, x @ (third @ second @ first).T], dim=1)
    torch.testing.assert_close(narrowest_cell(weights, x), expected)
    torch.testing.assert_close(widest_cell(chain_products(weights), x), expected)
    torch.testing.assert_close(widest_cell(weights, x)[:, 2:4], x @ second.T)


@pytest.mark.parametrize("seed", range(5))
def test_curvature_bounds_hold_wherever_one_looks(seed: int) -> None:
    losses: list[Objective] = [
        CrossEntropyObjective(gaussian(seed, 3, 4)),
        TanhNetworkObjective(gaussian(seed, 5, 4), gaussian(seed + 100, 3, 5)),
    ]
    for loss in losses:
        bounds = loss.curvature_bounds(2)
        largest = torch.zeros_like(bounds)
        for scale in (0.0, 0.1, 1.0, 3.0):
            for z in scale * gaussian(seed + 200, 20, 4):
                curvature = hessian(loss_of_output(loss, torch.tensor([1])), z)
                largest = torch.maximum(largest, block_norms(curvature, 2))
        assert (largest <= bounds * ROUNDING).all()
        assert (largest > bounds / 30).all()


def test_the_bound_of_cross_entropy_is_the_supremum() -> None:
    """At equal probability of the two classes furthest apart, and none of the third."""
    classifier = torch.tensor([[3.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    loss = CrossEntropyObjective(classifier)
    z = torch.tensor([0.0, 0.0, -60.0], dtype=torch.float64)
    curvature = hessian(loss_of_output(loss, torch.tensor([0])), z)
    assert float(curvature[0, 0]) == pytest.approx(4.0, rel=1e-9)
    assert float(loss.curvature_bounds(3)[0, 0]) == pytest.approx(4.0, rel=1e-12)


def test_instances_repeat_and_depend_on_nothing_but_their_number() -> None:
    instances = random_instances(20, 3, nodes=(2, 3, 4, 5, 6), dimension=3, batch=16)
    again = random_instances(7, 3, nodes=(2, 3, 4, 5, 6), dimension=3, batch=16)
    for one, other in zip(again, instances, strict=False):
        assert torch.equal(one.weights, other.weights)
        assert torch.equal(one.inputs, other.inputs)
    assert not torch.equal(random_instances(1, 4)[0].weights, random_instances(1, 5)[0].weights)
    combinations = {(instance.name, len(instance.weights)) for instance in instances}
    assert combinations == {(kind, nodes) for kind in KINDS for nodes in (2, 3, 4, 5, 6)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, r"`count` \(=0\) must be at least 1"),
        ({"nodes": (2, 0)}, r"`nodes\[1\]` \(=0\)"),
        ({"nodes": ()}, "at least one number of nodes"),
        ({"seed": -1}, r"`seed` \(=-1\)"),
    ],
)
def test_instances_without_size_or_seed_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_instances(**{"count": 1, "seed": 0} | arguments)
