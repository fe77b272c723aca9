"""What the paper measures at convergence, on any module: loss contours, gradient variance, curvature."""

from nas_lightning.analysis.directions import (
    Directions,
    cosine,
    random_direction,
    random_directions,
)
from nas_lightning.analysis.gradient_variance import (
    GradientStatistics,
    estimate_statistics,
    gradient_statistics,
    gradient_variance_surface,
    sum_gradients,
    variance_measure,
    variance_variables,
)
from nas_lightning.analysis.grid import axis, check_seeds
from nas_lightning.analysis.hessian import HessianProduct, HessianSpectrum, hessian_eigenvalues
from nas_lightning.analysis.instance_gradients import InstanceGradients
from nas_lightning.analysis.loss import LOSS_VARIABLES, evaluate, loss_measure, loss_surface
from nas_lightning.analysis.scalars import loss_scalars, spread, variance_scalars
from nas_lightning.analysis.surface import Point, Surface, fill
from nas_lightning.analysis.surface_file import read_surface

__all__ = [
    "LOSS_VARIABLES",
    "Directions",
    "GradientStatistics",
    "HessianProduct",
    "HessianSpectrum",
    "InstanceGradients",
    "Point",
    "Surface",
    "axis",
    "check_seeds",
    "cosine",
    "estimate_statistics",
    "evaluate",
    "fill",
    "gradient_statistics",
    "gradient_variance_surface",
    "hessian_eigenvalues",
    "loss_measure",
    "loss_scalars",
    "loss_surface",
    "random_direction",
    "random_directions",
    "read_surface",
    "spread",
    "sum_gradients",
    "variance_measure",
    "variance_scalars",
    "variance_variables",
]
