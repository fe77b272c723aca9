from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_lightning.cells import Edge, Genotype, cell_path, get_genotype, network_paths, reads_inputs, topology
from tests.cells.strategies import cells, genotype_arguments
from tests.oracles import network_paths as oracle


@settings(max_examples=60)
@given(cells(max_nodes=3, max_edges=3), cells(max_nodes=3, max_edges=3), st.integers(1, 4))
def test_lengths_equal_the_listing_of_all_walks(normal: Any, reduction: Any, num_cells: int) -> None:
    genotype = Genotype(*normal, *reduction)
    walks = list(oracle.all_walks(genotype, num_cells))
    found = network_paths(genotype, num_cells)
    assert sum(probability for probability, _ in walks) == pytest.approx(1)
    assert found.mean == pytest.approx(sum(probability * stages for probability, stages in walks))
    assert (found.shortest, found.longest) == (min(s for _, s in walks), max(s for _, s in walks))
    assert topology(genotype, num_cells).network_depth == oracle.longest_connections(genotype, num_cells)


@pytest.mark.parametrize("spec", ["darts_v2", "amoebanet"])
def test_mean_path_equals_a_simulation_of_the_papers_network(spec: str) -> None:
    genotype = get_genotype(spec)
    assert oracle.simulated(genotype, 20, 4000) == pytest.approx(network_paths(genotype).mean, rel=0.02)


def test_a_chain_is_as_long_as_its_cells() -> None:
    """A cell that reads input 1 alone: every path passes every cell."""
    edges = [Edge("sep_conv_3x3", 1), Edge("sep_conv_3x3", 1)]
    genotype = Genotype(edges, [2], edges, [2])
    assert cell_path(genotype.normal, genotype.normal_concat) == 3
    assert network_paths(genotype, 20) == (61, 61, 61)
    found = topology(genotype, 20)
    assert (found.reads_input_0, found.reads_input_1, found.duplicate_edges) == (False, True, 2)
    assert (found.network_depth, found.network_width) == (40, 1)


def test_reading_input_0_alone_halves_the_path() -> None:
    edges = [Edge("sep_conv_3x3", 0), Edge("skip_connect", 0)]
    genotype = Genotype(edges, [2], edges, [2])
    # A cell: the projection and, every other time, two stages; ten of twenty cells are walked.
    assert network_paths(genotype, 20) == (11, 31, 21)


@given(genotype_arguments())
def test_mean_lies_between_the_ends(arguments: tuple[Any, Any, Any, Any]) -> None:
    found = network_paths(Genotype(*arguments))
    assert found.shortest - 1e-9 <= found.mean <= found.longest + 1e-9


def test_edges_of_dead_nodes_and_of_none_read_no_input() -> None:
    edges = [Edge("skip_connect", 1), Edge("none", 0), Edge("sep_conv_3x3", 0), Edge("skip_connect", 0)]
    assert reads_inputs(edges, [2]) == (False, True)
    assert reads_inputs(edges, [2, 3]) == (True, True)
