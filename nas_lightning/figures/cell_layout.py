"""Where the parts of a cell drawing go: pure geometry, in inches, without matplotlib.

Every intermediate node has a row of its own and the column of its depth; every edge runs in a lane of its
target's row and carries its label at the end of that lane. So no two labels can meet, and no line crosses a
label or a node: lines change rows only in the gaps between columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, permutations
from typing import NamedTuple

from nas_lightning.cells.genotype import CellEdges, Edge, cell_edges

GAP = 0.55
"""Free space right of a column, where lines change rows."""
NODE_WIDTH = 0.30
NODE_HEIGHT = 0.42
"""Height of a node of at most two edges."""
ROW_PITCH = 0.66
"""Height of the row of a node of at most two edges."""
LANE_PITCH = 0.26
"""Distance of a node's lanes: what each further edge adds to the height of node and row."""
LABEL_HEIGHT = 0.20
ARROW = 0.16
"""Free space between a label and its node, for the arrow head."""
END_WIDTH = 0.62
"""Width of the boxes of inputs and output."""
_SEARCHED_NODES = 6
_CROSSING_COST = 1.0
_DISTANCE_COST = 0.15


class Box(NamedTuple):
    """A rectangle by its centre (y upwards), width and height."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> float:
        """The left side."""
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        """The right side."""
        return self.x + self.width / 2


class Line(NamedTuple):
    """A line that leaves a box at ``start``, reaches its lane at ``bend`` and follows it to ``end``."""

    start: tuple[float, float]
    bend: tuple[float, float]
    end: tuple[float, float]


class CellLayout(NamedTuple):
    """Geometry of one cell drawing, in the order of the cell's nodes, edges and concat list.

    x runs from 0 to ``width``, y from ``-height / 2`` to ``height / 2``.
    """

    width: float
    height: float
    nodes: tuple[Box, ...]
    output: Box
    edges: tuple[Line, ...]
    labels: tuple[Box, ...]
    concat: tuple[Line, ...]


def lay_out(edges: Sequence[Edge], concat: Sequence[int], label_width: float) -> CellLayout:
    """Lay a cell out.

    Rows are assigned by trying every order of up to six intermediate nodes and taking the one with the
    fewest crossings and shortest ways; cells with more nodes keep the order of their nodes.
    """
    own = cell_edges(edges)
    count = own.node_count
    orders = permutations(range(count)) if count <= _SEARCHED_NODES else iter([tuple(range(count))])
    best = min(orders, key=lambda order: _cost(own, concat, _heights(own, order)))
    return _place(own, concat, _heights(own, best), label_width)


def _extra(edge_count: int) -> float:
    """How much higher a node with this number of edges is than one with two."""
    return max(0, edge_count - 2) * LANE_PITCH


def _total_height(edges: CellEdges) -> float:
    """Height of all rows."""
    return sum(ROW_PITCH + _extra(count) for count in edges.counts)


def _heights(edges: CellEdges, order: Sequence[int]) -> list[float]:
    """Height of every node, inputs first, where intermediate node n has row ``order[n - 2]``."""
    total = _total_height(edges)
    pitches = [ROW_PITCH + _extra(edges.counts[order.index(row)]) for row in range(len(order))]
    tops = list(accumulate(pitches, initial=0.0))
    spread = max(ROW_PITCH, total / 2) / 2
    return [spread, -spread] + [total / 2 - tops[row] - pitches[row] / 2 for row in order]


def _lanes(edges: CellEdges, heights: Sequence[float]) -> list[float]:
    """Height of every edge's lane; a node's upper lanes go to the edges from higher sources."""
    lanes = []
    for middle, own in zip(heights[2:], edges.by_node, strict=True):
        downwards = sorted(range(len(own)), key=lambda place: -heights[own[place].source])
        top = middle + (len(own) - 1) / 2 * LANE_PITCH
        lanes += [top - downwards.index(place) * LANE_PITCH for place in range(len(own))]
    return lanes


def _columns(edges: CellEdges) -> list[int]:
    """Column of every node: its depth, where nodes without edges count as 1; inputs stand in column 0."""
    columns = [0, 0]
    for own in edges.by_node:
        columns.append(1 + max((columns[source] for _, source in own), default=0))
    return columns


def _cost(edges: CellEdges, concat: Sequence[int], heights: Sequence[float]) -> float:
    depths = _columns(edges)
    lanes = _lanes(edges, heights)
    last = max(depths) + 1
    # (column of the gap where the line changes rows, from, to, column where it ends)
    moves = [
        (depths[edge.source], heights[edge.source], lane, depths[node])
        for edge, lane, node in zip(edges, lanes, edges.nodes, strict=True)
    ]
    moves += [(last - 1, heights[node], 0.0, last) for node in concat]
    # Until the last gap, a line to the output runs in the middle of its node's row.
    runs = [(gap, end, to) for gap, _, to, end in moves if end > gap + 1]
    runs += [(depths[node], last - 1, heights[node]) for node in concat]
    crossings = 0
    for number, (gap, start, to, _) in enumerate(moves):
        low, high = min(start, to), max(start, to)
        crossings += sum(first < gap < until and low < y < high for first, until, y in runs)
        for other_gap, other_start, other_to, _ in moves[number + 1 :]:
            crossings += gap == other_gap and (start - other_start) * (to - other_to) < 0
    distance = sum(abs(start - to) for _, start, to, _ in moves)
    return _CROSSING_COST * crossings + _DISTANCE_COST * distance


def _place(
    edges: CellEdges, concat: Sequence[int], heights: Sequence[float], label_width: float
) -> CellLayout:
    depths = _columns(edges)
    pitch = GAP + label_width + ARROW + NODE_WIDTH
    nodes = [Box(END_WIDTH / 2, heights[node], END_WIDTH, NODE_HEIGHT) for node in (0, 1)]
    nodes += [
        Box(END_WIDTH + depth * pitch - NODE_WIDTH / 2, height, NODE_WIDTH, NODE_HEIGHT + _extra(count))
        for depth, height, count in zip(depths[2:], heights[2:], edges.counts, strict=True)
    ]
    last_gap = END_WIDTH + max(depths) * pitch
    output = Box(last_gap + GAP + ARROW + END_WIDTH / 2, 0.0, END_WIDTH, NODE_HEIGHT)

    lines, labels = [], []
    for edge, lane, node in zip(edges, _lanes(edges, heights), edges.nodes, strict=True):
        source, target = nodes[edge.source], nodes[node]
        column = END_WIDTH + depths[edge.source] * pitch
        lines.append(Line((source.right, source.y), (column + GAP, lane), (target.left, lane)))
        labels.append(Box(target.left - ARROW - label_width / 2, lane, label_width, LABEL_HEIGHT))
    joins = [
        Line((box.right, box.y), (last_gap, box.y), (output.left, 0.0)) for box in (nodes[n] for n in concat)
    ]
    return CellLayout(
        width=output.right,
        height=max(_total_height(edges), nodes[0].y - nodes[1].y + ROW_PITCH),
        nodes=tuple(nodes),
        output=output,
        edges=tuple(lines),
        labels=tuple(labels),
        concat=tuple(joins),
    )
