"""accelerate: a network computed at a level, while the network itself stays plain."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from nas_lightning.acceleration.copies import compile_module, sharing_copy
from nas_lightning.acceleration.cpu.calibration import KINDS, MAX_POOLING, choose_kernels
from nas_lightning.acceleration.folding import Folding
from nas_lightning.acceleration.fused_network import FusedNetwork
from nas_lightning.acceleration.layers import replace_layers
from nas_lightning.acceleration.level import LEVELS, Level
from nas_lightning.networks.cell import Cell
from nas_lightning.networks.network import CellNetwork

IMAGES_AT_ONCE = range(32, 65)
"""Images whose tensors a CPU's caches hold, more or less, and that are enough to outweigh a pass's start."""


def accelerate(network: nn.Module, level: Level | str, *, cuda_graphs: bool = False) -> Accelerated:
    """A network computed at a level.

    What is accelerated are copies that share every tensor with the network, one for training and one for
    evaluation, made when they are first needed. The network stays as it is: uncompiled, unmarked, with its
    own layers to put hooks on.

    Hooks must be there before the first call: later ones are not called. Numbers that a layer holds, such as
    a dropout's ``p``, are read when the mode changes. Weights that are written through ``tensor.data`` in
    evaluation mode are not noticed.

    Args:
        network: Maps images to logits; a :class:`~nas_lightning.networks.CellNetwork` is fused. Of any other
            module batch norms are folded; it runs plain in evaluation if its first batch shows a difference.
        level: A level or its name; ``"reference"`` is the network itself.
        cuda_graphs: Whether a level with mixed precision records CUDA graphs on a GPU: on one device and
            without accumulated gradients only.

    Returns:
        Maps inputs to what the network maps them to, in the network's mode.

    Raises:
        ValueError: If the level does not exist.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
        >>> images = torch.randn(2, 3, 8, 8)
        >>> with torch.no_grad():
        ...     torch.allclose(accelerate(network, "fast")(images), network(images), atol=1e-6)
        True
    """
    if isinstance(level, str):
        if level not in LEVELS:
            raise ValueError(f"`level` (={level!r}) must be one of {', '.join(map(repr, LEVELS))}")
        level = LEVELS[level]
    return Accelerated(network, level, cuda_graphs)


class Accelerated:
    """A network computed at a level; see :func:`accelerate`.

    Whether it can be accelerated is asked once: a network with hooks or an overridden ``forward`` runs plain.
    So does evaluation in which gradients are recorded, since what is fused for evaluation has none, and a
    network whose layers are in different modes. A network that is moved, cast or given other tensors is
    accelerated anew.

    Args:
        network: The network.
        level: The level.
        cuda_graphs: See :func:`accelerate`.

    Attributes:
        network: As given.
        level: As given.
        why_plain: Why the network runs plain, in one line; None where it is accelerated.
    """

    def __init__(self, network: nn.Module, level: Level, cuda_graphs: bool = False) -> None:
        self.network, self.level, self.cuda_graphs = network, level, cuda_graphs
        self.why_plain = why_plain(network) if level.fused else None
        self._forms: dict[bool, _Form] = {}
        self._modules: list[nn.Module] = []
        self._places: list[tuple[dict[str, Any], str, Any]] = []
        self._sizes: list[tuple[dict[str, Any], int]] = []
        self._modes: list[bool] = []
        self._uses_drop_path = False
        self._is_checked = _is_cell_network(network)

    def __call__(self, inputs: Tensor) -> Any:
        """Output of the network; in float32 at a level with mixed precision.

        Args:
            inputs: ``[batch, ...]``.
        """
        if not self.level.mixed:
            return self._compute(inputs)
        with torch.autocast(inputs.device.type, torch.bfloat16):
            output = self._compute(inputs)
        return tuple(part.float() for part in output) if isinstance(output, tuple) else output.float()

    def _compute(self, inputs: Tensor) -> Any:
        if not self.level.fused:
            return self.network(inputs)
        if inputs.device.type == "cpu" and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        self._follow()
        training = self.network.training
        records = torch.is_grad_enabled() and not training
        is_mixed = len(set(self._modes)) > 1
        if self.why_plain is not None or records or is_mixed or not len(inputs):
            return self.network(inputs)
        if training or self._is_checked:
            return self._form(training, inputs)(inputs)
        return self._check(inputs)

    def _check(self, inputs: Tensor) -> Any:
        """Output of a first batch in evaluation; the network runs plain if that of the copy differs."""
        self._is_checked = True
        expected = self.network(inputs)
        try:
            found = self._form(False, inputs)(inputs)
            tolerance = 0.05 if self.level.mixed else 3 * torch.finfo(expected.dtype).eps ** 0.5
            scale = float(expected.abs().max())
            is_equal = torch.allclose(found, expected, tolerance, tolerance * scale, equal_nan=True)
        except Exception as error:  # whatever a network of unknown layers does
            self.why_plain = f"its copy for evaluation fails ({type(error).__name__})"
        else:
            if not is_equal:
                self.why_plain = "its copy for evaluation computes something else"
        return expected

    def description(self) -> str:
        """What the level does to the network in training, and why it does no more, in one line."""
        if not self.level.fused:
            return "the plain network"
        if self.why_plain is not None:
            return f"the network runs plain: {self.why_plain}"
        return "layers fused"

    def __reduce__(self) -> tuple[Any, ...]:
        return Accelerated, (self.network, self.level, self.cuda_graphs)

    def _form(self, training: bool, inputs: Tensor) -> _Form:
        if training not in self._forms:
            with torch.inference_mode(False):  # tensors made in inference mode can never be written again
                kinds = _kinds(self.network, training, inputs)
                self._forms[training] = _Form(self.network, self.level, training, kinds, self.cuda_graphs)
        return self._forms[training]

    def _follow(self) -> None:
        """Notice other layers, tensors and modes of the network."""
        has_changed = any(held.get(name) is not value for held, name, value in self._places)
        if not self._modules or has_changed or any(len(held) != size for held, size in self._sizes):
            self._forms.clear()
            self._is_checked = _is_cell_network(self.network)
            self.why_plain = why_plain(self.network)
            self._modules = list(self.network.modules())
            held_by = [held for m in self._modules for held in (m._parameters, m._buffers, m._modules)]
            self._places = [(held, name, value) for held in held_by for name, value in held.items()]
            self._sizes = [(held, len(held)) for held in held_by]
        modes = [module.training for module in self._modules]
        if modes != self._modes:
            self._modes = modes
            for form in self._forms.values():
                form.forget()
        uses_drop_path = getattr(self.network, "uses_drop_path", False)
        if uses_drop_path != self._uses_drop_path:
            self._uses_drop_path = uses_drop_path
            self._forms.pop(True, None)


class _Form:
    """A copy that computes a network in one mode."""

    def __init__(
        self, network: nn.Module, level: Level, training: bool, kinds: Collection[str], cuda_graphs: bool
    ) -> None:
        self.module = sharing_copy(network).train(training)
        self.copies = list(zip(network.modules(), self.module.modules(), strict=True))
        if _is_cell_network(network):
            assert isinstance(self.module, CellNetwork)
            self.module = FusedNetwork(self.module, training, kinds)
        replace_layers(self.module, MAX_POOLING in kinds)
        self.folding = None if training else Folding(self.module)
        weight = next(network.parameters(), None)
        self.is_near = weight is not None and weight.device.type == "cpu"
        self.graphs = cuda_graphs and level.mixed and not self.is_near
        self.compiled = level.compiled
        if level.compiled:
            compile_module(self.module, **({"mode": "reduce-overhead"} if self.graphs else {}))
        self._size: int | None = None

    def forget(self) -> None:
        """Read the layers' numbers, and fold the weights at the next call."""
        for layer, own in self.copies:
            for name, value in vars(layer).items():
                if type(value) in (int, float) and vars(own).get(name, value) != value:
                    vars(own)[name] = value
        if self.folding is not None:
            self.folding.forget()

    def __call__(self, inputs: Tensor) -> Any:
        if self.folding is None:
            return self._compute(inputs)
        self.folding.refresh()
        if not self.is_near or inputs.ndim != 4:
            return self._compute(inputs)
        # Some images at a time, whose tensors stay in the caches.
        parts = torch.split(inputs, images_at_once(len(inputs)))
        return torch.cat([self._compute(part) for part in parts]) if len(parts) > 1 else self._compute(*parts)

    def _compute(self, inputs: Tensor) -> Any:
        # What is compiled has fixed sizes; a split's last batch is no reason to compile again.
        self._size = len(inputs) if self._size is None else self._size
        is_odd = self.compiled and len(inputs) != self._size
        if self.graphs and not is_odd:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with torch.compiler.set_stance("force_eager") if is_odd else nullcontext():
            return self.module(inputs)


