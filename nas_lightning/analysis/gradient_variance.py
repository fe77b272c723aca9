"""Variance of the gradient over samples (section 4.2.2 of the paper).

Var(grad f_i) = E ||grad f_i - E grad f_i||^2 = (1/n) sum_i ||grad f_i||^2 - ||E grad f_i||^2,

the trace of the covariance of the per-sample gradients, over all n samples (divided by n) and all parameters
with ``requires_grad`` that the logits depend on; batch norm in evaluation mode, no weight decay. Figures 7
and 8 of the paper show its square root.

The scale of weights before a batch norm changes the variance and not the function. The normalised variance

sum_u ||w_u||^2 Var(grad_{w_u} f_i)

over all filters u does not change; see :mod:`nas_lightning.analysis.filters`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas_lightning.analysis.directions import Directions, cosine
from nas_lightning.analysis.displacement import at_points
from nas_lightning.analysis.evaluation import (
    Batches,
    Loss,
    differentiating,
    evaluating,
    first_batch,
    sample_losses,
)
from nas_lightning.analysis.filters import filter_norms, squared_norms
from nas_lightning.analysis.per_sample_gradients import PerSampleGradients, Unsupported
from nas_lightning.analysis.surface import Point, measured_plane
from nas_lightning.provenance import weights_hash

if TYPE_CHECKING:
    import xarray as xr

Method: TypeAlias = Literal["exact", "minibatch"]
"""Every sample's gradient, or an unbiased estimate from the mean gradients of disjoint mini-batches."""

BatchSums: TypeAlias = Callable[
    [Tensor, Tensor], tuple[Tensor, Mapping[str, Tensor], Mapping[str, Tensor]] | None
]
"""Maps a batch (inputs, targets) to sum_i f_i and, by parameter, sum_i ||grad f_i||^2 (float64, by filter as
in :func:`nas_lightning.analysis.filters.squared_norms`) and sum_i grad f_i, or to None if it does not take a
batch of this size."""

BATCHES_FOR_AN_ERROR = 7
"""Contrasts of mini-batches before their spread is trusted."""

_VARIABLES: Mapping[str, Mapping[str, str]] = {
    "variance": {"long_name": "variance of the gradient over instances", "units": "nat2"},
    "mean_gradient_norm": {"long_name": "norm of the mean gradient", "units": "nat"},
    "standard_error": {"long_name": "standard error of the variance", "units": "nat2"},
}


@dataclass(frozen=True)
class GradientStatistics:
    """The gradient over samples, at one point.

    Attributes:
        count: Number of samples n.
        loss: E f_i, the mean loss.
        mean_gradient_norm: ||E grad f_i||, the norm of the gradient of the mean loss.
        variance: E ||grad f_i - E grad f_i||^2.
        standard_error: Standard error of ``variance``; 0 where every sample was measured.
        normalized_variance: sum_u ||w_u||^2 E ||grad_{w_u} f_i - E grad_{w_u} f_i||^2 over the filters u.
        variance_by_parameter: What each parameter adds to ``variance``; they sum to it.
    """

    count: int
    loss: float
    mean_gradient_norm: float
    variance: float
    standard_error: float
    normalized_variance: float
    variance_by_parameter: Mapping[str, float]

    @property
    def noise_scale(self) -> float:
        """tr(Sigma) / |G|^2 = variance / mean_gradient_norm^2, in samples.

        The batch size at which noise and gradient are equally large (McCandlish et al., *An empirical model
        of large-batch training*, 2018, equation 2.9).
        """
        square = self.mean_gradient_norm**2
        return self.variance / square if square else math.nan if self.variance == 0 else math.inf


