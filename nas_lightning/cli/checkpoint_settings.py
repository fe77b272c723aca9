"""The settings that a checkpoint was trained with, and a check that others do not contradict them."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch import Trainer

from nas_lightning.callbacks.checkpoint_structure import check_structure, refuse_foreign_code
from nas_lightning.callbacks.checkpoints import CHECKPOINTS
from nas_lightning.callbacks.curve_ends import holds_curve
from nas_lightning.callbacks.own_code import recall_own_code
from nas_lightning.callbacks.requeue import requeue_checkpoints
from nas_lightning.callbacks.resuming import place_of
from nas_lightning.cells import get_genotype
from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.messages import plain_message
from nas_lightning.curve_classifier import CurveClassifier
from nas_lightning.datamodules import ImageDataModule
from nas_lightning.identity import NOT_DECIDING, differing_settings
from nas_lightning.torch_files import read_torch_file

COURSE = frozenset(
    {f"trainer.limit_{name}_batches" for name in ("train", "val")}
    | {f"trainer.{name}" for name in ("overfit_batches", "val_check_interval", "check_val_every_n_epoch")}
    | {"trainer.precision", "trainer.max_steps", "weights"}
)
"""Settings that stay as they were when a training goes on, beside those that every checkpoint keeps."""


@dataclass(frozen=True)
class CheckpointSettings:
    """The settings that a checkpoint was trained with.

    ``epoch`` counts from 0; the checkpoint was written after it, and after ``steps`` steps of the optimiser.
    ``genotype`` is a literal. ``model`` are the arguments of CellClassifier, without the number of classes,
    which the data set decides. ``data_class`` is an import path, None where the checkpoint has none, and
    ``data`` its arguments without those that change no result. ``run`` are the settings of the trainer that
    decide the schedule, and ``seed_everything``; ``course`` are those of :data:`COURSE` that were not the
    default. ``roots`` are the folder of the data sets as it was given and, where the checkpoint says it, its
    absolute path. ``deciding`` are the settings that decided the training, None if the checkpoint does not
    say. ``blocking`` says why no training can resume from it, None if one can; ``ended`` says why the
    training was over before its last epoch, None if it was not. ``is_start`` is true of initial weights.
    """

    path: Path
    epoch: int
    genotype: str
    model: dict[str, Any]
    data_class: str | None
    data: dict[str, Any]
    run: dict[str, Any]
    course: dict[str, Any] = field(default_factory=dict)
    roots: tuple[str, ...] = ()
    deciding: dict[str, Any] | None = None
    blocking: str | None = None
    steps: int = 0
    ended: str | None = None
    is_start: bool = False

    @property
    def is_curve(self) -> bool:
        """Whether it holds a curve between two networks."""
        return "ends" in self.model

    @property
    def root(self) -> str | None:
        """The folder of the data sets, as it was given where that is still the same one."""
        if not self.roots or Path(self.roots[0]).absolute() == Path(self.roots[-1]):
            return next(iter(self.roots), None)
        given, absolute = self.roots[0], self.roots[-1]
        return given if Path(given).is_dir() and not Path(absolute).is_dir() else absolute

    def refuse_to_resume(self) -> None:
        """Refuse a training that could not go on from here as if there had been no break."""
        if self.blocking is not None:
            raise ValueError(
                f"`ckpt_path` (={self.path}) cannot resume a training: {self.blocking};"
                " use `--ckpt_path last` or another checkpoint"
            )

    def defaults(self, *, resuming: bool) -> dict[str, Any]:
        """The settings by parser key, as defaults of settings that are not given.

        The trainer's settings count if the training resumes.
        """
        defaults: dict[str, Any] = {f"model.{name}": value for name, value in self.model.items()}
        if self.data_class is not None:
            root = {} if self.root is None else {"root": self.root}
            defaults["data"] = {"class_path": self.data_class, "init_args": self.data | root}
        return defaults | (self.run | self.course if resuming else {})

    def refuse_contradictions(self, settings: Mapping[str, Any], *, resuming: bool) -> None:
        """Refuse settings that differ from the defaults above, so that somebody gave them.

        The ValueError names the first key that differs, and both values.
        """
        model = dict(settings["model"])
        spec = model.pop("genotype")
        if str(get_genotype(spec)) != self.genotype:
            raise ValueError(
                f"`model.genotype` (={spec}) contradicts the checkpoint {self.path}, which holds"
                f" {self.model.get('genotype')}: {self.genotype}"
            )
        model.pop("speed", None)  # how it is computed may change at any time
        self._compare("model", model, self.model)
        if self.data_class is not None:
            data = settings["data"]
            if pkgutil.resolve_name(data["class_path"]) is not pkgutil.resolve_name(self.data_class):
                raise ValueError(
                    f"`data` (={data['class_path']}) contradicts the checkpoint {self.path}, which was"
                    f" trained on {self.data_class}"
                )
            self._compare("data", data.get("init_args") or {}, self.data)
        if resuming:
            given = {f"trainer.{name}": value for name, value in settings["trainer"].items()}
            self._compare("", {**given, "seed_everything": settings["seed_everything"]}, self.run)

    def refuse_another_course(self, deciding: Mapping[str, Any]) -> None:
        """Refuse to go on with other batches, evaluations, precision or first weights than before.

        Args:
            deciding: The settings that decide what is to go on.
        """
        if self.deciding is None:
            return
        planned, trained = (
            {key: value for key, value in settings.items() if key in COURSE}
            for settings in (deciding, self.deciding)
        )
        if differences := differing_settings(planned, trained):
            raise ValueError(
                f"the checkpoint {self.path} was trained otherwise ({'; '.join(differences)}): leave these"
                " settings out, or train a new run"
            )

    def is_of_run(self, other: CheckpointSettings) -> bool:
        """Whether another checkpoint may be of the same run: data, network, seed and first weights agree."""
        if self.deciding is None or other.deciding is None:
            return True
        first, second = (
            {key: value for key, value in one.deciding.items() if not key.startswith("trainer.")}
            for one in (self, other)
            if one.deciding is not None
        )
        return not differing_settings(first, second)

    def _compare(self, group: str, given: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
        for name, value in given.items():
            key = f"{group}.{name}" if group else name
            if name in trained and isinstance(value, Mapping) and isinstance(trained[name], Mapping):
                self._compare(key, value, trained[name])
            elif name in trained and _as_lists(value) != _as_lists(trained[name]):
                raise ValueError(
                    f"`{key}` (={value}) contradicts the checkpoint {self.path}, which was trained with"
                    f" {trained[name]}; leave it out, or train a new run"
                )


def _check_types(
    said: str, cls: type, settings: Mapping[str, Any], prefix: str, skip: Collection[str] = ()
) -> None:
    """Refuse settings of types that a class does not take: the command line's parser trusts defaults."""
    parser = ArgumentParser(exit_on_error=False)
    names = set(parser.add_class_arguments(cls, skip=set(skip), fail_untyped=False))
    try:
        parser.parse_object({name: settings[name] for name in sorted(names & settings.keys())})
    except ArgumentError as error:
        line = plain_message(str(error), ())
        raise ValueError(f"{said}: its {re.sub('^`', f'`{prefix}', line)}") from error


