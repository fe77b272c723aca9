"""What a launcher (srun, torchrun) says in the environment, checked before anything reads it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping

NUMBERS = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"),
    *("SLURM_NNODES", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"),
    *("PL_GLOBAL_SEED", "JSM_NAMESPACE_RANK"),
)
"""Variables that Lightning, torch or we read as whole numbers from 0 on."""
TASK = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
"""What srun tells every task."""


def check_launcher(environment: Mapping[str, str]) -> None:
    """Refuse what Lightning or torch would stumble over; the ValueError names the variable and the remedy."""
    for name in NUMBERS:
        value = environment.get(name)
        if value is not None and not (value.isascii() and value.isdigit()):
            raise ValueError(
                f"the environment variable {name} (={value!a}) must be a whole number:"
                f" correct it, or remove it with `unset {name}`"
            )
    if not has_slurm_tasks(environment):
        return
    tasks = int(environment["SLURM_NTASKS"])
    missing = [name for name in TASK if name not in environment]
    if missing:
        raise ValueError(
            f"SLURM_NTASKS (={tasks}) is set, {' and '.join(missing)} not: start the command with `srun`,"
            " or run it as one process after `unset SLURM_NTASKS`"
        )
    if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in environment:
        raise ValueError(
            f"SLURM gives the job {tasks} tasks (SLURM_NTASKS) and does not say how many a node:"
            f" use `--ntasks-per-node` in place of `--ntasks`, or one task with `--ntasks=1`"
        )


def check_tasks(environment: Mapping[str, str], world_size: int) -> None:
    """Refuse a trainer with another number of processes than SLURM started."""
    tasks = int(environment.get("SLURM_NTASKS") or 1)
    if tasks != world_size:
        raise ValueError(
            f"SLURM started {tasks} tasks (SLURM_NTASKS), and the trainer has {world_size} processes: set"
            " `trainer.devices` to the tasks of a node, `trainer.num_nodes`, and `trainer.strategy` to ddp"
        )


def has_slurm_tasks(environment: Mapping[str, str]) -> bool:
    """Whether Lightning takes the process for a task of srun: not in interactive jobs."""
    return "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def is_requeued(environment: Mapping[str, str]) -> bool:
    """Whether SLURM says that it has started this job before."""
    return has_slurm_tasks(environment) and int(environment.get("SLURM_RESTART_COUNT") or 0) > 0


def draw_seed(environment: Mapping[str, str]) -> int:
    """A random seed from 1 to 2**32 - 1, the same in all processes of a training.

    Processes that Lightning starts find the first one's seed in the environment; tasks of a SLURM job
    take it from the number of the job. A ValueError for other launchers.
    """
    if "LOCAL_RANK" in environment and "PL_GLOBAL_SEED" in environment:
        return int(environment["PL_GLOBAL_SEED"])
    if has_slurm_tasks(environment) and int(environment["SLURM_NTASKS"]) > 1:
        job = f"{environment.get('SLURM_JOB_ID')} {environment.get('SLURM_STEP_ID')}"
        return int(hashlib.sha256(job.encode()).hexdigest()[:8], 16) or 1
    if int(environment.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "`seed_everything` (=True): processes that another launcher started cannot agree on a random"
            " seed; give a number"
        )
    return 1 + secrets.randbelow(2**32 - 1)
