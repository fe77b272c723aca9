"""The gradient of every single sample, layer by layer, out of one backward pass.

The weight gradient of a layer is a sum over the samples of a batch. What a sample adds depends only on its
own input of the layer and its own gradient of the layer's output, and both appear in an ordinary backward
pass. So the backward pass leaves the weight gradients out, and a hook on every layer computes the terms of
the sum instead: the work is that of the weight gradient itself (Goodfellow, *Efficient per-example gradient
computations*, 2015, for linear layers; Rochette et al., 2019, for convolutions). Each layer's gradients go
to the caller during the pass, so that only one layer's are in memory.

Batch norm is in evaluation mode: with running statistics, samples do not mix.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from nas_lightning.analysis.evaluation import Loss, differentiating, evaluating, sample_losses

Unsupported: TypeAlias = Literal["refuse", "vmap"]
"""What to do with a layer that has no rule: raise an error, or use ``torch.func.vmap`` over its samples."""

Rule: TypeAlias = Callable[[Any, Tensor, Tensor], dict[str, Tensor]]
"""Maps a layer, its input and the gradient of its output to the per-sample gradients of its parameters,
``[samples, *shape]`` by the parameter's name in the layer."""

Consumer: TypeAlias = Callable[[str, Tensor], None]
"""Takes a parameter's name and gradients of some of the batch's samples, ``[samples, *shape]``."""

SampleOutputs: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Maps a module, inputs and targets to one number for each sample, ``[batch]``."""

ELEMENTS_AT_ONCE = 2**23
"""Most elements of per-sample gradients in memory at a time: 32 MiB in float32."""


class PerSampleGradients:
    """Per-sample gradients of the cross entropy of a module's logits, f_i, in evaluation mode.

    Convolutions (``Conv2d`` with zero padding: dense, grouped, depthwise, strided, dilated), batch norm with
    running statistics and linear layers have a rule. A module with parameters of its own that is none of
    these, or is called more than once, or shares a parameter with another module, is measured by
    ``torch.func.vmap`` as a whole where ``unsupported`` is ``"vmap"``, and refused by name otherwise. The
    results are compared with autograd on the first two samples, together and each alone; if rounding may make
    the difference, in float64.

    Args:
        module: Maps inputs ``[batch, ...]`` to logits ``[batch, classes]``. Its parameters with
            ``requires_grad`` that the logits depend on count; it is in evaluation mode while it is used.
        inputs: One sample or more, to find out which module holds which parameter: ``[batch, ...]``.
        targets: Their classes.
        unsupported: What to do with layers that have no rule.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Attributes:
        loss: As given.
        parameters: The parameters that count, by name.
        rules: The rule of each layer that has one, by the layer's name.
        by_vmap: Names of the modules that are measured by ``vmap``.

    Raises:
        ValueError: If a layer has no rule and ``unsupported`` is ``"refuse"``, if batch norm keeps no running
            statistics, or if no parameter counts.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Shaped[Tensor, "batch *_"],
        targets: Shaped[Tensor, "batch *_targets"],
        unsupported: Unsupported = "refuse",
        loss: Loss | None = None,
    ) -> None:
        self.module = module
        self.loss = loss
        for name, layer in module.named_modules():
            if isinstance(layer, _BatchNorm) and layer.running_mean is None:
                raise ValueError(
                    f"layer {name!r} ({type(layer).__name__}) keeps no running statistics: its output for one"
                    " sample depends on the others, so that a sample has no gradient of its own"
                )
        if unsupported not in ("refuse", "vmap"):
            raise ValueError(f"`unsupported` (={unsupported!r}) must be 'refuse' or 'vmap'")
        inputs, targets = inputs[:2], targets[:2]
        with evaluating(module), differentiating(inputs.device.type):
            trials = [
                _trial(module, inputs[i : i + 1], targets[i : i + 1], loss) for i in range(len(targets))
            ]
        gradients, calls = trials[0]
        if not gradients:
            raise ValueError(
                f"the output of {type(module).__name__} depends on no parameter with requires_grad"
            )
        self.parameters = {name: p for name, p in module.named_parameters() if name in gradients}
        self._units = _find_units(module, gradients, calls)
        self.rules: Mapping[str, Rule] = {u.name: u.rule for u in self._units if u.rule is not None}
        self.by_vmap = [unit.name for unit in self._units if unit.rule is None]
        if self.by_vmap and unsupported == "refuse":
            name, layer = self.by_vmap[0], module.get_submodule(self.by_vmap[0])
            raise ValueError(
                f"layer {name!r} ({type(layer).__name__}) has parameters and no rule for per-sample"
                " gradients: `unsupported` 'vmap' measures it, more slowly"
            )
        try:
            with torch.inference_mode(False):
                self._check(inputs, targets, [found for found, _ in trials])
        except ValueError:
            # In a network whose gradients explode, as many do at initialisation, rounding explodes too.
            if next(iter(self.parameters.values())).dtype == torch.float64:
                raise
            precise = copy.deepcopy(module).cpu().double()
            PerSampleGradients(precise, in_double(inputs), in_double(targets), unsupported, loss)

    def backward(
        self,
        inputs: Shaped[Tensor, "batch *_"],
        targets: Shaped[Tensor, "batch *_targets"],
        consume: Consumer,
        outputs: SampleOutputs | None = None,
    ) -> Float[Tensor, " batch"]:
        """Run a batch forward and backward: give the losses f_i and, to `consume`, the samples' gradients.

        `consume` is called for every parameter, once or for consecutive parts of the batch, with gradients
        ``[samples, *shape]`` in the parameter's type. `outputs` differentiates something else than the loss.
        """
        anchors: list[Tensor] = []
        left_out = _without_gradient(self.parameters.values())
        with evaluating(self.module), differentiating(inputs.device.type), left_out:
            handles = [_watch(unit, len(targets), anchors, consume) for unit in self._units]
            try:
                if outputs is None:
                    values = sample_losses(self.module, inputs, targets, self.loss)
                else:
                    values = outputs(self.module, inputs, targets)
                torch.autograd.grad(values.sum(), anchors)
            finally:
                for handle in handles:
                    handle.remove()
        return values.detach()

    def _check(self, inputs: Tensor, targets: Tensor, expected: Sequence[Mapping[str, Tensor]]) -> None:
        """Compare with autograd, on samples taken together and each alone."""
        found: dict[str, list[Tensor]] = {name: [] for name in self.parameters}
        self.backward(inputs, targets, lambda name, values: found[name].append(values))
        # Rules and autograd round differently, by far less than a wrong rule errs.
        tolerance = max(1e-2, 64 * torch.finfo(next(iter(self.parameters.values())).dtype).eps)
        for sample, gradients in enumerate(expected):
            whole = max(float(gradient.norm()) for gradient in gradients.values())
            for name, gradient in gradients.items():
                difference = float((torch.cat(found[name])[sample] - gradient).norm())
                if difference > tolerance * (float(gradient.norm()) + 1e-2 * whole):
                    raise ValueError(
                        f"parameter {name!r}: its per-sample gradients do not follow from its layer alone; it"
                        " is used outside the module that holds it, or samples are mixed"
                    )


