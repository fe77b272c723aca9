"""`nas-lightning landscape`: the analyses of a checkpoint or of initial weights, without training."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_info

from nas_lightning import callbacks
from nas_lightning.callbacks.analysis import START
from nas_lightning.callbacks.checkpoints import folder_of
from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.between import barrier_table, between_files, check_alike
from nas_lightning.cli.closing import landscape_files, say_end
from nas_lightning.cli.run_folder import checkpoint_file
from nas_lightning.cli.tables import table
from nas_lightning.cli.training import TrainingCLI, run_logger, silence_advice
from nas_lightning.identity import as_list
from nas_lightning.netcdf import read_dataset
from nas_lightning.study.record import analysis_statistics

INITIAL_STATISTICS = {
    "center_loss": "loss",
    "center_mean_gradient_norm": "gradient norm",
    "center_variance": "gradient variance",
    "center_normalized_variance": "normalised gradient variance",
    "center_noise_scale": "gradient noise scale",
    "tangent_kernel_trace": "tangent-kernel trace",
    "largest_eigenvalue": "largest Hessian eigenvalue",
    "normalized_largest_eigenvalue": "normalised largest eigenvalue",
    "trace": "trace of the Hessian",
}
"""Statistics of initial weights that are printed, in words."""


class LandscapeTrainer(Trainer):
    """A trainer with the method behind the subcommand ``landscape``."""

    logs_evaluation = False
    """The loggers of the run get what is measured, not another validation."""

    networks: Callable[[Any], Iterable[Any]] = staticmethod(lambda model: [model])
    """Makes the modules to measure from the one that the settings describe."""

    def landscape(
        self,
        model: Any,
        datamodule: Any,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Validate a network, or several, during which the analysis callbacks run.

        Args:
            model: The module.
            datamodule: The data.
            ckpt_path: Checkpoint that holds the weights: a path, or `last` for that of the run.
            weights_only: Whether the checkpoint may hold tensors and plain values only.
        """
        for module in self.networks(model):
            self.validate(module, datamodule, ckpt_path=ckpt_path, weights_only=weights_only, verbose=False)


