"""Runs on a GPU what needs one, within a time limit; ``gpu_check.sh`` makes the environment for it.

The parts come in order of weight: the tests, then the benchmarks that fill docs/performance.md, at the
sizes of that page but with fewer rounds, and without the levels that compile: compiling the paper's network
takes minutes, for which there is ``make benchmark``. A part has its own limit, and the last ones get what is
left.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
TEST_PACKAGES = ("pytest", "pytest-timeout", "hypothesis", "beartype")
PASSED, TEST_FAILED, NO_GPU, BENCHMARK_FAILED = 0, 1, 3, 5
"""Exit statuses; those of gpu_check.sh."""
GRACE_SECONDS = 5.0
"""How long a part may take to end after SIGTERM."""


@dataclass(frozen=True)
class Part:
    """A command of Python, and the seconds that it gets.

    Attributes:
        name: Its name; a benchmark's record is ``NAME-gpu.json``.
        arguments: What Python is called with.
        least: It is skipped where less time is left.
        most: It is ended after this time.
    """

    name: str
    arguments: tuple[str, ...]
    least: float
    most: float

    def environment(self) -> dict[str, str]:
        """What it adds to the environment: tests compute with one thread, as ``make test`` lets them."""
        return {"OMP_NUM_THREADS": "1"} if self.name == "tests" else {}


def _benchmark(name: str, options: str, least: float, most: float) -> Part:
    return Part(name, ("-m", f"benchmarks.{name}", *options.split()), least, most)


PARTS = (
    Part("tests", ("-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider"), least=20, most=180),
    _benchmark("landscape", "--levels=reference,fast --images=1000 --rounds=2", least=90, most=240),
    _benchmark("training", "--levels=fast --rounds=5", least=30, most=120),
    _benchmark("processes", "--processes=1,2,4 --seconds=5 --rounds=1", least=45, most=90),
    _benchmark("rewrites", "--rounds=9", least=15, most=40),
    _benchmark("residence", "--rounds=5", least=20, most=60),
    _benchmark("scaling", "--levels=reference,fast --processes=1 --rounds=3", least=30, most=60),
)


def project() -> dict[str, Any]:
    """What pyproject.toml says of the project; nothing but the standard library is needed so far."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def requirements() -> list[str]:
    """What the tests and benchmarks need, with versions, as pip takes it."""
    return [*project()["dependencies"], *TEST_PACKAGES]


def lacking() -> list[str]:
    """Packages of these, and the project itself, that this Python does not have in any version."""
    names = [re.split(r"[^\w.-]", wanted)[0] for wanted in requirements()]
    return [name for name in (project()["name"], *names) if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def test_files() -> list[str]:
    """Files with tests that need a GPU: collecting all others takes long, and packages of their own."""
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path) for path in paths if "mark.gpu" in path.read_text(encoding="utf-8")]


def run_part(part: Part, seconds: float, results: Path, log: Path) -> dict[str, Any]:
    """Run a part, with its output in the log, and end it and its children when its time is over.

    Returns:
        ``state`` ("passed", "failed", "out of time" or "skipped"), ``seconds``, ``exit_code``, the last
        ``line`` of its output, and the name of its ``record`` or the numbers of its ``tests``.
    """
    given = {"name": part.name, "command": " ".join(("python", *part.arguments))}
    if seconds < part.least:
        line = f"{max(0.0, seconds):.0f} s are left, it takes {part.least:.0f} s or more"
        return {**given, "state": "skipped", "seconds": 0.0, "exit_code": None, "line": line}
    limit = min(seconds, part.most)
    junit = results / "gpu_tests.xml"
    arguments = [*part.arguments, *([f"--junitxml={junit}", *test_files()] if part.name == "tests" else [])]
    record = results / f"{part.name}-gpu.json"
    before = record.stat().st_mtime_ns if record.exists() else 0
    print(f"\n== {part.name}, at most {limit:.0f} s: {given['command']}", flush=True)
    begun = time.monotonic()
    with log.open("a+b") as file:
        start = file.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | {"BENCHMARK_RESULTS": str(results)} | part.environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code = _wait(process, limit)
        file.seek(start)
        output = file.read().decode(errors="replace")
    print(output, end="", flush=True)
    state = "out of time" if code is None else "failed" if code else "passed"
    found: dict[str, Any] = {}
    if part.name == "tests":
        found["tests"] = tests = _count(junit)
        if state == "passed" and tests["passed"] == 0:  # all were skipped
            state = "failed"
    elif record.exists() and record.stat().st_mtime_ns > before:
        found["record"] = record.name
    elif state == "passed":
        state = "failed"
    lines = [line for line in output.splitlines() if line.strip()]
    ended = {"state": state, "seconds": round(time.monotonic() - begun, 1), "exit_code": code}
    return {**given, **ended, "line": lines[-1].strip() if lines else "", **found}


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code; None after the time was up and the process and its children were ended."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        for number, grace in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
            try:
                os.killpg(process.pid, number)
                process.wait(grace)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue


