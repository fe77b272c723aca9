"""Theorems 4.2 and 4.3 against plain loops, closed forms and cases that attain the bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from nas_lightning.analysis.linear_cells import (
    KINDS,
    LinearCell,
    LinearCellInstance,
    Objective,
    QuadraticObjective,
    block_norms,
    narrowest_cell,
    random_instances,
    widest_cell,
)
from nas_lightning.analysis.theory import (
    bound_4_2,
    bound_4_3,
    chain_products,
    corrected_bound_4_2,
    gradient_variances,
    spectral_norms,
    theorem_4_2,
    theorem_4_3,
)
from tests.analysis.linear_cases import ROUNDING, gaussian, hessian, loss_of_output


@pytest.fixture(scope="module")
def instances() -> list[LinearCellInstance]:
    """Two to six nodes, four kinds of losses, gains from 0.3 to 3."""
    return random_instances(120, 3, nodes=(2, 3, 4, 5, 6), dimension=3, batch=16)


@pytest.fixture(scope="module")
def variance(instances: list[LinearCellInstance]) -> xr.Dataset:
    return theorem_4_3(instances)


@pytest.fixture(scope="module")
def smoothness(instances: list[LinearCellInstance]) -> xr.Dataset:
    return theorem_4_2(instances)


def quadratic(
    coefficients: list[float], weights: Tensor, x: Tensor, *, matrix: Tensor | None = None
) -> LinearCellInstance:
    loss = (
        QuadraticObjective.weighted(torch.tensor(coefficients, dtype=torch.float64), weights.shape[-1])
        if matrix is None
        else QuadraticObjective(matrix)
    )
    return LinearCellInstance(weights, x, torch.zeros(len(x), dtype=torch.int64), loss)


def identities(nodes: int, dimension: int, scale: float = 1.0) -> Tensor:
    return scale * torch.eye(dimension, dtype=torch.float64).repeat(nodes, 1, 1)


def slow_gradients(cell: LinearCell, weights: Tensor, instance: LinearCellInstance) -> Tensor:
    """One backward pass per instance."""
    gradients: list[Tensor] = []
    weights = weights.clone().requires_grad_()
    for x, target in zip(instance.inputs, instance.targets, strict=True):
        loss = instance.objective(cell(weights, x[None]), target[None])[0]
        gradients += torch.autograd.grad(loss, weights)
    return torch.stack(gradients)


def loss_of_block(instance: LinearCellInstance, i: int) -> Callable[[Tensor], Tensor]:
    """The narrowest cell's loss at the first input, as a function of W(i + 1) alone."""

    def loss(block: Tensor) -> Tensor:
        changed = torch.stack([block if j == i else weight for j, weight in enumerate(instance.weights)])
        return instance.objective(narrowest_cell(changed, instance.inputs[:1]), instance.targets[:1])[0]

    return loss


def by_loss(instances: list[LinearCellInstance], nodes: int) -> Iterator[LinearCellInstance]:
    """The first instance of every kind of loss with that many nodes."""
    for kind in KINDS:
        yield next(one for one in instances if one.name == kind and len(one.weights) == nodes)


def test_gradients_of_both_cells_obey_equation_4(instances: list[LinearCellInstance]) -> None:
    for instance in by_loss(instances, 4):
        weights = instance.weights
        narrow = slow_gradients(narrowest_cell, weights, instance)
        wide = slow_gradients(widest_cell, chain_products(weights), instance)
        for i in range(4):
            before = torch.eye(3, dtype=torch.float64)
            for j in range(i):
                before = weights[j] @ before
            after, total = torch.eye(3, dtype=torch.float64), torch.zeros_like(wide[:, 0])
            for k in range(i, 4):
                after = after if k == i else weights[k] @ after
                total += after.T @ wide[:, k] @ before.T
            torch.testing.assert_close(narrow[:, i], total)


def test_variances_equal_one_backward_pass_per_instance(instances: list[LinearCellInstance]) -> None:
    for instance in by_loss(instances, 3):
        for cell in (narrowest_cell, widest_cell):
            gradients = slow_gradients(cell, instance.weights, instance).numpy()
            measured = gradient_variances(cell, instance.weights, instance).numpy()
            for i in range(3):
                deviations = gradients[:, i] - gradients[:, i].mean(0)
                singular = np.linalg.svd(deviations, compute_uv=False)
                expected = [(singular**2).sum(1).mean(), (singular[:, 0] ** 2).mean()]
                np.testing.assert_allclose(measured[:, i], expected, rtol=1e-11)


