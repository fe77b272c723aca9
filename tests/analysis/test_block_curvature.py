from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nas_lightning.acceleration import twice_differentiable
from nas_lightning.analysis import block_eigenvalues, filter_scale, measure_pending, parameter_blocks
from nas_lightning.analysis.block_curvature import Block, children_places, with_filters
from nas_lightning.analysis.block_surface import (
    BlockSurface,
    block_names,
    block_scalars,
    block_variables,
    read_blocks,
)
from tests.analysis.test_hessian import batches_of, cell_network, perceptron, samples
from tests.oracles.dense_hessian import dense_hessian


def rows_of(module: nn.Module, block: Block) -> np.ndarray:
    """Which rows of the whole Hessian are a block's."""
    live = {name: p.numel() for name, p in module.named_parameters() if p.requires_grad}
    chosen: np.ndarray = np.concatenate(
        [np.full(size, name in block.parameters) for name, size in live.items()]
    )
    return chosen


def test_every_block_of_a_cell_network_equals_that_of_the_dense_hessian() -> None:
    torch.set_num_threads(1)
    network = cell_network().double()
    inputs, targets = samples(7, 3, 8, 8)
    raw = dense_hessian(network, inputs, targets).numpy()
    scale = filter_scale(network)
    scaled = scale[:, None] * raw * scale
    blocks = parameter_blocks(
        {name: network.parameter_place(name) for name in network.evaluated_parameters()}
    )
    names = [block.name for block in blocks]
    assert names[:5] == ["network", "stem", "cell 0", "cell 0 preprocess", "cell 0 node 2"]
    assert names[-1] == "classifier"
    assert len({block.cell for block in blocks}) == 4
    before = copy.deepcopy(network.state_dict())
    batches = batches_of(4, inputs.double(), targets)
    ends = {}
    for block in blocks:
        rows = rows_of(network, block)
        for normalized in (True, False) if block.node == "2" else (True,):
            forward = twice_differentiable(network) if block.node else None
            settings: dict[str, Any] = {"normalized": normalized, "tolerance": 1e-7, "forward": forward}
            found = block_eigenvalues(network, batches, block.parameters, **settings)
            expected = np.linalg.eigvalsh((scaled if normalized else raw)[np.ix_(rows, rows)])
            error = 1e-7 * np.abs(expected).max()
            assert found.largest == pytest.approx(expected[-1], abs=error), block.name
            assert found.smallest == pytest.approx(expected[0], abs=error), block.name
            if normalized:
                ends[block.name] = (found.smallest, found.largest)
    # Interlacing: a node within its cell, a cell within the network.
    for block in blocks:
        outer = ends[f"cell {block.cell}" if block.node else "network"]
        low, high = ends[block.name]
        assert outer[0] - 1e-9 <= low <= high <= outer[1] + 1e-9
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert all(network.get_parameter(name).requires_grad for name in network.evaluated_parameters())


def test_only_live_parameters_are_blocks_and_flags_come_back_after_a_failure() -> None:
    module, (inputs, targets) = perceptron(), samples(7, 3)
    module.get_parameter("3.bias").requires_grad_(False)
    batches = batches_of(4, inputs.double(), targets)
    with pytest.raises(ValueError, match=r"`names` \(=\['3.bias', 'x'\]\) must be live parameters"):
        block_eigenvalues(module, batches, ["3.bias", "x"])
    with pytest.raises(ValueError, match="must be live parameters"):
        block_eigenvalues(module, batches, [])
    with pytest.raises(IndexError):
        block_eigenvalues(module, [(inputs.double(), targets + 9)], ["0.weight"])
    flags = {name: p.requires_grad for name, p in module.named_parameters()}
    assert not flags.pop("3.bias")
    assert all(flags.values())


