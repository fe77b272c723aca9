from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nas_lightning.cells import Genotype, get_genotype
from nas_lightning.networks import CellNetwork, drop_path_factors, reference_names
from tests.networks.cases import (
    PUBLISHED,
    WIRINGS,
    all_cases,
    assert_equal_networks,
    batch,
    cell_pairs,
    oracle_and_network,
)
from tests.oracles import plain_network
from tests.oracles.plain_network import PlainNetwork


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", all_cases())
def test_equals_the_plain_network(name: str) -> None:
    oracle, network = oracle_and_network(all_cases()[name])
    images, targets = batch()
    for training in (True, False):
        assert_equal_networks(oracle, network, images, targets, training)
    # Training mode moved the running statistics of live layers alike.
    buffers = dict(oracle.named_buffers())
    names = reference_names(network)
    compared = 0
    for key, buffer in network.named_buffers():
        layer = key.rpartition(".")[0]
        if key in names and network.get_submodule(layer).weight.requires_grad:
            torch.testing.assert_close(buffer, buffers[names[key]])
            compared += 1
    assert compared > 20


@settings(max_examples=40, deadline=None, derandomize=True)
@given(cell_pairs(), st.integers(1, 8), st.booleans())
def test_any_genotype_equals_the_plain_network(cells: list[Any], num_cells: int, auxiliary: bool) -> None:
    genotype = Genotype(*cells)
    auxiliary = auxiliary and num_cells >= 3
    oracle, network = oracle_and_network(genotype, num_cells, auxiliary)
    images, targets = batch(size=32 if auxiliary else 8)
    assert count(oracle) == count(network)
    for training in (True, False):
        assert_equal_networks(oracle, network, images, targets, training)


@pytest.mark.parametrize("name", ["darts_v2", "nasnet", "input 1 free", "zero node"])
def test_equals_the_plain_network_for_imagenet(name: str) -> None:
    oracle, network = oracle_and_network(all_cases()[name], stem="imagenet")
    images, targets = batch(size=224)
    assert count(oracle) == count(network)
    assert network.parameter_place("stem.first.norm_1.weight") == ("stem", None, None)
    for training in (True, False):
        assert_equal_networks(oracle, network, images, targets, training)


def count(module: torch.nn.Module, live: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not live)


@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("name", PUBLISHED)
def test_faithful_count_is_the_plain_networks(name: str, auxiliary: bool) -> None:
    with torch.device("meta"):
        sizes = (10, 36, 20, auxiliary)
        oracle, network = (kind(get_genotype(name), *sizes) for kind in (PlainNetwork, CellNetwork))
    assert count(network) == count(oracle)


def test_counts_of_the_paper() -> None:
    counts = {}
    with torch.device("meta"):
        for name in ("nasnet", "amoebanet", "enas", "darts", "snas"):
            network = CellNetwork(get_genotype(name), 10, auxiliary=True)
            counts[name] = f"{count(network) / 1e6:.2f}"
    assert counts == {"nasnet": "4.29", "amoebanet": "3.60", "enas": "4.32", "darts": "3.83", "snas": "3.14"}


def test_dead_branches_are_never_called() -> None:
    dead_modules = 0
    for genotype in WIRINGS.values():
        network = CellNetwork(genotype, 5, 2, 8)
        for cell in network.cells:
            for module, live in zip(
                [*cell.preprocess, *cell.edges],  # type: ignore[misc]
                cell.plan.live_inputs + cell.plan.live_edges,  # type: ignore[operator, union-attr]
                strict=True,
            ):
                if not live:
                    dead_modules += 1
                    module.register_forward_pre_hook(lambda *_: pytest.fail("a dead branch was called"))
        network(torch.zeros(2, 3, 8, 8))
    assert dead_modules > 50


def test_parameters_stand_at_the_node_of_their_edge() -> None:
    network = CellNetwork(WIRINGS["any number of edges"], 5, 2, 3)
    places = {name: network.parameter_place(name) for name, _ in network.named_parameters()}
    nodes = {
        name.split(".")[3]: place[2] for name, place in places.items() if name.startswith("cells.0.edges")
    }
    assert nodes == {"0": 2, "1": 4, "4": 5, "5": 5}
    assert places["cells.1.edges.0.norm.weight"] == ("cells", 1, 3)
    assert places["cells.2.edges.3.norm.weight"] == ("cells", 2, 4)
    assert [len(network.cells[0].node_edges(node)) for node in range(2, 6)] == [1, 0, 3, 2]  # type: ignore[operator]


def test_what_only_feeds_the_tower_is_skipped_in_evaluation() -> None:
    # With six cells the tower reads cell 4, the classifier cell 5; input 1 is never read, so they share no
    # cell.
    network = CellNetwork(WIRINGS["input 1 free"], 5, 2, 6, auxiliary=True)
    called: list[int] = []
    for index, cell in enumerate(network.cells):
        cell.register_forward_hook(lambda *_, index=index: called.append(index))
    network(torch.zeros(2, 3, 32, 32))
    assert called == [0, 1, 2, 3, 4, 5]
    called.clear()
    network.eval()(torch.zeros(2, 3, 32, 32))
    assert called == [1, 3, 5]


