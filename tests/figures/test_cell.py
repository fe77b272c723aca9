from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from nas_lightning.cells import (
    CellEdges,
    Edge,
    Genotype,
    cell_edges,
    get_genotype,
    node_depths,
    published_genotypes,
)
from nas_lightning.figures import (
    CellDrawing,
    draw_cell,
    draw_cells,
    figure_to_array,
    figure_to_bytes,
    picture_format,
)
from nas_lightning.figures.cell_layout import GAP, Box, CellLayout, Line, lay_out
from tests.cells.strategies import cells

LABEL_WIDTH = 0.85
BASES = ("nasnet", "amoebanet", "enas", "darts", "snas")
VARIANTS = [f"{base}:C{number}" for base in ("darts", "enas", "amoebanet", "nasnet") for number in (1, 4, 13)]
SPECS = [*published_genotypes(), *VARIANTS, *(f"{base}:adapted" for base in BASES)]


def both_cells(genotype: Genotype) -> list[tuple[tuple[Edge, ...], tuple[int, ...]]]:
    return [(genotype.normal, genotype.normal_concat), (genotype.reduce, genotype.reduce_concat)]


def overlap(first: Box, second: Box) -> bool:
    return (
        abs(first.x - second.x) < (first.width + second.width) / 2 - 1e-9
        and abs(first.y - second.y) < (first.height + second.height) / 2 - 1e-9
    )


def way(line: Line, *, to_output: bool) -> np.ndarray:
    """Points along a line, a fiftieth of an inch apart or less."""
    (x0, y0), (x1, y1), (x2, y2) = line.start, line.bend, line.end
    first, last = (x1, x2) if to_output else (x1 - GAP, x1)
    low, high = (y1, y2) if to_output else (y0, y1)
    times = np.linspace(0, 1, 400)
    # A cubic Bezier curve whose inner points share the middle abscissa.
    xs = first * (1 - times) ** 3 + (first + last) / 2 * 3 * times * (1 - times) + last * times**3
    ys = low * ((1 - times) ** 3 + 3 * times * (1 - times) ** 2)
    ys += high * (times**3 + 3 * times**2 * (1 - times))
    before, after = np.linspace(x0, first, 600), np.linspace(last, x2, 600)
    return np.stack(
        [
            np.concatenate([before, xs, after]),
            np.concatenate([np.full(600, y0), ys, np.full(600, y2)]),
        ],
        axis=1,
    )


def crosses(points: np.ndarray, box: Box) -> bool:
    """Whether a way meets the inside of a box."""
    distance = np.abs(points - (box.x, box.y)) - (box.width / 2, box.height / 2)
    return bool((distance < -1e-6).all(axis=1).any())


def check(edges: tuple[Edge, ...], concat: tuple[int, ...]) -> None:
    layout: CellLayout = lay_out(edges, concat, LABEL_WIDTH)
    boxes = [*layout.nodes, layout.output, *layout.labels]
    assert not [pair for pair in combinations(boxes, 2) if overlap(*pair)]
    # A line crosses no node, and no label but its own.
    for index, line in enumerate(layout.edges):
        others = [label for number, label in enumerate(layout.labels) if number != index]
        points = way(line, to_output=False)
        assert not [box for box in [*layout.nodes, layout.output, *others] if crosses(points, box)]
    for line in layout.concat:
        points = way(line, to_output=True)
        assert not [box for box in [*layout.nodes, *layout.labels] if crosses(points, box)]
    # The edges of one node end apart, so two edges from one source are two lines.
    for places in cell_edges(edges).positions:
        for first, second in combinations(places, 2):
            assert abs(layout.edges[first].end[1] - layout.edges[second].end[1]) > 0.2
    # Nodes stand right of what they read: further right the deeper they are, but for nodes without edges.
    own = cell_edges(edges)
    for (_, source), node in zip(own, own.nodes, strict=True):
        assert layout.nodes[source].x < layout.nodes[node].x
    depths = node_depths(edges) if all(own.counts) else (0, 0)
    columns = {depth: layout.nodes[node].x for node, depth in enumerate(depths)}
    ordered = [columns[depth] for depth in sorted(columns)]
    assert ordered == sorted(set(ordered))
    assert all(box.left >= -1e-9 and box.right <= layout.width + 1e-9 for box in boxes)
    assert all(abs(box.y) + box.height / 2 <= layout.height / 2 + 1e-9 for box in boxes)


@pytest.mark.parametrize("spec", BASES)
def test_nothing_overlaps_in_the_papers_cells(spec: str) -> None:
    for edges, concat in both_cells(get_genotype(spec)):
        check(edges, concat)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec not in BASES])
def test_nothing_overlaps_in_any_published_cell_or_variant(spec: str) -> None:
    for edges, concat in both_cells(get_genotype(spec)):
        check(edges, concat)


MANY = CellEdges(
    [
        [],
        [Edge("skip_connect", 2)],
        [Edge("sep_conv_3x3_single", source) for source in (0, 1, 2, 3, 0)],
        [Edge("nor_conv_7x7", 4), Edge("noise", 0), Edge("conv_3x3", 1)],
    ]
)


