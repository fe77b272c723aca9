"""`nas-lightning audit`: is this cell better than a random one?"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from nas_lightning.audit.controls import LEAST_CONTROLS
from nas_lightning.audit.settings import CONTROLS, IMAGES, INITIAL_CONTROLS, LEVELS, AuditSettings
from nas_lightning.audit.subjects import Subject, read_subjects
from nas_lightning.cells import import_operations
from nas_lightning.cells.variants import MAX_SEED
from nas_lightning.cli.argument_parser import ArgumentParser, integer, named_path
from nas_lightning.cli.closing import say_end
from nas_lightning.cli.running import (
    add_run_arguments,
    check_run_options,
    local_sharing_of,
    run_with,
)
from nas_lightning.files import atomic_write, check_writable
from nas_lightning.identity import as_list
from nas_lightning.yaml_files import parse_yaml

if TYPE_CHECKING:
    from nas_lightning.audit.plan import AuditPlan

GROUPS = ("model", "data", "trainer")
SIZES = ("model.init_channels", "model.num_cells", "model.num_classes", "model.stem_stride")
"""Settings that the sizes of all published cells depend on."""


def main(arguments: Sequence[str]) -> None:
    """Run ``nas-lightning audit``; a leading ``audit`` is skipped."""
    words, settings = split_settings(list(arguments))
    options = argument_parser().parse(words, intermixed=True)
    _check(options, settings)
    import_operations(as_list(settings.get("model.operations")))
    if options.all:
        _audit_all(options, audit_settings(options, settings))
        return
    subjects = read_subjects(options.specs)
    for subject in subjects:
        for note in subject.notes:
            print(f"note: {subject.name}: {note}", file=sys.stderr)
    if options.output is not None:
        check_writable(options.output)
    words = list(arguments)
    command = shlex.join(["nas-lightning", "audit", *(words[1:] if words[:1] == ["audit"] else words)])
    _audit(options, subjects, audit_settings(options, settings), command)


def argument_parser() -> ArgumentParser:
    """The options of ``nas-lightning audit``."""
    parser = ArgumentParser(
        prog="nas-lightning audit",
        usage="nas-lightning audit SPEC... [--level 0|1|2] [--data NAME] -o FOLDER",
        description="Compare cells with random ones that have the same operations and size. Level 0 ranks "
        "wiring, size and initial weights; level 1 trains the cell and its controls for a short time; level "
        "2 as the paper does. The same command goes on where it was stopped.",
        epilog="Settings of `fit` may follow: --model.num_cells 8 --trainer.max_epochs 20 --data.root DATA.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "specs", metavar="SPEC", nargs="*", help="genotypes of one space, as of `nas-lightning cells show`"
    )
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", type=named_path, help="where page, JSON, badge and trainings go"
    )
    parser.add_argument(
        "--level", type=int, choices=LEVELS, default=0, help="0: no training; 1: a short one; 2: the paper's"
    )
    parser.add_argument("--all", action="store_true", help="level 0 of every published cell, as a table")
    parser.add_argument(
        "--compare", metavar="OTHER.json", type=named_path, help="set another audit's audit.json beside this"
    )
    parser.add_argument(
        "--plan", action="store_true", help="say what would be trained and what it can detect, and stop"
    )
    group = parser.add_argument_group("data and budget")
    group.add_argument(
        "--data", metavar="NAME", help="as of `fit` (Digits, which is in the package; CIFAR10 at level 2)"
    )
    group.add_argument(
        "--config",
        metavar="FILE",
        type=named_path,
        action="append",
        default=[],
        help="settings of data and training, as of `fit`; may be repeated",
    )
    add_run_arguments(group)
    group.add_argument("--seeds", type=integer(1, 1000), default=3, help="trainings of every cell (3)")
    group = parser.add_argument_group("random controls")
    group.add_argument(
        "--controls",
        type=integer(LEAST_CONTROLS, 10_000),
        default=CONTROLS,
        help=f"controls that are trained ({CONTROLS}: first of {CONTROLS + 1} is p = 0.05)",
    )
    group.add_argument(
        "--control_seed",
        type=integer(0, MAX_SEED),
        default=0,
        help="seed of their draw (0); the second SPEC has the next one, and so on",
    )
    group = parser.add_argument_group("initial weights")
    group.add_argument("--no_initial", action="store_true", help="leave them out")
    group.add_argument(
        "--initial_controls",
        type=integer(LEAST_CONTROLS, 100_000),
        default=INITIAL_CONTROLS,
        help=f"controls whose initial weights are measured ({INITIAL_CONTROLS})",
    )
    group.add_argument("--initial_seeds", type=integer(1, 1000), default=5, help="initial seeds (5)")
    group.add_argument("--images", type=integer(2, 4096), default=IMAGES, help=f"images ({IMAGES})")
    return parser


def split_settings(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The words of this command, and the settings of ``fit`` among them by their dotted keys.

    Examples:
        >>> split_settings(["darts_v2", "--model.num_cells", "8", "-o", "out", "--data.root=d"])
        (['darts_v2', '-o', 'out'], {'model.num_cells': 8, 'data.root': 'd'})
    """
    words: list[str] = []
    settings: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        group, dot, _ = word.removeprefix("--").partition(".")
        if not (word.startswith("--") and dot and group in GROUPS):
            words.append(word)
            continue
        key, has_value, text = word[2:].partition("=")
        if not has_value:
            if not rest:
                raise ValueError(f"--{key} needs a value")
            text = rest.pop(0)
        if key == "model.genotype":
            raise ValueError("--model.genotype: the audited cells are named without an option, as SPEC")
        settings[key] = parse_yaml(text, f"--{key}")
    return words, settings


