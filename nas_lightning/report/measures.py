"""Which columns of the results measure which claim, and in what direction."""

from __future__ import annotations

from dataclasses import dataclass

PREDICTORS = {
    "width": "width",
    "depth": "small depth",
    "kind": "connections against operations",
    "adaptation": "adapted against original cells",
}
"""What a measure is compared with, in words, by a claim's ``predictor``."""


@dataclass(frozen=True)
class Measure:
    """A column that measures a claim.

    Attributes:
        key: Name of the claim.
        column: Column of Results.runs.
        name: What it is, in words.
        unit: Its unit in print, empty for pure numbers.
        larger: Whether the claim (for generalisation: its opposite) predicts larger values for wide and
            shallow cells.
        primary: Whether it decides the claim.
        censored: Whether a missing value means "never reached".
    """

    key: str
    column: str
    name: str
    unit: str
    larger: bool
    primary: bool = False
    censored: bool = False


MEASURES: tuple[Measure, ...] = (
    # Cut at chance level: one wild epoch of an unstable run would else outweigh the whole training.
    Measure(
        "convergence",
        "area_under_loss_clipped",
        "mean test loss over the training (cut at chance level)",
        "nat",
        False,
        True,
    ),
    Measure("convergence", "mean_error", "mean test error over the training", "", False),
    *(
        Measure(
            "convergence",
            f"epochs_to_accuracy_{share}",
            f"number of epochs to {round(100 * float(share))} % accuracy",
            "epochs",
            False,
            censored=True,
        )
        for share in ("0.5", "0.8", "0.9", "0.95")
    ),
    Measure("convergence", "oscillation_loss", "oscillation of the test loss", "nat", False),
    Measure("convergence", "oscillation_accuracy", "oscillation of the test accuracy", "", False),
    Measure("landscape", "loss_contour.near_convex_radius", "near-convex radius", "", True, True),
    Measure("landscape", "loss_contour.near_convex_share", "near-convex share of the square", "", True),
    Measure(
        "landscape", "loss_contour.curvature_center_max", "largest curvature at the optimum", "nat", False
    ),
    Measure("landscape", "loss_contour.curvature_mean", "mean curvature", "nat", False),
    Measure("landscape", "hessian_spectrum.largest_eigenvalue", "largest Hessian eigenvalue", "nat", False),
    Measure(
        "gradient_variance", "gradient_variance.center_variance", "gradient variance", "nat²", False, True
    ),
    Measure("gradient_variance", "gradient_variance.center_noise_scale", "gradient noise scale", "", False),
    Measure(
        "gradient_variance",
        "gradient_variance.standard_deviation_center",
        "standard deviation of the gradient",
        "nat",
        False,
    ),
    Measure("generalization", "final_accuracy", "final test accuracy", "", True, True),
)
"""Measures of claims about width and depth."""

SPREADS: tuple[Measure, ...] = (
    Measure(
        "operations",
        "area_under_loss_clipped",
        "mean test loss over the training (cut at chance level)",
        "nat",
        False,
        True,
    ),
    Measure("operations", "mean_error", "mean test error over the training", "", False),
)
"""Measures of the claim about operations."""

PAIRED_ERROR = Measure("generalization", "final_error_percent", "final test error", "%", False, True)
"""What table 1 compares between original and adapted cells."""
