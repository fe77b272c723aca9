"""`model.ends`: whether a command trains a curve between two networks, with the settings of its ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from nas_lightning.callbacks.curve_ends import KEY, end_files
from nas_lightning.cli.checkpoint_settings import read_checkpoint_settings
from nas_lightning.cli.config_files import with_included_files
from nas_lightning.cli.own_classes import settings_in
from nas_lightning.cli.weights import ARCHITECTURE


def named_ends(arguments: Sequence[str]) -> list[str] | None:
    """The ends that a command names, itself or in a file of settings; None if it trains one network.

    Raises:
        ValueError: If they are no list, or another command than ``fit`` names them.
    """
    found: Any = None
    for key, value, _ in settings_in(with_included_files(arguments)):
        if key == KEY:
            found = value
        elif key in ("config", "model") and isinstance(value, Mapping):
            model = value.get("model") if key == "config" else value
            found = model.get("ends", found) if isinstance(model, Mapping) else found
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(end, str) for end in found):
        raise ValueError(f"`{KEY}` (={found}) must be two checkpoints: [A.ckpt, B.ckpt]")
    if arguments[0] != "fit":
        raise ValueError(
            f"`{KEY}` (={found}): `fit` trains a curve between two networks and measures it;"
            f" `{arguments[0]}` takes one network"
        )
    return found


def with_ends(arguments: Sequence[str], ends: Sequence[str]) -> list[str]:
    """Put the cells, sizes and data of a curve's first end before all other settings.

    A training that is resumed has them from its checkpoint, so that the ends may be gone.

    Raises:
        FileNotFoundError: If an end is no file.
        ValueError: If an end is damaged or no checkpoint of a CellClassifier.
    """
    try:
        trained = read_checkpoint_settings(end_files(ends)[0], key=KEY)
    except (FileNotFoundError, ValueError):
        if any(argument.partition("=")[0] == "--ckpt_path" for argument in arguments):
            return list(arguments)
        raise
    if trained.is_curve:
        raise ValueError(f"`{KEY}`: {trained.path} holds a curve between two networks, not one network")
    model = {name: trained.model[name] for name in ARCHITECTURE if name in trained.model}
    settings: dict[str, Any] = {"model": model}
    if "data" in (defaults := trained.defaults(resuming=False)):
        settings["data"] = defaults["data"]
        settings["data"]["init_args"].pop("seed", None)  # it follows the seed of this training
    return [arguments[0], f"--config={yaml.safe_dump(settings)}", *arguments[1:]]
