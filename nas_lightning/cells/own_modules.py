"""Where modules of the user's own are found, and how they are imported before others of the same name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

_folders: list[Path] = []
_files: list[Path] = []
_INSTALLED = ("site-packages", "dist-packages")


def search_own_modules(files: Iterable[Path]) -> None:
    """Look for own modules in folders, and in those of Python files, before the working folder.

    What such a module imports beside it is found as well, after all installed modules: a ``queue.py`` in the
    working folder hides no module of Python's own.
    """
    for file in files:
        is_file = file.suffix == ".py"
        if is_file and file not in _files:
            _files.append(file)
        folder = module_root(file) if is_file else file
        if folder not in _folders:
            _folders.append(folder)
    for folder in own_folders():
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def own_folders() -> list[Path]:
    """The folders in which own modules are looked for, in this order; the last is the working folder."""
    return [*_folders, Path.cwd()]


def module_root(file: Path) -> Path:
    """The folder from which a Python file is imported: above all packages that it lies in."""
    folder = file.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def own_file(module: str) -> Path | None:
    """The file of a module, or of a path that ends in ``.py``, in the :func:`own_folders`."""
    others: list[Path] = []
    if module.endswith(".py"):
        tails = [Path(module)]
        others = [file for file in _files if file.name == tails[0].name]
    else:
        inside = Path(*module.split("."))
        tails = [inside.with_name(f"{inside.name}.py"), inside / "__init__.py"]
    paths = [folder / tail for folder in own_folders() for tail in tails]
    return next((path for path in [*paths, *others] if path.is_file()), None)


def import_named(setting: str, name: str, module: str) -> bool:
    """Import the module of what a setting names: an own one if there is one, otherwise as Python does.

    Args:
        setting: The setting, for messages.
        name: What it names, for messages.
        module: The module.

    Returns:
        Whether there is such a module.

    Raises:
        ValueError: If it fails while it is imported, or another own module has its name.
    """
    try:
        _import(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise cannot_import(setting, name, error) from error
        return False
    except (Exception, SystemExit) as error:
        raise cannot_import(setting, name, error) from error
    return True


def _import(module: str) -> None:
    search_own_modules(())
    top = module.partition(".")[0]
    file = own_file(top)
    if file is not None and top not in sys.stdlib_module_names:
        loaded = sys.modules.get(top)
        if loaded is None:
            run_module(PathFinder.find_spec(top, [str(module_root(file))]))
        elif (other := getattr(loaded, "__file__", None)) is not None and not same_file(Path(other), file):
            raise ValueError(f"{other} has its name and is imported already: rename {file}")
    importlib.import_module(module)


def run_module(spec: ModuleSpec | None) -> None:
    """Make a module, run it, and keep it among the imported ones unless it fails."""
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise


def same_file(one: Path, other: Path) -> bool:
    """Whether two files are one, or hold the same."""
    try:
        return one.samefile(other) or one.read_bytes() == other.read_bytes()
    except OSError:
        return False


def imported_own_file(module: str) -> Path | None:
    """The file of an imported module that is neither Python's, nor installed, nor this program's."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or module.partition(".")[0] in (__name__.partition(".")[0], "__main__"):
        return None
    path = Path(file).resolve()
    is_installed = any(part in _INSTALLED for part in path.parts)
    is_pythons = path.is_relative_to(Path(sysconfig.get_path("stdlib")).resolve())
    return None if is_installed or is_pythons else path


def cannot_import(setting: str, name: str, error: BaseException) -> ValueError:
    """The error, in one line, of a module that fails while it is imported."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ValueError(f"`{setting}` names {name!r}, which cannot be imported: {reason}")
