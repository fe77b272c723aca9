"""The density of the curvature's eigenvalues at the trained weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool
from matplotlib.figure import Figure

from nas_lightning.analysis import MATRICES, MOMENTS, filter_scale, lanczos_quadrature
from nas_lightning.analysis.density_file import (
    NORMALIZED,
    check_densities,
    matrix_names,
    new_densities,
    pending_vectors,
    put_quadrature,
    with_densities,
)
from nas_lightning.analysis.trial import check_second_derivative
from nas_lightning.callbacks.analysis import Analysis
from nas_lightning.callbacks.context import AnalysisContext, Dataset
from nas_lightning.callbacks.shared_products import SharedProducts
from nas_lightning.figures import draw_densities, file_facts, read_density_panels, shared_note
from nas_lightning.netcdf import matching_dataset, write_dataset

_GIB = 2**30


class SpectralDensity(Analysis):
    """Densities of the eigenvalues of the Hessian of the mean loss at w*, and of its Gauss-Newton part.

    By stochastic Lanczos quadrature, see :mod:`nas_lightning.analysis.spectral_density`: log10 of the density
    with its standard error over start vectors, the trace, the Frobenius norm and the effective dimension. The
    scale of weights before a batch norm changes the plain matrices and not the function. It does not change
    the normalised ones, D A D with D = diag(||w_u|| / sqrt(n_u)) over the filters u of n_u weights, in which
    biases and batch norm do not count.

    A matrix costs ``steps * start_vectors`` products, each about two gradients over the images, of a module
    without cells four. The ranks share the images of every product. Start vectors that run together share a
    part of it, and their end is when the file is written.

    Args:
        steps: Steps of Lanczos for each start vector.
        start_vectors: Random vectors; their spread is the standard error, which one vector does not have.
        matrices: ``"hessian"``, ``"gauss_newton"``, or both.
        normalized: Whether the normalised matrices are measured as well.
        width: Standard deviation of the Gaussian kernel, as a share of the range of the eigenvalues.
        ridge: What the effective dimension adds to an eigenvalue: a weight decay of the training, for
            example; 3e-4 is that of DARTS.
        seed: Of the start vectors.
        lockstep: Start vectors that run together. They need as many bases at a time.
        basis_gib: Up to this size, in GiB, the bases are kept on the device, above it in the host's memory.
            They hold ``4 * steps * lockstep`` bytes for each parameter.
        batch_size: Images in a batch; a product needs several times the memory of a training step.
        settings: As for :class:`nas_lightning.callbacks.analysis.Analysis`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind = "spectral_density"

    def __init__(
        self,
        steps: int = 64,
        start_vectors: int = 4,
        matrices: Sequence[Literal["hessian", "gauss_newton"]] = ("hessian", "gauss_newton"),
        normalized: bool = True,
        width: float = 0.003,
        ridge: float = 3e-4,
        seed: int = 0,
        lockstep: int = 4,
        basis_gib: float = 4.0,
        batch_size: int = 40,
        **settings: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **settings)
        counts = {"lockstep": (lockstep, 1)}
        for key, value, most in (("steps", steps, 10_000), ("start_vectors", start_vectors, 1000)):
            if not 1 <= value <= most:  # the file holds their product, for each matrix
                raise ValueError(f"`{key}` (={value}) must be from 1 to {most}")
        for key, (value, least) in (counts | {"seed": (seed, 0)}).items():
            if not least <= value <= 10**6:
                raise ValueError(f"`{key}` (={value}) must be from {least} to 1000000")
        if not 1e-4 <= width <= 0.5:
            raise ValueError(f"`width` (={width}) must be from 0.0001 to 0.5")
        if not 0 < ridge < float("inf"):
            raise ValueError(f"`ridge` (={ridge}) must be above 0")
        if not basis_gib >= 0:
            raise ValueError(f"`basis_gib` (={basis_gib}) must be at least 0")
        chosen = [name for name in MATRICES if name in matrices]
        if not chosen or len(chosen) != len(matrices):
            raise ValueError(
                f"`matrices` (={list(matrices)}) must name {' or '.join(MATRICES)}, or both, each once"
            )
        self.steps, self.start_vectors, self.seed = steps, start_vectors, seed
        self.matrices = chosen
        self.normalized = normalized
        self.width, self.ridge = float(width), float(ridge)
        self.lockstep, self.basis_gib = lockstep, basis_gib

    def rehearse(self, context: AnalysisContext) -> None:
        """Refuse a loss without a second derivative."""
        super().rehearse(context)
        check_second_derivative(context.network, *context.few_samples(), self.loss)

    def measure(self, context: AnalysisContext) -> None:
        """Complete the densities that the file holds, or new ones, and log them."""
        dataset = context.on_rank_zero(lambda: self._start(context))
        if not dataset["done"].all():
            dataset = self._complete(context, dataset)
        names = [str(name) for name in dataset["matrix"].values]
        moments = [f"{name}_{moment}" for name in names for moment in MOMENTS]
        numbers = {moment: float(dataset[moment]) for moment in moments}
        context.log_scalars({f"landscape/{name}": value for name, value in numbers.items()})
        context.log_figures(lambda: {"landscape/spectral_density": _figure(dataset)})
        context.say(f"{context.path}: {_in_words(dataset, names)}")

    def _start(self, context: AnalysisContext) -> Dataset:
        names = matrix_names(self.matrices, self.normalized)
        attributes: Mapping[str, str | int | float] = {
            "kind": self.kind,
            **context.attributes(),
            "matrices": ", ".join(self.matrices),
            "normalized": int(self.normalized),
            "steps": self.steps,
            "start_vectors": self.start_vectors,
            "seed": self.seed,
            "width": self.width,
            "ridge": self.ridge,
        }
        found = matching_dataset(context.path, attributes)
        if found is not None:
            check_densities(context.path, found)
            return found
        fresh = new_densities(names, self.steps, self.start_vectors, attributes)
        return with_densities(fresh, self.width, self.ridge)

    def _complete(self, context: AnalysisContext, dataset: Dataset) -> Dataset:
        """Run Lanczos on rank 0, for what a file lacks; the other ranks compute their shares of products."""
        share = context.batches.share(context.rank, context.world_size)
        settings: dict[str, Any] = {"total": len(context.batches.targets), "loss": self.loss}
        settings["forward"] = context.twice_differentiable(self.speed)
        made = {name: MATRICES[name](context.network, share, **settings) for name in self.matrices}
        products = SharedProducts(context, made)
        size = next(iter(made.values())).size
        device = context.batches.inputs.device
        if device.type == "mps" or 4 * size * self.steps * self.lockstep > self.basis_gib * _GIB:
            device = torch.device("cpu")
        support, scale = _support(context), filter_scale(context.network)

        def algorithm() -> Dataset:
            current = dataset.copy(deep=True)
            write_dataset(context.path, current)  # a file that cannot be written fails here
            for name in current["matrix"].values.tolist():
                pending = pending_vectors(current, name)
                for first in range(0, len(pending), self.lockstep):
                    vectors = pending[first : first + self.lockstep]
                    found = lanczos_quadrature(
                        partial(products.multiply, name.removeprefix(NORMALIZED)),
                        support,
                        vectors,
                        steps=self.steps,
                        seed=self.seed,
                        scale=scale if name.startswith(NORMALIZED) else None,
                        device=device,
                    )
                    put_quadrature(current, name, vectors, found)
                    current = with_densities(current, self.width, self.ridge)
                    write_dataset(context.path, current)
            return current

        count = self.steps * int((dataset["done"] == 0).sum())
        context.say(f"spectral density of {size:,} parameters: {count} products at most")
        return products.run(algorithm)


