"""A figure as pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def figure_to_array(figure: Figure, dots_per_inch: float = 150) -> UInt8[np.ndarray, "height width 3"]:
    """Render a figure.

    Args:
        figure: The figure.
        dots_per_inch: Resolution.

    Returns:
        Red, green and blue, 0 to 255.
    """
    figure.set_dpi(dots_per_inch)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return pixels[..., :3].copy()