def _count(junit: Path) -> dict[str, int]:
    """Tests by how they ended; none if pytest wrote nothing."""
    try:
        suites = list(ElementTree.parse(junit).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return {"passed": 0, "failed": 0, "skipped": 0}
    tests, failed, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites for key in keys)
        for keys in (("tests",), ("failures", "errors"), ("skipped",))
    )
    junit.unlink()
    return {"passed": tests - failed - skipped, "failed": failed, "skipped": skipped}


def status(parts: Sequence[Mapping[str, Any]]) -> int:
    """The exit status: of the tests where they did not pass, else of the benchmarks that did not."""
    bad = [part["name"] for part in parts if part["state"] in ("failed", "out of time")]
    return TEST_FAILED if "tests" in bad else BENCHMARK_FAILED if bad else PASSED


def summary(record: Mapping[str, Any], results: Path) -> str:
    """What ran and how it ended, and the measures of docs/performance.md beside what is asked."""
    from benchmarks.table import MEASURES, value_of

    machine = record["machine"]
    lines = [
        f"{machine['gpu']}, driver {machine['driver']}, CUDA {machine['cuda']},"
        f" PyTorch {machine['versions']['torch']}",
        f"{record['seconds']:.0f} s of {record['limit']:.0f} s",
        "",
    ]
    for part in record["parts"]:
        more = part["line"] if part["state"] != "passed" else part.get("record", "")
        if tests := part.get("tests"):
            more = ", ".join(f"{number} {how}" for how, number in tests.items())
        lines.append(f"{part['name']:<11} {part['state']:<12} {part['seconds']:>6.1f} s  {more}".rstrip())
    fresh = {part.get("record") for part in record["parts"]}
    measured = [
        f"{what:<52} {value_of(results / f'{name}-gpu.json', find):<24} {asked}".rstrip()
        for what, _, asked, name, find in MEASURES
        if f"{name}-gpu.json" in fresh
    ]
    return "\n".join([*lines, *(["", *measured] if measured else [])])


def describe_machine() -> dict[str, Any]:
    """The machine as PyTorch sees it, asked in a process of its own: this one leaves the GPU alone."""
    command = [sys.executable, "-m", "benchmarks.record"]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    machine: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return machine


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts, keep the record, print the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", default=ROOT / "benchmarks" / "results")
    parser.add_argument("--seconds", type=float, default=480.0, help="for all parts together")
    parser.add_argument("--lacking", action="store_true", help="name the packages that are missing, and end")
    parser.add_argument("--requirements", action="store_true", help="print what is needed, and end")
    parser.add_argument("--version", action="version", version=project()["version"])
    settings = parser.parse_args(arguments)
    if settings.requirements:
        print(*requirements(), sep="\n")
        return PASSED
    if settings.lacking:
        print(*(names := lacking()))
        return int(bool(names))
    begun, results = time.monotonic(), settings.results.resolve()
    machine = describe_machine()
    if machine["gpu"] is None:
        torch = machine["versions"]["torch"]
        print(f"gpu_check: no GPU: PyTorch {torch} (CUDA {machine['cuda']}) sees none", file=sys.stderr)
        return NO_GPU
    (log := results / "gpu_check.log").unlink(missing_ok=True)
    parts: list[dict[str, Any]] = []
    for part in PARTS:
        parts.append(run_part(part, settings.seconds - (time.monotonic() - begun), results, log))
    took = time.monotonic() - begun
    record = {"machine": machine, "limit": settings.seconds, "seconds": round(took, 1), "parts": parts}
    from nas_lightning.files import atomic_write

    with atomic_write(results / "gpu_check.json") as file:
        json.dump({**record, "status": status(parts)}, file, indent=2)
        file.write("\n")
    print(f"\n{summary(record, results)}\n\nwritten to {results / 'gpu_check.json'}")
    if results == ROOT / "benchmarks" / "results":
        subprocess.run([sys.executable, "-m", "benchmarks.table"], cwd=ROOT, check=True)
        print("docs/performance.md has the GPU's columns")
    else:
        print("docs/performance.md: copy *-gpu.json to benchmarks/results, then python -m benchmarks.table")
    return status(parts)


if __name__ == "__main__":
    sys.exit(main())
