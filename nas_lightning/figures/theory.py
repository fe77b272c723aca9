"""Bounds of theorems 4.2 and 4.3 against measurements in random linear cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from nas_lightning.figures.picture import settle

# Okabe and Ito's palette without colours near the vermilion of points beyond a bound.
_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#000000", "#8C8C8C")
_MARKERS = ("o", "^", "s", "D", "v", "p", "h")
_BEYOND_COLOUR = "#D55E00"
_BEYOND_MARKER = "X"
_LINE_COLOUR = "#4D4D4D"
_PRODUCT_LABEL = r"product of the other spectral norms, $\prod_{j\neq i}\,\lambda^{(j)}$"
_QUANTITIES = {"variance": "gradient variance", "constant": "Lipschitz constant"}
_ROUNDING = 1e-9
# Share of a logarithmic axis that stays free for the legend above the points.
_HEADROOM = 0.14


def draw_theory(variance: xr.Dataset, smoothness: xr.Dataset) -> Figure:
    """Draw bounds, measured values and spectral norms for both theorems and for the bound that holds.

    The left three columns show theorem 4.3, theorem 4.2 as printed and the corrected bound: above, measured
    value against bound, equal on the diagonal; below, their ratio against the product of the other matrices'
    spectral norms. The right column shows the narrowest cell divided by the widest, gradient variance above
    and Lipschitz constant below. Colour and shape tell the matrix W(i); vermilion crosses lie beyond the
    bound. Values that a logarithmic axis cannot show (zero, infinity, NaN) are counted in the panel.
    Gradient norms are spectral, as in the paper.

    Args:
        variance: Cases of theorem 4.3: ``node``, ``spectral_norm_product`` over case, ``variance``,
            ``widest_variance``, ``bound`` over (norm, case).
        smoothness: Cases of theorem 4.2: ``node``, ``spectral_norm_product``, ``constant``,
            ``widest_constant``, ``paper_bound``, ``corrected_bound`` over case.

    Raises:
        ValueError: If there are no cases.
    """
    if variance.sizes["case"] == 0 or smoothness.sizes["case"] == 0:
        raise ValueError("there must be at least one case to draw")
    spectral = variance.sel(norm="spectral")
    layout = ConstrainedLayoutEngine(hspace=0.06, wspace=0.06)
    figure = Figure(figsize=(17, 8.6), facecolor="white", layout=layout)
    panels = figure.subplots(2, 4)

    columns = (
        ("Theorem 4.3", "", spectral, "variance", "bound"),
        ("Theorem 4.2", " as printed", smoothness, "constant", "paper_bound"),
        ("Corrected bound", " for theorem 4.2", smoothness, "constant", "corrected_bound"),
    )
    for column, (title, rest, cases, measured, bound) in enumerate(columns):
        value, limit = cases[measured].to_numpy(), cases[bound].to_numpy()
        node, product = cases["node"].to_numpy(), cases["spectral_norm_product"].to_numpy()
        quantity = _QUANTITIES[measured]
        beyond = value > limit * (1 + _ROUNDING)
        above, below = panels[:, column]
        hidden = len(value) - _scatter(above, limit, value, node, beyond)
        _draw_diagonal(above)
        count = int(beyond.sum())
        text = f"beyond the bound: {count} of {len(value)} ({count / len(value):.0%})"
        text += f"; {hidden} not shown" if hidden else ""
        handle = _handle(_BEYOND_COLOUR, _BEYOND_MARKER, text)
        above.legend(handles=[handle], loc="upper left", fontsize=9, handletextpad=0.2, borderaxespad=0.3)
        _label(above, title + rest, f"bound on the {quantity}", f"{quantity}, narrowest cell")
        with np.errstate(divide="ignore", invalid="ignore"):
            _scatter(below, product, value / limit, node, beyond)
        below.axhline(1, color=_LINE_COLOUR, linewidth=1, zorder=1)
        _label(below, f"{title}: measured / bound", _PRODUCT_LABEL, "measured / bound")

    for axes, cases, name in ((panels[0, 3], spectral, "variance"), (panels[1, 3], smoothness, "constant")):
        quantity = _QUANTITIES[name]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = cases[name].to_numpy() / cases[f"widest_{name}"].to_numpy()
        product, node = cases["spectral_norm_product"].to_numpy(), cases["node"].to_numpy()
        _scatter(axes, product, ratio, node, np.zeros(len(ratio), dtype=bool))
        axes.axhline(1, color=_LINE_COLOUR, linewidth=1, zorder=1)
        title = f"{quantity[0].upper()}{quantity[1:]}: narrowest / widest"
        _label(axes, title, _PRODUCT_LABEL, "narrowest cell / widest cell")

    nodes = np.union1d(spectral["node"], smoothness["node"]).tolist()
    handles = [
        *(_handle(*_look(node), f"$W^{{({node})}}$") for node in nodes),
        _handle(_BEYOND_COLOUR, _BEYOND_MARKER, "beyond the bound, any matrix"),
        Line2D([], [], color=_LINE_COLOUR, linewidth=1, label="measured = bound; narrowest = widest"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 9), frameon=False)
    return settle(figure)


def _scatter(
    axes: Axes,
    x: Float[np.ndarray, " case"],
    y: Float[np.ndarray, " case"],
    node: Int[np.ndarray, " case"],
    beyond: Bool[np.ndarray, " case"],
) -> int:
    """Points on logarithmic axes; returns how many could be shown."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())  # ten powers of ten leave no room for marks between them
    visible = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    for i in np.unique(node).tolist():
        chosen = visible & ~beyond & (node == i)
        colour, marker = _look(i)
        axes.scatter(x[chosen], y[chosen], s=14, color=colour, marker=marker, alpha=0.55, linewidths=0)
    chosen = visible & beyond
    cross: dict[str, Any] = {"s": 22, "color": _BEYOND_COLOUR, "marker": _BEYOND_MARKER, "zorder": 3}
    axes.scatter(x[chosen], y[chosen], edgecolors="black", linewidths=0.25, **cross)
    return int(visible.sum())


def _draw_diagonal(axes: Axes) -> None:
    """One range for both axes, and the line on which both are equal."""
    low = min(axes.get_xlim()[0], axes.get_ylim()[0])
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    high *= (high / low) ** _HEADROOM
    axes.plot([low, high], [low, high], color=_LINE_COLOUR, linewidth=1, zorder=1)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=11.5, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)


def _handle(colour: str, marker: str, label: str) -> Line2D:
    edge = "black" if marker == _BEYOND_MARKER else colour
    style: dict[str, Any] = {"linestyle": "", "markersize": 7, "markeredgecolor": edge}
    return Line2D([], [], color=colour, marker=marker, label=label, **style)


def _look(node: int) -> tuple[str, str]:
    """Colour and marker of matrix W(i)."""
    return _COLOURS[(node - 1) % len(_COLOURS)], _MARKERS[(node - 1) % len(_MARKERS)]
