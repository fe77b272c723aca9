from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from nas_lightning.cells import count_parameters, get_genotype, topology
from nas_lightning.netcdf import read_dataset
from nas_lightning.study.convergence import convergence_statistics
from nas_lightning.study.read import read_study
from nas_lightning.study.results import CURVE_COLUMNS, RUN_COLUMNS, collect_results, write_results
from tests.cli.commands import TINY, read_checkpoint, read_metrics, read_result, run_process
from tests.study.run_files import TRAIN_SIZE, collect, only_row, planned_run, study_of, write_run


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


def test_a_row_says_what_the_files_say(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "named-for-something-else", spec="darts_v2:C4", seed=3)
    write_run(run.folder, spec="darts_v2:C4", seed=3)
    row = only_row(collect(tmp_path, run))
    genotype = get_genotype("darts_v2:C4")
    expected = {
        "run": "named-for-something-else",
        "folder": str(run.folder),
        "study": "comparison",
        "genotype": str(genotype),
        "architecture": "darts_v2:C4",
        "family": "darts_v2",
        "variant": "C4",
        "kind": "connections",
        **asdict(topology(genotype, 6)),
        "parameters": count_parameters(genotype, init_channels=8, num_cells=6),
        "data": "Digits",
        "num_classes": 10,
        "learning_rate": 0.1,
        "seed": 3,
        "epochs": 4,
        "steps_per_epoch": TRAIN_SIZE // 48,
        "batch_size": 48,
        "regularized": False,
        "evaluation_split": "test",
        "init_channels": 8,
        "num_cells": 6,
        "train_size": TRAIN_SIZE,
        "evaluation_size": 360,
        "final_loss": 0.625,
        "final_accuracy": 0.875,
        "final_error_percent": 12.5,
        "final_train_loss": 0.5,
        "final_train_accuracy": 0.8,
        "best_accuracy": 0.875,
        "best_epoch": 3,
        "training_seconds": sum(29 * 48 / speed for speed in (100.5, 101.5, 102.5, 103.5)),
        "epochs_to_accuracy_0.8": 3,
        "steps_to_accuracy_0.8": 87,
        "mean_error": 0.5 * (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4,
        "diverged": False,
        "weights_sha256": "ab" * 32,
        "version_nas_lightning": "0.1.0",
        "settings.model.genotype": "darts_v2:C4",
        "settings.model.stem_stride": "2",
        "settings.model.optimizer.init_args.momentum": "0.9",
        "settings.model.operations": "[]",
    }
    found = {name: row[name] for name in expected}
    numbers = {name for name, value in expected.items() if isinstance(value, float)}
    assert {name: found[name] for name in numbers} == pytest.approx(
        {name: expected[name] for name in numbers}
    )
    assert {name: found[name] for name in expected.keys() - numbers} == {
        name: expected[name] for name in expected.keys() - numbers
    }
    assert pd.isna(row["epochs_to_accuracy_0.9"])
    assert pd.isna(row["version_lightning"])
    assert pd.isna(row["settings.model.lr_scheduler"])


def test_curves_have_an_epoch_a_row(tmp_path: Path) -> None:
    runs = [planned_run(tmp_path, f"r{seed}", seed=seed) for seed in (1, 0)]
    for run in runs:
        write_run(run.folder, seed=run.seed)
    curves = collect(tmp_path, *runs).curves
    assert curves["run"].tolist() == ["r1"] * 4 + ["r0"] * 4
    assert curves["epoch"].tolist() == [0, 1, 2, 3] * 2
    assert curves["step"].tolist() == [29, 58, 87, 116] * 2
    assert curves["loss"].tolist() == [2.5, 1.25, 2.5 / 3, 0.625] * 2
    assert curves["train_loss"].tolist() == [2.0, 1.0, 2 / 3, 0.5] * 2
    assert curves["learning_rate_now"].tolist() == [0.1, 0.05, 0.1 / 3, 0.025] * 2
    assert (curves["learning_rate"] == 0.1).all()


def test_a_genotype_given_as_lists_is_known_by_its_literal(tmp_path: Path) -> None:
    genotype = get_genotype("darts_v2")
    lists = {
        name: [list(item) if isinstance(item, tuple) else item for item in getattr(genotype, name)]
        for name in ("normal", "normal_concat", "reduce", "reduce_concat")
    }
    run = planned_run(tmp_path, "r")
    write_run(run.folder, spec=lists)
    row = only_row(collect(tmp_path, run))
    assert row["architecture"] == "darts_v2"
    assert json.loads(row["settings.model.genotype"]) == lists


def test_what_is_missing_or_unfinished_is_named_and_not_in_the_tables(tmp_path: Path) -> None:
    runs = [planned_run(tmp_path, name) for name in ("missing", "empty", "halfway", "stopped", "fine")]
    runs[1].folder.mkdir(parents=True)
    write_run(runs[2].folder)
    (runs[2].folder / "result.json").unlink()
    metrics = runs[2].folder / "metrics.csv"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:3]))
    write_run(runs[3].folder, finished=False)
    write_run(runs[4].folder)
    results = collect(tmp_path, *runs)
    folder = tmp_path / "experiment"
    assert results.problems == (
        f"missing: not started, there is no folder {folder / 'missing'}",
        f"empty: unfinished, no epoch is done in {folder / 'empty'}",
        f"halfway: unfinished, 2 of 4 epochs are done in {folder / 'halfway'}",
        f"stopped: unfinished, {folder / 'stopped' / 'result.json'} was written after 4 epochs",
    )
    assert results.runs["run"].tolist() == ["fine"]
    assert set(results.curves["run"]) == {"fine"}


