"""The plan of an audit: its data, its networks and all controls.

Everything that can be refused is refused while the plan is made, before a file is written or a cell measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nas_lightning.audit.controls import LEAST_CONTROLS, TOLERANCE_PERCENT, Controls
from nas_lightning.audit.data import AuditData, audit_data
from nas_lightning.audit.initial import check_operations
from nas_lightning.audit.level_0 import draw_controls, level_0_network
from nas_lightning.audit.settings import AuditSettings
from nas_lightning.audit.structure import NetworkSettings
from nas_lightning.audit.study import Budget
from nas_lightning.audit.subjects import Subject


@dataclass(frozen=True)
class AuditPlan:
    """What an audit measures.

    Attributes:
        subjects: The audited cells.
        settings: The settings.
        data: The data set.
        network: The network of level 0.
        initial_controls: Each cell's controls for initial weights; None where these are left out.
        budget: The training; None at level 0.
        training_controls: Each cell's controls that are trained; None at level 0.
    """

    subjects: tuple[Subject, ...]
    settings: AuditSettings
    data: AuditData
    network: NetworkSettings
    initial_controls: tuple[Controls | None, ...]
    budget: Budget | None
    training_controls: tuple[Controls | None, ...]

    @property
    def audited(self) -> list[tuple[Subject, Controls]]:
        """The cells that are trained, with their controls."""
        pairs = zip(self.subjects, self.training_controls, strict=True)
        return [(subject, controls) for subject, controls in pairs if controls is not None]


def plan_audit(subjects: Sequence[Subject], settings: AuditSettings) -> AuditPlan:
    """Resolve the settings and draw all controls.

    Args:
        subjects: The audited cells.
        settings: The settings.

    Raises:
        ValueError: If a setting is not valid or a cell has no matched control.
        OSError: If a file of settings cannot be read.
    """
    data = audit_data(settings)
    network = level_0_network(settings, data)
    initial: list[Controls | None] = [None] * len(subjects)
    trained = initial.copy()
    budget = None
    if settings.level:
        budget = Budget(
            settings.level, settings.seeds, settings.named_data, settings.configs, settings.settings
        )
        resolved = budget.resolved()
        small = NetworkSettings(
            init_channels=resolved["model.init_channels"],
            num_cells=resolved["model.num_cells"],
            num_classes=data.module.num_classes,
        )
        for index, one in enumerate(_draws(subjects, settings.controls, settings)):
            controls = trained[index] = draw_controls(*one, small)
            _check_count(one[0], controls)
    if settings.initial:
        draws = _draws(subjects, settings.initial_controls, settings)
        initial = [_initial_controls(*one, network) for one in draws]
    return AuditPlan(tuple(subjects), settings, data, network, tuple(initial), budget, tuple(trained))


def _initial_controls(subject: Subject, count: int, seed: int, network: NetworkSettings) -> Controls:
    """Controls whose initial weights are measured."""
    try:
        check_operations(subject.genotype)
        return draw_controls(subject, count, seed, network)
    except ValueError as error:
        raise type(error)(f"{error}; --no_initial leaves initial weights out") from None


def _draws(
    subjects: Sequence[Subject], count: int, settings: AuditSettings
) -> Iterator[tuple[Subject, int, int]]:
    """Every cell with the number of its controls and a seed of its own."""
    for index, subject in enumerate(subjects):
        yield subject, count, settings.control_seed + index


def _check_count(subject: Subject, controls: Controls) -> None:
    if len(controls.genotypes) < LEAST_CONTROLS:
        raise ValueError(
            f"{subject.name}: only {controls.total} other wirings have the same operations, as many inputs "
            f"read and live parameters within {TOLERANCE_PERCENT} %: trainings need {LEAST_CONTROLS} controls"
        )
