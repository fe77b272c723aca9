"""`nas-lightning cells`: list, show, draw, convert and count cells and their variants.

Starts quickly: torch, NumPy and matplotlib are imported by the subcommands that need them. A subcommand makes
a record, which is printed as JSON or as text (``cells_text``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas_lightning.cells import (
    Edge,
    Genotype,
    UnknownOperationSize,
    cell_depth,
    cell_edges,
    cell_path,
    cell_width,
    check_image_size,
    count_parameters,
    dead_nodes,
    duplicate_edges,
    edge_nodes,
    genotype_slug,
    import_operations,
    multiply_adds,
    published_genotypes,
    published_variants,
    reads_inputs,
    stack_plan,
    topology,
)
from nas_lightning.cells.genotype_files import list_genotypes
from nas_lightning.cells.literal import is_literal
from nas_lightning.cells.published import PublishedGenotype
from nas_lightning.cells.spec import apply_variant, origin, published_base, read_genotype
from nas_lightning.cells.table2 import TABLE2
from nas_lightning.cells.writing import FORMS, write_genotype
from nas_lightning.cli.argument_parser import ArgumentParser, add_command, integer
from nas_lightning.cli.cells_text import (
    QUANTILES,
    SPACES,
    Record,
    census_text,
    file_text,
    list_text,
    marked,
    show_text,
    variants_text,
    vary_text,
)

_SPEC_HELP = (
    "a genotype: NAME, NAME:connections=SEED, NAME:operations=SEED, NAME:wiring=DIGITS, NAME:adapted, "
    "NAME:C4, a FILE of any kind, FILE#3 or FILE#NAME for one of several in it, or the text itself"
)


def main(argv: Sequence[str]) -> None:
    """Run ``nas-lightning cells``; a leading ``cells`` is skipped."""
    options = argument_parser().parse(argv)
    import_operations(options.operations or ())
    options.run(options)


def argument_parser() -> ArgumentParser:
    """The options of ``nas-lightning cells``."""
    parser = ArgumentParser(
        prog="nas-lightning cells",
        description="List, show, draw, convert and count cells and their variants.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = _command(
        commands, "list", _list, "the published cells and variants, or those of a file, with sizes"
    )
    command.add_argument("file", metavar="FILE", nargs="?", help="list the genotypes of this file instead")
    _add_size_options(command)

    command = _command(commands, "show", _show, "everything about one genotype")
    command.add_argument("spec", metavar="SPEC", help=_SPEC_HELP)
    _add_size_options(command)

    command = _command(commands, "draw", _draw, "draw cells to a picture file", json_too=False)
    command.add_argument("specs", metavar="SPEC", nargs="+", help=_SPEC_HELP)
    command.add_argument("-o", "--output", metavar="FILE", required=True, help="FILE.png, .svg or .pdf")
    command.add_argument(
        "--cells", choices=("both", "normal", "reduction"), default="both", help="which cells to draw (both)"
    )
    command.add_argument("--columns", type=int, help="drawings side by side (one per SPEC, at most 4)")

    command = _command(commands, "convert", _convert, "print a genotype in another form", json_too=False)
    command.add_argument("spec", metavar="SPEC", help=_SPEC_HELP)
    command.add_argument("--to", choices=tuple(FORMS), required=True, help="the form")

    command = _command(commands, "variants", _variants, "variants of a genotype, with sizes")
    command.add_argument("spec", metavar="SPEC", help=_SPEC_HELP)
    command.add_argument(
        "--count", type=int, default=10, help="seeds 1 to COUNT of random connections and operations (10)"
    )
    _add_size_options(command)

    description = "how many cells have which width, depth and path, and how a cell ranks"
    command = _command(commands, "census", _census, description)
    command.add_argument("specs", metavar="SPEC", nargs="*", help=f"rank its normal cell; {_SPEC_HELP}")
    command.add_argument("--nodes", type=int, default=4, help="number of intermediate nodes, 1 to 5 (4)")
    command.add_argument(
        "--concat", type=_node_list, help="nodes that the output concatenates, such as 4,5,6 (all)"
    )
    command.add_argument(
        "--num_cells", type=integer(1), default=20, help="cells of the network for its path (20)"
    )
    group = command.add_argument_group("wirings of SPEC that agree in one quantity and differ in another")
    group.add_argument("--vary", choices=("width", "depth", "path"), help="what differs")
    group.add_argument("--width", type=float, help="in units of c")
    group.add_argument("--depth", type=int, help="connections")
    group.add_argument("--path", type=float, help="mean path of the network, in stages")
    group.add_argument("--tolerance", type=float, default=0.5, help="by which paths may differ (0.5)")
    group.add_argument("--cell", choices=("normal", "reduction"), default="normal", help="what is rewired")
    group.add_argument("--count", type=int, default=6, help="how many wirings (6)")
    return parser


def _command(
    commands: Any, name: str, run: Any, description: str, *, json_too: bool = True
) -> argparse.ArgumentParser:
    command = add_command(commands, name, run, description)
    command.add_argument(
        "--operations",
        metavar="MODULE",
        action="append",
        help="import a module (or FILE.py) that registers your own operations; may be repeated",
    )
    if json_too:
        command.add_argument("--json", action="store_true", help="print JSON")
    return command


def _add_size_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("network whose size is counted")
    group.add_argument("--init_channels", type=int, default=36, help="channels of the first cell (36)")
    group.add_argument("--num_cells", type=int, default=20, help="number of cells (20)")
    group.add_argument("--num_classes", type=int, default=10, help="number of classes (10)")
    group.add_argument("--auxiliary", action="store_true", help="count an auxiliary tower too")
    group.add_argument("--image_size", type=int, default=32, help="height and width in pixels (32)")
    group.add_argument("--stem_stride", type=int, default=1, help="of the stem; 2 for Tiny-ImageNet (1)")


def _network_settings(options: argparse.Namespace) -> Record:
    names = ("init_channels", "num_cells", "num_classes", "auxiliary", "image_size", "stem_stride")
    return {name: getattr(options, name) for name in names}


def _node_list(text: str) -> list[int]:
    try:
        return [int(part) for part in text.strip("[]() ").split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be node numbers, such as 4,5,6") from None


def _print(options: argparse.Namespace, record: Any, text: str) -> None:
    print(json.dumps(record, indent=2) if options.json else text)


def _title(spec: str) -> str:
    """The spec itself, or the short name of a literal."""
    return genotype_slug(spec) if is_literal(spec) else spec


def _genotype(spec: str) -> Genotype:
    """The genotype of a spec; remarks on how it was read go to the terminal."""
    reading = read_genotype(spec)
    for note in reading.notes:
        print(f"note: {note}", file=sys.stderr)
    return reading.genotype


def _base(spec: str) -> PublishedGenotype | None:
    """The published cell that a spec names, None if there is none; refuses one that is a variant already."""
    found = published_base(spec)
    if found is None:
        return None
    entry, variant = found
    if variant is not None or entry.variant_of:
        raise ValueError(f"{spec!r} is a variant already; name its base, {entry.variant_of or entry.name}")
    return entry


def _list(options: argparse.Namespace) -> None:
    settings = _network_settings(options)
    if options.file is not None:
        _list_file(options, settings)
        return
    cells, variants = (
        [_listed(entry, settings) for entry in entries.values()]
        for entries in (published_genotypes(), published_variants())
    )
    _print(options, [*cells, *variants], list_text(cells, variants, settings))


def _list_file(options: argparse.Namespace, settings: Record) -> None:
    """The genotypes of a file; one that cannot be read has its fault instead of a size."""
    records: list[Record] = []
    for number, found in enumerate(list_genotypes(Path(options.file)), start=1):
        record: Record = {"number": number, "name": found.name or None, "line": found.line}
        try:
            record |= describe_variant(found.read().genotype, settings) | {"fault": None}
        except ValueError as error:
            record["fault"] = str(error)
        records.append(record)
    _print(options, records, file_text(options.file, records, settings))


def _convert(options: argparse.Namespace) -> None:
    print(write_genotype(_genotype(options.spec), options.to))


def _listed(entry: PublishedGenotype, settings: Record) -> Record:
    record = {"name": entry.name, "method": entry.method, "year": entry.year}
    record |= {"variant_of": entry.variant_of or None, "note": entry.note}
    record |= describe_variant(entry.genotype, settings)
    record["reported"] = None
    if entry.reported is not None:
        reported = entry.reported
        figures = {"parameters_M": reported.parameters_M, "error_percent": reported.error_percent}
        record["reported"] = figures
    return record


def _show(options: argparse.Namespace) -> None:
    genotype = _genotype(options.spec)
    record: Record = {"spec": _title(options.spec)}
    base = published_base(options.spec)
    if base is not None:
        entry, variant = base
        record |= {"published": entry.name, "variant": variant, "variant_of": entry.variant_of or None}
        record["origin"] = origin(entry.name, variant)
        record |= {
            name: getattr(entry, name) for name in ("method", "citation", "searched_on", "source", "note")
        }
        # The figures that a paper reports for the base cell do not hold for a variant.
        if variant is None and entry.reported is not None:
            names = ("parameters_M", "error_percent", "where")
            record["reported"] = {name: getattr(entry.reported, name) for name in names}
    record["normal"] = describe_cell(*genotype.cell(reduction=False))
    record["reduction"] = describe_cell(*genotype.cell(reduction=True))
    record["network"] = describe_network(genotype, _network_settings(options))
    record["genotype"] = str(genotype)
    _print(options, record, show_text(record))


def _draw(options: argparse.Namespace) -> None:
    from nas_lightning.figures import CellDrawing, draw_cells, picture_format, write_figure

    picture_format(options.output)
    genotypes = [(_title(spec), _genotype(spec)) for spec in options.specs]
    drawings = [
        CellDrawing(*genotype.cell(cell == "reduction"), f"{marked(name)}, {cell} cell")
        for cell in ("normal", "reduction")
        for name, genotype in genotypes
        if options.cells in (cell, "both")
    ]
    columns = options.columns if options.columns is not None else min(len(genotypes), 4)
    write_figure(draw_cells(drawings, columns), options.output)
    print(options.output)


def _variants(options: argparse.Namespace) -> None:
    if not 0 <= options.count <= 1000:
        raise ValueError(f"`count` (={options.count}) must be from 0 to 1000")
    base = _base(options.spec)
    genotype = _genotype(options.spec)
    name = options.spec if base is None else base.name
    suffixes = ["adapted"]
    if base is not None and name in TABLE2:
        suffixes += [f"C{number}" for number in range(1, len(TABLE2[name]) + 1)]
    suffixes += [f"connections={seed}" for seed in range(1, options.count + 1)]
    suffixes += [f"operations={seed}" for seed in range(1, options.count + 1)]
    settings = _network_settings(options)
    variants = [(name, "", genotype)]
    for suffix in suffixes:
        variant = apply_variant(genotype, name, suffix)
        variants.append((f"{_title(name)}:{suffix}", origin(name, suffix), variant))
    variants += [
        (entry.name, entry.note, entry.genotype)
        for entry in published_variants().values()
        if entry.variant_of == name and entry.kind != "adapted"
    ]
    records = [
        {"spec": _title(spec), "origin": where, **describe_variant(variant, settings)}
        for spec, where, variant in variants
    ]
    _print(options, records, variants_text(records, settings))


def _census(options: argparse.Namespace) -> None:
    from nas_lightning.cells.census import take_census

    if options.vary is not None:
        _vary(options)
        return
    held = [name for name in ("width", "depth", "path") if getattr(options, name) is not None]
    if held:
        raise ValueError(f"`--{held[0]}` needs `--vary`, the quantity that the wirings differ in")
    spaces = [take_census(options.nodes, options.concat, distinct=distinct) for distinct in (False, True)]
    ranks = []
    for spec in options.specs:
        genotype = _genotype(spec)
        ranks.append({"spec": _title(spec), **describe_rank(*genotype.cell(reduction=False))})
        ranks[-1]["paths"] = describe_space(genotype, options.num_cells)
    record: Record = {"nodes": options.nodes, "concat": list(spaces[0].concat)}
    for name, space in zip(SPACES, spaces, strict=True):
        counts = [{"width": w, "depth": d, "count": count} for (w, d), count in space.counts.items()]
        record[name] = {"total": space.total, "counts": counts}
    record["ranks"] = ranks
    _print(options, record, census_text(spaces, ranks))


def _vary(options: argparse.Namespace) -> None:
    """Wirings that hold some quantities and vary another, as specs."""
    from nas_lightning.cells.census import choose_wirings, list_wirings

    if len(options.specs) != 1:
        raise ValueError(f"`--vary` takes one genotype, not {len(options.specs)}")
    (spec,) = options.specs
    _base(spec)
    hold = {name: getattr(options, name) for name in ("width", "depth", "path")}
    hold = {name: value for name, value in hold.items() if value is not None}
    if options.vary in hold or not hold:
        raise ValueError(f"`--vary {options.vary}` needs another quantity to hold, such as `--width 2.5`")
    if options.count < 1 or not options.tolerance >= 0:
        raise ValueError("`--count` must be at least 1 and `--tolerance` at least 0")
    genotype, reduction = _genotype(spec), options.cell == "reduction"
    space = list_wirings(genotype, reduction=reduction, num_cells=options.num_cells)
    rows = choose_wirings(space, options.vary, hold, options.count, options.tolerance)
    stays = "".join(str(edge.source) for edge in genotype.normal)
    records = []
    for row in rows:
        digits = "".join(map(str, space.sources[row]))
        wiring = f"{stays}/{digits}" if reduction else digits
        variant = apply_variant(genotype, spec, f"wiring={wiring}")
        records.append(
            {
                "spec": str(variant) if is_literal(spec) else f"{spec}:wiring={wiring}",
                **asdict(topology(variant, options.num_cells)),
                "dead_nodes": len(dead_nodes(*variant.cell(reduction))),
                "duplicate_edges": len(duplicate_edges(variant.cell(reduction)[0])),
                "live_parameters": count_parameters(variant, num_cells=options.num_cells, live=True),
            }
        )
    record: Record = {"held": hold, "vary": options.vary, "wirings": records}
    _print(options, record, vary_text(records, options.cell))


def describe_variant(genotype: Genotype, settings: Record) -> Record:
    """``width`` and ``depth`` of the normal cell, and the network's size."""
    normal = genotype.cell(reduction=False)
    return {"width": cell_width(*normal), "depth": cell_depth(*normal), **network_size(genotype, settings)}


