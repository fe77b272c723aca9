"""Reads published results and writes them as a study."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_lightning.study.import_nds import read_nds
from nas_lightning.study.import_random_darts import read_random_darts
from nas_lightning.study.import_table import read_table
from nas_lightning.study.imported import (
    Batch,
    check_output,
    declare_operations,
    sha256,
    source_facts,
    write_import,
)

_READERS = {"random-darts": read_random_darts, "nds": read_nds, "table": read_table}
_MOST_BYTES = 4 * 2**30
_NAMED = 200


def import_study(
    source: str, files: Sequence[Path], path: Path, told: Mapping[str, str | None] | None = None
) -> Batch:
    """Import published results as a study that ``study report`` reads.

    Args:
        source: ``"random-darts"``, ``"nds"`` or ``"table"``.
        files: The source's files.
        path: The study's YAML file; the tables go beside it. Its stem is the study's name.
        told: ``title``, ``citation``, ``url`` and ``licence``, where they are not the source's own.

    Returns:
        What was read and what was left out.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file has another format, or nothing in it can be used, or a file that is no import
            would be overwritten; one line that names it.
    """
    if path.suffix not in (".yaml", ".yml") or re.fullmatch(r"\w[\w.+-]*", path.stem) is None:
        raise ValueError(f"the study {str(path)!r} must be named NAME.yaml: letters, digits, - and _")
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is not a file")
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{file} has {file.stat().st_size} bytes; the limit is {_MOST_BYTES}")
    check_output(path, files)
    declare_operations(source)
    batch = _READERS[source](files)
    shown = ", ".join(str(file) for file in files)
    if not batch.runs:
        reason = next((line for line in batch.problems if ", row " in line), "there are no runs")
        raise ValueError(f"nothing in {shown} can be used: {reason}")
    _note_lengths(batch)
    if len(batch.problems) > _NAMED:
        more = len(batch.problems) - _NAMED
        batch.problems[_NAMED:] = [f"{more} further lines are not shown"]
    facts = source_facts(source)
    own = {key: value for key, value in (told or {}).items() if value}
    write_import(
        path,
        {"name": path.stem, "title": own.get("title", facts["title"])},
        {
            "source": source,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            **{key: own.get(key, facts[key]) for key in ("citation", "url", "licence")},
            "files": [{"name": file.name, "sha256": sha256(file)} for file in files],
            "stated": facts["stated"],
            "unknown": facts["unknown"],
        },
        batch,
    )
    return batch


def _note_lengths(batch: Batch) -> None:
    """Say if curves have different lengths: runs of other lengths are not compared with one another."""
    lengths: Counter[Any] = Counter(run.curves["accuracy"].size for run in batch.runs)
    if len(lengths) > 1:
        shown = ", ".join(f"{count} of {length} epochs" for length, count in sorted(lengths.items()))
        batch.problems.append(f"curves have different lengths ({shown}): only equal ones are compared")
