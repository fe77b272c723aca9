"""What a run costs, by formula: parameters, training images and multiply-adds.

Work is counted in training images: a forward and a backward pass of one image, about three forward passes. An
evaluated image counts a third of that, one of a gradient-variance point 1.5 (the gradient of every sample),
one of a product with the Hessian 3.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from nas_lightning.cells import Genotype, Stem, UnknownOperationSize, count_parameters, multiply_adds
from nas_lightning.study.study import AnalysisFile, Run

FORWARD_PASSES = 3
"""Forward passes that a training image counts, the backward pass being two."""
EVALUATION = 1 / FORWARD_PASSES
"""Training images that an evaluated image counts."""
# `benchmarks/results/landscape.json`: 1.57 times an ordinary forward and backward pass with the set-up of a
# surface, 1.12 times without it.
GRADIENT_OF_AN_IMAGE = 1.5
"""Training images that an image of a gradient-variance point counts."""
# `benchmarks/results/landscape.json`: 1.8 to 2.0 times an ordinary forward and backward pass.
HESSIAN_PRODUCT = 2.2
"""Training images that an image of a product with the Hessian counts."""
# Lanczos takes some tens to hundreds, 48 for five values of a small network (`docs/method.md`).
HESSIAN_PRODUCTS = 100
"""Products that the largest and the smallest eigenvalues take, about."""
_OF_SPLITS = ("LossLine", "Interpolation")
"""Analyses that measure several splits."""

PRODUCTS_OF_A_POINT = 25
"""Products that both ends of the spectrum take at a point of a curvature map, or of a block, about."""
WHOLE_BLOCKS = 2
"""Blocks that take a product each of the whole network, about: it, and the stem."""
BLOCKS_OF_A_CELL = 6
"""A cell, its projections and four nodes."""


class DataSize(NamedTuple):
    """Images of the official splits, height and width in pixels, and number of classes."""

    train: int
    test: int
    image_size: int
    num_classes: int


DATA_SIZES = {
    "CIFAR10": DataSize(50_000, 10_000, 32, 10),
    "CIFAR100": DataSize(50_000, 10_000, 32, 100),
    "TinyImageNet": DataSize(100_000, 10_000, 64, 200),
    "FashionMNIST": DataSize(60_000, 10_000, 32, 10),
    "Digits": DataSize(1_437, 360, 32, 10),
}
"""The data sets that ship; that of ``Synthetic`` is in its settings."""


@dataclass(frozen=True)
class RunCost:
    """What one run costs; what its data set or an operation leaves unknown is None.

    Attributes:
        parameters: Parameters of the network, with the auxiliary tower where there is one.
        multiply_adds: Multiply-adds of an image's forward pass.
        training_images: Images that the training sees, all epochs together.
        work: All that the run computes, evaluation and analyses included, in training images.
        unknown: What is not known, and why; None where all is.
    """

    parameters: int | None
    multiply_adds: int | None
    training_images: int | None
    work: float | int | None
    unknown: str | None = None

    @property
    def total_multiply_adds(self) -> float | int | None:
        """Multiply-adds of the whole run: three forward passes for each training image of ``work``."""
        if self.work is None or self.multiply_adds is None:
            return None
        return FORWARD_PASSES * self.work * self.multiply_adds


def run_cost(run: Run) -> RunCost:
    """Count the cost of a run."""
    settings = run.settings
    try:
        data = _data_size(run)
    except (ValueError, OSError) as error:
        return RunCost(None, None, None, None, unknown=str(error))
    parameters = forward = unknown = None
    try:
        parameters, forward = _network_size(
            run.architecture.genotype,
            tuple(settings[f"model.{key}"] for key in ("init_channels", "num_cells", "stem_stride")),
            settings.get("model.stem", "cifar"),
            data,
            settings["model.auxiliary_weight"] > 0,
        )
    except UnknownOperationSize as error:
        unknown = str(error)
    held_out = round(settings["data.init_args.validation_fraction"] * data.train)
    splits = {"train": data.train - held_out, "val": held_out, "test": data.test}
    batch_size = settings["data.init_args.batch_size"]
    training = run.epochs * run.limited_batches(splits["train"] // batch_size) * batch_size
    work = training + EVALUATION * run.epochs * splits["val" if held_out else "test"]
    cells = settings["model.num_cells"]
    work += sum(_analysis_work(analysis, splits, run.epochs, cells) for analysis in run.analyses)
    return RunCost(parameters, forward, training, work, unknown)


def _data_size(run: Run) -> DataSize:
    """Size of a run's data set; a ValueError or OSError says why it is not known."""
    arguments = {
        key.removeprefix("data.init_args."): value
        for key, value in run.settings.items()
        if key.startswith("data.init_args.")
    }
    if run.data == "Synthetic":
        names = ("train_size", "test_size", "image_size", "num_classes")
        return DataSize(*(arguments[name] for name in names))
    if run.data in ("ImageFolder", "HuggingFace"):
        return _folder_size(run.data, tuple(sorted(arguments.items())))
    if run.data not in DATA_SIZES:
        raise ValueError(f"the size of the data set {run.data} is not known")
    return DATA_SIZES[run.data]


