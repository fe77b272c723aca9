"""One audit from its plan to its document, and the initial weights of all published cells."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from nas_lightning.audit.backdrop import published_backdrop
from nas_lightning.audit.compare import compare
from nas_lightning.audit.controls import Controls
from nas_lightning.audit.data import audit_data
from nas_lightning.audit.document import assemble, cell_record, read_document
from nas_lightning.audit.folder import claim_folder
from nas_lightning.audit.level_0 import audit_level_0, draw_controls, level_0_network
from nas_lightning.audit.plan import AuditPlan
from nas_lightning.audit.settings import AuditSettings
from nas_lightning.audit.study import Budget, write_study
from nas_lightning.audit.subjects import Subject
from nas_lightning.audit.training import training_comparison
from nas_lightning.cells import published_genotypes
from nas_lightning.provenance import processor_name, software_versions
from nas_lightning.report.page import write_page
from nas_lightning.study.results import Results, collect_results
from nas_lightning.study.study import Study

REPORT = "report.html"
"""The report of the study, beside it, with every cell's surfaces."""
REPORTED_FROM = 2
"""The level whose trainings are analysed at convergence."""

Say = Callable[[str], None]
"""Takes a line about the progress."""


def run_audit(
    plan: AuditPlan,
    folder: Path,
    command: str,
    train: Callable[[Study], int],
    say: Say,
    other: tuple[str, Mapping[str, Any]] | None = None,
) -> tuple[dict[str, Any], int]:
    """Measure and train what is not done yet.

    At level 2 the report of the study is written as well, ``level_2/report.html``.

    Args:
        plan: The plan.
        folder: The audit's folder.
        command: The command, for the page.
        train: Runs a study and returns its exit code.
        say: Takes lines about the progress.
        other: Another audit that is set beside this one: where it was read, and its document.

    Returns:
        The document, and the exit code of the trainings. If that is not 0, the document has what is finished.

    Raises:
        ValueError: If the folder holds another audit, or a higher level of this one.
        OSError: If it cannot be written, or the data cannot be read.
    """
    plan.data.require()
    _refuse_lower_level(folder, plan.settings.level)
    claim_folder(folder, plan.subjects, plan.settings, asdict(plan.network) | {"data": plan.data.settings})
    found = [
        _level_0(plan, subject, controls, folder, say)
        for subject, controls in zip(plan.subjects, plan.initial_controls, strict=True)
    ]
    backdrop = published_backdrop(plan.settings, plan.network, plan.data, folder)
    # Those of earlier calls, whose work is kept, count as well.
    seconds = {"level_0": sum(of_one["seconds"] for of_one in found)}
    trainings: list[Mapping[str, Any]] = [{}] * len(found)
    code = 0
    if plan.budget is not None:
        study = write_study(folder, plan.audited, plan.budget)
        code = train(study)
        results = collect_results(study)
        seconds[f"level_{plan.budget.level}"] = float(results.runs["training_seconds"].sum())
        trainings = _trainings(plan, plan.budget, results, say)
        if plan.budget.level >= REPORTED_FROM and len(results.runs):
            say("drawing the landscapes of all cells ...")
            write_page(results, study.root / REPORT)
    cells = [
        cell_record(
            subject.name,
            subject.spec,
            subject.genotype,
            notes=subject.notes,
            **{name: of_one[name] for name in ("verdict", "structure", "initial_controls", "initial")},
            **training,
        )
        for subject, of_one, training in zip(plan.subjects, found, trainings, strict=True)
    ]
    document = assemble(
        level=plan.settings.level,
        date=datetime.now(UTC).date().isoformat(),
        settings=_settings_record(plan),
        cells=cells,
        backdrop=backdrop,
        repeat=_repeat_record(plan, command, seconds),
    )
    if other is not None:
        document["compared_with"] = compare(document, other[1], other[0])
    return document, code


def _refuse_lower_level(folder: Path, level: int) -> None:
    """A page of a lower level would take the place of one with trainings."""
    try:
        kept = read_document(folder)
    except (ValueError, OSError):  # none yet, or damaged
        return
    if kept["level"] > level and any(cell["training"] for cell in kept["cells"]):
        raise ValueError(
            f"{folder} holds an audit of level {kept['level']}, whose page --level {level} would replace: "
            "give another folder"
        )


def _level_0(
    plan: AuditPlan, subject: Subject, controls: Controls | None, folder: Path, say: Say
) -> dict[str, Any]:
    if controls is not None:
        count = len(controls.genotypes)
        say(f"{subject.name}: initial weights of the cell and of {count} random controls ...")
    return audit_level_0(subject, controls, plan.settings, plan.network, plan.data, folder)


def _trainings(plan: AuditPlan, budget: Budget, results: Results, say: Say) -> list[Mapping[str, Any]]:
    """What the trainings say of every cell, as arguments of :func:`cell_record`."""
    for line in (*results.problems, *results.notes):
        say(line)
    found: list[Mapping[str, Any]] = []
    for subject, controls in plan.audited:
        training = training_comparison(results, subject, controls, budget)
        found.append(
            {
                "training_controls": controls.record(),
                "training": None if training is None else training.record(),
                "problem": "its trainings are not finished" if training is None else None,
            }
        )
    return found


def _settings_record(plan: AuditPlan) -> dict[str, Any]:
    settings, trains = plan.settings, plan.budget is not None
    return {
        "data": {"name": plan.data.name, **plan.data.settings},
        "network": asdict(plan.network),
        "initial_controls": settings.initial_controls if settings.initial else None,
        "initial_seeds": list(settings.initial_seeds),
        "images": settings.images,
        "controls": settings.controls if trains else None,
        "seeds": list(settings.seeds) if trains else [],
        "control_seed": settings.control_seed,
        "training": settings.of_training() if trains else None,
    }


def _repeat_record(plan: AuditPlan, command: str, seconds: Mapping[str, float]) -> dict[str, Any]:
    settings, count = plan.settings, len(plan.subjects)
    seeds: dict[str, Any] = {"controls": [settings.control_seed + index for index in range(count)]}
    if settings.initial:
        seeds["initial weights"] = list(settings.initial_seeds)
    if plan.budget is not None:
        seeds["trainings"] = list(settings.seeds)
    return {
        "command": command,
        "versions": software_versions(),
        "machine": {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "seeds": seeds,
        "data": {"name": plan.data.name, "sha256": plan.data.checksums},
        "seconds": {part: round(spent, 1) for part, spent in seconds.items()},
    }


def audit_published_initial(settings: AuditSettings, folder: Path, say: Say) -> list[dict[str, Any]]:
    """Initial weights of every published cell among its matched controls; cells that are done are kept.

    Args:
        settings: The settings.
        folder: Where the cells are kept.
        say: Takes lines about the progress.

    Returns:
        For every cell its ``name``, and either the records of :func:`audit_level_0` or the ``problem``.
    """
    subjects = [Subject(name, name, cell.genotype) for name, cell in published_genotypes().items()]
    data = audit_data(settings)
    network = level_0_network(settings, data)
    data.require()
    claim_folder(folder, subjects, settings, asdict(network) | {"data": data.settings})
    found: list[dict[str, Any]] = []
    for index, subject in enumerate(subjects):
        say(f"{subject.name}: initial weights, {index + 1} of {len(subjects)} ...")
        try:
            controls = draw_controls(
                subject, settings.initial_controls, settings.control_seed + index, network
            )
        except ValueError as error:
            found.append({"name": subject.name, "problem": str(error)})
            continue
        measured = audit_level_0(subject, controls, settings, network, data, folder)
        found.append({"name": subject.name, "problem": None, **measured})
    return found
