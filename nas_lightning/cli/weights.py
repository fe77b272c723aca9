"""Weights from a file, of this program or of others: what `--reference_weights` and `--weights` name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas_lightning.networks import CellNetwork, load_reference_weights
from nas_lightning.networks.weight_files import WeightFile, read_weight_file, resave_advice

ARCHITECTURE = ("genotype", "init_channels", "num_cells", "stem_stride", "stem", "operations")
"""Settings of the model that decide which weights fit it, beside the number of classes and the tower."""


def load_weights(network: CellNetwork, key: str, file: str, *, anew: bool = False) -> tuple[str, ...]:
    """Put the weights of a file into a network.

    Args:
        network: Receives the weights.
        key: The setting that names the file, for messages.
        file: Path of a state dict, a checkpoint or a safetensors file; ``FILE#KEY`` names one of several
            networks in it.
        anew: For a new training: the number of classes may differ, the tower may be missing, and the file may
            be a checkpoint of this program.

    Returns:
        What was left out or chosen, in sentences.

    Raises:
        FileNotFoundError: If it is not a file.
        ValueError: If it cannot be read or does not fit; the message names the setting, the file and why.
    """
    said = f"`{key}` (={file})"
    path, choice = Path(file), None
    if not path.is_file() and "#" in file:
        name, _, choice = file.rpartition("#")
        path = Path(name)
    try:
        found = read_weight_file(path)
        if _is_own(found.content):
            if not anew:
                raise ValueError("it is a checkpoint of this program: give it as `ckpt_path`")
            _check_cells(network, found.content["genotype"])
        return _load(network, found, path, choice, anew)
    except FileNotFoundError:
        raise FileNotFoundError(f"{said} is not a file") from None
    except ValueError as error:
        raise ValueError(f"{said}: {error}") from error


def architecture_of(key: str, file: str) -> dict[str, Any]:
    """The settings of the network in a checkpoint of this program, by parser key; none of other weights.

    A ValueError names the setting ``key`` and the file if it cannot be read.
    """
    path = Path(file)
    try:
        content: Any = read_weight_file(path).content if path.is_file() else None
    except ValueError as error:
        raise ValueError(f"`{key}` (={file}): {error}") from error
    if not _is_own(content) or not isinstance(content.get("hyper_parameters"), Mapping):
        return {}
    known = content["hyper_parameters"]
    return {f"model.{name}": known[name] for name in ARCHITECTURE if name in known}


def _load(
    network: CellNetwork, found: WeightFile, path: Path, choice: str | None, anew: bool
) -> tuple[str, ...]:
    content = found.content
    if not isinstance(content, Mapping) and found.module_class is not None:
        content = {}
    try:
        return load_reference_weights(network, content, choice=choice, ordered=found.ordered, anew=anew)
    except ValueError as error:
        if found.module_class is not None and "holds no state dict" in str(error):
            raise ValueError(
                f"it is a whole pickled model ({found.module_class}), which only its own code can open:"
                f" {resave_advice(path)}"
            ) from error
        raise


def _is_own(content: Any) -> bool:
    is_lightning = isinstance(content, Mapping) and "pytorch-lightning_version" in content
    return is_lightning and isinstance(content.get("genotype"), str)


def _check_cells(network: CellNetwork, genotype: str) -> None:
    """Refuse other cells, whose connections a state dict does not show."""
    if genotype != str(network.genotype):
        raise ValueError(f"it holds the genotype {genotype}, but `model.genotype` is {network.genotype}")