def test_nothing_overlaps_where_nodes_have_any_number_of_edges() -> None:
    check(MANY, (2, 3, 4, 5))
    drawn = texts(draw_cell(MANY, (2, 3, 4, 5), "many"))
    assert [drawn.count(op) for op in ("sep_conv_3x3_single", "noise", "skip_connect")] == [5, 1, 1]
    assert "width 1.27c, depth 3, path 2.25 (grey: does not reach the output)" in drawn


@given(cells(max_nodes=4), st.booleans())
def test_boxes_never_overlap_whatever_the_cell(
    cell: tuple[tuple[Edge, ...], tuple[int, ...]], narrow: bool
) -> None:
    layout = lay_out(*cell, 0.3 if narrow else 1.7)
    boxes = [*layout.nodes, layout.output, *layout.labels]
    assert not [pair for pair in combinations(boxes, 2) if overlap(*pair)]
    assert all(abs(box.y) + box.height / 2 <= layout.height / 2 + 1e-9 for box in boxes)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_a_drawing_names_operations_nodes_width_and_depth() -> None:
    darts = get_genotype("darts")
    drawn = texts(draw_cell(darts.normal, darts.normal_concat, "DARTS"))
    assert sorted(drawn) == sorted(
        [
            *(edge.op for edge in darts.normal),
            *("input 0", "input 1", "2", "3", "4", "5", "output"),
            *("DARTS", "width 3.5c, depth 3, path 2.62"),
        ]
    )


def test_dead_nodes_are_grey_and_said_to_be() -> None:
    adapted = get_genotype("amoebanet:adapted")
    figure = draw_cell(adapted.normal, adapted.normal_concat, "AmoebaNet, adapted")
    assert "width 3c, depth 2, path 1.67 (grey: does not reach the output)" in texts(figure)
    colours = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert {node: colours[node] == "black" for node in "23456"} == {
        "2": False,
        "3": False,
        "4": True,
        "5": True,
        "6": True,
    }


@pytest.mark.parametrize("specs", [BASES[:1], BASES[4:], BASES[2:4], ("darts", "enas:C1", "amoebanet:C1")])
def test_every_text_lies_inside_the_figure_and_its_box(specs: tuple[str, ...]) -> None:
    drawings = [
        CellDrawing(edges, concat, "a long title " * 8 if spec == "snas" else f"{spec}, some cell")
        for spec in specs
        for edges, concat in both_cells(get_genotype(spec))
    ]
    figure = draw_cells(drawings, len(specs))
    figure_to_array(figure, 100.0)
    width, height = figure.bbox.width, figure.bbox.height
    for axes, drawing in zip(figure.axes, drawings, strict=True):
        layout = lay_out(drawing.edges, drawing.concat, LABEL_WIDTH)
        extents = [text.get_window_extent() for text in axes.texts]
        for extent in extents:
            assert extent.x0 >= 0
            assert extent.y0 >= 0
            assert extent.x1 <= width
            assert extent.y1 <= height
        for extent, box in zip(extents[: len(layout.labels)], layout.labels, strict=True):
            assert extent.width < LABEL_WIDTH * 100 + 14
            assert extent.height < box.height * 100
        for first, second in combinations(extents, 2):
            assert not first.overlaps(second)


def test_all_cells_of_a_figure_have_one_scale() -> None:
    genotypes = [get_genotype(spec) for spec in ("snas", "gdas", "nasnet")]
    drawings = [CellDrawing(genotype.normal, genotype.normal_concat, "") for genotype in genotypes]
    for columns in (1, 2, 3):
        figure = draw_cells(drawings, columns)
        for axes in figure.axes:
            box = axes.get_position()
            data_width = np.diff(axes.get_xlim()).item()
            data_height = np.diff(axes.get_ylim()).item()
            assert box.width * figure.get_figwidth() == pytest.approx(data_width)
            assert box.height * figure.get_figheight() == pytest.approx(data_height)


def test_no_drawings_and_no_columns_are_refused() -> None:
    darts = get_genotype("darts")
    with pytest.raises(ValueError, match="at least one panel"):
        draw_cells([])
    with pytest.raises(ValueError, match=r"`columns` \(=0\)"):
        draw_cells([CellDrawing(darts.normal, darts.normal_concat, "")], 0)


def test_pixels_are_red_green_blue_on_white() -> None:
    snas = get_genotype("snas")
    figure = draw_cell(snas.normal, snas.normal_concat, "SNAS")
    pixels = figure_to_array(figure, 100.0)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (round(figure.get_figheight() * 100), int(figure.get_figwidth() * 100), 3)
    assert (pixels[0] == 255).all()
    assert (pixels[:, 0] == 255).all()
    # Some ink: between one and a third of all pixels are not white.
    assert 0.01 < (pixels < 255).any(axis=2).mean() < 0.33


def test_files_have_the_asked_format_and_the_same_bytes_every_time() -> None:
    snas = get_genotype("snas")
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for picture, start in starts.items():
        written = []
        for _ in range(2):
            figure = draw_cell(snas.normal, snas.normal_concat, "SNAS")
            written.append(figure_to_bytes(figure, picture, dpi=50.0))
        assert written[0].startswith(start)
        assert written[0] == written[1]
    assert picture_format("a/b.PNG") == "png"
    for name in ("a.jpg", "png", "a"):
        with pytest.raises(ValueError, match=r"must end in \.png, \.svg or \.pdf"):
            picture_format(name)
