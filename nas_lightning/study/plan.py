"""A study's file as a list of runs.

A study is one YAML mapping:

================  ==============================================================================
``name``          of the study; a folder's name
``title``         one line about it
``experiment``    folder of the runs (default: the name); studies that share it share their runs
``configs``       configurations of ``nas-lightning fit``, a base and overlays
``analyses``      overlays that add callbacks, the measurements at the end of each run
``settings``      further settings of all runs, with dotted keys
``axes``          ``architectures``, ``data`` (overlays), ``learning_rates``, ``seeds`` and any
                  other dotted key of the command line, each with a list of values
``include``       other studies, whose runs belong to this one
================  ==============================================================================

Paths are relative to the file. The runs are the product of the axes; a training that several parts ask for is
one run, with the measurements of all of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_lightning.cells import genotype_slug, import_operations
from nas_lightning.study.analyses import as_callbacks, split_callbacks, unite
from nas_lightning.study.architectures import check_labels
from nas_lightning.study.axes import (
    LEARNING_RATE,
    check_keys,
    existing_file,
    file_names,
    fixed_settings,
    measurements,
    study_axes,
)
from nas_lightning.study.configuration import (
    DEFAULT_OPTIMIZER,
    DEFAULTS,
    check_numbers,
    flatten,
    merge,
    nest,
    training_identity,
    with_class_paths,
)
from nas_lightning.study.study import AnalysisFile, Architecture, Run, Study
from nas_lightning.yaml_files import read_config, read_mapping

_LONGEST_NAME = 120


def read_study(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Study:
    """Read a study's file.

    Args:
        path: The YAML file.
        root: Folder of all logs; None takes ``trainer.default_root_dir`` of the configurations, or
            ``tb_logs``.

    Returns:
        The study; its runs are ordered by seed, so that a study that is broken off has whole comparisons.

    Raises:
        FileNotFoundError: If the file, or one that it names, does not exist.
        ValueError: If a key, an axis or a value is not valid; the message names file and key.
    """
    return _read(Path(path), None if root is None else Path(root), ())


def _read(path: Path, root: Path | None, including: tuple[Path, ...]) -> Study:
    if path.resolve() in including:
        raise ValueError(f"{path}: `include` goes round in a circle")
    content = read_mapping(path)
    try:
        check_keys(content)
        included = [
            _read(path.parent / name, root, (*including, path.resolve()))
            for name in file_names(content, "include")
        ]
        experiment = _experiment(content, included)
        parts = [(str(study.file), study.root, study.runs) for study in included]
        if "axes" in content or not included:
            configured, runs = _product(content, path.parent, root, experiment)
            parts.append((str(path), configured, runs))
        roots = {str(root): None for _, root, _ in parts}
        if len(roots) > 1:
            raise ValueError(f"`trainer.default_root_dir` differs among the included: {', '.join(roots)}")
        united = _unite(parts)
        check_labels(run.architecture for run in united)
    except (ValueError, FileNotFoundError) as error:
        raise _naming(path, error) from error
    return Study(
        name=content["name"],
        title=str(content.get("title") or content["name"]),
        file=path,
        root=parts[0][1],
        experiment=experiment,
        runs=united,
    )


def _naming(path: Path, error: ValueError | FileNotFoundError) -> ValueError | FileNotFoundError:
    """The same error, with the study's file unless a file that it includes is named already."""
    text = str(error)
    return type(error)(text if re.match(r"\S+\.ya?ml: ", text) else f"{path}: {text}")


def _experiment(content: Mapping[str, Any], included: Sequence[Study]) -> str:
    names = {study.experiment: str(study.file) for study in included}
    if "experiment" in content or not included:
        names.setdefault(str(content.get("experiment", content["name"])), "this study")
    if len(names) > 1:
        shown = ", ".join(f"{name!r} of {file}" for name, file in names.items())
        raise ValueError(f"`experiment` must be the same in all included studies, not {shown}")
    return next(iter(names))


