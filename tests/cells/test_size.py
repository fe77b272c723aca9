from __future__ import annotations

import pytest

from nas_lightning.cells import (
    Genotype,
    UnknownOperationSize,
    count_parameters,
    declare_operation,
    get_genotype,
    multiply_adds,
)
from nas_lightning.cells.size import operation_cost
from nas_lightning.cells.variants import table3_spec
from tests.cells.data import COUNTED, PAPER


def millions(count: int) -> str:
    return f"{count / 1e6:.2f}"


@pytest.mark.parametrize("name", COUNTED)
def test_published_cells_count_as_the_original_networks(name: str) -> None:
    genotype = get_genotype(name)
    assert [
        count_parameters(genotype),
        count_parameters(genotype, auxiliary=True),
    ] == COUNTED[name]["parameters"]


def test_all_thirty_sizes_of_table_1() -> None:
    compared = 0
    for data, cells in PAPER["table1"].items():
        num_classes = cells["num_classes"]
        for base in ("nasnet", "amoebanet", "enas", "darts", "snas"):
            counted = [
                millions(count_parameters(get_genotype(spec), auxiliary=True, num_classes=num_classes))
                for spec in (base, f"{base}:adapted")
            ]
            assert counted == cells[base], (data, base)
            compared += len(counted)
    assert compared == 30


def test_43_of_the_44_sizes_of_table_3_and_which_one_differs() -> None:
    agree = 0
    differ: dict[str, dict[int, str]] = {}
    for base, printed in PAPER["table3"].items():
        specs = [table3_spec({"darts": "darts_v2"}.get(base, base), number) for number in range(11)]
        for number, (spec, figure) in enumerate(zip(specs, printed, strict=True)):
            counted = millions(count_parameters(get_genotype(spec)))
            if counted == figure:
                agree += 1
            else:
                differ.setdefault(base, {})[number] = counted
    assert agree == 43
    assert differ == PAPER["table3_differs"]


def test_a_tiny_network_by_hand() -> None:
    genotype = Genotype(
        [("sep_conv_3x3", 0), ("skip_connect", 1)], [2], [("dil_conv_5x5", 1), ("skip_connect", 0)], [2]
    )
    # Two channels, three cells: normal, reduction, reduction; 8x8 images.
    stem = 3 * 6 * 9 + 12
    separable = 2 * (2 * 9 + 2 * 2 + 4)
    first = (6 * 2 + 4) + (6 * 2 + 4) + separable
    second = (6 * 4 + 8) + (2 * 4 + 8) + (4 * 25 + 4 * 4 + 8) + (4 * 4 + 8)
    third = (2 * 8 + 16) + (4 * 8 + 16) + (8 * 25 + 8 * 8 + 16) + (8 * 8 + 16)
    classifier = 8 * 5 + 5
    sizes = {"init_channels": 2, "num_cells": 3, "num_classes": 5}
    assert count_parameters(genotype, **sizes) == stem + first + second + third + classifier  # type: ignore[arg-type]
    stem_adds = 3 * 6 * 9 * 64
    first_adds = 64 * (12 + 12 + 2 * (18 + 4))
    # A reduction preprocesses at full resolution and strides in its edges.
    second_adds = 64 * (24 + 8) + 16 * (100 + 16 + 16)
    # Input 0 of the third cell has twice the resolution of input 1 and is halved by its preprocessing.
    third_adds = 16 * (16 + 32) + 4 * (200 + 64 + 64)
    counted = multiply_adds(genotype, **sizes, image_size=8)  # type: ignore[arg-type]
    assert counted == stem_adds + first_adds + second_adds + third_adds + 40
    assert multiply_adds(genotype, **sizes, image_size=16, stem_stride=2) == counted  # type: ignore[arg-type]
    tower = (8 * 128 + 256) + (128 * 768 * 4 + 1536) + (768 * 5 + 5)
    with_tower = count_parameters(genotype, **sizes, auxiliary=True)  # type: ignore[arg-type]
    assert with_tower - count_parameters(genotype, **sizes) == tower  # type: ignore[arg-type]


