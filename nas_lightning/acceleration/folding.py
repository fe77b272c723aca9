"""Copies of a module that compute otherwise but hold the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def sharing_copy(module: nn.Module) -> nn.Module:
    """A copy of a module whose parameters and buffers are the module's own.

    Layers of the copy may be replaced without a trace in the module; what happens to the weights of one
    happens to those of the other.

    Args:
        module: Any module that ``copy.deepcopy`` takes.

    Returns:
        The copy, uncompiled.
    """
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def compile_module(module: nn.Module) -> None:
    """Compile a module in place: in its regions, where it knows them, otherwise as a whole.

    Args:
        module: A module, with or without a method ``compile_regions``.
    """
    compile_regions = getattr(module, "compile_regions", None)
    if callable(compile_regions):
        compile_regions()
    else:
        module.compile(dynamic=False)


IMAGES_AT_ONCE = range(32, 65)
"""Images whose tensors a CPU's caches hold, more or less, and that are enough to outweigh a pass's start."""


def images_at_once(batch: int) -> int:
    """Images of a batch that go through a network together on a CPU: as many as divide it, if possible.

    Args:
        batch: Images of the batch.

    Example:
        >>> images_at_once(250), images_at_once(64), images_at_once(16), images_at_once(67)
        (50, 64, 64, 64)
    """
    return max(IMAGES_AT_ONCE, key=lambda count: (batch % count == 0, count))


class FoldedNetwork:
    """A module in evaluation mode with its batch norms folded into the convolutions before them.

    Behind a convolution, batch norm with running statistics is a factor and a shift for every channel, which
    the convolution's weights and bias can take over:
    ``gamma (W x - mu) / sigma + beta = (gamma W / sigma) x + (beta - gamma mu / sigma)``. Folded are the
    pairs that follow one another in an ``nn.Sequential``; any other layer stays. The function is the same up
    to rounding.

    The folded weights are tensors of their own that are written in place, so that what is compiled, or
    recorded as a CUDA graph, need not be made anew for other weights.

    A module with a method ``take_one_pass`` may compute parts of itself in one pass over memory in
    evaluation, with batch norm; those are not folded.

    Args:
        module: The module; it is not changed.
        compiled: Whether to compile the folded network.

    Attributes:
        network: Maps inputs to what the module maps them to, in evaluation mode.
        folded: Number of batch norms that were folded.
    """

    def __init__(self, module: nn.Module, *, compiled: bool = False) -> None:
        self.network = sharing_copy(module).eval()
        take_one_pass = getattr(self.network, "take_one_pass", None)
        # What is computed in one pass reads the module's weights and statistics itself.
        in_one_pass = take_one_pass("evaluation") if callable(take_one_pass) else ()
        self._pairs: list[tuple[nn.Conv2d, _BatchNorm, _FoldedConvolution]] = []
        for layer in list(self.network.modules()):
            is_plain = isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward
            if is_plain and layer not in in_one_pass:
                assert isinstance(layer, nn.Sequential)
                self._fold(layer)
        self.folded = len(self._pairs)
        self.refresh()
        self._images: int | None = None
        if compiled:
            compile_module(self.network)
        self._compiled = compiled

    def refresh(self) -> None:
        """Fold the module's weights and statistics as they are now."""
        with torch.inference_mode(False), torch.no_grad():
            for convolution, norm, folded in self._pairs:
                assert norm.running_mean is not None
                assert norm.running_var is not None
                scale = torch.rsqrt(norm.running_var + norm.eps)
                scale = scale if norm.weight is None else scale * norm.weight
                shift = (
                    -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
                )
                torch.mul(convolution.weight, scale[:, None, None, None], out=folded.weight)
                torch.mul(shift, scale, out=folded.bias)
                if norm.bias is not None:
                    folded.bias += norm.bias

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """Outputs of a batch, in evaluation mode and without gradients.

        On a CPU some images at a time, whose tensors stay in the caches, and channels-last. A batch of
        another size than the first is not compiled for.

        Args:
            inputs: ``[batch, ...]``.
        """
        if inputs.device.type != "cpu" or inputs.ndim != 4:
            return self._some(inputs)
        arranged = inputs.contiguous(memory_format=torch.channels_last)
        parts = torch.split(arranged, images_at_once(len(inputs)))
        return torch.cat([self._some(part) for part in parts]) if len(parts) > 1 else self._some(*parts)

    def _some(self, inputs: Tensor) -> Tensor:
        if self._images is None:
            self._images = len(inputs)
        if self._compiled and len(inputs) != self._images:
            with torch.compiler.set_stance("force_eager"):
                return self.network(inputs)  # type: ignore[no-any-return]
        return self.network(inputs)  # type: ignore[no-any-return]

    def _fold(self, sequence: nn.Sequential) -> None:
        layers = list(sequence._modules.items())
        for (first, convolution), (second, norm) in pairwise(layers):
            if _foldable(convolution, norm):
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


def _foldable(convolution: nn.Module, norm: nn.Module) -> bool:
    is_pair = isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm)
    if not is_pair or norm.running_mean is None:
        return False
    is_plain = type(norm).forward in (nn.BatchNorm2d.forward, nn.SyncBatchNorm.forward)
    is_plain = is_plain or getattr(type(norm), "same_function", False)
    watched = any(layer._forward_hooks or layer._forward_pre_hooks for layer in (convolution, norm))
    return is_plain and type(convolution).forward is nn.Conv2d.forward and not watched
