"""Many copies of one network in one pass: every initial seed and every image has weights of its own.

A cell network at initialisation is small, and time goes into the calls of its layers. Here the layers of a
:class:`CellNetwork` are exchanged for stacked ones, which take M models at once: models lie along the batch
dimension, ``[models, channels, height, width]``, and a convolution is one grouped convolution (or one batched
product) with the weights of all models. The forward of network and cells is their own.

With a model for every pair of seed and image, the gradient with respect to a model's weights is the gradient
of that one sample: per-sample gradients come out of an ordinary backward pass.

Second derivatives along a direction need no backward pass. With weights w + t v every layer maps a triple
(x, x', x'') of value and derivatives by t to the next: a linear map y = W x gives y' = W x' + V x and
y'' = W x'' + 2 V x'; ReLU and pooling are linear around a point. This is Taylor mode (Griewank and Walther,
Evaluating Derivatives, 2008, chapter 13), exact where the loss is smooth.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nas_lightning.cells import Genotype
from nas_lightning.networks import CellNetwork

Mode = Literal["estimate", "differentiate", "taylor"]


@dataclass
class Stack:
    """What the stacked layers of one network share.

    Attributes:
        seeds: Initial seeds; one set of weights each.
        images: Number of images of every seed.
        dtype: Type of weights and images.
        mode: ``"estimate"`` sets running statistics from each seed's images; ``"differentiate"`` uses them;
            ``"taylor"`` carries first and second derivatives along ``directions``, too.
    """

    seeds: Sequence[int]
    images: int
    dtype: torch.dtype
    mode: Mode = "differentiate"
    weights: dict[str, Tensor] = field(default_factory=dict)
    directions: dict[str, Tensor] = field(default_factory=dict)

    @property
    def models(self) -> int:
        """Number of models: a seed's images lie side by side."""
        return len(self.seeds) * self.images


