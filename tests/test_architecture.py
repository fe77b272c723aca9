"""The tree is as designed: which part may import which, and what a package's front is."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "nas_lightning"

# What each part may import besides itself. The leaves may be used by any part but `metrics` and the
# leaves themselves.
LEAVES = {
    "class_balance",
    "files",
    "identity",
    "image_record",
    "netcdf",
    "private_files",
    "provenance",
    "torch_files",
    "yaml_files",
}
ARROWS: dict[str, set[str]] = {
    "class_balance": set(),
    "files": set(),
    "identity": set(),
    "image_record": set(),
    "netcdf": {"files"},
    "optimization": set(),
    "private_files": set(),
    "provenance": set(),
    "torch_files": {"files"},
    "yaml_files": {"files"},
    "metrics": set(),
    "cells": set(),
    "networks": {"cells"},
    "acceleration": {"networks", "cells"},
    "datamodules": set(),
    "prediction": {"networks", "datamodules"},
    "classifier": {  # it brings its callbacks
        *("networks", "cells", "acceleration", "callbacks", "metrics", "optimization", "prediction"),
    },
    "curve_classifier": {"classifier", "analysis", "callbacks"},
    "analysis": set(),
    "figures": {"cells"},
    "callbacks": {"acceleration", "analysis", "figures", "cells"},
    "study": {"cells"},
    "report": {"study", "figures", "cells"},
    "audit": {"networks", "datamodules", "study", "report", "figures", "cells"},
    "cli": {
        "networks",
        "acceleration",
        "classifier",
        "curve_classifier",
        "datamodules",
        "analysis",
        "figures",
        "callbacks",
        "cells",
        "prediction",
        "study",
        "report",
        "audit",
    },
    "__main__": {"cli"},
    "__init__": set(),
}
PARSER = "nas_lightning.cli.resolve"
"""The one module of `cli` that `study` may import, where settings are resolved."""
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            # What is imported from a package may be a module of it.
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return names


def part(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("import matplotlib.pyplot as plt", "matplotlib.pyplot"),
        ("from matplotlib import pyplot", "matplotlib.pyplot"),
        ("from matplotlib import cm, pyplot as plt", "matplotlib.pyplot"),
        ("from matplotlib.pyplot import plot", "matplotlib.pyplot"),
        ("def f():\n    from nas_lightning import cli", "nas_lightning.cli"),
    ],
)
def test_every_way_to_import_is_seen(tmp_path: Path, line: str, name: str) -> None:
    (tmp_path / "module.py").write_text(line)
    assert name in imported_modules(tmp_path / "module.py")


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_only_along_the_arrows(module: Path) -> None:
    allowed = ARROWS[part(module)] | {part(module)}
    if part(module) not in LEAVES | {"metrics"}:
        allowed |= LEAVES
    imported = {
        name.split(".")[1]
        for name in imported_modules(PACKAGE / module)
        if name.startswith("nas_lightning.") and not (part(module) == "study" and name.startswith(PARSER))
    }
    assert imported <= allowed


def test_the_parser_that_studies_use_knows_no_study() -> None:
    found: set[str] = set()
    new = {PARSER}
    while new:
        found |= new
        parts = [name.split(".") for name in new if name.startswith("nas_lightning.cli.")]
        paths = [ROOT.joinpath(*names).with_suffix(".py") for names in parts]
        new = set().union(*(imported_modules(path) for path in paths if path.is_file())) - found
    assert "nas_lightning.cli.training" in found
    assert not {name for name in found if name.startswith(("nas_lightning.study", "nas_lightning.report"))}


def test_arrows_make_no_circle() -> None:
    seen: set[str] = set()
    remaining = dict(ARROWS)
    while remaining:
        free = {name for name, targets in remaining.items() if targets <= seen}
        assert free, f"a circle among {sorted(remaining)}"
        seen |= free
        remaining = {name: targets for name, targets in remaining.items() if name not in free}


@pytest.mark.parametrize("module", [m for m in MODULES if part(m) in {"cells", "study", "report"}], ids=str)
def test_cells_and_studies_do_without_torch(module: Path) -> None:
    assert not {
        name for name in imported_modules(PACKAGE / module) if name.split(".")[0] in {"torch", "lightning"}
    }


def test_what_compares_and_shows_an_audit_does_without_torch() -> None:
    with_torch = {
        module.stem
        for module in MODULES
        if part(module) == "audit"
        and any(name.split(".")[0] == "torch" for name in imported_modules(PACKAGE / module))
    }
    assert with_torch == {"initial", "stacked", "data", "run"}


@pytest.mark.parametrize("module", [m for m in MODULES if part(m) in {"callbacks", "figures"}], ids=str)
def test_figures_do_without_pyplot(module: Path) -> None:
    assert "matplotlib.pyplot" not in imported_modules(PACKAGE / module)


def test_files_that_are_no_modules_belong_to_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["nas_lightning"]
    for path in PACKAGE.rglob("*"):
        inside = path.relative_to(PACKAGE)
        if path.is_file() and path.suffix not in {".py", ".pyc"}:
            assert any(inside.match(pattern) for pattern in patterns), inside


@pytest.mark.parametrize("module", [m for m in MODULES if m.name == "__init__.py"], ids=str)
def test_a_package_front_only_re_exports(module: Path) -> None:
    for node in ast.parse((PACKAGE / module).read_text()).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        assert is_docstring or is_all or isinstance(node, ast.ImportFrom)
