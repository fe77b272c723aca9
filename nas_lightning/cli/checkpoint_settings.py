"""The settings that a checkpoint was trained with, and a check that others do not contradict them."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nas_lightning.cells import get_genotype
from nas_lightning.classifier import CellClassifier
from nas_lightning.identity import NOT_DECIDING


@dataclass(frozen=True)
class CheckpointSettings:
    """The settings that a checkpoint was trained with.

    ``epoch`` counts from 0; the checkpoint was written after it. ``genotype`` is a literal. ``model`` are the
    arguments of CellClassifier, without the number of classes, which the data set decides. ``data_class`` is
    an import path, None where the checkpoint has none, and ``data`` its arguments without those that change
    no result. ``run`` are the settings of the trainer that decide the schedule, and ``seed_everything``.
    """

    path: Path
    epoch: int
    genotype: str
    model: dict[str, Any]
    data_class: str | None
    data: dict[str, Any]
    run: dict[str, Any]

    def defaults(self, *, resuming: bool) -> dict[str, Any]:
        """The settings by parser key, as defaults of settings that are not given.

        The trainer's settings count if the training resumes.
        """
        defaults: dict[str, Any] = {f"model.{name}": value for name, value in self.model.items()}
        if self.data_class is not None:
            defaults["data"] = {"class_path": self.data_class, "init_args": self.data}
        return defaults | (self.run if resuming else {})

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

    def _compare(self, group: str, given: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
        for name, value in given.items():
            key = f"{group}.{name}" if group else name
            if name in trained and isinstance(value, Mapping) and isinstance(trained[name], Mapping):
                self._compare(key, value, trained[name])
            elif name in trained and value != trained[name]:
                raise ValueError(
                    f"`{key}` (={value}) contradicts the checkpoint {self.path}, which was trained with"
                    f" {trained[name]}; leave it out, or train a new run"
                )


def read_checkpoint_settings(path: Path) -> CheckpointSettings:
    """Read the settings that a checkpoint of this program was trained with."""
    if not path.is_file():
        raise FileNotFoundError(f"`ckpt_path` (={path}) is not a file")
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:
        raise ValueError(f"`ckpt_path` (={path}) is damaged, or not a checkpoint") from error
    known = inspect.signature(CellClassifier).parameters
    model = dict(checkpoint.get("hyper_parameters", {})) if isinstance(checkpoint, dict) else {}
    model = {name: value for name, value in model.items() if not name.startswith("_")}
    needed = {"genotype", "state_dict", "epoch"}
    is_checkpoint = isinstance(checkpoint, dict) and needed <= checkpoint.keys()
    if not is_checkpoint or not isinstance(checkpoint["epoch"], int) or not model.keys() <= known.keys():
        raise ValueError(f"`ckpt_path` (={path}) is not a checkpoint of a CellClassifier")
    model.pop("num_classes", None)
    data = dict(checkpoint.get("datamodule_hyper_parameters", {}))
    data_class = data.pop("_class_path", None)
    run = {f"trainer.{name}": value for name, value in checkpoint.get("trainer", {}).items()}
    if checkpoint.get("seed_everything") is not None:
        run["seed_everything"] = checkpoint["seed_everything"]
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
    )
