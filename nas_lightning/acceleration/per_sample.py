"""Sums of per-sample gradients and of their squares from one backward pass without a hook.

The output of every layer with parameters passes through a function that does nothing forward. Backward, it
puts the gradients of the single samples together and returns their sum as the gradient of the weights. The
sum of their squares leaves the pass as the "gradient" of a further input, the layer's probe. So autograd, and
a compiler, see an ordinary backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from nas_lightning.acceleration.copies import compile_module, sharing_copy
from nas_lightning.acceleration.layers import replace_layers

Rule: TypeAlias = Callable[[Any, Tensor, Tensor], dict[str, Tensor]]
"""Maps a layer, its input and the gradient of its output to the per-sample gradients of its parameters."""


class PerSampleSums:
    """Gradient sums of a module's samples in evaluation mode, from one compiled backward pass.

    The loss of a sample is the cross entropy of its logits. A linear layer of one position is measured by the
    product of the norms of its input and its gradient, which needs no sample's gradient (Goodfellow,
    *Efficient per-example gradient computations*, 2015).

    Args:
        module: Maps inputs to logits. It is not changed; its weights may.
        parameters: The parameters that count, by full name.
        rules: For every layer that holds one of them, by name, the rule of its per-sample gradients. Such a
            layer is called once a pass.
        compiled: Whether to compile; without it, hooks on the layers are as fast.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        rules: Mapping[str, Rule],
        *,
        compiled: bool = True,
    ) -> None:
        self._module = sharing_copy(module).eval()
        replace_layers(self._module)
        self._parameters = dict(parameters)
        self._probes: dict[str, Tensor] = {}
        for name, rule in rules.items():
            parent, _, child = name.rpartition(".")
            measured = _MeasuredLayer(self._module.get_submodule(name), rule)
            self._probes |= {f"{name}.{own}".lstrip("."): probe for own, probe in measured.probes.items()}
            if name:
                setattr(self._module.get_submodule(parent), child, measured)
            else:
                self._module = measured
        if compiled:
            compile_module(self._module)
        self._size: int | None = None

    def __call__(
        self, inputs: Float[Tensor, "batch *_"], targets: Int[Tensor, " batch"]
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]] | None:
        """Run a batch forward and backward.

        Args:
            inputs: The batch.
            targets: Its classes.

        Returns:
            sum_i f_i and, by parameter, sum_i ||grad f_i||^2, float64, of every slice of the parameter along
            dimension 0 (of all of a vector together), and sum_i grad f_i; None for a batch of another size
            than the first, which would be compiled for anew.
        """
        self._size = len(targets) if self._size is None else self._size
        if len(targets) != self._size:
            return None
        names = list(self._parameters)
        wanted = [self._parameters[name] for name in names] + [self._probes[name] for name in names]
        if inputs.ndim == 4 and inputs.device.type == "cpu":
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        no_autocast = torch.autocast(inputs.device.type, enabled=False)
        with torch.inference_mode(False), torch.enable_grad(), no_autocast:
            if inputs.is_inference():
                inputs, targets = inputs.clone(), targets.clone()  # autograd refuses inference tensors
            loss = functional.cross_entropy(self._module(inputs), targets, reduction="sum")
            found = torch.autograd.grad(loss, wanted)
        gradients, squares = found[: len(names)], found[len(names) :]
        return loss.detach(), dict(zip(names, squares, strict=True)), dict(zip(names, gradients, strict=True))


class _MeasuredLayer(nn.Module):
    """A layer whose backward pass measures its samples."""

    def __init__(self, layer: nn.Module, rule: Rule) -> None:
        super().__init__()
        held = dict(layer.named_parameters(recurse=False))
        device = next(iter(held.values())).device
        self.probes = {
            name: torch.zeros(
                len(parameter) if parameter.ndim > 1 else 1,
                dtype=torch.float64,
                device=device,
                requires_grad=True,
            )
            for name, parameter in held.items()
        }
        self._weights = tuple(held.values())
        for name, parameter in held.items():  # autograd computes the gradient of the input alone
            delattr(layer, name)
            layer.register_buffer(name, parameter.detach(), persistent=False)
        self.layer = layer
        self._function = _sums_of(layer, rule, tuple(held))

    def forward(self, inputs: Tensor) -> Tensor:
        output = self.layer(inputs)
        measured: Tensor = self._function.apply(
            output, inputs.detach(), *self._weights, *self.probes.values()
        )
        return measured


def _sums_of(layer: nn.Module, rule: Rule, names: tuple[str, ...]) -> type[torch.autograd.Function]:
    """The function behind a layer; made for each one, since a compiler takes no module as an argument."""

    class Sums(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, output: Tensor, inputs: Tensor, *tensors: Tensor) -> Tensor:
            ctx.save_for_backward(inputs)
            return output.clone()  # a later layer may change it in place

        @staticmethod
        def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
            (inputs,) = ctx.saved_tensors
            grad_output = grad_outputs[0]
            if isinstance(layer, nn.Linear) and inputs.ndim == 2:
                sums = [grad_output.mT @ inputs]
                squares = [grad_output.double().square().mT @ _norms(inputs)]
                if len(names) > 1:
                    sums.append(grad_output.sum(0))
                    squares.append(_squares(grad_output))
            else:
                found = rule(layer, inputs, grad_output)
                sums = [found[name].sum(0) for name in names]
                squares = [_squares(found[name]) for name in names]
            return (grad_output, None, *sums, *squares)

    return Sums


def _squares(values: Float[Tensor, "batch *shape"]) -> Float[Tensor, " slices"]:
    """Sum of the squares of every slice along the first dimension of the shape, of a vector's together."""
    units = values.double().flatten(2) if values.ndim > 2 else values.double()[:, None]
    return units.square().sum((0, 2))


def _norms(values: Float[Tensor, "batch *shape"]) -> Float[Tensor, " batch"]:
    """Squared norm of every sample's values, in float64: squares overflow long before gradients do."""
    return values.double().flatten(1).square().sum(1)
