"""Text of `nas-lightning cells`, from the records of ``cells_records``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas_lightning.cells import format_width
from nas_lightning.cli.cells_records import Settings

if TYPE_CHECKING:
    from nas_lightning.cells.census import Census

_MISSING = "-"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Align a table.

    Args:
        header: One title per column.
        rows: The cells as text.
        left: How many of the first columns are aligned to the left; the others are aligned to the right.

    Returns:
        The lines, the header and a rule first.
    """
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            text.ljust(width) if column < left else text.rjust(width)
            for column, (text, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(aligned).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


def list_text(records: Sequence[Mapping[str, Any]], settings: Settings) -> str:
    """The table of published cells.

    Args:
        records: One per cell.
        settings: The network whose size was counted.

    Returns:
        The text.
    """
    rows = [
        [
            record["name"],
            str(record["year"]),
            format_width(record["width"]),
            str(record["depth"]),
            _millions(record["parameters"]),
            _millions(record["live_parameters"]),
            _reported(record["reported"], "parameters_M"),
            _reported(record["reported"], "error_percent"),
        ]
        for record in records
    ]
    header = ("name", "year", "width", "depth", "parameters M", "live M", "reported M", "reported error %")
    return (
        f"{table(header, rows)}\n\nwidth and depth: of the normal cell; {_network(settings)}\n"
        "reported: CIFAR-10 figures of the publication, not counted here; "
        "`nas-lightning cells show NAME` says where"
    )


def variants_text(records: Sequence[Mapping[str, Any]], settings: Settings) -> str:
    """The table of a genotype's variants.

    Args:
        records: One per variant, the base genotype first.
        settings: The network whose size was counted.

    Returns:
        The text.
    """
    rows = [
        [
            record["spec"],
            format_width(record["width"]),
            str(record["depth"]),
            _millions(record["parameters"]),
            _millions(record["live_parameters"]),
            _millions(record["multiply_adds"], 0),
        ]
        for record in records
    ]
    header = ("spec", "width", "depth", "parameters M", "live M", "multiply-adds M")
    return f"{table(header, rows)}\n\nwidth and depth: of the normal cell; {_network(settings)}"


def show_text(record: Mapping[str, Any]) -> str:
    """Everything about one genotype.

    Args:
        record: The record of `nas-lightning cells show`.

    Returns:
        The text.
    """
    lines = [record["spec"]]
    if "published" in record:
        whose = "" if record["variant"] is None else f"variant {record['variant']} of "
        lines += [
            _field("method", f"{whose}{record['method']}"),
            _field("citation", record["citation"]),
            _field("searched on", record["searched_on"]),
            _field("source", record["source"]),
        ]
        if record["note"]:
            lines.append(_field("note", record["note"]))
    if "reported" in record:
        lines.append(_field("reported", _reported_line(record["reported"])))
    for name in ("normal", "reduction"):
        lines += ["", *_cell_lines(name, record[name])]
    lines += ["", *_network_lines(record["network"]), "", record["genotype"]]
    return "\n".join(lines)


def census_text(spaces: Sequence[Census], ranks: Sequence[Mapping[str, Any]]) -> str:
    """The distribution of width and depth over connection spaces, and the rank of cells.

    Args:
        spaces: The census of the ordered wirings and of those with distinct sources.
        ranks: One record per cell.

    Returns:
        The text.
    """
    parts = []
    for space in spaces:
        widths = sorted({width for width, _ in space.counts}, reverse=True)
        depths = sorted({depth for _, depth in space.counts})
        rows = []
        for width in widths:
            counts = [space.counts.get((width, depth), 0) for depth in depths]
            share = sum(counts) / space.total
            rows.append(
                [format_width(width), *(f"{count:,}" if count else "." for count in counts), f"{share:.2%}"]
            )
        columns = [sum(space.counts.get((width, depth), 0) for width in widths) for depth in depths]
        rows.append(["share", *(f"{count / space.total:.2%}" for count in columns), ""])
        kind = (
            "with two distinct sources per node"
            if space.distinct
            else "in all, every edge drawn independently"
        )
        parts.append(
            f"{space.total:,} wirings {kind} ({space.nodes} nodes, concat {_numbers(space.concat)})\n"
            + table(["width", *(f"depth {depth}" for depth in depths), "share"], rows)
        )
    if ranks:
        rows = [
            [
                rank["spec"],
                format_width(rank["width"]),
                str(rank["depth"]),
                _numbers(rank["concat"]),
                f"{space['total']:,} {name}",
                *(_share(space, key) for key in ("at_least_as_wide", "at_least_as_shallow", "both")),
            ]
            for rank in ranks
            for name, space in ((name, rank[name]) for name in ("ordered", "distinct"))
        ]
        header = ("normal cell of", "width", "depth", "concat", "wirings", "as wide", "as shallow", "both")
        parts.append(
            "share of the wirings with a cell's nodes and concat list that are at least as wide, "
            "as shallow, both\n" + table(header, rows)
        )
    return "\n\n".join(parts)


def _cell_lines(name: str, cell: Mapping[str, Any]) -> list[str]:
    lines = [f"{name} cell: width {format_width(cell['width'])}, depth {cell['depth']}"]
    edges = cell["edges"]
    for node in range(2, len(edges) // 2 + 2):
        pair = edges[2 * node - 4 : 2 * node - 2]
        reads = ", ".join(f"{op} of {f'input {source}' if source < 2 else source}" for op, source in pair)
        dead = "  (dead: does not reach the output)" if node in cell["dead_nodes"] else ""
        lines.append(_field(f"node {node}", reads + dead))
    lines.append(_field("concat", _numbers(cell["concat"])))
    twice = _numbers(cell["nodes_reading_one_node_twice"])
    if twice:
        lines.append(_field("duplicates", f"nodes that read one node twice: {twice}"))
    if cell["rank"] is not None:
        for kind, what in (("ordered", "wirings"), ("distinct", "wirings with distinct sources")):
            space = cell["rank"][kind]
            lines.append(
                _field(
                    "rank" if kind == "ordered" else "",
                    f"of {space['total']:,} {what}, {_share(space, 'at_least_as_wide')} are at least "
                    f"as wide, {_share(space, 'at_least_as_shallow')} at least as shallow, "
                    f"{_share(space, 'both')} both",
                )
            )
    return lines


def _network_lines(network: Mapping[str, Any]) -> list[str]:
    size = network["image_size"]
    dead = _numbers(network["dead_cells"])
    return [
        f"network: init_channels {network['init_channels']}, num_cells {network['num_cells']}, "
        f"num_classes {network['num_classes']}, stem_stride {network['stem_stride']}"
        + (", with auxiliary tower" if network["auxiliary"] else ""),
        _field("parameters", f"{network['parameters']:,} ({_millions(network['parameters'])} M)"),
        _field("live", f"{network['live_parameters']:,} ({_millions(network['live_parameters'])} M)"),
        _field("multiply-adds", f"{network['multiply_adds']:,} for an image of {size} x {size}"),
        *([_field("dead cells", dead)] if dead else []),
    ]


def _reported_line(reported: Mapping[str, Any]) -> str:
    parts = []
    if reported["parameters_M"] is not None:
        parts.append(f"{reported['parameters_M']:g} M parameters")
    if reported["error_percent"] is not None:
        parts.append(f"{reported['error_percent']:.2f} % error on CIFAR-10")
    return f"{', '.join(parts)} ({reported['where']}); not counted here"


def _reported(reported: Mapping[str, Any] | None, key: str) -> str:
    if reported is None or reported[key] is None:
        return _MISSING
    return f"{reported[key]:.2f}" if key == "error_percent" else f"{reported[key]:g}"


def _network(settings: Settings) -> str:
    tower = "with" if settings.auxiliary else "without"
    return (
        f"sizes counted for {settings.init_channels} channels, {settings.num_cells} cells, "
        f"{settings.num_classes} classes, {tower} auxiliary tower"
    )


def _share(space: Mapping[str, Any], key: str) -> str:
    return f"{space[f'{key}_share']:.2%}"


def _millions(count: int, digits: int = 2) -> str:
    return f"{count / 1e6:.{digits}f}"


def _numbers(values: Sequence[int]) -> str:
    return " ".join(map(str, values))


def _field(name: str, text: str) -> str:
    return f"  {name:<14} {text}"