def read_checkpoint_settings(
    path: Path, *, resuming: bool = False, key: str = "ckpt_path"
) -> CheckpointSettings:
    """Read the settings that a checkpoint of this program was trained with.

    Args:
        path: The checkpoint.
        resuming: Whether a training is to go on from it, which takes more than the weights.
        key: The setting that names it, for messages.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no checkpoint of this program, or names code that is not allowed.
    """
    checkpoint = read_torch_file(path, key, mmap=True)
    said = f"`{key}` (={path})"
    cls = CurveClassifier if holds_curve(checkpoint) else CellClassifier
    check_structure(said, checkpoint, cls.setting_names(), resuming=resuming)
    model = {
        name: value
        for name, value in (checkpoint.get("hyper_parameters") or {}).items()
        if not name.startswith("_") and name != "num_classes"
    }
    data = dict(checkpoint.get("datamodule_hyper_parameters") or {})
    data_class = data.pop("_class_path", None)
    recall_own_code(said, path, checkpoint, model, data_class, data)
    refuse_foreign_code(said, model, data_class, data)
    if data_class is not None and not _is_data_set(data_class):
        raise ValueError(f"{said} was trained on {data_class!r}, which is no data set")
    _check_types(said, cls, model, "model.", skip={"optimizer", "lr_scheduler"})
    if data_class is not None:
        _check_types(said, pkgutil.resolve_name(data_class), data, "data.")
    run = {f"trainer.{name}": value for name, value in (checkpoint.get("trainer") or {}).items()}
    if checkpoint.get("seed_everything") is not None:
        run["seed_everything"] = checkpoint["seed_everything"]
    roots = [root for root in (data.get("root"), checkpoint.get("data_root")) if isinstance(root, str)]
    record = _record_of(checkpoint)
    found = record.get("deciding")
    deciding = found if isinstance(found, dict) else None
    course = {key: _as_given(key, value) for key, value in (deciding or {}).items() if key in COURSE}
    trainer = {key.removeprefix("trainer."): value for key, value in (run | course).items()}
    _check_types(said, Trainer, trainer, "trainer.")
    return CheckpointSettings(
        path,
        epoch=checkpoint["epoch"],
        genotype=checkpoint["genotype"],
        model=model,
        data_class=data_class,
        data={
            name: value
            for name, value in data.items()
            if f"data.init_args.{name}" not in NOT_DECIDING and name != "_instantiator"
        },
        run=run,
        course=course,
        roots=tuple(roots),
        deciding=deciding,
        blocking=_blocking(checkpoint, record),
        steps=checkpoint["global_step"] if resuming else 0,
        ended=checkpoint.get("ended"),
        is_start=checkpoint.get("global_step") == 0,
    )


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that is further: ``last.ckpt``, or that of a requeued job, which goes on by itself.

    A ValueError if they are of two runs.
    """
    last = folder / CHECKPOINTS / "last.ckpt"
    requeued = requeue_checkpoints(last.parent)
    if not last.is_file() or not requeued:
        return next(iter(requeued), last if last.is_file() else None)
    furthest = read_checkpoint_settings(last, resuming=True)
    for path in requeued:
        other = read_checkpoint_settings(path, resuming=True)
        if not other.is_of_run(furthest):
            raise ValueError(f"{path} is of another training than {furthest.path.name}: move it away")
        furthest = other if other.steps >= furthest.steps else furthest
    return furthest.path


def _as_given(key: str, value: Any) -> Any:
    """A setting as the command line takes it: records have numbers of batches with a point."""
    is_number = key.startswith("trainer.limit_") and isinstance(value, float) and value > 1
    return int(value) if is_number else value


def _as_lists(value: Any) -> Any:
    """A value with its tuples as lists: the parser makes one of the other."""
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _is_data_set(name: str) -> bool:
    found = pkgutil.resolve_name(name)
    return isinstance(found, type) and issubclass(found, ImageDataModule)


def _record_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """State of the run record, empty if there is none."""
    callbacks = checkpoint.get("callbacks")
    record = callbacks.get("RunRecord") if isinstance(callbacks, dict) else None
    return record if isinstance(record, dict) else {}


def _blocking(checkpoint: Mapping[str, Any], record: Mapping[str, Any]) -> str | None:
    """Why no training can resume from a checkpoint exactly."""
    try:
        place = place_of(checkpoint)
    except ValueError as error:
        return str(error)
    steps = (checkpoint.get("trainer") or {}).get("accumulate_grad_batches") or 1
    if place.batches and not place.is_last and place.batches % steps:
        return f"it was written between {steps} batches whose gradients are added up"
    if place.batches and "epoch_so_far" not in record:
        return "it was written within an epoch, without the metrics of the epoch so far"
    return None