def test_theorem_4_3_holds_in_both_norms(variance: xr.Dataset) -> None:
    assert variance.sizes == {"case": 24 * (2 + 3 + 4 + 5 + 6), "norm": 2}
    assert variance["gain"].min() < 0.4
    assert variance["gain"].max() > 2.5
    assert (variance["bound"] > 0).all()
    assert (variance["variance"] <= variance["bound"] * ROUNDING).all()
    # The bound is no wild exaggeration: the nearest cases come within a factor of three.
    for norm in ("frobenius", "spectral"):
        assert (variance["variance"] / variance["bound"]).sel(norm=norm).max() > 1 / 3


def test_theorem_4_3_is_attained() -> None:
    x = gaussian(2, 20, 3)
    single = theorem_4_3([quadratic([2.0], gaussian(3, 1, 3, 3), x)])
    np.testing.assert_allclose(single["variance"], single["bound"], rtol=1e-12)
    # Equal terms for every k: c(k) = 1 / (lambda(1) ... lambda(k))^2 with multiples of the identity.
    for nodes, scale in [(2, 0.5), (3, 1.0), (5, 1.7)]:
        coefficients = [scale ** (-2 * k) for k in range(1, nodes + 1)]
        cases = theorem_4_3([quadratic(coefficients, identities(nodes, 3, scale), x)])
        ratio = (cases["variance"] / cases["bound"]).to_numpy()
        expected = [((nodes - i) / nodes) for i in range(nodes)]
        np.testing.assert_allclose(ratio, [expected, expected], rtol=1e-12)


def test_nothing_can_be_taken_from_theorem_4_3() -> None:
    x = gaussian(2, 20, 3)
    equal = quadratic([1.0, 1.0, 1.0], identities(3, 3), x)
    cases = theorem_4_3([equal])
    assert (cases["variance"] > cases["bound"] / 3 * 1.5).any()  # without the factor n
    # With sigma at the matrices W(k) instead of the products: W(1) = 3, W(2) = 1 lacks a factor 9 at W(2).
    weights = identities(2, 3)
    weights[0] *= 3
    instance = quadratic([1.0, 1.0], weights, x)
    elsewhere = gradient_variances(widest_cell, weights, instance)
    measured = gradient_variances(narrowest_cell, weights, instance)
    ratio = measured / bound_4_3(spectral_norms(weights), elsewhere)
    np.testing.assert_allclose(ratio[:, 1], 9 / 2, rtol=1e-12)
    # With the largest eigenvalue, as the text says, instead of the norm: nilpotent W(1).
    weights = identities(2, 2)
    weights[0] = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    instance = quadratic([1.0, 1.0], weights, gaussian(4, 20, 2))
    eigenvalues = torch.linalg.eigvals(weights).abs().amax(1)
    wide = gradient_variances(widest_cell, chain_products(weights), instance)
    measured = gradient_variances(narrowest_cell, weights, instance)
    assert (bound_4_3(eigenvalues, wide)[:, 1] == 0).all()
    assert (measured[:, 1] > 0.1).all()


def test_bounds_equal_their_formulas() -> None:
    norms = torch.tensor([2.0, 3.0, 0.5], dtype=torch.float64)
    sigma = torch.tensor([[1.0, 5.0, 7.0]], dtype=torch.float64)
    second = 3 * ((2.0 * 1.0) ** 2 * 5 + (2.0 * 0.5) ** 2 * 7)
    third = 3 * (2.0 * 3.0) ** 2 * 7
    first = 3 * (1.0 + 3.0**2 * 5 + (3.0 * 0.5) ** 2 * 7)
    assert bound_4_3(norms, sigma).tolist() == [[first, second, third]]
    assert bound_4_2(norms, sigma[0]).tolist() == [1.0, 10.0, 42.0]
    across = torch.tensor([[1.0, 2.0, 3.0], [2.0, 5.0, 4.0], [3.0, 4.0, 7.0]], dtype=torch.float64)
    second = 2.0**2 * (5 + 2 * 0.5 * 4 + 0.5**2 * 7)
    first = 1 + 9 * 5 + 1.5**2 * 7 + 2 * (3 * 2 + 1.5 * 3 + 3 * 1.5 * 4)
    assert corrected_bound_4_2(norms, across).tolist() == [first, second, 36 * 7.0]


