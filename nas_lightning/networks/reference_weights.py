"""Reads state dicts written by the DARTS family of code.

Their names: ``stem.0`` and ``stem.1``, ``cells.3.preprocess0.op.1``, ``cells.3._ops.5.op.2``,
``auxiliary_head.features.2``, ``auxiliary_head.classifier``, ``classifier`` (Liu et al., ICLR 2019, the
authors' code, and its descendants).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nas_lightning.networks.network import CellNetwork
from nas_lightning.networks.operations import BUILT_IN_FACTORIES, build_operation

_PROJECTION = {"convolution": "op.1", "norm": "op.2"}
_REDUCTION = {"convolution_even": "conv_1", "convolution_odd": "conv_2", "norm": "bn"}
_SEPARABLE = {
    "depthwise_1": "op.1",
    "pointwise_1": "op.2",
    "norm_1": "op.3",
    "depthwise_2": "op.5",
    "pointwise_2": "op.6",
    "norm_2": "op.7",
}
_DILATED = {"depthwise": "op.1", "pointwise": "op.2", "norm": "op.3"}
_ROW_COLUMN = {"row": "1", "column": "2", "norm": "3"}
_INVERTED_RESIDUAL = {
    "layers.expansion": "op.0.conv",
    "layers.norm_1": "op.0.norm",
    "layers.depthwise": "op.1.conv",
    "layers.norm_2": "op.1.norm",
    "layers.projection": "op.2.conv",
    "layers.norm_3": "op.2.norm",
}
_LAYERS_OF_OPERATION = (
    {"skip_connect": _REDUCTION}
    | {f"sep_conv_{size}x{size}": _SEPARABLE for size in (3, 5, 7)}
    | {f"sep_conv_{size}x{size}_single": _DILATED for size in (3, 5, 7)}
    | {f"dil_conv_{size}x{size}": _DILATED for size in (3, 5)}
    | {f"conv_{size}x1_1x{size}": _ROW_COLUMN for size in (3, 7)}
    | {f"conv_{size}x{size}": _PROJECTION for size in (1, 3, 5)}
    | {f"nor_conv_{size}x{size}": _PROJECTION for size in (1, 3, 5, 7)}
    | {f"inv_res_{size}x{size}": _INVERTED_RESIDUAL for size in (3, 5)}
)
_STEM = {"convolution": "0", "norm": "1"}
_IMAGENET_STEM = {
    "stem.first.": ("stem0.", {"convolution_1": "0", "norm_1": "1", "convolution_2": "3", "norm_2": "4"}),
    "stem.second.": ("stem1.", {"convolution": "1", "norm": "2"}),
}
_TOWER = {
    "features.convolution_1": "features.2",
    "features.norm_1": "features.3",
    "features.convolution_2": "features.5",
    "features.norm_2": "features.6",
    "classifier": "classifier",
}
_TOWER_PREFIX = "auxiliary_head."
_OPTIONAL = "num_batches_tracked"  # PyTorch before 0.4.1 did not write it


def reference_names(network: CellNetwork) -> dict[str, str]:
    """Name that the DARTS family of code gives to every tensor of a network.

    Args:
        network: The network.

    Returns:
        Reference name by own name, for every entry of the network's state dict.
    """
    stem = {"stem.": ("stem.", _STEM)} if network.plan.stem == "cifar" else _IMAGENET_STEM
    prefixes = stem | {"auxiliary_tower.": (_TOWER_PREFIX, _TOWER)}
    for index, plan in enumerate(network.plan.cells):
        own, reference = f"cells.{index}.", f"cells.{index}."
        layers = _REDUCTION if plan.follows_reduction else _PROJECTION
        prefixes[f"{own}preprocess.0."] = (f"{reference}preprocess0.", layers)
        prefixes[f"{own}preprocess.1."] = (f"{reference}preprocess1.", _PROJECTION)
        edges = network.genotype.reduce if plan.reduction else network.genotype.normal
        for position, (op, _) in enumerate(edges):
            layers = _LAYERS_OF_OPERATION.get(op, {})
            prefixes[f"{own}edges.{position}."] = (f"{reference}_ops.{position}.", layers)
    names = {}
    for key in network.state_dict():
        own = next((prefix for prefix in _prefixes(key) if prefix in prefixes), "")
        reference, layers = prefixes.get(own, ("", {}))
        names[key] = reference + _renamed(key.removeprefix(own), layers)
    return names


def load_reference_weights(network: CellNetwork, state_dict: Mapping[str, Any]) -> None:
    """Copy the weights of a network trained with the DARTS family of code.

    The names of the file's tensors and their shapes must be those of the same genotype and sizes; which node
    an edge reads leaves no trace in a state dict and cannot be checked. Tensors of a tower are left out where
    the network has none. User operations are read under the names of their own state dict.

    Args:
        network: Receives the weights; left as it was when an error is raised.
        state_dict: Tensor by name, with or without the prefix ``module.``, or a checkpoint with the key
            ``state_dict``.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape; the message names it and, where
            edges do not fit, the operation that the genotype and the file have there.
    """
    given = _tensors(state_dict)
    own = network.state_dict()
    names = reference_names(network)
    if network.auxiliary_tower is None:
        given = {name: tensor for name, tensor in given.items() if not name.startswith(_TOWER_PREFIX)}
    elif not any(name.startswith(_TOWER_PREFIX) for name in given):
        raise ValueError(
            "the state dict holds no auxiliary tower (no tensor 'auxiliary_head.*'): load it into a network "
            "with auxiliary=False"
        )
    expected = {reference: own[key] for key, reference in names.items()}
    _check(network, given, expected)
    network.load_state_dict({key: given.get(reference, own[key]) for key, reference in names.items()})


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:count]) + "." for count in range(1, len(parts))]


def _renamed(key: str, layers: Mapping[str, str]) -> str:
    layer, _, tensor = key.rpartition(".")
    return f"{layers[layer]}.{tensor}" if layer in layers else key


def _tensors(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    inner = state_dict.get("state_dict", state_dict)
    if not isinstance(inner, Mapping):
        raise ValueError(f"`state_dict` must map names to tensors, not hold a {type(inner).__name__}")
    tensors = {}
    for name, tensor in inner.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"entry {name!r} of the state dict is a {type(tensor).__name__}, not a tensor")
        tensors[str(name).removeprefix("module.")] = tensor
    return tensors


def _check(network: CellNetwork, given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse tensors that do not fit, with the explanation that tells most."""
    problems = {
        name: f"tensor {name!r} is missing"
        for name in expected
        if name not in given and not name.endswith(_OPTIONAL)
    }
    for name, tensor in given.items():
        if name not in expected:
            problems[name] = f"tensor {name!r} has no place in the network"
        elif tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
            problems[name] = f"tensor {name!r} has shape {shapes}"
    if problems:
        details = list(problems.values())[:3]
        if len(problems) > len(details):
            details.append(f"{len(problems) - len(details)} more")
        explanation = _explanation(network, given, problems)
        raise ValueError(
            "the state dict does not fit the network: "
            + "; ".join([explanation] * bool(explanation) + details)
        )