def images_at_once(batch: int) -> int:
    """Images of a batch that are evaluated together on a CPU: as many as divide it, if possible.

    Args:
        batch: Images of the batch.

    Example:
        >>> images_at_once(250), images_at_once(64), images_at_once(16), images_at_once(67)
        (50, 64, 64, 64)
    """
    return max(IMAGES_AT_ONCE, key=lambda count: (batch % count == 0, count))


def _is_cell_network(network: nn.Module) -> bool:
    return type(network) is CellNetwork and all(type(cell) is Cell for cell in network.cells)


def _kinds(network: nn.Module, training: bool, inputs: Tensor) -> Collection[str]:
    """Kinds of kernels that are faster than layers for a network of cells; any for another network."""
    weight = next(network.parameters(), None)
    if weight is None or weight.device.type != "cpu" or not isinstance(network, CellNetwork):
        return KINDS
    return choose_kernels(
        weight.dtype,
        training=training,
        channels=network.plan.cells[0].channels,
        image_size=inputs.shape[-1] // network.first_cell_stride,
    ).kinds


def why_plain(network: nn.Module) -> str | None:
    """What a copy would not do that the network does, in one line; None if there is nothing."""
    if _has_any_global_hook():  # type: ignore[no-untyped-call]
        return "PyTorch's global module hooks are in use"
    for name, module in network.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks)
        backward_hooks = (module._backward_hooks, module._backward_pre_hooks)
        if any(hooks) or any(backward_hooks) or "forward" in vars(module):
            return f"layer {name!r} ({type(module).__name__}) has hooks or an overridden forward"
    return None
