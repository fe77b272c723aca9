"""What `nas-lightning cells` prints: its records as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nas_lightning.cells import format_width
from nas_lightning.cells.spec import published_base
from nas_lightning.cells.table2 import is_stand_in
from nas_lightning.cli.tables import table

if TYPE_CHECKING:
    from nas_lightning.cells.census import Census

Record = dict[str, Any]

_SIZES = ("width", "depth", "parameters M", "live M")
_STAND_IN = "random connections with table 2's width and depth; the authors' are not public"
QUANTILES = (0, 5, 25, 50, 75, 95, 100)
_QUANTITIES = {
    "width": "width (c)",
    "depth": "depth",
    "path": "mean path",
    "network_path": "network's path",
}
SPACES = {"ordered": "wirings", "distinct": "wirings with distinct sources"}


def marked(title: str) -> str:
    """A title for people: it says which variants of table 2 are stand-ins."""
    base = published_base(title)
    return f"{title} (stand-in)" if base is not None and is_stand_in(base[0].name, base[1]) else title


def file_text(file: str, records: Sequence[Record], settings: Record) -> str:
    """The table of the genotypes of a file, and why others cannot be read."""
    named = [(f"#{record['number']} {record['name'] or ''}".rstrip(), record) for record in records]
    rows = [[name, str(record["line"]), *_sizes(record)] for name, record in named if record["fault"] is None]
    faults = [
        f"{name} (line {record['line']}): {record['fault']}" for name, record in named if record["fault"]
    ]
    parts = [table(("genotype", "line", *_SIZES), rows)] if rows else []
    parts += ["\n".join(faults)] if faults else []
    readable = [record for record in records if record["fault"] is None]
    if not readable:
        return "\n\n".join(parts)
    name = next((record["name"] for record in readable if record["name"]), None)
    chosen = f"{file}#{name or readable[-1]['number']}"
    return "\n\n".join(
        [*parts, f"choose one by its name or number, as in {chosen}\n{_counted_for(settings)}"]
    )


def list_text(cells: Sequence[Record], variants: Sequence[Record], settings: Record) -> str:
    """The table of the cells that searches found, and that of the published variants."""

    def reported(record: Record, key: str, form: str) -> str:
        value = (record["reported"] or {}).get(key)
        return "-" if value is None else format(value, form)

    rows = [
        [
            record["name"],
            str(record["year"]),
            *_sizes(record),
            reported(record, "parameters_M", "g"),
            reported(record, "error_percent", ".2f"),
        ]
        for record in cells
    ]
    header = ("name", "year", *_SIZES, "reported M", "reported error %")
    others = [[r["name"], r["variant_of"], *_sizes(r), r["note"]] for r in variants]
    return (
        f"{table(header, rows)}\n\nvariants that the authors of the paper published\n"
        f"{table(('name', 'variant of', *_SIZES, 'note'), others)}\n\n"
        f"width and depth: of the normal cell; {_counted_for(settings)}\n"
        "reported: CIFAR-10 figures of the publication, not counted here; "
        "`nas-lightning cells show NAME` names their source"
    )


def _sizes(record: Record) -> list[str]:
    width, depth = format_width(record["width"]), str(record["depth"])
    return [width, depth, _millions(record["parameters"]), _millions(record["live_parameters"])]


def variants_text(records: Sequence[Record], settings: Record) -> str:
    """The table of a genotype's variants, the base genotype first."""
    rows = [[r["spec"], *_sizes(r), _millions(r["multiply_adds"], 0), r["origin"]] for r in records]
    header = ("spec", *_SIZES, "multiply-adds M", "origin")
    stand_ins = any(r["origin"].startswith("stand-in") for r in records)
    return f"{table(header, rows)}\n\nwidth and depth: of the normal cell; {_counted_for(settings)}" + (
        f"\nstand-in: {_STAND_IN}" if stand_ins else ""
    )


