"""What `nas-lightning study run` says while it runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from tqdm import tqdm

LINE_SECONDS = 60.0
"""Time between two lines where the output is no terminal."""
REDRAW_SECONDS = 2.0
_NAMED = 8


@runtime_checkable
class Output(Protocol):
    """Where text goes, such as ``sys.stdout``."""

    def write(self, text: str, /) -> int:
        """Take text."""

    def flush(self) -> None:
        """Show what was taken."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""


class StudyProgress:
    """One line that is drawn over on a terminal; elsewhere a line a minute."""

    def __init__(self, output: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._output, self._clock = output, clock
        self._terminal = output.isatty()
        self._bar = tqdm(file=output, bar_format="{desc}", disable=not self._terminal, leave=False)
        self._said = clock()

    @property
    def due(self) -> bool:
        """Whether it is time for another line."""
        return self._clock() - self._said >= (REDRAW_SECONDS if self._terminal else LINE_SECONDS)

    def say(self, line: str) -> None:
        """Print a line that stays."""
        if self._terminal:
            self._bar.clear()
        print(line, file=self._output, flush=True)
        if self._terminal:
            self._bar.refresh()

    def update(
        self,
        finished: int,
        failed: int,
        runs: int,
        running: Sequence[tuple[str, int, int, float | None]],
        seconds_left: float | None = None,
        elsewhere: int = 0,
    ) -> None:
        """Show how far the study is.

        Of each running run come its name, its epochs done, its epochs to do and its accuracy; ``elsewhere``
        counts the runs that another process works on.
        """
        self._said = self._clock()
        parts = [f"{finished} of {runs} runs done", f"{failed} failed"]
        if seconds_left is not None:
            parts.append(f"{tqdm.format_interval(seconds_left)} left")
        parts += [f"{elsewhere} elsewhere"] if elsewhere else []
        parts += [
            f"{name} {progress_text(*at)}" for name, at in ((one[0], one[1:]) for one in running[:_NAMED])
        ]
        parts += [f"and {len(running) - _NAMED} more"] if len(running) > _NAMED else []
        if self._terminal:
            # A line that is wider than the terminal could not be drawn over.
            self._bar.set_description_str(", ".join(parts)[: shutil.get_terminal_size().columns - 1])
        else:
            print(", ".join(parts), file=self._output, flush=True)

    def close(self) -> None:
        """Leave the terminal as it is."""
        self._bar.close()


def progress_text(epoch: int, epochs: int, accuracy: float | None) -> str:
    """For example ``3/10 (0.912)``: epochs done, of how many, and the accuracy after them."""
    return f"{epoch}/{epochs}" + ("" if accuracy is None else f" ({accuracy:.3f})")
