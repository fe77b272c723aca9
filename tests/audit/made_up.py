"""Documents of audits that never were: real wirings and sizes, invented weights and trainings."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from nas_lightning.audit import Controls, among_controls, audit_structure, level_0_verdict, matched_controls
from nas_lightning.audit.document import assemble, cell_record
from nas_lightning.audit.initial import STATISTICS, Initial, InitialSettings, InitialStatistic
from nas_lightning.audit.structure import NetworkSettings
from nas_lightning.cells import Genotype, get_genotype

NETWORK = NetworkSettings(init_channels=4, num_cells=3, stem_stride=2, image_size=16)


def made_up_initial(count: int = 200, seeds: int = 3, seed: int = 0) -> Initial:
    """Log-normal statistics of a cell and its controls."""
    generator = np.random.default_rng(seed)
    found = {}
    for name in STATISTICS:
        values = generator.lognormal(0.0, 0.4, (count + 1, 1)) * generator.lognormal(
            0, 0.1, (count + 1, seeds)
        )
        medians = np.median(values, axis=1)
        found[name] = InitialStatistic(
            name=name,
            own=tuple(values[0].tolist()),
            controls=tuple(medians[1:].tolist()),
            standing=among_controls(float(medians[0]), medians[1:]),
            by_seed=tuple(among_controls(float(one[0]), one[1:]).percentile for one in values.T),
        )
    settings = InitialSettings(seeds=tuple(range(seeds)), init_channels=4, num_cells=3)
    return Initial(settings, 4, MappingProxyType(found))


def made_up_training(
    controls: Controls,
    *,
    level: int = 1,
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int = 6,
    unfinished: int = 0,
    diverged: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """A record as ``Training.record()`` gives it, of curves that rise and saturate."""
    generator = np.random.default_rng(seed)
    names = [f"cell-wiring-{wiring.replace('/', '-')}" for wiring in controls.wirings]
    count = len(names)
    skill = generator.normal(0.0, 1.0, count + 1)
    steps = np.arange(1, epochs + 1)
    noise = generator.normal(0.0, 0.5, (count + 1, len(seeds), epochs))
    accuracy = 96 + skill[:, None, None] - 55 * np.exp(-0.6 * steps) + 0.6 * noise
    loss = 0.12 - 0.03 * skill[:, None, None] + 2.1 * np.exp(-0.7 * steps) + 0.02 * noise
    if diverged:
        loss[0, 0, 2:] = np.nan
        accuracy[0, 0, 2:] = 10.0
    rows = [
        _quantity("accuracy", "final accuracy", "%", "final_accuracy", accuracy[..., -1], names, "larger"),
        _quantity(
            "convergence",
            "mean test loss over the training (cut at chance level)",
            "nat",
            "area_under_loss_clipped",
            np.nan_to_num(loss, nan=2.3).mean(-1),
            names,
            "smaller",
        ),
    ]
    if level == 2:
        for name, label, unit in (
            ("loss_profile.mean_rise", "mean rise of the loss around the optimum", "nat"),
            ("gradient_variance.center_normalized_variance", "normalised gradient variance", "nat²"),
            (
                "hessian_spectrum.normalized_largest_eigenvalue",
                "largest eigenvalue of the normalised Hessian",
                "nat",
            ),
        ):
            values = generator.lognormal(3.0, 0.5, (count + 1, len(seeds)))
            rows.append(_quantity(name, label, unit, name, values, names, "smaller"))
    so_far = np.maximum.accumulate(accuracy, axis=-1).mean(axis=1)
    ranks = [int((so_far[:, epoch] >= so_far[0, epoch]).sum()) for epoch in range(epochs)]
    final = accuracy[..., -1].mean(axis=1)
    labels = ["the cell", *names]
    picks = [int(so_far[:, epoch].argmax()) for epoch in range(epochs)]
    first = rows[0]
    planned = (count + 1) * len(seeds)
    return {
        "level": level,
        "data": "Digits" if level == 1 else "CIFAR10",
        "epochs": epochs,
        "seeds": list(seeds),
        "controls": count,
        "runs": {"finished": planned - unfinished, "planned": planned},
        "missing": [f"{names[place]}-seed{seeds[-1]}: not started" for place in range(unfinished)],
        "settings": {"model.init_channels": 8, "model.num_cells": 5, "trainer.max_epochs": epochs},
        "quantities": rows,
        "detectable": {"difference": 1.9, "power": 0.8, "noise_from": "these trainings"},
        "budget": {
            "rank_by_epoch": ranks,
            "picked_from": None,
            "by_epoch": [
                {"epoch": epoch + 1, "picked": labels[place], "regret": float(final.max() - final[place])}
                for epoch, place in enumerate(picks)
            ],
        },
        "curves": {
            "epochs": steps.tolist(),
            "own": {"loss": loss[0].tolist(), "accuracy": (accuracy[0] / 100).tolist()},
            "controls": {
                "loss": loss[1:].mean(1).tolist(),
                "accuracy": (accuracy[1:].mean(1) / 100).tolist(),
            },
        },
        "sentences": [
            f"Of {count} random cells with the same operations and size, {first['rank'] - 1} did as well or "
            f"better in final accuracy: rank {first['rank']} of {first['of']}, p = {first['p_value']:.2g}.",
            "The data do not tell this cell from a random one.",
            "An audit finds a cell that is truly 1.90 points better in four of five cases.",
            "All of this holds for one training budget.",
        ],
        "badge": f"level {level}: rank {first['rank']} of {first['of']}, p = {first['p_value']:.2g}",
    }


def _quantity(
    name: str, label: str, unit: str, column: str, values: np.ndarray, names: Sequence[str], better: str
) -> dict[str, Any]:
    sign = 1 if better == "larger" else -1
    means = values.mean(axis=1)
    rank = int((sign * means >= sign * means[0]).sum())
    standing = among_controls(sign * float(means[0]), sign * means[1:])
    difference = float(means[0] - means[1:].mean())
    spread = float(means[1:].std(ddof=1))
    return {
        "name": name,
        "label": label,
        "unit": unit,
        "column": column,
        "better": better,
        "own": values[0].tolist(),
        "own_mean": float(means[0]),
        "controls": means[1:].tolist(),
        "control_names": list(names),
        "rank": rank,
        "of": len(means),
        "p_value": rank / len(means),
        "ranks_by_seed": [int((sign * column_ >= sign * column_[0]).sum()) for column_ in values.T],
        "beaten_percentile": standing.percentile,
        "beaten_low": standing.low,
        "beaten_high": standing.high,
        "difference": difference,
        "difference_low": difference - 2.1 * spread,
        "difference_high": difference + 2.1 * spread,
        "controls_sd": spread,
        "seed_sd": float(values[0].std(ddof=1)) if values.shape[1] > 1 else None,
    }


def made_up_cell(
    name: str,
    *,
    genotype: Genotype | None = None,
    initial: Initial | None = None,
    level: int = 0,
    controls: int = 19,
    problem: str | None = None,
    **training: Any,
) -> dict[str, Any]:
    """A cell of a document; at level 0 without trainings."""
    cells = genotype or get_genotype(name)
    structure = audit_structure(cells, NETWORK)
    matched = None
    if initial is not None or level:
        matched = matched_controls(cells, controls, init_channels=4, num_cells=3)
    return cell_record(
        name,
        name,
        cells,
        level_0_verdict(structure, initial).record(),
        structure.record(),
        initial_controls=matched.record() if initial is not None and matched else None,
        initial=initial.record() if initial is not None else None,
        problem=problem,
        training=made_up_training(matched, level=level, **training) if level and matched else None,
        training_controls=matched.record() if level and matched else None,
    )


def made_up_document(cells: Sequence[dict[str, Any]], level: int = 0, **changes: Any) -> dict[str, Any]:
    """A document of some cells."""
    generator = np.random.default_rng(5)
    measured = any(cell["initial"] for cell in cells)
    backdrop = [
        {
            "name": name,
            "normal_width": width,
            "normal_depth": depth,
            "normal_path": 2.5,
            "live_parameters": 100_000,
            "multiply_adds": 9_000_000,
            "initial": {key: float(generator.lognormal(0, 0.4)) for key in STATISTICS} if measured else None,
        }
        for name, width, depth in (("nasnet", 5.0, 2), ("enas", 5.0, 2), ("darts_v2", 3.5, 3))
    ]
    return assemble(
        **{
            "level": level,
            "date": "2026-11-27",
            "settings": {
                "data": {"name": "Digits"},
                "network": {
                    "init_channels": 4,
                    "num_cells": 3,
                    "num_classes": 10,
                    "stem_stride": 2,
                    "image_size": 16,
                },
                "initial_controls": 200,
                "controls": 19 if level else None,
                "seeds": [0, 1, 2],
                "control_seed": 0,
            },
            "cells": cells,
            "backdrop": backdrop,
            "repeat": {
                "command": f"nas-lightning audit {' '.join(cell['spec'] for cell in cells)} "
                f"--level {level} -o audits/mine",
                "versions": {"nas-lightning": "0.1.0", "torch": "2.11.0", "python": "3.11.9"},
                "machine": {"processor": "x86_64", "cores": 2, "device": "cpu"},
                "seeds": {"controls": 0, "initial weights": [0, 1, 2], "training": [0, 1, 2]},
                "data": {"name": "Digits", "sha256": {"train": "a" * 64, "test": "b" * 64}},
                "seconds": {"level_0": 12.5},
            },
            **changes,
        }
    )
