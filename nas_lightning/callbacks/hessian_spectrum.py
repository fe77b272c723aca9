"""The ends of the Hessian's spectrum at the trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nas_lightning.analysis import HessianProduct, filter_scale, hessian_eigenvalues
from nas_lightning.analysis import HessianSpectrum as Spectrum
from nas_lightning.analysis.trial import check_second_derivative
from nas_lightning.callbacks.analysis import Analysis
from nas_lightning.callbacks.context import AnalysisContext, Dataset
from nas_lightning.callbacks.shared_products import SharedProducts
from nas_lightning.figures import draw_spectrum, file_facts, shared_note
from nas_lightning.netcdf import matching_dataset, write_dataset

_NORMALIZED = "normalized_largest_eigenvalue"
_SPECTRUM = frozenset({"eigenvalue", "smallest_eigenvalue", "trace"})


class HessianSpectrum(Analysis):
    """Largest and smallest eigenvalues and trace of the Hessian H of the mean loss at w*.

    The scale of weights before a batch norm changes them and not the function. The normalised largest
    eigenvalue, that of D H D with D = diag(||w_u|| / sqrt(n_u)) over the filters u of n_u weights and 0 for
    biases and batch norm, stays.

    One product with the Hessian costs about two gradients over the images, of a module without cells four;
    the ranks share the images of every product. Lanczos needs some tens to hundreds of products.

    Args:
        k: How many of the largest eigenvalues.
        smallest: How many of the smallest.
        trace_samples: How many random vectors estimate the trace; 0 leaves it out.
        tolerance: Relative residual at which Lanczos stops.
        max_products: Upper bound, about, on the products of each of the two Lanczos runs.
        seed: Of the start vector and the random vectors.
        normalized: Whether to find the normalised largest eigenvalue, by a Lanczos run of its own.
        batch_size: Images in a batch; a product needs several times the memory of a training step.
        settings: As for :class:`nas_lightning.callbacks.analysis.Analysis`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind = "hessian_spectrum"

    def __init__(
        self,
        k: int = 5,
        smallest: int = 1,
        trace_samples: int = 10,
        tolerance: float = 1e-3,
        max_products: int = 300,
        seed: int = 0,
        normalized: bool = True,
        batch_size: int = 40,
        **settings: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **settings)
        self.settings: dict[str, int | float] = {
            "k": k,
            "smallest": smallest,
            "trace_samples": trace_samples,
            "tolerance": tolerance,
            "max_products": max_products,
            "seed": seed,
        }
        self.normalized = normalized
        for key, value in self.settings.items():
            least = 1 if key in ("k", "max_products") else 0
            if key != "tolerance" and not least <= value <= 10**6:
                raise ValueError(f"`{key}` (={value}) must be from {least} to 1000000")
        if not 0 < tolerance < 1:
            raise ValueError(f"`tolerance` (={tolerance}) must be above 0 and below 1")

    def rehearse(self, context: AnalysisContext) -> None:
        """Refuse more eigenvalues than there are parameters, and a loss without a second derivative."""
        super().rehearse(context)
        check_second_derivative(context.network, *context.few_samples(), self.loss)
        size = sum(context.network.get_parameter(name).numel() for name in context.parameter_names)
        if self.settings["k"] + self.settings["smallest"] > size:
            raise ValueError(
                f"`k` (={self.settings['k']}) and `smallest` (={self.settings['smallest']}) ask for more"
                f" eigenvalues than the {size} of the network's live parameters"
            )

    def measure(self, context: AnalysisContext) -> None:
        """Find the spectrum, unless the file holds it, write and log it."""
        attributes = context.on_rank_zero(
            lambda: {"kind": self.kind, **context.attributes(), **self.settings}
        )
        dataset = context.on_rank_zero(lambda: matching_dataset(context.path, attributes))
        if dataset is None or self._wanted() - set(dataset.variables):
            dataset = self._complete(context, attributes, dataset)
        numbers = {
            "hessian_largest_eigenvalue": float(dataset["eigenvalue"][0]),
            "hessian_trace": float(dataset["trace"]),
        }
        if self.normalized:
            numbers["hessian_normalized_largest_eigenvalue"] = float(dataset[_NORMALIZED])
        if dataset.sizes["smallest_rank"]:
            numbers["hessian_smallest_eigenvalue"] = float(dataset["smallest_eigenvalue"][0])
        context.log_scalars({f"landscape/{name}": value for name, value in numbers.items()})
        context.log_figures(lambda: {"landscape/hessian_spectrum": _figure(dataset)})
        words = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in numbers.items())
        end = "" if dataset["converged"] else " (not converged: see the residuals, raise `max_products`)"
        if not np.isfinite(dataset["eigenvalue"][0]):
            end = " (the loss at w* or a gradient is not finite)"
        context.say(f"{context.path}: {words}{end}")

    def _wanted(self) -> frozenset[str]:
        return _SPECTRUM | {"center_loss"} | ({_NORMALIZED} if self.normalized else set())

    def _complete(
        self, context: AnalysisContext, attributes: Mapping[str, str | int | float], dataset: Dataset | None
    ) -> Dataset:
        """Run Lanczos on rank 0, for what a file lacks; the other ranks compute their shares of products."""
        if dataset is not None and _SPECTRUM - set(dataset.variables):
            raise ValueError(f"{context.path} is damaged: it lacks eigenvalues or the trace")
        share = context.batches.share(context.rank, context.world_size)
        total = len(context.batches.targets)
        forward = context.twice_differentiable(self.speed)
        product = HessianProduct(context.network, share, total=total, loss=self.loss, forward=forward)
        products = SharedProducts(context, {"hessian": product})
        loss = products.loss()

        def spectrum() -> Dataset:
            settings: dict[str, Any] = {**self.settings, "product": partial(products.multiply, "hessian")}
            found = dataset
            if found is None:
                values = hessian_eigenvalues(context.network, context.batches, **settings)
                found = _as_dataset(values, attributes)
            if self.normalized and _NORMALIZED not in found.variables:
                settings |= {"k": 1, "smallest": 0, "trace_samples": 0}
                settings["scale"] = filter_scale(context.network)
                values = hessian_eigenvalues(context.network, context.batches, **settings)
                found = found.assign(_normalized(values))
            found = found.assign(center_loss=((), loss, {"long_name": "mean loss at w*", "units": "nat"}))
            write_dataset(context.path, found)
            return found

        context.say(f"Hessian of {product.size:,} parameters: Lanczos, some tens to hundreds of products")
        return products.run(spectrum)