def audit_settings(options: argparse.Namespace, settings: dict[str, Any]) -> AuditSettings:
    """The settings that the options give."""
    return AuditSettings(
        level=options.level,
        data=options.data,
        configs=tuple(options.config),
        settings=settings,
        controls=options.controls,
        seeds=tuple(range(options.seeds)),
        initial=not options.no_initial,
        initial_controls=options.initial_controls,
        initial_seeds=tuple(range(options.initial_seeds)),
        images=options.images,
        control_seed=options.control_seed,
    )


def _check(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Refuse options that contradict each other."""
    check_run_options(options)
    for key in settings:
        if key.partition(".")[0] == "trainer" and not options.level:
            raise ValueError(f"--{key} is for --level 1 and 2: level 0 trains nothing")
    if options.all:
        if options.specs:
            raise ValueError("--all audits every published cell: leave out SPEC, or --all")
        for name in ("level", "plan", "compare"):
            if getattr(options, name):
                raise ValueError(f"--{name} is for named cells: --all is level 0 of every published cell")
        if not options.no_initial and options.output is None:
            raise ValueError(
                "--all measures initial weights for an hour or more: give -o FOLDER, which it resumes, or "
                "--no_initial"
            )
        _check_sizes_of_all(options, settings)
        return
    if not options.specs:
        raise ValueError("no SPEC: name the cells to audit, such as `nas-lightning audit darts_v2 -o FOLDER`")
    if options.output is None and not options.plan:
        raise ValueError("no -o FOLDER: say where page, JSON and badge go")
    if options.plan and not options.level:
        raise ValueError("--plan is for --level 1 and 2: level 0 trains nothing")


def _check_sizes_of_all(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Refuse what the sizes of all published cells cannot be counted for, or do not depend on."""
    for key in SIZES:
        if type(settings.get(key, 1)) is not int:
            raise ValueError(f"`{key}` (={settings[key]}) must be of type int")
    if options.no_initial:
        ignored = [key for key in settings if key not in SIZES]
        ignored += [name for name in ("data", "config") if getattr(options, name)]
        if ignored:
            raise ValueError(
                f"--{ignored[0]} says nothing to --all --no_initial, which counts sizes: it takes "
                f"{', '.join(f'--{key}' for key in SIZES)}"
            )


def _audit(
    options: argparse.Namespace, subjects: Sequence[Subject], settings: AuditSettings, command: str
) -> None:
    other = None
    if options.compare is not None:
        from nas_lightning.audit.document import read_document

        other = (str(options.compare), read_document(options.compare))

    from nas_lightning.audit.plan import plan_audit
    from nas_lightning.audit.run import run_audit

    plan = plan_audit(subjects, settings)
    if options.plan:
        _print_plan(options, plan)
        return

    from nas_lightning.audit.document import DOCUMENT, write_document

    document, code = run_audit(
        plan, options.output, command, lambda study: run_with(options, study), say=_say, other=other
    )
    is_there = (options.output / DOCUMENT).is_file()
    if code and is_there and not any(cell["training"] for cell in document["cells"]):
        print("stopped before a cell could be compared: the page stays as it was", file=sys.stderr)
        sys.exit(code)
    page = write_document(options.output, document)
    for cell in document["cells"]:
        print(f"\n{cell['name']}")
        for sentence in cell["sentences"]:
            print(textwrap.fill(sentence, 100, initial_indent="  ", subsequent_indent="  "))
    badges = [cell["badge"] for cell in document["cells"]]
    say_end("; ".join(badges) if len(badges) == 1 else f"{len(badges)} cells audited", page, kind="page")
    if code:
        sys.exit(code)


def _print_plan(options: argparse.Namespace, plan: AuditPlan) -> None:
    """Print what would be trained, what it costs, and what it can detect."""
    from nas_lightning.audit.study import write_study
    from nas_lightning.study.estimate import run_seconds
    from nas_lightning.study.plan import format_plan
    from nas_lightning.study.read import read_study
    from nas_lightning.study.state import run_state

    assert plan.budget is not None
    for subject, controls in plan.audited:
        print(
            f"{subject.name}: {len(controls.genotypes)} of {controls.total:,} matched random controls, "
            f"{controls.smallest:,} to {controls.largest:,} live parameters"
        )
    with TemporaryDirectory() as folder:
        study = write_study(Path(folder), plan.audited, plan.budget)
        if options.output is not None:  # what is done there is counted, and nothing is written
            study = read_study(study.file, root=options.output / study.root.name)
        sharing = local_sharing_of(options, study)
        seconds = run_seconds([run_state(run) for run in study.runs])
        print(f"\n{format_plan(study, seconds, max(1, sharing.at_a_time), sharing.gpus)}\n")
    print(_detectable(plan))


def _detectable(plan: AuditPlan) -> str:
    """What the trainings can detect, with the published noise."""
    from nas_lightning.report.controls import CONTROLS as OFTEN
    from nas_lightning.report.controls import SEEDS, controls_table
    from nas_lightning.report.power import PUBLISHED
    from nas_lightning.report.words import counted

    seeds = len(plan.settings.seeds)
    count = min(len(controls.genotypes) for _, controls in plan.audited)
    table = controls_table(PUBLISHED, sorted({count, *OFTEN}), sorted({seeds, *SEEDS}))
    rows = [[k, *(_points(value) for value in of_seeds.values())] for k, of_seeds in table.items()]
    own = table[count][seeds]
    if math.isnan(own):
        said = f"With {count} controls no rank has p <= 0.05: at least 19 are needed."
    else:
        said = (
            f"With {counted(count, 'control')} and {counted(seeds, 'seed')}, a cell that lies {own:.2f} "
            f"points above its controls' mean ({own / PUBLISHED.architecture:.1f} of their standard "
            "deviations) reaches p <= 0.05 in 80 % of such audits. The noise is the one published for "
            f"CIFAR-10: standard deviations of {PUBLISHED.seed:g} points between seeds and "
            f"{PUBLISHED.architecture:g} between cells."
        )
    header = ["controls", *(counted(n, "seed") for n in next(iter(table.values())))]
    return f"{textwrap.fill(said, 100)}\n\n{tabulate(rows, header, tablefmt='plain', disable_numparse=True)}"


def _points(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.2f}"


def _audit_all(options: argparse.Namespace, settings: AuditSettings) -> None:
    """Print level 0 of every published cell, and keep it where a folder is given."""
    from nas_lightning.audit.published import audit_published, published_table, published_tables
    from nas_lightning.audit.structure import NetworkSettings

    if options.output is not None:
        check_writable(options.output)
    given = {key: value for key, value in settings.settings.items() if key in SIZES}
    network = NetworkSettings(**{key.removeprefix("model."): value for key, value in given.items()})
    rows = audit_published(network)
    initial: list[dict[str, Any]] = []
    if settings.initial:
        from nas_lightning.audit.run import audit_published_initial

        initial = audit_published_initial(settings, options.output, _say)
    if options.output is not None:
        record = {"network": asdict(network), "cells": [row.record() for row in rows], "initial": initial}
        with atomic_write(options.output / "published.json") as file:
            json.dump(record, file, indent=1)
        with atomic_write(options.output / "published.md") as file:
            file.write(f"{published_table(rows, markdown=True)}\n\n")
            file.write(f"{published_tables(rows, initial, markdown=True)}\n")
    print(published_table(rows))
    if options.output is not None:
        say_end(f"{len(rows)} published cells audited", options.output / "published.md", kind="table")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