class GradientSums:
    """Sums over samples from which the statistics follow; those of several processes add up.

    In float64, on the parameters' device: the number of samples so far, the sum of their losses and, by
    parameter, sum_i grad f_i and, by filter, sum_i ||grad f_i||^2.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        device = next(iter(parameters.values())).device
        self._filter_norms = {name: filter_norms(p) for name, p in parameters.items()}
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.gradients = {
            name: torch.zeros(p.shape, dtype=torch.float64, device=device) for name, p in parameters.items()
        }
        self.squared_norms = {name: torch.zeros_like(norms) for name, norms in self._filter_norms.items()}

    def add(self, name: str, gradients: Float[Tensor, "samples *shape"]) -> None:
        """Add gradients of single samples."""
        self.squared_norms[name] += squared_norms(gradients)
        self.gradients[name] += gradients.sum(0, dtype=torch.float64)

    def add_sums(self, squares: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """Add a batch's sum_i ||grad f_i||^2, by filter, and sum_i grad f_i for each parameter."""
        names = list(self.gradients)
        torch._foreach_add_(list(self.squared_norms.values()), [squares[name] for name in names])
        torch._foreach_add_(list(self.gradients.values()), [gradients[name].double() for name in names])

    def tensors(self) -> list[Tensor]:
        """All sums, to be added up in place over processes."""
        return [self.count, self.loss, *self.squared_norms.values(), *self.gradients.values()]

    def statistics(self) -> GradientStatistics:
        """The statistics over all samples."""
        count = float(self.count)
        means = [squared_norms(gradient[None]) / count**2 for gradient in self.gradients.values()]
        pairs = zip(self.squared_norms.values(), means, strict=True)
        # Rounding makes them negative where all samples agree.
        variances = [(squares / count - mean).clamp(min=0) for squares, mean in pairs]
        by_parameter = torch.stack([variance.sum() for variance in variances])
        return GradientStatistics(
            count=round(count),
            loss=float(self.loss) / count,
            mean_gradient_norm=math.sqrt(float(torch.cat(means).sum())),
            variance=float(by_parameter.sum()),
            standard_error=0.0,
            normalized_variance=float(_normalized(variances, list(self._filter_norms.values()))),
            variance_by_parameter=dict(zip(self.gradients, by_parameter.tolist(), strict=True)),
        )


def _normalized(variances: Sequence[Tensor], norms: Sequence[Tensor]) -> Tensor:
    """sum_u ||w_u||^2 times the variance, or any square, of every filter."""
    return torch.cat(list(norms)).square() @ torch.cat(list(variances))


def sum_gradients(
    gradients: PerSampleGradients, batches: Batches, batch_sums: BatchSums | None = None
) -> GradientSums:
    """Run all batches and add up what the statistics need.

    Args:
        gradients: The per-sample gradients of a module.
        batches: Batches of (inputs, targets); none at all gives zero.
        batch_sums: Computes a batch's sums in place of `gradients`, for the batches that it takes.

    Returns:
        The sums over the batches' samples.
    """
    with torch.inference_mode(False):
        sums = GradientSums(gradients.parameters)
        for inputs, targets in batches:
            if not len(targets):
                continue
            found = batch_sums(inputs, targets) if batch_sums is not None else None
            if found is None:
                losses = gradients.backward(inputs, targets, sums.add)
                sums.loss += losses.sum(dtype=torch.float64)
            else:
                loss, *of_parameters = found
                sums.loss += loss
                sums.add_sums(*of_parameters)
            sums.count += len(targets)
    return sums


