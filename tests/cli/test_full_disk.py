"""A training whose disk fills up ends in one line, and goes on when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas_lightning.cli.main import main
from tests.cli.commands import TINY, command, read_events, read_metrics, read_result
from tests.datamodules.limited import with_file_size_limit

FIT = (
    "fit",
    *TINY,
    "--trainer.max_epochs=2",
    "--experiment=e",
    "--run=r",
    "--trainer.enable_progress_bar=false",
)
CONTOUR = ("--trainer.callbacks+=LossContour", "--trainer.callbacks.resolution=3", "--model.speed=reference")


def check_whole(run: Path) -> None:
    """The run of ``FIT`` has everything, and nothing half-written."""
    assert [row["epoch"] for row in read_metrics(run)] == [0, 1]
    assert read_result(run)["finished"]
    assert {event.step for event in read_events(run).Scalars("loss/test")} == {0, 1}
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.slow
def test_wherever_the_disk_fills_up_one_line_names_the_file(tmp_path: Path) -> None:
    arguments = [*FIT, *CONTOUR, f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=last"]
    run = tmp_path / "e" / "r"
    named = []
    for limit in (20, 1000, 132_000):
        message = with_file_size_limit(lambda: main([*arguments, "--debug"]), limit)
        if message == "no error":
            break
        assert message.startswith("OSError: "), message
        assert f"cannot write {run}" in message
        assert message.endswith(": File too large; make room, then resume with `--ckpt_path last`")
        named.append(message.partition(f"{run}/")[2].partition(":")[0].partition(".out")[0])
    assert {"config.yaml", "events"} <= set(named), named
    main(arguments)
    check_whole(run)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", folder], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no `mount`")
    if mounted.returncode:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.slow
def test_a_run_goes_on_whenever_a_full_disk_has_room_again(small_disk: Path) -> None:
    arguments = [*FIT, *CONTOUR, f"--trainer.default_root_dir={small_disk}", "--ckpt_path=last"]
    run = small_disk / "e" / "r"
    for size in (100, 300, 500, 20_000):
        subprocess.run(["mount", "-o", f"remount,size={size}k", small_disk], check=True)
        message = with_file_size_limit(lambda: main([*arguments, "--debug"]), 2**30)
        if size < 20_000:
            assert message.startswith(f"OSError: [Errno 28] cannot write {run}"), message
    assert message == "no error"
    check_whole(run)


def test_a_full_disk_behind_the_printed_text_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        completed = subprocess.run(
            command(["cells", "list"]), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert completed.returncode == 2
    assert completed.stderr == "nas-lightning: error: No space left on device\n"
