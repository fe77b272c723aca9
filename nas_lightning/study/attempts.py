"""The runner's record of a run: which processes it had, how they ended, what they printed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from nas_lightning.files import atomic_write, naming

RECORD = "study.json"
LOG = "log.txt"
_HEADING = "==== nas-lightning study run: attempt "


@dataclass(frozen=True)
class Attempt:
    """A process of a run.

    Times are ISO 8601 with time zone; ``end`` is when the end was noticed, None while the process runs, or if
    its runner was killed. A negative exit code is the signal that ended it. The outcome is ``"finished"``,
    ``"failed"``, ``"lost"`` (its worker or machine failed) or ``"stopped"`` (on demand).
    """

    start: str
    executor: str
    host: str
    end: str | None = None
    exit_code: int | None = None
    outcome: str | None = None
    reason: str | None = None


def read_attempts(folder: Path) -> tuple[Attempt, ...]:
    """The attempts in a run's ``study.json``, in order; none if there is no record or it is damaged."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        names = {field.name for field in fields(Attempt)}
        return tuple(
            Attempt(**{key: value for key, value in attempt.items() if key in names})
            for attempt in record["attempts"]
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ()


def write_attempts(folder: Path, attempts: Sequence[Attempt]) -> None:
    """Write all attempts of a run."""
    with atomic_write(folder / RECORD) as file:
        json.dump({"attempts": [asdict(attempt) for attempt in attempts]}, file, indent=2)
        file.write("\n")


def begin_log(folder: Path, number: int, text: str) -> None:
    """Append the line to a run's log that separates an attempt, numbered from 1, from those before."""
    with naming(folder / LOG), (folder / LOG).open("ab") as log:
        log.write(f"{_HEADING}{number}, {text}\n".encode())


def log_end(folder: Path, lines: int = 12) -> list[str]:
    """The last lines that a run's last attempt printed; none if there is no log."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 65536, 0))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    last = text.rpartition(_HEADING)
    printed = last[2].partition("\n")[2] if last[1] else text
    # Of a line that was drawn over, the last state.
    shown = [line.rstrip().rpartition("\r")[2] for line in printed.split("\n") if line.strip()]
    return shown[-lines:]
