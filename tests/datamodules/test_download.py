from __future__ import annotations

import multiprocessing
import os
import socket
import tarfile
from pathlib import Path

import pytest

from nas_lightning.datamodules.download import extract_tar, fetch
from tests.datamodules.http_server import Behaviour, serve
from tests.datamodules.limited import with_file_size_limit
from tests.datamodules.official_layouts import md5, write_tar

CONTENT = os.urandom(3_000_000)


def visible(folder: Path) -> list[str]:
    """Names of what lies in a folder, lock files apart."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_fetch_downloads_once(tmp_path: Path) -> None:
    behaviour = Behaviour({"/a.bin": CONTENT})
    with serve(behaviour) as address:
        for _ in range(2):
            fetch(f"{address}/a.bin", tmp_path / "new" / "a.bin", md5(CONTENT))
    assert behaviour.requests == [("/a.bin", None)]
    assert (tmp_path / "new" / "a.bin").read_bytes() == CONTENT
    assert visible(tmp_path / "new") == ["a.bin"]


def test_a_download_that_broke_off_is_continued_by_a_later_start(tmp_path: Path) -> None:
    behaviour = Behaviour({"/a.bin": CONTENT}, break_off_after=[1_000_000])
    path = tmp_path / "a.bin"
    with serve(behaviour) as address:
        with pytest.raises(FileNotFoundError, match="broke off after 1000000 of 3000000 bytes") as error:
            fetch(f"{address}/a.bin", path, md5(CONTENT), attempts=1)
        assert "\n" not in str(error.value)
        assert visible(tmp_path) == ["a.bin.part"]
        assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:1_000_000]
        fetch(f"{address}/a.bin", path, md5(CONTENT))
    assert behaviour.requests == [("/a.bin", None), ("/a.bin", "bytes=1000000-")]
    assert path.read_bytes() == CONTENT
    assert visible(tmp_path) == ["a.bin"]


def test_a_download_that_breaks_off_is_continued_by_itself(tmp_path: Path) -> None:
    behaviour = Behaviour({"/a.bin": CONTENT}, break_off_after=[500_000, 600_000])
    with serve(behaviour) as address:
        fetch(f"{address}/a.bin", tmp_path / "a.bin", md5(CONTENT))
    assert [wanted for _, wanted in behaviour.requests] == [None, "bytes=500000-", "bytes=1100000-"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    "left",
    [b"of another file", CONTENT[:77], CONTENT, CONTENT + b"more"],
    ids=["other", "beginning", "whole", "longer"],
)
def test_any_partial_file_ends_in_the_right_one(tmp_path: Path, left: bytes, ranges: bool) -> None:
    (tmp_path / "a.bin.part").write_bytes(left)
    with serve(Behaviour({"/a.bin": CONTENT}, ranges=ranges)) as address:
        fetch(f"{address}/a.bin", tmp_path / "a.bin", md5(CONTENT))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_an_altered_download_is_refused_and_not_kept(tmp_path: Path) -> None:
    altered = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with (
        serve(Behaviour({"/a.bin": altered})) as address,
        pytest.raises(ValueError, match=rf"a\.bin: .*{md5(altered)}, expected {md5(CONTENT)}") as error,
    ):
        fetch(f"{address}/a.bin", tmp_path / "a.bin", md5(CONTENT))
    assert "\n" not in str(error.value)
    assert visible(tmp_path) == []


def test_an_altered_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(
        ValueError, match=rf"a\.bin: not the official file.*expected {md5(CONTENT)}.*delete it"
    ):
        fetch("http://127.0.0.1:9/a.bin", tmp_path / "a.bin", md5(CONTENT))
    assert (tmp_path / "a.bin").read_bytes() == b"mine"


def test_without_network_the_message_says_what_belongs_where(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.bin"
        with pytest.raises(FileNotFoundError) as error:
            fetch(url, tmp_path / "a.bin", md5(CONTENT))
    assert str(error.value) == (
        f"{tmp_path / 'a.bin'}: missing, and the download from {url} failed (Connection refused): "
        "connect to the network, or put the official file a.bin there by hand"
    )
    assert visible(tmp_path) == []


def test_a_missing_page_is_reported(tmp_path: Path) -> None:
    with serve(Behaviour({})) as address, pytest.raises(FileNotFoundError, match="HTTP 404 Not Found"):
        fetch(f"{address}/a.bin", tmp_path / "a.bin", md5(CONTENT))


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    with serve(Behaviour({"/a.bin": CONTENT})) as address:
        message = with_file_size_limit(
            lambda: fetch(f"{address}/a.bin", tmp_path / "a.bin", md5(CONTENT)), 1_500_000
        )
    assert message == f"DiskError: {tmp_path / 'a.bin.part'}: cannot be written (File too large)"
    assert visible(tmp_path) == []


def _fetch_into(url: str, path: Path) -> None:
    fetch(url, path, md5(CONTENT))


def test_two_processes_download_once(tmp_path: Path) -> None:
    behaviour = Behaviour({"/a.bin": CONTENT})
    context = multiprocessing.get_context("fork")
    with serve(behaviour) as address:
        processes = [
            context.Process(target=_fetch_into, args=(f"{address}/a.bin", tmp_path / "a.bin"))
            for _ in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(behaviour.requests) == 1
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_extract_makes_the_folder_whole(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar.gz", {"top/one": b"1", "top/deep/two": b"2"})
    extract_tar(tmp_path / "a.tar.gz", tmp_path / "top")
    assert (tmp_path / "top" / "deep" / "two").read_bytes() == b"2"
    assert visible(tmp_path) == ["a.tar.gz", "top"]


@pytest.mark.parametrize(
    "evil", ["../evil", "top/../../evil", "/tmp/nas_lightning_evil", "other/evil", "top/link/evil"]
)
def test_no_member_lands_outside_the_folder(tmp_path: Path, evil: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    members = {"top/one": b"1", evil: b"evil"}
    if "link" in evil:
        _write_tar_with_link(inside / "a.tar.gz", "top/link", "../../..")
    else:
        write_tar(inside / "a.tar.gz", members)
    with pytest.raises(ValueError, match=r"a\.tar\.gz: ") as error:
        extract_tar(inside / "a.tar.gz", inside / "top")
    assert "\n" not in str(error.value)
    assert visible(inside) == ["a.tar.gz"]
    assert visible(tmp_path) == ["inside"]
    assert not Path("/tmp/nas_lightning_evil").exists()


def _write_tar_with_link(path: Path, name: str, target: str) -> None:
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, target
        tar.addfile(link)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_archive_is_refused_and_leaves_nothing(tmp_path: Path, keep: float) -> None:
    archive = tmp_path / "a.tar.gz"
    write_tar(archive, {"top/one": CONTENT[:200_000], "top/two": b"2"})
    content = archive.read_bytes()
    archive.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(ValueError, match=r"a\.tar\.gz: the archive is damaged"):
        extract_tar(archive, tmp_path / "top")
    assert visible(tmp_path) == ["a.tar.gz"]


def test_a_full_disk_while_unpacking_leaves_nothing(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar.gz", {"top/one": bytes(1_000_000)})
    message = with_file_size_limit(lambda: extract_tar(tmp_path / "a.tar.gz", tmp_path / "top"), 100_000)
    assert message == f"DiskError: {tmp_path / 'top'}: cannot be written (File too large)"
    assert visible(tmp_path) == ["a.tar.gz"]
