"""What is measured of trained weights, on any module: losses, gradient variance, curvature, paths."""

from nas_lightning.analysis.barrier import Barrier, barrier, barrier_scalars
from nas_lightning.analysis.block_curvature import block_eigenvalues, parameter_blocks
from nas_lightning.analysis.confusion import balanced_accuracy, most_confused
from nas_lightning.analysis.curvature_map import (
    curvature_at_points,
    curvature_map,
    curvature_scalars,
    curvature_variables,
)
from nas_lightning.analysis.curvature_products import CurvatureProduct, GaussNewtonProduct, HessianProduct
from nas_lightning.analysis.curve_surface import CurveSurface
from nas_lightning.analysis.directions import (
    Directions,
    cosine,
    random_direction,
    random_directions,
)
from nas_lightning.analysis.evaluation import Forward, Loss
from nas_lightning.analysis.filters import direction_scale, filter_scale
from nas_lightning.analysis.gradient_variance import (
    BatchSums,
    GradientStatistics,
    estimate_statistics,
    gradient_statistics,
    gradient_variance_surface,
    sum_gradients,
    variance_at_points,
    variance_variables,
)
from nas_lightning.analysis.grid import axis, check_seeds
from nas_lightning.analysis.hessian import HessianSpectrum, hessian_eigenvalues
from nas_lightning.analysis.interpolation import (
    InterpolationSurface,
    check_ends,
    distance_between,
    interpolated,
    loss_interpolation,
    losses_between,
    new_interpolation,
    path_positions,
    path_scalars,
    statistics_of,
)
from nas_lightning.analysis.loss import (
    LOSS_VARIABLES,
    estimate_running_statistics,
    evaluate,
    loss_at_points,
    loss_surface,
    loss_variables,
)
from nas_lightning.analysis.loss_line import LineSurface, line_scalars, loss_line, losses_along, new_line
from nas_lightning.analysis.loss_profile import (
    DIRECTION_SEEDS,
    ProfileSurface,
    count_classes,
    loss_profile,
    new_profile,
    profile_directions,
    profile_scalars,
    read_profile,
)
from nas_lightning.analysis.mode_connectivity import (
    PathSurface,
    connectivity_scalars,
    losses_on_paths,
    mode_connectivity,
    new_paths,
)
from nas_lightning.analysis.per_sample_gradients import PerSampleGradients
from nas_lightning.analysis.second_derivative import second_derivative
from nas_lightning.analysis.spectral_density import (
    MATRICES,
    MOMENTS,
    Density,
    Quadrature,
    density_of,
    lanczos_quadrature,
    moments_of,
    spectral_density,
)
from nas_lightning.analysis.split_losses import losses_of_splits, split_variables
from nas_lightning.analysis.stored_weights import CheckpointWeights, StoredWeights
from nas_lightning.analysis.surface import Point, Surface, finest_lattice, measure_pending, read_surface
from nas_lightning.analysis.surface_scalars import loss_scalars, spread, variance_scalars
from nas_lightning.analysis.tangent_kernel import sum_squared_logit_gradients, tangent_kernel_trace
from nas_lightning.analysis.trajectory import (
    NoPlaneError,
    TrajectoryPlane,
    plane_axes,
    plane_directions,
    trajectory_plane,
)
from nas_lightning.analysis.trajectory_surface import (
    checkpoint_variables,
    trajectory_scalars,
    trajectory_surface,
    trajectory_variables,
    visited,
)

__all__ = [
    "DIRECTION_SEEDS",
    "LOSS_VARIABLES",
    "MATRICES",
    "MOMENTS",
    "Barrier",
    "BatchSums",
    "CheckpointWeights",
    "CurvatureProduct",
    "CurveSurface",
    "Density",
    "Directions",
    "Forward",
    "GaussNewtonProduct",
    "GradientStatistics",
    "HessianProduct",
    "HessianSpectrum",
    "InterpolationSurface",
    "LineSurface",
    "Loss",
    "NoPlaneError",
    "PathSurface",
    "PerSampleGradients",
    "Point",
    "ProfileSurface",
    "Quadrature",
    "StoredWeights",
    "Surface",
    "TrajectoryPlane",
    "axis",
    "balanced_accuracy",
    "barrier",
    "barrier_scalars",
    "block_eigenvalues",
    "check_ends",
    "check_seeds",
    "checkpoint_variables",
    "connectivity_scalars",
    "cosine",
    "count_classes",
    "curvature_at_points",
    "curvature_map",
    "curvature_scalars",
    "curvature_variables",
    "density_of",
    "direction_scale",
    "distance_between",
    "estimate_running_statistics",
    "estimate_statistics",
    "evaluate",
    "filter_scale",
    "finest_lattice",
    "gradient_statistics",
    "gradient_variance_surface",
    "hessian_eigenvalues",
    "interpolated",
    "lanczos_quadrature",
    "line_scalars",
    "loss_at_points",
    "loss_interpolation",
    "loss_line",
    "loss_profile",
    "loss_scalars",
    "loss_surface",
    "loss_variables",
    "losses_along",
    "losses_between",
    "losses_of_splits",
    "losses_on_paths",
    "measure_pending",
    "mode_connectivity",
    "moments_of",
    "most_confused",
    "new_interpolation",
    "new_line",
    "new_paths",
    "new_profile",
    "parameter_blocks",
    "path_positions",
    "path_scalars",
    "plane_axes",
    "plane_directions",
    "profile_directions",
    "profile_scalars",
    "random_direction",
    "random_directions",
    "read_profile",
    "read_surface",
    "second_derivative",
    "spectral_density",
    "split_variables",
    "spread",
    "statistics_of",
    "sum_gradients",
    "sum_squared_logit_gradients",
    "tangent_kernel_trace",
    "trajectory_plane",
    "trajectory_scalars",
    "trajectory_surface",
    "trajectory_variables",
    "variance_at_points",
    "variance_scalars",
    "variance_variables",
    "visited",
]
