"""The gradient of every single instance, layer by layer, out of one backward pass.

The weight gradient of a layer is a sum over the instances of a batch, and what an instance adds depends on
nothing but its own input of the layer and its own gradient of the layer's output. Both pass by in an ordinary
backward pass. So the backward pass leaves the weight gradients out, and a hook on every layer computes the
terms of the sum instead: the work is that of the weight gradient itself (Goodfellow, *Efficient per-example
gradient computations*, 2015, for linear layers; Rochette et al., 2019, for convolutions). They are handed to
the caller while the pass goes on, so that no more than one layer's are held.

Batch norm is in evaluation mode: with running statistics instances do not mix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas_lightning.analysis.evaluation import (
    differentiating,
    evaluating,
    instance_losses,
    without_gradient,
)
from nas_lightning.analysis.instance_rules import Rule, rule_of

Unsupported = Literal["refuse", "vmap"]
"""What becomes of a layer without a rule of its own: an error, or ``torch.func.vmap`` over its instances."""

Consumer = Callable[[str, Tensor], None]
"""Takes a parameter's name and gradients of some of the batch's instances, ``[instances, *shape]``."""

ELEMENTS_AT_ONCE = 2**23
"""Most elements of per-instance gradients that are held at a time: 32 MiB in float32."""


class InstanceGradients:
    """Per-instance gradients of the cross entropy of a module's logits, f_i, in evaluation mode.

    Convolutions of any kind (``Conv2d`` with zero padding: dense, grouped, depthwise, strided, dilated),
    batch norm with running statistics and linear layers have a rule. A module with parameters of its own that
    is none of these, or that is called more than once, or whose parameters another module uses, is measured
    by ``torch.func.vmap`` as a whole where ``unsupported`` is ``"vmap"``, and refused by name otherwise. What
    the rules give is compared with autograd on the first two instances, together and each alone.

    Args:
        module: Maps inputs ``[batch, ...]`` to logits ``[batch, classes]``. Its parameters with
            ``requires_grad`` that the logits depend on count; its mode is set to evaluation while it is used.
        inputs: One instance or more, to find out which module holds which parameter: ``[batch, ...]``.
        targets: Their classes.
        unsupported: What to do about layers without a rule.

    Attributes:
        parameters: The parameters that count, by name.
        by_vmap: Names of the modules that are measured by ``vmap``.

    Raises:
        ValueError: If a layer has no rule and ``unsupported`` is ``"refuse"``, if batch norm keeps no running
            statistics, or if no parameter counts.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Float[Tensor, "batch *_"],
        targets: Int[Tensor, " batch"],
        unsupported: Unsupported = "refuse",
    ) -> None:
        self.module = module
        for name, layer in module.named_modules():
            if isinstance(layer, _BatchNorm) and layer.running_mean is None:
                raise ValueError(
                    f"layer {name!r} ({type(layer).__name__}) keeps no running statistics: its output for one"
                    " instance depends on the others, so that there is no gradient of an instance"
                )
        if unsupported not in ("refuse", "vmap"):
            raise ValueError(f"`unsupported` (={unsupported!r}) must be 'refuse' or 'vmap'")
        inputs, targets = inputs[:2], targets[:2]
        with self._running(inputs.device.type):
            trials = [_trial(module, inputs[i : i + 1], targets[i : i + 1]) for i in range(len(targets))]
        gradients, calls = trials[0]
        if not gradients:
            raise ValueError(
                f"the output of {type(module).__name__} depends on no parameter with requires_grad"
            )
        self.parameters = {name: p for name, p in module.named_parameters() if name in gradients}
        self._units = _find_units(module, gradients, calls)
        self.by_vmap = [unit.name for unit in self._units if unit.rule is None]
        if self.by_vmap and unsupported == "refuse":
            layer = next(unit for unit in self._units if unit.rule is None)
            raise ValueError(
                f"layer {layer.name!r} ({type(layer.module).__name__}) has parameters and no rule for the"
                " gradient of an instance: ask for `unsupported` 'vmap', which is slower, to measure it"
            )
        with torch.inference_mode(False):
            self._check(inputs, targets, [found for found, _ in trials])

    def backward(
        self, inputs: Float[Tensor, "batch *_"], targets: Int[Tensor, " batch"], consume: Consumer
    ) -> Float[Tensor, " batch"]:
        """Run a batch forward and backward, and hand over the gradients of its instances.

        Args:
            inputs: The batch.
            targets: Its classes.
            consume: Called for every parameter, once or for consecutive parts of the batch, with gradients
                ``[instances, *shape]`` in the parameter's type.

        Returns:
            The losses f_i.
        """
        anchors: list[Tensor] = []
        with self._running(inputs.device.type), without_gradient(self.parameters.values()):
            handles = [
                unit.module.register_forward_hook(_Hook(unit, len(targets), anchors, consume).after_forward)
                for unit in self._units
            ]
            try:
                losses = instance_losses(self.module, inputs, targets)
                torch.autograd.grad(losses.sum(), anchors)
            finally:
                for handle in handles:
                    handle.remove()
        return losses.detach()

    def _check(self, inputs: Tensor, targets: Tensor, expected: Sequence[Mapping[str, Tensor]]) -> None:
        """Hold the rules against autograd, on instances taken together and each alone."""
        found: dict[str, list[Tensor]] = {name: [] for name in self.parameters}
        self.backward(inputs, targets, lambda name, values: found[name].append(values))
        # Rules and autograd round differently, by far less than a wrong rule errs.
        tolerance = max(1e-2, 64 * torch.finfo(next(iter(self.parameters.values())).dtype).eps)
        for instance, gradients in enumerate(expected):
            whole = max(float(gradient.norm()) for gradient in gradients.values())
            for name, gradient in gradients.items():
                difference = float((torch.cat(found[name])[instance] - gradient).norm())
                if difference > tolerance * (float(gradient.norm()) + 1e-2 * whole):
                    raise ValueError(
                        f"parameter {name!r}: the gradient of an instance cannot be put together layer by"
                        " layer; it is used outside the module that holds it, or instances are mixed"
                    )

    @contextmanager
    def _running(self, device_type: str) -> Iterator[None]:
        with evaluating(self.module), differentiating(device_type):
            yield