class LandscapeCLI(TrainingCLI):
    """The command line of the analyses.

    It runs the analyses among the callbacks of the settings, or all four with their defaults if there are
    none. Files and pictures go to the folder of the checkpoint's run.

    Without a checkpoint it measures the weights from which ``fit`` with the same settings starts, for one or
    several seeds: ``NAME-start.nc`` in the run's folder has those of ``seed_everything``, as ``at_start`` of
    a callback writes it, ``NAME-start-seedS.nc`` those of seed S. By default it leaves out planes, which say
    little of random weights.
    """

    model: CellClassifier
    trainer: LandscapeTrainer

    def __init__(self, arguments: list[str]) -> None:
        super().__init__(arguments, trainer_class=LandscapeTrainer)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seeds of initial weights."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--initial_seeds",
            type=list[int] | None,
            default=None,
            help="Without a checkpoint: seeds of the initial weights to measure (default: seed_everything).",
        )
        parser.add_argument(
            "--trajectories",
            nargs="+",
            type=str,
            default=None,
            help="Folders of runs: draw their paths in one plane, whose origin is the end of the first.",
        )
        parser.add_argument(
            "--between",
            nargs="+",
            type=str,
            default=None,
            help="Two or more checkpoints: measure the straight lines between all pairs of them.",
        )

    def _place_run(self) -> None:
        """Measure the first of several checkpoints, or the last one of the first of several runs."""
        settings = self.settings
        several = [key for key in ("trajectories", "between") if settings[key]]
        for key in several:
            other = next((name for name in (*several, "ckpt_path") if name != key and settings[name]), None)
            if other is not None:
                raise ValueError(
                    f"`{key}` (={' '.join(settings[key])}) and `{other}` (={settings[other]}) both name a"
                    " run: leave one out"
                )
            settings.ckpt_path = str(checkpoint_file(Path(settings[key][0])))
        super()._place_run()

    def check_without_checkpoint(self) -> None:
        """Without a checkpoint or reference weights, initial weights are measured."""

    @property
    def initial_seeds(self) -> tuple[int, ...]:
        """Seeds of the initial weights to measure; none if the weights come from a file."""
        settings = self.settings
        if settings.ckpt_path is not None or settings.reference_weights is not None:
            return ()
        return tuple(settings.initial_seeds or [int(settings.seed_everything)])

    @property
    def run_folder(self) -> Path:
        """Folder of the run that the checkpoint belongs to; for reference weights that of the settings."""
        path = self.settings.ckpt_path
        if path is None or path == "last":
            return super().run_folder
        return folder_of(Path(path))

    def default_callbacks(self) -> list[dict[str, Any]]:
        """All four analyses; of initial weights those that need no plane; of several runs what they share."""
        names = ["GradientVariance", "HessianSpectrum"]
        if self.settings.trajectories:
            names = ["Trajectory"]
        elif self.settings.between:
            names = ["Interpolation"]
        elif not self.initial_seeds:
            names = ["LossContour", "LossProfile", *names]
        only_centre = {"resolution": None} if self.initial_seeds else {}
        return [
            {
                "class_path": f"{callbacks.__name__}.{name}",
                "init_args": only_centre if name == "GradientVariance" else {},
            }
            for name in names
        ]

    def before_instantiate_classes(self) -> None:
        """Refuse seeds that are none, and checkpoints that are unlike."""
        if self.settings.between:
            check_alike(between_files(self.settings.between))
        seeds = self.settings.initial_seeds
        if seeds is not None and not self.initial_seeds:
            raise ValueError(f"`initial_seeds` (={seeds}) need a network without a checkpoint: leave one out")
        if seeds is not None and (
            not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds)
        ):
            raise ValueError(f"`initial_seeds` (={seeds}) must be different numbers from 0 to 2**32 - 1")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer with the analyses among the callbacks, and the logger of the run."""
        settings = self.config_init["landscape"]["trainer"]
        given = as_list(settings["callbacks"])
        analyses = [callback for callback in given if isinstance(callback, callbacks.Analysis)]
        for default in self.default_callbacks() if not analyses else ():
            analyses.append(resolve_name(default["class_path"])(**default["init_args"]))
        if self.settings.trajectories:
            self._draw_trajectories(analyses)
        if self.settings.between:
            analyses = self._interpolate(analyses)
        for analysis in analyses:
            if self.settings.ckpt_path is not None and self.trained.is_start and not self.settings.between:
                analysis.initial = START
            else:
                analysis.checkpoint_epoch = -1 if self.settings.ckpt_path is None else self.trained.epoch
        self.analyses = settings["callbacks"] = analyses
        # The analyses run on the whole split, whatever is validated.
        few = self.initial_seeds or self.settings.between
        kwargs |= {"limit_val_batches": 1 if few else 1.0, "fast_dev_run": False}
        logger = run_logger(self.run_folder) if settings["logger"] in (None, True) else settings["logger"]
        trainer = super().instantiate_trainer(logger=logger, **kwargs)
        if self.initial_seeds:
            trainer.networks = self._initial_networks  # type: ignore[attr-defined]
        return trainer

    def _draw_trajectories(self, analyses: Sequence[callbacks.Analysis]) -> None:
        """Give the runs of `trajectories` to the analysis of paths; a ValueError if there is none."""
        found = [analysis for analysis in analyses if isinstance(analysis, callbacks.Trajectory)]
        if not found:
            raise ValueError("`trajectories` needs the callback Trajectory: add it, or leave callbacks out")
        for analysis in found:
            analysis.share_plane(self.settings.trajectories[1:])

    def _interpolate(self, analyses: Sequence[callbacks.Analysis]) -> list[callbacks.Analysis]:
        """The analyses of lines, which get the checkpoints of `between`; a ValueError if there is none."""
        found = [analysis for analysis in analyses if isinstance(analysis, callbacks.Interpolation)]
        if not found:
            raise ValueError("`between` needs the callback Interpolation: add it, or leave callbacks out")
        for analysis in found:
            if analysis.start_checkpoint != "start":
                rank_zero_info(f"`between` names both ends: `start` (={analysis.start_checkpoint}) is unused")
            analysis.between = tuple(between_files(self.settings.between))
        return list(found)

    def _moment(self, seed: int) -> str:
        """End of the names of the files of initial weights."""
        return START if seed == int(self.settings.seed_everything) else f"{START}-seed{seed}"

    def _initial_networks(self, model: CellClassifier) -> Iterator[CellClassifier]:
        """A network with the weights from which `fit` starts, for each seed."""
        settings = self.settings.model.as_dict()
        for key in ("optimizer", "lr_scheduler"):
            settings.pop(key, None)
        for seed in self.initial_seeds:
            rank_zero_info(f"no checkpoint: the initial weights of seed {seed}")
            for analysis in self.analyses:
                analysis.initial = self._moment(seed)
            seed_everything(seed, workers=True, verbose=False)
            yield CellClassifier(**settings | {"num_classes": self.datamodule.num_classes})

    def after_landscape(self) -> None:
        """Print what was measured of initial weights, with mean and standard deviation over the seeds."""
        if not self.trainer.is_global_zero:
            return
        if self.settings.between:
            self._say_barriers()
            return
        if not self.initial_seeds:
            folder = self.run_folder / "landscape"
            names = tuple(f"{analysis.name}-" for analysis in self.analyses)
            files = [path for path in landscape_files(folder) if path.name.startswith(names)]
            count = len(self.analyses)
            say_end(
                f"{count} {'analysis' if count == 1 else 'analyses'} measured",
                folder,
                [["plot", str(files[0])]] if files else [],
            )
            return
        rows = []
        for analysis in self.analyses:
            paths = [
                Path(analysis.folder or "", f"{analysis.name}-{self._moment(seed)}.nc")
                for seed in self.initial_seeds
            ]
            found = [analysis_statistics(read_dataset(path)) for path in paths]
            for name, words in INITIAL_STATISTICS.items():
                if all(name in one for one in found):
                    values = [float(one[name]) for one in found]
                    if all(map(math.isnan, values)):
                        continue  # not asked for
                    row = [words, analysis.split, *(f"{value:.4g}" for value in values)]
                    if len(values) > 1:
                        row += [f"{statistics.mean(values):.4g}", f"{statistics.stdev(values):.2g}"]
                    rows.append(row)
        seeds = [f"seed {seed}" for seed in self.initial_seeds]
        header = ["at initialisation", "split", *seeds, *(("mean", "sd") if len(seeds) > 1 else ())]
        print(table(header, rows, left=2))

    def _say_barriers(self) -> None:
        """Print the barriers between checkpoints, and where their files are."""
        for analysis in self.analyses:
            if isinstance(analysis, callbacks.Interpolation) and analysis.file is not None:
                dataset = read_dataset(analysis.file)
                print(barrier_table(dataset))
                pairs = dataset.sizes["pair"]
                words = f"{pairs} line{'s' * (pairs > 1)} measured"
                say_end(words, analysis.file, [["plot", str(analysis.file)]], kind="file")


def main(arguments: list[str]) -> None:
    """Run `landscape`, the first of the arguments."""
    silence_advice()
    LandscapeCLI(arguments)