def _normalized(spectrum: Spectrum) -> dict[str, tuple[tuple[()], float, dict[str, str]]]:
    """The largest eigenvalue of D H D and its residual."""
    name = "largest eigenvalue of the Hessian scaled by the filters' root mean squares"
    return {
        _NORMALIZED: ((), float(spectrum.eigenvalues[0]), {"long_name": name, "units": "nat"}),
        "normalized_residual": (
            (),
            float(spectrum.residuals[0]),
            {"long_name": "its residual", "units": "nat"},
        ),
    }


def _as_dataset(spectrum: Spectrum, attributes: Mapping[str, str | int | float]) -> Dataset:
    import xarray as xr

    curvature = {"units": "nat per squared weight"}
    variables = {
        "eigenvalue": ("rank", spectrum.eigenvalues, "largest eigenvalues of the Hessian", curvature),
        "residual": ("rank", spectrum.residuals, "||H v - lambda v||", curvature),
        "smallest_eigenvalue": ("smallest_rank", spectrum.smallest, "smallest eigenvalues", curvature),
        "smallest_residual": ("smallest_rank", spectrum.smallest_residuals, "their residuals", curvature),
        "trace": ((), spectrum.trace, "trace of the Hessian", curvature),
        "trace_standard_error": ((), spectrum.trace_standard_error, "its standard error", curvature),
        "products": ((), spectrum.products, "products with the Hessian", {"units": "1"}),
        "converged": ((), np.int8(spectrum.converged), "1 if Lanczos converged", {}),
    }
    return xr.Dataset(
        {
            name: (dims, values, {"long_name": long_name, **units})
            for name, (dims, values, long_name, units) in variables.items()
        },
        attrs=dict(attributes),
    )


def _figure(dataset: Dataset) -> Figure:
    return draw_spectrum(
        dataset["eigenvalue"].values,
        dataset["residual"].values,
        smallest=dataset["smallest_eigenvalue"].values,
        smallest_residuals=dataset["smallest_residual"].values,
        trace=float(dataset["trace"]),
        trace_error=float(dataset["trace_standard_error"]),
        converged=bool(dataset["converged"]),
        title=str(dataset.attrs["title"]),
        note=shared_note([file_facts(dataset)]),
    )