def test_dead_branches_count_in_the_total_only() -> None:
    # Node 3 feeds nothing, and with it the only edge that reads input 0.
    genotype = Genotype(
        [("skip_connect", 1), ("skip_connect", 1), ("sep_conv_3x3", 0), ("sep_conv_5x5", 2)],
        [2],
        [("max_pool_3x3", 1), ("none", 0)],
        [2],
    )
    sizes = {"init_channels": 4, "num_cells": 1}
    reduction_inputs = 12 * 8 + 16
    total = count_parameters(genotype, **sizes)  # type: ignore[arg-type]
    assert total - count_parameters(genotype, **sizes, live=True) == reduction_inputs  # type: ignore[arg-type]
    # Cells 0, 3, 5: normal; their node 3 and the preprocessing of input 0 are dead. Cells 2, 4 reduce.
    wide = {"init_channels": 4, "num_cells": 6}
    dead = 0
    for channels, inputs, reduction in ((4, 12, False), (4, 12, False), (8, 4, True), (8, 4, False)):
        dead += inputs * channels + 2 * channels
        dead += 0 if reduction else 2 * (channels * 9 + channels**2 + 2 * channels)
        dead += 0 if reduction else 2 * (channels * 25 + channels**2 + 2 * channels)
    for channels, inputs, reduction in ((16, 8, True), (16, 8, False)):
        dead += inputs * channels + 2 * channels
        dead += 0 if reduction else 2 * (channels * 9 + channels**2 + 2 * channels)
        dead += 0 if reduction else 2 * (channels * 25 + channels**2 + 2 * channels)
    total = count_parameters(genotype, **wide)  # type: ignore[arg-type]
    assert total - count_parameters(genotype, **wide, live=True) == dead  # type: ignore[arg-type]


def test_a_cell_that_never_reads_input_1_leaves_every_second_cell_dead() -> None:
    genotype = Genotype([("skip_connect", 0), ("sep_conv_3x3", 0)], [2], [("skip_connect", 0)] * 2, [2])
    with_one, with_two = (multiply_adds(genotype, init_channels=4, num_cells=cells) for cells in (7, 8))
    assert with_one > 0
    assert with_two > 0
    live = count_parameters(genotype, init_channels=4, num_cells=7, live=True)
    assert live < count_parameters(genotype, init_channels=4, num_cells=7, live=True, auxiliary=True)
    assert live < count_parameters(genotype, init_channels=4, num_cells=7) / 1.5


def test_operations_of_stride_2_by_hand() -> None:
    pointwise, depthwise = 16, 36
    assert operation_cost("dil_conv_3x3", 4, 2, 8).multiply_adds == 16 * (pointwise + depthwise)
    assert operation_cost("conv_7x1_1x7", 4, 2, 8).multiply_adds == 7 * 16 * (8 * 4 + 4 * 4)
    assert operation_cost("conv_3x1_1x3", 4, 1, 8).parameters == 2 * 3 * 16 + 8
    assert operation_cost("inv_res_5x5", 4, 2, 8).multiply_adds == 64 * 16 + 16 * (4 * 25 + 16)


def test_an_operation_of_the_users_own_has_no_formula() -> None:
    declare_operation("operation_without_size")
    cell = [("operation_without_size", 0), ("skip_connect", 1)]
    genotype = Genotype(cell, [2], cell, [2])
    for count in (count_parameters, multiply_adds):
        with pytest.raises(UnknownOperationSize, match="'operation_without_size'"):
            count(genotype)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init_channels": 0}, "`init_channels` .=0. must be at least 1"),
        ({"num_cells": -1}, "`num_cells` .=-1."),
        ({"num_classes": 0}, "`num_classes` .=0."),
        ({"stem_stride": 0}, "`stem_stride` .=0."),
        ({"num_cells": 2, "auxiliary": True}, "`num_cells` .=2. must be at least 3"),
    ],
)
def test_impossible_sizes_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        count_parameters(get_genotype("darts"), **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`image_size` \(=0\)"):
        multiply_adds(get_genotype("darts"), image_size=0)


def test_images_that_the_network_refuses_have_no_size() -> None:
    darts = get_genotype("darts")
    with pytest.raises(ValueError, match=r"\(=30\) .* gives 30 pixels after the stem.* multiple of 4\Z"):
        multiply_adds(darts, image_size=30)
    with pytest.raises(ValueError, match=r"\(=60\) with `stem_stride` \(=2\).* multiple of 8\Z"):
        multiply_adds(darts, image_size=60, stem_stride=2)
    # The stem rounds up: 63 pixels make 32.
    assert multiply_adds(darts, image_size=63, stem_stride=2) == multiply_adds(darts, image_size=32)
    with pytest.raises(ValueError, match=r"`stem_stride` \(=0\) must be at least 1"):
        multiply_adds(darts, stem_stride=0)
