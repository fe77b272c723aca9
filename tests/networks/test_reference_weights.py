from __future__ import annotations

import random
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nas_lightning.cells import get_genotype
from nas_lightning.networks import CellNetwork, load_reference_weights, reference_names
from tests.networks.cases import batch, logits_of, oracle_and_network
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


def test_the_tower_s_absence_is_said() -> None:
    (said,) = load_reference_weights(own(auxiliary=False), plain().state_dict())
    assert said == "the file's auxiliary tower is left out: the network has none"


OPTIMIZER = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
NUMBERS = {"epoch": 600, "best_acc1": np.float64(97.2), "arch": "DARTS", "args": None, "optimizer": OPTIMIZER}


@pytest.mark.parametrize(
    "key", ["state_dict", "net", "model", "model_state_dict", "base-model", "network", "ema"]
)
def test_wrappers(key: str) -> None:
    state = plain().state_dict()
    for wrapped in ({**NUMBERS, key: state}, {"checkpoint": {**NUMBERS, key: {"state_dict": state}}}):
        assert_loaded(wrapped)


@pytest.mark.parametrize(
    "prefix",
    ["module._orig_mod.", "_orig_mod.module.", "model.", "net.", "network.", "module.model.", "_orig_mod."],
)
def test_prefixes(prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in plain().state_dict().items()}
    assert_loaded(state)
    assert_loaded(
        {"state_dict": {**state, "criterion.weight": torch.ones(3)}, "pytorch-lightning_version": "2.0"}
    )


def test_prefixes_of_some_of_the_names() -> None:
    state = plain().state_dict()
    mixed = {("module." if place % 2 else "") + name: x for place, (name, x) in enumerate(state.items())}
    assert assert_loaded({"state_dict": mixed}) == ()
    twice = state | {"module.cells.0._ops.0.op.1.weight": torch.zeros(4, 1, 3, 3)}
    with pytest.raises(ValueError, match="several networks"):
        load_reference_weights(own(), twice)


def assert_loaded(state: dict[str, Any], **settings: Any) -> tuple[str, ...]:
    """The weights are those of the plain network."""
    network, images = own(), batch()[0].float()
    said = load_reference_weights(network, state, **settings)
    torch.testing.assert_close(network.eval()(images), plain().eval()(images)[0])
    return said


def respelt(*rules: tuple[str, str]) -> dict[str, Tensor]:
    state = {}
    for name, tensor in plain().state_dict().items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        state[name] = tensor
    return state


def in_nodes(name: str) -> str:
    """Edges by node, those with weights behind drop path, as in code whose cells are lists of nodes."""
    return re.sub(r"_ops\.(\d+)\.", lambda match: f"dag.{int(match[1]) // 2}.{int(match[1]) % 2}.0.", name)


def in_own_names(state: State) -> State:
    return {own_name: state[name] for own_name, name in reference_names(own()).items()}


@pytest.mark.parametrize(
    "state",
    [
        lambda: respelt((r"^stem\.0", "stem.conv"), (r"^stem\.1", "stem.bn")),
        lambda: respelt((r"preprocess(\d)", r"preproc\1"), (r"\.op\.", ".net."), (r"conv_(\d)", r"conv\1")),
        lambda: respelt((r"preprocess(\d)", r"_preprocess_\1"), (r"\._ops\.", ".ops.")),
        lambda: respelt(
            (r"auxiliary_head\.features", "aux_head.net"),
            (r"auxiliary_head\.classifier", "aux_head.linear"),
            (r"^classifier", "linear"),
        ),
        lambda: {in_nodes(name): tensor for name, tensor in respelt((r"\.op\.", ".net.")).items()},
        lambda: in_own_names(plain().state_dict()),
        lambda: dict(sorted(plain().state_dict().items())),
        lambda: {name: tensor.numpy() for name, tensor in plain().state_dict().items()},
        lambda: {
            **plain().state_dict(),
            "total_ops": torch.zeros(1),
            "cells.0._ops.0.total_params": torch.ones(1),
        },
    ],
    ids=["stem.conv", "preproc", "ops", "aux_head", "dag", "our names", "sorted", "arrays", "thop"],
)
def test_spellings_of_layers(state: Callable[[], dict[str, Any]]) -> None:
    assert_loaded(state())


def test_unordered_names_are_not_guessed() -> None:
    state = respelt((r"\.op\.", ".net."))
    with pytest.raises(ValueError, match=r"tensor 'cells.0.preprocess0.op.1.weight' is missing"):
        assert_loaded(state, ordered=False)


