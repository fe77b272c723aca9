"""Pictures: functions that take arrays or cells and return a matplotlib ``Figure``. Never pyplot."""

from nas_lightning.figures.cell import CellDrawing, draw_cell, draw_cells
from nas_lightning.figures.image import figure_to_array
from nas_lightning.figures.picture import figure_to_bytes, picture_format

__all__ = [
    "CellDrawing",
    "draw_cell",
    "draw_cells",
    "figure_to_array",
    "figure_to_bytes",
    "picture_format",
]
