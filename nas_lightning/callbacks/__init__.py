"""What happens during and after a training: analyses, records, checkpoints, progress."""

from nas_lightning.callbacks.analysis import Analysis
from nas_lightning.callbacks.block_curvature import BlockCurvature
from nas_lightning.callbacks.cell_summary import CellSummary
from nas_lightning.callbacks.checkpoints import AtomicCheckpointIO, run_checkpoints
from nas_lightning.callbacks.confusion_matrix import ConfusionMatrix
from nas_lightning.callbacks.curvature_map import CurvatureMap
from nas_lightning.callbacks.drop_path import DropPathSchedule
from nas_lightning.callbacks.gradient_variance import GradientVariance
from nas_lightning.callbacks.hessian_spectrum import HessianSpectrum
from nas_lightning.callbacks.interpolation import Interpolation
from nas_lightning.callbacks.loader_classes import has_uneven_classes
from nas_lightning.callbacks.loss_contour import LossContour
from nas_lightning.callbacks.loss_line import LossLine
from nas_lightning.callbacks.loss_profile import LossProfile
from nas_lightning.callbacks.mode_connectivity import ModeConnectivity
from nas_lightning.callbacks.monitors import check_monitors
from nas_lightning.callbacks.progress import TrainingProgress, keep_log_beside_bars
from nas_lightning.callbacks.requeue import EXIT_CODE as REQUEUE_EXIT_CODE
from nas_lightning.callbacks.requeue import Requeue
from nas_lightning.callbacks.resuming import ExactResume
from nas_lightning.callbacks.run_record import RunRecord, evaluated_part
from nas_lightning.callbacks.sigterm import answer_between_batches
from nas_lightning.callbacks.spectral_density import SpectralDensity
from nas_lightning.callbacks.trajectory import Trajectory

__all__ = [
    "REQUEUE_EXIT_CODE",
    "Analysis",
    "AtomicCheckpointIO",
    "BlockCurvature",
    "CellSummary",
    "ConfusionMatrix",
    "CurvatureMap",
    "DropPathSchedule",
    "ExactResume",
    "GradientVariance",
    "HessianSpectrum",
    "Interpolation",
    "LossContour",
    "LossLine",
    "LossProfile",
    "ModeConnectivity",
    "Requeue",
    "RunRecord",
    "SpectralDensity",
    "TrainingProgress",
    "Trajectory",
    "answer_between_batches",
    "check_monitors",
    "evaluated_part",
    "has_uneven_classes",
    "keep_log_beside_bars",
    "run_checkpoints",
]
