"""The curvature of the loss profile at w*, in closed form: what "smooth" means without a plane.

Let d be a random direction whose units d_u (filters) are independent and each uniform on the sphere of radius
||w_u|| in n_u dimensions, as :func:`~nas_lightning.analysis.directions.random_direction` draws them. Then
E[d] = 0, E[d_u d_v'] = 0 for u != v, and E[d_u d_u'] = ||w_u||^2 / n_u I, since the n_u coordinates share the
squared radius alike. With F the mean loss and H its Hessian,

    d/dr   E_d[F(w* + r d)] at r = 0  =  E[d]' grad F  =  0,
    d2/dr2 E_d[F(w* + r d)] at r = 0  =  E[d' H d]  =  tr(H E[d d'])  =  sum_u ||w_u||^2 / n_u tr(H_uu)
                                      =  tr(D H D),

H_uu the unit's block and D = diag(||w_u|| / sqrt(n_u)), 0 where a direction is 0. So near w* the profile is
F(w*) + c r^2 / 2, c this number, in nat. It is the sum of the eigenvalues of D H D, of which
:func:`~nas_lightning.analysis.hessian.hessian_eigenvalues` finds the largest, and like them does not see the
scale of weights before a batch norm.

Sources: Li et al., *Visualizing the loss landscape of neural nets* (NeurIPS 2018), section 4, for the
directions; Hutchinson, *A stochastic estimator of the trace of the influence matrix* (1990), for the trace.
"""

from __future__ import annotations

import math

import numpy as np
from torch import nn

from nas_lightning.analysis.curvature_products import HessianProduct, Product
from nas_lightning.analysis.directions import Normalization
from nas_lightning.analysis.evaluation import Batches, Loss
from nas_lightning.analysis.filters import direction_scale

_AT_ONCE = 5
"""Vectors that are multiplied together, which costs less than one after the other."""
_OWN_STREAM = 2
"""Tells the random signs from those of :func:`~nas_lightning.analysis.hessian.hessian_eigenvalues`."""


def second_derivative(
    module: nn.Module,
    batches: Batches,
    samples: int = 10,
    *,
    normalization: Normalization = "filter",
    seed: int = 0,
    product: Product | None = None,
    loss: Loss | None = None,
) -> tuple[float, float]:
    """Estimate d2/dr2 E_d[F(w* + r d)] at r = 0 over random directions d, which is tr(D H D).

    The mean of (D z) . H (D z) over vectors z of random signs, one product with the Hessian each. It is
    unbiased, with standard deviation sqrt(2 sum_{i != j} (D H D)_ij^2) for each vector, and exact where D H D
    is diagonal. The Hessian is that of the module in evaluation mode: batch norm has the running statistics
    of w*, as in a profile with ``batch_norm="frozen"``.

    Pitfall: with ReLU and max pooling F is smooth only piecewise, and H is that of the piece around w*. The
    profile over a finite r also crosses kinks, so that it may rise faster than the parabola says.

    Args:
        module: Returns logits ``[batch, classes]`` in evaluation mode; its weights are w*.
        batches: The samples, on the module's device.
        samples: Number of random vectors.
        normalization: Of the directions, see :func:`~nas_lightning.analysis.directions.random_direction`;
            with ``"none"`` D = 1, and the number is the trace of H.
        seed: Of the random signs.
        product: Maps vectors ``[parameters, vectors]`` to H times each in place of ``HessianProduct(module,
            batches).partial``, for example the sum of several processes' shares.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Returns:
        The estimate and its standard error, in nat. NaN where a product is not finite; the error is NaN with
        fewer than two vectors.

    Raises:
        ValueError: If `samples` is not positive, or `normalization` is unknown.

    Example:
        Two classes and one linear layer make the logistic loss, with curvature p (1 - p) x^2 along a weight.

        >>> import torch
        >>> layer = nn.Linear(1, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0], [1.0]]))
        >>> batches = [(torch.tensor([[2.0], [2.0]]), torch.tensor([0, 1]))]
        >>> estimate, error = second_derivative(layer, batches, samples=200)
        >>> abs(estimate - (0.25 + 0.25) * 2.0**2) < 3 * error
        True
    """
    if samples < 1:
        raise ValueError(f"`samples` (={samples}) must be at least 1")
    scale = direction_scale(module, normalization)
    multiply = product or HessianProduct(module, batches, loss=loss).partial
    generator = np.random.default_rng([seed, _OWN_STREAM])
    forms = np.empty(samples)
    for start in range(0, samples, _AT_ONCE):
        count = min(_AT_ONCE, samples - start)
        signs = [generator.choice([-1.0, 1.0], size=len(scale)) for _ in range(count)]
        steps = scale[:, None] * np.stack(signs, axis=1)
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are results, not accidents
            forms[start : start + count] = (steps * multiply(steps)).sum(axis=0)
    if not np.isfinite(forms).all():
        return math.nan, math.nan
    error = float(forms.std(ddof=1)) / math.sqrt(samples) if samples > 1 else math.nan
    return float(forms.mean()), error
