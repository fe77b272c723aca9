"""Studies whose runs are a script of a few lines in place of a training."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas_lightning.cells import get_genotype
from nas_lightning.study.study import AnalysisFile, Architecture, Run, Study

PROGRAM = """
import fcntl, json, os, signal, sys, time

folder, epochs, behaviour = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
os.makedirs(folder, exist_ok=True)
lock = open(os.path.join(folder, ".lock"), "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit("being written by another process")
starts = os.path.join(folder, "starts.txt")
with open(starts, "a") as file:
    note = {"pid": os.getpid(), "time": time.monotonic(), "environment": dict(os.environ)}
    print(json.dumps(note), file=file)
number = len(open(starts).readlines())
if behaviour.get("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("start", number, flush=True)
if number <= behaviour.get("fails", 0):
    print("this cannot be")
    sys.exit(3)
metrics = os.path.join(folder, "metrics.csv")
done = max(len(open(metrics).readlines()) - 1, 0) if os.path.exists(metrics) else 0
for epoch in range(done, epochs):
    time.sleep(behaviour.get("seconds", 0.0))
    names = ["epoch", "loss/train", "accuracy/train", "loss/test", "accuracy/test"]
    names += ["accuracy_top5/test", "learning_rate", "images_per_second"]
    values = [[e, 1.5, 0.9, 2.0, e / 10, 0.5, 0.1, 100.0] for e in range(epoch + 1)]
    if behaviour.get("row_short") and epoch + 1 == epochs:
        values.pop()
    rows = [",".join(map(str, row)) for row in [names, *values]]
    with open(metrics + ".tmp", "w") as file:
        print(*rows, sep="\\n", file=file)
    os.replace(metrics + ".tmp", metrics)
    if number <= behaviour.get("killed", 0):
        os.kill(os.getpid(), signal.SIGKILL)
if not behaviour.get("no_result"):
    lines = open(metrics).read().splitlines()
    last = dict(zip(lines[0].split(","), map(float, lines[-1].split(","))))
    del last["epoch"]
    result = behaviour["result"] | {"final": last, "best": {**last, "epoch": epochs - 1}}
    with open(os.path.join(folder, "result.json"), "w") as file:
        json.dump(result, file)
"""


SETTINGS = {
    **{"model.init_channels": 4, "model.num_cells": 3, "model.stem_stride": 1, "model.auxiliary_weight": 0},
    **{f"data.init_args.{key}": 48 for key in ("train_size", "test_size")},
    **{"data.init_args.image_size": 16, "data.init_args.num_classes": 10, "data.init_args.batch_size": 16},
    "data.init_args.validation_fraction": 0,
}
"""What a cost needs of the settings."""


def made_up_run(
    root: Path,
    name: str,
    *,
    epochs: int = 2,
    settings: dict[str, Any] | None = None,
    analyses: tuple[AnalysisFile, ...] = (),
    trained_seed: int = 0,
    **behaviour: Any,
) -> Run:
    """A run whose only arguments are those of the program; its seed is 0, whatever it was trained with."""
    genotype = get_genotype("darts_v2")
    folder = root / "study" / name
    behaviour["result"] = made_up_result(str(genotype), epochs, trained_seed)
    return Run(
        name=name,
        folder=folder,
        architecture=Architecture("darts_v2", genotype, "darts_v2", "original", "original"),
        data="Synthetic",
        learning_rate=0.1,
        seed=0,
        epochs=epochs,
        settings={**SETTINGS, **(settings or {})},
        analyses=analyses,
        arguments=(str(folder), str(epochs), json.dumps(behaviour)),
    )


def made_up_result(genotype: str, epochs: int, seed: int) -> dict[str, Any]:
    """What the result tables read of a result, but for its numbers of the last and of the best epoch."""
    settings = {"init_channels": 4, "num_cells": 3, "num_classes": 10, "drop_path": 0, "auxiliary_weight": 0}
    return {
        "finished": True,
        "epochs": epochs,
        "evaluation_split": "test",
        "cell": {"genotype": genotype, "parameters": 9, "live_parameters": 8, "multiply_adds": 7},
        "settings": {
            **{f"model.{key}": value for key, value in settings.items()},
            **{"data.class": "Synthetic", "data.batch_size": 16, "data.cutout": 0},
            "model.optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
            "trainer.max_epochs": epochs,
        },
        "provenance": {
            **{"seed": seed, "weights_sha256": "ab" * 32, "device": "cpu"},
            "data": {"name": "Synthetic", "split_sizes": {"train": 48, "test": 37}},
        },
    }


def made_up_study(root: Path, runs: Sequence[Run]) -> Study:
    return Study("made_up", "Made up", root / "study.yaml", root, "study", tuple(runs))


def made_up_command(run: Run) -> tuple[str, ...]:
    """In place of `nas_lightning.study.jobs.run_command`."""
    return (sys.executable, "-S", "-c", PROGRAM, *run.arguments)


def starts(run: Run) -> list[dict[str, Any]]:
    """What the processes of a run noted when they began."""
    path = run.folder / "starts.txt"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_alive(process_id: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