def estimate_statistics(
    gradients: PerSampleGradients, batches: Batches, tolerance: float | int = 0
) -> GradientStatistics:
    """Estimate the variance, without bias, from the mean gradients of K disjoint mini-batches.

    With G_k the mean gradient of batch k of B_k samples, M_k that of the first k batches and N_k their number
    of samples, every

    h_k = ||G_k - M_(k-1)||^2 / (1 / B_k + 1 / N_(k-1)),    k = 2 .. K,

    has the expectation n / (n - 1) * Var(grad f_i) if the samples are dealt to the batches at random, and
    sum_k h_k = sum_k B_k ||G_k - G||^2 (Welford's recursion). The estimate is (n - 1) / n times their mean.

    Its standard error is that of this mean: the spread of the estimate over draws of n samples. Other ways to
    deal the same samples spread less: for the split itself the error is on the safe side.

    It costs one ordinary backward pass a batch, of as many batches as it takes until the standard error is at
    most ``tolerance`` times the estimate. Where that leaves batches out, the estimate is that for infinitely
    many samples, and the squared norm of the mean gradient is corrected for its bias, the estimate over the
    number of samples.

    Args:
        gradients: Which parameters of which module count.
        batches: At least three batches of samples in random order.
        tolerance: Largest relative standard error at which no more batches are needed; 0 takes all. It is
            checked from the eighth batch on, where the error itself is known to a quarter or so.

    Returns:
        The estimate; with all batches exact in ``mean_gradient_norm``.

    Raises:
        ValueError: If there are fewer than three batches, or the tolerance is negative.
    """
    if tolerance < 0:
        raise ValueError(f"`tolerance` (={tolerance}) must not be negative")
    module, parameters = gradients.module, list(gradients.parameters.values())
    norms = [filter_norms(parameter) for parameter in parameters]
    count, total = 0, 0.0
    means: list[Tensor] = []
    terms: list[Tensor] = []
    is_partial = False
    with evaluating(module), differentiating(parameters[0].device.type):
        for inputs, targets in batches:
            size = len(targets)
            if not size:
                continue
            if tolerance and len(terms) >= BATCHES_FOR_AN_ERROR and _relative_error(terms) <= tolerance:
                is_partial = True
                break
            loss = sample_losses(module, inputs, targets, gradients.loss).mean()
            total += size * float(loss.detach())
            found = [g.double() for g in torch.autograd.grad(loss, parameters)]
            if not means:
                means = found
            else:
                differences = list(torch._foreach_sub(found, means))
                by_filter = [squared_norms(difference[None]) for difference in differences]
                squares = [s.sum() for s in by_filter] + [_normalized(by_filter, norms)]
                terms.append(torch.stack(squares) / (1 / size + 1 / count))
                torch._foreach_add_(means, differences, alpha=size / (count + size))
            count += size
    if len(terms) < 2:
        raise ValueError(
            f"{len(terms) + bool(means)} batches are too few to estimate a variance and its error: at least 3"
        )
    contrasts = torch.stack(terms) * (1 if is_partial else (count - 1) / count)
    *variances, normalized = contrasts.mean(0).tolist()
    square = float(torch.stack([mean.square().sum() for mean in means]).sum())
    if is_partial:
        square = max(square - sum(variances) / count, 0.0)
    return GradientStatistics(
        count=count,
        loss=total / count,
        mean_gradient_norm=math.sqrt(square),
        variance=sum(variances),
        standard_error=float(contrasts[:, :-1].sum(1).std() / math.sqrt(len(terms))),
        normalized_variance=normalized,
        variance_by_parameter=dict(zip(gradients.parameters, variances, strict=True)),
    )


def _relative_error(terms: list[Tensor]) -> float:
    totals = torch.stack(terms)[:, :-1].sum(1)  # the last is the normalised one
    return float(totals.std() / totals.mean() / math.sqrt(len(terms)))


def gradient_statistics(
    module: nn.Module,
    batches: Batches,
    *,
    method: Method = "exact",
    unsupported: Unsupported = "refuse",
    loss: Loss | None = None,
) -> GradientStatistics:
    """Compute mean and variance of the gradient over samples, at the module's weights.

    Args:
        module: Maps inputs ``[batch, ...]`` to logits ``[batch, classes]`` in evaluation mode.
        batches: Batches of (inputs, targets) on the module's device.
        method: ``"exact"``, from the gradient of every sample, or ``"minibatch"``, an estimate that needs
            batches of samples in random order; see :func:`estimate_statistics`.
        unsupported: What to do with layers that have no rule, see :class:`PerSampleGradients`.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Returns:
        The statistics.

    Raises:
        ValueError: If a layer is not supported, or there is no batch (for ``"minibatch"``, fewer than three).

    Example:
        >>> linear = nn.Linear(2, 2, bias=False)
        >>> batches = [(torch.eye(2), torch.tensor([0, 1])), (torch.ones(1, 2), torch.tensor([0]))]
        >>> gradient_statistics(linear, batches).count
        3
    """
    gradients = PerSampleGradients(module, *first_batch(batches), unsupported, loss)
    return _statistics(gradients, batches, method)


