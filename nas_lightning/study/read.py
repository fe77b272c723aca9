"""A study's file as a list of runs.

A study is one YAML mapping:

=================  ==============================================================================
``name``           of the study; a folder's name
``title``          one line about it
``experiment``     folder of the runs (default: the name); studies that share it share their runs
``configs``        configurations of ``nas-lightning fit``, a base and overlays
``analyses``       overlays that add callbacks, the analyses at the end of each run
``settings``       further settings of all runs, with dotted keys
``axes``           ``architectures``, ``data`` (overlays), ``learning_rates``, ``seeds`` and any
                   other dotted key of the command line, each with a list of values
``include``        other studies, whose runs belong to this one
``between_seeds``  what is measured between the seeds of an architecture after their trainings:
                   ``interpolation`` and ``connectivity``, each with a list of configurations
``imported``       published results in place of all this; ``study import`` writes it
=================  ==============================================================================

Paths are relative to the file. The runs are the product of the axes; a training that several parts ask for is
one run, with the analyses of all of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_lightning.cells import genotype_slug, get_genotype, import_operations
from nas_lightning.cells.operations import nearest
from nas_lightning.identity import (
    ANALYSES,
    analysis_name,
    as_list,
    differing_settings,
    flatten,
    identity_hash,
)
from nas_lightning.study.architectures import check_labels, expand_architectures
from nas_lightning.study.imported import read_import
from nas_lightning.study.resolve import Resolved, resolve_settings, setting_arguments
from nas_lightning.study.study import BETWEEN_SEEDS, AnalysisFile, Architecture, Run, Study
from nas_lightning.yaml_files import read_config, read_mapping

KEYS = (
    *("name", "title", "experiment", "configs", "analyses", "settings", "axes", "include"),
    "between_seeds",
)
IMPORT_KEYS = ("name", "title", "imported")
AXES = ("architectures", "data", "learning_rates", "seeds")
LEARNING_RATE = "model.optimizer.lr"
_LONGEST_NAME = 120
_LONGEST_DATA = 24
_HASH_DIGITS = 8

# Settings that have an axis or a key of their own, or that a study decides itself.
_ELSEWHERE = {
    "model.genotype": "`axes: architectures`",
    "seed_everything": "`axes: seeds`",
    "experiment": "the study's `experiment`",
    "trainer.callbacks": "a file of `analyses`",
    "trainer.callbacks+": "a file of `analyses`",
}
_DECIDED = ("run", "ckpt_path", "config", "trainer.fast_dev_run")


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
    study = _read(Path(path), None if root is None else Path(root), ())
    if study.imported is not None:
        return study
    return dataclasses.replace(study, runs=_in_their_folders(study.runs, study.folder))


def _read(path: Path, root: Path | None, including: tuple[Path, ...]) -> Study:
    if path.resolve() in including:
        raise ValueError(f"{path}: `include` goes round in a circle")
    content = read_mapping(path)
    try:
        _check_keys(content)
        if "imported" in content:
            if including:
                raise ValueError("imported results cannot be included; report them on their own")
            return read_import(path, root or Path("tb_logs"), content)
        included = [
            _read(path.parent / name, root, (*including, path.resolve()))
            for name in _file_names(content, "include")
        ]
        experiment = _experiment(content, included)
        parts = [(str(study.file), study.root, study.runs) for study in included]
        if "axes" in content or not included:
            parts.append((str(path), *_product(content, path.parent, root, experiment)))
        roots = {str(part_root) for _, part_root, _ in parts}
        if len(roots) > 1:
            raise ValueError(f"`trainer.default_root_dir` must be one for all runs, not {', '.join(roots)}")
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
        between_seeds=_between_seeds(content, path.parent),
    )


def _naming(path: Path, error: ValueError | FileNotFoundError) -> ValueError | FileNotFoundError:
    """The same error, with the study's file unless a file that it includes is named already."""
    text = str(error)
    is_named = re.match(r"\S+\.ya?ml(, line \d+)?: ", text)
    return (FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError)(
        text if is_named else f"{path}: {text}"
    )


# What a file may say.


def _check_keys(content: Mapping[str, Any]) -> None:
    _refuse_unknown("key", content, IMPORT_KEYS if "imported" in content else KEYS)
    for key, value in (("name", content.get("name")), ("experiment", content.get("experiment", "default"))):
        if not isinstance(value, str) or re.fullmatch(r"\w[\w.+-]*", value) is None:
            raise ValueError(f"`{key}` (={value!r}) must be the name of one folder: letters, digits, - and _")
    for key in ("settings", "axes"):
        if not isinstance(content.get(key) or {}, Mapping):
            raise ValueError(f"`{key}` must be a mapping")


