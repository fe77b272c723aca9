"""The settings of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LEVELS = (0, 1, 2)
CONTROLS = 19
"""Controls that are trained: rank 1 of 20 is p = 0.05."""
INITIAL_CONTROLS = 200
IMAGES = 4
SMALL_DATA = "Digits"
PAPERS_DATA = "CIFAR10"


@dataclass(frozen=True)
class AuditSettings:
    """The settings of an audit.

    Attributes:
        level: 0, without training; 1, a short training; 2, the paper's.
        data: Name of the data class; None takes the embedded digits, at level 2 CIFAR-10.
        configs: Configurations of ``nas-lightning fit`` for data and training.
        settings: Further settings of ``fit``, with dotted keys: ``data.root``, ``model.num_cells``.
        controls: Controls that are trained for each cell.
        seeds: Training seeds.
        initial: Whether level 0 measures initial weights.
        initial_controls: Controls whose initial weights are measured.
        initial_seeds: Initial seeds.
        images: Images that initial weights are measured on.
        control_seed: Seed of the draw of controls; the n-th cell's is n higher.
    """

    level: int = 0
    data: str | None = None
    configs: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    controls: int = CONTROLS
    seeds: tuple[int, ...] = (0, 1, 2)
    initial: bool = True
    initial_controls: int = INITIAL_CONTROLS
    initial_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    images: int = IMAGES
    control_seed: int = 0

    @property
    def data_class(self) -> str:
        """Name of the data class, unless configurations name another."""
        return self.data or (PAPERS_DATA if self.level == 2 else SMALL_DATA)

    @property
    def named_data(self) -> str | None:
        """Name of the data class; None where configurations may name it."""
        return self.data or (None if self.configs else self.data_class)

    def of_level_0(self) -> dict[str, Any]:
        """What decides the numbers of level 0, beside data and network."""
        names = ("initial", "initial_controls", "initial_seeds", "images", "control_seed")
        return {name: _plain(getattr(self, name)) for name in names}

    def of_training(self) -> dict[str, Any]:
        """What decides the trainings, beside the cells."""
        return {
            "data": self.named_data,
            "configs": [str(path.resolve()) for path in self.configs],
            "settings": dict(sorted(self.settings.items())),
            "controls": self.controls,
            "seeds": list(self.seeds),
            "control_seed": self.control_seed,
        }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
