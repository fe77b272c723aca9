"""The stacked-cell network written the plain way, module by module, as the DARTS family of code lays it out.

Slow and obvious on purpose: every edge is a module of its own with its own ReLU, dead branches are computed,
`none` multiplies by zero. Its state-dict keys are those of the DARTS family, so it is the oracle of
`nas_lightning.networks` (values, gradients, parameter counts, reading of reference weights) and the plain
contestant of the benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nas_lightning.cells import Genotype


class Identity(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0.0


class ReLUConvBN(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(), nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)  # type: ignore[no-any-return]


class FactorizedReduce(nn.Module):
    """Halves the resolution: two 1x1 convolutions of stride 2, the second one shifted by one pixel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv_1 = nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        x = torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], dim=1)
        return self.bn(x)  # type: ignore[no-any-return]


def _depthwise(channels: int, kernel: int, stride: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        channels,
        channels,
        kernel,
        stride=stride,
        padding=dilation * (kernel - 1) // 2,
        dilation=dilation,
        groups=channels,
        bias=False,
    )


def _pointwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 1, bias=False)


class SepConv(nn.Module):
    """Depthwise-separable convolution, applied twice; the first one carries the stride."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(),
            _depthwise(channels, kernel, stride),
            _pointwise(channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            _depthwise(channels, kernel, 1),
            _pointwise(channels),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)  # type: ignore[no-any-return]


class DilConv(nn.Module):
    """Depthwise-separable convolution with dilation 2."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(),
            _depthwise(channels, kernel, stride, dilation=2),
            _pointwise(channels),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)  # type: ignore[no-any-return]


class ConvBN(nn.Module):
    """One layer of EEEA-Net's inverted residual: ReLU (or not), convolution, batch norm."""

    def __init__(self, convolution: nn.Conv2d, relu: bool) -> None:
        super().__init__()
        self.act = nn.ReLU() if relu else nn.Identity()
        self.conv = convolution
        self.norm = nn.BatchNorm2d(convolution.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.act(x)))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """EEEA-Net's inverted residual with expansion 1: pointwise, depthwise, linear pointwise, added to its
    input."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.op = nn.Sequential(
            ConvBN(_pointwise(channels), relu=True),
            ConvBN(_depthwise(channels, kernel, stride), relu=True),
            ConvBN(_pointwise(channels), relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return x + out if self.stride == 1 else out


def _row_column_convolution(channels: int, length: int, stride: int) -> nn.Sequential:
    half = length // 2
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, length), stride=(1, stride), padding=(0, half), bias=False),
        nn.Conv2d(channels, channels, (length, 1), stride=(stride, 1), padding=(half, 0), bias=False),
        nn.BatchNorm2d(channels),
    )


class Noise(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return torch.randn_like(x) if self.training else x * 0.0


class SingleSepConv(nn.Module):
    """Depthwise-separable convolution, applied once."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(),
            _depthwise(channels, kernel, stride),
            _pointwise(channels),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)  # type: ignore[no-any-return]