def show_text(record: Record) -> str:
    """Everything about one genotype, from the record of `nas-lightning cells show`."""
    lines = [marked(record["spec"])]
    if "published" in record:
        whose = "" if record["variant"] is None else f"variant {record['variant']} of "
        lines.append(_field("method", f"{whose}{record['method']}"))
        if record["origin"]:
            meaning = f": {_STAND_IN}" if record["origin"].startswith("stand-in") else ""
            lines.append(_field("connections", f"{record['origin']}{meaning}"))
        if record["variant_of"]:
            lines.append(_field("variant of", record["variant_of"]))
        fields = {"citation": "citation", "searched on": "searched_on", "source": "source", "note": "note"}
        lines += [_field(name, record[key]) for name, key in fields.items() if record[key]]
    if "reported" in record:
        reported = record["reported"]
        figures = []
        if reported["parameters_M"] is not None:
            figures.append(f"{reported['parameters_M']:g} M parameters")
        if reported["error_percent"] is not None:
            figures.append(f"{reported['error_percent']:.2f} % error on CIFAR-10")
        lines.append(_field("reported", f"{', '.join(figures)} ({reported['where']}); not counted here"))
    for name in ("normal", "reduction"):
        lines += ["", *_cell_lines(name, record[name])]
    network = record["network"]
    tower = ", with auxiliary tower" if network["auxiliary"] else ""
    keys = ("init_channels", "num_cells", "num_classes", "stem_stride")
    lines += ["", f"network: {', '.join(f'{key} {network[key]}' for key in keys)}{tower}"]
    for name, key in (("parameters", "parameters"), ("live", "live_parameters")):
        lines.append(_field(name, f"{network[key]:,} ({_millions(network[key])} M)"))
    size = network["image_size"]
    lines.append(_field("multiply-adds", f"{network['multiply_adds']:,} for an image of {size} x {size}"))
    lines.append(
        _field(
            "paths",
            f"mean {network['network_path']:.1f} stages of convolution and batch norm, shortest "
            f"{network['shortest_path']}, longest {network['longest_path']}",
        )
    )
    width, depth = format_width(round(network["network_width"], 2)), network["network_depth"]
    lines.append(_field("topology", f"mean width {width}, at most {depth} connections in a row"))
    if network["dead_cells"]:
        lines.append(_field("dead cells", _numbers(network["dead_cells"])))
    return "\n".join([*lines, "", record["genotype"]])


def _cell_lines(name: str, cell: Record) -> list[str]:
    size = f"width {format_width(cell['width'])}, depth {cell['depth']}, mean path {cell['path']:.3g}"
    lines = [f"{name} cell: {size}"]
    edges = list(zip(cell["edges"], cell["edge_nodes"], strict=True))
    for node in range(2, cell["node_count"] + 2):
        reads = ", ".join(
            f"{op} of {'input' if source < 2 else 'node'} {source}"
            for (op, source), own in edges
            if own == node
        )
        reads = reads or "no edges: zero"
        dead = "  (dead: does not reach the output)" if node in cell["dead_nodes"] else ""
        lines.append(_field(f"node {node}", reads + dead))
    lines.append(_field("concat", _numbers(cell["concat"])))
    unread = [str(source) for source, read in enumerate(cell["reads_inputs"]) if not read]
    if unread:
        lines.append(_field("never read", f"input {' and input '.join(unread)}"))
    if twice := _numbers(cell["nodes_reading_one_node_twice"]):
        lines.append(_field("duplicates", f"nodes that read one node more than once: {twice}"))
    if cell["rank"] is not None:
        for kind, what in SPACES.items():
            if cell["rank"][kind] is None:
                continue
            wide, shallow, both = _shares(cell["rank"][kind])
            text = (
                f"of {cell['rank'][kind]['total']:,} {what}, {wide} are at least as wide, "
                f"{shallow} at least as shallow, {both} both"
            )
            lines.append(_field("rank" if kind == "ordered" else "", text))
    return lines


