"""The check of a GPU, as on a machine with one: its tests and benchmarks are made up, its shell is real."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_check, landscape, processes, residence, scaling, table, training
from benchmarks.gpu_check import Part, run_part

ROOT = Path(gpu_check.__file__).parents[1]
GPU = {"gpu": "Made-up GPU", "driver": "580.1", "cuda": "13.0"}

PROJECT = """
[project]
name = "nas-lightning"
version = "0.1.0"
dependencies = ["numpy>=2.0"]
[tool.pytest.ini_options]
markers = ["gpu: needs a CUDA device"]
"""
RECORD = """
import json, os
from pathlib import Path
RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).parent / "results")
if __name__ == "__main__":
    print(json.dumps({machine}))
"""
BENCHMARK = """
import json, sys
from benchmarks.record import RESULTS
kept = json.loads({kept!r}) | {{"machine": json.loads({machine!r}), "options": sys.argv[1:]}}
(RESULTS / "{name}-gpu.json").write_text(json.dumps(kept))
print("{name} is measured")
"""
TESTS = """
import pytest
@pytest.mark.gpu
@pytest.mark.parametrize("number", range(3))
def test_made_up(number: int) -> None:
    {statement}
"""
EVERYDAY = """
def test_that_needs_no_gpu() -> None:
    raise AssertionError("this file is left alone")
