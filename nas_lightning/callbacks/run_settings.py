"""The settings of a training: all of them for its record, and those that somebody chose for its loggers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from nas_lightning.callbacks.loader_batches import data_name
from nas_lightning.callbacks.protocols import ImageData
from nas_lightning.provenance import run_seed

_ALWAYS = frozenset(
    {"model.genotype", "model.init_channels", "model.num_cells", "data.class", "data.batch_size"}
    | {"trainer.max_epochs"}
)
"""Settings that loggers get at their default too."""
_DEFAULTS = {"trainer.gradient_clip_val": None, "trainer.precision": "32-true", "trainer.world_size": 1}
_NO_CHOICE = frozenset(
    {"model.num_classes", "data.num_classes"}
    | {f"data.{name}" for name in ("root", "cache_folder", "resident", "evaluation_batch_size")}
)
"""Settings that follow from others, or decide no number."""


def run_settings(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """All settings of a training by dotted key, as its ``result.json`` has them."""
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    of_data = _plain(getattr(data, "hparams", {}))
    if isinstance(data, ImageData) and "batch_size" in of_data:
        of_data["batch_size"] = getattr(data, "batch_size", of_data["batch_size"])  # a finder may set it
    return {
        **{f"model.{name}": value for name, value in _plain(module.hparams).items()},
        **{f"data.{name}": value for name, value in of_data.items()},
        "data.class": type(data).__name__ if data is not None else data_name(trainer, "train"),
        "trainer.max_epochs": trainer.max_epochs,
        "trainer.gradient_clip_val": trainer.gradient_clip_val,
        "trainer.precision": str(trainer.precision),
        "trainer.world_size": trainer.world_size,
    }


def chosen_settings(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """The settings that describe a training in a logger.

    They are the genotype, the sizes, the data, the epochs, the optimiser with its learning rate, the training
    seed, and what else differs from its default.
    """
    settings = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in run_settings(trainer, module).items()
    }
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    defaults = {**_DEFAULTS, **_of_class("model", module), **_of_class("data", data)}
    chosen = {
        name: value
        for name, value in settings.items()
        if name in _ALWAYS or (name not in _NO_CHOICE and defaults.get(name, _UNKNOWN) != value)
    }
    if chosen.get("data.seed") == run_seed():
        chosen.pop("data.seed", None)  # it follows the seed of the training
    for name in ("model.optimizer", "model.lr_scheduler"):
        spec = chosen.pop(name, None)
        if isinstance(spec, Mapping):
            chosen |= {name: str(spec["class_path"]).rpartition(".")[2]} | dict(_arguments(name, spec))
    make = getattr(module, "make_optimizer", None)
    if make is not None:
        optimizer = make()
        chosen |= {"optimizer": type(optimizer).__name__, "learning_rate": optimizer.param_groups[0]["lr"]}
    return chosen | {"seed": run_seed()}


_UNKNOWN = object()


def _of_class(prefix: str, instance: object) -> dict[str, Any]:
    """Defaults of the arguments of an object's class and those that it derives from."""
    found: dict[str, Any] = {}
    for cls in reversed(type(instance).__mro__):
        make = vars(cls).get("__init__")
        if make is not None and cls is not object:
            parameters = inspect.signature(make).parameters.values()
            found |= {f"{prefix}.{p.name}": p.default for p in parameters if p.default is not p.empty}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _arguments(name: str, spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Arguments of a class that differ from its defaults, but for the learning rate."""
    parameters = inspect.signature(resolve_name(spec["class_path"])).parameters
    for key, value in dict(spec.get("init_args", {})).items():
        if key != "lr" and (key not in parameters or parameters[key].default != value):
            yield f"{name}.{key}", value


def _plain(parameters: Any) -> dict[str, Any]:
    """Hyperparameters without what the command line adds for itself."""
    return {name: value for name, value in dict(parameters).items() if not name.startswith("_")}
