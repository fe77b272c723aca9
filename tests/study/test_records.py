from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.study.run_files import collect, only_row, planned_run, write_run


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ({"seed": 5}, "seed 5, planned 0"),
        ({"seed": None}, "seed None, planned 0"),
        ({"data": "CIFAR10"}, "data CIFAR10, planned Digits"),
        ({"learning_rate": 0.2}, "learning rate 0.2, planned 0.1"),
        ({"epochs": 5}, "epochs 5, planned 4"),
        ({"spec": "darts_v2:C4"}, "another genotype than darts_v2"),
        ({"settings": {"model.init_channels": 9}}, "model.init_channels 9, planned 8"),
        ({"settings": {"data.batch_size": 47}}, "data.batch_size 47, planned 48"),
        ({"settings": {"data.cutout": 16}}, "data.cutout 16, planned 0"),
        ({"settings": {"trainer.precision": "bf16-mixed"}}, "precision bf16-mixed, planned 32-true"),
        (
            {"settings": {"model.optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1}}}},
            "model.optimizer Adam, planned SGD",
        ),
        (
            {"settings": {"model.lr_scheduler": {"class_path": "ConstantLR", "init_args": {"factor": 1}}}},
            "model.lr_scheduler ConstantLR, planned none",
        ),
    ],
)
def test_another_training_in_the_folder_is_foreign(
    tmp_path: Path, difference: dict[str, Any], message: str
) -> None:
    settings = {
        "model.init_channels": 8,
        "model.genotype": "darts",
        "model.optimizer.class_path": "SGD",
        "model.optimizer.init_args.lr": 0.1,
        "model.optimizer.init_args.momentum": 0.9,
        "data.init_args.batch_size": 48,
        "data.init_args.evaluation_batch_size": 250,
        "data.init_args.cutout": 0,
        "data.init_args.validation_fraction": 0.0,
        "data.init_args.validation_seed": 0,
        "model.lr_scheduler": None,
        "trainer.precision": 32,
        "trainer.max_epochs": 4,
    }
    run = planned_run(tmp_path, "r", settings=settings)
    # What does not decide the training may differ.
    write_run(run.folder, settings={"data.evaluation_batch_size": 100, "data.validation_seed": 5})
    only_row(collect(tmp_path, run))
    write_run(run.folder, **difference)
    results = collect(tmp_path, run)
    result = run.folder / "result.json"
    assert results.problems == (f"r: {result} is foreign, of another training than planned: {message}",)
    assert results.runs.empty
    assert results.curves.empty


def test_defaults_of_other_data_sets_are_not_planned(tmp_path: Path) -> None:
    settings = {"data.class_path": "mine.Digits", "data.init_args.cutout": 0}
    run = planned_run(tmp_path, "r", settings=settings)
    write_run(run.folder, settings={"data.cutout": 16})
    only_row(collect(tmp_path, run))
    run = planned_run(tmp_path, "r", settings=settings | {"data.init_args.cutout": 8})
    assert "data.cutout 16, planned 8" in collect(tmp_path, run).problems[0]


def test_a_genotype_in_the_settings_stays_whole(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "r")
    genotype = {"normal": [["skip_connect", 0]], "normal_concat": [2]}
    write_run(run.folder, settings={"model.genotype": genotype})
    row = only_row(collect(tmp_path, run))
    assert json.loads(row["settings.model.genotype"]) == genotype
    assert row["settings.model.optimizer.class_path"] == "torch.optim.SGD"


@pytest.mark.parametrize("name", ["result.json", "metrics.csv", "config.yaml"])
def test_truncated_and_lost_files_are_named(tmp_path: Path, name: str) -> None:
    run = planned_run(tmp_path, "r")
    write_run(run.folder, trainer={"plugins": ["a", "b"]})
    path = run.folder / name
    whole = path.read_bytes()
    for length in sorted({*range(0, len(whole) - 1, max(1, len(whole) // 25)), len(whole) - 2}):
        path.write_bytes(whole[:length])
        results = collect(tmp_path, run)
        # YAML may be whole without its end.
        if name == "config.yaml" and not results.problems:
            assert only_row(results)["steps_per_epoch"] == 29
            continue
        assert len(results.problems) == 1, length
        assert str(path) in results.problems[0]
        assert "\n" not in results.problems[0]
        assert results.runs.empty
    path.unlink()
    assert len(collect(tmp_path, run).problems) == 1
    path.write_bytes(whole)
    only_row(collect(tmp_path, run))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("cell", "parameters"), None, "`parameters` is None, a number was expected"),
        (("cell", "parameters"), 1.5, "`parameters` is 1.5, a whole number was expected"),
        (("settings", "data.batch_size"), True, "`data.batch_size` is True, a number was expected"),
        (("evaluation_split",), 7, "`evaluation_split` is 7, a text was expected"),
        (("provenance", "weights_sha256"), [], r"`weights_sha256` is \[\], a text was expected"),
        (("provenance",), 3, "is no result of a training: `provenance` is missing"),
        (("settings", "model.num_classes"), 1, r"`num_classes` \(=1\) must be at least 2"),
    ],
)
def test_a_result_of_another_form_is_named(
    tmp_path: Path, keys: tuple[str, ...], value: object, message: str
) -> None:
    run = planned_run(tmp_path, "r")
    write_run(run.folder)
    path = run.folder / "result.json"
    result = json.loads(path.read_text())
    section = result if len(keys) == 1 else result[keys[0]]
    section[keys[-1]] = value
    path.write_text(json.dumps(result))
    results = collect(tmp_path, run)
    assert len(results.problems) == 1
    with pytest.raises(ValueError, match=f"^r: .*{message}"):
        raise ValueError(results.problems[0])


def test_curves_of_another_training_than_the_result_are_refused(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "r")
    write_run(run.folder)
    metrics = (run.folder / "metrics.csv").read_text()
    write_run(run.folder, loss=[2.0, 1.0, 0.8, 0.7])
    (run.folder / "metrics.csv").write_text(metrics)
    assert collect(tmp_path, run).problems == (
        f"r: {run.folder / 'metrics.csv'} ends with `loss/test` 0.625, result.json beside it with 0.7",
    )
    (run.folder / "metrics.csv").write_text("\n".join(metrics.splitlines()[:-1]))
    assert "metrics.csv has 3 epochs, result.json beside it 4" in collect(tmp_path, run).problems[0]
    (run.folder / "metrics.csv").write_text(metrics + metrics.splitlines()[1] + "\n")
    assert "its epochs are not 0, 1, 2, ..." in collect(tmp_path, run).problems[0]


@pytest.mark.parametrize(
    ("trainer", "batches", "steps"),
    [
        ({}, 29, 29),
        ({"limit_train_batches": 1.0}, 29, 29),
        ({"limit_train_batches": 0.5}, 14, 14),
        ({"limit_train_batches": 7}, 7, 7),
        ({"limit_train_batches": 7.0}, 7, 7),
        ({"limit_train_batches": 100}, 29, 29),
        ({"accumulate_grad_batches": 4}, 29, 8),
        ({"overfit_batches": 3}, 3, 3),
    ],
)
def test_steps_follow_the_trainer(tmp_path: Path, trainer: dict[str, Any], batches: int, steps: int) -> None:
    run = planned_run(tmp_path, "r")
    write_run(run.folder, trainer=trainer)
    row = only_row(collect(tmp_path, run))
    assert row["steps_per_epoch"] == steps
    assert row["steps_to_accuracy_0.5"] == steps
    assert row["training_seconds"] == pytest.approx(sum(batches * 48 / (100.5 + epoch) for epoch in range(4)))
