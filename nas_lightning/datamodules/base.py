"""ImageDataModule: images that live on the training device, cut into batches and augmented there."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64, UInt8
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader

from nas_lightning.class_balance import ClassBalance
from nas_lightning.datamodules.augmentation import AugmentationDraws, augment, draw_augmentation, normalise
from nas_lightning.datamodules.checks import check_images, check_integer
from nas_lightning.datamodules.sampling import (
    EvaluationSampler,
    ImageBatch,
    IndexBatch,
    TrainingSampler,
    derive_seed,
    index_loader,
    stratified_split,
    stratified_subset,
)
from nas_lightning.provenance import run_seed

LabelledImages = tuple[UInt8[Tensor, "count 3 size size"], Int64[Tensor, " count"]]
"""Grey values 0 .. 255 of a split's images in colour, and the class of each image."""
OfficialSplit = Literal["train", "test"]
Split = Literal["train", "val", "test"]


class ImageDataModule(LightningDataModule, ABC):
    """A data set of small images for classification, with the paper's augmentation.

    The images stay on the training device as uint8 tensors. Loaders yield positions; whole batches are cut
    out, augmented and normalised on the device. A subclass sets the class attributes and writes
    ``load_split``, and ``prepare_data`` if files have to be fetched or converted.

    Attributes:
        name: Name of the data set in logs and tables.
        num_classes: Number of classes.
        image_size: Height and width of the images in pixels.
        mean: Mean of each channel over the training split, in [0, 1].
        std: Standard deviation of each channel over the training split, in [0, 1].
        class_names: Names of the classes in the order of their numbers; None where they have none.
        horizontal_flip: Whether training images are mirrored with probability one half.
        padding: Zeros on each side before the random crop.

    Args:
        root: Folder that holds the data sets.
        batch_size: Images per training step over all devices together; each takes batch_size / number of
            devices.
        cutout: Side of the square that is blanked in each training image; 0 switches cutout off.
        validation_fraction: Share of the training split that is held out, stratified by class, and evaluated
            every epoch. 0: the test split is evaluated, as in the paper.
        validation_seed: Seed that decides which images are held out.
        seed: Seed of the order of the training images and of their augmentation; None takes that of
            Lightning's ``seed_everything``, or 0 without one.
        evaluation_batch_size: Images per evaluation batch on each device.

    Raises:
        ValueError: If an argument is out of range.
    """

    name: str
    num_classes: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    class_names: tuple[str, ...] | None = None
    horizontal_flip: bool = True
    padding: int = 4

    def __init__(
        self,
        root: str = "data",
        batch_size: int = 80,
        cutout: int = 0,
        validation_fraction: float = 0.0,
        validation_seed: int = 0,
        seed: int | None = None,
        evaluation_batch_size: int = 250,
    ) -> None:
        super().__init__()
        check_integer("batch_size", batch_size, minimum=1)
        check_integer("evaluation_batch_size", evaluation_batch_size, minimum=1)
        check_integer("cutout", cutout, minimum=0)
        check_integer("validation_seed", validation_seed, minimum=0)
        seed = (run_seed() or 0) if seed is None else seed
        check_integer("seed", seed, minimum=0)
        if cutout > self.image_size:
            raise ValueError(
                f"`cutout` (={cutout}) must be at most the image size of {self.name} "
                f"({self.image_size} pixels)"
            )
        if isinstance(validation_fraction, bool) or not 0 <= validation_fraction < 1:
            raise ValueError(
                f"`validation_fraction` (={validation_fraction}) must be at least 0 and less than 1"
            )
        self.save_hyperparameters(logger=False)
        self.root = root
        self._batch_size = batch_size
        self.cutout = cutout
        self.validation_fraction = validation_fraction
        self.validation_seed = validation_seed
        self.seed = seed
        self.evaluation_batch_size = evaluation_batch_size
        self._arrays: dict[str, tuple[Tensor, Tensor]] = {}
        self._rows: dict[str, Tensor] = {}
        self._balance_is_said = False
        self._resident: dict[tuple[str, torch.device], tuple[Tensor, Tensor]] = {}
        self._draws: tuple[tuple[int, torch.device], AugmentationDraws] | None = None

    @abstractmethod
    def load_split(self, split: OfficialSplit) -> LabelledImages:
        """Read one of the two official splits, on the CPU; a memory map will do."""

    @property
    def batch_size(self) -> int:
        """Images per training step over all devices together.

        Lightning's BatchSizeFinder sets it; what is set is at most the size of the training split.
        """
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        check_integer("batch_size", value, minimum=1)
        self._batch_size = min(value, self.split_sizes["train"]) if self._rows else value

    @property
    def evaluation_split(self) -> Literal["val", "test"]:
        """The split evaluated after every epoch: ``"test"``, or ``"val"`` where a part is held out."""
        return "val" if self.validation_fraction else "test"

    @property
    def split_sizes(self) -> dict[str, int]:
        """Number of images of each split; known after ``setup``."""
        self._require_setup()
        return {split: len(rows) for split, rows in self._rows.items()}

    @property
    def class_balance(self) -> ClassBalance:
        """Number of images of each class in each split; known after ``setup``."""
        self._require_setup()
        counts = {}
        for split, rows in self._rows.items():
            _, targets = self._arrays[_source(split)]
            counts[split] = torch.bincount(targets[rows], minlength=self.num_classes).numpy()
        return ClassBalance(counts, self.class_names)

    def setup(self, stage: str | None = None) -> None:
        """Load both splits and hold out the validation part. Calling it again costs nothing.

        Before a training it says which classes have many images and which have few or none, where they are
        uneven.

        Raises:
            ValueError: If the sizes do not fit: the batch is not divisible by the number of devices or larger
                than the training split, or the held-out part is smaller than one image per class.
            FileNotFoundError: If the files are not there (``prepare_data`` puts them there).
        """
        self._per_device_batch_size()
        if not self._arrays:
            arrays = {"train": self.load_split("train"), "test": self.load_split("test")}
            for split, (images, targets) in arrays.items():
                check_images(
                    f"{self.name}, {split} split", images, targets, self.image_size, self.num_classes
                )
            self._rows = self._divide(arrays["train"][1], len(arrays["test"][1]))
            self._arrays = arrays
            if not self.validation_fraction:
                rank_zero_info(
                    f"{self.name}: loss and accuracy of every epoch are measured on the test split, as in "
                    "the paper (`validation_fraction` = 0)"
                )
        if self.batch_size > self.split_sizes["train"]:
            raise ValueError(
                f"`batch_size` (={self.batch_size}) must be at most the size of the training split of "
                f"{self.name} ({self.split_sizes['train']} images)"
            )
        if stage == "fit" and not self._balance_is_said:
            self._balance_is_said = True
            for line in self.class_balance.lines(self.name):
                rank_zero_info(line)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches of the training split; an incomplete last batch is dropped."""
        world_size, rank = self._world()
        count = self.split_sizes["train"]
        sampler = TrainingSampler(count, num_replicas=world_size, rank=rank, seed=self.seed)
        return index_loader("train", sampler, self._per_device_batch_size())

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of ``evaluation_split``; of :meth:`evaluated_part` where the trainer has a limit."""
        return self._limited_dataloader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of the test split; of :meth:`evaluated_part` where the trainer has a limit."""
        return self._limited_dataloader("test")

    def evaluated_part(self, stage: Literal["val", "test"]) -> Int64[Tensor, " part"] | None:
        """Positions of the images that are evaluated under ``trainer.limit_val_batches`` or ``_test_``.

        The limit counts batches of one process; they hold the same images on any number of devices and in
        every epoch: a random subset, stratified by class and drawn by ``validation_seed``. None: all.

        Raises:
            ValueError: If the limit leaves no batch.
        """
        limit = getattr(self.trainer, f"limit_{stage}_batches", 1.0)
        split: Split = self.evaluation_split if stage == "val" else "test"
        size = self.split_sizes[split]
        batches = math.ceil(size / self.evaluation_batch_size)
        kept = int(batches * limit) if isinstance(limit, float) else limit
        if not limit or kept >= batches:
            return None
        if kept == 0:
            raise ValueError(
                f"`trainer.limit_{stage}_batches` (={limit}) leaves none of the {batches} batches of the"
                f" {split} split of {self.name}: take more, or a smaller `data.evaluation_batch_size`"
            )
        _, targets = self._arrays[_source(split)]
        part = min(kept * self.evaluation_batch_size, size)
        return stratified_subset(targets[self._rows[split]], part, self.validation_seed)

    def describe_evaluation(self, stage: Literal["val", "test"]) -> dict[str, Any] | None:
        """What is evaluated in place of a whole split, in words and numbers; None if all of it is.

        A class with a loader of its own gets its first batches, as Lightning takes them.
        """
        split = self.evaluation_split if stage == "val" else "test"
        name = f"{stage}_dataloader"
        if getattr(type(self), name) is not getattr(ImageDataModule, name):
            limit = getattr(self.trainer, f"limit_{stage}_batches", 1.0)
            if not limit or (isinstance(limit, float) and limit == 1.0):
                return None
            first = str(limit) if isinstance(limit, int) else f"{limit:.0%} of the"
            chosen = f"the first {first} batches of its own loader"
            return {"split": split, "images": None, "of": self.split_sizes[split], "chosen": chosen}
        part = self.evaluated_part(stage)
        if part is None:
            return None
        chosen = f"at random, stratified by class, validation_seed {self.validation_seed}"
        return {"split": split, "images": len(part), "of": self.split_sizes[split], "chosen": chosen}

    def _limited_dataloader(self, stage: Literal["val", "test"]) -> DataLoader[Any]:
        split: Split = self.evaluation_split if stage == "val" else "test"
        part = self.evaluated_part(stage)
        if part is None:
            return self.evaluation_dataloader(split)
        world_size, rank = self._world()
        # A share would be taken of the part once more; the loader has no more batches than this.
        setattr(self.trainer, f"limit_{stage}_batches", math.ceil(len(part) / self.evaluation_batch_size))
        sampler = EvaluationSampler(len(part), num_replicas=world_size, rank=rank, positions=part)
        return index_loader(split, sampler, self.evaluation_batch_size)

    def evaluation_dataloader(self, split: Split) -> DataLoader[Any]:
        """Batches of any split in its own order, without augmentation.

        Args:
            split: Which split; ``"train"`` is the part that is trained on.

        Returns:
            The loader of this rank. Where the ranks do not divide the split, entries with target -1 fill the
            last batch.

        Raises:
            ValueError: If there is no such split.
        """
        if split not in self.split_sizes:
            raise ValueError(f"{self.name} has no split {split!r}: it has {', '.join(map(repr, self._rows))}")
        world_size, rank = self._world()
        sampler = EvaluationSampler(self.split_sizes[split], num_replicas=world_size, rank=rank)
        return index_loader(split, sampler, self.evaluation_batch_size)

    def split_arrays(self, split: Split) -> LabelledImages:
        """All images and targets of a split on the CPU, in its own order, as they are on disk."""
        self._require_setup()
        images, targets = self._arrays[_source(split)]
        rows = self._rows[split]
        whole = len(rows) == len(targets)
        return (images, targets) if whole else (images[rows], targets[rows])

    def normalise(
        self, images: UInt8[Tensor, "batch channels height width"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "batch channels height width"]:
        """What the network sees of un-augmented images: (x / 255 - mean) / std for each channel."""
        return normalise(images, self.mean, self.std, dtype)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int = 0) -> Any:
        """Look up the images of an IndexBatch in the tensors on ``device``."""
        if not isinstance(batch, IndexBatch):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        images, targets = self._on_device(_source(batch.split), device)
        rows = self._rows[batch.split][batch.indices.clamp(min=0)].to(images.device)
        padding = (batch.indices < 0).to(images.device)
        return ImageBatch(batch, images[rows], targets[rows].masked_fill(padding, -1))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Augment (training batches only) and normalise: (inputs [batch, 3, size, size], targets [batch])."""
        if not isinstance(batch, ImageBatch):
            return batch
        images, epoch = batch.images, batch.source.epoch
        module = None if self.trainer is None else self.trainer.lightning_module
        dtype = torch.float32 if module is None else module.dtype
        if not isinstance(dtype, torch.dtype):
            dtype = torch.float32
        if epoch is None:
            return self.normalise(images, dtype), batch.targets
        draws = self._epoch_draws(epoch, images.device).select(batch.source.indices.to(images.device))
        inputs = augment(
            images, draws, self.mean, self.std, padding=self.padding, cutout_length=self.cutout, dtype=dtype
        )
        return inputs, batch.targets

    def teardown(self, stage: str) -> None:
        """Free the copies on accelerators; the next stage makes them again."""
        self._resident.clear()
        self._draws = None

    def _epoch_draws(self, epoch: int, device: torch.device) -> AugmentationDraws:
        """The augmentation of every training image in this epoch, the same on every rank and device."""
        if self._draws is None or self._draws[0] != (epoch, device):
            generator = torch.Generator().manual_seed(derive_seed("augmentation", self.seed, epoch))
            draws = draw_augmentation(
                self.split_sizes["train"],
                self.image_size,
                generator,
                padding=self.padding,
                flip=self.horizontal_flip,
            )
            self._draws = ((epoch, device), draws.to(device))
        return self._draws[1]

    def _on_device(self, source: str, device: torch.device) -> tuple[Tensor, Tensor]:
        self._require_setup()
        key = (source, torch.device(device))
        if key not in self._resident:
            images, targets = self._arrays[source]
            self._resident[key] = (images.to(device), targets.to(device))
        return self._resident[key]

    def _world(self) -> tuple[int, int]:
        """Number of ranks and the rank of this process."""
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _per_device_batch_size(self) -> int:
        world_size, _ = self._world()
        if self.batch_size % world_size:
            raise ValueError(
                f"`batch_size` (={self.batch_size}) must be divisible by the number of devices "
                f"({world_size}): it is the size of the global batch, which the devices share equally"
            )
        return self.batch_size // world_size

    def _divide(self, targets: Tensor, test_size: int) -> dict[str, Tensor]:
        """Rows of each split in its source: all of them, or the training split divided in two."""
        rows = {"train": torch.arange(len(targets)), "test": torch.arange(test_size)}
        if self.validation_fraction:
            held_out = round(self.validation_fraction * len(targets))
            try:
                rows["train"], rows["val"] = stratified_split(targets, held_out, self.validation_seed)
            except ValueError as error:
                raise ValueError(
                    f"`validation_fraction` (={self.validation_fraction}) does not suit {self.name}: {error}"
                ) from error
        return rows

    def _require_setup(self) -> None:
        if not self._arrays and not self._rows:
            raise RuntimeError(f"{self.name}: call `prepare_data()` and `setup()` before using the data")


def _source(split: str) -> str:
    """The official split that a split's images are taken from."""
    return "test" if split == "test" else "train"
