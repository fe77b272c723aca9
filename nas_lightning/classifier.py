"""CellClassifier: a cell network with the paper's training recipe, as a LightningModule."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR
from torchmetrics import Metric

from nas_lightning.acceleration import LEVELS, Accelerated, Level, Speed, accelerate, check_speed, level_of
from nas_lightning.callbacks.cell_summary import CellSummary
from nas_lightning.callbacks.checkpoint_structure import check_shapes
from nas_lightning.callbacks.confusion_matrix import ConfusionMatrix
from nas_lightning.callbacks.drop_path import DropPathSchedule
from nas_lightning.callbacks.loader_batches import labelled_images
from nas_lightning.callbacks.loader_classes import has_uneven_classes
from nas_lightning.callbacks.own_code import read_allowed_checkpoint
from nas_lightning.callbacks.run_record import RunRecord
from nas_lightning.cells import (
    Stem,
    cell_depth,
    cell_width,
    genotype_slug,
    get_genotype,
    import_operations,
)
from nas_lightning.cells.spec import published_base
from nas_lightning.image_record import ImageRecord, read_image_record
from nas_lightning.metrics import PADDING, BalancedAccuracy, MeanLoss, top_k_accuracy
from nas_lightning.networks import CellNetwork, measure_size
from nas_lightning.optimization import fuse_sgd, picklable, set_learning_rate
from nas_lightning.prediction import Predictions, classify, record_of, record_of_settings
from nas_lightning.provenance import run_seed
from nas_lightning.torch_files import on_this_machine


class CellClassifier(LightningModule):
    """Image classification with a network of stacked cells.

    The defaults are the training recipe of Shu et al. (ICLR 2020), appendix A.3: SGD with learning rate
    0.025, momentum 0.9 and weight decay 3e-4, annealed to zero over all epochs by a cosine, no
    regularisation. Gradient clipping (5), the number of epochs (600) and the batch size (80) belong to the
    trainer and the data.

    Only live parameters are trained: what no path connects to the classifier (or, in training, to the
    auxiliary tower) stays in the parameter count and is left out of the optimiser.

    Args:
        genotype: Name, spec, YAML file, literal or mapping, see :func:`nas_lightning.cells.get_genotype`.
        num_classes: Number of classes; the command line takes it from the data set.
        init_channels: Channels of the nodes of the first cell.
        num_cells: Number of stacked cells.
        stem_stride: Stride of the first convolution: 2 for Tiny-ImageNet (appendix A.3), otherwise 1.
        drop_path: Largest drop-path probability, reached linearly over the epochs by a
            :class:`nas_lightning.callbacks.DropPathSchedule`, which the module brings; 0 is off.
        auxiliary_weight: Weight of the auxiliary tower's loss in training; 0 leaves the tower out.
        optimizer: Makes the optimiser from the live parameters.
        lr_scheduler: Makes the schedule, stepped once an epoch, from the optimiser; None is the cosine.
        operations: Modules or Python files to import first, which register operations of their own, see
            :func:`nas_lightning.networks.register_operation`.
        stem: What comes before the first cell: ``"cifar"``, or ``"imagenet"`` for images of 224 pixels (three
            convolutions of stride 2; DARTS's network has 14 cells and 48 channels there).
        speed: A level, see :mod:`nas_lightning.acceleration.level`: ``"reference"``, the plain network;
            ``"fast"``, the same float32 mathematics with layers fused; ``"compiled"``, compiled as well;
            ``"max"``, compiled and in bfloat16 where that is safe, with CUDA graphs on a GPU; ``"auto"``,
            ``"fast"``, or ``"compiled"`` on a CPU where the training is long enough to pay for it.
            Checkpoints and logs are the same at every level.

    Attributes:
        images: Size, normalisation and classes of the images that the network was trained on, which its
            checkpoints keep; None where the data were not an ImageDataModule. One that is set before a
            training with other loaders is kept.

    Raises:
        ValueError: If the genotype or a size is not valid.
    """

    network: CellNetwork

    def __init__(
        self,
        genotype: str | dict[str, Any] = "darts_v2",
        num_classes: int = 10,
        init_channels: int = 36,
        num_cells: int = 20,
        stem_stride: int = 1,
        drop_path: float = 0.0,
        auxiliary_weight: float = 0.0,
        optimizer: OptimizerCallable = lambda parameters: SGD(
            parameters, lr=0.025, momentum=0.9, weight_decay=3e-4
        ),
        lr_scheduler: LRSchedulerCallable | None = None,
        operations: Sequence[str] = (),
        speed: Speed = "auto",
        stem: Stem = "cifar",
    ) -> None:
        super().__init__()
        check_speed(speed)
        if not 0 <= drop_path < 1:
            raise ValueError(f"`drop_path` (={drop_path}) must be at least 0 and below 1")
        if auxiliary_weight < 0:
            raise ValueError(f"`auxiliary_weight` (={auxiliary_weight}) must not be negative")
        if auxiliary_weight > 0 and num_cells < 3:
            raise ValueError(
                f"`num_cells` (={num_cells}) must be at least 3 when `auxiliary_weight`"
                f" (={auxiliary_weight}) is above 0: the tower sits after cell 2L/3"
            )
        self.save_hyperparameters(logger=False)
        self._make_optimizer, self._make_lr_scheduler = (
            picklable(make, self.hparams.get(name), CellClassifier, name)
            for name, make in (("optimizer", optimizer), ("lr_scheduler", lr_scheduler))
        )
        for name in ("optimizer", "lr_scheduler"):  # checkpoints hold primitive values only
            if callable(self.hparams.get(name)):
                self.hparams.pop(name)
                cast(dict[str, Any], self._hparams_initial).pop(name, None)

        import_operations(operations)
        self.genotype = get_genotype(genotype)
        self.genotype_name = genotype_slug(genotype)
        if isinstance(genotype, str) and published_base(genotype) is None:
            # A checkpoint must outlive the genotype's file.
            self.hparams["genotype"] = str(self.genotype)
        self.drop_path = drop_path
        self.auxiliary_weight = auxiliary_weight
        self.network = CellNetwork(
            self.genotype,
            num_classes,
            init_channels=init_channels,
            num_cells=num_cells,
            auxiliary=auxiliary_weight > 0,
            stem_stride=stem_stride,
            stem=stem,
            drop_path=drop_path > 0,
        )
        self._learning_rate: float | None = None
        self.speed: Speed = speed
        self._level = LEVELS["reference" if speed == "reference" else "fast"]
        self._accelerated: Accelerated | None = None
        self.images: ImageRecord | None = None
        self._found_images: ImageRecord | None = None

        self.train_loss = MeanLoss()
        self.train_accuracy = top_k_accuracy(num_classes)
        self.evaluation_metrics = nn.ModuleDict(
            {
                "loss": MeanLoss(),
                "accuracy": top_k_accuracy(num_classes),
                "accuracy_top5": top_k_accuracy(num_classes, top_k=5),
            }
        )
        self.balanced_accuracy = BalancedAccuracy(num_classes)
        self._has_uneven_classes = False

    def forward(
        self, inputs: Float[Tensor, "batch channels height width"]
    ) -> (
        Float[Tensor, "batch classes"] | tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes"]]
    ):
        """Logits of the network; with an auxiliary tower, in training mode, (logits, auxiliary logits)."""
        if self._accelerated is None:
            self._accelerated = accelerate(self.network, self._level)
        return self._accelerated(inputs)  # type: ignore[no-any-return]

    def predict_step(self, batch: Any, *_: Any) -> Tensor:
        """Logits [batch, classes] of images, alone or first in a batch with their classes."""
        images = batch[0] if isinstance(batch, list | tuple) else batch
        return self(images)  # type: ignore[no-any-return]

    def classify(self, images: Any, batch_size: int = 250) -> Predictions:
        """The classes of images, as names and probabilities.

        Args:
            images: The path of a file or of a folder, an image of Pillow, uint8 values [batch, 3, height,
                width], or a list of these. What has not the size of the training is resized and cropped.
            batch_size: Images at once.

        Returns:
            The name of each image's most probable class, and the probabilities [images, classes], on the CPU.

        Raises:
            FileNotFoundError: If there is no such file or folder.
            ValueError: If images cannot be read, which its notes name, or the normalisation is not known.
        """
        return classify(self.network, self.images, images, batch_size)

    def configure_callbacks(self) -> list[Callback]:
        """The callbacks that a training needs, in any trainer, but for those that the trainer has.

        They schedule the drop-path probability and seed every batch, report the cells, record the run in
        the loggers and in the folder of the first one, and show the confusion matrix of uneven classes.
        """
        own: list[Callback] = [DropPathSchedule()]
        if self.trainer.state.fn in ("fit", "validate", "test"):
            own.append(ConfusionMatrix(when="uneven"))
        if self.trainer.state.fn == "fit":
            own += [CellSummary(), RunRecord()]
        present: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        return [one for one in own if not any(isinstance(callback, type(one)) for callback in present)]

    def setup(self, stage: str) -> None:
        """Refuse images that the network cannot reduce as often as its cells do."""
        image_size = getattr(getattr(self.trainer, "datamodule", None), "image_size", None)
        if image_size is not None:
            self.network.check_image_size(image_size)

    def on_fit_start(self) -> None:
        """Refuse a level that this machine does not support; note what the images are like."""
        level_of(self.speed, self.device.type, work=0)
        found = record_of(getattr(self.trainer, "datamodule", None))
        # What an earlier training found says nothing of other loaders; what the user has set, or a checkpoint
        # that is resumed, does.
        is_outdated = self.images is self._found_images and not self.trainer.ckpt_path
        if found is not None or is_outdated:
            self.images = self._found_images = found
        if self.images is not None:
            read_image_record(self.images.plain(), self.network.num_classes, "`images`")

    def on_train_start(self) -> None:
        """Choose the level: the length of the training is known, and the checkpoint is loaded."""
        passes = int(self.trainer.num_training_batches) * max(self.trainer.max_epochs or 1, 1)
        self._level = self._level_of(passes)
        # CUDA graphs allow neither several devices nor accumulated gradients.
        cuda_graphs = self.trainer.world_size * self.trainer.accumulate_grad_batches == 1
        self._accelerated = accelerate(self.network, self._level, cuda_graphs=cuda_graphs)
        chosen = f", chosen by `auto` for {passes:,} steps" if self.speed == "auto" else ""
        rank_zero_info(f"speed: {self._level.name}{chosen}; {self._accelerated.description()}")
        if self._level.fused and self.device.type in ("cpu", "cuda"):
            fuse_sgd(self.trainer.optimizers)

    def _level_of(self, passes: int) -> Level:
        """The level for a training of ``passes`` steps, each of which costs three forward passes."""
        datamodule = getattr(self.trainer, "datamodule", None)
        batch_size, image_size = (getattr(datamodule, name, None) for name in ("batch_size", "image_size"))
        work = 0
        if self.speed == "auto" and batch_size and image_size:
            work = 3 * passes * batch_size * measure_size(self.network, image_size).multiply_adds
        return level_of(self.speed, self.device.type, work=work)

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """Cross entropy of a training batch, plus the weighted one of the tower where there is one."""
        inputs, targets = labelled_images(batch, self.network.num_classes)
        output = self(inputs)
        logits, auxiliary_logits = output if self.auxiliary_weight > 0 else (output, None)
        classification_loss = functional.cross_entropy(logits, targets)
        self.train_loss.update(classification_loss.detach() * len(targets), len(targets))
        self.train_accuracy.update(logits.detach(), targets)
        self.log_training_metrics()
        if auxiliary_logits is None:
            return classification_loss
        auxiliary_loss = functional.cross_entropy(auxiliary_logits, targets)
        return classification_loss + self.auxiliary_weight * auxiliary_loss

    @property
    def training_metrics(self) -> dict[str, Metric]:
        """The metrics of the epoch so far, by tag; a checkpoint within the epoch keeps them."""
        return {"loss/train": self.train_loss, "accuracy/train": self.train_accuracy}

    def log_training_metrics(self) -> None:
        """Make the metrics of the epoch so far known to the trainer."""
        self._log(self.training_metrics)

    def on_validation_start(self) -> None:
        """Evaluate the network that the checkpoint holds; note whether the classes are uneven."""
        self.broadcast_statistics()
        self._has_uneven_classes = has_uneven_classes(self.trainer)

    def on_test_start(self) -> None:
        """Note whether the classes are uneven."""
        self._has_uneven_classes = has_uneven_classes(self.trainer)

    def broadcast_statistics(self) -> None:
        """Give every rank the batch-norm statistics of rank 0, which are those of the checkpoint.

        Plain DistributedDataParallel lets each rank keep its own until the next training step.
        """
        if self.trainer.world_size > 1:
            statistics = [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]
            values = torch.cat([buffer.flatten() for buffer in statistics])
            torch.distributed.broadcast(values, src=0)
            parts = torch.split(values, [buffer.numel() for buffer in statistics])
            for buffer, part in zip(statistics, parts, strict=True):
                buffer.copy_(part.view_as(buffer))

    def validation_step(self, batch: Any, batch_index: int) -> STEP_OUTPUT:
        """Count a batch of the evaluation split: the test split, or the held-out part where there is one.

        Where classes are uneven, the balanced accuracy counts too. Callbacks get the logits.
        """
        inputs, targets = labelled_images(batch, self.network.num_classes)
        split = getattr(getattr(self.trainer, "datamodule", None), "evaluation_split", "val")
        return {"logits": self._evaluate(inputs, targets, split)}

    def test_step(self, batch: Any, batch_index: int) -> STEP_OUTPUT:
        """Count a batch of the test split."""
        inputs, targets = labelled_images(batch, self.network.num_classes)
        return {"logits": self._evaluate(inputs, targets, "test")}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser over the live parameters, and the schedule, stepped once an epoch."""
        optimizer = self.make_optimizer()
        if self._make_lr_scheduler is not None:
            scheduler = self._make_lr_scheduler(optimizer)
        else:
            self.check_epochs(self.trainer.max_epochs)
            scheduler = CosineAnnealingLR(optimizer, T_max=self.trainer.max_epochs or 1)
        monitor = getattr(scheduler, "monitor", None)  # the metric that ReduceLROnPlateau follows
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "epoch", "monitor": monitor},
        }

    def make_optimizer(self) -> Optimizer:
        """The optimiser over the live parameters; a ValueError if its settings are not valid."""
        try:
            optimizer: Optimizer = self._make_optimizer(
                [p for p in self.network.parameters() if p.requires_grad]
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"`model.optimizer` is not valid: {error}") from error
        if self._learning_rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = self._learning_rate
        return optimizer

    @property
    def learning_rate(self) -> float | None:
        """The first learning rate, as Lightning's LearningRateFinder sets it; None: the optimiser's own."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float | None) -> None:
        self._learning_rate = value
        if value is not None and self._trainer is not None:
            set_learning_rate(self.trainer, value)

    def check_epochs(self, epochs: int | None) -> None:
        """Refuse a training without an end, over which the cosine cannot take the learning rate to zero."""
        if self._make_lr_scheduler is None and (epochs is None or epochs < 1):
            raise ValueError(
                f"`trainer.max_epochs` (={epochs}) must be at least 1: the learning rate falls to zero"
                " over all epochs; or choose another `model.lr_scheduler`"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the cells themselves, and the settings that a resumption must repeat."""
        checkpoint["seed_everything"] = run_seed()
        checkpoint["trainer"] = {
            "max_epochs": self.trainer.max_epochs,
            "gradient_clip_val": self.trainer.gradient_clip_val,
            "accumulate_grad_batches": self.trainer.accumulate_grad_batches,
        }
        checkpoint["genotype"] = str(self.genotype)
        if self.images is not None:
            checkpoint["images"] = self.images.plain()
        root = getattr(getattr(self.trainer, "datamodule", None), "root", None)
        if isinstance(root, str):
            checkpoint["data_root"] = str(Path(root).absolute())
        for state in checkpoint.get("optimizer_states", ()):
            for group in state["param_groups"]:  # how a step was computed is no part of its state
                group.update({name: None for name in ("fused", "foreach") if name in group})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the weights of other cells or sizes, by the name of what does not fit."""
        trained = checkpoint.get("genotype", str(self.genotype))
        if trained != str(self.genotype):
            raise ValueError(
                f"the checkpoint holds the genotype {trained}, but `model.genotype`"
                f" (={self.hparams.get('genotype')}) is {self.genotype}"
            )
        images = checkpoint.get("images")
        names = images.get("class_names") if isinstance(images, Mapping) else None
        classes = len(checkpoint["state_dict"].get("network.classifier.bias", ()))
        if names and len(names) == classes != self.network.num_classes:
            raise ValueError(
                f"the checkpoint was trained on {classes} classes ({', '.join(map(str, names)):.200}),"
                f" but there are {self.network.num_classes}"
            )
        check_shapes(self.state_dict(), checkpoint["state_dict"])
        if images is not None:
            record = read_image_record(checkpoint["images"], self.network.num_classes)
            self.images = self._found_images = record

    @classmethod
    def setting_names(cls) -> dict[str, inspect.Parameter]:
        """The settings of the module and of those that it derives from, by name."""
        bases = [base for base in cls.__mro__[::-1] if issubclass(base, CellClassifier)]
        return {name: one for base in bases for name, one in inspect.signature(base).parameters.items()}

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: Any, map_location: Any = None, *args: Any, **settings: Any
    ) -> CellClassifier:
        """Make the module of a checkpoint with its weights, as Lightning does.

        A file is checked first: it must be whole, and name no code but this program's, what is imported
        already, the ``operations`` among ``settings``, and what
        :func:`~nas_lightning.callbacks.own_code.recall_own_code` allows. The data need not be there.

        Args:
            checkpoint_path: The file.
            map_location: Where the tensors go; by default to the kind of device that they were on, or to the
                CPU where there is none of it.
            args: Lightning's own arguments.
            settings: Settings of the module in place of the checkpoint's.

        Returns:
            The module.

        Raises:
            ValueError: If the file is damaged, no checkpoint of a CellClassifier, or names other code.
        """
        data: Mapping[str, Any] = {}
        if isinstance(checkpoint_path, str | os.PathLike) and "://" not in str(checkpoint_path):
            known = cls.setting_names()
            checkpoint = read_allowed_checkpoint(Path(checkpoint_path), known, settings)
            data = checkpoint.get("datamodule_hyper_parameters") or {}
        settings.setdefault("weights_only", True)
        try:
            made = super().load_from_checkpoint(
                checkpoint_path, map_location or on_this_machine, *args, **settings
            )
        except (OSError, ValueError):
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{checkpoint_path} cannot be loaded: {reason}") from error
        if made.images is None:
            made.images = made._found_images = record_of_settings(data)
        return made

    def cell_description(self, image_size: int) -> dict[str, int | float]:
        """What runs are compared by: the normal cell's width (in c) and depth, and the network's size."""
        size = measure_size(self.network, image_size)
        return {
            "width": cell_width(self.genotype.normal, self.genotype.normal_concat),
            "depth": cell_depth(self.genotype.normal, self.genotype.normal_concat),
            "parameters": size.parameters,
            "live_parameters": size.live_parameters,
            "multiply_adds": size.multiply_adds,
        }

    def _evaluate(
        self, inputs: Float[Tensor, "batch channels height width"], targets: Int[Tensor, " batch"], split: str
    ) -> Float[Tensor, "batch classes"]:
        """Count a batch; its logits."""
        logits: Tensor = self(inputs)
        losses = functional.cross_entropy(logits, targets, reduction="none", ignore_index=PADDING)
        metrics = {name: cast(Metric, metric) for name, metric in self.evaluation_metrics.items()}
        if self._has_uneven_classes:
            metrics["balanced_accuracy"] = self.balanced_accuracy
        for name, metric in metrics.items():
            if name == "loss":
                metric.update(losses.sum(), (targets != PADDING).sum())
            else:
                metric.update(logits, targets)
        self._log({f"{name}/{split}": metric for name, metric in metrics.items()})
        return logits

    def _log(self, metrics: Mapping[str, Any]) -> None:
        """Make metrics known to the trainer; of a training the run record writes them, one point an epoch."""
        evaluates = self.trainer.state.fn in ("validate", "test")
        logged = evaluates and getattr(self.trainer, "logs_evaluation", True)
        for name, metric in metrics.items():
            self.log(
                name,
                metric,
                on_step=False,
                on_epoch=True,
                logger=logged,
                prog_bar=name.startswith(("loss/", "accuracy/")) and not name.endswith("/train"),
                batch_size=1,  # the metrics carry their own weights
            )
