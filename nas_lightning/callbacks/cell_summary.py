"""The cells that a run trains: their drawings, width and depth, and the size of the network."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from nas_lightning.callbacks.loggers import log_figures, run_folder
from nas_lightning.callbacks.protocols import ImageData, cell_module
from nas_lightning.callbacks.run_record import RunRecord
from nas_lightning.cells import format_width
from nas_lightning.figures import draw_cell


class CellSummary(Callback):
    """Reports once, at the start of a run, which cells are trained.

    Loggers get the drawings ``cell/normal`` and ``cell/reduction`` and the scalars ``cell/width`` (in c),
    ``cell/depth``, ``cell/parameters``, ``cell/live_parameters`` and ``cell/multiply_adds``; the terminal
    gets one line.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the sizes, unless the run is resumed; images of loaders show theirs in the first batch."""
        data: object = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, ImageData):
            self._report(trainer, pl_module, data.image_size)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log the sizes for the images of a loader."""
        if trainer.global_step == 0 and batch_idx == 0 and not isinstance(trainer.datamodule, ImageData):  # type: ignore[attr-defined]
            self._report(trainer, pl_module, int(batch[0].shape[-1]))

    @rank_zero_only
    def _report(self, trainer: Trainer, pl_module: LightningModule, image_size: int) -> None:
        if trainer.current_epoch > 0:
            return
        module = cell_module(pl_module)
        description = module.cell_description(image_size)
        width, depth = format_width(description["width"]), description["depth"]
        rank_zero_info(
            f"{module.genotype_name}: width {width}, depth {depth}, {description['parameters']:,} parameters"
            f" ({description['live_parameters']:,} live), {description['multiply_adds']:,} multiply-adds"
        )
        for logger in trainer.loggers:
            logger.log_metrics({f"cell/{name}": float(value) for name, value in description.items()}, step=0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the cells after the first epoch, so that the first step need not wait."""
        if trainer.current_epoch > 0 or not trainer.loggers:
            return
        records = [callback for callback in trainer.callbacks if isinstance(callback, RunRecord)]  # type: ignore[attr-defined]
        folder = (records[0].folder if records else None) or run_folder(trainer)  # asks all ranks
        module = cell_module(pl_module)
        genotype = module.genotype
        cells = {
            "normal": (genotype.normal, genotype.normal_concat),
            "reduction": (genotype.reduce, genotype.reduce_concat),
        }
        if trainer.is_global_zero:
            title = module.genotype_name
            figures = {
                f"cell/{name}": draw_cell(edges, concat, title=f"{title}, {name} cell")
                for name, (edges, concat) in cells.items()
            }
            log_figures(trainer.loggers, figures, 0, folder)