class InitialWeights:
    """Initial weights by seed and place: the same numbers in the same place of every network.

    Each tensor is drawn from a generator seeded by (seed, name), from the distribution that PyTorch's layers
    start with: uniform within 1 / sqrt(fan in). So the weights of a place do not depend on the wiring, and
    networks differ by their wiring alone.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)
        self._drawn: dict[tuple[str, tuple[int, ...], int], Tensor] = {}
        self._repeated: dict[tuple[object, ...], Tensor] = {}

    def draw(self, name: str, shape: Sequence[int], fan_in: int) -> Float[Tensor, "seeds *shape"]:
        """The weights of one place for every seed, in float32."""
        key = name, tuple(shape), fan_in
        if key not in self._drawn:
            bound = 1 / math.sqrt(fan_in)
            drawn = [torch.empty(key[1]).uniform_(-bound, bound, generator=g) for g in self._generators(name)]
            self._drawn[key] = torch.stack(drawn)
        return self._drawn[key]

    def repeat(
        self, name: str, shape: Sequence[int], fan_in: int | None, images: int, dtype: torch.dtype
    ) -> Float[Tensor, "models *shape"]:
        """A copy for every model: a leaf of its own for autograd, which networks share.

        Without a fan in these are batch norm's: scales of 1, shifts of 0.
        """
        key = name, tuple(shape), fan_in, images, dtype
        if key not in self._repeated:
            if fan_in is None:
                start = torch.full((len(self.seeds), *shape), float(name.endswith("weight")))
            else:
                start = self.draw(name, shape, fan_in)
            self._repeated[key] = start.to(dtype).repeat_interleave(images, dim=0).requires_grad_()
        return self._repeated[key]

    def _generators(self, name: str) -> Iterator[torch.Generator]:
        for seed in self.seeds:
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            yield torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))


def stacked_network(
    genotype: Genotype,
    weights: InitialWeights,
    images: int,
    *,
    init_channels: int,
    num_cells: int,
    num_classes: int,
    stem_stride: int,
    dtype: torch.dtype,
) -> tuple[CellNetwork, Stack]:
    """Build a network whose layers take all models at once, in evaluation mode.

    Raises:
        ValueError: If a live layer with parameters is none that is known here.
    """
    network = CellNetwork(genotype, num_classes, init_channels, num_cells, stem_stride=stem_stride).eval()
    stack = Stack(weights.seeds, images, dtype)
    relu = _ReLU(stack)  # has no state: one stands everywhere
    for name, layer in list(network.named_modules()):
        own = list(layer.parameters(recurse=False))
        if own and not own[0].requires_grad:
            continue  # dead, never called
        made: nn.Module
        fan_in: int | None = None
        if isinstance(layer, nn.Conv2d):
            fan_in = math.prod(layer.weight.shape[1:])
            made = _Convolution(layer, name, stack)
        elif isinstance(layer, nn.Linear):
            fan_in = layer.in_features
            made = _Linear(name, stack)
        elif isinstance(layer, nn.BatchNorm2d):
            made = _Norm(layer, name, stack)
        elif isinstance(layer, nn.ReLU):
            made = relu
        elif isinstance(layer, nn.MaxPool2d):
            made = _MaxPool(layer, stack)
        elif own:
            raise ValueError(f"layer {name!r} ({type(layer).__name__}) has parameters and no stacked form")
        else:
            continue
        for part, parameter in layer.named_parameters(recurse=False):
            full = f"{name}.{part}"
            stack.weights[full] = weights.repeat(full, parameter.shape, fan_in, images, dtype)
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, made)
    return network, stack


class _Layer(nn.Module):
    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self._stack = stack

    def _parts(self, x: Tensor) -> Tensor:
        """Value and derivatives apart: ``[3, models, ...]`` in Taylor mode, else ``[1, models, ...]``."""
        return x.reshape(-1, self._stack.models, *x.shape[1:])

    @property
    def _is_taylor(self) -> bool:
        return self._stack.mode == "taylor"


def _add_moved(y: Tensor, moved: Tensor) -> None:
    """Add V x to W x' and 2 V x' to W x'', in place."""
    y[1] += moved[0]
    y[2].add_(moved[1], alpha=2)


class _Convolution(_Layer):
    def __init__(self, layer: nn.Conv2d, name: str, stack: Stack) -> None:
        super().__init__(stack)
        self._name = f"{name}.weight"
        self._stride, self._padding, self._dilation = layer.stride, layer.padding, layer.dilation
        self._groups = layer.groups
        self._is_pointwise = layer.kernel_size == (1, 1) and layer.groups == 1 and layer.padding == (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        y = self._convolve(x, self._stack.weights[self._name])
        if self._is_taylor:
            moved = self._convolve(x[: 2 * self._stack.models], self._stack.directions[self._name])
            _add_moved(self._parts(y), self._parts(moved))
        return y

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        models = self._stack.models
        if self._is_pointwise:
            strided = x[..., :: self._stride[0], :: self._stride[1]]
            parts, weight = strided.reshape(-1, models, x.shape[1], strided[0, 0].numel()), weight.flatten(2)
            mapped = torch.matmul(weight, parts) if len(parts) > 1 else torch.bmm(weight, parts[0])
            return mapped.view(len(x), -1, *strided.shape[2:])
        mapped = functional.conv2d(
            x.reshape(-1, models * x.shape[1], *x.shape[2:]),
            weight.flatten(0, 1),
            None,
            self._stride,
            self._padding,
            self._dilation,
            groups=models * self._groups,
        )
        return mapped.view(len(x), -1, *mapped.shape[2:])


class _Norm(_Layer):
    """Batch norm with each seed's statistics."""

    def __init__(self, layer: nn.BatchNorm2d, name: str, stack: Stack) -> None:
        super().__init__(stack)
        self._weight, self._bias, self._epsilon = f"{name}.weight", f"{name}.bias", layer.eps
        self.mean = self.variance = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self._stack.weights[self._weight], self._stack.weights[self._bias]
        if self._stack.mode == "estimate":
            return self._estimate(x, weight, bias)
        if self._is_taylor:
            return self._taylor(x, weight, bias)
        y = functional.batch_norm(
            x.reshape(1, -1, *x.shape[2:]),
            *(self.mean.flatten(), self.variance.flatten(), weight.flatten(), bias.flatten(), False, 0.0),
            self._epsilon,
        )
        return y.view_as(x)

    def _estimate(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalise by each seed's images; the running variance is the unbiased one, as PyTorch's."""
        images = self._stack.images
        self.mean = self._over_images(x.flatten(2).mean(2))
        centred = x - self.mean[..., None, None]
        variance = self._over_images(centred.square().flatten(2).mean(2))
        count = images * x.shape[2] * x.shape[3]
        self.variance = variance * (count / max(count - 1, 1))
        scale = torch.rsqrt(variance + self._epsilon) * weight
        return centred.mul_(scale[..., None, None]).add_(bias[..., None, None])

    def _over_images(self, values: Float[Tensor, "models channels"]) -> Float[Tensor, "models channels"]:
        """Mean over each seed's images, for each of them."""
        images = self._stack.images
        means = values.view(-1, images, values.shape[1]).mean(1, keepdim=True)
        return means.expand(-1, images, -1).reshape(values.shape)

    def _taylor(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        directions = self._stack.directions
        scale = torch.rsqrt(self.variance + self._epsilon)
        slope, moved = scale * weight, scale * directions[self._weight]
        parts = self._parts(x)
        y = parts * slope[..., None, None]
        y[0] += (bias - self.mean * slope)[..., None, None]
        y[1] += (directions[self._bias] - self.mean * moved)[..., None, None]
        y[1].addcmul_(parts[0], moved[..., None, None])
        y[2].addcmul_(parts[1], moved[..., None, None], value=2)
        return y.flatten(0, 1)


class _Linear(_Layer):
    def __init__(self, name: str, stack: Stack) -> None:
        super().__init__(stack)
        self._weight, self._bias = f"{name}.weight", f"{name}.bias"

    def forward(self, x: Tensor) -> Tensor:
        parts, stack = self._parts(x), self._stack
        y = torch.einsum("moi,pmi->pmo", stack.weights[self._weight], parts)
        if not self._is_taylor:
            return y[0] + stack.weights[self._bias]
        y[0] += stack.weights[self._bias]
        y[1] += stack.directions[self._bias]
        _add_moved(y, torch.einsum("moi,pmi->pmo", stack.directions[self._weight], parts[:2]))
        return y.flatten(0, 1)


class _ReLU(_Layer):
    def forward(self, x: Tensor) -> Tensor:
        if not self._is_taylor:
            return functional.relu(x)
        parts = self._parts(x)
        return (parts * (parts[:1] > 0)).flatten(0, 1)


class _MaxPool(_Layer):
    def __init__(self, layer: nn.MaxPool2d, stack: Stack) -> None:
        super().__init__(stack)
        self._size, self._stride, self._padding = layer.kernel_size, layer.stride, layer.padding

    def forward(self, x: Tensor) -> Tensor:
        if not self._is_taylor:
            return functional.max_pool2d(x, self._size, self._stride, self._padding)
        parts = self._parts(x)
        pooled, chosen = functional.max_pool2d(
            parts[0], self._size, self._stride, self._padding, return_indices=True
        )
        moved = parts[1:].flatten(3).gather(3, chosen.flatten(2).expand(2, -1, -1, -1))
        return torch.cat([pooled[None], moved.view(2, *pooled.shape)]).flatten(0, 1)