def census_text(spaces: Sequence[Census], ranks: Sequence[Record]) -> str:
    """The distribution of width and depth over connection spaces, and the ranks of cells."""
    parts = []
    for space in spaces:
        widths = sorted({width for width, _ in space.counts}, reverse=True)
        depths = sorted({depth for _, depth in space.counts})
        rows = []
        for width in widths:
            counts = [space.counts.get((width, depth), 0) for depth in depths]
            shown = [f"{count:,}" if count else "." for count in counts]
            rows.append([format_width(width), *shown, f"{sum(counts) / space.total:.2%}"])
        columns = [sum(space.counts.get((width, depth), 0) for width in widths) for depth in depths]
        rows.append(["share", *(f"{count / space.total:.2%}" for count in columns), ""])
        kind = "with two distinct sources per node" if space.distinct else "in all, every edge drawn alone"
        parts.append(
            f"{space.total:,} wirings {kind} ({space.nodes} nodes, concat {_numbers(space.concat)})\n"
            + table(["width", *(f"depth {depth}" for depth in depths), "share"], rows)
        )
    if ranks:
        rows = [
            [
                marked(rank["spec"]),
                format_width(rank["width"]),
                str(rank["depth"]),
                _numbers(rank["concat"]),
                f"{rank[name]['total']:,} {name}",
                *_shares(rank[name]),
            ]
            for rank in ranks
            for name in SPACES
            if rank[name] is not None
        ]
        header = ("normal cell of", "width", "depth", "concat", "wirings", "as wide", "as shallow", "both")
        parts.append(
            "share of the wirings with a cell's nodes and concat list that are at least as wide, "
            "as shallow, both\n" + table(header, rows)
        )
    parts += [_space_text(rank["spec"], rank["paths"]) for rank in ranks if rank["paths"]]
    return "\n\n".join(parts)


def _space_text(spec: str, cells: Record) -> str:
    rows = [
        [
            cell,
            _QUANTITIES[key],
            f"{values['own']:.4g}",
            f"{100 * values['percentile']:.1f} %",
            *(f"{values[f'q{share:g}']:.4g}" for share in QUANTILES),
        ]
        for cell, quantities in cells.items()
        for key, values in quantities.items()
    ]
    quantiles = ("least", *(f"{share:g} %" for share in QUANTILES[1:-1]), "most")
    return (
        f"{marked(spec)} among all wirings of a cell, the operations and the other cell held\n"
        + table(("cell", "", "own", "percentile", *quantiles), rows)
        + "\npercentile: share of the wirings below, and half the share of equals; paths in stages"
    )


def vary_text(records: Sequence[Record], cell: str) -> str:
    """The wirings that `nas-lightning cells census --vary` found."""
    prefix = "reduce_" if cell == "reduction" else ""
    rows = [
        [
            record["spec"],
            format_width(record[f"{prefix}width"]),
            str(record[f"{prefix}depth"]),
            f"{record[f'{prefix}path']:.2f}",
            f"{record['network_path']:.2f}",
            _millions(record["live_parameters"]),
            str(record["dead_nodes"]),
            str(record["duplicate_edges"]),
        ]
        for record in records
    ]
    header = ("spec", "width", "depth", "mean path", "network's", "live M", "dead nodes", "duplicates")
    return (
        f"{table(header, rows)}\n\nof the {cell} cell, but for the network's path; paths in stages of "
        "convolution and batch norm; "
        "duplicates: nodes that read one node more than once"
    )


def _counted_for(settings: Record) -> str:
    tower = "with" if settings["auxiliary"] else "without"
    return (
        f"sizes counted for {settings['init_channels']} channels, {settings['num_cells']} cells, "
        f"{settings['num_classes']} classes, {tower} auxiliary tower"
    )


def _shares(space: Record) -> list[str]:
    return [f"{space[f'{key}_share']:.2%}" for key in ("at_least_as_wide", "at_least_as_shallow", "both")]


def _millions(count: int, digits: int = 2) -> str:
    return f"{count / 1e6:.{digits}f}"


def _numbers(values: Sequence[int]) -> str:
    return " ".join(map(str, values))


def _field(name: str, text: str) -> str:
    return f"  {name:<14} {text}"
