"""Pictures: functions that take arrays or cells and return a matplotlib ``Figure``. Never pyplot."""

from nas_lightning.figures.accuracy import AccuracyPanel, draw_accuracy
from nas_lightning.figures.block_curvature import BlockCurvatures, draw_block_curvature, read_block_curvature
from nas_lightning.figures.cell import CellDrawing, draw_cell, draw_cells
from nas_lightning.figures.confusion import draw_confusion_matrix
from nas_lightning.figures.connectivity import draw_connectivity
from nas_lightning.figures.curves import Curve, CurvePanel, draw_curves
from nas_lightning.figures.effects import Effect, EffectPanel, draw_forest
from nas_lightning.figures.facts import file_facts, file_titles, shared_note
from nas_lightning.figures.landscape import LOSS_LEVELS, draw_loss_contours
from nas_lightning.figures.line import LineCurve, LinePanel, draw_lines
from nas_lightning.figures.line_files import draw_interpolations, draw_loss_lines, splits_of
from nas_lightning.figures.picture import figure_to_array, figure_to_bytes, picture_format, write_figure
from nas_lightning.figures.profile import (
    draw_profiles,
    finished_losses,
    profile_curve,
    read_curvature,
)
from nas_lightning.figures.spectral_density import (
    DensityCurve,
    DensityPanel,
    draw_densities,
    draw_density_grid,
    read_density_panels,
)
from nas_lightning.figures.spectrum import draw_spectrum
from nas_lightning.figures.spread import SurfaceSpread, draw_spread
from nas_lightning.figures.surface import ReadSurface, SurfacePanel, read_surface_panel
from nas_lightning.figures.surface3d import draw_surfaces
from nas_lightning.figures.trajectory import (
    TrajectoryPanel,
    TrajectoryPath,
    draw_trajectories,
    read_trajectory_panel,
    write_trajectory_animation,
)
from nas_lightning.figures.variance import draw_heat_maps
from nas_lightning.figures.variance_by_node import VarianceSplit, draw_variance_by_node, read_variance_split
from nas_lightning.figures.width_depth import WidthDepthPlane, draw_width_depth

__all__ = [
    "LOSS_LEVELS",
    "AccuracyPanel",
    "BlockCurvatures",
    "CellDrawing",
    "Curve",
    "CurvePanel",
    "DensityCurve",
    "DensityPanel",
    "Effect",
    "EffectPanel",
    "LineCurve",
    "LinePanel",
    "ReadSurface",
    "SurfacePanel",
    "SurfaceSpread",
    "TrajectoryPanel",
    "TrajectoryPath",
    "VarianceSplit",
    "WidthDepthPlane",
    "draw_accuracy",
    "draw_block_curvature",
    "draw_cell",
    "draw_cells",
    "draw_confusion_matrix",
    "draw_connectivity",
    "draw_curves",
    "draw_densities",
    "draw_density_grid",
    "draw_forest",
    "draw_heat_maps",
    "draw_interpolations",
    "draw_lines",
    "draw_loss_contours",
    "draw_loss_lines",
    "draw_profiles",
    "draw_spectrum",
    "draw_spread",
    "draw_surfaces",
    "draw_trajectories",
    "draw_variance_by_node",
    "draw_width_depth",
    "figure_to_array",
    "figure_to_bytes",
    "file_facts",
    "file_titles",
    "finished_losses",
    "picture_format",
    "profile_curve",
    "read_block_curvature",
    "read_curvature",
    "read_density_panels",
    "read_surface_panel",
    "read_trajectory_panel",
    "read_variance_split",
    "shared_note",
    "splits_of",
    "write_figure",
    "write_trajectory_animation",
]