@dataclass
class _Unit:
    """A module whose parameters' per-instance gradients come from its input and its output's gradient."""

    name: str
    module: nn.Module
    parameters: dict[str, str]  # full name by the name inside the module
    rule: Rule | None

    def hand_over(self, inputs: tuple[Any, ...], gradient: Tensor, consume: Consumer) -> None:
        """Compute the gradients of a batch's instances, some instances at a time."""
        elements = sum(self.module.get_parameter(name).numel() for name in self.parameters)
        count = len(gradient)
        step = max(1, min(count, ELEMENTS_AT_ONCE // elements))
        for start in range(0, count, step):
            part = slice(start, start + step)
            sliced = tuple(
                x[part] if isinstance(x, Tensor) and x.ndim and len(x) == count else x for x in inputs
            )
            if self.rule is not None:
                values = self.rule(self.module, sliced[0], gradient[part])
            else:
                values = _by_vmap(self.module, list(self.parameters), sliced, gradient[part])
            for name, full_name in self.parameters.items():
                consume(full_name, values[name])


@dataclass
class _Hook:
    """Watches a unit during one forward and backward pass."""

    unit: _Unit
    count: int
    anchors: list[Tensor]
    consume: Consumer
    inputs: tuple[Any, ...] | None = None
    versions: tuple[int, ...] = ()

    def after_forward(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if self.inputs is not None:
            return None  # called again, by its own measurement
        if len(output) != self.count or len(arguments[0]) != self.count:
            raise ValueError(
                f"layer {self.unit.name!r} ({type(module).__name__}) does not have the {self.count} instances"
                f" along dimension 0: it maps {tuple(arguments[0].shape)} to {tuple(output.shape)}"
            )
        replaced = None
        if not output.requires_grad:
            # Nothing before it is differentiated. The copy may be changed in place, a leaf may not.
            leaf = output.detach().requires_grad_()
            self.anchors.append(leaf)
            output = replaced = leaf.clone()
        self.inputs = tuple(x.detach() if isinstance(x, Tensor) else x for x in arguments)
        self.versions = _versions(self.inputs)
        output.register_hook(self.after_backward)  # type: ignore[no-untyped-call]
        return replaced

    @torch.no_grad()
    def after_backward(self, gradient: Tensor) -> None:
        inputs, self.inputs = self.inputs, ()
        assert inputs is not None
        if _versions(inputs) != self.versions:
            raise ValueError(f"the input of layer {self.unit.name!r} is changed in place by a later layer")
        self.unit.hand_over(inputs, gradient, self.consume)


def _versions(values: tuple[Any, ...]) -> tuple[int, ...]:
    """How often each tensor has been changed in place."""
    return tuple(x._version for x in values if isinstance(x, Tensor))


def _by_vmap(
    module: nn.Module, names: list[str], inputs: tuple[Any, ...], gradient: Tensor
) -> dict[str, Tensor]:
    """Gradients of a whole module's parameters, one instance after the other in the vectorised sense."""
    count = len(gradient)
    batched = [isinstance(x, Tensor) and x.ndim > 0 and len(x) == count for x in inputs]
    parameters = {name: module.get_parameter(name).detach() for name in names}
    places = {name: _places(module, module.get_parameter(name)) for name in names}

    def weighted_output(values: dict[str, Tensor], arguments: tuple[Any, ...], weights: Tensor) -> Tensor:
        placed = {place: values[name] for name in names for place in places[name]}
        single = tuple(x[None] if is_batched else x for x, is_batched in zip(arguments, batched, strict=True))
        # Its own way to tie weights leaves a module that stands at two places changed (torch 2.15).
        output: Tensor = torch.func.functional_call(module, placed, single, tie_weights=False)
        return (output * weights[None]).sum()

    dimensions = tuple(0 if is_batched else None for is_batched in batched)
    per_instance = torch.func.vmap(torch.func.grad(weighted_output), in_dims=(None, dimensions, 0))
    with torch.enable_grad():
        result: dict[str, Tensor] = per_instance(parameters, inputs, gradient)
    return result


def _places(module: nn.Module, parameter: nn.Parameter) -> list[str]:
    """Every place of a parameter in a module, that of a module that stands at two places once."""
    return [
        f"{name}.{own}" if name else own
        for name, layer in module.named_modules()
        for own, held in layer._parameters.items()
        if held is parameter
    ]


@dataclass
class _Calls:
    """How a module was called in one forward pass."""

    count: int = 0
    plain: bool = True  # positional arguments, a tensor first, and a tensor out

    @property
    def measurable(self) -> bool:
        return self.count == 1 and self.plain


def _trial(
    module: nn.Module, inputs: Tensor, targets: Tensor
) -> tuple[dict[str, Tensor], dict[nn.Module, _Calls]]:
    """Gradient of one instance by autograd, for the parameters that it depends on, and who was called how."""
    calls = {layer: _Calls() for layer in module.modules()}

    def record(layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        calls[layer].count += 1
        is_plain = not keywords and len(arguments) > 0 and isinstance(arguments[0], Tensor)
        calls[layer].plain &= is_plain and isinstance(output, Tensor)

    handles = [layer.register_forward_hook(record, with_kwargs=True) for layer in calls]
    live = {name: p for name, p in module.named_parameters() if p.requires_grad}
    try:
        losses = instance_losses(module, inputs, targets)
        found: tuple[Tensor | None, ...] = ()
        if losses.requires_grad:
            found = torch.autograd.grad(losses.sum(), list(live.values()), allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return {name: g for name, g in zip(live, found, strict=False) if g is not None}, calls


def _find_units(
    module: nn.Module, gradients: Mapping[str, Tensor], calls: Mapping[nn.Module, _Calls]
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
        while not all(_is_inside(holder, root) for holder in holders) or not calls[modules[root]].measurable:
            if not root:
                raise ValueError(f"{type(module).__name__} must map one tensor to one tensor of logits")
            root = root.rpartition(".")[0]
        roots.setdefault(root, set()).add(name)
    units = []
    for root in roots:
        if any(_is_inside(root, other) for other in roots if other != root):
            continue  # measured together with a module around it
        inside = [name for other, names in roots.items() if _is_inside(other, root) for name in names]
        parameters = {name.removeprefix(f"{root}.") if root else name: name for name in sorted(inside)}
        rule = rule_of(modules[root]) if parameters.keys() <= {"weight", "bias"} else None
        units.append(_Unit(root, modules[root], parameters, rule))
    return units


def _is_inside(name: str, root: str) -> bool:
    return not root or name == root or name.startswith(f"{root}.")
