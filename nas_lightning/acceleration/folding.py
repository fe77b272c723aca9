"""Batch norm in evaluation mode, folded into the convolution before it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas_lightning.acceleration.layers import BatchNorm, Convolution


class Folding:
    """The batch norms of a module, folded into the convolutions before them.

    Behind a convolution, batch norm with running statistics is a factor and a shift for every channel, which
    the convolution's weights and bias can take over:
    ``gamma (W x - mu) / sigma + beta = (gamma W / sigma) x + (beta - gamma mu / sigma)``. Folded are the
    pairs that follow one another in an ``nn.Sequential``; any other layer stays. The function is the same up
    to rounding.

    The folded weights are tensors of their own that are written in place, so that what is compiled, or
    recorded as a CUDA graph, need not be made anew for other weights.

    Args:
        module: A copy in evaluation mode, whose layers are replaced. The tensors that it shares with others
            stay as they are.

    Attributes:
        count: Number of batch norms that are folded.
    """

    def __init__(self, module: nn.Module) -> None:
        self._pairs: list[tuple[nn.Conv2d, _BatchNorm, _FoldedConvolution]] = []
        for layer in list(module.modules()):
            if isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward:
                self._fold(layer)
        self.count = len(self._pairs)
        self._sources = [
            tensor
            for convolution, norm, _ in self._pairs
            for tensor in (*convolution.parameters(), *norm.parameters(), *norm.buffers())
        ]
        self._versions: list[tuple[int, int]] = []

    def refresh(self) -> None:
        """Fold the weights and statistics as they are now, unless none has changed since the last call.

        Every change in place counts a tensor's version up, but for one through ``tensor.data``; another
        tensor in ``tensor.data`` has another address.
        """
        versions = [(tensor._version, tensor.data_ptr()) for tensor in self._sources]
        if versions == self._versions:
            return
        self._versions = versions
        with torch.inference_mode(False), torch.no_grad():
            for convolution, norm, folded in self._pairs:
                assert norm.running_mean is not None
                assert norm.running_var is not None
                scale = torch.rsqrt(norm.running_var + norm.eps)
                scale = scale if norm.weight is None else scale * norm.weight
                bias = convolution.bias
                shift = -norm.running_mean if bias is None else bias - norm.running_mean
                torch.mul(convolution.weight, scale[:, None, None, None], out=folded.weight)
                torch.mul(shift, scale, out=folded.bias)
                if norm.bias is not None:
                    folded.bias += norm.bias

    def forget(self) -> None:
        """Fold anew at the next call of :meth:`refresh`, whatever has changed."""
        self._versions = []

    def _fold(self, sequence: nn.Sequential) -> None:
        layers = list(sequence._modules.items())
        for (first, convolution), (second, norm) in pairwise(layers):
            if _is_foldable(convolution, norm):
                assert isinstance(convolution, nn.Conv2d)
                assert isinstance(norm, _BatchNorm)
                folded = _FoldedConvolution(convolution)
                self._pairs.append((convolution, norm, folded))
                sequence._modules[first], sequence._modules[second] = folded, nn.Identity()


class _FoldedConvolution(nn.Module):
    """A convolution with weights and bias of its own."""

    weight: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        # A method, not the layer: that has parameters of its own, which are not these.
        self.convolve: Callable[[Tensor, Tensor, Tensor], Tensor] = convolution._conv_forward
        self.register_buffer("weight", torch.empty_like(convolution.weight.detach()), persistent=False)
        channels = convolution.out_channels
        self.register_buffer("bias", convolution.weight.detach().new_empty(channels), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.convolve(inputs, self.weight, self.bias)


def _is_foldable(convolution: nn.Module, norm: nn.Module) -> bool:
    is_pair = type(convolution) in (nn.Conv2d, Convolution)
    is_pair = is_pair and type(norm) in (nn.BatchNorm2d, BatchNorm, nn.SyncBatchNorm)
    return is_pair and norm.running_mean is not None