def _file_names(content: Mapping[str, Any], key: str) -> list[str]:
    value = content.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"`{key}` (={value!r}) must be a list of files")
    return value


def _between_seeds(content: Mapping[str, Any], folder: Path) -> dict[str, tuple[Path, ...]]:
    """The configurations of each measurement between seeds."""
    given = content.get("between_seeds") or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"`between_seeds` (={given!r}) must be a mapping: {', '.join(BETWEEN_SEEDS)}")
    _refuse_unknown("measurement of `between_seeds`", given, tuple(BETWEEN_SEEDS))
    found: dict[str, tuple[Path, ...]] = {}
    for name in given:
        key = f"between_seeds: {name}"
        found[name] = tuple(_existing_file(folder, file, key) for file in _file_names(given, name))
        for path in found[name]:
            for callback in _callbacks(path):
                other = analysis_name(callback)
                if other is not None and ANALYSES[other] != BETWEEN_SEEDS[name]:
                    raise ValueError(f"`{key}`: {path} holds {other}, which measures something else")
    return found


def _callbacks(path: Path) -> list[Any]:
    """The callbacks that a configuration names."""
    trainers = [held.get("trainer") or {} for held in read_config(path)]
    return [
        callback
        for trainer in trainers
        for key in ("callbacks", "callbacks+")
        for callback in as_list(trainer.get(key))
    ]


def _existing_file(folder: Path, name: Any, key: str) -> Path:
    path = (folder / str(name)).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"`{key}`: {name} is not a file in {folder}")
    return path


def _experiment(content: Mapping[str, Any], included: Sequence[Study]) -> str:
    names = {study.experiment: str(study.file) for study in included}
    if "experiment" in content or not included:
        names.setdefault(str(content.get("experiment", content["name"])), "this study")
    if len(names) > 1:
        shown = ", ".join(f"{name!r} of {file}" for name, file in names.items())
        raise ValueError(f"`experiment` must be the same in all included studies, not {shown}")
    return next(iter(names))


def _fixed_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of all runs by the command line's short keys, classes before their arguments."""
    fixed: dict[str, Any] = {}
    for key, value in flatten(content.get("settings") or {}).items():
        _check_setting(_short(key), "settings")
        fixed[_short(key)] = value
    if "data" in fixed and "data" in (content.get("axes") or {}):
        raise ValueError("`settings`: `data` would overrule the files of `axes: data`; leave one of them out")
    return dict(sorted(fixed.items(), key=lambda item: item[0].count(".")))


def _short(key: str) -> str:
    """A setting's short key: ``data.cutout`` for ``data.init_args.cutout``, ``data`` for its class."""
    return key.replace(".init_args.", ".").removesuffix(".class_path")


