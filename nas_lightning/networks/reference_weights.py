"""Puts state dicts written by the DARTS family of code into a network.

Their usual names: ``stem.0`` and ``stem.1``, ``cells.3.preprocess0.op.1``, ``cells.3._ops.5.op.2``,
``auxiliary_head.features.2``, ``auxiliary_head.classifier``, ``classifier`` (Liu et al., ICLR 2019, the
authors' code, and its descendants).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nas_lightning.cells.stack import reduction_indices
from nas_lightning.networks.network import CellNetwork
from nas_lightning.networks.state_dicts import Candidate, Group, find_weights, group_of
from nas_lightning.networks.weight_mismatch import why_it_does_not_fit

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
_COUNTERS = ("total_ops", "total_params")  # thop, which counts operations, leaves them in every layer


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


@dataclass
class _Layer:
    """A layer of the file: its tensors, and its other entries, by their name inside the layer."""

    tensors: dict[str, tuple[str, Tensor]] = field(default_factory=dict)
    others: dict[str, tuple[str, str]] = field(default_factory=dict)


_Expected = dict[str, tuple[str, str]]
"""A layer of the network: own and reference name by the reference name inside the layer."""


def load_reference_weights(
    network: CellNetwork,
    state_dict: Mapping[Any, Any],
    *,
    choice: str | None = None,
    ordered: bool = True,
    anew: bool = False,
) -> tuple[str, ...]:
    """Copy the weights of a network trained with the DARTS family of code.

    A layer's tensors are found by the names of the family, by those of this package, or, where a layer has
    other names, by their order, kinds and shapes. Which node an edge reads leaves no trace in a state dict
    and cannot be checked. Tensors of a tower are left out where the network has none. User operations are
    read under the names of their own state dict.

    Args:
        network: Receives the weights; left as it was when an error is raised.
        state_dict: Tensor by name, or mappings that lead to one, such as a checkpoint with the key
            ``state_dict`` beside others; names may have prefixes such as ``module.``.
        choice: Key or prefix of the network to take where there are several, such as ``ema``.
        ordered: Whether the entries are in the order of the layers; a safetensors file sorts them by name.
        anew: Whether what depends on the number of classes, and the tower, may keep the network's own weights
            where the file has other ones or none.

    Returns:
        What was left out or chosen, in sentences.

    Raises:
        ValueError: If the weights do not fit; the message says why: other cells, another width, depth or
            number of classes, the weights of a search, a missing tower or single tensors.
    """
    found, notes = find_weights(state_dict, choice)
    given, unknown = _layers(network, found)
    expected: dict[Group, _Expected] = {}
    for name, reference in reference_names(network).items():
        group, inside = group_of(reference) or ((), reference)
        expected.setdefault(group, {})[inside] = (name, reference)
    left_out = _left_out(network, given, expected, anew)

    own = network.state_dict()
    taken: dict[str, Tensor] = {}
    problems = [f"tensor {name!r} has no place in the network" for name in unknown]
    for group, tensors in expected.items():
        fitting = _fitting(given.get(group, _Layer()), tensors, own, ordered)
        if fitting is None:
            problems += _problems(given.get(group, _Layer()), tensors, own)
        else:
            taken |= fitting
    problems += [
        f"tensor {reference!r} holds NaN or infinite numbers"
        for tensors in expected.values()
        for name, reference in tensors.values()
        if name in taken and not bool(taken[name].isfinite().all())
    ]
    extra = [layer for group, layer in given.items() if group not in expected]
    problems += [f"tensor {n!r} has no place in the network" for x in extra for n, _ in x.tensors.values()]
    if problems:
        held = {group: [tensor for _, tensor in layer.tensors.values()] for group, layer in given.items()}
        reason = why_it_does_not_fit(network, held, list(found.tensors), problems)
        raise ValueError(f"the state dict does not fit the network: {reason}")
    network.load_state_dict(own | taken)
    return (*notes, *left_out)


def _layers(network: CellNetwork, found: Candidate) -> tuple[dict[Group, _Layer], list[str]]:
    """The layers of the file, and the names of tensors of unknown form."""
    layers: dict[Group, _Layer] = {}
    unknown = []
    places = {name: group_of(name) for name in (*found.tensors, *found.others)}
    count = max((int(place[0][1]) + 1 for place in places.values() if place and len(place[0]) > 1), default=0)
    for name, place in places.items():
        if name.rpartition(".")[2] in _COUNTERS:
            continue
        if place is None:
            unknown += [name] if name in found.tensors else []
            continue
        group, inside = place
        if (edge := _edge(network, group, count)) is not None:
            if "node" in group:
                inside = inside.removeprefix("0.")  # drop path behind the operation, in a sequence
            group = edge
        layer = layers.setdefault(group, _Layer())
        if inside in layer.tensors:
            unknown.append(name)
        elif name in found.tensors:
            layer.tensors[inside] = (name, found.tensors[name])
        else:
            layer.others[inside] = (name, found.others[name])
    return layers, unknown


def _edge(network: CellNetwork, group: Group, num_cells: int) -> Group | None:
    """The edge, counted through the cell, that a group names by its node; None for any other group."""
    match group:
        case ("cell", int() as cell, "node", int() as node, int() as number):
            edges, _ = network.genotype.cell(cell in reduction_indices(num_cells))
            positions = list(edges.positions[node]) if node < len(edges.positions) else []
        case ("cell", int() as cell, "to", int() as node, int() as source, int() as number):
            edges, _ = network.genotype.cell(cell in reduction_indices(num_cells))
            positions = [
                position
                for position, (edge, own) in enumerate(zip(edges, edges.nodes, strict=True))
                if (own, edge.source) == (node, source)
            ]
        case _:
            return None
    return ("cell", cell, "edge", positions[number]) if number < len(positions) else None


def _left_out(
    network: CellNetwork, given: dict[Group, _Layer], expected: dict[Group, _Expected], anew: bool
) -> list[str]:
    """Take away what is not to be read, from both sides, and say so."""
    said = []
    tower, classifier = ("tower",), ("classifier",)
    if network.auxiliary_tower is None and given.pop(tower, None) is not None:
        said.append("the file's auxiliary tower is left out: the network has none")
    if not anew:
        return said
    if tower in expected and tower not in given:
        del expected[tower]
        said.append("the auxiliary tower starts anew: the file has none")
    shapes = [tensor.shape for _, tensor in given.get(classifier, _Layer()).tensors.values()]
    classes = shapes[0][0] if shapes and shapes[0] else 0
    if classes != network.num_classes:
        given.pop(classifier, None)
        del expected[classifier]
        held = f"{classes} classes, the network {network.num_classes}" if classes else "none"
        said.append(f"the classifier starts anew: the file has {held}")
        if tower in expected:
            names = list(given[tower].tensors)[-2:]  # the linear layer comes last
            for name in names:
                del given[tower].tensors[name]
            expected[tower] = {
                name: own for name, own in expected[tower].items() if not name.startswith("classifier.")
            }
    return said


def _fitting(
    layer: _Layer, expected: _Expected, own: Mapping[str, Tensor], ordered: bool
) -> dict[str, Tensor] | None:
    """The tensors of a layer by own name; None if they are not the network's."""
    given = {inside: tensor for inside, (_, tensor) in layer.tensors.items()}
    own_names = {inside: name for inside, (name, _) in expected.items()}
    by_own = {(group_of(name) or ((), name))[1]: name for name in own_names.values()}
    for names in (own_names, by_own):
        needed = {inside for inside in names if not inside.endswith(_OPTIONAL)}
        if needed <= given.keys() <= names.keys():
            taken = {names[inside]: tensor for inside, tensor in given.items()}
            return taken if all(_fits(tensor, own[name]) for name, tensor in taken.items()) else None
    if not ordered:
        return None
    taken = {}
    for counts in (False, True):  # the counters of batch norm may be missing
        theirs = [
            (inside, tensor) for inside, tensor in given.items() if inside.endswith(_OPTIONAL) == counts
        ]
        ours = [name for name in own_names.values() if name.endswith(_OPTIONAL) == counts]
        if counts and not theirs:
            continue
        if len(theirs) != len(ours):
            return None
        for (inside, tensor), name in zip(theirs, ours, strict=True):
            same_kind = inside.rpartition(".")[2] == name.rpartition(".")[2]
            if not same_kind or not _fits(tensor, own[name]):
                return None
            taken[name] = tensor
    return taken


