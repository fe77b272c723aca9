"""The study of an audit: what a cell and its controls are trained with, and the files that say so.

The study's file names every cell by a genotype file of its own and every control as a wiring of one, so that
the folder needs nothing but this package and the user's configurations. Controls that several cells share are
one run. Runs are started, resumed and read as those of any study.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from nas_lightning.audit.controls import Controls, wiring_text
from nas_lightning.cells import get_genotype
from nas_lightning.cells.names import full_name
from nas_lightning.cells.writing import write_genotype
from nas_lightning.files import atomic_write, is_file
from nas_lightning.study.read import read_study
from nas_lightning.study.resolve import resolve_settings, setting_arguments
from nas_lightning.study.study import Study

if TYPE_CHECKING:
    from nas_lightning.audit.subjects import Subject

EXPERIMENT = "runs"
STUDY_FILE = "study.yaml"
_DEFAULTS = "defaults.yaml"
_LONGEST_LABEL = 60
_OF_AN_AUDIT = ("model.genotype", "seed_everything", "experiment", "run", "ckpt_path", "config")


@dataclass(frozen=True)
class Budget:
    """What every cell and control is trained with.

    Attributes:
        level: 1, a short training, or 2, the paper's training and its analyses.
        seeds: One run each.
        data: Class of the data set as ``fit --data`` takes it; None is that of the configurations.
        configs: Configurations of ``nas-lightning fit``, which overrule the level's own.
        settings: Settings with dotted keys, ``model.num_cells``, which overrule both.
    """

    level: int
    seeds: tuple[int, ...] = (0, 1, 2)
    data: str | None = None
    configs: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no budget, before anything is written."""
        if self.level not in (1, 2):
            raise ValueError(f"`level` (={self.level}) must be 1 or 2: level 0 trains nothing")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` (={list(self.seeds)}) must be one or more different numbers")
        for key in _OF_AN_AUDIT:
            if key in self.settings:
                raise ValueError(f"`{key}` (={self.settings[key]}) must be left out: an audit sets it itself")
        for path in self.configs:
            if not is_file(path):
                raise FileNotFoundError(f"`config` (={path}) is not a file")

    @property
    def defaults(self) -> Path:
        """The level's own configuration, a file of this package."""
        return Path(__file__).with_name(f"level_{self.level}.yaml")

    @property
    def all_settings(self) -> dict[str, Any]:
        """The settings, with the data set's class before them."""
        data = {} if self.data is None else {"data": self.data}
        return {**data, **self.settings}

    def resolved(self) -> Mapping[str, Any]:
        """All settings of the trainings with dotted keys, ``model.init_channels``, as ``fit`` resolves them.

        Raises:
            ValueError: What ``nas-lightning fit`` would refuse.
        """
        files = [self.defaults, *self.configs]
        arguments = ["fit", *(part for file in files for part in ("--config", str(file)))]
        arguments += ["--model.genotype", "darts_v2", *setting_arguments(self.all_settings)]
        return resolve_settings(arguments, files).settings


def write_study(folder: Path, audited: Sequence[tuple[Subject, Controls]], budget: Budget) -> Study:
    """Write the study of an audit into ``FOLDER/level_N``, and read it.

    The same cells and budget write the same files. If the study cannot be read, what was not there before is
    taken away again.

    Args:
        folder: Folder of the audit.
        audited: The cells and their controls.
        budget: What they are trained with.

    Returns:
        The study; its runs go to ``FOLDER/level_N/runs``.

    Raises:
        ValueError: If there is no cell, or a setting is not valid; the message names it.
        OSError: If a file cannot be read or written.
    """
    if not audited:
        raise ValueError("there is no cell to audit")
    at = folder / f"level_{budget.level}"
    texts = _files(audited, budget)
    new = [at / name for name in texts if not (at / name).exists()]
    try:
        for name, text in texts.items():
            (at / name).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(at / name) as file:
                file.write(text)
        return read_study(at / STUDY_FILE, root=at)
    except (ValueError, OSError) as error:
        for path in new:
            path.unlink(missing_ok=True)
        for path in (at / "cells", at, folder):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        # The file that the message names is not the user's.
        raise type(error)(str(error).removeprefix(f"{at / STUDY_FILE}: ")) from error


def _files(audited: Sequence[tuple[Subject, Controls]], budget: Budget) -> dict[str, str]:
    """Texts of the study's files by their names; the study is the last."""
    files = {_DEFAULTS: budget.defaults.read_text(encoding="utf-8")}
    own: list[dict[str, str]] = []
    rewired: list[dict[str, str]] = []
    for subject, controls in audited:
        name = _cell_name(subject)
        path = f"cells/{name}.yaml"
        files[path] = write_genotype(subject.genotype, "yaml") + "\n"
        own.append({"name": name, "genotype": path})
        for wiring in controls.wirings:
            label = _control_name(name, wiring)
            rewired.append({"name": label, "genotype": f"{path}:wiring={wiring}"})
    cells = ", ".join(subject.name for subject, _ in audited)
    content = {
        "name": f"level_{budget.level}",
        "title": f"{cells} and matched random controls",
        "experiment": EXPERIMENT,
        "configs": [_DEFAULTS, *(str(path.absolute()) for path in budget.configs)],
        "settings": json.loads(json.dumps(budget.all_settings, default=str)),
        # A control that is one of the cells goes by the cell's name.
        "axes": {"architectures": [*own, *rewired], "seeds": list(budget.seeds)},
    }
    files[STUDY_FILE] = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
    return files


def _cell_name(subject: Subject) -> str:
    """The subject's name, short enough for a control's, and not that of another published cell."""
    name = subject.name
    published = full_name(name)
    if published is not None and get_genotype(published) != subject.genotype:
        name += "-own"
    longest = _LONGEST_LABEL - len(_control_name("", wiring_text(subject.genotype)))
    if len(name) <= longest:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: longest - 9]}-{digest}"


def _control_name(cell: str, wiring: str) -> str:
    return f"{cell}-{wiring.replace('/', '-')}"