def _explanation(network: CellNetwork, given: Mapping[str, Tensor], problems: Mapping[str, str]) -> str:
    """What the tensors that do not fit have in common: another size, or another genotype."""
    cells = {int(match[1]) for name in given if (match := re.match(r"cells\.(\d+)\.", name))}
    if not cells:
        return "it holds no 'cells.*', so the DARTS family of code did not write it"
    if max(cells) + 1 != len(network.cells):
        return f"it holds {max(cells) + 1} cells, the network {len(network.cells)} (`num_cells`)"
    if "stem.0.weight" in problems and "stem.0.weight" in given:
        channels = len(given["stem.0.weight"]) // 3
        return f"it was written with `init_channels` {channels}, not {network.plan.cells[0].channels}"
    edges = {match[0] for name in problems if (match := re.match(r"cells\.\d+\._ops\.\d+", name))}
    if edges:
        return _edge_explanation(network, min(edges, key=_numbers), given)
    if "classifier.bias" in problems and "classifier.bias" in given:
        return f"it has {len(given['classifier.bias'])} classes, the network {network.num_classes}"
    return ""


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def _edge_explanation(network: CellNetwork, edge: str, given: Mapping[str, Tensor]) -> str:
    """Which operation the genotype has at an edge that does not fit, and which one the file."""
    cell, position = _numbers(edge)
    plan = network.plan.cells[cell]
    which, edges = (
        ("reduction", network.genotype.reduce) if plan.reduction else ("normal", network.genotype.normal)
    )
    another = f"it was written for another {which} cell"
    if position >= len(edges):
        return f"{another}: {edge!r} would be edge {position + 1}, the genotype has {len(edges)} edges"
    op, source = edges[position]
    held = {
        name.removeprefix(f"{edge}."): tuple(tensor.shape)
        for name, tensor in given.items()
        if name.startswith(f"{edge}.") and not name.endswith(_OPTIONAL)
    }
    if not held:
        return f"{another}: {edge!r} holds no weights, the genotype has {op} there"
    stride = plan.stride(source)
    fitting = [name for name in BUILT_IN_FACTORIES if held == _shapes(name, plan.channels, stride)]
    if fitting:
        return f"{another}: {edge!r} holds the weights of {' or '.join(fitting)}, the genotype has {op} there"
    if held.items() <= _shapes(op, plan.channels, stride).items():
        return f"it is incomplete: {edge!r} ({op}) lacks weights"
    return f"{another}: {edge!r} holds the weights of another operation than {op}"


def _shapes(op: str, channels: int, stride: int) -> dict[str, tuple[int, ...]]:
    """Reference name and shape of every tensor of an operation."""
    with torch.device("meta"):
        operation: nn.Module = build_operation(op, channels, stride)
    return {
        _renamed(key, _LAYERS_OF_OPERATION.get(op, {})): tuple(tensor.shape)
        for key, tensor in operation.state_dict().items()
        if not key.endswith(_OPTIONAL)
    }
