"""The loss along random directions from the trained weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from nas_lightning.analysis import (
    DIRECTION_SEEDS,
    Directions,
    ProfileSurface,
    Surface,
    count_classes,
    new_profile,
    profile_directions,
    profile_scalars,
)
from nas_lightning.callbacks.context import AnalysisContext, Dataset
from nas_lightning.callbacks.loss_contour import LossSurface
from nas_lightning.figures import (
    draw_profiles,
    file_facts,
    finished_losses,
    profile_curve,
    shared_note,
)


class LossProfile(LossSurface):
    """Loss and accuracy at w* + r d as functions of the radius r, for random directions d.

    One direction a seed, normalised filter by filter, so that the scale of weights before a batch norm does
    not change the curve. It costs as many points as radii and seeds together, a small part of a plane's.

    Args:
        resolution: Number of radii, from 0 to the extent, evenly spaced; at least 2.
        extent: Largest radius; 1 moves every filter by its own norm.
        direction_seeds: Seeds of the directions: the curve is their mean, with its standard error.
        settings: As for :class:`LossSurface` and :class:`nas_lightning.callbacks.analysis.Analysis`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind = "loss_profile"
    headline = ("mean_rise", "one_nat_radius")

    def __init__(
        self,
        resolution: int = 11,
        extent: float = 1.0,
        direction_seeds: Sequence[int] = DIRECTION_SEEDS,
        **settings: Any,
    ) -> None:
        super().__init__(
            resolution, extent=(0.0, extent), direction_seeds=direction_seeds, orthogonal=False, **settings
        )

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

    def scalars(self, dataset: Dataset) -> Dataset:
        """How far the loss rises; see :func:`nas_lightning.analysis.profile_scalars`."""
        return profile_scalars(ProfileSurface(dataset).curves)

    def figures(self, surface: Surface) -> dict[str, Figure]:
        """The mean over the directions with a band of its standard error."""
        assert isinstance(surface, ProfileSurface)
        profile = surface.curves
        losses = finished_losses(profile)
        if not len(losses):
            return {}
        title = str(profile.attrs["title"])
        curve = profile_curve([losses], profile["radius"].values, title)
        return {"landscape/loss_profile": draw_profiles([curve], note=shared_note([file_facts(profile)]))}
