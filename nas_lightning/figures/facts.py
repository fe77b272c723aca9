"""What a picture says of the files that it shows: genotype, data, images, epoch, seed, grid."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

NAMES = (
    "genotype",
    "data",
    "split",
    "images",
    "image_seed",
    "epoch",
    "seed",
    "grid",
    "extent",
    "pairs",
    "normalization",
    "batch_norm",
    "curvature",
    "level",
    "weights",
)
"""Names of the facts, in the order in which a picture says them."""
_USUAL = {
    "image_seed": "images drawn with seed 0",
    "normalization": "directions normalised by filter",
    "batch_norm": "batch norm frozen",
    "curvature": "eigenvalues scaled by the filters",
    "level": "float32",
}
"""Facts that a picture says only where they are others."""
_SILENT = ("genotype", "pairs", "weights")
"""Facts that the note leaves out: the title has the first, and the last tell files apart and say nothing."""


def file_facts(dataset: xr.Dataset) -> dict[str, str]:
    """What the attributes and dimensions of a file of an analysis say, by name, each in a few words.

    A file that does not know a fact leaves it out. Epochs count from 1: after the first, one is trained.
    """
    known = dataset.attrs
    found = {"genotype": str(known["title"])} if "title" in known else {}
    if "data" in known:
        found["data"] = str(known["data"])
    if "split" in known:
        found["split"] = f"{known['split']} split"
    if "splits" in known:
        names = str(known["splits"]).split(", ")
        found["split"] = f"{' and '.join(names)} split{'s' * (len(names) > 1)}"
    if "samples" in known:
        found["images"] = f"{int(known['samples'])} images"
    if "split_samples" in known:
        found["images"] = f"{' and '.join(str(known['split_samples']).split(', '))} images"
    if "sample_seed" in known:
        found["image_seed"] = f"images drawn with seed {int(known['sample_seed'])}"
    if "epoch" in known:
        epochs = int(known["epoch"]) + 1
        initial = "running_statistics" in known
        unknown = "initial weights" if initial else "epoch unknown"
        found["epoch"] = f"after {epochs} epoch{'s' * (epochs > 1)}" if epochs > 0 else unknown
    if str(known.get("training_seed", "None")) != "None":
        found["seed"] = f"seed {known['training_seed']}"
    found |= _grid(dataset)
    if "normalization" in known:
        by = str(known["normalization"])
        found["normalization"] = (
            "directions not normalised" if by == "none" else f"directions normalised by {by}"
        )
        found["normalization"] += ", orthogonal" if str(known.get("orthogonal")) == "True" else ""
    if "batch_norm" in known:
        found["batch_norm"] = f"batch norm {known['batch_norm']}".replace("reestimated", "re-estimated")
    if "normalized" in known:
        found["curvature"] = f"eigenvalues {'' if int(known['normalized']) else 'not '}scaled by the filters"
    if "precision" in known:
        found["level"] = str(known.get("autocast") or known["precision"])
    if "weights_sha256" in known:
        found["weights"] = f"weights {str(known['weights_sha256'])[:8]}"
    return {name: found[name] for name in NAMES if name in found}


def _grid(dataset: xr.Dataset) -> dict[str, str]:
    """How many points there are, how far they reach, and which pairs of directions they have."""
    found = {}
    axes = [dataset[name].values for name in ("alpha", "beta", "radius", "position") if name in dataset.dims]
    if axes:
        sizes = " x ".join(str(len(steps)) for steps in axes)
        names = {"radius": "radii", "position": "positions"}
        unit = next((word for name, word in names.items() if name in dataset.dims), "points")
        found["grid"] = f"{sizes} {unit}"
        if dataset.attrs.get("kind") != "trajectory":  # the path decides how far its plane reaches
            ends = dict.fromkeys(_reach(steps) for steps in axes if len(steps))
            found["extent"] = " x ".join(ends)
    seeds = dataset["direction_seed"].values.tolist() if "direction_seed" in dataset.coords else []
    if seeds:
        found["pairs"] = f"directions {', '.join(map(str, seeds))}"
    return found


def _reach(steps: np.ndarray) -> str:
    """Ends of an axis."""
    first, last = float(steps[0]), float(steps[-1])
    return f"±{last:g}" if first == -last else f"{first:g} to {last:g}"


def shared_facts(files: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The facts in which all files agree."""
    if not files:
        return {}
    return {name: fact for name, fact in files[0].items() if all(other.get(name) == fact for other in files)}


def shared_note(files: Sequence[Mapping[str, str]]) -> str:
    """The facts in which all files agree, as a line below a picture; the usual ones go without saying.

    Examples:
        >>> facts = {"data": "Digits", "images": "256 images", "level": "float32", "epoch": "after 9 epochs"}
        >>> shared_note([facts, facts | {"epoch": "after 1 epoch"}])
        'Digits, 256 images'
    """
    shared = shared_facts(files)
    said = [fact for name, fact in shared.items() if name not in _SILENT and fact != _USUAL.get(name, "")]
    return ", ".join(said)


def file_titles(files: Sequence[Mapping[str, str]], paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """A title a file: its genotype, and below it what tells it from other files of the same genotype.

    These are the facts in which they differ; for files that agree in all of them, what differs in their
    paths.
    """
    names = [str(facts.get("genotype", Path(path).stem)) for facts, path in zip(files, paths, strict=True)]
    titles = []
    for index, name in enumerate(names):
        peers = [files[other] for other, its in enumerate(names) if its == name]
        shared = shared_facts(peers)
        own = [fact for key, fact in files[index].items() if key not in shared and key != "genotype"]
        # Weights differ wherever an epoch or a seed does: they are said where nothing else is.
        own = [fact for fact in own if fact != files[index].get("weights")] or own
        titles.append("\n".join(filter(None, [name, ", ".join(own)])))
    alike = [index for index, title in enumerate(titles) if titles.count(title) > 1]
    if alike:
        parts = _differing_parts([str(paths[index]) for index in alike])
        for index, part in zip(alike, parts, strict=True):
            titles[index] += "" if titles[index] == part else f"\n{part}"
    return titles


def _differing_parts(paths: Sequence[str]) -> list[str]:
    """Paths without the folders that all of them begin with, and without a name that all of them end with.

    Examples:
        >>> _differing_parts(["logs/a/landscape/loss.nc", "logs/b/landscape/loss.nc"])
        ['a', 'b']
        >>> _differing_parts(["logs/a.nc", "logs/a.nc"])
        ['a.nc', 'a.nc']
    """
    parts = [path.replace(os.sep, "/").split("/") for path in paths]
    while min(map(len, parts)) > 1 and len({one[0] for one in parts}) == 1:
        parts = [one[1:] for one in parts]
    while min(map(len, parts)) > 1 and len({one[-1] for one in parts}) == 1:
        parts = [one[:-1] for one in parts]
    return ["/".join(one) for one in parts]