@cache
def _folder_size(name: str, arguments: tuple[tuple[str, Any], ...]) -> DataSize:
    """Size of a folder of images, which many runs share."""
    from nas_lightning.cli.resolve import data_size  # imports torch

    return DataSize(**data_size(name, dict(arguments)))


def _analysis_work(analysis: AnalysisFile, splits: Mapping[str, int], epochs: int, cells: int) -> float:
    """What an analysis computes, in training images: its points times its images."""
    name = str(analysis.settings["class_path"]).rpartition(".")[2]
    given = analysis.settings["init_args"]
    names = given["splits"] if name in _OF_SPLITS else [given["split"]]
    if name in _OF_SPLITS and given["batch_norm"] == "reestimated":
        names = [*names, "train"]
    images = sum(min(given["max_samples"] or splits[split], splits[split]) for split in names)
    times = len(analysis.measured_after(epochs))
    if name == "HessianSpectrum":
        products = HESSIAN_PRODUCTS + given["trace_samples"]
        return float(times * products * images * HESSIAN_PRODUCT)
    if name == "SpectralDensity":
        matrices = len(given["matrices"]) * (2 if given["normalized"] else 1)
        products = matrices * given["steps"] * given["start_vectors"]
        return float(times * products * images * HESSIAN_PRODUCT)
    if name == "BlockCurvature":
        blocks = WHOLE_BLOCKS + cells * BLOCKS_OF_A_CELL / 2  # half of the way back, on average
        return float(times * blocks * PRODUCTS_OF_A_POINT * images * HESSIAN_PRODUCT)
    if name == "CurvatureMap":
        points = given["resolution"] ** 2 * len(given["direction_seeds"])
        return float(times * points * PRODUCTS_OF_A_POINT * images * HESSIAN_PRODUCT)
    if name == "LossProfile":
        points = given["resolution"] * len(given["direction_seeds"])
        work = points * EVALUATION + given.get("curvature_samples", 0) * HESSIAN_PRODUCT
        return float(times * images * work)
    if name in _OF_SPLITS:
        rows = 1 if name == "Interpolation" else len(given["direction_seeds"])
        return float(times * given["resolution"] * rows * images * EVALUATION)
    if name == "Trajectory":
        passes = 2 if given["batch_norm"] == "reestimated" else 1
        return float(times * given["resolution"] ** 2 * passes * images * EVALUATION)
    points = given["resolution"] ** 2 * len(given["direction_seeds"]) if given["resolution"] else 1
    of_an_image = GRADIENT_OF_AN_IMAGE if name == "GradientVariance" else EVALUATION
    return float(times * points * images * of_an_image)


@cache
def _network_size(
    genotype: Genotype, sizes: tuple[int, int, int], stem: Stem, data: DataSize, auxiliary: bool
) -> tuple[int, int]:
    """Parameters and multiply-adds; one network stands in many runs."""
    network: dict[str, Any] = dict(zip(("init_channels", "num_cells", "stem_stride"), sizes, strict=True))
    network |= {"num_classes": data.num_classes, "stem": stem}
    return (
        count_parameters(genotype, auxiliary=auxiliary, **network),
        multiply_adds(genotype, image_size=data.image_size, **network),
    )
