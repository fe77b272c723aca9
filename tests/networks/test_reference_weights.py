from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nas_lightning.cells import get_genotype
from nas_lightning.networks import CellNetwork, load_reference_weights, reference_names
from tests.networks.cases import batch, logits_of
from tests.oracles.plain_network import PlainNetwork

State = dict[str, Tensor]


def plain(spec: str = "darts_v2", auxiliary: bool = True, classes: int = 5, cells: int = 5) -> PlainNetwork:
    torch.manual_seed(3)
    return PlainNetwork(get_genotype(spec), classes, 4, cells, auxiliary)


def own(spec: str = "darts_v2", auxiliary: bool = True) -> CellNetwork:
    torch.manual_seed(4)
    return CellNetwork(get_genotype(spec), 5, 4, 5, auxiliary)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("counters", [True, False], ids=["", "without num_batches_tracked"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_forms_of_a_file(prefix: str, counters: bool, wrapped: bool) -> None:
    oracle, network = plain(), own()
    images = batch()[0].float()
    oracle(images)  # moves the running statistics
    state = {
        prefix + name: tensor
        for name, tensor in oracle.state_dict().items()
        if counters or not name.endswith("num_batches_tracked")
    }
    load_reference_weights(network, {"state_dict": state, "epoch": 600} if wrapped else state)
    for training in (False, True):
        expected, auxiliary = logits_of(oracle.train(training)(images))
        actual, own_auxiliary = logits_of(network.train(training)(images))
        torch.testing.assert_close(actual, expected)
        if training:
            torch.testing.assert_close(own_auxiliary, auxiliary)


def test_names_are_those_of_the_family() -> None:
    names = set(reference_names(own()).values())
    assert names == set(plain().state_dict())
    assert {
        "stem.0.weight",
        "stem.1.running_mean",
        "cells.3.preprocess0.op.1.weight",
        "cells.2.preprocess0.conv_2.weight",
        "cells.2.preprocess0.bn.bias",
        "cells.2._ops.0.op.7.weight",
        "auxiliary_head.features.2.weight",
        "auxiliary_head.classifier.bias",
        "classifier.weight",
    } <= names


def test_tower_in_the_file_only_is_left_out() -> None:
    oracle, network = plain(), own(auxiliary=False)
    load_reference_weights(network, oracle.state_dict())
    images = batch()[0].float()
    torch.testing.assert_close(network.eval()(images), oracle.eval()(images)[0])


def without(*fragments: str) -> Callable[[], State]:
    return lambda: {
        name: tensor
        for name, tensor in plain().state_dict().items()
        if not any(fragment in name for fragment in fragments)
    }


def changed(name: str, value: object) -> Callable[[], dict[str, object]]:
    return lambda: {**plain().state_dict(), name: value}


@pytest.mark.parametrize(
    ("state", "messages"),
    [
        (lambda: plain(auxiliary=False).state_dict(), ["holds no auxiliary tower", "auxiliary=False"]),
        (
            # darts_v1 has other operations: first edge 2 of the normal cell
            lambda: plain("darts_v1").state_dict(),
            ["another normal cell", "'cells.0._ops.2' holds no weights, the genotype has sep_conv_3x3 there"],
        ),
        (
            lambda: plain("gdas").state_dict(),
            ["another normal cell", "'cells.0._ops.0' holds no weights, the genotype has sep_conv_3x3"],
        ),
        (
            lambda: plain("setn").state_dict(),
            ["another normal cell", "cells.0._ops.0"],
        ),
        (
            lambda: plain("amoebanet").state_dict(),
            ["another normal cell", "'cells.0._ops.0' holds no weights"],
        ),
        (lambda: plain(cells=6).state_dict(), ["holds 6 cells, the network 5 (`num_cells`)"]),
        (lambda: plain(classes=7).state_dict(), ["has 7 classes, the network 5", "'classifier.weight'"]),
        (
            lambda: PlainNetwork(get_genotype("darts_v2"), 5, 8, 5, True).state_dict(),
            [
                "`init_channels` 8, not 4",
                "tensor 'stem.0.weight' has shape (24, 3, 3, 3) instead of (12, 3, 3, 3)",
            ],
        ),
        (without("cells.3", "cells.4"), ["holds 3 cells, the network 5"]),
        (without("cells.4.preprocess1.op.1"), ["tensor 'cells.4.preprocess1.op.1.weight' is missing"]),
        (without("cells.4._ops.1.op.6"), ["incomplete: 'cells.4._ops.1' (sep_conv_3x3) lacks weights"]),
        (without("cells."), ["holds no 'cells.*'"]),
        (changed("head.weight", torch.ones(2)), ["tensor 'head.weight' has no place in the network"]),
        (
            changed("cells.0.preprocess1.op.1.weight", torch.ones(4, 9, 1, 1)),
            ["'cells.0.preprocess1.op.1.weight' has shape (4, 9, 1, 1) instead of (4, 12, 1, 1)"],
        ),
        (changed("epoch", 600), ["entry 'epoch' of the state dict is a int, not a tensor"]),
        (lambda: {"state_dict": [1, 2]}, ["`state_dict` must map names to tensors, not hold a list"]),
        (dict, ["holds no auxiliary tower"]),
    ],
)
def test_what_does_not_fit(state: Callable[[], State], messages: list[str]) -> None:
    network = own()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_reference_weights(network, state())
    for message in messages:
        assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        # the first edge that differs is named, with what the file holds there
        ("nasnet", "'cells.0._ops.0' holds the weights of sep_conv_3x3, the genotype has sep_conv_5x5 there"),
        ("enas", "'cells.0._ops.1' holds the weights of sep_conv_3x3, the genotype has skip_connect there"),
    ],
)
def test_another_operation_is_recognised(spec: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_reference_weights(own(spec, auxiliary=False), plain(auxiliary=False).state_dict())
    assert message in str(caught.value)