def test_a_run_that_ended_early_is_in_the_tables_and_told(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "early", epochs=9)
    write_run(run.folder, epochs=4, settings={"trainer.max_epochs": 9})
    path = run.folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ended": "early stopping: enough"}))
    results = collect(tmp_path, run)
    row = only_row(results)
    assert (row["epochs"], row["final_accuracy"]) == (9, 0.875)
    assert row["loss_contour_file"].endswith("epoch0003.nc")
    assert len(results.curves) == 4
    assert results.notes == ("early has 4 of 9 epochs: early stopping: enough",)
    assert not results.problems


def test_folders_of_no_run_are_counted(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "r")
    write_run(run.folder)
    (run.folder.parent / "reports" / "comparison").mkdir(parents=True)
    (run.folder.parent / "r.lock").touch()
    (run.folder.parent / ".cache").mkdir()
    assert collect(tmp_path, run).problems == ()
    (run.folder.parent / "b").mkdir()
    folder = run.folder.parent
    assert collect(tmp_path, run).problems == (f"1 folder belongs to no run of this study, in {folder}: b",)
    for name in "edca":
        (folder / name).mkdir()
    assert collect(tmp_path, run).problems == (
        f"5 folders belong to no run of this study, in {folder}: a, b, c and 2 more",
    )
    # A run of another study of the experiment, finished or not; a damaged result is nobody's.
    write_run(folder / "a")
    write_run(folder / "b", finished=False)
    (folder / "c" / "result.json").write_text("{")
    assert collect(tmp_path, run).problems == (
        f"3 folders belong to no run of this study, in {folder}: c, d, e",
    )


def test_epochs_without_an_evaluation_and_losses_of_nan_are_told_apart(tmp_path: Path) -> None:
    every_second = planned_run(tmp_path, "every_second")
    write_run(every_second.folder, accuracy=[math.nan, 0.5, math.nan, 0.9], loss=[0, 1.0, 0, 0.4])
    broken = planned_run(tmp_path, "broken", seed=1)
    nan = math.nan
    write_run(
        broken.folder,
        seed=1,
        loss=[2.0, nan, math.inf, nan],
        accuracy=[0.2, 0.1, 0.1, 0.1],
        train_loss=[nan] * 4,
    )
    results = collect(tmp_path, every_second, broken)
    assert results.problems == ()
    first, second = (row for _, row in results.runs.iterrows())
    assert first["area_under_loss"] == pytest.approx(0.7)
    assert first["best_epoch"] == 3
    assert not first["diverged"]
    assert np.isnan(second["area_under_loss"])
    assert second["diverged"]
    assert second["final_accuracy"] == 0.1
    assert results.curves["loss"][6] == math.inf


def test_columns_and_types_do_not_depend_on_what_is_there(tmp_path: Path) -> None:
    bare = planned_run(tmp_path, "bare", stems=())
    write_run(
        bare.folder, stems=(), accuracy=[math.nan] * 4, settings={"data.cutout": None, "data.batch_size": 48}
    )
    full = planned_run(tmp_path, "full", seed=1)
    write_run(full.folder, seed=1)
    tables = [collect(tmp_path, *runs) for runs in ((), (bare,), (full,), (bare, full))]
    known = len(RUN_COLUMNS)
    for results in tables:
        assert dict(list(dtypes(results.runs).items())[:known]) == dict(RUN_COLUMNS)
        assert dtypes(results.curves) == dict(CURVE_COLUMNS)
    further = dtypes(tables[3].runs).items() - RUN_COLUMNS.items()
    assert further == {("settings.model.optimizer.init_args.foreach", "str")}
    joined = pd.concat([results.runs for results in tables[1:3]], ignore_index=True)
    pd.testing.assert_frame_equal(joined, tables[3].runs)