"""


class Tree:
    """A working tree with the real check, and benchmarks that keep numbers without measuring them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self.results = self.root / "benchmarks" / "results"
        on_gpus = shutil.ignore_patterns("*-gpu.json", "gpu_check.*")
        shutil.copytree(ROOT / "benchmarks" / "results", self.results, ignore=on_gpus)
        for name in ("__init__.py", "gpu_check.sh", "gpu_check.py", "table.py"):
            shutil.copy(ROOT / "benchmarks" / name, self.root / "benchmarks")
        machine = {**GPU, "versions": {"torch": "2.11.0"}}
        self.write("benchmarks/record.py", RECORD.format(machine=machine))
        for part in gpu_check.PARTS[1:]:
            path = self.results / f"{part.name}.json"
            kept = path.read_text() if path.exists() else "{}"
            names = {"name": part.name, "kept": kept, "machine": json.dumps(machine)}
            self.write(f"benchmarks/{part.name}.py", BENCHMARK.format(**names))
        self.write("pyproject.toml", PROJECT)
        self.write("tests/test_made_up.py", TESTS.format(statement="assert number < 3"))
        self.write("tests/test_everyday.py", EVERYDAY)
        self.page = self.root / "docs" / "performance.md"
        self.write("docs/performance.md", table.PAGE.read_text(encoding="utf-8"))
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.program("nvidia-smi", 'echo "GPU 0: Made-up GPU (UUID: GPU-0)"')

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text, encoding="utf-8")

    def program(self, name: str, script: str) -> None:
        (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.programs / name).chmod(0o755)

    def check(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the check with this Python and nothing else but the system's programs."""
        environment = {name: value for name, value in os.environ.items() if name != "OUT"}
        environment |= {"PATH": f"{self.programs}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
        command = ["bash", self.root / "benchmarks" / "gpu_check.sh", "--python", sys.executable, *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    def record(self, folder: Path | None = None) -> dict[str, Any]:
        kept: dict[str, Any] = json.loads(((folder or self.results) / "gpu_check.json").read_text())
        return kept


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def states(record: dict[str, Any]) -> dict[str, str]:
    return {part["name"]: part["state"] for part in record["parts"]}


def test_all_is_run_and_kept_and_fills_the_page(tree: Tree) -> None:
    assert "| one GPU: asked | not measured: no GPU at hand |" in table.measured_table(tree.results)
    done = tree.check()
    assert done.returncode == 0, done.stderr
    kept = tree.record()
    assert {name: kept["machine"][name] for name in GPU} == GPU
    assert states(kept) == dict.fromkeys([part.name for part in gpu_check.PARTS], "passed")
    assert (kept["status"], kept["limit"] > 400, kept["seconds"] < 120) == (0, True, True)
    tests, landscape, *_ = kept["parts"]
    assert tests["tests"] == {"passed": 3, "failed": 0, "skipped": 0}
    assert (landscape["record"], landscape["exit_code"]) == ("landscape-gpu.json", 0)
    measured = json.loads((tree.results / "landscape-gpu.json").read_text())
    assert measured["options"] == ["--levels=reference,fast", "--images=1000", "--rounds=2"]
    assert "training is measured" in (tree.results / "gpu_check.log").read_text()
    page = tree.page.read_text(encoding="utf-8")
    assert "| one GPU: asked | measured: Made-up GPU, CUDA 13.0, PyTorch 2.11.0 |" in page
    ratio = table.value_of(tree.results / "training.json", table.MEASURES[0][-1])
    assert f"| at least 2.5 | {ratio} |" in page
    for line in (
        "Made-up GPU, driver 580.1, CUDA 13.0, PyTorch 2.11.0",
        "3 passed, 0 failed, 0 skipped",
        ratio,
    ):
        assert line in done.stdout


def test_elsewhere_the_records_are_kept_and_the_page_stays(tree: Tree, tmp_path: Path) -> None:
    before = tree.page.read_bytes()
    tree.write("tests/test_made_up.py", TESTS.format(statement="assert number < 2"))
    tree.write("benchmarks/landscape.py", "raise SystemExit('out of memory')")
    tree.write("benchmarks/processes.py", "print('nothing is written')")
    done = tree.check(tmp_path / "out")
    assert done.returncode == 1  # of the tests, whatever became of the benchmarks
    kept = tree.record(tmp_path / "out")
    expected = {"tests": "failed", "landscape": "failed", "processes": "failed"}
    assert states(kept) == dict.fromkeys(states(kept), "passed") | expected
    assert kept["parts"][0]["tests"] == {"passed": 2, "failed": 1, "skipped": 0}
    assert kept["parts"][1]["line"] == "out of memory"
    assert not list(tree.results.glob("*-gpu.json"))
    assert tree.page.read_bytes() == before
    assert "landscape   failed" in done.stdout
    assert "python -m benchmarks.table" in done.stdout


def test_tests_that_are_all_skipped_have_not_passed(tree: Tree, tmp_path: Path) -> None:
    tree.write("tests/test_made_up.py", TESTS.format(statement="pytest.skip('no CUDA device')"))
    assert tree.check("--seconds", "89", tmp_path / "out").returncode == 1
    kept = tree.record(tmp_path / "out")
    assert kept["parts"][0]["tests"] == {"passed": 0, "failed": 0, "skipped": 3}
    expected = {"tests": "failed", "landscape": "skipped", "training": "passed", "rewrites": "passed"}
    assert states(kept).items() >= expected.items()
    assert kept["parts"][1]["line"].endswith("s are left, it takes 90 s or more")


def test_without_a_gpu_a_line_says_so(tree: Tree, tmp_path: Path) -> None:
    tree.write(
        "benchmarks/record.py",
        RECORD.format(machine={"gpu": None, "cuda": None, "versions": {"torch": "2.11.0"}}),
    )
    done = tree.check(tmp_path / "out")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "gpu_check: no GPU: PyTorch 2.11.0 (CUDA None) sees none\n"
    tree.program("nvidia-smi", "echo 'No devices were found'; exit 6")
    done = tree.check(tmp_path / "out")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "gpu_check: no GPU: nvidia-smi lists none. Nothing was measured\n"
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_packages_that_are_missing_come_from_wheels(tree: Tree, tmp_path: Path) -> None:
    tree.write("pyproject.toml", PROJECT.replace('"numpy>=2.0"', '"numpy>=2.0", "made-up-package>=2"'))
    done = tree.check("--seconds", "1", tmp_path / "out")
    assert done.returncode == 4
    last = done.stderr.splitlines()[-1]
    assert (
        last
        == "gpu_check: no environment: Python lacks made-up-package; wheels of them can be carried (--help)"
    )
    wheels = tree.root / "benchmarks" / "wheels"  # found without being named
    for number in ("1.0", "2.0"):
        make_wheel(wheels, number)
        done = tree.check("--seconds", "1", tmp_path / "out")
        if number == "1.0":
            assert done.returncode == 4
            assert done.stderr.splitlines()[-1].endswith(
                f"made-up-package; {wheels} has no such wheels (--help)"
            )
    assert done.returncode == 0, done.stderr
    assert states(tree.record(tmp_path / "out")) == dict.fromkeys(
        [part.name for part in gpu_check.PARTS], "skipped"
    )


def make_wheel(folder: Path, number: str) -> None:
    folder.mkdir(exist_ok=True)
    name = f"made_up_package-{number}"
    metadata = f"Metadata-Version: 2.1\nName: made-up-package\nVersion: {number}\n"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.dist-info/METADATA", metadata)
        wheel.writestr(
            f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{name}.dist-info/RECORD", "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--seconds", "0"], "--seconds (=0) must be a whole number of at least 1"),
        (["--wheels", "nowhere"], "--wheels (=nowhere) is no folder"),
        (["--wheels"], "--wheels needs a value"),
        (["--fast"], "there is no option --fast; --help lists them"),
    ],
)
def test_wrong_usage_is_a_line(tree: Tree, arguments: list[str], complaint: str) -> None:
    done = tree.check(*arguments)
    assert (done.returncode, done.stderr) == (2, f"gpu_check: {complaint}\n")


def test_help_says_how_runs_share_a_gpu(tree: Tree) -> None:
    done = tree.check("--help")
    assert done.returncode == 0
    assert "nas-lightning study run FILE --gpus_per_run 0.25" in done.stdout


def test_a_part_ends_with_its_time_and_its_children_too(tmp_path: Path) -> None:
    child = f"import time, pathlib; time.sleep(2); pathlib.Path({str(tmp_path / 'alive')!r}).touch()"
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit('asked to end'))\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); print('begun', flush=True); time.sleep(60)"
    )
    part = Part("endless", ("-c", code), least=0.1, most=1.0)
    start = time.monotonic()
    found = run_part(part, 100, tmp_path, tmp_path / "log")
    assert (found["state"], found["exit_code"], found["line"]) == ("out of time", None, "asked to end")
    assert 0.9 < found["seconds"] < 5
    assert gpu_check.status([found]) == gpu_check.BENCHMARK_FAILED
    time.sleep(max(0.0, start + 2.3 - time.monotonic()))
    assert not (tmp_path / "alive").exists()


def test_an_old_record_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "old-gpu.json").write_text("{}")
    found = run_part(Part("old", ("-c", "print('no record')"), 0.1, 60), 100, tmp_path, tmp_path / "log")
    assert (found["state"], found.get("record")) == ("failed", None)


@pytest.mark.parametrize("benchmark", [training, landscape, residence, processes, scaling])
def test_the_real_benchmarks_have_these_options(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (part,) = [part for part in gpu_check.PARTS if part.arguments[1] == benchmark.__name__]
    with pytest.raises(SystemExit, match="2"):
        benchmark.main([*part.arguments[2:], "--rounds=0"])
    assert "--rounds (=0) must be at least" in capsys.readouterr().err  # the first complaint


def test_every_test_that_needs_a_gpu_is_found() -> None:
    found = {Path(name).relative_to(ROOT / "tests").as_posix() for name in gpu_check.test_files()}
    assert {"datamodules/test_base.py", "analysis/test_gradient_variance.py"} <= found