def test_a_zero_matrix_is_no_trouble() -> None:
    weights = gaussian(5, 3, 2, 2)
    weights[1] = 0
    instance = quadratic([1.0, 2.0, 3.0], weights, gaussian(6, 10, 2))
    variance, smoothness = theorem_4_3([instance]), theorem_4_2([instance])
    assert np.isfinite(variance["bound"]).all()
    assert (variance["variance"] <= variance["bound"] * ROUNDING).all()
    assert (smoothness["constant"] <= smoothness["corrected_bound"] * ROUNDING).all()


def test_theorem_4_2_fails_on_the_counterexample() -> None:
    weights, x = gaussian(7, 2, 3, 3), gaussian(8, 1, 3)
    squared_norm = float(x.square().sum())
    second = float(spectral_norms(weights)[1])
    cases = theorem_4_2([quadratic([0.7, 1.3], weights, x)])
    constant, paper, corrected = (
        cases[name].to_numpy() for name in ("constant", "paper_bound", "corrected_bound")
    )
    assert constant[0] == pytest.approx(squared_norm * (0.7 + 1.3 * second**2), rel=1e-12)
    assert paper[0] == pytest.approx(squared_norm * 0.7, rel=1e-12)
    assert corrected[0] == pytest.approx(constant[0], rel=1e-12)
    assert cases["beyond"][0]


def test_theorem_4_2_fails_at_the_last_node_for_want_of_a_square() -> None:
    """No later node, only lambda(1) squared: for W(1) = 3 the constant is 9 c |x|^2, the bound 3 c |x|^2."""
    weights = identities(2, 2)
    weights[0] *= 3
    cases = theorem_4_2([quadratic([1.0, 0.5], weights, torch.tensor([[3.0, 4.0]], dtype=torch.float64))])
    last = cases.isel(case=1)
    assert [
        float(last[name]) for name in ("constant", "paper_bound", "squared_bound", "corrected_bound")
    ] == (pytest.approx([112.5, 37.5, 112.5, 112.5], rel=1e-12))


def test_instances_beyond_theorem_4_2_are_shown(smoothness: xr.Dataset) -> None:
    beyond = smoothness["beyond"].to_numpy()
    # Measured constants are lower bounds and the widest cell's upper bounds, so these are beyond for certain.
    assert 0.1 < beyond.mean() < 0.5
    for kind in ("weighted quadratic", "coupled quadratic", "cross entropy"):
        assert beyond[smoothness["objective"] == kind].sum() > 10
    assert (beyond == (smoothness["constant"] > smoothness["paper_bound"] * ROUNDING)).all()


def test_the_corrected_bound_holds(smoothness: xr.Dataset) -> None:
    assert (smoothness["constant"] <= smoothness["corrected_bound"] * ROUNDING).all()
    ratio = smoothness["constant"] / smoothness["corrected_bound"]
    assert ratio.max() == pytest.approx(1, rel=1e-9)
    # Without the later nodes' terms, or without the square of lambda(1) ... lambda(i-1), it would not.
    assert (smoothness["constant"] > smoothness["squared_bound"] * ROUNDING).any()
    before = smoothness["squared_bound"] / smoothness["paper_bound"]
    assert (smoothness["constant"] > smoothness["corrected_bound"] / before * ROUNDING).any()


