"""CIFAR-10 and CIFAR-100 through torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from nas_lightning.datamodules.base import ImageDataModule, LabelledImages, OfficialSplit
from nas_lightning.datamodules.download import check_md5, fetch
from nas_lightning.datamodules.storage import disk_errors, locked, partial_folder


class CIFAR10(ImageDataModule):
    """50,000 training and 10,000 test images of 10 classes, 32x32, in colour.

    ``torchvision.datasets.CIFAR10`` reads them from ``ROOT/cifar-10-batches-py`` after it has checked the MD5
    of every file. If that folder is missing, it is unpacked from ``ROOT/cifar-10-python.tar.gz``; if that
    archive is missing too, it is downloaded. Arguments as in ImageDataModule.

    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images" (2009); mean and standard
    deviation as in the DARTS family of code.
    """

    name = "CIFAR-10"
    num_classes = 10
    image_size = 32
    class_names: tuple[str, ...] = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    mean = (0.49139968, 0.48215827, 0.44653124)
    std = (0.24703233, 0.24348505, 0.26158768)

    torchvision_name: ClassVar[str] = "CIFAR10"

    @property
    def official(self) -> Any:
        """The class of torchvision, which knows address, files, MD5 and format of the data set."""
        from torchvision import datasets  # takes a second to import

        return getattr(datasets, self.torchvision_name)

    @property
    def folder(self) -> Path:
        """The folder of the unpacked files."""
        return Path(self.root, self.official.base_folder)

    @property
    def archive(self) -> Path:
        """Where the official archive belongs."""
        return Path(self.root, self.official.filename)

    def prepare_data(self) -> None:
        """Unpack the archive, and download it first if it is missing.

        Raises:
            FileNotFoundError: If there is neither folder nor archive nor network.
            ValueError: If the archive is not the official one.
            OSError: If the files cannot be written.
        """
        from torchvision.datasets.utils import extract_archive

        if self.folder.is_dir():
            return
        with locked(self.folder):
            if self.folder.is_dir():
                return
            fetch(self.official.url, self.archive, self.official.tgz_md5)
            with partial_folder(self.folder) as partial, disk_errors(self.folder):
                extract_archive(str(self.archive), str(partial))
                (partial / self.folder.name).replace(self.folder)

    def load_split(self, split: OfficialSplit) -> LabelledImages:
        """Check the files and read one split.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If a file is not the official one.
        """
        try:
            dataset = self.official(Path(self.root), train=split == "train")
        except RuntimeError:
            self._check_files()  # torchvision does not say which file is at fault
            raise
        # The arrays as they are in the files: torchvision shows them with the channels last.
        images = torch.from_numpy(dataset.data.transpose(0, 3, 1, 2))
        return images, torch.tensor(dataset.targets, dtype=torch.int64)

    def _check_files(self) -> None:
        """Raise the error that names the first file which is missing or altered, and the remedy."""
        official = self.official
        meta = (official.meta["filename"], official.meta["md5"])
        remedy = f"delete {self.folder}, and the next start unpacks it again from {self.archive.name}"
        for file_name, md5 in (*official.train_list, *official.test_list, meta):
            path = self.folder / file_name
            if not path.is_file():
                raise FileNotFoundError(f"{path}: missing; {remedy}")
            check_md5(path, md5, remedy)


_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea
seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


class CIFAR100(CIFAR10):
    """50,000 training and 10,000 test images of 100 (fine) classes, 32x32, in colour.

    Read from ``ROOT/cifar-100-python`` or ``ROOT/cifar-100-python.tar.gz``; otherwise as CIFAR10.
    """

    name = "CIFAR-100"
    num_classes = 100
    class_names = tuple(_CIFAR100_CLASSES.split())
    mean = (0.50707516, 0.48654887, 0.44091784)
    std = (0.26733429, 0.25643846, 0.27615047)

    torchvision_name = "CIFAR100"
