"""`nas-lightning cells`: list, show, draw and count cells and their variants.

Starts quickly: nothing here imports torch, NumPy or matplotlib before a subcommand needs it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from nas_lightning.cells import get_genotype, import_operations
from nas_lightning.cells.literal import is_literal
from nas_lightning.cells.published import published_genotypes
from nas_lightning.cells.spec import apply_variant, genotype_slug, published_base
from nas_lightning.cells.table2 import TABLE2
from nas_lightning.cli.argument_parser import ArgumentParser
from nas_lightning.cli.cells_records import (
    Settings,
    describe_cell,
    describe_network,
    describe_rank,
    describe_variant,
)
from nas_lightning.cli.cells_text import census_text, list_text, show_text, variants_text


def main(argv: Sequence[str]) -> None:
    """Run ``nas-lightning cells``.

    Args:
        argv: Arguments; a leading ``cells`` is skipped.

    Raises:
        ValueError: If an argument or a genotype is not valid.
        OSError: If a file cannot be read or written.
    """
    arguments = list(argv)
    if arguments[:1] == ["cells"]:
        arguments = arguments[1:]
    options = _parser().parse_args(arguments or ["--help"])
    import_operations(options.operations or ())
    options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="nas-lightning cells", description="List, show, draw and count cells and their variants."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    spec_help = (
        "a genotype: NAME, NAME:connections=SEED, NAME:operations=SEED, NAME:adapted, NAME:C4, FILE.yaml, or "
        "the literal Genotype(...)"
    )

    command = _command(commands, "list", _list, "the published cells, with their sizes", json_too=True)
    _add_size_options(command)

    command = _command(commands, "show", _show, "everything about one genotype", json_too=True)
    command.add_argument("spec", metavar="SPEC", help=spec_help)
    _add_size_options(command)

    command = _command(commands, "draw", _draw, "draw cells to a picture file")
    command.add_argument("specs", metavar="SPEC", nargs="+", help=spec_help)
    command.add_argument("-o", "--output", metavar="FILE", required=True, help="FILE.png, .svg or .pdf")
    command.add_argument(
        "--cells", choices=("both", "normal", "reduction"), default="both", help="which cells to draw (both)"
    )
    command.add_argument("--columns", type=int, help="drawings side by side (one per SPEC, at most 4)")

    command = _command(commands, "variants", _variants, "variants of a genotype, with sizes", json_too=True)
    command.add_argument("spec", metavar="SPEC", help=spec_help)
    command.add_argument(
        "--count", type=int, default=10, help="seeds 1 to COUNT of random connections and operations (10)"
    )
    _add_size_options(command)

    command = _command(
        commands,
        "census",
        _census,
        "how many cells have which width and depth, and how a cell ranks",
        json_too=True,
    )
    command.add_argument("specs", metavar="SPEC", nargs="*", help=f"rank its normal cell; {spec_help}")
    command.add_argument("--nodes", type=int, default=4, help="number of intermediate nodes, 1 to 5 (4)")
    command.add_argument(
        "--concat", type=_node_list, help="nodes that the output concatenates, such as 4,5,6 (all)"
    )
    return parser


def _command(
    commands: Any, name: str, run: Any, description: str, *, json_too: bool = False
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=description, description=description, allow_abbrev=False
    )
    command.set_defaults(run=run)
    command.add_argument(
        "--operations",
        metavar="MODULE",
        action="append",
        help="import a module (or FILE.py) that registers operations of your own; may be repeated",
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


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        options.init_channels,
        options.num_cells,
        options.num_classes,
        options.auxiliary,
        options.image_size,
        options.stem_stride,
    )


def _node_list(text: str) -> list[int]:
    try:
        return [int(part) for part in text.strip("[]() ").split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be node numbers, such as 4,5,6") from None


def _print(options: argparse.Namespace, record: Any, text: str) -> None:
    print(json.dumps(record, indent=2) if options.json else text)


def _list(options: argparse.Namespace) -> None:
    settings = _settings(options)
    records = []
    for entry in published_genotypes().values():
        reported = entry.reported
        records.append(
            {
                "name": entry.name,
                "method": entry.method,
                "year": entry.year,
                **describe_variant(entry.genotype, settings),
                "reported": None
                if reported is None
                else {"parameters_M": reported.parameters_M, "error_percent": reported.error_percent},
            }
        )
    _print(options, records, list_text(records, settings))


def _show(options: argparse.Namespace) -> None:
    genotype = get_genotype(options.spec)
    settings = _settings(options)
    record: dict[str, Any] = {"spec": _title(options.spec)}
    base = published_base(options.spec)
    if base is not None:
        entry, variant = base
        record |= {
            "published": entry.name,
            "variant": variant,
            "method": entry.method,
            "citation": entry.citation,
            "searched_on": entry.searched_on,
            "source": entry.source,
            "note": entry.note,
        }
        # What a paper reports of the base cell says nothing of a variant.
        if variant is None and entry.reported is not None:
            record["reported"] = {
                "parameters_M": entry.reported.parameters_M,
                "error_percent": entry.reported.error_percent,
                "where": entry.reported.where,
            }
    record["normal"] = describe_cell(genotype.normal, genotype.normal_concat)
    record["reduction"] = describe_cell(genotype.reduce, genotype.reduce_concat)
    record["network"] = describe_network(genotype, settings)
    record["genotype"] = str(genotype)
    _print(options, record, show_text(record))


def _draw(options: argparse.Namespace) -> None:
    from nas_lightning.figures import CellDrawing, draw_cells, figure_to_bytes, picture_format
    from nas_lightning.files import atomic_write

    picture = picture_format(options.output)
    genotypes = [(_title(spec), get_genotype(spec)) for spec in options.specs]
    drawings = []
    if options.cells != "reduction":
        drawings += [
            CellDrawing(g.normal, g.normal_concat, f"{title}, normal cell") for title, g in genotypes
        ]
    if options.cells != "normal":
        drawings += [
            CellDrawing(g.reduce, g.reduce_concat, f"{title}, reduction cell") for title, g in genotypes
        ]
    columns = options.columns if options.columns is not None else min(len(genotypes), 4)
    content = figure_to_bytes(draw_cells(drawings, columns), picture)
    with atomic_write(options.output, "wb") as file:
        file.write(content)
    print(options.output)


def _variants(options: argparse.Namespace) -> None:
    if not 0 <= options.count <= 1000:
        raise ValueError(f"`count` (={options.count}) must be from 0 to 1000")
    base = published_base(options.spec)
    if base is not None and base[1] is not None:
        raise ValueError(f"{options.spec!r} is a variant already; name its base, {base[0].name}")
    genotype = get_genotype(options.spec)
    name = options.spec if base is None else base[0].name
    suffixes = ["adapted"]
    if base is not None and name in TABLE2:
        suffixes += [f"C{number}" for number in range(1, len(TABLE2[name]) + 1)]
    suffixes += [f"connections={seed}" for seed in range(1, options.count + 1)]
    suffixes += [f"operations={seed}" for seed in range(1, options.count + 1)]
    settings = _settings(options)
    records = [{"spec": _title(name), **describe_variant(genotype, settings)}]
    for suffix in suffixes:
        variant = apply_variant(genotype, name, suffix)
        records.append({"spec": f"{_title(name)}:{suffix}", **describe_variant(variant, settings)})
    _print(options, records, variants_text(records, settings))


def _census(options: argparse.Namespace) -> None:
    from nas_lightning.cells.census import take_census

    spaces = [take_census(options.nodes, options.concat, distinct=distinct) for distinct in (False, True)]
    ranks = []
    for spec in options.specs:
        genotype = get_genotype(spec)
        ranks.append({"spec": _title(spec), **describe_rank(genotype.normal, genotype.normal_concat)})
    record = {
        "nodes": options.nodes,
        "concat": list(spaces[0].concat),
        **{
            name: {
                "total": space.total,
                "counts": [
                    {"width": width, "depth": depth, "count": count}
                    for (width, depth), count in space.counts.items()
                ],
            }
            for name, space in zip(("ordered", "distinct"), spaces, strict=True)
        },
        "ranks": ranks,
    }
    _print(options, record, census_text(spaces, ranks))


def _title(spec: str) -> str:
    """The spec itself, or for a literal its short name."""
    return genotype_slug(spec) if is_literal(spec) else spec
