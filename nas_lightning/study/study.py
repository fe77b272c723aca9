"""A study and its parts: architectures, runs, and their analyses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from nas_lightning.cells import Genotype, cell_depth, cell_width, published_variants

VariantKind: TypeAlias = Literal["original", "connections", "operations", "adapted", "own", "sampled"]

BETWEEN_SEEDS: Mapping[str, str] = {"interpolation": "interpolation", "connectivity": "mode_connectivity"}
"""What a study can measure between the seeds of an architecture, and how the name of its file begins."""


@dataclass(frozen=True)
class Architecture:
    """A genotype and where it comes from.

    Attributes:
        spec: Genotype spec as ``nas-lightning fit --model.genotype`` takes it; names are in full.
        genotype: The cells.
        family: Name of the published genotype it is or varies; the spec's own short name for other cells.
        variant: ``"original"``, ``"C1"`` to ``"C13"``, ``"connections=7"``, ``"operations=3"``,
            ``"adapted"``, the name of a published variant, such as ``"darts_conn1"``, or ``"own"``.
        kind: What the variant changes; C1 to C13 have other connections. ``"sampled"`` is a cell drawn from a
            search space: its family is the space, its variant an identifier such as ``"cell 17"``.
        notes: What a user should know of how its genotype was read.
    """

    spec: str
    genotype: Genotype
    family: str
    variant: str
    kind: VariantKind
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def label(self) -> str:
        """Short name, unique within a study: ``darts_v2``, ``darts_v2:C4`` or ``darts_conn1``."""
        if self.variant in ("original", "own"):
            return self.family
        return self.variant if self.variant in published_variants() else f"{self.family}:{self.variant}"

    @property
    def width(self) -> float:
        """Width of the normal cell in units of c."""
        return cell_width(self.genotype.normal, self.genotype.normal_concat)

    @property
    def depth(self) -> int:
        """Depth of the normal cell."""
        return cell_depth(self.genotype.normal, self.genotype.normal_concat)


@dataclass(frozen=True)
class AnalysisFile:
    """An analysis of a run: at its end and, if its settings say so, at its start and during it.

    Attributes:
        stem: Beginning of its file's name, such as ``"loss_contour"``.
        settings: The callback's ``class_path`` and all its ``init_args``.
    """

    stem: str
    settings: Mapping[str, Any] = field(hash=False)

    def path(self, folder: Path, epochs: int) -> Path:
        """The file in a run's folder, of the network after ``epochs`` epochs; after none, of its start."""
        moment = f"epoch{epochs - 1:04d}" if epochs else "start"
        return folder / "landscape" / f"{self.stem}-{moment}.nc"

    def measured_after(self, epochs: int) -> tuple[int, ...]:
        """After how many epochs of a training of `epochs` it measures, rising; 0 is the start."""
        given = self.settings.get("init_args") or {}
        every = given.get("every_n_epochs") or max(epochs, 1)
        during = range(every, epochs, every)
        start = (0,) if given.get("at_start") else ()
        return (*start, *during, *((epochs,) if given.get("at_end", True) else ()))


@dataclass(frozen=True)
class Run:
    """One training of a study, with its analyses.

    Attributes:
        name: Name of its folder, the same in every study that has this training and calls the cells alike.
        folder: ``root/experiment/name``.
        architecture: What is trained.
        data: Name of the data class, such as ``"CIFAR10"``.
        learning_rate: Initial learning rate, or None where the optimiser has none in the settings.
        seed: ``seed_everything``.
        epochs: Number of epochs.
        settings: All settings of the training with dotted keys, as the command line resolves them.
        analyses: The analyses, in order of their stems.
        arguments: Arguments of ``nas-lightning``, from ``fit`` on, without ``--ckpt_path``.
        deciding: Those of the settings that decide the training, as ``result.json`` keeps them.
    """

    name: str
    folder: Path
    architecture: Architecture
    data: str
    learning_rate: float | None
    seed: int
    epochs: int
    settings: Mapping[str, Any] = field(hash=False)
    analyses: tuple[AnalysisFile, ...]
    arguments: tuple[str, ...]
    deciding: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def data_set(self) -> str:
        """Name of the data set in plans and tables: the data class, or the folder of any images."""
        return str(self.deciding.get("data.folder", self.data))

    @property
    def is_regularized(self) -> bool:
        """Whether it trains with cutout, drop path or the auxiliary tower."""
        keys = ("model.drop_path", "model.auxiliary_weight", "data.init_args.cutout")
        return any(bool(self.settings.get(key)) for key in keys)

    def limited_batches(self, batches: int) -> int:
        """Training batches of an epoch under the trainer's limits, as Lightning understands them.

        Args:
            batches: Batches of the whole split.

        Returns:
            The number. A limit is a share of the batches if it is a float up to 1, otherwise a number; a
            float above 1 is a number, because the command line may read ``3`` as ``3.0``.
        """
        for key in ("trainer.limit_train_batches", "trainer.overfit_batches"):
            limit = self.settings.get(key)
            if limit:
                is_share = isinstance(limit, float) and limit <= 1
                batches = int(batches * limit) if is_share else min(int(limit), batches)
        return batches


@dataclass(frozen=True)
class Imported:
    """Published results in place of runs of one's own.

    Attributes:
        source: ``"random-darts"``, ``"nds"`` or ``"table"``.
        date: Day of the import, such as ``"2026-11-27"``.
        citation: Who made the results; may be empty.
        url: Where they are; may be empty.
        licence: Under which licence.
        files: Name and SHA-256 of every file that was read.
        runs: Table of the runs, a Parquet file.
        curves: Table of the curves, a Parquet file.
        sums: SHA-256 of ``runs`` and ``curves``.
        stated: Values that the files do not record, and where each is said, by column.
        unknown: What neither the files nor the source's description say, in words.
        left_out: Number of runs that could not be used.
        problems: What was left out and why, and what else a reader must know; a line each.
    """

    source: str
    date: str
    citation: str
    url: str
    licence: str
    files: tuple[tuple[str, str], ...]
    runs: Path
    curves: Path
    sums: tuple[str, str]
    stated: Mapping[str, Mapping[str, Any]] = field(hash=False)
    unknown: tuple[str, ...]
    left_out: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """A comparison: which runs, and where they go.

    Attributes:
        name: Name of the study.
        title: One line about it.
        file: The YAML file.
        root: Folder of all logs, such as ``tb_logs``.
        experiment: Folder of the runs in it; studies with the same experiment share their runs.
        runs: The runs, each once; none of imported results.
        imported: Where published results come from and where their tables lie; None for runs of one's own.
        between_seeds: Configurations of what is measured between the seeds of each architecture, by name, see
            :mod:`nas_lightning.study.between`.
    """

    name: str
    title: str
    file: Path
    root: Path
    experiment: str
    runs: tuple[Run, ...]
    imported: Imported | None = None
    between_seeds: Mapping[str, tuple[Path, ...]] = field(default_factory=dict, hash=False)

    @property
    def folder(self) -> Path:
        """Folder of the runs."""
        return self.root / self.experiment

    @property
    def output_folder(self) -> Path:
        """Folder of the result tables and of the report."""
        return self.folder / "reports" / self.name