class PlainConv(nn.Module):
    """NAS-Bench-201's convolution: ReLU, convolution, batch norm."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)  # type: ignore[no-any-return]


OPERATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda channels, stride: Zero(stride),
    "max_pool_3x3": lambda channels, stride: nn.MaxPool2d(3, stride=stride, padding=1),
    "avg_pool_3x3": lambda channels, stride: nn.AvgPool2d(3, stride, padding=1, count_include_pad=False),
    "skip_connect": lambda channels, stride: (
        Identity() if stride == 1 else FactorizedReduce(channels, channels)
    ),
    "sep_conv_3x3": lambda channels, stride: SepConv(channels, 3, stride),
    "sep_conv_5x5": lambda channels, stride: SepConv(channels, 5, stride),
    "sep_conv_7x7": lambda channels, stride: SepConv(channels, 7, stride),
    "dil_conv_3x3": lambda channels, stride: DilConv(channels, 3, stride),
    "dil_conv_5x5": lambda channels, stride: DilConv(channels, 5, stride),
    "conv_7x1_1x7": lambda channels, stride: _row_column_convolution(channels, 7, stride),
    "conv_3x1_1x3": lambda channels, stride: _row_column_convolution(channels, 3, stride),
    "inv_res_3x3": lambda channels, stride: InvertedResidual(channels, 3, stride),
    "inv_res_5x5": lambda channels, stride: InvertedResidual(channels, 5, stride),
    "noise": lambda channels, stride: Noise(stride),
    "max_pool_5x5": lambda channels, stride: nn.MaxPool2d(5, stride=stride, padding=2),
    "max_pool_7x7": lambda channels, stride: nn.MaxPool2d(7, stride=stride, padding=3),
    "avg_pool_5x5": lambda channels, stride: nn.AvgPool2d(5, stride, padding=2, count_include_pad=False),
    "avg_pool_7x7": lambda channels, stride: nn.AvgPool2d(7, stride, padding=3, count_include_pad=False),
    "conv_1x1": lambda channels, stride: PlainConv(channels, 1, stride),
    "conv_3x3": lambda channels, stride: PlainConv(channels, 3, stride),
    "conv_5x5": lambda channels, stride: PlainConv(channels, 5, stride),
    "nor_conv_1x1": lambda channels, stride: PlainConv(channels, 1, stride),
    "nor_conv_3x3": lambda channels, stride: PlainConv(channels, 3, stride),
    "nor_conv_5x5": lambda channels, stride: PlainConv(channels, 5, stride),
    "nor_conv_7x7": lambda channels, stride: PlainConv(channels, 7, stride),
    "sep_conv_3x3_single": lambda channels, stride: SingleSepConv(channels, 3, stride),
    "sep_conv_5x5_single": lambda channels, stride: SingleSepConv(channels, 5, stride),
    "sep_conv_7x7_single": lambda channels, stride: SingleSepConv(channels, 7, stride),
}


def drop_path(x: Tensor, drop_probability: float) -> Tensor:
    """Zero whole samples with the given probability and scale the others by 1 / keep."""
    keep = 1.0 - drop_probability
    mask = torch.empty(len(x), 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(keep)
    return x * mask / keep


class Cell(nn.Module):
    def __init__(
        self,
        genotype: Genotype,
        channels_before_last: int,
        channels_last: int,
        channels: int,
        reduction: bool,
        reduction_before: bool,
    ) -> None:
        super().__init__()
        self.preprocess0 = (
            FactorizedReduce(channels_before_last, channels)
            if reduction_before
            else ReLUConvBN(channels_before_last, channels)
        )
        self.preprocess1 = ReLUConvBN(channels_last, channels)
        self.stride = 2 if reduction else 1
        edges = genotype.reduce if reduction else genotype.normal
        self.concat = genotype.reduce_concat if reduction else genotype.normal_concat
        self.by_node = [[edge.source for edge in own] for own in edges.by_node]
        self._ops = nn.ModuleList(
            OPERATIONS[op](channels, 2 if reduction and source < 2 else 1) for op, source in edges
        )

    def forward(self, before_last: Tensor, last: Tensor, drop_probability: float) -> Tensor:
        nodes = [self.preprocess0(before_last), self.preprocess1(last)]
        operations = iter(self._ops)
        for sources in self.by_node:
            # The sum of no edges is zero at the resolution of the cell's nodes.
            total = nodes[1][:, :, :: self.stride, :: self.stride] * 0.0
            for source in sources:
                op = next(operations)
                value = op(nodes[source])
                if self.training and drop_probability > 0 and not isinstance(op, Identity):
                    value = drop_path(value, drop_probability)
                total = total + value
            nodes.append(total)
        return torch.cat([nodes[node] for node in self.concat], dim=1)


class AuxiliaryHead(nn.Module):
    """The head for CIFAR's 8 x 8 pixels, or for the 7 x 7 of ImageNet, which lacks the second batch norm."""

    def __init__(self, channels: int, num_classes: int, imagenet: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride=2 if imagenet else 3, padding=0, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            *([] if imagenet else [nn.BatchNorm2d(768)]),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))  # type: ignore[no-any-return]


class PlainNetwork(nn.Module):
    """Stem, stacked cells, auxiliary head, classifier; `forward` returns (logits, auxiliary logits or None).

    With `imagenet` the two stems, the head and the channels of the family's network for ImageNet.

    `drop_path_prob` is a plain attribute, set from outside before each epoch.
    """

    def __init__(
        self,
        genotype: Genotype,
        num_classes: int,
        init_channels: int = 36,
        num_cells: int = 20,
        auxiliary: bool = False,
        stem_stride: int = 1,
        imagenet: bool = False,
    ) -> None:
        super().__init__()
        self.drop_path_prob = 0.0
        reductions = (num_cells // 3, 2 * num_cells // 3)
        self.auxiliary_index = reductions[1]
        stem_channels = init_channels if imagenet else 3 * init_channels
        if imagenet:
            self.stem0 = nn.Sequential(
                nn.Conv2d(3, init_channels // 2, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(init_channels // 2),
                nn.ReLU(),
                nn.Conv2d(init_channels // 2, init_channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(init_channels),
            )
            self.stem1 = nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(init_channels, init_channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(init_channels),
            )
        else:
            self.stem = nn.Sequential(
                nn.Conv2d(3, stem_channels, 3, stride=stem_stride, padding=1, bias=False),
                nn.BatchNorm2d(stem_channels),
            )
        self.imagenet = imagenet
        before_last, last, channels = stem_channels, stem_channels, init_channels
        auxiliary_channels = 0
        reduction_before = imagenet
        self.cells = nn.ModuleList()
        for index in range(num_cells):
            reduction = index in reductions
            channels = 2 * channels if reduction else channels
            cell = Cell(genotype, before_last, last, channels, reduction, reduction_before)
            self.cells.append(cell)
            before_last, last, reduction_before = last, len(cell.concat) * channels, reduction
            if index == self.auxiliary_index:
                auxiliary_channels = last
        self.auxiliary_head = AuxiliaryHead(auxiliary_channels, num_classes, imagenet) if auxiliary else None
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        auxiliary_logits = None
        if self.imagenet:
            before_last = self.stem0(x)
            last = self.stem1(before_last)
        else:
            before_last = last = self.stem(x)
        for index, cell in enumerate(self.cells):
            before_last, last = last, cell(before_last, last, self.drop_path_prob)
            if self.auxiliary_head is not None and self.training and index == self.auxiliary_index:
                auxiliary_logits = self.auxiliary_head(last)
        return self.classifier(self.global_pooling(last).flatten(1)), auxiliary_logits
