"""Stems: what comes before the first cell."""

from __future__ import annotations

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from nas_lightning.cells import StackPlan


class CifarStem(nn.Sequential):
    """A 3x3 convolution with batch norm, whose output both inputs of the first cell read (DARTS, 3.2).

    Args:
        channels: Channels of the output.
        stride: Stride of the convolution.
    """

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__(
            OrderedDict[str, nn.Module](
                convolution=nn.Conv2d(3, channels, 3, stride, padding=1, bias=False),
                norm=nn.BatchNorm2d(channels),
            )
        )


class ImageNetStem(nn.Module):
    """Three 3x3 convolutions of stride 2 for images of 224 x 224 pixels (DARTS's network for ImageNet).

    ``first``: convolution to half the channels, batch norm, ReLU, convolution, batch norm; ``second``: ReLU,
    convolution, batch norm. The first cell reads the output of ``first`` as input 0 and that of ``second`` as
    input 1 (Liu et al., ICLR 2019, the authors' code).

    Args:
        channels: Channels of both outputs, an even number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            OrderedDict[str, nn.Module](
                convolution_1=nn.Conv2d(3, channels // 2, 3, stride=2, padding=1, bias=False),
                norm_1=nn.BatchNorm2d(channels // 2),
                relu=nn.ReLU(inplace=True),
                convolution_2=nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
                norm_2=nn.BatchNorm2d(channels),
            )
        )
        self.second = nn.Sequential(
            OrderedDict[str, nn.Module](
                relu=nn.ReLU(),
                convolution=nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
                norm=nn.BatchNorm2d(channels),
            )
        )

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch channels _ _"], Float[Tensor, "batch channels _ _"]]:
        """Both outputs: at a quarter and at an eighth of the resolution."""
        first = self.first(x)
        return first, self.second(first)


def build_stem(plan: StackPlan, stem_stride: int) -> CifarStem | ImageNetStem:
    """The stem of a planned network."""
    if plan.stem == "imagenet":
        return ImageNetStem(plan.stem_channels)
    return CifarStem(plan.stem_channels, stem_stride)


def stem_outputs(
    stem: nn.Module, x: Float[Tensor, "batch 3 height width"]
) -> tuple[Float[Tensor, "batch channels _ _"], Float[Tensor, "batch channels _ _"]]:
    """Inputs 0 and 1 of the first cell: one tensor, or with the ImageNet stem two."""
    outputs = stem(x)
    return outputs if isinstance(outputs, tuple) else (outputs, outputs)