def test_tables_survive_their_files(tmp_path: Path) -> None:
    runs = [
        planned_run(tmp_path, "a"),
        planned_run(tmp_path, "b", seed=1),
        planned_run(tmp_path, "c", seed=2),
    ]
    write_run(runs[0].folder)
    write_run(runs[1].folder, seed=1, stems=(), loss=[1 / 3, math.nan, math.inf, 0.1 + 0.2])
    results = collect(tmp_path, *runs)
    paths = write_results(results)
    folder = tmp_path / "experiment" / "reports" / "comparison"
    assert sorted(folder.iterdir()) == sorted(paths)
    for name, frame in (("results", results.runs), ("curves", results.curves)):
        pd.testing.assert_frame_equal(pd.read_parquet(folder / f"{name}.parquet"), frame, check_exact=True)
        read = pd.read_csv(folder / f"{name}.csv", dtype=dtypes(frame))
        pd.testing.assert_frame_equal(read, frame, check_exact=True)
    empty = collect_results(study_of(tmp_path, (), "empty"))
    write_results(empty)
    read = pd.read_parquet(folder.parent / "empty" / "results.parquet")
    pd.testing.assert_frame_equal(read, empty.runs)
    assert dtypes(read) == dict(RUN_COLUMNS)


def test_results_need_no_torch() -> None:
    code = "import sys, nas_lightning.study.results; print({'torch', 'lightning'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "set()"


@pytest.mark.slow
def test_a_real_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    flags = dict(flag.removeprefix("--").split("=") for flag in TINY)
    values = {name: yaml.safe_load(value) for name, value in flags.items()}
    data = {name.removeprefix("data."): value for name, value in values.items() if name.startswith("data.")}
    base = {"data": {"class_path": f"nas_lightning.datamodules.{values['data']}", "init_args": data}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    settings = {name: value for name, value in values.items() if not name.startswith("data")}
    settings |= {"trainer.max_epochs": 2, "trainer.accumulate_grad_batches": 2}
    contour = {"resolution": 3, "direction_seeds": [0, 1]}
    callbacks = [{"class_path": "nas_lightning.callbacks.LossContour", "init_args": contour}]
    (tmp_path / "contour.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": callbacks}}))
    content = {
        "name": "real",
        "configs": ["base.yaml"],
        "settings": settings,
        "analyses": ["contour.yaml"],
        "axes": {"architectures": ["darts_v2:C4"], "seeds": [7]},
    }
    (tmp_path / "real.yaml").write_text(yaml.safe_dump(content))
    study = read_study(tmp_path / "real.yaml", tmp_path / "tb_logs")
    run = study.runs[0]
    process = run_process(run.arguments, tmp_path)
    assert process.returncode == 0, process.stderr
    row = only_row(collect_results(study))
    assert (row["variant"], row["data"], row["seed"]) == ("C4", "Synthetic", 7)
    checkpoint = read_checkpoint(run.folder / "checkpoints" / "last.ckpt")
    assert row["steps_per_epoch"] * 2 == checkpoint["global_step"] == 4
    result, metrics = read_result(run.folder), read_metrics(run.folder)
    assert row["final_loss"] == result["final"]["loss/test"] == metrics[1]["loss/test"]
    assert row["parameters"] == result["cell"]["parameters"]
    assert (row["width"], row["depth"]) == (result["cell"]["width"], result["cell"]["depth"])
    assert row["weights_sha256"] == result["provenance"]["weights_sha256"]
    curves = {
        name: [epoch[tag] for epoch in metrics]
        for name, tag in (("loss", "loss/test"), ("accuracy", "accuracy/test"), ("train_loss", "loss/train"))
    }
    for name, value in convergence_statistics(curves, 10, 2).items():
        assert row[name] == pytest.approx(value, nan_ok=True)
    seconds = sum(48 / epoch["images_per_second"] for epoch in metrics)
    assert row["training_seconds"] == pytest.approx(seconds)
    curvature = read_dataset(row["loss_contour_file"])["curvature_mean"].to_numpy()
    assert row["loss_contour.curvature_mean"] == pytest.approx(curvature.mean())
    assert row["loss_contour.curvature_mean.sd"] == pytest.approx(curvature.std(ddof=1))
    assert set(row.index) - set(RUN_COLUMNS) <= {
        name for name in row.index if name.startswith("settings.data.") or ".optimizer.init_args." in name
    }
    # As an earlier version wrote it: without an identity, in a folder with another hash.
    path = run.folder / "result.json"
    content = json.loads(path.read_text())
    assert content.pop("deciding") == run.deciding
    assert content.pop("identity").startswith(run.name[-8:])
    path.write_text(json.dumps(content))
    run.folder.rename(run.folder.with_name(f"{run.name[:-8]}01234567"))
    (earlier,) = read_study(tmp_path / "real.yaml", tmp_path / "tb_logs").runs
    assert earlier.name == f"{run.name[:-8]}01234567"
    assert only_row(collect_results(study_of(tmp_path, [earlier])))["final_loss"] == row["final_loss"]
    content["settings"]["model.optimizer"]["init_args"]["nesterov"] = True
    (earlier.folder / "result.json").write_text(json.dumps(content))
    problem = "model.optimizer.init_args.nesterov True, planned False"
    assert problem in collect_results(study_of(tmp_path, [earlier])).problems[0]
