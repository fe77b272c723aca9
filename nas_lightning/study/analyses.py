"""The measurements that end a run, among the callbacks of its configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nas_lightning.study.configuration import as_list
from nas_lightning.study.study import AnalysisFile

STEMS = {
    "LossContour": "loss_contour",
    "GradientVariance": "gradient_variance",
    "HessianSpectrum": "hessian_spectrum",
}
"""Callbacks that measure, and how their files' names begin unless they have a ``name``."""


def split_callbacks(callbacks: Any) -> tuple[tuple[AnalysisFile, ...], list[Any]]:
    """Divide callbacks into measurements, which leave a training as it is, and all others.

    Args:
        callbacks: ``trainer.callbacks`` of merged settings.

    Returns:
        The measurements in order of their stems, and the other callbacks.

    Raises:
        ValueError: If two measurements of one stem differ, or one writes outside of the run's folder.
    """
    analyses: list[AnalysisFile] = []
    others: list[Any] = []
    for callback in as_list(callbacks):
        entry = {"class_path": callback} if isinstance(callback, str) else callback
        path = entry.get("class_path") if isinstance(entry, Mapping) else None
        if not isinstance(path, str):
            raise ValueError(f"`trainer.callbacks`: {callback!r} must have a `class_path`")
        class_name = path.rpartition(".")[2]
        if class_name in STEMS and path.startswith(("nas_lightning.", class_name)):
            analyses.append(_analysis(class_name, entry))
        else:
            others.append(entry)
    return unite([("one callback", analyses[: index + 1]) for index in range(len(analyses))]), others


def unite(sources: Sequence[tuple[str, Iterable[AnalysisFile]]]) -> tuple[AnalysisFile, ...]:
    """All measurements of several sources, each once.

    Args:
        sources: Names of the sources, and their measurements.

    Returns:
        The measurements in order of their stems.

    Raises:
        ValueError: If two of one stem differ, naming the sources and the first difference.
    """
    found: dict[str, tuple[str, AnalysisFile]] = {}
    for source, analyses in sources:
        for analysis in analyses:
            other, before = found.setdefault(analysis.stem, (source, analysis))
            if before.settings != analysis.settings:
                raise ValueError(
                    f"{other} and {source} measure {analysis.stem!r} with different settings"
                    f" ({_difference(before.settings, analysis.settings)}); give one another `name`"
                )
    return tuple(found[stem][1] for stem in sorted(found))


def as_callbacks(analyses: Iterable[AnalysisFile], others: Iterable[Any]) -> str:
    """The value of ``--trainer.callbacks`` that has exactly these callbacks.

    Args:
        analyses: Measurements.
        others: Other callbacks.

    Returns:
        A JSON list.
    """
    return json.dumps([*others, *(dict(analysis.settings) for analysis in analyses)])


def _analysis(class_name: str, entry: Mapping[str, Any]) -> AnalysisFile:
    arguments = dict(entry.get("init_args") or {})
    if arguments.get("folder") is not None:
        raise ValueError(
            f"`folder` (={arguments['folder']}) of {class_name} must be left out: a study finds what is"
            " measured in the run's folder"
        )
    settings = {"class_path": f"nas_lightning.callbacks.{class_name}", "init_args": arguments}
    return AnalysisFile(str(arguments.get("name") or STEMS[class_name]), settings)


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if one["class_path"] != other["class_path"]:
        return f"{one['class_path']} and {other['class_path']}"
    ours, theirs = one["init_args"], other["init_args"]
    names = dict.fromkeys((*ours, *theirs))
    name = next(name for name in names if ours.get(name, "default") != theirs.get(name, "default"))
    return f"`{name}`: {ours.get(name, 'default')} and {theirs.get(name, 'default')}"
