from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from nas_lightning.datamodules import download
from nas_lightning.datamodules.download import fetch
from tests.datamodules.http_server import Behaviour, serve
from tests.datamodules.limited import with_file_size_limit
from tests.datamodules.official_layouts import md5, visible

CONTENT = os.urandom(3_000_000)


def test_a_missing_file_is_downloaded_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    behaviour = Behaviour({"/a.bin": CONTENT})
    with serve(behaviour) as address:
        fetch(f"{address}/a.bin", tmp_path / "new" / "a.bin", md5(CONTENT))
        asked = len(behaviour.requests)
        fetch(f"{address}/a.bin", tmp_path / "new" / "a.bin", md5(CONTENT))
    assert len(behaviour.requests) == asked
    assert (tmp_path / "new" / "a.bin").read_bytes() == CONTENT
    assert visible(tmp_path / "new") == ["a.bin"]
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err.count("\n") <= 1  # one progress bar


@pytest.mark.parametrize("sent", [CONTENT[:1_000_000], CONTENT[:-1] + b"?", b""], ids=len)
def test_another_file_is_refused_and_not_kept(tmp_path: Path, sent: bytes) -> None:
    with (
        serve(Behaviour({"/a.bin": sent})) as address,
        pytest.raises(ValueError, match=rf"a\.bin: .*{md5(sent)}, expected {md5(CONTENT)}.*") as error,
    ):
        fetch(f"{address}/a.bin", tmp_path / "a.bin", md5(CONTENT))
    assert "\n" not in str(error.value)
    assert ".partial" not in str(error.value)
    assert visible(tmp_path) == []


def test_a_download_that_breaks_off_is_refused_and_not_kept(tmp_path: Path) -> None:
    with (
        serve(Behaviour({"/a.bin": CONTENT}, break_off_after=1_000_000)) as address,
        pytest.raises(ValueError, match=r"a\.bin: .* broke off or sent another file: try again"),
    ):
        fetch(f"{address}/a.bin", tmp_path / "a.bin", md5(CONTENT))
    assert visible(tmp_path) == []


def test_a_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    with (
        serve(Behaviour({"/a.bin": CONTENT}, silent_after=1_000_000)) as address,
        pytest.raises(FileNotFoundError, match=r"a\.bin failed \(timed out\); connect to the network"),
    ):
        fetch(f"{address}/a.bin", tmp_path / "a.bin", md5(CONTENT))
    assert socket.getdefaulttimeout() is None
    assert visible(tmp_path) == []


def test_an_altered_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(ValueError, match=rf"a\.bin: damaged, .*expected {md5(CONTENT)}.*delete it"):
        fetch("http://127.0.0.1:9/a.bin", tmp_path / "a.bin", md5(CONTENT))
    assert (tmp_path / "a.bin").read_bytes() == b"mine"


def test_without_network_the_message_says_what_belongs_where(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.bin"
        with pytest.raises(FileNotFoundError) as error:
            fetch(url, tmp_path / "a.bin", md5(CONTENT))
    assert str(error.value) == (
        f"{tmp_path / 'a.bin'}: missing, and the download from {url} failed (Connection refused); "
        "connect to the network, or put the official file a.bin there by hand"
    )
    assert visible(tmp_path) == []


def test_a_missing_page_is_reported(tmp_path: Path) -> None:
    with serve(Behaviour({})) as address, pytest.raises(FileNotFoundError, match=r"failed .*Not Found"):
        fetch(f"{address}/a.bin", tmp_path / "a.bin", md5(CONTENT))


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    with serve(Behaviour({"/a.bin": CONTENT})) as address:
        message = with_file_size_limit(
            lambda: fetch(f"{address}/a.bin", tmp_path / "a.bin", md5(CONTENT)), 1_500_000
        )
    assert message == f"DiskError: {tmp_path / 'a.bin'}: cannot be written (File too large)"
    assert visible(tmp_path) == []


def _fetch_into(url: str, path: Path) -> None:
    fetch(url, path, md5(CONTENT))


def test_two_processes_download_once(tmp_path: Path) -> None:
    behaviour = Behaviour({"/a.bin": CONTENT})
    context = multiprocessing.get_context("fork")
    with serve(behaviour) as address:
        arguments = (f"{address}/a.bin", tmp_path / "a.bin")
        processes = [context.Process(target=_fetch_into, args=arguments) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        once = len(behaviour.requests)
        fetch(f"{address}/a.bin", tmp_path / "b.bin", md5(CONTENT))
        assert len(behaviour.requests) == 2 * once
    assert [process.exitcode for process in processes] == [0] * 3
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_after_a_kill_the_next_start_is_clean(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with serve(Behaviour({"/a.bin": CONTENT}, silent_after=1_000_000)) as address:
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_fetch_into, args=(f"{address}/a.bin", path))
        process.start()
        half = tmp_path / ".a.bin.partial" / "a.bin"
        while not half.exists() or half.stat().st_size < 500_000:
            assert process.is_alive()
            time.sleep(0.005)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert not path.exists()
    with serve(Behaviour({"/a.bin": CONTENT})) as address:
        fetch(f"{address}/a.bin", path, md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert visible(tmp_path) == ["a.bin"]
