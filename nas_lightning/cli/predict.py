"""`nas-lightning predict`: classes and probabilities of images, or of a split of the data, as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_lightning.cli.argument_parser import (
    ArgumentParser,
    add_checkpoint_argument,
    checkpoint_first,
    integer,
    named_path,
)
from nas_lightning.files import atomic_write, check_writable, in_utf8, shown

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, Any]
"""What is known of an image, and what the network makes of it."""


def main(arguments: Sequence[str]) -> None:
    """Run ``nas-lightning predict``; a leading ``predict`` is skipped."""
    options = argument_parser().parse(checkpoint_first(arguments), intermixed=True)
    if bool(options.images) == (options.split is not None):
        raise ValueError("`images` or `--split`: give image files and folders, or a split of the data")
    if str(options.output) in ("-", "/dev/stdout"):
        options.output = None
    if options.output is not None:
        check_output(options.output)

    from nas_lightning.cli.trained import load_trained
    from nas_lightning.datamodules.image_files import unreadable_error
    from nas_lightning.image_record import ImageRecord, class_labels
    from nas_lightning.prediction import (
        class_probabilities,
        how_many_unreadable,
        image_files,
        normaliser,
        squares,
    )

    files = image_files(options.images)
    module, described = load_trained(options)
    if described is None:
        raise ValueError(f"{options.checkpoint} does not say how its images were normalised")
    unreadable: dict[int, str] = {}
    if options.split is None:
        known: list[Row] = [{"file": in_utf8(str(file))} for file in files]
        images = squares(files, described.image_size, unreadable, skip=options.skip_unreadable)
    else:
        images, targets = split_of(options)
        known = [{"index": index, "target": int(target)} for index, target in enumerate(targets)]
    normalise = normaliser(described) if isinstance(described, ImageRecord) else described.normalise
    probabilities = class_probabilities(module.network, images, normalise, options.batch_size)
    if unreadable:
        said = how_many_unreadable(unreadable, len(files))
        if not options.skip_unreadable or len(unreadable) == len(files):
            hint = "" if len(unreadable) == len(files) else "; `--skip_unreadable` leaves them out"
            raise unreadable_error(f"`images`: {said}{hint}", unreadable.values())
        print(f"nas-lightning: left out: {said}", *unreadable.values(), sep="\n  ", file=sys.stderr)
        known = [row for place, row in enumerate(known) if place not in unreadable]
    labels = [in_utf8(name) for name in class_labels(described.class_names, module.network.num_classes)]
    write_predictions(options, predicted_rows(known, labels, probabilities))


def argument_parser() -> ArgumentParser:
    """The options of ``nas-lightning predict``."""
    parser = ArgumentParser(
        prog="nas-lightning predict",
        description="Predict the classes of images, or of a split of the data, with a trained network.",
        allow_abbrev=False,
    )
    add_checkpoint_argument(parser)
    parser.add_argument("images", nargs="*", type=named_path, help="image files, and folders of them")
    parser.add_argument("--split", choices=("train", "val", "test"), help="a split of the training's data")
    parser.add_argument("--root", help="folder of the data set, for --split (that of the training)")
    parser.add_argument(
        "-o", "--output", type=named_path, help="FILE.csv or FILE.json (a table on the screen)"
    )
    parser.add_argument(
        "--format", choices=tuple(_FORMATS), help="what is written (that of the file's suffix, otherwise CSV)"
    )
    parser.add_argument("--skip_unreadable", action="store_true", help="leave images out that cannot be read")
    parser.add_argument("--batch_size", type=integer(1), default=250, help="images at once (250)")
    return parser


_TABLES = (".csv", ".json", ".tsv", ".txt")
"""Suffixes of files that are written over."""


def check_output(path: Path) -> None:
    """Refuse what cannot be written, is an image, or is a file but no table, before anything is computed."""
    from nas_lightning.datamodules.image_files import IMAGE_SUFFIXES

    suffix = path.suffix.lower()
    if (path.exists() and not path.is_file()) or suffix in IMAGE_SUFFIXES:
        raise ValueError(f"`output` (={path}) must be a file such as {path.stem}.csv or {path.stem}.json")
    if path.is_file() and suffix not in _TABLES:
        raise ValueError(f"`output` (={path}) is a file already, and no table: choose another name")
    check_writable(path.parent, f"{path.name} in ")


def split_of(options: Any) -> tuple[Iterator[Tensor], Tensor]:
    """The images and classes of a split of the training's data.

    Raises:
        ValueError: If the checkpoint names no data, or was trained without such a split.
    """
    from nas_lightning.cli.trained import trained_data

    data = trained_data(options.checkpoint, options.root)
    if data is None:
        raise ValueError(f"{options.checkpoint} does not say on which data it was trained")
    data.prepare_data()
    data.setup()
    if options.split not in data.split_sizes:
        raise ValueError(f"`--split` (={options.split}): {data.name} was trained without such a split")
    images, targets, rows = data.split_source(options.split)
    if rows is None:
        return (images[row] for row in range(len(images))), targets
    return (images[row] for row in rows), targets[rows]


def predicted_rows(known: Sequence[Row], labels: Sequence[str], probabilities: Tensor) -> list[Row]:
    """Of each image its most probable class, and the probabilities of all by name, to 6 digits."""
    rows = []
    for row, values in zip(known, probabilities.tolist(), strict=True):
        shares = [float(f"{value:.6g}") for value in values]
        best = values.index(max(values))
        predicted = {"class": best, "name": labels[best], "probability": shares[best]}
        rows.append({**row, **predicted, "probabilities": dict(zip(labels, shares, strict=True))})
    return rows


def write_predictions(options: Any, rows: Sequence[Row]) -> None:
    """Write the rows to the file, or on standard output: as a table, unless a format is asked for."""
    if options.output is None:
        print(_FORMATS[options.format or "table"](rows), end="")
        return
    by_suffix = "json" if options.output.suffix.lower() == ".json" else "csv"
    with atomic_write(options.output) as file:
        file.write(_FORMATS[options.format or by_suffix](rows))
    print(f"{options.output}: {len(rows)} image{'' if len(rows) == 1 else 's'}")


def csv_text(rows: Sequence[Row]) -> str:
    """One line an image, with a column for each class."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    *head, probabilities = rows[0]
    writer.writerow([*head, *(f"probability_{name}" for name in rows[0][probabilities])])
    for row in rows:
        *values, shares = row.values()
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in (*values, *shares.values())])
    return file.getvalue()


def json_text(rows: Sequence[Row]) -> str:
    """A list of objects, one a line."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f"[\n{lines}\n]\n"


def table_text(rows: Sequence[Row]) -> str:
    """What a reader wants to see: image, class and probability."""
    from nas_lightning.cli.tables import table

    head = [key for key in rows[0] if key not in ("class", "probabilities")]
    lines = [[*(shown(str(row[key])) for key in head[:-1]), f"{row['probability']:.3f}"] for row in rows]
    return table(head, lines, left=len(head) - 1) + "\n"


_FORMATS: Mapping[str, Callable[[Sequence[Row]], str]] = {
    "csv": csv_text,
    "json": json_text,
    "table": table_text,
}
