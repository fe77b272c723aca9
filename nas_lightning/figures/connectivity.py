"""Loss and accuracy along a trained curve between two networks, and along the straight line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from nas_lightning.figures.facts import file_facts, shared_note
from nas_lightning.figures.line import LineCurve, LinePanel, draw_lines

if TYPE_CHECKING:
    import xarray as xr

POSITION = "position t between the networks"
"""Name of the horizontal axis."""
_PATHS = ("Bézier curve", "straight line")
_PANELS = (("loss", "loss (nat)"), ("accuracy", "accuracy"))


def draw_connectivity(paths: xr.Dataset, title: str = "", note: str | None = None) -> Figure:
    """Draw the loss and the accuracy of every split along the curve and along the straight line.

    Args:
        paths: ``SPLIT_loss`` and ``SPLIT_accuracy`` over (path, position) with ``done``; path 0 is the curve.
            What is not measured yet is left out.
        title: Title of the figure; that of the file, the genotype, where it is empty.
        note: Stands below the figure; None is what the file says of data, images and training.

    Raises:
        ValueError: If no point is measured.
    """
    done = paths["done"].transpose("path", "position").values.astype(bool)
    panels = []
    for kind, label in _PANELS:
        names = [str(name) for name in paths.data_vars if str(name).endswith(f"_{kind}")]
        names = [name for name in names if "position" in paths[name].dims]
        curves = [
            LineCurve(
                path,
                name.removesuffix(f"_{kind}"),
                paths["position"].values[done[row]],
                paths[name].transpose("path", "position").values[row : row + 1, done[row]],
            )
            for row, path in enumerate(_PATHS)
            if done[row].any()
            for name in names
        ]
        panels.append(LinePanel(curves, label, _barriers(paths, kind), is_gain=kind == "accuracy"))
    said = shared_note([_facts(paths)]) if note is None else note
    shown = title or str(paths.attrs.get("title", ""))
    return draw_lines(panels, x_label=POSITION, marks={0.0: "A", 1.0: "B"}, title=shown, note=said)


def _facts(paths: xr.Dataset) -> dict[str, str]:
    """What the file says, with the images of every split."""
    facts, known = file_facts(paths), paths.attrs
    splits = str(known.get("splits", known.get("split", ""))).split(", ")
    counts = [f"{known.get(f'{split}_samples', known.get('samples'))} {split}" for split in splits]
    return {name: fact for name, fact in facts.items() if name != "split"} | {
        "images": f"{' and '.join(counts)} images"
    }


def _barriers(paths: xr.Dataset, kind: str) -> str:
    """The barriers of the training split, as the title of a panel; empty where the file has none yet."""
    suffix = "accuracy_barrier" if kind == "accuracy" else "barrier"
    names = [f"{path}_train_{suffix}" for path in ("curve", "line")]
    if not all(name in paths.data_vars for name in names):
        return ""
    unit = "" if kind == "accuracy" else " nat"
    curve, line = (f"{float(paths[name]):.3g}{unit}" for name in names)
    return f"training barrier: curve {curve}, line {line}"
