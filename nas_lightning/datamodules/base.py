"""ImageDataModule: images in uint8, cut into batches and augmented on the training device."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import partial
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
from nas_lightning.datamodules.residence import Resident, check_resident, pinned, stays_on_host, why_on_host
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
from nas_lightning.image_record import class_labels
from nas_lightning.provenance import run_seed

LabelledImages = tuple[UInt8[Tensor, "count 3 size size"], Int64[Tensor, " count"]]
"""Pixel values 0 .. 255 of a split's images in colour, and the class of each image."""
OfficialSplit = Literal["train", "test"]
Split = Literal["train", "val", "test"]


class ImageDataModule(LightningDataModule, ABC):
    """A data set of small images for classification, with the paper's augmentation.

    The images stay on the training device as uint8 tensors, or on the host where they do not fit. Whole
    batches are augmented and normalised on the device. A subclass sets the class attributes and writes
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
        resident: Where the images are. ``"device"``: all of them on the training device, from which loaders
            give positions. ``"host"``: in the host's memory, or in files that are mapped into it; a thread
            gathers the next three batches, in pinned memory for a GPU, which are copied while it computes.
            ``"auto"``: on a GPU where the splits of the training take at most half of its free memory,
            otherwise on the host; on a CPU they stay as they are. The batches are the same bit for bit.

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
        resident: Resident = "auto",
    ) -> None:
        super().__init__()
        check_resident(resident)
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
        self.save_hyperparameters(logger=False, ignore="resident")  # it may change at any time
        self.resident = resident
        self.root = root
        self._batch_size = batch_size
        self.cutout = cutout
        self.validation_fraction = validation_fraction
        self.validation_seed = validation_seed
        self.seed = seed
        self.evaluation_batch_size = evaluation_batch_size
        self._arrays: dict[str, tuple[Tensor, Tensor]] = {}
        self._balance_is_said = False
        self._rows: dict[str, Tensor | None] = {}
        self._sizes: dict[str, int] = {}
        self._stage: str | None = None
        self._for_host: dict[torch.device, bool] = {}
        self._copies: dict[tuple[str, torch.device], tuple[Tensor, Tensor]] = {}
        self._draws: tuple[tuple[int, torch.device], AugmentationDraws] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or another process needs. It reads the images again, which a memory map gives free."""
        return self.__dict__ | {"_arrays": {}, "_copies": {}, "_for_host": {}, "_draws": None}

    @abstractmethod
    def load_split(self, split: OfficialSplit) -> LabelledImages:
        """Read one of the two official splits, on the CPU; a memory map will do. The same at every call."""

    @property
    def batch_size(self) -> int:
        """Images per training step over all devices together.

        Lightning's BatchSizeFinder sets it; what is set is at most the size of the training split.
        """
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        check_integer("batch_size", value, minimum=1)
        self._batch_size = min(value, self.split_sizes["train"]) if self._sizes else value

    @property
    def evaluation_split(self) -> Literal["val", "test"]:
        """The split evaluated after every epoch: ``"test"``, or ``"val"`` where a part is held out."""
        return "val" if self.validation_fraction else "test"

    @property
    def split_sizes(self) -> dict[str, int]:
        """Number of images of each split; known after ``setup``."""
        self._require_setup()
        return dict(self._sizes)

    @property
    def class_balance(self) -> ClassBalance:
        """Number of images of each class in each split; known after ``setup``."""
        self._require_setup()
        counts = {
            split: torch.bincount(self._split_targets(split), minlength=self.num_classes).numpy()
            for split in self._rows
        }
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
        self._stage = stage
        if not self._arrays:
            arrays = {"train": self.load_split("train"), "test": self.load_split("test")}
            for split, (images, targets) in arrays.items():
                check_images(
                    f"{self.name}, {split} split", images, targets, self.image_size, self.num_classes
                )
            rows = self._divide(arrays["train"][1], len(arrays["test"][1]))
            self._sizes = {split: len(some) for split, some in rows.items()}
            whole = {source: len(targets) for source, (_, targets) in arrays.items()}
            self._rows = {
                split: None if len(some) == whole[_source(split)] else some for split, some in rows.items()
            }
            self._arrays = arrays
            if self.evaluation_split == "test":
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
        return self._loader("train", sampler, self._per_device_batch_size())

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
        part = min(kept * self.evaluation_batch_size, size)
        return stratified_subset(self._split_targets(split), part, self.validation_seed)

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
        return self._loader(split, sampler, self.evaluation_batch_size)

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
            raise ValueError(
                f"{self.name} has no split {split!r}: it has {', '.join(map(repr, self._sizes))}"
            )
        world_size, rank = self._world()
        sampler = EvaluationSampler(self.split_sizes[split], num_replicas=world_size, rank=rank)
        return self._loader(split, sampler, self.evaluation_batch_size)

    def split_arrays(self, split: Split) -> LabelledImages:
        """All images and targets of a split on the CPU, in its own order, as they are on disk.

        Those of a training split of which a part is held out are copied; :meth:`split_source` copies none.
        """
        images, targets, rows = self.split_source(split)
        return (images, targets) if rows is None else (images[rows], targets[rows])

    def split_source(self, split: Split) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images and targets of the official split that a split is taken from, and the split's rows in it.

        Nothing is copied, and of a memory map nothing is read. The rows are None where it is all of them.
        """
        self._require_setup()
        return *self._official(_source(split)), self._rows[split]

    def stays_on_host(self, size: int, device: torch.device) -> bool:
        """Whether so many bytes of images stay on the host, by ``resident``."""
        return stays_on_host(self.resident, size, device)

    def normalise(
        self, images: UInt8[Tensor, "batch channels height width"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "batch channels height width"]:
        """What the network sees of un-augmented images: (x / 255 - mean) / std for each channel."""
        return normalise(images, self.mean, self.std, dtype)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int = 0) -> Any:
        """Look up the images of an IndexBatch on ``device``, or copy those of an ImageBatch to it."""
        device = torch.device(device)
        if isinstance(batch, IndexBatch):
            if not self._takes_batches_from_host(device):
                return self._look_up(batch, *self._on_device(_source(batch.split), device))
            batch = self._gather(batch, device)
        if not isinstance(batch, ImageBatch):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        return batch.each(lambda part: part.to(device, non_blocking=device.type == "cuda"))

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
        self._copies.clear()
        self._for_host.clear()
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

    def _split_targets(self, split: str) -> Tensor:
        _, targets = self._official(_source(split))
        rows = self._rows[split]
        return targets if rows is None else targets[rows]

    def _official(self, source: OfficialSplit) -> tuple[Tensor, Tensor]:
        if source not in self._arrays:  # this module is a copy
            self._arrays[source] = self.load_split(source)
        return self._arrays[source]

    def _on_device(self, source: OfficialSplit, device: torch.device) -> tuple[Tensor, Tensor]:
        if (source, device) not in self._copies:
            images, targets = self._official(source)
            self._copies[source, device] = (images.to(device), targets.to(device))
        return self._copies[source, device]

    def _gather(self, batch: IndexBatch, device: torch.device | None) -> ImageBatch:
        """Images and targets of a batch on the host, ready to be copied to a device."""
        found = self._look_up(batch, *self._official(_source(batch.split)))
        return found.each(lambda part: pinned(part, device))

    def _look_up(self, batch: IndexBatch, images: Tensor, targets: Tensor) -> ImageBatch:
        """Images and targets of a batch, from those of its official split."""
        chosen, rows = batch.indices.clamp(min=0), self._rows[batch.split]
        chosen = (chosen if rows is None else rows[chosen]).to(images.device)
        padding = (batch.indices < 0).to(images.device)
        return ImageBatch(batch, images[chosen], targets[chosen].masked_fill(padding, -1))

    def _loader(
        self, split: str, sampler: TrainingSampler | EvaluationSampler, batch_size: int
    ) -> DataLoader[Any]:
        """A loader of positions or, where the images stay on the host, of images that are gathered ahead."""
        strategy = getattr(self.trainer, "strategy", None)
        device = None if strategy is None else strategy.root_device
        from_host = self.resident == "host" if device is None else self._takes_batches_from_host(device)
        gather = partial(self._gather, device=device) if from_host else None
        return index_loader(split, sampler, batch_size, gather)

    def _takes_batches_from_host(self, device: torch.device) -> bool:
        """Whether the images of this stage stay on the host; decided once."""
        self._require_setup()
        if device not in self._for_host:
            size = sum(self._official(source)[0].nbytes for source in self._needed())
            self._for_host[device] = self.stays_on_host(size, device)
            if self._for_host[device] and self.resident == "auto":
                rank_zero_info(f"{self.name}: images stay on the host: {why_on_host(size, device)}")
        return self._for_host[device]

    def _needed(self) -> set[OfficialSplit]:
        """The official splits that this stage reads."""
        evaluated = _source(self.evaluation_split)
        stages: dict[str, set[OfficialSplit]] = {
            "fit": {"train", evaluated},
            "validate": {evaluated},
            "test": {"test"},
        }
        return stages.get(self._stage or "", {"train", "test"})

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
            names = class_labels(self.class_names, self.num_classes)
            try:
                rows["train"], rows["val"] = stratified_split(targets, held_out, self.validation_seed, names)
            except ValueError as error:
                raise ValueError(
                    f"`validation_fraction` (={self.validation_fraction}) does not suit {self.name}: {error}"
                ) from error
        return rows

    def _require_setup(self) -> None:
        if not self._sizes:
            raise RuntimeError(f"{self.name}: call `prepare_data()` and `setup()` before using the data")


def _source(split: str) -> OfficialSplit:
    """The official split that a split's images are taken from."""
    return "test" if split == "test" else "train"
