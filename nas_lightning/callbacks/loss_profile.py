"""The loss along random directions from the trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from nas_lightning.analysis import (
    DIRECTION_SEEDS,
    Directions,
    HessianProduct,
    ProfileSurface,
    Surface,
    count_classes,
    new_profile,
    profile_directions,
    profile_scalars,
    second_derivative,
)
from nas_lightning.analysis.trial import check_second_derivative
from nas_lightning.callbacks.context import AnalysisContext, DataArray, Dataset
from nas_lightning.callbacks.loss_contour import LossSurface
from nas_lightning.callbacks.point_analysis import MeasurePoint
from nas_lightning.callbacks.shared_products import SharedProducts
from nas_lightning.figures import (
    draw_profiles,
    file_facts,
    finished_losses,
    profile_curve,
    read_curvature,
    shared_note,
)

_CURVATURE = "second_derivative"
_BATCH_SIZE = 40
"""Images in a batch of a product with the Hessian, at most: it needs several times a pass's memory."""


class LossProfile(LossSurface):
    """Loss and accuracy at w* + r d as functions of the radius r, for random directions d.

    One direction a seed, normalised filter by filter, so that the scale of weights before a batch norm does
    not change the curve. It costs as many points as radii and seeds together, a small part of a plane's.

    At r = 0 the second derivative of the mean over all directions is known in closed form, and estimated
    without a direction: how sharp the loss is at w* itself. It is that of the function with the running
    statistics of w*, so that ``batch_norm="reestimated"`` leaves it out, as does a module without second
    derivatives.

    Args:
        resolution: Number of radii, from 0 to the extent, evenly spaced; at least 2.
        extent: Largest radius; 1 moves every filter by its own norm.
        direction_seeds: Seeds of the directions: the curve is their mean, with its standard error.
        curvature_samples: Random vectors that estimate the second derivative at r = 0, one product with the
            Hessian each; 0 leaves it out. See :func:`nas_lightning.analysis.second_derivative`.
        settings: As for :class:`LossSurface` and :class:`nas_lightning.callbacks.analysis.Analysis`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind = "loss_profile"
    headline = ("mean_rise", "one_nat_radius", "second_derivative")

    def __init__(
        self,
        resolution: int = 11,
        extent: float = 1.0,
        direction_seeds: Sequence[int] = DIRECTION_SEEDS,
        curvature_samples: int = 10,
        **settings: Any,
    ) -> None:
        super().__init__(
            resolution, extent=(0.0, extent), direction_seeds=direction_seeds, orthogonal=False, **settings
        )
        if not 0 <= curvature_samples <= 10**6:
            raise ValueError(f"`curvature_samples` (={curvature_samples}) must be from 0 to 1000000")
        self.curvature_samples = curvature_samples

    def prepare(self, context: AnalysisContext) -> dict[int, Directions]:
        """The direction of every seed."""
        names = context.parameter_names
        return {
            seed: profile_directions(context.network, seed, self.normalization, names)
            for seed in self.direction_seeds
        }

    def start(self, context: AnalysisContext, prepared: Mapping[int, Directions]) -> Surface:
        """The profile that the file holds, or a new one; on rank 0."""
        attributes = {
            **context.attributes(),
            "normalization": self.normalization,
            "num_classes": count_classes(context.network, context.batches, self.loss),
            **self.own_attributes(),
        }
        fresh = new_profile(self.steps, self.direction_seeds, attributes, self.loss)
        return ProfileSurface.resume_or_create(context.path, fresh)

    @contextmanager
    def at_points(
        self, context: AnalysisContext, prepared: Mapping[int, Directions], surface: Surface
    ) -> Iterator[MeasurePoint]:
        """Estimate the curvature at w*, all ranks together; then a point is a pass over the images."""
        if self._lacks_curvature(surface.dataset) and self.batch_norm == "frozen":
            surface.attach(self._curvature(context))
        with super().at_points(context, prepared, surface) as measure:
            yield measure

    def _lacks_curvature(self, dataset: Dataset) -> bool:
        known = dataset[_CURVATURE].attrs["samples"] if _CURVATURE in dataset else 0
        return self.curvature_samples not in (0, int(known))

    def _curvature(self, context: AnalysisContext) -> dict[str, DataArray]:
        """The second derivative at w* and its standard error; nothing where the loss has none."""
        import xarray as xr

        network, batches = context.network, context.batches
        try:
            check_second_derivative(network, *context.few_samples(), self.loss)
        except ValueError as error:
            context.say(f"{context.path}: no second derivative at w*: {error}")
            return {}
        small = replace(batches, batch_size=min(batches.batch_size, _BATCH_SIZE))
        share = small.share(context.rank, context.world_size)
        settings: dict[str, Any] = {"loss": self.loss, "forward": context.twice_differentiable(self.speed)}
        product = HessianProduct(network, share, total=len(batches.targets), **settings)
        products = SharedProducts(context, {"hessian": product})
        found = products.run(
            lambda: second_derivative(
                *(network, batches, self.curvature_samples),
                normalization=self.normalization,
                product=partial(products.multiply, "hessian"),
            )
        )
        text = "second derivative of the mean loss over random directions in the radius, at w*"
        names = {_CURVATURE: text, f"{_CURVATURE}_standard_error": f"standard error of the {text}"}
        units = {"units": "nat" if self.loss is None else "1", "samples": self.curvature_samples}
        return {
            name: xr.DataArray(value, attrs={"long_name": long_name, **units})
            for (name, long_name), value in zip(names.items(), found, strict=True)
        }

    def scalars(self, dataset: Dataset) -> Dataset:
        """How far the loss rises, see :func:`nas_lightning.analysis.profile_scalars`; its curvature at w*."""
        known = [name for name in (_CURVATURE, f"{_CURVATURE}_standard_error") if name in dataset]
        return profile_scalars(ProfileSurface(dataset).curves).merge(dataset[known])

    def figures(self, surface: Surface) -> dict[str, Figure]:
        """The mean over the directions with a band of its standard error."""
        assert isinstance(surface, ProfileSurface)
        profile = surface.curves
        losses = finished_losses(profile)
        if not len(losses):
            return {}
        title = str(profile.attrs["title"])
        curve = profile_curve([losses], profile["radius"].values, title, curvature=read_curvature(profile))
        return {"landscape/loss_profile": draw_profiles([curve], note=shared_note([file_facts(profile)]))}