def _convolution(
    layer: nn.Conv2d,
    inputs: Float[Tensor, "batch in_channels in_height in_width"],
    grad_output: Float[Tensor, "batch out_channels out_height out_width"],
) -> dict[str, Tensor]:
    weight = _convolution_weight(layer, inputs, grad_output)
    return {"weight": weight} if layer.bias is None else {"weight": weight, "bias": grad_output.sum((2, 3))}


def _convolution_weight(layer: nn.Conv2d, inputs: Tensor, grad_output: Tensor) -> Tensor:
    """Per-sample gradients ``[batch, out_channels, in_channels / groups, height, width]``."""
    assert not isinstance(layer.padding, str)
    shape, stride, padding, dilation = layer.weight.shape, layer.stride, layer.padding, layer.dilation
    batch, (height, width) = len(inputs), layer.kernel_size
    if (height, width) == (1, 1) and layer.groups == 1 and padding == (0, 0):
        strided = inputs[:, :, :: stride[0], :: stride[1]]
        return torch.bmm(grad_output.flatten(2), strided.flatten(2).mT).view(batch, *shape)
    if layer.groups == layer.out_channels == layer.in_channels and torch.compiler.is_compiling():
        # Depthwise: sums of products with the shifted image, which a compiler fuses into one loop.
        padded = functional.pad(inputs, (padding[1], padding[1], padding[0], padding[0]))
        rows, columns = (size * step for size, step in zip(grad_output.shape[2:], stride, strict=True))
        taps = [
            padded[:, :, top : top + rows : stride[0], left : left + columns : stride[1]]
            for top in range(0, height * dilation[0], dilation[0])
            for left in range(0, width * dilation[1], dilation[1])
        ]
        return torch.stack([(grad_output * tap).sum((2, 3)) for tap in taps], dim=2).view(batch, *shape)
    # The samples side by side, as groups of one convolution: none shares a weight with another.
    _, weight, _ = torch.ops.aten.convolution_backward(
        grad_output.reshape(1, -1, *grad_output.shape[2:]),
        inputs.reshape(1, -1, *inputs.shape[2:]),
        inputs.new_empty(()).expand(batch * shape[0], *shape[1:]),  # only its shape is read
        *(None, stride, padding, dilation, False, [0, 0], batch * layer.groups, [False, True, False]),
    )
    values: Tensor = weight.view(batch, *shape)
    return values


