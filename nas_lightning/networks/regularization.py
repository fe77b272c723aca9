"""The two regularisers that change the network: drop path and the auxiliary tower.

Both are off in the paper's own training and on in its section 5 (Shu et al., ICLR 2020), as in DARTS (Liu et
al., ICLR 2019, section 3.2).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas_lightning.cells import Stem
from nas_lightning.cells.stack import AUXILIARY_CHANNELS, TOWER_STRIDES

POOLED_SIZE = 2
"""Height and width after the tower's pooling, which its second convolution reduces to one pixel."""


def drop_path_factors(
    edges: int, batch: int, probability: Float[Tensor, ""]
) -> Float[Tensor, "{edges} {batch}"]:
    """Random factors of drop path: 0 with the given probability p, otherwise 1 / (1 - p), so of mean 1.

    One factor for every edge and sample, all independent (Larsson et al., FractalNet, ICLR 2017, as used by
    NASNet and DARTS). The random numbers come from the global generator of the probability's device.

    Args:
        edges: Number of edges that may be dropped.
        batch: Number of samples.
        probability: p, at least 0 and below 1, as a tensor, so that changing it recompiles nothing.

    Returns:
        The factors.
    """
    keep = torch.rand(edges, batch, device=probability.device) >= probability
    return keep / (1 - probability)


class AuxiliaryTower(nn.Module):
    """Classifier on the features after cell 2L/3, used in training only (DARTS's towers).

    ReLU, average pooling 5x5 to 2x2 pixels, 1x1 convolution to 128 channels, batch norm, ReLU, 2x2
    convolution to 768 channels, batch norm, ReLU, linear layer. The pooling has stride 3; with the ImageNet
    stem stride 2, and the second batch norm is missing, as in the authors' code and experiments.

    Args:
        channels: Channels of the features, whose height and width are in ``TOWER_INPUT_SIZES``.
        num_classes: Number of classes.
        stem: The stem of the network.
    """

    def __init__(self, channels: int, num_classes: int, stem: Stem = "cifar") -> None:
        super().__init__()
        first, second = AUXILIARY_CHANNELS
        layers = OrderedDict[str, nn.Module](
            relu=nn.ReLU(),
            pool=nn.AvgPool2d(5, stride=TOWER_STRIDES[stem], padding=0, count_include_pad=False),
            convolution_1=nn.Conv2d(channels, first, 1, bias=False),
            norm_1=nn.BatchNorm2d(first),
            relu_1=nn.ReLU(inplace=True),
            convolution_2=nn.Conv2d(first, second, POOLED_SIZE, bias=False),
            norm_2=nn.BatchNorm2d(second),
            relu_2=nn.ReLU(inplace=True),
        )
        if stem == "imagenet":
            del layers["norm_2"]
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(second, num_classes)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Auxiliary logits of the features."""
        return self.classifier(self.features(x).flatten(1))  # type: ignore[no-any-return]
