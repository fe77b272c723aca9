"""`nas-lightning study`: plan, run, follow and report a comparison of architectures.

It starts quickly: a study is read without torch, but for settings that are resolved for the first time.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from nas_lightning.cli.argument_parser import ArgumentParser, add_command, integer
from nas_lightning.cli.closing import say_end
from nas_lightning.cli.running import add_run_arguments, add_share_arguments, local_sharing_of, run_with
from nas_lightning.files import check_writable

if TYPE_CHECKING:
    from nas_lightning.study.state import RunState
    from nas_lightning.study.study import Imported, Study


_SOURCES = ("random-darts", "nds", "table")


def main(arguments: Sequence[str]) -> None:
    """Run ``nas-lightning study``; a leading ``study`` is skipped. ``study run`` exits with its own code."""
    options = argument_parser().parse(arguments)
    options.run(options)


def argument_parser() -> ArgumentParser:
    """The options of ``nas-lightning study``."""
    parser = ArgumentParser(
        prog="nas-lightning study",
        description="Compare architectures: every training of a study file, and the paper's report on them.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = _command(commands, "plan", _plan, "list the runs and what they cost")
    add_share_arguments(command)
    # Earlier versions measured the machine; times now come from the runs so far.
    command.add_argument("--no_measure", action="store_true", help=argparse.SUPPRESS)

    command = _command(
        commands, "power", _power, "what effects the study can detect, by simulation, before it runs"
    )
    command.add_argument(
        "--noise",
        type=_deviation,
        metavar="POINTS",
        help="standard deviation of accuracy between seeds (of the results so far, or as published)",
    )
    command.add_argument(
        "--spread",
        type=_deviation,
        metavar="POINTS",
        help="standard deviation of accuracy between architectures (likewise)",
    )
    command.add_argument(
        "--studies", type=integer(100, 100_000), help="simulated studies for each size of an effect (1000)"
    )
    command.add_argument("--json", action="store_true", help="print JSON")

    command = _command(commands, "run", _run, "start or continue all runs that are not finished")
    add_run_arguments(command)

    command = _command(
        commands, "commands", _commands, "one shell line a run, for SLURM arrays or GNU parallel"
    )
    command.add_argument(
        "--between_seeds", action="store_true", help="what is measured between finished runs instead"
    )

    command = _command(commands, "status", _status, "how far the runs are, from what is on disk")
    command.add_argument("--json", action="store_true", help="print JSON")

    command = _command(
        commands, "report", _report, "the paper's tables and figures, and its claims, as an HTML page"
    )
    command.add_argument(
        "--page",
        metavar="FILE.html",
        type=_page_file,
        help="write the page alone, as one file to hand on (a folder of the page and its figures and tables)",
    )

    command = add_command(
        commands, "import", _import, "make a study of published results, for `study report`"
    )
    command.add_argument("source", metavar="SOURCE", choices=_SOURCES, help=", ".join(_SOURCES))
    command.add_argument("files", metavar="FILE", nargs="+", help="the source's files, see docs/import.md")
    command.add_argument(
        "-o", "--output", metavar="STUDY", required=True, help="the study, such as mine.yaml"
    )
    for name, description in (
        ("title", "one line about the study"),
        ("citation", "who made the results"),
        ("url", "where the results are"),
        ("licence", "under which licence they are"),
    ):
        command.add_argument(f"--{name}", metavar="TEXT", help=description)
    return parser


def _command(commands: Any, name: str, run: Any, description: str) -> argparse.ArgumentParser:
    command = add_command(commands, name, run, description)
    command.add_argument("file", metavar="FILE", help="the study, such as configs/studies/quickstart.yaml")
    command.add_argument(
        "--root",
        metavar="FOLDER",
        help="folder of all logs (trainer.default_root_dir of the study, or tb_logs)",
    )
    return command


def _study(options: argparse.Namespace) -> Study:
    from nas_lightning.study.read import read_study

    return read_study(options.file, options.root)


def _study_of_runs(options: argparse.Namespace) -> Study:
    """A study that has runs to start."""
    study = _study(options)
    if study.imported is not None:
        raise ValueError(
            f"{options.file} holds imported results: there is nothing to run; use `study report`"
        )
    architectures = {run.architecture.label: run.architecture for run in study.runs}
    for label, architecture in architectures.items():
        for note in architecture.notes:
            print(f"note: {label}: {note}", file=sys.stderr)
    return study


def _plan(options: argparse.Namespace) -> None:
    from nas_lightning.study.estimate import run_seconds
    from nas_lightning.study.plan import format_plan
    from nas_lightning.study.state import run_state

    study = _study_of_runs(options)
    sharing = local_sharing_of(options, study)
    states = [run_state(run) for run in study.runs]
    print(format_plan(study, run_seconds(states), max(1, sharing.at_a_time), sharing.gpus))
    if study.between_seeds:
        print(between_text(study))
    if len({run.architecture.genotype for run in study.runs}) > 1:
        from nas_lightning.report.study_power import plan_line
        from nas_lightning.study.planned import planned_runs

        print(plan_line(planned_runs(states)))


def _power(options: argparse.Namespace) -> None:
    from nas_lightning.report.power import Effort
    from nas_lightning.report.study_power import format_power, power_record, study_noise, study_power
    from nas_lightning.study.planned import planned_runs
    from nas_lightning.study.results import collect_results
    from nas_lightning.study.state import run_state

    study = _study(options)
    if study.imported is None:
        planned = planned_runs([run_state(run) for run in study.runs])
    else:
        planned = collect_results(study).runs
    noise = study_noise(planned, options.noise, options.spread)
    power = study_power(planned, noise, effort=Effort(options.studies or Effort.studies))
    if options.json:
        print(json.dumps(power_record(study.name, power), indent=2))
    else:
        print(format_power(study.name, power))


def _commands(options: argparse.Namespace) -> None:
    from nas_lightning.study.jobs import run_command

    study = _study_of_runs(options)
    lines = [run_command(run) for run in study.runs]
    if options.between_seeds:
        from nas_lightning.study.between import between_seeds

        lines = [one.command for one in between_seeds(study)]
    for line in lines:
        # In a SLURM job of several tasks a run would take itself for one of several ranks.
        print(shlex.join(["env", "-u", "SLURM_NTASKS", *line]))


def _run(options: argparse.Namespace) -> None:
    study = _study_of_runs(options)
    code = run_with(options, study)
    if code:
        sys.exit(code)
    finished = f"{len(study.runs)} of {len(study.runs)} runs finished"
    say_end(finished, study.folder, [["study", "report", options.file]])


def _status(options: argparse.Namespace) -> None:
    from nas_lightning.study.state import run_state

    study = _study(options)
    if study.imported is not None:
        _import_status(study, study.imported, as_json=options.json)
        return
    states = [run_state(run) for run in study.runs]
    print(json.dumps(_record(study, states), indent=2) if options.json else status_text(study, states))


def status_text(study: Study, states: Sequence[RunState]) -> str:
    """How far the runs of a study are, as a table."""
    from nas_lightning.study.attempts import LOG
    from nas_lightning.study.estimate import time_left
    from nas_lightning.study.plan import in_words
    from nas_lightning.study.state import Status

    counts = Counter(state.status for state in states)
    shown = ", ".join(f"{counts[status]} {status}" for status in Status if counts[status])
    lines = [f"{study.name}: {len(states)} runs in {study.folder}: {shown or 'none'}"]
    if (left := time_left(states)) is not None:
        lines.append(f"about {in_words(left.seconds)} left at the rate so far, {left.at_a_time} at a time")
    if study.between_seeds:
        lines.append(between_text(study))
    lines.append("")
    rows = [("run", "state", "epoch", "accuracy")]
    for state in states:
        accuracy = "" if state.accuracy is None else f"{state.accuracy:.4f}"
        rows.append((state.run.name, state.status, f"{state.epoch}/{state.run.epochs}", accuracy))
    lines.append(
        tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=("left", "left", "right", "right"))
    )
    notes = []
    for state in states:
        if state.status is Status.FAILED:
            reason = state.attempts[-1].reason or "failed"
            notes.append(f"{state.run.name}: {reason}; see {state.run.folder / LOG}")
        elif state.ended is not None:
            notes.append(f"{state.run.name}: {state.ended}")
        elif state.status is Status.UNFINISHED:
            notes += [f"{state.run.name}: {problem}" for problem in state.problems]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def between_text(study: Study) -> str:
    """How much of what a study measures between its seeds is measured."""
    from nas_lightning.study.between import between_seeds

    found = between_seeds(study)
    counts = [
        f"{sum(one.file is not None for one in those)} of {len(those)} by {measure}"
        for measure in study.between_seeds
        if (those := [one for one in found if one.measure == measure])
    ]
    return f"between seeds, after the runs: {', '.join(counts) or 'nothing, each has one seed'}"


def _record(study: Study, states: Sequence[RunState]) -> dict[str, Any]:
    from nas_lightning.study.estimate import time_left

    left = time_left(states)
    return {
        "study": study.name,
        "folder": str(study.folder),
        "seconds_left": None if left is None else left.seconds,
        "at_a_time": None if left is None else left.at_a_time,
        "runs": [
            {
                "run": state.run.name,
                "folder": str(state.run.folder),
                "state": str(state.status),
                "epoch": state.epoch,
                "epochs": state.run.epochs,
                "accuracy": state.accuracy,
                "attempts": len(state.attempts),
                "problems": list(state.problems),
                "ended": state.ended,
            }
            for state in states
        ],
    }


def _import_status(study: Study, imported: Imported, *, as_json: bool) -> None:
    """Print what a study imported."""
    from nas_lightning.study.results import collect_results

    count = len(collect_results(study).runs)
    if as_json:
        record = {"source": imported.source, "date": imported.date, "left_out": imported.left_out}
        print(json.dumps({"study": study.name, "imported": record, "runs": count}, indent=2))
        return
    print(
        f"{study.name}: {count} runs imported from {imported.source} on {imported.date},"
        f" {imported.left_out} left out; nothing to run"
    )
    print(*imported.problems, sep="\n", end="\n" if imported.problems else "")


def _import(options: argparse.Namespace) -> None:
    from pathlib import Path

    from nas_lightning.report.words import counted
    from nas_lightning.study.import_files import import_study

    told = {name: getattr(options, name) for name in ("title", "citation", "url", "licence")}
    files = [Path(file) for file in options.files]
    batch = import_study(options.source, files, Path(options.output), told)
    for problem in batch.problems:
        print(problem, file=sys.stderr)
    cells = len({run.architecture.genotype for run in batch.runs})
    found, of = counted(len(batch.runs), "run"), counted(cells, "cell")
    print(f"{options.output}: {found} of {of}, {batch.left_out} left out")


def _report(options: argparse.Namespace) -> None:
    from nas_lightning.report.page import write_page, write_report
    from nas_lightning.study.results import collect_results, write_results

    if options.page is not None:
        check_writable(options.page.parent)
    results = collect_results(_study(options))
    for line in (*results.problems, *results.notes):
        print(line, file=sys.stderr)
    write_results(results)
    finished, planned = len(results.runs), len(results.study.runs)
    shown = f"{finished} finished runs of {planned}" if results.study.imported is None else f"{finished} runs"
    print(f"drawing the figures of {shown} ...", file=sys.stderr)
    if options.page is None:
        print(write_report(results, results.study.output_folder))
    else:
        write_page(results, options.page)
        print(options.page)


def _page_file(text: str) -> Path:
    if Path(text).suffix.lower() not in (".html", ".htm"):
        raise argparse.ArgumentTypeError(f"{text!r} must end in .html")
    return Path(text)


def _deviation(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of points") from None
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} must be a standard deviation above 0 points")
    return value
