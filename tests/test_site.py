"""The site's own code: where links lead, what docstrings become; and the notebook, run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    for name in ("griffe", "mkdocs", "latex2mathml"):
        pytest.importorskip(name, reason="needs the extra `docs`")
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "docs" / "build_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("file", "page"),
    [
        ("docs/start.md", "start.md"),
        ("README.md", "index.md"),
        ("LICENSE", "licence.txt"),
        ("docs/cluster/slurm.sbatch", "cluster/slurm.sbatch"),
        ("configs/data/cifar10.yaml", "configurations.md#data-cifar10"),
        ("configs/learning_rate_0.25.yaml", "configurations.md#learning-rate-0-25"),
    ],
)
def test_links_lead_to_pages(site: ModuleType, file: str, page: str) -> None:
    assert (ROOT / file).exists()
    assert site.place(file) == page


def test_every_configuration_has_its_own_anchor(site: ModuleType) -> None:
    names = [str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml")]
    assert len({site.configuration_anchor(name) for name in names}) == len(names)
    assert all(f"`{name}`" in site.configurations() for name in names)


def test_docstrings_become_markdown(site: ModuleType) -> None:
    text = site.as_markdown(
        "See :func:`nas_lightning.cells.get_genotype` and ``x``.\n\n"
        "    .. math:: a = \\frac{b}{c}\n\n    with :math:`b`."
    )
    assert "See `get_genotype` and `x`." in text
    assert text.count("<math") == 2
    assert "<mfrac>" in text
    assert ".. math::" not in text


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    kept = [cell.get("outputs", []) for cell in notebook.cells]
    NotebookClient(
        notebook, timeout=280, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    made = [cell.get("outputs", []) for cell in notebook.cells]
    assert [[kind(output) for output in outputs] for outputs in made] == [
        [kind(output) for output in outputs] for outputs in kept
    ]
    assert sum("image/png" in output.get("data", {}) for outputs in made for output in outputs) == 3


def kind(output: nbformat.NotebookNode) -> str:
    """What sort of output it is."""
    return str(output["output_type"])