def _support(context: AnalysisContext) -> Bool[np.ndarray, " size"]:
    """Which entries of the live parameters the loss in evaluation mode depends on."""
    used = set(context.parameter_names)
    return np.concatenate(
        [
            np.full(parameter.numel(), name in used)
            for name, parameter in context.network.named_parameters()
            if parameter.requires_grad
        ]
    )


def _in_words(dataset: Dataset, names: Sequence[str]) -> str:
    """The moments, and what a reader must know about the start vectors."""
    words = []
    for name in names:
        moments = []
        for moment in MOMENTS:
            value, error = (float(dataset[f"{name}_{moment}{end}"]) for end in ("", "_standard_error"))
            moments.append(f"{moment.replace('_', ' ')} {value:.4g}" + f" ± {error:.2g}" * (error == error))
        words.append(f"{name.replace('_', ' ')}: {', '.join(moments)}")
    ended = int(dataset["invariant"].sum())
    if ended:
        words.append(
            f"Lanczos found an invariant subspace from {ended} of {dataset['done'].size} start vectors, in"
            " fewer steps, and used it"
        )
    if not np.isfinite(dataset["node"].values[:, :, 0]).all():
        words.append("the loss at w* or a gradient is not finite")
    return "; ".join(words)


def _figure(dataset: Dataset) -> Figure:
    title, note = str(dataset.attrs["title"]), shared_note([file_facts(dataset)])
    return draw_densities([read_density_panels(dataset)], title=title, note=note)