def gradient_variance_surface(
    module: nn.Module,
    batches: Batches,
    directions: Directions,
    alphas: Iterable[float | int] | Float[np.ndarray, " alpha"],
    betas: Iterable[float | int] | Float[np.ndarray, " beta"],
    *,
    method: Method = "exact",
    unsupported: Unsupported = "refuse",
    loss: Loss | None = None,
) -> xr.Dataset:
    """Compute the gradient variance g(a, b) = Var(grad f_i(w* + a w1 + b w2)) on a grid.

    Args:
        module: As for :func:`gradient_statistics`; its weights are w*, and are so bit for bit afterwards.
        batches: Batches of (inputs, targets) on the module's device.
        directions: w1 and w2, by name of the parameter.
        alphas: Steps along w1.
        betas: Steps along w2.
        method: See :func:`gradient_statistics`.
        unsupported: See :class:`PerSampleGradients`.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Returns:
        ``variance`` and ``mean_gradient_norm`` (and, estimated, ``standard_error``) over (alpha, beta).

    Raises:
        ValueError: If a layer is not supported or a direction does not fit.
    """
    attributes: dict[str, str | int | float] = {
        "kind": "gradient_variance",
        "weights_sha256": weights_hash(module.state_dict()),
        "samples": sum(len(targets) for _, targets in batches),
        "method": method,
        "cosine": cosine(*directions),
    }
    gradients = PerSampleGradients(module, *first_batch(batches), unsupported, loss)
    with variance_at_points(gradients, batches, {0: directions}, method) as measure:
        return measured_plane(measure, variance_variables(method), alphas, betas, attributes)


def variance_variables(method: Method) -> dict[str, dict[str, str]]:
    """Names and attributes of what a gradient-variance surface holds at every point."""
    names = ("variance", "mean_gradient_norm", *(("standard_error",) if method == "minibatch" else ()))
    return {name: dict(_VARIABLES[name]) for name in names}


@contextmanager
def variance_at_points(
    gradients: PerSampleGradients,
    batches: Batches,
    directions_by_seed: Mapping[int, Directions],
    method: Method = "exact",
    *,
    tolerance: float | int = 0,
    batch_sums: BatchSums | None = None,
) -> Iterator[Callable[[Point], dict[str, float]]]:
    """Measure the gradient variance at the points of a surface, along w1 and w2 of every direction seed.

    Yields a function of a point that gives its values by name. When the block ends the weights are w*, bit
    for bit. The other arguments are those of :func:`estimate_statistics` and :func:`sum_gradients`.
    """
    with at_points(gradients.module, directions_by_seed) as move_to:

        def measure(point: Point) -> dict[str, float]:
            move_to(point)
            statistics = _statistics(gradients, batches, method, tolerance, batch_sums)
            return {name: getattr(statistics, name) for name in variance_variables(method)}

        yield measure


def _statistics(
    gradients: PerSampleGradients,
    batches: Batches,
    method: Method,
    tolerance: float | int = 0,
    batch_sums: BatchSums | None = None,
) -> GradientStatistics:
    if method == "exact":
        return sum_gradients(gradients, batches, batch_sums).statistics()
    if method == "minibatch":
        return estimate_statistics(gradients, batches, tolerance)
    raise ValueError(f"`method` (={method!r}) must be 'exact' or 'minibatch'")