def _batch_norm(
    layer: _BatchNorm,
    inputs: Float[Tensor, "batch channels *size"],
    grad_output: Float[Tensor, "batch channels *size"],
) -> dict[str, Tensor]:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    shift, product = (x.flatten(2).sum(2) if x.ndim > 2 else x for x in (grad_output, grad_output * inputs))
    deviation = torch.rsqrt(layer.running_var + layer.eps)
    return {"weight": (product - layer.running_mean * shift) * deviation, "bias": shift}


def _linear(
    layer: nn.Linear,
    inputs: Float[Tensor, "batch *_ in_features"],
    grad_output: Float[Tensor, "batch *_ out_features"],
) -> dict[str, Tensor]:
    rows, columns = (x.flatten(1, -2) if x.ndim > 2 else x[:, None] for x in (grad_output, inputs))
    values = {"weight": torch.bmm(rows.mT, columns)}
    return values if layer.bias is None else values | {"bias": rows.sum(1)}


_RULES: dict[Any, Rule] = {
    nn.Conv2d.forward: _convolution,
    _BatchNorm.forward: _batch_norm,
    nn.SyncBatchNorm.forward: _batch_norm,
    nn.Linear.forward: _linear,
}
"""Rule of a layer by its method ``forward``: a subclass that overrides it has none."""


def _rule_of(layer: nn.Module) -> Rule | None:
    if isinstance(layer, nn.Conv2d):
        is_plain = type(layer)._conv_forward is nn.Conv2d._conv_forward
        if not is_plain or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            return None
    return _RULES.get(type(layer).forward)


