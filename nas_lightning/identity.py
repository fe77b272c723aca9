"""The settings that decide a training, and the hash that two trainings share if and only if they agree."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

ANALYSES = {
    "LossContour": "loss_contour",
    "GradientVariance": "gradient_variance",
    "HessianSpectrum": "hessian_spectrum",
    "LossProfile": "loss_profile",
    "LossLine": "loss_line",
    "Interpolation": "interpolation",
    "SpectralDensity": "spectral_density",
    "Trajectory": "trajectory",
    "ModeConnectivity": "mode_connectivity",
    "CurvatureMap": "curvature_map",
    "BlockCurvature": "block_curvature",
}
"""The callbacks that only analyse, and how the names of their files begin unless they have a ``name``."""

_HARMLESS = frozenset({"ConfusionMatrix"})
"""Other callbacks of this project that change no number of a training."""
_CHECKPOINTS = ("lightning.pytorch.callbacks.", "ModelCheckpoint")
"""Beginning and end of the path of Lightning's callback that keeps checkpoints, which changes none either."""

NOT_DECIDING = frozenset(
    {"ckpt_path", "code", "config", "experiment", "extend", "run", "weights_only"}
    | {f"data.init_args.{name}" for name in ("cache_folder", "evaluation_batch_size", "resident", "root")}
    | {f"trainer.{name}" for name in ("accelerator", "devices", "num_nodes", "strategy", "plugins")}
    | {f"trainer.{name}" for name in ("barebones", "default_root_dir", "logger", "profiler")}
    | {f"trainer.enable_{name}" for name in ("checkpointing", "model_summary", "progress_bar")}
    | {f"trainer.{name}" for name in ("log_every_n_steps", "num_sanity_val_steps")}
)
"""Settings, with what lies below them, that say where a training runs and writes, and change no number."""

SAME_MATHEMATICS = ("auto", "reference", "fast", "compiled")
"""Values of ``model.speed`` with which a network computes the same in float32, up to the order of sums."""

# Settings that count at their default as well, so that another default would be another training.
_ALWAYS = frozenset(
    {f"model.{name}" for name in ("genotype", "init_channels", "num_cells", "stem_stride")}
    | {f"model.{name}" for name in ("drop_path", "auxiliary_weight", "lr_scheduler")}
    | {f"data.init_args.{name}" for name in ("batch_size", "cutout", "seed")}
    | {f"data.init_args.{name}" for name in ("validation_fraction", "validation_seed")}
    | {f"trainer.{name}" for name in ("max_epochs", "gradient_clip_val")}
    | {f"trainer.{name}" for name in ("accumulate_grad_batches", "precision")}
)
# Here 1 and 1.0 differ: a number of batches, and a share of them.
_LIMITS = "trainer.limit_"
_COUNT_OR_SHARE = (_LIMITS, "trainer.overfit_batches", "trainer.val_check_interval")
_DEFAULT_PRECISION = "32-true"
_PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": _DEFAULT_PRECISION, "64": "64-true"}
_OWN_PACKAGES = ("nas_lightning.", "torch.")


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings with dotted keys, ``model.num_cells``; lists, empty mappings and a genotype are values."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value and f"{prefix}{key}" != "model.genotype":
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def deciding_settings(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a training, each in one form, with dotted keys like the arguments.

    What has its default value, of the parser or of the classes that the settings name, is left out, except
    for the settings that every training is described by: a setting that a later version adds changes no
    identity. ``model.genotype`` is the cells' literal.
    """
    usual = _canonical(defaults)
    missing = object()
    return {
        key: value
        for key, value in _canonical(settings).items()
        if key in _ALWAYS or usual.get(key, missing) != value
    }


def identity_hash(deciding: Mapping[str, Any]) -> str:
    """SHA-256 of the :func:`deciding_settings` as JSON with sorted keys: the identity of a training."""
    return hashlib.sha256(json.dumps(deciding, sort_keys=True, default=str).encode()).hexdigest()


def differing_settings(
    planned: Mapping[str, Any], found: Mapping[str, Any], *, common: bool = False
) -> list[str]:
    """In which settings two trainings differ, such as ``"model.num_cells 8, planned 20"``, by key.

    With `common` only settings that both have are compared; otherwise one that is missing has its default.
    """
    ours, theirs = _canonical(planned), _canonical(found)
    keys = ours.keys() & theirs.keys() if common else ours.keys() | theirs.keys()
    texts = []
    for key in sorted(keys):
        one, other = ours.get(key, "the default"), theirs.get(key, "the default")
        if one != other:
            is_genotype = key == "model.genotype"
            texts.append("another genotype" if is_genotype else f"{key} {other}, planned {one}")
    return texts


def as_list(value: Any) -> list[Any]:
    """A list as it is, nothing as an empty list, anything else as a list of one."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def analysis_name(callback: Any) -> str | None:
    """Class name of a callback that only analyses, given as in ``trainer.callbacks``; None for all others."""
    name = _own_name(callback)
    return name if name in ANALYSES else None


def _is_harmless(callback: Any) -> bool:
    """Whether a callback changes no number of a training."""
    path, (begin, end) = _path(callback), _CHECKPOINTS
    keeps = path == end or (path.startswith(begin) and path.endswith(f".{end}"))
    return keeps or _own_name(callback) in {*ANALYSES, *_HARMLESS}


def _own_name(callback: Any) -> str | None:
    """Class name of a callback of this project."""
    path = _path(callback)
    name = path.rpartition(".")[2]
    return name if path.startswith(("nas_lightning.", name)) else None


def _path(callback: Any) -> str:
    return str(callback.get("class_path") if isinstance(callback, Mapping) else callback)


def _canonical(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that can decide, each in one form for what can be said in several."""
    plain = {key: _plain(key, value) for key, value in settings.items() if not _is_free(key)}
    if "trainer.precision" in plain:
        precision = str(plain["trainer.precision"] or _DEFAULT_PRECISION)
        precision = _PRECISIONS.get(precision, precision)
        plain["trainer.precision"] = None if precision == _DEFAULT_PRECISION else precision
    if plain.get("model.speed") in SAME_MATHEMATICS:
        del plain["model.speed"]
    if "data.init_args.validation_seed" in plain and not plain.get("data.init_args.validation_fraction"):
        plain["data.init_args.validation_seed"] = 0  # there is no split that it could decide
    callbacks = as_list(plain.pop("trainer.callbacks", None))
    others = [callback for callback in callbacks if not _is_harmless(callback)]
    return plain | ({"trainer.callbacks": others} if others else {})


def _is_free(key: str) -> bool:
    parts = key.split(".")
    return any(".".join(parts[: count + 1]) in NOT_DECIDING for count in range(len(parts)))


def _plain(key: str, value: Any) -> Any:
    """One form for 5.0 and 5, for tuples and lists, for long and short names of classes."""
    if key.endswith("class_path") and isinstance(value, str) and value.startswith(_OWN_PACKAGES):
        return value.rpartition(".")[2]
    if isinstance(value, list | tuple):
        return [_plain(key, item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(f"{key}.{name}", item) for name, item in value.items()}
    if key.startswith(_LIMITS) and isinstance(value, int) and value > 1:
        return float(value)  # as records of earlier runs have it
    if isinstance(value, float) and value.is_integer() and not key.startswith(_COUNT_OR_SHARE):
        return int(value)
    return value