def _product(
    content: Mapping[str, Any], folder: Path, root: Path | None, experiment: str
) -> tuple[Path, tuple[Run, ...]]:
    """The root folder, and the runs of the axes."""
    configs = [existing_file(folder, name, "configs") for name in file_names(content, "configs")]
    analyses = [existing_file(folder, name, "analyses") for name in file_names(content, "analyses")]
    fixed = fixed_settings(content)
    base = _merge_files(configs)
    import_operations(merge(base, nest(fixed)).get("model", {}).get("operations") or ())
    measured = measurements(analyses)
    axes = study_axes(content, folder, base)
    overlays: list[Path | None] = [existing_file(folder, name, "axes: data") for name in axes.pop("data")]
    overlays = overlays or [None]
    bases = {overlay: base if overlay is None else _merge_files([overlay], over=base) for overlay in overlays}
    architectures = axes.pop("architectures")
    runs: list[Run] = []
    roots: dict[str, None] = {}
    for seed, overlay, *values, architecture in itertools.product(
        axes.pop("seeds"), overlays, *axes.values(), architectures
    ):
        flags = {**fixed, **dict(zip(axes, values, strict=True))}
        settings = merge(merge(bases[overlay], nest(flags)), {"trainer": {"callbacks+": measured}})
        at = root or Path(settings.get("trainer", {}).get("default_root_dir") or "tb_logs")
        roots.setdefault(str(at))
        files = configs if overlay is None else [*configs, overlay]
        runs.append(_run(architecture, settings, flags, files, seed, at, experiment))
    if len(roots) > 1:
        raise ValueError(f"`trainer.default_root_dir` must be one for all runs, not {', '.join(roots)}")
    return Path(next(iter(roots))), tuple(runs)


def _merge_files(paths: Iterable[Path], over: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Settings of several configurations, later ones over earlier ones, without the program's defaults."""
    merged = dict(over or {})
    for path in paths:
        for settings in read_config(path):
            merged = merge(merged, with_class_paths(settings))
    return merged


def _run(
    architecture: Architecture,
    settings: Mapping[str, Any],
    flags: Mapping[str, Any],
    files: Iterable[Path],
    seed: int,
    root: Path,
    experiment: str,
) -> Run:
    analyses, others = split_callbacks(settings.get("trainer", {}).get("callbacks"))
    full = merge(DEFAULTS, settings)
    full["model"] = {"optimizer": DEFAULT_OPTIMIZER} | full["model"]
    flat = flatten(full) | {"seed_everything": seed, "model.genotype": architecture.spec}
    flat = {key: value for key, value in flat.items() if key not in ("experiment", "run")}
    flat.pop("trainer.callbacks", None)
    if others:
        flat["trainer.callbacks"] = others
    check_numbers(flat)
    epochs: int = flat["trainer.max_epochs"]
    data = str(flat["data.class_path"]).rpartition(".")[2]
    rate = flat.get(LEARNING_RATE)
    rate = float(rate) if isinstance(rate, int | float) else None
    name = _name(architecture, data, rate, seed, training_identity(architecture.genotype, flat))
    arguments = ["fit"]
    for file in files:
        arguments += ["--config", str(file)]
    arguments += ["--model.genotype", architecture.spec]
    for key, value in flags.items():
        arguments += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    arguments += ["--seed_everything", str(seed)]
    run = Run(
        name=name,
        folder=root / experiment / name,
        architecture=architecture,
        data=data,
        learning_rate=rate,
        seed=seed,
        epochs=epochs,
        settings=flat,
        analyses=analyses,
        arguments=(
            *arguments,
            *("--experiment", experiment, "--run", name),
            *("--trainer.default_root_dir", str(root.absolute())),
        ),
    )
    return _measuring(run, analyses)


def _measuring(run: Run, analyses: tuple[AnalysisFile, ...]) -> Run:
    """The run with these measurements: one argument in place of what the configurations have."""
    arguments = list(run.arguments)
    if "--trainer.callbacks" in arguments:
        at = arguments.index("--trainer.callbacks")
        del arguments[at : at + 2]
    others = run.settings.get("trainer.callbacks", [])
    if analyses or others:
        at = arguments.index("--experiment")
        arguments[at:at] = ["--trainer.callbacks", as_callbacks(analyses, others)]
    return dataclasses.replace(run, analyses=analyses, arguments=tuple(arguments))


def _name(architecture: Architecture, data: str, rate: float | None, seed: int, identity: str) -> str:
    spec = architecture.genotype if architecture.spec == str(architecture.genotype) else architecture.spec
    known = "" if rate is None else f"-lr{rate:g}"
    end = f"-{data.lower()}{known}-seed{seed}-{identity[:8]}"
    return genotype_slug(spec)[: _LONGEST_NAME - len(end)] + end


def _unite(parts: Sequence[tuple[str, Path, Iterable[Run]]]) -> tuple[Run, ...]:
    """The runs of all parts, each training once with the measurements of all."""
    found: dict[str, list[tuple[str, Run]]] = {}
    for file, _, runs in parts:
        for run in runs:
            found.setdefault(training_identity(run.architecture.genotype, run.settings), []).append(
                (file, run)
            )
    united = []
    for asked in found.values():
        run = asked[0][1]
        try:
            analyses = unite([(file, other.analyses) for file, other in asked])
        except ValueError as error:
            raise ValueError(f"run {run.name}: {error}") from error
        united.append(run if analyses == run.analyses else _measuring(run, analyses))
    return tuple(sorted(united, key=lambda run: run.seed))