@dataclass
class _Unit:
    """A module whose parameters' per-sample gradients follow from its input and its output's gradient."""

    name: str
    module: nn.Module
    parameters: dict[str, str]  # full name by the name inside the module
    rule: Rule | None

    def pass_on(self, inputs: tuple[Any, ...], grad_output: Tensor, consume: Consumer) -> None:
        """Compute the gradients of a batch's samples, some samples at a time."""
        elements = sum(self.module.get_parameter(name).numel() for name in self.parameters)
        count = len(grad_output)
        step = max(1, min(count, ELEMENTS_AT_ONCE // elements))
        for start in range(0, count, step):
            part = slice(start, start + step)
            sliced = tuple(x[part] if _is_batched(x, count) else x for x in inputs)
            if self.rule is not None:
                values = self.rule(self.module, sliced[0], grad_output[part])
            else:
                values = _by_vmap(self.module, list(self.parameters), sliced, grad_output[part])
            for name, full_name in self.parameters.items():
                consume(full_name, values[name])


def _watch(unit: _Unit, count: int, anchors: list[Tensor], consume: Consumer) -> RemovableHandle:
    """Measure a unit during the next forward and backward pass."""

    def after_forward(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
        handle.remove()  # `vmap` calls the module again
        if len(output) != count or len(arguments[0]) != count:
            raise ValueError(
                f"layer {unit.name!r} ({type(module).__name__}) does not have the {count} samples along"
                f" dimension 0: it maps {tuple(arguments[0].shape)} to {tuple(output.shape)}"
            )
        replaced = None
        if not output.requires_grad:
            # Nothing before it is differentiated. The copy may be changed in place, a leaf may not.
            leaf = output.detach().requires_grad_()
            anchors.append(leaf)
            output = replaced = leaf.clone()
        held = [tuple(x.detach() if isinstance(x, Tensor) else x for x in arguments)]
        versions = _versions(held[0])

        @torch.no_grad()
        def after_backward(grad_output: Tensor) -> None:
            inputs = held.pop()  # free to go when it has been used
            if _versions(inputs) != versions:
                raise ValueError(f"the input of layer {unit.name!r} is changed in place by a later layer")
            unit.pass_on(inputs, grad_output, consume)

        output.register_hook(after_backward)  # type: ignore[no-untyped-call]
        return replaced

    handle = unit.module.register_forward_hook(after_forward)
    return handle


def _versions(values: tuple[Any, ...]) -> list[int]:
    """How often each tensor has been changed in place."""
    return [x._version for x in values if isinstance(x, Tensor)]


def _is_batched(value: object, count: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == count


@contextmanager
def _without_gradient(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Exclude parameters from autograd."""
    parameters = list(parameters)
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _by_vmap(
    module: nn.Module, names: list[str], inputs: tuple[Any, ...], grad_output: Tensor
) -> dict[str, Tensor]:
    """Per-sample gradients of a whole module's parameters."""
    batched = [_is_batched(x, len(grad_output)) for x in inputs]
    parameters = {name: module.get_parameter(name).detach() for name in names}
    places = {name: _places(module, module.get_parameter(name)) for name in names}

    def weighted_output(values: dict[str, Tensor], arguments: tuple[Any, ...], weights: Tensor) -> Tensor:
        placed = {place: values[name] for name in names for place in places[name]}
        single = tuple(x[None] if is_batched else x for x, is_batched in zip(arguments, batched, strict=True))
        # PyTorch's own tying of weights leaves a module that stands at two places changed (torch 2.15).
        output: Tensor = torch.func.functional_call(module, placed, single, tie_weights=False)
        return (output * weights[None]).sum()

    dimensions = (None, tuple(0 if is_batched else None for is_batched in batched), 0)
    with torch.enable_grad():
        per_sample = torch.func.vmap(torch.func.grad(weighted_output), in_dims=dimensions)
        result: dict[str, Tensor] = per_sample(parameters, inputs, grad_output)
    return result


def _places(module: nn.Module, parameter: nn.Parameter) -> list[str]:
    """Every place of a parameter in a module, that of a module that stands at two places once."""
    return [
        f"{name}.{own}" if name else own
        for name, layer in module.named_modules()
        for own, held in layer._parameters.items()
        if held is parameter
    ]


def in_double(values: Tensor) -> Tensor:
    """Values on the CPU, those that are not integers in float64."""
    return values.cpu().double() if values.is_floating_point() else values.cpu()


def _trial(
    module: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss | None
) -> tuple[dict[str, Tensor], dict[nn.Module, list[bool]]]:
    """Gradient of one sample by autograd, and every call of every module: whether it maps tensor to tensor.

    The gradient holds the parameters that the loss depends on.
    """
    calls: dict[nn.Module, list[bool]] = {layer: [] for layer in module.modules()}

    def record(layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        is_plain = not keywords and len(arguments) > 0 and isinstance(arguments[0], Tensor)
        calls[layer].append(is_plain and isinstance(output, Tensor))

    handles = [layer.register_forward_hook(record, with_kwargs=True) for layer in calls]
    live = {name: p for name, p in module.named_parameters() if p.requires_grad}
    try:
        losses = sample_losses(module, inputs, targets, loss)
        found: tuple[Tensor | None, ...] = ()
        if losses.requires_grad:
            found = torch.autograd.grad(losses.sum(), list(live.values()), allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return {name: g for name, g in zip(live, found, strict=False) if g is not None}, calls


def _find_units(
    module: nn.Module, gradients: Mapping[str, Tensor], calls: Mapping[nn.Module, list[bool]]
) -> list[_Unit]:
    """Divide the parameters among the smallest modules that can be measured by themselves."""
    modules = dict(module.named_modules())
    holders_of: dict[nn.Parameter, list[str]] = {}
    for holder, layer in modules.items():
        for parameter in layer.parameters(recurse=False):
            holders_of.setdefault(parameter, []).append(holder)
    roots: dict[str, set[str]] = {}
    for name in gradients:
        holders = holders_of[module.get_parameter(name)]
        root = holders[0]
        while not all(_is_inside(holder, root) for holder in holders) or calls[modules[root]] != [True]:
            if not root:
                raise ValueError(f"{type(module).__name__} must map one tensor to one tensor")
            root = root.rpartition(".")[0]
        roots.setdefault(root, set()).add(name)
    units = []
    for root in roots:
        if any(_is_inside(root, other) for other in roots if other != root):
            continue  # measured together with a module around it
        inside = [name for other, names in roots.items() if _is_inside(other, root) for name in names]
        parameters = {name.removeprefix(f"{root}.") if root else name: name for name in sorted(inside)}
        rule = _rule_of(modules[root]) if parameters.keys() <= {"weight", "bias"} else None
        units.append(_Unit(root, modules[root], parameters, rule))
    return units


def _is_inside(name: str, root: str) -> bool:
    return not root or name == root or name.startswith(f"{root}.")