def describe_cell(edges: Sequence[Edge], concat: Sequence[int]) -> Record:
    """Everything about one cell; ``rank`` is None where it has too many wirings for a census."""
    from nas_lightning.cells.census import MAX_WIRINGS, count_wirings

    return {
        "edges": [[edge.op, edge.source] for edge in edges],
        "edge_nodes": list(edge_nodes(edges)),
        "node_count": cell_edges(edges).node_count,
        "concat": list(concat),
        "width": cell_width(edges, concat),
        "depth": cell_depth(edges, concat),
        "path": cell_path(edges, concat),
        "reads_inputs": list(reads_inputs(edges, concat)),
        "dead_nodes": sorted(dead_nodes(edges, concat)),
        "nodes_reading_one_node_twice": list(duplicate_edges(edges)),
        "rank": describe_rank(edges, concat) if count_wirings(edges) <= MAX_WIRINGS else None,
    }


def describe_rank(edges: Sequence[Edge], concat: Sequence[int]) -> Record:
    """Where a cell ranks among all wirings with its numbers of edges and its concat list.

    For the ``ordered`` wirings and those with ``distinct`` sources: the total, how many are at least as wide,
    at least as shallow and both, and the shares of these; None where there are no such wirings. A census has
    a largest space; a ValueError names it.
    """
    from nas_lightning.cells.census import rank_cell

    record: Record = {"nodes": cell_edges(edges).node_count, "concat": sorted(concat)}
    for name in SPACES:
        rank = asdict(rank_cell(edges, concat, distinct=name == "distinct"))
        record |= {"width": rank.pop("width"), "depth": rank.pop("depth")}
        if rank["total"] == 0:  # a node with more edges than there are nodes before it
            record[name] = None
            continue
        shares = {f"{key}_share": count / rank["total"] for key, count in rank.items() if key != "total"}
        record[name] = rank | shares
    return record