def test_weights_without_a_finite_loss_give_nan() -> None:
    module, (inputs, targets) = perceptron(), samples(7, 3)
    with torch.no_grad():
        module.get_parameter("0.weight")[0, 0] = math.nan
    found = block_eigenvalues(module, batches_of(4, inputs.double(), targets), ["3.weight"])
    assert math.isnan(found.largest)
    assert not found.converged


def test_blocks_without_filters_are_left_out() -> None:
    module = perceptron()
    blocks = parameter_blocks(children_places([name for name, _ in module.named_parameters()]))
    assert [block.name for block in blocks] == ["network", "0", "1", "3"]
    assert [block.name for block in with_filters(module, blocks)] == ["network", "0", "3"]


def test_children_are_named_below_what_all_parameters_have_in_common() -> None:
    def parts(*names: str) -> list[str]:
        return [place[0] for place in children_places(names).values()]

    assert parts("model.net.0.weight", "model.net.1.bias") == ["model.net.0", "model.net.1"]
    assert parts("model.0.weight", "model.0.bias") == ["model.0", "model.0"]
    assert parts("a.0.weight", "b.0.weight") == ["a", "b"]
    assert parts("weight", "bias") == ["weight", "bias"]
    assert parts("scale", "model.0.weight") == ["scale", "model"]
    blocks = parameter_blocks(children_places(["network.0.weight", "head.weight"]))
    assert [block.name for block in blocks] == ["network", "network (part)", "head"]


BLOCKS = [
    Block("network", ("a", "b", "c")),
    Block("stem", ("a",)),
    Block("cell 0", ("b", "c"), 0),
    Block("cell 0 preprocess", ("b",), 0, "preprocess"),
    Block("cell 0 node 2", ("c",), 0, "2"),
]


def new_surface(**attributes: Any) -> BlockSurface:
    return BlockSurface.of(
        BLOCKS, [30, 10, 20, 5, 15], block_variables(True), {"split": "test", **attributes}
    )


def measured(place: int) -> dict[str, float]:
    found = {"largest_eigenvalue": 10.0 - place, "smallest_eigenvalue": place - 9.0}
    return {**found, "residual": 0.1, "converged": 1.0, "products": 20.0}


def test_a_broken_measurement_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.nc", tmp_path / "broken.nc"
    surface = new_surface()
    measure_pending(surface, lambda point: measured(point.index[1]))
    surface.save(whole)

    first = new_surface()
    for point in first.pending()[:2]:
        first.record(point, measured(point.index[1]))
    first.save(broken)
    again = BlockSurface.resume_or_create(broken, new_surface())
    assert again.finished == 2
    measure_pending(again, lambda point: measured(point.index[1]))
    again.save(broken)
    assert broken.read_bytes() == whole.read_bytes()

    table = read_blocks(whole)
    assert table["largest_eigenvalue"].dims == ("block",)
    assert block_names(table) == [block.name for block in BLOCKS]
    assert table["cell"].values.tolist() == [-1, -1, 0, 0, 0]
    assert table["parameters"].values.tolist() == [30, 10, 20, 5, 15]
    scalars = block_scalars(table)
    expected = {"network_largest_eigenvalue": 10, "network_smallest_eigenvalue": -9, "block_share": 0.9}
    expected |= {"largest_block_eigenvalue": 9, "largest_node_eigenvalue": 7}
    assert {str(name): float(value) for name, value in scalars.data_vars.items()} == pytest.approx(expected)


def test_other_blocks_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "blocks.nc"
    new_surface().save(path)
    other = BlockSurface.of(BLOCKS[:2], [30, 10], block_variables(True), {"split": "test"})
    with pytest.raises(ValueError, match="blocks"):
        BlockSurface.resume_or_create(path, other)
    with pytest.raises(ValueError, match="split"):
        BlockSurface.resume_or_create(path, new_surface(split="val"))
    surface = new_surface()
    surface.dataset = surface.dataset.drop_vars("smallest_eigenvalue")
    surface.save(path)
    with pytest.raises(ValueError, match="`smallest_eigenvalue` is not over blocks"):
        read_blocks(path)
