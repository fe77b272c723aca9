"""Which of a training's settings decide it, beside the defaults of the classes that they name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pkgutil import resolve_name
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

from nas_lightning.cells import get_genotype
from nas_lightning.classifier import CellClassifier
from nas_lightning.datamodules.decoded_images import DecodedImages, folder_name
from nas_lightning.identity import deciding_settings, flatten

TRAINER_DEFAULTS = {
    "default_root_dir": "tb_logs",
    "max_epochs": 600,
    "gradient_clip_val": 5.0,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "log_every_n_steps": 1,  # nothing is logged between epochs; Lightning warns of larger values
}

# Settings that name a class, and the argument of it that is no setting.
_CLASSES: dict[str, str | None] = {
    "data": None,
    "model.optimizer": "params",
    "model.lr_scheduler": "optimizer",
}


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the parser as JSON has them, without the files that they come from."""
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    plain.pop("config", None)
    return plain


def decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a training, from all nested settings of ``nas-lightning fit`` as plain values.

    Keys are dotted, see :func:`nas_lightning.identity.deciding_settings`; the cells are a literal, however
    they are named. Of data that are any images, the folder's name says which, ``data.folder``: wherever it
    lies, it is the same data.
    """
    flat = flatten(settings)
    model, trainer = _defaults(CellClassifier, "optimizer"), _defaults(Trainer) | TRAINER_DEFAULTS
    defaults = flatten({"model": model, "trainer": trainer, "weights": None})
    for prefix, skipped in _CLASSES.items():
        path = flat.get(f"{prefix}.class_path")
        if path is not None:
            cls = resolve_name(path)
            defaults |= flatten(_defaults(cls, skipped), f"{prefix}.init_args.")
            if isinstance(cls, type) and issubclass(cls, DecodedImages):
                flat["data.folder"] = folder_name(flat["data.init_args.root"])
    return deciding_settings(flat | {"model.genotype": str(get_genotype(flat["model.genotype"]))}, defaults)


@cache
def _defaults(cls: type, skipped: str | None = None) -> dict[str, Any]:
    """Defaults of a class's arguments; they are looked up in its source and that of its bases."""
    parser = ArgumentParser()
    parser.add_class_arguments(cls, skip=None if skipped is None else {skipped}, fail_untyped=False)
    return plain_settings(parser.get_defaults().as_dict())