def describe_space(genotype: Genotype, num_cells: int) -> Record:
    """Width, depth and path over all wirings of each cell: quantiles, own value and mid-percentile."""
    import numpy as np

    from nas_lightning.cells.census import MAX_WIRINGS, census_percentiles, count_wirings, list_wirings

    own = asdict(topology(genotype, num_cells))
    record: Record = {}
    for name, prefix in (("normal", ""), ("reduction", "reduce_")):
        reduction = name == "reduction"
        if count_wirings(genotype.cell(reduction)[0]) > MAX_WIRINGS:
            continue
        space = list_wirings(genotype, reduction=reduction, num_cells=num_cells)
        percentiles = census_percentiles(genotype, reduction=reduction, num_cells=num_cells)
        record[name] = {}
        for key in percentiles._fields:
            values = getattr(space, key)
            record[name][key] = {
                "own": own[key if key == "network_path" else f"{prefix}{key}"],
                "percentile": getattr(percentiles, key),
                **{f"q{share:g}": float(np.nanquantile(values, share / 100)) for share in QUANTILES},
            }
    return record


def describe_network(genotype: Genotype, settings: Record) -> Record:
    """The network of a genotype: its settings, its size and its dead cells."""
    plan = stack_plan(genotype, **_only(settings, "init_channels num_cells auxiliary"))
    dead = [cell.index for cell in plan.cells if not cell.live]
    found = topology(genotype, settings["num_cells"])
    names = ("network_width", "network_depth", "network_path", "shortest_path", "longest_path")
    paths = {name: getattr(found, name) for name in names}
    return {**settings, **network_size(genotype, settings), **paths, "dead_cells": dead}


def _only(settings: Record, names: str) -> Record:
    return {name: settings[name] for name in names.split()}


def network_size(genotype: Genotype, settings: Record) -> Record:
    """``parameters``, ``live_parameters`` and ``multiply_adds`` of a network, as the size options say."""
    # A tower serves training, so the images must fit it too.
    plan = stack_plan(genotype, **_only(settings, "init_channels num_cells auxiliary"))
    check_image_size(plan, settings["image_size"], settings["stem_stride"])
    counted = _only(settings, "init_channels num_cells num_classes auxiliary")
    passed = _only(settings, "init_channels num_cells num_classes stem_stride image_size")
    try:
        return {
            "parameters": count_parameters(genotype, **counted),
            "live_parameters": count_parameters(genotype, **counted, live=True),
            "multiply_adds": multiply_adds(genotype, **passed),
        }
    except UnknownOperationSize:
        # Only the network itself knows the size of a user's operation.
        from nas_lightning.networks import CellNetwork, measure_size

        size = measure_size(
            CellNetwork(genotype, **counted, stem_stride=settings["stem_stride"]), settings["image_size"]
        )
        return {name: getattr(size, name) for name in ("parameters", "live_parameters", "multiply_adds")}
