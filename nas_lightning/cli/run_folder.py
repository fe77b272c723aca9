"""The folder of a run: its name, the checkpoint it goes on from, and who may write in it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from jsonargparse import Namespace

from nas_lightning.callbacks.checkpoints import CHECKPOINTS
from nas_lightning.callbacks.requeue import requeue_checkpoints
from nas_lightning.cells import genotype_slug
from nas_lightning.files import check_writable, naming

LONGEST_NAME = 200
"""Most bytes of a folder's name; file systems allow 255."""


def check_folder_name(key: str, name: str) -> None:
    """Refuse a name that is not that of one new folder; the ValueError shows it in ASCII."""
    is_one = name not in ("", ".", "..") and not re.search(r"[/\\]", name)
    if not is_one or not name.isprintable() or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise ValueError(
            f"`{key}` (={name!a}) must be the name of one folder: printable characters without slashes,"
            f" at most {LONGEST_NAME} bytes, not `.` or `..`"
        )


def check_path(key: str, path: str) -> None:
    """Refuse a path with characters that no file system or no terminal takes."""
    if not path.strip():
        raise ValueError(f"`{key}` (={path!r}) must be a path, not an empty text")
    if "\0" in path or not path.isprintable():
        raise ValueError(f"`{key}` (={path!a}) must be a path of printable characters")


def is_given(arguments: Sequence[str], *keys: str) -> bool:
    """Whether the command line itself, not a file of settings, has one of these keys."""
    return any(argument.partition("=")[0] == f"--{key}" for argument in arguments for key in keys)


def refuse_comments(arguments: Sequence[str], *keys: str) -> None:
    """Refuse a text after one of these keys that YAML takes for a comment, and that is dropped."""
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        name, equals, value = argument.partition("=")
        text = value if equals else following
        if name.removeprefix("--") in keys and name.startswith("--") and text.lstrip().startswith("#"):
            raise ValueError(f"`{name[2:]}` (={text}) must not begin with `#`, as a comment does")


def named_folder(settings: Namespace, *, is_random: bool = False) -> Path:
    """``default_root_dir/experiment/run``, by the settings; of a seed that was drawn if `is_random`."""
    data_name = settings.data.class_path.rsplit(".", 1)[-1].lower()
    run = settings.run
    if run is None:
        run = genotype_slug(settings.model.genotype)
        if is_random:
            run += f"-random{settings.seed_everything}"
        elif settings.seed_everything:
            run += f"-seed{settings.seed_everything}"
        check_folder_name("run", run)
    return Path(settings.trainer.default_root_dir, settings.experiment or data_name, run)


def checkpoint_file(path: Path) -> Path:
    """A checkpoint, given as its file or as the folder of a run, whose ``last.ckpt`` is meant.

    Raises:
        FileNotFoundError: If a folder is no run, or one without a checkpoint.
    """
    last = path / CHECKPOINTS / "last.ckpt"
    if path.is_dir() and not last.is_file():
        raise FileNotFoundError(f"{path} holds no {CHECKPOINTS}/last.ckpt")
    return last if last.is_file() else path


def actual_folder(settings: Namespace, arguments: Sequence[str]) -> Path | None:
    """Folder of the run that a command resumes, if its files lie elsewhere than the settings say.

    They do after the folder was moved, copied or renamed. What counts is where the checkpoint lies, or with
    ``last`` the run's own ``config.yaml``. None if the command line names a folder itself, or if there is no
    such run.
    """
    if settings.ckpt_path is None or is_given(arguments, "run", "experiment", "trainer.default_root_dir"):
        return None
    if settings.ckpt_path != "last":
        inside = Path(settings.ckpt_path).parent
        folder = inside.parent if inside.name == CHECKPOINTS else None
    else:
        configs = [Path(a.partition("=")[2]) for a in arguments if a.startswith("--config=")]
        folders = [path.parent for path in configs if path.name == "config.yaml"]
        folder = next((path for path in folders if (path / CHECKPOINTS).is_dir()), None)
    if folder is None or folder.resolve() == named_folder(settings).resolve():
        return None
    return folder.absolute()  # links are not followed: the name is the user's


def drawn_run(settings: Namespace) -> int | None:
    """The seed of the run with a random seed that ``last`` means; None without one.

    A ValueError if several runs have one: which of them goes on?
    """
    pattern = re.compile(re.escape(genotype_slug(settings.model.genotype)) + r"-random(\d+)")
    parent = named_folder(settings).parent
    names = sorted(path.name for path in parent.iterdir()) if parent.is_dir() else []
    found = [match for name in names if (match := pattern.fullmatch(name)) is not None]
    if len(found) > 1:
        raise ValueError(
            f"{parent} has {len(found)} runs with a random seed ({', '.join(m.group() for m in found)}):"
            " say which one goes on with `--run NAME`"
        )
    return int(found[0].group(1)) if found else None


def check_run_folder(folder: Path, ckpt_path: Any, *, may_start: bool) -> None:
    """Refuse to write over another run, into another run, or where nothing can be written.

    Args:
        folder: The run's folder.
        ckpt_path: The checkpoint that the run resumes from, None if it starts.
        may_start: Whether a run without a checkpoint may start where an earlier attempt left its curves.
    """
    inside = folder / CHECKPOINTS
    stray = sorted(folder.glob("hpc_ckpt_*.ckpt"))
    if ckpt_path is not None:
        if folder.resolve() not in Path(ckpt_path).resolve().parents:
            raise ValueError(
                f"`ckpt_path` (={ckpt_path}) belongs to another run than {folder}: a run resumes"
                " in its own folder, with `--config RUN/config.yaml --ckpt_path last`"
            )
    elif (
        (inside / "last.ckpt").exists()
        or requeue_checkpoints(inside)
        or ((folder / "metrics.csv").exists() and not may_start)
    ):
        raise ValueError(
            f"{folder} already holds a run: continue it with `--ckpt_path last`,"
            " or name a new one with `--run NAME`"
        )
    elif _is_finished(folder):
        raise ValueError(
            f"{folder} holds a finished run whose `checkpoints/last.ckpt` is gone: bring it back, move"
            " the folder away, or name a new run with `--run NAME`"
        )
    elif stray:
        raise ValueError(
            f"{stray[0]} is a checkpoint of no known run: move it away, or name a new run with `--run NAME`"
        )
    check_writable(folder, "the run's folder ")


def _is_finished(folder: Path) -> bool:
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(result, dict) and result.get("finished") is True


def lock_folder(folder: Path) -> FileLock:
    """Make a run's folder and lock it, and remove what a killed process left half written.

    Raises:
        ValueError: If another process holds the lock.
    """
    path = folder / ".lock"
    with naming(path):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout:  # an OSError, but of no file that cannot be written
            taken = f"{folder} is being written by another process; use another `--run NAME`"
            raise ValueError(taken) from None
    for left_over in folder.glob(".*.tmp"):
        left_over.unlink(missing_ok=True)
    return lock
