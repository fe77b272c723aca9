"""Progress in a log file."""

from __future__ import annotations

import io
import logging
import os
import re
import sys

import pytest
from tqdm import tqdm

from nas_lightning.callbacks import TrainingProgress
from nas_lightning.callbacks.progress import LogBesideBars, PointProgress, keep_log_beside_bars
from tests.callbacks.cases import data, small_classifier, trainer


def test_progress_says_points_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PointProgress("loss contour", 20, 100, visible=True)
    for finished in (25, 30, 38, 100):
        progress.update(finished)
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(",")[0] for line in lines] == [
        "loss contour: 30 of 100 points",
        "loss contour: 100 of 100 points",
    ]
    assert all(re.fullmatch(r".*, \d\d:\d\d left", line) for line in lines)
    PointProgress("loss contour", 0, 100, visible=False).update(50)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_an_epoch_without_a_terminal_is_one_line_with_the_time_left(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_classifier()
    if terminal:  # but one without columns, where no bar can be drawn
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setattr("os.get_terminal_size", lambda *_: os.terminal_size((0, 0)))
        monkeypatch.delenv("COLUMNS", raising=False)
    trainer(TrainingProgress(), max_epochs=3).fit(model, datamodule=data())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all("accuracy/test" in line for line in lines)
    assert lines[-1].endswith("left 00:00")


def test_lines_of_the_log_and_of_points_do_not_run_into_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()  # a terminal shows both streams
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    logger = logging.getLogger("lightning.pytorch")
    plain = logging.StreamHandler(screen)
    monkeypatch.setattr(logger, "handlers", [plain])
    monkeypatch.setattr(logger, "propagate", False)
    keep_log_beside_bars()
    keep_log_beside_bars()
    (handler,) = logger.handlers
    assert isinstance(handler, LogBesideBars)
    with tqdm(total=10, desc="epoch 1/2", file=screen, ncols=60) as bar:
        bar.update(3)
        logging.getLogger("lightning.pytorch.utilities.rank_zero").info("speed: fast")
        PointProgress("loss contour", 0, 10, visible=True).update(5)
    written = re.split(r"[\r\n]+", screen.getvalue())
    assert "speed: fast" in written
    assert any(re.fullmatch(r"loss contour: 5 of 10 points, \S+ left", line) for line in written)
    assert written[-2].startswith("epoch 1/2:  30%")
