"""What a study costs: parameters, images, multiply-adds and, after a short measurement, time.

Everything is counted in training images: a forward and a backward pass of one image, about three forward
passes. An evaluated image counts a third of that, one of a gradient-variance point 1.5 (every image's own
gradient), one of a product with the Hessian 3.5. All this is an estimate, good for planning.
:mod:`nas_lightning.study.speed` measures the speed, :mod:`nas_lightning.study.plan_text` prints the plan.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from nas_lightning.cells import Genotype, UnknownOperationSize, count_parameters, multiply_adds
from nas_lightning.study.study import AnalysisFile, Run, Study

FORWARD_PASSES = 3
"""Forward passes that a training image counts, the backward pass being two."""
EVALUATION = 1 / FORWARD_PASSES
"""Training images that an evaluated image counts."""
# Measured, `benchmarks/results/landscape.json`: 1.57 times an ordinary forward and backward pass with the
# set-up of a surface, 1.12 times without it.
GRADIENT_OF_AN_IMAGE = 1.5
"""Training images that an image of a gradient-variance point counts."""
# Three to four times a gradient, see `nas_lightning.analysis.hessian.HessianProduct`.
HESSIAN_PRODUCT = 3.5
"""Training images that an image of a product with the Hessian counts."""
# Lanczos takes some tens to hundreds, 48 for five values of a small network (`docs/method.md`).
HESSIAN_PRODUCTS = 100
"""Products that the largest and the smallest eigenvalues take, about."""

_RESOLUTION = {"LossContour": 51, "GradientVariance": 21}
_TRACE_SAMPLES = 10


@dataclass(frozen=True)
class DataSize:
    """Size of a data set.

    Attributes:
        train: Images of the official training split.
        test: Images of the official test split.
        image_size: Height and width in pixels.
        num_classes: Number of classes.
    """

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
class Speed:
    """Time that a machine needs for a training image: ``constant + per_multiply_add * multiply_adds``.

    It is that of one run beside as many others as it was measured with.

    Attributes:
        constant: Seconds for an image of a network that computes nothing.
        per_multiply_add: Seconds for a multiply-add of the forward pass, with all that training adds to it.
        device: The kind of device on which it was measured, such as "cpu" or "cuda".
    """

    constant: float | int
    per_multiply_add: float | int
    device: str

    def seconds(self, images: float | int, forward_multiply_adds: int) -> float | int:
        """Time for so many training images.

        Args:
            images: Training images, or what counts as such.
            forward_multiply_adds: Multiply-adds of an image's forward pass.

        Returns:
            Seconds.
        """
        return images * (self.constant + self.per_multiply_add * forward_multiply_adds)


@dataclass(frozen=True)
class RunCost:
    """What one run costs.

    Attributes:
        parameters: Parameters of the network, with the auxiliary tower where there is one; None where an
            operation has no formula.
        multiply_adds: Multiply-adds of an image's forward pass; None where they are not known.
        training_images: Images that the training sees, all epochs together; None for unknown data.
        work: All that the run computes, evaluation and analyses included, in training images; None for
            unknown data.
        seconds: Estimated time; None before a measurement, or where something is not known.
        unknown: What is not known, and why; None where all is.
    """

    parameters: int | None
    multiply_adds: int | None
    training_images: int | None
    work: float | int | None
    seconds: float | int | None = None
    unknown: str | None = None

    @property
    def total_multiply_adds(self) -> float | int | None:
        """Multiply-adds of the whole run: three forward passes for each training image of ``work``."""
        if self.work is None or self.multiply_adds is None:
            return None
        return FORWARD_PASSES * self.work * self.multiply_adds

    def timed(self, speed: Speed) -> RunCost:
        """The same with the time on a machine.

        Args:
            speed: Of the machine.

        Returns:
            A cost with ``seconds``, where work and multiply-adds are known.
        """
        if self.work is None or self.multiply_adds is None:
            return self
        return dataclasses.replace(self, seconds=speed.seconds(self.work, self.multiply_adds))


def run_costs(study: Study, speed: Speed | None = None) -> tuple[RunCost, ...]:
    """Costs of a study's runs.

    Args:
        study: The study.
        speed: Speed of the machine; None leaves the times out.

    Returns:
        A cost for each run, in order.
    """
    costs = [run_cost(run) for run in study.runs]
    return tuple(cost if speed is None else cost.timed(speed) for cost in costs)


def run_cost(run: Run) -> RunCost:
    """Cost of a run by formula, without its time.

    Args:
        run: The run.

    Returns:
        The cost; what the data set or an operation leaves unknown is None.

    Raises:
        ValueError: If a size in the settings is out of range.
    """
    data = data_size(run)
    if data is None:
        return RunCost(None, None, None, None, unknown=f"the size of the data set {run.data} is not known")
    settings = run.settings
    parameters = forward = None
    unknown = None
    try:
        parameters, forward = _network_size(
            run.architecture.genotype,
            tuple(settings[f"model.{key}"] for key in ("init_channels", "num_cells", "stem_stride")),
            data,
            settings["model.auxiliary_weight"] > 0,
        )
    except UnknownOperationSize as error:
        unknown = str(error)
    except (TypeError, ValueError) as error:
        raise ValueError(f"run {run.name}: {error}") from error
    held_out = round(settings["data.init_args.validation_fraction"] * data.train)
    splits = {"train": data.train - held_out, "val": held_out, "test": data.test}
    batch_size = settings["data.init_args.batch_size"]
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"run {run.name}: `data.batch_size` (={batch_size}) must be at least 1")
    batches = limited_batches(splits["train"] // batch_size, settings.get("trainer.limit_train_batches"))
    training = run.epochs * batches * batch_size
    evaluation = run.epochs * splits["val" if held_out else "test"]
    analyses = sum(_analysis_work(analysis, splits, run.epochs) for analysis in run.analyses)
    return RunCost(
        parameters, forward, training, training + EVALUATION * evaluation + analyses, unknown=unknown
    )


def data_size(run: Run) -> DataSize | None:
    """Size of a run's data set.

    Args:
        run: The run.

    Returns:
        The size, or None for data that do not ship.
    """
    if run.data != "Synthetic":
        return DATA_SIZES.get(run.data)
    given = {key.rpartition(".")[2]: value for key, value in run.settings.items() if key.startswith("data.")}
    return DataSize(
        given.get("train_size", 512),
        given.get("test_size", 128),
        given.get("image_size", 32),
        given.get("num_classes", 10),
    )


def _analysis_work(analysis: AnalysisFile, splits: Mapping[str, int], epochs: int) -> float:
    """What a measurement computes, in training images: its points times its images."""
    name = str(analysis.settings["class_path"]).rpartition(".")[2]
    given = analysis.settings.get("init_args", {})
    images = splits[given.get("split", "test")]
    images = min(given.get("max_samples") or images, images)
    every = given.get("every_n_epochs")
    times = math.ceil(epochs / every) if every else 1
    if name == "HessianSpectrum":
        products = HESSIAN_PRODUCTS + given.get("trace_samples", _TRACE_SAMPLES)
        return float(times * products * images * HESSIAN_PRODUCT)
    points = given.get("resolution", _RESOLUTION[name]) ** 2 * len(given.get("direction_seeds", [0]))
    return float(times * points * images * (EVALUATION if name == "LossContour" else GRADIENT_OF_AN_IMAGE))


@cache
def _network_size(
    genotype: Genotype, sizes: tuple[int, int, int], data: DataSize, auxiliary: bool
) -> tuple[int, int]:
    """Parameters and multiply-adds; one network stands in many runs."""
    network: dict[str, Any] = dict(zip(("init_channels", "num_cells", "stem_stride"), sizes, strict=True))
    network["num_classes"] = data.num_classes
    return (
        count_parameters(genotype, auxiliary=auxiliary, **network),
        multiply_adds(genotype, image_size=data.image_size, **network),
    )


def limited_batches(batches: int, limit: float | int | None) -> int:
    """Batches of an epoch under ``trainer.limit_train_batches``, as Lightning understands it.

    Args:
        batches: Batches of the whole split.
        limit: A share of them if it is a float up to 1, otherwise a number; a float above 1 is a number,
            because the command line may read ``3`` as ``3.0``. None: no limit.
    """
    if limit is None:
        return batches
    share = isinstance(limit, float) and limit <= 1
    return int(batches * limit) if share else min(int(limit), batches)
