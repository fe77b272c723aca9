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

    def add(self, name: str, values: Float[Tensor, "seeds *shape"]) -> None:
        """Give every model a copy of its seed's parameter, a leaf of its own."""
        repeated = values.to(self.dtype).repeat_interleave(self.images, dim=0)
        self.weights[name] = repeated.requires_grad_()


class InitialWeights:
    """Initial weights by seed and place: the same numbers in the same place of every network.

    Each tensor is drawn from a generator seeded by (seed, name), from the distribution that PyTorch's layers
    start with: uniform within 1 / sqrt(fan in). So the weights of a place do not depend on the wiring, and
    networks differ by their wiring alone.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)
        self._drawn: dict[tuple[str, tuple[int, ...], int], Tensor] = {}

    def draw(self, name: str, shape: Sequence[int], fan_in: int) -> Float[Tensor, "seeds *shape"]:
        """The weights of one place for every seed, in float32."""
        key = name, tuple(shape), fan_in
        if key not in self._drawn:
            bound = 1 / math.sqrt(fan_in)
            drawn = [torch.empty(key[1]).uniform_(-bound, bound, generator=g) for g in self._generators(name)]
            self._drawn[key] = torch.stack(drawn)
        return self._drawn[key]

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
    for name, layer in list(network.named_modules()):
        own = list(layer.parameters(recurse=False))
        if own and not own[0].requires_grad:
            continue  # dead, never called
        made: nn.Module
        if isinstance(layer, nn.Conv2d):
            fan_in = math.prod(layer.weight.shape[1:])
            stack.add(f"{name}.weight", weights.draw(f"{name}.weight", layer.weight.shape, fan_in))
            made = _Convolution(layer, name, stack)
        elif isinstance(layer, nn.Linear):
            for part, parameter in layer.named_parameters():
                full = f"{name}.{part}"
                stack.add(full, weights.draw(full, parameter.shape, layer.in_features))
            made = _Linear(name, stack)
        elif isinstance(layer, nn.BatchNorm2d):
            for part, value in (("weight", 1.0), ("bias", 0.0)):
                stack.add(f"{name}.{part}", torch.full((len(weights.seeds), layer.num_features), value))
            made = _Norm(layer, name, stack)
        elif isinstance(layer, nn.ReLU):
            made = _ReLU(stack)
        elif isinstance(layer, nn.MaxPool2d):
            made = _MaxPool(layer, stack)
        elif own:
            raise ValueError(f"layer {name!r} ({type(layer).__name__}) has parameters and no stacked form")
        else:
            continue
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


class _Convolution(_Layer):
    def __init__(self, layer: nn.Conv2d, name: str, stack: Stack) -> None:
        super().__init__(stack)
        self._name = f"{name}.weight"
        self._stride, self._padding, self._dilation = layer.stride, layer.padding, layer.dilation
        self._groups = layer.groups
        self._is_pointwise = layer.kernel_size == (1, 1) and layer.groups == 1 and layer.padding == (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        parts = self._parts(x)
        y = self._convolve(parts, self._stack.weights[self._name])
        if self._is_taylor:
            moved = self._convolve(parts[:2], self._stack.directions[self._name])
            y = torch.stack([y[0], y[1] + moved[0], y[2] + 2 * moved[1]])
        return y.flatten(0, 1)

    def _convolve(self, parts: Tensor, weight: Tensor) -> Tensor:
        if self._is_pointwise:
            rows, columns = self._stride[0], self._stride[1]
            strided = parts[..., ::rows, ::columns]
            mapped = torch.matmul(weight.flatten(2), strided.flatten(3))
            return mapped.view(*mapped.shape[:3], *strided.shape[3:])
        models = self._stack.models
        mapped = functional.conv2d(
            parts.flatten(1, 2),
            weight.flatten(0, 1),
            None,
            self._stride,
            self._padding,
            self._dilation,
            groups=models * self._groups,
        )
        return mapped.view(len(parts), models, -1, *mapped.shape[2:])


class _Norm(_Layer):
    """Batch norm with each seed's statistics."""

    def __init__(self, layer: nn.BatchNorm2d, name: str, stack: Stack) -> None:
        super().__init__(stack)
        self._weight, self._bias, self._epsilon = f"{name}.weight", f"{name}.bias", layer.eps
        self.mean = self.variance = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self._stack.weights[self._weight], self._stack.weights[self._bias]
        if self._stack.mode == "estimate":
            mean, variance = self._estimate(x)
        else:
            mean, variance = self.mean, self.variance
        if self._is_taylor:
            return self._taylor(self._parts(x), weight, bias)
        y = functional.batch_norm(
            x.reshape(1, -1, *x.shape[2:]),
            *(mean.flatten(), variance.flatten(), weight.flatten(), bias.flatten(), False, 0.0),
            self._epsilon,
        )
        return y.view_as(x)

    def _estimate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Statistics of each seed's images; the running variance is the unbiased one, as PyTorch's."""
        images = self._stack.images
        # Within each image, then over the images: dimensions that lie together are summed far faster.
        inside, means = torch.var_mean(x.flatten(2), dim=2, correction=0)
        inside, means = (part.view(-1, images, x.shape[1]) for part in (inside, means))
        variance = inside.mean(1) + means.var(1, correction=0)
        count = images * x.shape[2] * x.shape[3]
        self.mean = means.mean(1).repeat_interleave(images, dim=0)
        self.variance = variance.repeat_interleave(images, dim=0) * (count / max(count - 1, 1))
        return self.mean, variance.repeat_interleave(images, dim=0)

    def _taylor(self, parts: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        scale = torch.rsqrt(self.variance + self._epsilon)[..., None, None]
        centred = torch.cat([(parts[0] - self.mean[..., None, None])[None], parts[1:]]) * scale
        y = centred * weight[..., None, None]
        moved = centred[:2] * self._stack.directions[self._weight][..., None, None]
        first = moved[0] + self._stack.directions[self._bias][..., None, None]
        y = torch.stack([y[0] + bias[..., None, None], y[1] + first, y[2] + 2 * moved[1]])
        return y.flatten(0, 1)


class _Linear(_Layer):
    def __init__(self, name: str, stack: Stack) -> None:
        super().__init__(stack)
        self._weight, self._bias = f"{name}.weight", f"{name}.bias"

    def forward(self, x: Tensor) -> Tensor:
        parts, stack = self._parts(x), self._stack
        y = torch.einsum("moi,pmi->pmo", stack.weights[self._weight], parts)
        y = torch.cat([y[:1] + stack.weights[self._bias], y[1:]])
        if self._is_taylor:
            moved = torch.einsum("moi,pmi->pmo", stack.directions[self._weight], parts[:2])
            first = moved[0] + stack.directions[self._bias]
            y = torch.stack([y[0], y[1] + first, y[2] + 2 * moved[1]])
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
