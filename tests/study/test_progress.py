"""The line that tells how far a study is."""

from __future__ import annotations

import io

import pytest

from nas_lightning.study.progress import StudyProgress


def test_a_line_a_minute_with_the_time_left() -> None:
    now = 0.0
    output = io.StringIO()
    shown = StudyProgress(output, clock=lambda: now)
    assert not shown.due
    shown.update(1, 0, 4, [("a", 0, 10, None)])
    now = 60.0
    assert shown.due
    shown.update(1, 1, 4, [("a", 5, 10, 0.5)], 300.0, elsewhere=2)
    assert not shown.due
    shown.update(0, 0, 9, [("a", 0, 1, None)] * 10)
    lines = output.getvalue().splitlines()
    assert lines[:2] == [
        "1 of 4 runs done, 0 failed, a 0/10",
        "1 of 4 runs done, 1 failed, 05:00 left, 2 elsewhere, a 5/10 (0.500)",
    ]
    assert lines[2].count("a 0/1") == 8
    assert lines[2].endswith(", and 2 more")


def test_on_a_terminal_one_line_is_drawn_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "60")
    output = Terminal()
    shown = StudyProgress(output)
    shown.update(0, 0, 1, [("a", 1, 10, None)])
    shown.update(0, 0, 1, [("a", 2, 10, 0.25), ("b" * 99, 2, 10, 0.25)])
    shown.say("a: finished")
    shown.close()
    text = output.getvalue()
    assert text.count("\n") == 1
    assert "\r0 of 1 runs done, 0 failed, a 1/10" in text
    assert "a 2/10 (0.250), bb" in text
    assert max(len(part) for part in text.replace("\n", "\r").split("\r")) < 60
    assert "a: finished\n" in text
