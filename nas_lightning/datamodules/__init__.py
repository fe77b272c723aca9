"""Data sets as data modules: images on the training device, whole batches augmented there."""

from nas_lightning.datamodules.base import ImageDataModule
from nas_lightning.datamodules.cifar import CIFAR10, CIFAR100
from nas_lightning.datamodules.digits import Digits
from nas_lightning.datamodules.fashion_mnist import FashionMNIST
from nas_lightning.datamodules.hugging_face import HuggingFace
from nas_lightning.datamodules.image_folder import ImageFolder
from nas_lightning.datamodules.synthetic import Synthetic
from nas_lightning.datamodules.tiny_imagenet import TinyImageNet

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "Digits",
    "FashionMNIST",
    "HuggingFace",
    "ImageDataModule",
    "ImageFolder",
    "Synthetic",
    "TinyImageNet",
]
