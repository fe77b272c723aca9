"""The options of commands that run a study, and how they run it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nas_lightning.cli.argument_parser import integer

if TYPE_CHECKING:
    from nas_lightning.study.executors import Executor
    from nas_lightning.study.jobs import Sharing
    from nas_lightning.study.study import Study


def add_run_arguments(command: Any) -> None:
    """Add where the runs start, how they share a machine, and how often they are started again."""
    command.add_argument(
        "--executor", choices=("local", "ray"), default="local", help="where the runs are started (local)"
    )
    add_share_arguments(command)
    command.add_argument(
        "--retries", type=integer(0), default=1, help="how often a run that fails is started again (1)"
    )
    command.add_argument("--address", help="of a running Ray cluster (Ray starts one on this machine)")


def add_share_arguments(command: Any) -> None:
    """Add how the runs share a machine, the same for a plan and for what it is the plan of."""
    command.add_argument(
        "--jobs", type=integer(1), help="runs at a time (as many as the GPUs take; without GPUs, one a core)"
    )
    command.add_argument(
        "--gpus_per_run",
        type=_share,
        help="GPUs of a run, such as 2; 0.5 puts two runs on a GPU (trainer.devices, or 1 if there are GPUs)",
    )


def check_run_options(options: argparse.Namespace) -> None:
    """Refuse run options that contradict each other."""
    if options.address is not None and options.executor != "ray":
        raise ValueError(f"`--address` (={options.address}) is for `--executor ray`")


def run_with(options: argparse.Namespace, study: Study) -> int:
    """Bring all runs of a study to their end; the exit code of :func:`nas_lightning.study.run_study`."""
    from nas_lightning.study.run import run_study

    check_run_options(options)
    executor = _executor(options, study)
    return run_study(study, executor, retries=options.retries, gpus_per_run=options.gpus_per_run)


def local_sharing_of(options: argparse.Namespace, study: Study) -> Sharing:
    """How the runs share this machine."""
    from nas_lightning.study.executors import cpu_count, visible_gpus
    from nas_lightning.study.jobs import local_sharing

    return local_sharing(study.runs, visible_gpus(), cpu_count(), options.jobs, options.gpus_per_run)


def _executor(options: argparse.Namespace, study: Study) -> Executor:
    from nas_lightning.study.executors import LocalExecutor
    from nas_lightning.study.jobs import gpus_of

    if options.executor == "ray":
        from nas_lightning.study.ray_executor import RayExecutor

        def smallest_need(gpus: int) -> float | int:
            return min((gpus_of(run, gpus, options.gpus_per_run) for run in study.runs), default=0)

        return RayExecutor(options.jobs, smallest_need, options.address)
    sharing = local_sharing_of(options, study)
    return LocalExecutor(sharing.jobs, sharing.devices)


def _share(text: str) -> float | int:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number") from None
    if not (0 <= value <= 1 or (value > 1 and value.is_integer())):
        raise argparse.ArgumentTypeError(f"{text} must be a whole number, or a share from 0 to 1")
    return int(value) if value.is_integer() else value
