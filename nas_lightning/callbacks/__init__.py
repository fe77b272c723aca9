"""When and where: what happens during a training, and what is logged and saved."""

from nas_lightning.callbacks.cell_summary import CellSummary
from nas_lightning.callbacks.checkpoints import AtomicCheckpointIO, run_checkpoints
from nas_lightning.callbacks.drop_path import DropPathSchedule
from nas_lightning.callbacks.progress import TrainingProgress
from nas_lightning.callbacks.run_record import RunRecord

__all__ = [
    "AtomicCheckpointIO",
    "CellSummary",
    "DropPathSchedule",
    "RunRecord",
    "TrainingProgress",
    "run_checkpoints",
]