def test_the_corrected_bound_is_attained_with_and_without_terms_across_nodes() -> None:
    x = gaussian(9, 1, 2)
    everywhere = torch.eye(2, dtype=torch.float64).repeat(4, 4)  # f = |y(1) + ... + y(4)|^2 / 2
    for matrix in (None, everywhere):
        cases = theorem_4_2([quadratic([1.0, 2.0, 0.5, 3.0], identities(4, 2, 1.4), x, matrix=matrix)])
        np.testing.assert_allclose(cases["constant"], cases["corrected_bound"], rtol=1e-12)
    # Terms across nodes cannot be left out, nor can they be had from L(k): y(1)^T y(2) has L(1) = L(2) = 0.
    coupling = torch.zeros(4, 4, dtype=torch.float64)
    coupling[:2, 2:] = coupling[2:, :2] = torch.eye(2)
    cases = theorem_4_2([quadratic([], identities(2, 2), x, matrix=coupling)])
    assert cases["paper_bound"].to_numpy().tolist() == [0, 0]
    assert cases["constant"][0] == pytest.approx(2 * float(x.square().sum()), rel=1e-12)
    assert cases["corrected_bound"][0] == pytest.approx(float(cases["constant"][0]), rel=1e-12)


def test_constants_equal_the_norm_of_the_block_hessian_through_the_module(
    instances: list[LinearCellInstance],
) -> None:
    for instance in by_loss(instances, 3):
        objective, weights, x = instance.objective, instance.weights, instance.inputs[:1]
        assert isinstance(objective, Objective)
        measured = theorem_4_2([instance], points=1)["constant"].to_numpy()  # at the instance's own weights
        exact = [np.linalg.norm(hessian(loss_of_block(instance, i), weights[i]).numpy(), 2) for i in range(3)]
        np.testing.assert_allclose(measured, exact, rtol=1e-9)
        # The corrected bound holds with the widest cell's Hessian at this very point, too.
        z = narrowest_cell(weights, x)[0]
        local = block_norms(hessian(loss_of_output(objective, instance.targets[:1]), z), 3)
        bound = corrected_bound_4_2(spectral_norms(weights), local * x.square().sum()).numpy()
        assert (measured <= bound * ROUNDING).all()
        assert (local <= objective.curvature_bounds(3) * ROUNDING).all()


def test_changes_of_gradients_obey_the_corrected_bound_in_both_norms(
    instances: list[LinearCellInstance],
) -> None:
    beyond_paper = 0
    for number, instance in enumerate(instances[:40]):
        cases = theorem_4_2([instance], points=1)
        corrected, paper = cases["corrected_bound"].to_numpy(), cases["paper_bound"].to_numpy()
        before = instance.inputs[0]
        for i, weight in enumerate(instance.weights):
            # Along the rank-one matrices in which a change of W(i) has the largest effect, and along any.
            for step in (torch.outer(gaussian(number, 3), before), gaussian(number, 3, 3)):
                gradients: list[Tensor] = []
                for k in (0, 1):
                    changed = instance.weights.clone()
                    changed[i] += k * step
                    single = replace(instance, inputs=instance.inputs[:1], targets=instance.targets[:1])
                    gradients += slow_gradients(narrowest_cell, changed, single)[:, i]
                for order in ("fro", 2):
                    slope = float(
                        torch.linalg.matrix_norm(gradients[1] - gradients[0], order)
                        / torch.linalg.matrix_norm(step, order)
                    )
                    assert slope <= corrected[i] * ROUNDING
                    beyond_paper += int(slope > paper[i] * ROUNDING)
            before = weight @ before
    assert beyond_paper > 10


def test_measured_constants_are_lower_bounds_that_more_points_raise(
    instances: list[LinearCellInstance],
) -> None:
    few, many = theorem_4_2(instances[:40], points=2), theorem_4_2(instances[:40], points=30)
    exact = few["objective"].str.endswith("quadratic").to_numpy()
    np.testing.assert_allclose(few["constant"][exact], many["constant"][exact], rtol=1e-10)
    assert (many["constant"] <= many["corrected_bound"] * ROUNDING).all()
    assert (many["constant"][~exact] > few["constant"][~exact] * 1.01).any()


def test_bad_input_is_refused() -> None:
    instance = LinearCellInstance(
        identities(2, 2), gaussian(0, 4, 2), torch.zeros(4, dtype=torch.int64), lambda z, targets: z.sum(1)
    )
    assert theorem_4_3([instance])["variance"].to_numpy().shape == (2, 2)
    with pytest.raises(ValueError, match="the loss of instance 0 must be an Objective"):
        theorem_4_2([instance])
    with pytest.raises(ValueError, match=r"`points` \(=0\)"):
        theorem_4_2([], points=0)