def _analysis_files(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """The files of ``analyses``, which must hold callbacks and nothing else."""
    paths = [_existing_file(folder, name, "analyses") for name in _file_names(content, "analyses")]
    for path in paths:
        for held in read_config(path) or [{}]:
            trainer = held.get("trainer")
            if list(held) != ["trainer"] or list(trainer or ()) not in (["callbacks+"], ["callbacks"]):
                raise ValueError(
                    f"`analyses`: {path} must hold `trainer: callbacks+:` and nothing else; other settings"
                    " belong to `configs`"
                )
    return paths


def _axes(content: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values along each axis but ``architectures``, with settings by their short keys."""
    axes: dict[str, list[Any]] = {"data": [], "seeds": [0]}
    for key, values in (content.get("axes") or {}).items():
        if key not in AXES and "." not in key:
            _refuse_unknown("axis", [key], AXES)
        if not isinstance(values, list) or not values:
            raise ValueError(f"`axes: {key}` (={values!r}) must be a list of values")
        if key == "architectures":
            continue
        short = LEARNING_RATE if key == "learning_rates" else _short(key)
        if key not in AXES:
            _check_setting(short, "axes")
        if short in axes and key not in AXES:
            raise ValueError(f"`axes`: `{key}` and `learning_rates` set the same")
        if short in fixed:
            raise ValueError(f"`axes`: `{key}` is fixed in `settings`")
        for value in values:
            _check_value(key, value)
            if [str(other) for other in values].count(str(value)) > 1:
                raise ValueError(f"`axes: {key}` has {value} twice")
        axes[short] = values
    return axes


def _check_value(key: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if key == "seeds" and (not is_number or not isinstance(value, int) or not 0 <= value < 2**32):
        raise ValueError(f"`axes: seeds`: {value!r} must be a number from 0 to 2**32 - 1")
    if key == "learning_rates" and (not is_number or not 0 < value < math.inf):
        raise ValueError(f"`axes: learning_rates`: {value!r} must be a number above 0")


def _check_setting(key: str, where: str) -> None:
    if key in _ELSEWHERE:
        raise ValueError(f"`{where}`: `{key}` belongs to {_ELSEWHERE[key]}")
    if key == "data" and where == "axes":
        raise ValueError("`axes`: the class of `data` belongs to a file of `axes: data`")
    if key in _DECIDED:
        raise ValueError(f"`{where}`: `{key}` must be left out: a study decides it for every run")
    if key.partition(".")[0] not in ("model", "data", "trainer") or key in ("model", "trainer"):
        hint = nearest(key, ("model", "data", "trainer"))
        raise ValueError(
            f"`{where}`: {key!r} must be a setting of `model`, `data` or `trainer`, such as"
            f" `model.num_cells`{hint}"
        )


def _refuse_unknown(what: str, found: Iterable[str], known: Sequence[str]) -> None:
    for key in found:
        if key not in known:
            hint = nearest(key, known) or f"; there are {', '.join(known)}"
            raise ValueError(f"unknown {what} {key!r}{hint}")


# The runs of a file.


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What runs of all architectures and seeds have in common."""

    arguments: tuple[str, ...]
    flags: tuple[str, ...]
    resolved: Resolved


def _product(
    content: Mapping[str, Any], folder: Path, root: Path | None, experiment: str
) -> tuple[Path, tuple[Run, ...]]:
    """The root folder, and the runs of the axes."""
    configs = [_existing_file(folder, name, "configs") for name in _file_names(content, "configs")]
    analyses = _analysis_files(content, folder)
    fixed = _fixed_settings(content)
    axes = _axes(content, fixed)
    seeds = axes.pop("seeds")
    overlays = [[_existing_file(folder, name, "axes: data")] for name in axes.pop("data")] or [[]]
    entries = (content.get("axes") or {}).get("architectures")
    shared = []
    for overlay, *values in itertools.product(overlays, *axes.values()):
        files = [*configs, *overlay]
        arguments = ("fit", *_configs(files))
        flags = tuple(setting_arguments({**fixed, **dict(zip(axes, values, strict=True))}))
        # Of whichever cells: what the configurations name need not be one that the study trains.
        genotype = [] if entries is None else ["--model.genotype", "darts_v2"]
        resolved = resolve_settings([*arguments, *_configs(analyses), *genotype, *flags], [*files, *analyses])
        shared.append(_Setting(arguments, flags, resolved))
    for setting in shared:
        import_operations(setting.resolved.settings["model.operations"])
    if entries is None:
        entries = [shared[0].resolved.settings["model.genotype"]]
    for entry in entries:
        if not isinstance(entry, str | Mapping):
            raise ValueError(f"`axes: architectures`: {entry!r} must be a genotype spec or a mapping")
    architectures = expand_architectures(entries, folder)
    roots = {str(root or setting.resolved.settings["trainer.default_root_dir"]) for setting in shared}
    if len(roots) > 1:
        raise ValueError(
            f"`trainer.default_root_dir` must be one for all runs, not {', '.join(sorted(roots))}"
        )
    at = Path(roots.pop())
    return at, tuple(
        _run(architecture, setting, seed, at, experiment)
        for seed, setting, architecture in itertools.product(seeds, shared, architectures)
    )


def _configs(files: Iterable[Path]) -> list[str]:
    return [argument for file in files for argument in ("--config", str(file))]


def _run(architecture: Architecture, setting: _Setting, seed: int, root: Path, experiment: str) -> Run:
    own = {"seed_everything": seed, "model.genotype": architecture.spec}
    settings = {**setting.resolved.settings, **own}
    deciding = {**setting.resolved.deciding, **own, "model.genotype": str(architecture.genotype)}
    data = str(settings["data.class_path"]).rpartition(".")[2]
    rate = settings.get("model.optimizer.init_args.lr")
    rate = float(rate) if isinstance(rate, int | float) else None
    of_data = re.sub(r"[^\w.]+", "_", str(deciding.get("data.folder", data)))[:_LONGEST_DATA]
    name = _name(architecture, of_data, rate, seed, identity_hash(deciding))
    run = Run(
        name=name,
        folder=root / experiment / name,
        architecture=architecture,
        data=data,
        learning_rate=rate,
        seed=seed,
        epochs=settings["trainer.max_epochs"],
        settings=settings,
        analyses=(),
        arguments=(
            *setting.arguments,
            *("--model.genotype", architecture.spec),
            *setting.flags,
            *(argument for file in settings.get("code") or () for argument in ("--code", file)),
            *("--seed_everything", str(seed), "--experiment", experiment, "--run", name),
            *("--trainer.default_root_dir", str(root.absolute())),
        ),
        deciding=deciding,
    )
    named = [(analysis_name(callback), callback) for callback in as_list(settings["trainer.callbacks"])]
    analyses = [_analysis(class_name, callback) for class_name, callback in named if class_name is not None]
    return _with_analyses(run, _unite_analyses([("one callback", [one]) for one in analyses]))


def _name(architecture: Architecture, data: str, rate: float | None, seed: int, identity: str) -> str:
    cells = architecture.family if architecture.kind == "own" else genotype_slug(architecture.spec)
    known = "" if rate is None else f"-lr{rate:g}"
    end = f"-{data.lower()}{known}-seed{seed}-{identity[:_HASH_DIGITS]}"
    return cells[: _LONGEST_NAME - len(end)] + end


def _analysis(class_name: str, callback: Mapping[str, Any]) -> AnalysisFile:
    arguments = dict(callback.get("init_args") or {})
    if arguments.get("folder") is not None:
        raise ValueError(
            f"`folder` (={arguments['folder']}) of {class_name} must be left out: a study looks for the file"
            " in the run's folder"
        )
    settings = {"class_path": callback["class_path"], "init_args": arguments}
    return AnalysisFile(str(arguments.get("name") or ANALYSES[class_name]), settings)


def _with_analyses(run: Run, analyses: tuple[AnalysisFile, ...]) -> Run:
    """The run with these analyses: one argument in place of the callbacks of its configurations."""
    arguments = list(run.arguments)
    if "--trainer.callbacks" in arguments:
        at = arguments.index("--trainer.callbacks")
        del arguments[at : at + 2]
    others = [one for one in as_list(run.settings["trainer.callbacks"]) if analysis_name(one) is None]
    if analyses or others:
        at = arguments.index("--experiment")
        callbacks = [*others, *(dict(analysis.settings) for analysis in analyses)]
        arguments[at:at] = ["--trainer.callbacks", json.dumps(callbacks)]
    return dataclasses.replace(run, analyses=analyses, arguments=tuple(arguments))


# The runs of several files.


def _unite(parts: Sequence[tuple[str, Path, Iterable[Run]]]) -> tuple[Run, ...]:
    """The runs of all parts, each training once with the analyses of all."""
    found: dict[str, list[tuple[str, Run]]] = {}
    for file, _, runs in parts:
        for run in runs:
            found.setdefault(identity_hash(run.deciding), []).append((file, run))
    united = []
    for asked in found.values():
        run = asked[0][1]
        try:
            analyses = _unite_analyses([(file, other.analyses) for file, other in asked])
        except ValueError as error:
            raise ValueError(f"run {run.name}: {error}") from error
        united.append(run if analyses == run.analyses else _with_analyses(run, analyses))
    return tuple(sorted(united, key=lambda run: run.seed))


def _unite_analyses(sources: Sequence[tuple[str, Iterable[AnalysisFile]]]) -> tuple[AnalysisFile, ...]:
    """The analyses of several sources, each once and in order of their stems."""
    found: dict[str, tuple[str, AnalysisFile]] = {}
    for source, analyses in sources:
        for analysis in analyses:
            other, before = found.setdefault(analysis.stem, (source, analysis))
            if before.settings != analysis.settings:
                ours, theirs = (flatten(one.settings) for one in (before, analysis))
                key = next(key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
                raise ValueError(
                    f"{other} and {source} set up the analysis {analysis.stem!r} differently"
                    f" (`{key.rpartition('.')[2]}`: {ours.get(key)} and {theirs.get(key)}); give one another"
                    " `name`"
                )
    return tuple(found[stem][1] for stem in sorted(found))


def _in_their_folders(runs: Sequence[Run], folder: Path) -> tuple[Run, ...]:
    """The runs, each in the folder that an earlier version made for the same training, if there is one.

    Earlier versions hashed the settings as they were written, not as the parser resolves them.
    """
    if not folder.is_dir():
        return tuple(runs)
    planned = {run.name for run in runs}
    others: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        if path.name not in planned and (path / "config.yaml").is_file():
            others.setdefault(path.name[:-_HASH_DIGITS], []).append(path)
    found = []
    for run in runs:
        candidates = [] if run.folder.exists() else others.get(run.name[:-_HASH_DIGITS], [])
        path = next((path for path in candidates if _is_of(run, path / "config.yaml")), run.folder)
        arguments = tuple(path.name if argument == run.name else argument for argument in run.arguments)
        found.append(dataclasses.replace(run, name=path.name, folder=path, arguments=arguments))
    return tuple(found)


def _is_of(run: Run, config: Path) -> bool:
    """Whether the settings that a training wrote are those of the run."""
    try:
        settings = flatten(read_mapping(config))
        cells = str(get_genotype(settings["model.genotype"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
    planned = {**run.settings, "model.genotype": str(run.architecture.genotype)}
    return not differing_settings(planned, {**settings, "model.genotype": cells}, common=True)
