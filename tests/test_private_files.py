"""The cache folder is used only where nobody else may write."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from nas_lightning.private_files import cache_folder, cache_problem, is_private


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "above" / "cache"))


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_a_folder_of_its_own_is_made_and_used_again(tmp_path: Path, mask: int) -> None:
    (tmp_path / "above" / "cache").mkdir(parents=True)
    before = os.umask(mask)
    try:
        folder = cache_folder()
    finally:
        os.umask(before)
    assert folder == tmp_path / "above" / "cache" / "nas_lightning" == cache_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache_problem() is None


def test_relative_paths_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given in ("", "cache", "."):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert cache_folder() == tmp_path / "home" / ".cache" / "nas_lightning"
    monkeypatch.setenv("HOME", "home")
    assert (cache_folder(), cache_problem()) == (None, "there is no home directory")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("place", ["above", "above/cache", "above/cache/nas_lightning"])
@pytest.mark.parametrize("mode", [0o777, 0o702])
def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path, place: str, mode: int) -> None:
    assert cache_folder() is not None
    (tmp_path / place).chmod(mode)
    assert cache_folder() is None
    assert cache_problem() == f"others may write to {tmp_path / place}"


def test_where_nobody_replaces_the_files_of_others_a_folder_is_used(tmp_path: Path) -> None:
    folder = cache_folder()
    assert folder is not None
    (tmp_path / "above").chmod(0o1777)
    assert cache_folder() == folder
    folder.chmod(0o1777)
    assert cache_folder() is None


def test_a_group_counts_unless_it_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() is not None
    (tmp_path / "above").chmod(0o770)
    user = pwd.getpwuid(os.geteuid())
    for name, members, is_used in [
        (user.pw_name, [], True),
        (user.pw_name, [user.pw_name], True),
        (user.pw_name, ["someone"], False),
        ("users", [], False),
    ]:
        group = grp.struct_group((name, "x", user.pw_gid, members))
        monkeypatch.setattr(grp, "getgrgid", lambda number, group=group: group)
        assert (cache_folder() is not None) == is_used


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "above").mkdir()
    (tmp_path / "above" / "cache").symlink_to(tmp_path / "shared")
    assert cache_folder() is not None
    (tmp_path / "shared").chmod(0o777)
    assert cache_folder() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_what_belongs_to_another_is_not_used(tmp_path: Path) -> None:
    folder = cache_folder()
    assert folder is not None
    (folder / "file").write_text("")
    (folder / "file").chmod(0o644)
    assert is_private(folder / "file")
    os.chown(folder / "file", 12345, 12345)
    assert not is_private(folder / "file")
    os.chown(folder, 12345, 12345)
    assert cache_problem() == f"{folder} belongs to another user"


def test_files_that_others_may_write_to_and_links_are_not_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert not is_private(path)
    path.write_text("")
    path.chmod(0o644)
    assert is_private(path)
    (tmp_path / "link").symlink_to(path)
    assert not is_private(tmp_path / "link")
    path.chmod(0o646)
    assert not is_private(path)
