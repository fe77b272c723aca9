"""What is made once on a machine is kept in a folder that nobody but this user and root may write to."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path


def cache_folder() -> Path | None:
    """``$XDG_CACHE_HOME/nas_lightning``, made if it is missing; None where there is none to be trusted."""
    folder = _wanted_folder()
    return None if folder is None or cache_problem() is not None else folder


def cache_problem() -> str | None:
    """Why the cache folder is not used, in a few words; None if it is."""
    folder = _wanted_folder()
    if folder is None:
        return "there is no home directory"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Who may write to a folder above it may put another in its place. Links lead to a second path.
        real = folder.resolve()
        for path in dict.fromkeys((folder, *folder.parents, real, *real.parents)):
            if (problem := _problem(path, path.stat(), sticky=path not in (folder, real))) is not None:
                return problem
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return None


def is_private(path: Path) -> bool:
    """Whether a file is this user's or root's, and nobody else may write to it."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and _problem(path, status) is None


def _wanted_folder() -> Path | None:
    """By the XDG base directory specification, which has relative paths ignored."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = given if given.is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "nas_lightning" if base.is_absolute() else None


def _problem(path: Path, status: os.stat_result, *, sticky: bool = False) -> str | None:
    """What is wrong with owner or mode; in a folder with the sticky bit nobody replaces others' files."""
    if status.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to another user"
    if sticky and status.st_mode & stat.S_ISVTX:
        return None
    by_group = status.st_mode & stat.S_IWGRP and not _is_of_one(status.st_gid)
    if status.st_mode & stat.S_IWOTH or by_group:
        return f"others may write to {path}"
    return None


def _is_of_one(group: int) -> bool:
    """Whether a group is this user's alone, as many systems give one to each user."""
    try:
        user, members = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    is_own = members.gr_name == user.pw_name and group == user.pw_gid
    return is_own and set(members.gr_mem) <= {user.pw_name}
