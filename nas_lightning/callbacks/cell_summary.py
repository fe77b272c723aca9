"""The cells that a run trains: their drawings, width and depth, and the size of the network."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from nas_lightning.callbacks.protocols import cell_module, image_data
from nas_lightning.cells import format_width
from nas_lightning.figures import draw_cell, figure_to_array


class CellSummary(Callback):
    """Reports once, at the start of a run, which cells are trained.

    TensorBoard gets the drawings ``cell/normal`` and ``cell/reduction`` and the scalars ``cell/width`` (in
    c), ``cell/depth``, ``cell/parameters``, ``cell/live_parameters`` and ``cell/multiply_adds``; the terminal
    gets one line.
    """

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the sizes, unless the run is resumed."""
        if trainer.current_epoch > 0:
            return
        module = cell_module(pl_module)
        description = module.cell_description(image_data(trainer).image_size)
        width, depth = format_width(description["width"]), description["depth"]
        rank_zero_info(
            f"{module.genotype_name}: width {width}, depth {depth}, {description['parameters']:,} parameters"
            f" ({description['live_parameters']:,} live), {description['multiply_adds']:,} multiply-adds"
        )
        for logger in trainer.loggers:
            logger.log_metrics({f"cell/{name}": float(value) for name, value in description.items()}, step=0)

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the cells after the first epoch, so that the first step need not wait."""
        if trainer.current_epoch > 0:
            return
        module = cell_module(pl_module)
        genotype = module.genotype
        cells = {
            "normal": (genotype.normal, genotype.normal_concat),
            "reduction": (genotype.reduce, genotype.reduce_concat),
        }
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for name, (edges, concat) in cells.items():
                    image = figure_to_array(
                        draw_cell(edges, concat, title=f"{module.genotype_name}, {name} cell")
                    )
                    logger.experiment.add_image(f"cell/{name}", image, global_step=0, dataformats="HWC")
