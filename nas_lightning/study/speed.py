"""How fast this machine trains the networks of a study, by training two of them for a moment."""

from __future__ import annotations

from typing import Any

from nas_lightning.acceleration.level import level_of
from nas_lightning.study.configuration import nest
from nas_lightning.study.cost import FORWARD_PASSES, DataSize, Speed, data_size, run_cost
from nas_lightning.study.executors import LocalExecutor
from nas_lightning.study.jobs import Sharing
from nas_lightning.study.study import Run, Study
from nas_lightning.study.throughput import measure_throughput

BATCH_WORK = 2.5e11
"""Multiply-adds of an epoch on the CPU, all processes together, about: five seconds on a slow processor."""
BATCHES = (2, 20)
"""Fewest and most batches of such an epoch; a GPU makes the most."""
APART = 1.5
"""Ratio of multiply-adds from which on a second network says more than noise."""
TIMEOUT = 300.0
"""Seconds after which a measurement is given up."""


def measure_speed(study: Study, sharing: Sharing | None = None, timeout: float | int = TIMEOUT) -> Speed:
    """Train the cheapest and the dearest network of a study for some short epochs each, on made-up images.

    Each is trained by as many processes at once as the study has runs at a time, with the same part of the
    GPUs and cores, so that what they take from each other is in the speed. Time per image of one of them is
    taken as ``a + b * multiply_adds`` through both networks; ``a`` is 0 where the two are of nearly the same
    size (one is trained then), or where the line through them would give a negative ``a`` or ``b``. Nothing
    is written but in a temporary folder. Takes half a minute or so, most of it the program's start, and as
    long as compiling takes where the study's trainings are compiled.

    Args:
        study: The study.
        sharing: How its runs share the machine; None: one at a time.
        timeout: Seconds that each of the two may take.

    Returns:
        The speed of a run among so many.

    Raises:
        ValueError: If no network's size is known, or a run takes more GPUs than there are.
        OSError: If a measurement fails; the message has the last error of its output.
    """
    sharing = sharing or Sharing()
    if not sharing.at_a_time and study.runs:
        raise ValueError(f"a run takes {sharing.gpus} GPUs, and there are {len(sharing.devices)}")
    found: dict[int, tuple[Run, DataSize]] = {}
    for run in study.runs:
        data, forward = data_size(run), run_cost(run).multiply_adds
        if data is not None and forward is not None:
            found.setdefault(forward, (run, data))
    if not found:
        raise ValueError(f"no run of {study.name} has data and operations of known size")
    low, high = min(found), max(found)
    if high < APART * low:
        low = high
    times = {forward: _train(*found[forward], forward, sharing, timeout) for forward in {low, high}}
    (fast, device), (slow, _) = times[low], times[high]
    slope = (slow - fast) / (high - low) if high > low else 0.0
    constant = fast - slope * low
    if slope <= 0 or constant < 0:
        return Speed(0.0, slow / high, device)
    return Speed(constant, slope, device)


def _train(
    run: Run, data: DataSize, forward: int, sharing: Sharing, timeout: float | int
) -> tuple[float, str]:
    """Seconds that an image takes in one of the processes, and the device."""
    batches = BATCHES[1]
    if not sharing.gpus:
        of_batch = FORWARD_PASSES * forward * run.settings["data.init_args.batch_size"]
        batches = min(max(int(BATCH_WORK / (of_batch * sharing.at_a_time)), BATCHES[0]), BATCHES[1])
    executor = LocalExecutor(sharing.jobs, sharing.devices)
    settings = _settings(run, data, batches, sharing.gpus)
    try:
        measured = measure_throughput(
            settings, executor, sharing.at_a_time, gpus=sharing.gpus, timeout=timeout
        )
    except OSError as error:
        raise OSError(f"{run.architecture.label}: {error}") from error
    return sharing.at_a_time / measured.total, measured.device


def _settings(run: Run, data: DataSize, batches: int, gpus: float | int = 0) -> dict[str, Any]:
    """Settings of the run, but for the data, the callbacks and the machines.

    What ``model.speed`` means depends on the length of a training: here it is the level of the whole run.
    """
    keep = {
        key: value
        for key, value in run.settings.items()
        if not key.startswith("data.") and key != "trainer.callbacks" and value is not None
    }
    batch_size = run.settings["data.init_args.batch_size"]
    cost = run_cost(run)
    images = cost.training_images or 0
    level = level_of(
        run.settings["model.speed"],
        "cuda" if gpus else "cpu",
        passes=images // batch_size,
        work=FORWARD_PASSES * images * (cost.multiply_adds or 0),
    )
    settings = nest(keep | {"model.speed": level.name})
    settings["data"] = {
        "class_path": "nas_lightning.datamodules.Synthetic",
        "init_args": {
            "num_classes": data.num_classes,
            "image_size": data.image_size,
            "train_size": batches * batch_size,
            "test_size": data.num_classes,
            "batch_size": batch_size,
            "cutout": run.settings["data.init_args.cutout"],
        },
    }
    settings["trainer"] |= {
        "limit_train_batches": batches,
        "devices": max(1, int(gpus)),
        "num_nodes": 1,
        "strategy": "auto",
    }
    return settings
