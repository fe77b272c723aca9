"""The ends of a Hessian's spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from nas_lightning.figures.picture import TICK_POINTS, label_axes, new_figure, open_axes, settle

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_LARGEST_COLOUR = "#0072B2"
_SMALLEST_COLOUR = "#D55E00"


def draw_spectrum(
    eigenvalues: Float[np.ndarray, " largest"],
    residuals: Float[np.ndarray, " largest"],
    *,
    smallest: Float[np.ndarray, " smallest"] | None = None,
    smallest_residuals: Float[np.ndarray, " smallest"] | None = None,
    trace: float | None = None,
    trace_error: float | None = None,
    converged: bool = True,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw the largest and the smallest eigenvalues of the Hessian, with error bars.

    The Hessian H is symmetric, so one of its eigenvalues lies within ``||H v - lambda v||``, the residual, of
    every computed lambda with unit vector v (Golub and Van Loan, Matrix Computations, section 8.1): the bars.

    Args:
        eigenvalues: The k largest, descending.
        residuals: Their residuals.
        smallest: The smallest, ascending.
        smallest_residuals: Their residuals.
        trace: Trace of the Hessian, or its estimate; NaN if there is none.
        trace_error: Standard error of the estimate.
        converged: Whether the eigenvalues are final; the picture says so if not.
        title: Title of the picture.
        note: Stands below the picture in small letters.
    """
    figure = new_figure(5.0, 3.4)
    axes = figure.add_subplot()
    low = np.empty(0) if smallest is None else smallest[::-1]
    low_residuals = np.zeros(len(low)) if smallest_residuals is None else smallest_residuals[::-1]
    gap = 1 if len(low) else 0  # between them lie all the other eigenvalues
    groups = (
        (np.arange(len(eigenvalues)), eigenvalues, residuals, _LARGEST_COLOUR, "o", "largest"),
        (len(eigenvalues) + gap + np.arange(len(low)), low, low_residuals, _SMALLEST_COLOUR, "s", "smallest"),
    )
    axes.axhline(0, color="#7F7F7F", linewidth=0.8)
    for places, values, errors, colour, marker, label in groups:
        finite = np.isfinite(values)
        if finite.any():
            bars: dict[str, Any] = {"ecolor": "black", "capsize": 4, "elinewidth": 1.0, "markersize": 5}
            bars["yerr"] = np.where(np.isfinite(errors[finite]), errors[finite], 0.0)
            axes.vlines(places[finite], 0, values[finite], color=colour, linewidth=1.4)
            axes.errorbar(places[finite], values[finite], fmt=marker, color=colour, label=label, **bars)
        for place in places[~finite]:
            above: dict[str, Any] = {"textcoords": "offset points", "ha": "center"}
            axes.annotate("NaN", (place, 0), (0, 3), fontsize=TICK_POINTS, **above)
    names = [f"λ{str(index + 1).translate(_SUBSCRIPTS)}" for index in range(len(eigenvalues))]
    names += ["…"] * gap + [
        f"λₙ₋{str(count).translate(_SUBSCRIPTS)}" if count else "λₙ" for count in reversed(range(len(low)))
    ]
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="x", length=0)
    open_axes(axes, hidden="top right bottom")
    lines = [title] if title else []
    if trace is not None and not np.isnan(trace):
        error = f" ± {trace_error:.2g}" if trace_error is not None and trace_error > 0 else ""
        lines.append(f"trace {trace:.4g}{error}")
    if not converged:
        lines.append("(not converged)")
    label_axes(axes, "\n".join(lines), "", "eigenvalue of the Hessian")
    if len(low) and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=TICK_POINTS, frameon=False)
    return settle(figure, note=note)