def test_one_of_several_networks() -> None:
    other = {name: 2 * tensor for name, tensor in plain().state_dict().items()}
    both = {"state_dict": plain().state_dict(), "state_dict_ema": other}
    assert assert_loaded(both) == ("state_dict is read; FILE#state_dict_ema reads that one",)
    assert_loaded({"state_dict_ema": plain().state_dict(), "state_dict": other}, choice="state_dict_ema")
    for message, choice in (
        ("several networks (a, b): name one, as in FILE#a", None),
        ("no network 'c'", "c"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            load_reference_weights(own(), {"a": plain().state_dict(), "b": other}, choice=choice)
    state = plain().state_dict()
    assert_loaded({"state_dict": state, "model": dict(state)})  # the same tensors twice


def test_other_classes_and_a_missing_tower_start_anew() -> None:
    network, images = own(), batch()[0].float()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    oracle = plain(classes=7)
    assert load_reference_weights(network, oracle.state_dict(), anew=True) == (
        "the classifier starts anew: the file has 7 classes, the network 5",
    )
    for name, tensor in network.state_dict().items():
        if name.endswith("classifier.weight"):
            assert torch.equal(tensor, before[name])
    tower = network.state_dict()["auxiliary_tower.features.convolution_1.weight"]
    assert torch.equal(tower, oracle.state_dict()["auxiliary_head.features.2.weight"])
    said = load_reference_weights(own(), plain(auxiliary=False).state_dict(), anew=True)
    assert said == ("the auxiliary tower starts anew: the file has none",)
    assert network(images)[0].shape == (3, 5)


def without(*fragments: str) -> Callable[[], State]:
    return lambda: {
        name: tensor
        for name, tensor in plain().state_dict().items()
        if not any(fragment in name for fragment in fragments)
    }


def changed(name: str, value: object) -> Callable[[], dict[str, object]]:
    return lambda: {**plain().state_dict(), name: value}


def supernet() -> State:
    """Every edge with several operations, as in a search."""
    state = {re.sub(r"(_ops\.\d+)\.", r"\1._ops.4.", n): t for n, t in plain().state_dict().items()}
    return {**state, "alphas_normal": torch.ones(14, 8)}


@pytest.mark.parametrize(
    ("state", "messages"),
    [
        (lambda: plain(auxiliary=False).state_dict(), ["it has no auxiliary tower", "auxiliary=False"]),
        (
            lambda: plain("darts_v1").state_dict(),
            [
                "another normal cell: edge 2 has no weights, the genotype sep_conv_3x3",
                "its operations are those of darts_v1",
            ],
        ),
        (lambda: plain("gdas").state_dict(), ["another normal cell: edge 0 has no weights"]),
        (lambda: plain("setn").state_dict(), ["another normal cell", "are those of setn"]),
        (
            lambda: plain("amoebanet").state_dict(),
            ["another normal cell: edge 0 has no weights", "it concatenates 3 nodes, the genotype 4"],
        ),
        (lambda: plain(cells=6).state_dict(), ["it has 6 cells, the network 5 (`num_cells`)"]),
        (lambda: plain(classes=7).state_dict(), ["it has 7 classes, the network 5"]),
        (
            lambda: PlainNetwork(get_genotype("darts_v2"), 5, 8, 5, True).state_dict(),
            ["its first cell has 8 channels, the network's 4 (`init_channels`)"],
        ),
        (
            lambda: PlainNetwork(get_genotype("darts_v1"), 7, 8, 8, False).state_dict(),
            [
                "8 cells",
                "8 channels",
                "7 classes",
                "no auxiliary tower",
                "another normal cell",
                "of darts_v1",
            ],
        ),
        (
            lambda: PlainNetwork(get_genotype("darts_v2"), 5, 4, 5, True, imagenet=True).state_dict(),
            ["it has the ImageNet stem: set `stem` to imagenet"],
        ),
        (
            supernet,
            ["a search network ('cells.0._ops.0._ops.4.*')", "train the genotype that the search found"],
        ),
        (without("cells.3", "cells.4"), ["it has 3 cells, the network 5"]),
        (without("cells.4.preprocess1.op.1"), ["tensor 'cells.4.preprocess1.op.1.weight' is missing"]),
        (without("cells.4._ops.1.op.6"), ["tensor 'cells.4._ops.1.op.6.weight' is missing"]),
        (without("cells."), ["holds no 'cells.*'"]),
        (changed("head.weight", torch.ones(2)), ["tensor 'head.weight' has no place in the network"]),
        (changed("extra.weight", torch.ones(2)), ["tensor 'extra.weight' has no place in the network"]),
        (
            changed("cells.0.preprocess1.op.1.weight", torch.ones(4, 9, 1, 1)),
            ["'cells.0.preprocess1.op.1.weight' has shape (4, 9, 1, 1) instead of (4, 12, 1, 1)"],
        ),
        (
            changed("stem.1.bias", torch.full((12,), float("nan"))),
            ["tensor 'stem.1.bias' holds NaN or infinite numbers"],
        ),
        (
            lambda: {name: x for name, x in plain().state_dict().items() if "running" not in name},
            ["it has no running statistics of batch norms"],
        ),
        (changed("stem.0.weight", 3), ["entry 'stem.0.weight' is a int, not a tensor"]),
        (
            changed("stem.0.weight", torch.ones(12, 3, 3, 3, dtype=torch.int32)),
            ["tensor 'stem.0.weight' holds int32 numbers"],
        ),
        (lambda: {"state_dict": [1, 2]}, ["holds no state dict of a network of cells (only 'state_dict')"]),
        (dict, ["holds no state dict of a network of cells (nothing)"]),
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
        ("nasnet", "edge 0 has the weights of sep_conv_3x3, the genotype sep_conv_5x5"),
        ("enas", "edge 1 has the weights of sep_conv_3x3, the genotype skip_connect"),
    ],
)
def test_another_operation_is_recognised(spec: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_reference_weights(own(spec, auxiliary=False), plain(auxiliary=False).state_dict())
    assert message in str(caught.value)


WRONG: list[Any] = [
    None,
    3,
    "text",
    [1],
    {},
    torch.ones(()),
    torch.ones(2, 2),
    np.float64(1.0),
    b"x",
    object(),
]
WRONG += [torch.ones(3, dtype=torch.complex64), torch.ones(2, 2).to_sparse(), torch.empty(2, device="meta")]


def mutated(state: dict[Any, Any], chance: random.Random) -> dict[Any, Any]:
    """A state dict after one to four changes of a random kind."""
    content: dict[Any, Any] = dict(state)
    for _ in range(chance.randint(1, 4)):
        if not content:
            break
        names = [*content]
        name, other = chance.choice(names), chance.choice(names)
        kind = chance.randrange(10)
        if kind == 0:
            content[str(name)[:-1] + chance.choice("0123.x\n")] = content.pop(name)
        elif kind == 1:
            for dropped in chance.sample(names, min(len(names), chance.choice((1, 5, 100)))):
                content.pop(dropped, None)
        elif kind == 2 and isinstance(content[name], Tensor):
            content[name] = content[name].reshape(-1)[: chance.randint(0, 3)]
        elif kind == 3:
            content = {chance.choice(["state_dict", "net", "model", 3, None, "ema"]): content, "epoch": 3}
        elif kind == 4:
            prefix = chance.choice(["module.", "_orig_mod.", "model.", "a.b.", ".", "cells.0.", "aux."])
            content = {f"{prefix}{key}": value for key, value in content.items()}
        elif kind == 5:
            content[name] = chance.choice(WRONG)
        elif kind == 6:
            content[name], content[other] = content[other], content[name]
        elif kind == 7:
            content[
                chance.choice([(1, 2), "", "cells.", "cells.99999999999999999999._ops.0.x", "stem", 7])
            ] = content[name]
        elif kind == 8:
            content["itself"] = content
        else:
            chance.shuffle(names)
            content = OrderedDict((key, content[key]) for key in names)
    return content


@pytest.mark.slow
def test_a_thousand_damaged_state_dicts() -> None:
    """They load, or end in a ValueError of one line that leaves the network as it was."""
    network = CellNetwork(get_genotype("darts_v2"), 5, 2, 3, True)
    other = PlainNetwork(get_genotype("darts_v2"), 5, 2, 3, True)
    chance, loaded, said = random.Random(13), 0, list[str]()
    for case in range(1000):
        before = next(network.parameters()).detach().clone()
        content = mutated(other.state_dict(), chance)
        try:
            load_reference_weights(
                network, content, anew=chance.random() < 0.3, ordered=chance.random() < 0.8
            )
            loaded += 1
        except ValueError as error:
            said.append(str(error))
            assert torch.equal(next(network.parameters()), before), case
    assert 50 < loaded < 700
    assert not [text for text in said if "\n" in text or len(text) > 1500]


def test_fairdarts_names_an_edge_by_node_source_and_number() -> None:
    """Keys of its network: ``cells.0._ops.<node>.<source>.<number>.op.1.weight``."""
    genotype = get_genotype("fairdarts_a")
    oracle, network = oracle_and_network(genotype, num_cells=3)
    cells = [genotype.cell(index > 0)[0] for index in range(3)]

    def renamed(key: str) -> str:
        match = re.match(r"cells\.(\d)\._ops\.(\d+)\.", key)
        if match is None:
            return key
        edges, position = cells[int(match[1])], int(match[2])
        place = f"{edges.nodes[position]}.{edges[position].source}.0"
        return f"cells.{match[1]}._ops.{place}.{key[match.end() :]}"

    state = {renamed(key): tensor for key, tensor in oracle.state_dict().items()}
    assert "cells.0._ops.5.0.0.op.1.weight" in state
    fresh = CellNetwork(genotype, 5, 2, 3, True).double()
    load_reference_weights(fresh, state)
    torch.testing.assert_close(fresh.state_dict(), network.state_dict())
    with pytest.raises(ValueError, match="does not fit"):
        load_reference_weights(CellNetwork(get_genotype("fairdarts_b"), 5, 2, 3, True).double(), state)
