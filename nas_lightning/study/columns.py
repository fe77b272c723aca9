"""Columns of the result tables and their types, whatever the runs have.

Types are pandas' names: ``str`` (missing: NaN), ``float64`` (missing: NaN), ``int64`` and ``bool`` where a
finished run always has a value, ``Int64`` where it may lack one. Settings are text, as their types differ
between runs (``null``, ``5``, ``5.0``, ``"auto"``).
"""

from __future__ import annotations

from types import MappingProxyType

from nas_lightning.study.convergence import ACCURACY_THRESHOLDS, LOSS_THRESHOLDS
from nas_lightning.study.measurements import SURFACES

TEXT = "str"
NUMBER = "float64"
COUNT = "int64"
OPTIONAL_COUNT = "Int64"
TRUTH = "bool"

_SURFACE_SCALARS = {
    "loss_contour": (
        "near_convex_share",
        "near_convex_radius",
        "convexity_ratio",
        "convexity_ratio_square",
        "curvature_center",
        "curvature_center_max",
        "curvature_mean",
        "curvature_max",
    ),
    "gradient_variance": (
        "center_variance",
        "center_mean_gradient_norm",
        "center_noise_scale",
        "variance_center",
        "standard_deviation_center",
    ),
    "hessian_spectrum": (
        "largest_eigenvalue",
        "smallest_eigenvalue",
        "trace",
        "trace_standard_error",
        "products",
        "converged",
    ),
}
# Measured once at w*, not in the plane of a pair of directions.
_WITHOUT_DIRECTIONS = ("center_variance", "center_mean_gradient_norm", "center_noise_scale")

_PACKAGES = ("python", "nas_lightning", "torch", "torchvision", "lightning", "torchmetrics", "numpy")
_SETTINGS = (
    "model.genotype",
    "model.init_channels",
    "model.num_cells",
    "model.num_classes",
    "model.stem_stride",
    "model.drop_path",
    "model.auxiliary_weight",
    "model.speed",
    "model.optimizer.class_path",
    "model.optimizer.init_args.lr",
    "model.optimizer.init_args.momentum",
    "model.optimizer.init_args.weight_decay",
    "model.lr_scheduler",
    "model.operations",
    "data.class",
    "data.root",
    "data.batch_size",
    "data.cutout",
    "data.validation_fraction",
    "data.validation_seed",
    "data.seed",
    "data.evaluation_batch_size",
    "trainer.max_epochs",
    "trainer.gradient_clip_val",
    "trainer.precision",
    "trainer.world_size",
)


def optional_dtype(name: str) -> str:
    """Type of a column that only some studies have.

    Args:
        name: Name of the column.

    Returns:
        Text for settings, versions, file names and splits; counts of samples and seeds may be missing; all
        else are scalars of measurements.
    """
    if name.startswith(("settings.", "version_")) or name.endswith(("_file", ".split")):
        return TEXT
    return OPTIONAL_COUNT if name.endswith((".samples", ".direction_seeds")) else NUMBER


def _surface_columns() -> dict[str, str]:
    names = [f"{stem}_file" for stem in SURFACES]
    for stem in SURFACES:
        for scalar in _SURFACE_SCALARS[stem]:
            names.append(f"{stem}.{scalar}")
            if stem != "hessian_spectrum" and scalar not in _WITHOUT_DIRECTIONS:
                names.append(f"{stem}.{scalar}.sd")
        names += [f"{stem}.samples", f"{stem}.split"]
        if stem != "hessian_spectrum":
            names.append(f"{stem}.direction_seeds")
    return {name: optional_dtype(name) for name in names}


def _convergence_columns() -> dict[str, str]:
    names = []
    for metric, thresholds in (("accuracy", ACCURACY_THRESHOLDS), ("loss", LOSS_THRESHOLDS)):
        for unit in ("epochs", "steps"):
            names += [f"{unit}_to_{metric}_{threshold:g}" for threshold in thresholds]
    names += ["area_under_loss", "area_under_loss_clipped", "mean_error"]
    names += ["oscillation_loss", "oscillation_accuracy"]
    return dict.fromkeys(names, NUMBER) | {"diverged": TRUTH}


RUN_COLUMNS = MappingProxyType(
    dict.fromkeys(("run", "folder", "study", "spec", "genotype"), TEXT)
    | dict.fromkeys(("architecture", "family", "variant", "kind"), TEXT)
    | {"width": NUMBER}
    | dict.fromkeys(("depth", "parameters", "live_parameters", "multiply_adds"), COUNT)
    | {"data": TEXT, "num_classes": COUNT, "learning_rate": NUMBER, "seed": COUNT, "epochs": COUNT}
    | {"steps_per_epoch": COUNT, "batch_size": COUNT, "cutout": OPTIONAL_COUNT}
    | {"drop_path": NUMBER, "auxiliary_weight": NUMBER, "regularized": TRUTH, "evaluation_split": TEXT}
    | dict.fromkeys(("init_channels", "num_cells", "train_size", "evaluation_size"), COUNT)
    | dict.fromkeys(("final_loss", "final_accuracy", "final_error_percent"), NUMBER)
    | dict.fromkeys(("final_train_loss", "final_train_accuracy", "best_accuracy"), NUMBER)
    | {"best_epoch": OPTIONAL_COUNT, "training_seconds": NUMBER}
    | _convergence_columns()
    | _surface_columns()
    | {"weights_sha256": TEXT, "device": TEXT}
    | {f"version_{name}": TEXT for name in _PACKAGES}
    | {f"settings.{name}": TEXT for name in _SETTINGS}
)
"""Columns of the table of runs, in order, and their types."""

CURVE_COLUMNS = MappingProxyType(
    dict.fromkeys(("run", "architecture", "family", "variant", "data"), TEXT)
    | {"learning_rate": NUMBER, "seed": COUNT, "epoch": COUNT, "step": COUNT}
    | dict.fromkeys(("loss", "accuracy", "accuracy_top5", "train_loss", "train_accuracy"), NUMBER)
    | dict.fromkeys(("learning_rate_now", "images_per_second"), NUMBER)
)
"""Columns of the table of curves, in order, and their types."""
