from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas_lightning.cells import import_operations, operation_names
from nas_lightning.networks import build_operation

OPERATION = """
from torch import nn

from nas_lightning.networks import register_operation


def convolution(channels, stride, affine):
    return nn.Conv2d(channels, channels, 3, stride, padding=1)


register_operation("{name}", convolution)
"""


@pytest.fixture(autouse=True)
def _modules_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs in an empty folder; modules and search path afterwards are those before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in str(getattr(module, "__dict__", {}).get("__file__")):
            del sys.modules[name]


def refused(entry: str) -> str:
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as caught:
        import_operations([entry])
    return str(caught.value)


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def test_a_file_named_as_a_standard_module_is_the_file() -> None:
    write("ops/statistics.py", OPERATION.format(name="test_file_statistics"))
    before = list(sys.path)
    import_operations(["ops/statistics.py"])
    assert "test_file_statistics" in operation_names()
    assert build_operation("test_file_statistics", 4, 2).out_channels == 4
    assert sys.modules["statistics"] is statistics
    assert sys.path == before


def test_files_of_one_name_are_two() -> None:
    for folder in ("one", "two"):
        write(f"{folder}/mine.py", OPERATION.format(name=f"test_file_{folder}"))
    import_operations(["one/mine.py", "two/mine.py"])
    assert {"test_file_one", "test_file_two"} <= set(operation_names())
    assert "mine" not in sys.modules


def test_a_file_runs_once_whatever_its_path_is_called(tmp_path: Path) -> None:
    write("mine.py", "from pathlib import Path\nwith Path('log').open('a') as f: f.write('x')")
    Path("link").symlink_to(tmp_path)
    import_operations(["mine.py", "./mine.py", f"{tmp_path}/mine.py", "link/mine.py"])
    import_operations(["mine.py"])
    assert Path("log").read_text() == "x"


def test_a_file_that_was_imported_by_name_is_not_run_again() -> None:
    write("test_named_first.py", "from pathlib import Path\nwith Path('log').open('a') as f: f.write('x')")
    import_operations(["test_named_first", "test_named_first.py", "test_named_first"])
    assert Path("log").read_text() == "x"


def test_modules_of_the_current_folder_are_found() -> None:
    write("test_own_module.py", OPERATION.format(name="test_module_of_folder"))
    write("test_own_package/inner.py", OPERATION.format(name="test_module_of_package"))
    import_operations(["test_own_module", "test_own_package.inner"])
    assert {"test_module_of_folder", "test_module_of_package"} <= set(operation_names())
    assert sys.path.count(str(Path.cwd())) == 1


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    assert refused("absent.py") == f"`operations` names 'absent.py', which is no file ({tmp_path}/absent.py)"
    write("folder.py/inside", "")
    assert "'folder.py', which is no file" in refused("folder.py")
    write("test_package/__init__.py", "")
    for entry in ("no_such_module", "no_such_package.module", "test_package.absent"):
        assert refused(entry) == (
            f"`operations` names {entry!r}, which is neither an importable module nor a file"
        )


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("import no_such_dependency", "ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("from torch import no_such_name", "ImportError: cannot import name 'no_such_name'"),
        ("def f(:\n    pass", "SyntaxError: invalid syntax"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        (OPERATION.format(name="none"), "'none' belongs to a built-in operation"),
    ],
    ids=["dependency", "name", "syntax", "exception", "lines", "registration"],
)
def test_a_module_that_fails_is_named_with_the_cause(text: str, cause: str) -> None:
    write("test_failing.py", text)
    for entry in ("test_failing.py", "test_failing"):
        for _ in range(2):  # what failed is not taken for imported
            message = refused(entry)
            assert message.startswith(f"`operations` names {entry!r}, which cannot be imported: ")
            assert cause in message
    with pytest.raises(ValueError, match="cannot be imported") as caught:
        import_operations(["test_failing.py"])
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("by_path", [True, False])
def test_a_module_that_ends_the_program_is_refused(
    by_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ValueError, match=r"leaving.*cannot be imported: SystemExit"):
        import_operations(["leaving.py" if by_path else "leaving"])