def _fits(tensor: Tensor, own: Tensor) -> bool:
    is_number = tensor.is_floating_point() if own.is_floating_point() else not tensor.is_complex()
    return tensor.shape == own.shape and is_number


def _problems(layer: _Layer, expected: _Expected, own: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with a layer, tensor by tensor."""
    problems = []
    for inside, (name, reference) in expected.items():
        if inside in layer.others:
            entry, kind = layer.others[inside]
            problems.append(f"entry {entry!r} is a {kind}, not a tensor")
        elif inside not in layer.tensors and not inside.endswith(_OPTIONAL):
            problems.append(f"tensor {reference!r} is missing")
        elif inside in layer.tensors and not _fits(layer.tensors[inside][1], own[name]):
            full, tensor = layer.tensors[inside]
            if tensor.shape == own[name].shape:
                problems.append(f"tensor {full!r} holds {str(tensor.dtype).removeprefix('torch.')} numbers")
            else:
                shapes = f"{tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
                problems.append(f"tensor {full!r} has shape {shapes}")
    extra = [name for inside, (name, _) in layer.tensors.items() if inside not in expected]
    return problems + [f"tensor {name!r} has no place in the network" for name in extra]


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:count]) + "." for count in range(1, len(parts))]


def _renamed(key: str, layers: Mapping[str, str]) -> str:
    layer, _, tensor = key.rpartition(".")
    return f"{layers[layer]}.{tensor}" if layer in layers else key