def test_output_in_training_and_evaluation() -> None:
    images = torch.zeros(2, 3, 64, 64)
    network = CellNetwork(get_genotype("darts"), 7, 2, 4, auxiliary=True, stem_stride=2)
    logits, auxiliary_logits = network(images)
    assert logits.shape == auxiliary_logits.shape == (2, 7)
    assert network.eval()(images).shape == (2, 7)
    assert CellNetwork(get_genotype("darts"), 7, 2, 4, stem_stride=2)(images).shape == (2, 7)


def test_node_edges() -> None:
    cell = CellNetwork(get_genotype("darts"), 5, 2, 3).cells[0]
    assert cell.node_edges(5) == (cell.edges[6], cell.edges[7])  # type: ignore[operator, index]


@pytest.mark.parametrize("name", ["darts_v2", "snas_aggressive", "eeea_net_c", "input 1 free"])
def test_drop_path_equals_the_plain_networks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same random factors on the same edges, both networks agree; the factors' law is tested
    apart."""
    probability, samples = 0.5, 4
    oracle, network = oracle_and_network(all_cases()[name])
    network.drop_path_probability = oracle.drop_path_prob = probability
    images, targets = batch(samples=samples)

    cells: list[Any] = list(network.cells)
    edges = sum(len(cell.droppable_edges) for cell in cells)
    torch.manual_seed(5)
    factors = iter(drop_path_factors(edges, samples, torch.tensor(probability).double()))
    queue: list[Tensor] = []
    for cell, plain_cell in zip(cells, oracle.cells, strict=True):
        for index, operation in enumerate(plain_cell._ops):  # type: ignore[arg-type]
            if not isinstance(operation, plain_network.Identity):
                live = index in cell.droppable_edges
                queue.append(next(factors) if live else torch.ones(samples, dtype=torch.float64))
    assert next(factors, None) is None

    monkeypatch.setattr(plain_network, "drop_path", lambda x, _: x * queue.pop(0).view(-1, 1, 1, 1))
    torch.manual_seed(5)
    assert_equal_networks(oracle, network, images, targets, training=True)
    assert queue == []
    assert_equal_networks(oracle, network, images, targets, training=False)


def test_drop_path_probability() -> None:
    network = CellNetwork(get_genotype("darts"), 5, 2, 3)
    assert network.drop_path_probability == 0.0
    images = torch.randn(4, 3, 8, 8)
    before = network(images)
    state = torch.random.get_rng_state()
    assert torch.equal(network(images), before)
    assert torch.equal(torch.random.get_rng_state(), state)  # nothing is drawn while it is off
    network.drop_path_probability = 0.5
    assert network.drop_path_probability == 0.5
    assert not torch.equal(network(images), before)
    network.drop_path_probability = 0.0
    assert torch.equal(network(images), before)

    network.drop_path_probability = 0.5
    assert not any("drop_path" in key for key in network.state_dict())
    other = CellNetwork(get_genotype("darts"), 5, 2, 3)
    other.load_state_dict(network.state_dict())
    assert other.drop_path_probability == 0.0
    assert torch.equal(network.eval()(images), other.eval()(images))
    for probability in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"`drop_path_probability` \(={probability}\)"):
            network.drop_path_probability = probability


@pytest.mark.parametrize(
    ("arguments", "image_size", "fits", "message"),
    [
        ({}, 32, True, ""),
        ({}, 4, True, ""),
        ({}, 2, False, "`image_size` (=2) with `stem_stride` (=1) gives 2 pixels after the stem"),
        ({}, 30, False, "multiple of 4"),
        ({}, 0, False, "gives 0 pixels"),
        ({"stem_stride": 2}, 4, False, "`image_size` (=4) with `stem_stride` (=2) gives 2 pixels"),
        ({"stem_stride": 2}, 8, True, ""),
        ({"num_cells": 1}, 2, True, ""),
        ({"auxiliary": True}, 32, True, ""),
        ({"auxiliary": True}, 40, True, ""),
        ({"auxiliary": True}, 28, False, "gives 7 x 7 pixels at the auxiliary tower, which needs 8 to 10"),
        ({"auxiliary": True}, 64, False, "use images of 32 to 40 pixels"),
        ({"auxiliary": True, "stem_stride": 2}, 64, True, ""),
        ({"auxiliary": True, "stem_stride": 2}, 32, False, "use images of 64 to 80 pixels"),
    ],
)
def test_image_size(arguments: dict[str, int], image_size: int, fits: bool, message: str) -> None:
    sizes: dict[str, Any] = {"num_cells": 3, **arguments}
    network = CellNetwork(get_genotype("darts"), 5, 2, **sizes)
    images = torch.zeros(2, 3, image_size, image_size)
    if fits:
        network.check_image_size(image_size)
        network(images)
        return
    for call in (lambda: network.check_image_size(image_size), lambda: network(images)):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            call()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "`num_classes` (=0)"),
        ({"stem_stride": 0}, "`stem_stride` (=0)"),
        ({"init_channels": 0}, "`init_channels` (=0)"),
        ({"num_cells": -1}, "`num_cells` (=-1)"),
        ({"num_cells": 2, "auxiliary": True}, "`num_cells` (=2) must be at least 3"),
    ],
)
def test_sizes_that_make_no_network(arguments: dict[str, int], message: str) -> None:
    sizes: dict[str, Any] = {"num_classes": 5, **arguments}
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        CellNetwork(get_genotype("darts"), **sizes)
    assert message in str(caught.value)
