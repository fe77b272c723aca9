"""Theorems 4.2 and 4.3: gradient variance and smoothness of the narrowest cell, measured and bounded.

Shu, Wang and Cai (ICLR 2020), section 4.3 and appendix C; the cells are in
`nas_lightning.analysis.linear_cells`. Throughout, lambda(i) is the spectral norm of W(i) (the text says
largest eigenvalue, the proof uses the norm; with eigenvalues both theorems fail on a nilpotent matrix), and
everything is float64.

Both express the gradient of the narrowest cell by that of the widest at the products V(k) = W(k) ... W(1),
where both cells give the same z. With A(k) = W(k) ... W(i+1) and B = W(i-1) ... W(1) (equation 4),

    df^/dW(i) = sum over k = i..n of A(k)^T df/dV(k) B^T,

linear in the widest cell's gradients. Theorem 4.3 follows from it; theorem 4.2 does not (see `theorem_4_2`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, jacrev, vmap

from nas_lightning.analysis.linear_cells import (
    LinearCell,
    LinearCellInstance,
    Objective,
    block_norms,
    narrowest_cell,
    widest_cell,
)

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together

NORMS = ("frobenius", "spectral")
"""Matrix norms of gradients. The paper uses the spectral norm; theorem 4.3 holds in both."""

TOLERANCE = 1e-9
"""Relative excess over a bound that counts as rounding."""


def spectral_norms(weights: Float[Tensor, "nodes dimension dimension"]) -> Float[Tensor, " nodes"]:
    """Compute lambda(1)..lambda(n), the largest singular values of W(1)..W(n)."""
    norms: Tensor = torch.linalg.matrix_norm(weights.detach(), 2)
    return norms


def chain_products(
    weights: Float[Tensor, "nodes dimension dimension"],
) -> Float[Tensor, "nodes dimension dimension"]:
    """Compute V(k) = W(k) ... W(1): the widest cell with the V(k) equals the narrowest with the W(k)."""
    products = [weights.detach()[0]]
    for weight in weights.detach()[1:]:
        products.append(weight @ products[-1])
    return torch.stack(products)


def gradient_variances(
    cell: LinearCell, weights: Float[Tensor, "nodes dimension dimension"], instance: LinearCellInstance
) -> Float[Tensor, "norms nodes"]:
    """Compute E |df/dW(i) - E df/dW(i)|^2 over the samples x, at `weights`, in the norms of `NORMS`."""

    def loss(weights: Tensor, x: Tensor, target: Tensor) -> Tensor:
        return instance.objective(cell(weights, x[None]), target[None])[0]

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(weights, instance.inputs, instance.targets)
    deviations = gradients - gradients.mean(0)
    norms = [torch.linalg.matrix_norm(deviations, order) for order in ("fro", 2)]
    return torch.stack([norm.square().mean(0) for norm in norms])


def bound_4_3(
    norms: Float[Tensor, " nodes"], widest: Float[Tensor, "*norms nodes"]
) -> Float[Tensor, "*norms nodes"]:
    """Bound of theorem 4.3: n * sum over k = i..n of (sigma(k)/lambda(i) * lambda(1) ... lambda(k))^2.

    `norms` are lambda(1)..lambda(n); `widest` is sigma(k)^2, the variance of df/dV(k) in the widest cell at
    the products V(k).
    """
    nodes = len(norms)
    return nodes * (_paths(norms).square() @ widest[..., None])[..., 0]


def bound_4_2(norms: Float[Tensor, " nodes"], widest: Float[Tensor, " nodes"]) -> Float[Tensor, " nodes"]:
    """Bound of theorem 4.2 as printed: lambda(1) ... lambda(i-1) * L(i). It does not hold in general.

    `norms` are lambda(1)..lambda(n), `widest` L(i), the block-wise Lipschitz constants of the widest cell.
    """
    return _before(norms) * widest


def corrected_bound_4_2(
    norms: Float[Tensor, " nodes"], widest: Float[Tensor, "nodes nodes"]
) -> Float[Tensor, " nodes"]:
    """Bound on the narrowest cell's block-wise Lipschitz constants that holds.

    (lambda(1) ... lambda(i-1))^2 * sum over k, l = i..n of a(k) a(l) M(k, l),
    a(k) = lambda(i+1) ... lambda(k).

    `norms` are lambda(1)..lambda(n); `widest` is M(k, l), how fast df/dV(k) of the widest cell changes with
    V(l): |df/dV(k) at V - at V'| <= sum over l of M(k, l) |V(l) - V'(l)|; M(k, k) = L(k).

    Proof. Let W(i) change by D, all other matrices fixed. V(l) changes by A(l) D B for l >= i, not at all for
    l < i. By the definition of M, df/dV(k) changes by at most sum over l >= i of M(k, l) |A(l) D B|. With
    equation (4), where A and B stay, df^/dW(i) changes by at most sum over k, l >= i of
    |A(k)| |B| M(k, l) |A(l)| |D| |B|; and |A(k)| <= a(k), |B| <= lambda(1) ... lambda(i-1).

    At one point, norms of Hessian blocks may stand for constants and M: V is affine in W(i). The bound is
    attained for f = |y(1) + ... + y(n)|^2 / 2 and positive multiples of the identity. For a convex f (and the
    Frobenius norm) M(k, l)^2 <= L(k) L(l), so the double sum is at most (sum of a(k) sqrt(L(k)))^2; in
    general the L(k) alone bound nothing: f = y(1)^T y(2) has L(1) = L(2) = 0.
    """
    paths = _paths(norms)
    return torch.einsum("ik,kl,il->i", paths, widest, paths)


def theorem_4_3(instances: Sequence[LinearCellInstance]) -> xr.Dataset:
    """Compare the gradient variance of the narrowest cell with theorem 4.3.

    Proof that it holds (appendix C.4): by equation (4) the deviation of df^/dW(i) from its mean is the sum of
    n - i + 1 terms A(k)^T (df/dV(k) - E df/dV(k)) B^T; the squared norm of a sum of m terms is at most m
    times the sum of their squared norms, m <= n, and |A^T X B^T| <= |A| |X| |B| with spectral |A| and |B|,
    whether |X| is the spectral or the Frobenius norm. For i = 1 and equal terms it is attained.

    Args:
        instances: Weights, data and losses.

    Returns:
        One case per instance and i: ``variance`` of the narrowest cell, ``widest_variance`` (sigma(i)^2, at
        the products) and ``bound``, each over (norm, case), besides the columns of `theorem_4_2` that name a
        case.
    """
    rows = []
    for instance in instances:
        measured = gradient_variances(narrowest_cell, instance.weights, instance)
        widest = gradient_variances(widest_cell, chain_products(instance.weights), instance)
        rows.append(torch.stack([measured, widest, bound_4_3(spectral_norms(instance.weights), widest)]))
    variance, widest_variance, bounds = (
        torch.cat(rows, dim=2).numpy() if rows else np.empty((3, len(NORMS), 0))
    )
    return (
        _cases(instances)
        .assign(
            variance=(("norm", "case"), variance),
            widest_variance=(("norm", "case"), widest_variance),
            bound=(("norm", "case"), bounds),
        )
        .assign_coords(norm=list(NORMS))
    )


def theorem_4_2(instances: Sequence[LinearCellInstance], *, points: int = 8, seed: int = 0) -> xr.Dataset:
    """Compare block-wise Lipschitz constants of the narrowest cell with theorem 4.2 and a bound that holds.

    As in the paper, f is the loss at one input x, the first of the instance. W(i) enters only through
    u = W(i) h, h = W(i-1) ... W(1) x, so the Hessian over W(i) sends D to H_u D h h^T and has norm
    |H_u| |h|^2, in Frobenius and in spectral norm alike; the Lipschitz constant is the supremum over W(i).
    For quadratic losses it is exact; for others it is the largest among several W(i), a lower bound. The
    widest cell's constants are |x|^2 m(k, l) with the loss's `Objective.curvature_bounds`, upper bounds: a
    measured constant beyond the paper's bound is truly beyond.

    Why theorem 4.2 fails: equation (8) assumes that df/dV(k) changes as fast as W(k), but the widest cell has
    V(k) in its place, and every V(k) with k >= i changes with W(i), by A(k) D B. So all terms with k > i are
    missing in (9), and the term k = i lacks another factor lambda(1) ... lambda(i-1), for |B|. With
    c(1) |y(1)|^2 / 2 + c(2) |y(2)|^2 / 2 as f the constant of W(1) is |x|^2 |c(1) + c(2) W(2)^T W(2)| =
    |x|^2 (c(1) + c(2) lambda(2)^2), while the printed bound is |x|^2 c(1).

    Example:
        The counterexample with |x|^2 = 1, c = (1, 1) and identity matrices:

        >>> from nas_lightning.analysis.linear_cells import QuadraticObjective
        >>> loss = QuadraticObjective.weighted(torch.ones(2, dtype=torch.float64), dimension=2)
        >>> x = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
        >>> weights = torch.eye(2, dtype=torch.float64).repeat(2, 1, 1)
        >>> first = theorem_4_2([LinearCellInstance(weights, x, torch.tensor([0]), loss)]).isel(case=0)
        >>> [round(float(first[name]), 12) for name in ("constant", "paper_bound", "corrected_bound")]
        [2.0, 1.0, 2.0]

    Args:
        instances: Weights, data and losses; each loss an `Objective`.
        points: Matrices W(i) to try: the instance's own, zero, then random ones.
        seed: Of those.

    Returns:
        One case per instance and i, named by ``instance``, ``node`` (i), ``nodes`` (n), ``objective`` and
        ``gain``, with ``spectral_norm`` (lambda(i)) and ``spectral_norm_product`` (of all lambda(j), j != i);
        over these ``constant`` (narrowest), ``widest_constant`` (measured alike), ``paper_bound``,
        ``squared_bound`` (the paper's with the missing factor but without k > i), ``corrected_bound``, and
        ``beyond``: whether ``constant`` exceeds ``paper_bound`` by more than rounding.

    Raises:
        ValueError: If ``points`` is below 1, or a loss has no known curvature bounds.
    """
    if points < 1:
        raise ValueError(f"`points` (={points}) must be at least 1")
    names = ("constant", "widest_constant", "paper_bound", "squared_bound", "corrected_bound")
    rows = []
    for number, instance in enumerate(instances):
        if not isinstance(instance.objective, Objective):
            raise ValueError(
                f"the loss of instance {number} must be an Objective, which knows its curvature bounds"
            )
        norms = spectral_norms(instance.weights)
        squared_length = instance.inputs[0].square().sum()
        upper = instance.objective.curvature_bounds(len(norms)) * squared_length
        paper = bound_4_2(norms, upper.diagonal())
        random = np.random.default_rng([seed, number])
        constants = _block_constants(instance, _trial_weights(instance.weights, points, random))
        rows.append(
            torch.stack([*constants, paper, _before(norms) * paper, corrected_bound_4_2(norms, upper)])
        )
    values = torch.cat(rows, dim=1).numpy() if rows else np.empty((len(names), 0))
    cases = _cases(instances).assign({name: ("case", row) for name, row in zip(names, values, strict=True)})
    return cases.assign(beyond=cases["constant"] > cases["paper_bound"] * (1 + TOLERANCE))


def _paths(norms: Tensor) -> Tensor:
    """Entry (i, k): product of lambda(j) over j <= k without j = i; 0 for k < i. Bounds |A(k)| |B|."""
    nodes = len(norms)
    factors = norms.repeat(nodes, 1)
    factors.fill_diagonal_(1)
    return factors.cumprod(1).triu()


def _before(norms: Tensor) -> Tensor:
    """Products of lambda(j) over j < i."""
    return _paths(norms).diagonal()


def _trial_weights(weights: Tensor, points: int, random: np.random.Generator) -> Tensor:
    """Matrices ``[nodes, points, dimension, dimension]`` to try as each W(i)."""
    trials = torch.from_numpy(random.standard_normal((len(weights), points, *weights.shape[1:])))
    scales = torch.from_numpy(0.1 * 30 ** random.uniform(size=(len(weights), points, 1, 1)))
    trials *= scales / weights.shape[-1] ** 0.5
    trials[:, 0] = weights
    trials[:, 1:2] = 0
    return trials


def _block_constants(instance: LinearCellInstance, trials: Tensor) -> tuple[Tensor, Tensor]:
    """Largest norm of the Hessian over W(i) among the trials, for every i: narrowest cell, widest cell."""
    weights, x, target = instance.weights, instance.inputs[:1], instance.targets[:1]
    nodes, points, dimension, _ = trials.shape
    varied = weights.repeat(nodes, points, 1, 1, 1)
    for i in range(nodes):
        varied[i, :, i] = trials[i]

    def output(varied: Tensor) -> Tensor:
        return narrowest_cell(varied, x)[0]

    def loss(z: Tensor) -> Tensor:
        return instance.objective(z[None], target)[0]

    # Backward over backward: forward mode's first use compiles rules for a second, with a warning.
    curvature = vmap(jacrev(grad(loss)))(vmap(output)(varied.flatten(0, 1)))
    widest = block_norms(curvature, nodes).diagonal(dim1=-2, dim2=-1).amax(0) * x.square().sum()
    curvature = curvature.unflatten(0, (nodes, points))
    narrowest = []
    before = x[0]
    for i in range(nodes):
        after = torch.zeros_like(weights)
        after[i] = torch.eye(dimension)
        for k in range(i + 1, nodes):
            after[k] = weights[k] @ after[k - 1]
        jacobian = after.flatten(0, 1)
        local = torch.linalg.matrix_norm(jacobian.T @ curvature[i] @ jacobian, 2)
        narrowest.append(local.max() * before.square().sum())
        before = weights[i] @ before
    return torch.stack(narrowest), widest


def _cases(instances: Sequence[LinearCellInstance]) -> xr.Dataset:
    """Columns that name the cases, and their spectral norms."""
    import xarray as xr

    names = ("instance", "node", "nodes", "objective", "gain", "spectral_norm", "spectral_norm_product")
    rows: list[tuple[Any, ...]] = []
    for number, instance in enumerate(instances):
        norms = spectral_norms(instance.weights)
        products = _paths(norms)[:, -1]
        for i, (norm, product) in enumerate(zip(norms.tolist(), products.tolist(), strict=True), start=1):
            rows.append((number, i, len(norms), instance.name, instance.gain, norm, product))
    return xr.Dataset({name: ("case", np.asarray([row[k] for row in rows])) for k, name in enumerate(names)})
