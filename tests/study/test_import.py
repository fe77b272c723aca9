from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from nas_lightning.cells import cell_depth, cell_width, count_parameters, multiply_adds
from nas_lightning.study.convergence import convergence_statistics
from nas_lightning.study.import_files import import_study
from nas_lightning.study.imported import sources
from nas_lightning.study.read import read_study
from nas_lightning.study.results import CURVE_COLUMNS, RUN_COLUMNS, Results, collect_results, write_results
from tests.study.import_files import (
    accuracy_curves,
    grouped_text,
    nds_training,
    random_cells,
    tidy_table,
    write_nds,
    write_random_darts,
)

CURVES = os.environ.get("NAS_LIGHTNING_RANDOM_DARTS_CURVES")


def imported(folder: Path, source: str, *files: Path, **told: str) -> Results:
    import_study(source, files, folder / "study.yaml", told)
    return collect_results(read_study(folder / "study.yaml", folder / "logs"))


def test_random_darts_gives_a_run_a_cell_with_what_is_said_of_them_and_nothing_else(tmp_path: Path) -> None:
    results = imported(tmp_path, "random-darts", *write_random_darts(tmp_path, count=12, epochs=10))
    cells, curves = random_cells(12), accuracy_curves(random_cells(12), 10) / 100
    runs = results.runs
    assert runs["genotype"].tolist() == [str(cell) for cell in cells]
    assert runs["width"].tolist() == [cell_width(cell.normal, cell.normal_concat) for cell in cells]
    assert runs["depth"].tolist() == [cell_depth(cell.normal, cell.normal_concat) for cell in cells]
    assert runs["architecture"].tolist() == [f"DARTS space:cell {number}" for number in range(1, 13)]
    assert set(runs["kind"]) == {"sampled"}
    assert runs["final_accuracy"].tolist() == pytest.approx(curves[:, -1])
    assert runs["best_accuracy"].tolist() == pytest.approx(curves.max(axis=1))
    first = runs.iloc[0]
    known = {
        **{"data": "CIFAR10", "num_classes": 10, "learning_rate": 0.025, "batch_size": 96, "cutout": 16},
        **{"epochs": 10, "steps_per_epoch": 520, "regularized": True, "evaluation_split": "test"},
        **{"init_channels": 36, "num_cells": 20, "train_size": 50_000, "evaluation_size": 10_000},
        **{
            "parameters": count_parameters(cells[0]),
            "live_parameters": count_parameters(cells[0], live=True),
        },
        **{"multiply_adds": multiply_adds(cells[0]), "diverged": False},
    }
    assert {name: first[name] for name in known} == known
    statistics = convergence_statistics({"accuracy": curves[0], "loss": None, "train_loss": None}, 10, 520)
    assert first["mean_error"] == pytest.approx(statistics["mean_error"])
    unknown = ["seed", "final_loss", "area_under_loss", "area_under_loss_clipped", "training_seconds"]
    assert runs[unknown].isna().all(axis=None)
    curve = results.curves[results.curves["run"] == first["run"]]
    assert curve["accuracy"].tolist() == pytest.approx(curves[0])
    assert curve["epoch"].tolist() == list(range(10))
    assert curve["step"].tolist() == [520 * epoch for epoch in range(1, 11)]
    assert results.curves[["loss", "train_loss", "seed"]].isna().all(axis=None)


@pytest.mark.parametrize("source", sources())
def test_types_of_columns_are_those_of_our_own_runs(tmp_path: Path, source: str) -> None:
    results = imported(tmp_path, source, *made_up_files(tmp_path, source))
    found = {str(name): str(dtype) for name, dtype in results.runs.dtypes.items()}
    assert {name: found[name] for name in RUN_COLUMNS} == dict(RUN_COLUMNS)
    assert {str(name): str(dtype) for name, dtype in results.curves.dtypes.items()} == dict(CURVE_COLUMNS)
    write_results(results)
    read = pd.read_parquet(results.study.output_folder / "results.parquet")
    pd.testing.assert_frame_equal(read, results.runs)


def made_up_files(folder: Path, source: str) -> tuple[Path, ...]:
    if source == "random-darts":
        return write_random_darts(folder)
    if source == "nds":
        return (write_nds(folder / "DARTS.json"),)
    tidy_table().to_csv(folder / "curves.csv", index=False)
    return (folder / "curves.csv",)


def test_the_study_says_where_it_comes_from_and_its_tables_are_checked(tmp_path: Path) -> None:
    files = write_random_darts(tmp_path)
    results = imported(tmp_path, "random-darts", *files, title="Mine")
    study = results.study
    assert study.imported is not None
    assert (study.name, study.title, study.runs) == ("study", "Mine", ())
    assert [name for name, _ in study.imported.files] == ["genotypes.pkl", "curves.npy"]
    assert "Yang" in study.imported.citation
    assert study.imported.stated["learning_rate"]["value"] == 0.025
    content = yaml.safe_load((tmp_path / "study.yaml").read_text())
    assert content["imported"]["left_out"] == 0
    study.imported.curves.write_bytes(b"other")
    with pytest.raises(ValueError, match=r"study-curves\.parquet is not the table that was imported"):
        collect_results(study)
    study.imported.curves.unlink()
    with pytest.raises(FileNotFoundError, match=r"study-curves\.parquet does not exist; import again"):
        collect_results(study)


def test_imported_results_cannot_be_included(tmp_path: Path) -> None:
    imported(tmp_path, "random-darts", *write_random_darts(tmp_path))
    (tmp_path / "both.yaml").write_text("{name: both, include: [study.yaml]}")
    with pytest.raises(ValueError, match="imported results cannot be included"):
        read_study(tmp_path / "both.yaml")


def test_an_import_replaces_an_import_and_no_other_file(tmp_path: Path) -> None:
    files = write_random_darts(tmp_path)
    assert len(imported(tmp_path, "random-darts", *files).runs) == 12
    assert len(imported(tmp_path, "random-darts", *write_random_darts(tmp_path, count=5)).runs) == 5
    (tmp_path / "study.yaml").write_text("name: mine\n")
    with pytest.raises(ValueError, match=r"study\.yaml exists and is no imported study"):
        imported(tmp_path, "random-darts", *files)


@pytest.mark.parametrize("name", ["study-runs.parquet", "study-curves.parquet"])
def test_a_source_or_a_foreign_table_is_never_overwritten(tmp_path: Path, name: str) -> None:
    tidy_table().to_parquet(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(ValueError, match=rf"would overwrite .*{re.escape(name)}, which it imports"):
        imported(tmp_path, "table", tmp_path / name)
    with pytest.raises(ValueError, match=rf"{re.escape(name)} exists and is no part of an import"):
        imported(tmp_path, "random-darts", *write_random_darts(tmp_path))
    assert (tmp_path / name).read_bytes() == before
    assert not (tmp_path / "study.yaml").exists()


def test_tables_of_a_killed_import_and_damaged_ones_are_replaced(tmp_path: Path) -> None:
    files = write_random_darts(tmp_path)
    imported(tmp_path, "random-darts", *files)
    (tmp_path / "study.yaml").unlink()
    assert len(imported(tmp_path, "random-darts", *files).runs) == 12
    (tmp_path / "study-runs.parquet").write_bytes(b"damaged")
    assert len(imported(tmp_path, "random-darts", *files).runs) == 12


# The pickle.


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_names_a_function_is_refused_and_executes_nothing(
    tmp_path: Path, protocol: int
) -> None:
    pickled, array = write_random_darts(tmp_path)
    trace = tmp_path / "trace"
    pickled.write_bytes(pickle.dumps([("GENOTYPE", Evil(trace))], protocol=protocol))
    with pytest.raises(ValueError, match=r"genotypes\.pkl is refused: it names \w+\.system") as caught:
        imported(tmp_path, "random-darts", pickled, array)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"\x80\x03cnumpy.core.multiarray\nscalar\n\x85R.",  # no dtype
        b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93\x8c\x01O\x85R.",  # NumPy's objects
        b"\x80\x03cnumpy\ndtype.__init__.__globals__\n.",
        b"\x80\x03]r\xff\xff\xff\x7f.",  # room for two billion objects
        b"",
        b"PK\x03\x04",
    ],
)
def test_a_damaged_or_foreign_pickle_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    pickled, array = write_random_darts(tmp_path)
    pickled.write_bytes(content)
    with pytest.raises(ValueError, match=r"genotypes\.pkl is refused: .") as caught:
        imported(tmp_path, "random-darts", pickled, array)
    assert "\n" not in str(caught.value)


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    pickled, array = write_random_darts(tmp_path)
    np.save(array, np.array([[Evil(tmp_path / "trace")]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"curves\.npy is no array of numbers"):
        imported(tmp_path, "random-darts", pickled, array)
    assert not (tmp_path / "trace").exists()


# What is left out.


def test_rows_that_cannot_be_used_are_named_and_the_others_are_used(tmp_path: Path) -> None:
    pickled, array = write_random_darts(tmp_path, count=8)
    cells, curves = random_cells(8), accuracy_curves(random_cells(8), 10)
    pairs: list[Any] = [(grouped_text(cell), row.max()) for cell, row in zip(cells, curves, strict=True)]
    pairs[1] = ("GENOTYPE=print('x')", pairs[1][1])
    pairs[2] = (pairs[2][0].replace("sep_conv_3x3", "transformer", 1), pairs[2][1])
    pairs[3] = (pairs[3][0], pairs[3][1] + 1)
    pairs[4] = pairs[0]
    curves[4] = curves[0]
    pairs[5] = "no pair"
    curves[6] = np.nan
    curves[7, 2:4] = np.nan
    pairs[7] = (pairs[7][0], np.nanmax(curves[7]))
    pickled.write_bytes(pickle.dumps(pairs))
    np.save(array, np.vstack([curves, curves[:1]]))
    results = imported(tmp_path, "random-darts", pickled, array)
    assert results.runs["variant"].tolist() == ["cell 1", "cell 8"]
    assert results.study.imported is not None
    assert results.study.imported.left_out == 7
    expected = [
        r"genotypes\.pkl, row 2 is left out: .* is no genotype literal",
        r"genotypes\.pkl, row 3 is left out: .* unknown operation 'transformer'",
        r"genotypes\.pkl, row 4 is left out: its accuracy .* is not the best .* of its row in curves\.npy",
        r"genotypes\.pkl, row 5 is left out: cell-001 has the same cells, data, settings and seed",
        r"genotypes\.pkl, row 6 is left out: it is no pair of a genotype and an accuracy",
        r"genotypes\.pkl, row 7 is left out: it has no accuracy",
        r"genotypes\.pkl, row 8 has no accuracy for 2 epochs of 10",
        r"curves\.npy, row 9 is left out: genotypes\.pkl has no such row",
    ]
    assert len(results.problems) == len(expected)
    for line, pattern in zip(results.problems, expected, strict=True):
        assert re.match(pattern, line), line
        assert "\n" not in line


def test_two_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    pickled, array = write_random_darts(tmp_path, count=9)
    np.save(array, np.load(array)[::-1])  # the middle row agrees
    with pytest.raises(
        ValueError, match=r"do not belong together: 8 rows of 9 disagree; genotypes\.pkl, row 1"
    ):
        imported(tmp_path, "random-darts", pickled, array)


@pytest.mark.parametrize(
    ("source", "names", "message"),
    [
        ("random-darts", ["genotypes.pkl"], r"takes two files, a \.pkl of genotypes and a \.npy"),
        ("random-darts", ["missing.pkl", "curves.npy"], r"missing\.pkl is not a file"),
        ("nds", ["curves.npy"], r"curves\.npy must be named SPACE\.json"),
        ("nds", ["ResNet.json"], r"ResNet\.json must be named SPACE\.json"),
        ("nds", ["ENAS.json"], r"ENAS\.json is no JSON"),
        ("nds", ["PNAS.json"], r"nothing in .*PNAS\.json can be used: PNAS\.json, row 1 is left out"),
        ("table", ["curves.npy"], r"curves\.npy cannot be read: the name must end in \.csv or \.parquet"),
        ("table", ["other.parquet"], r"other\.parquet cannot be read"),
        (
            "table",
            ["other.csv"],
            r"other\.csv lacks the columns genotype, data, epoch, accuracy; it has a, b",
        ),
    ],
)
def test_a_file_of_another_format_is_named(
    tmp_path: Path, source: str, names: list[str], message: str
) -> None:
    write_random_darts(tmp_path)
    (tmp_path / "ENAS.json").write_text("[" * 10_000)
    (tmp_path / "ResNet.json").write_text("[]")
    (tmp_path / "PNAS.json").write_text(json.dumps([{"net": {"block_type": "res_basic"}}]))
    (tmp_path / "other.parquet").write_bytes(b"no parquet")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        imported(tmp_path, source, *(tmp_path / name for name in names))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "study.yaml").exists()


def test_the_name_of_a_study_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be named NAME\.yaml"):
        import_study("random-darts", write_random_darts(tmp_path), tmp_path / "study.json")


# NDS.


@pytest.mark.parametrize("halves", [False, True])
def test_nds_gives_settings_seeds_and_three_curves(tmp_path: Path, halves: bool) -> None:
    results = imported(tmp_path, "nds", write_nds(tmp_path / "DARTS_fix-w-d.json", halves=halves))
    cells, curves = random_cells(6), accuracy_curves(random_cells(6), 10)
    runs, first = results.runs, results.runs.iloc[0]
    assert runs["architecture"].tolist() == [f"DARTS space:fix-w-d {number}" for number in range(1, 7)]
    assert runs["final_error_percent"].tolist() == pytest.approx(100 - curves[:, -1])
    assert runs["final_train_accuracy"].tolist() == pytest.approx((curves[:, -1] + 1) / 100)
    assert runs["final_train_loss"].tolist() == pytest.approx(1 - curves[:, -1] / 100)
    known = {
        **{"seed": 1, "learning_rate": 0.1, "init_channels": 8, "num_cells": 5, "drop_path": 0.0},
        **{"auxiliary_weight": 0.0, "cutout": 0, "regularized": False, "data": "CIFAR10", "num_classes": 10},
        "settings.model.optimizer.init_args.weight_decay": "0.0005",
        "parameters": count_parameters(cells[0], init_channels=8, num_cells=5),
    }
    assert {name: first[name] for name in known} == known
    assert (
        runs[["batch_size", "steps_per_epoch", "steps_to_accuracy_0.8", "final_loss"]].isna().all(axis=None)
    )
    assert runs["epochs_to_accuracy_0.8"].notna().all()


def test_nds_operations_without_a_formula_count_in_topology_and_not_in_size(tmp_path: Path) -> None:
    cell = [["max_pool_7x7", 0], ["conv_3x3", 1], ["dil_sep_conv_3x3", 2], ["conv_1x1", 0]]
    genotype = {"normal": cell, "normal_concat": [3], "reduce": cell, "reduce_concat": [2, 3]}
    path = write_nds(tmp_path / "NASNet_in.json", [nds_training(genotype, np.linspace(10, 70, 5))])
    (_, run), *_ = imported(tmp_path, "nds", path).runs.iterrows()
    assert (run["width"], run["depth"], run["family"], run["data"]) == (1.5, 3, "NASNet space", "ImageNet")
    assert run[["parameters", "multiply_adds"]].isna().all()
    assert run["num_classes"] == 1000


def test_nds_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    good, accuracy = random_cells(7), np.linspace(10, 70, 5)
    rows: list[Any] = [nds_training(cell, accuracy, seed=3) for cell in good]
    rows[1]["test_ep_top1"] = rows[1]["test_ep_top1"][:3]
    rows[2]["test_ep_top1"][0] = 130
    del rows[3]["train_ep_loss"]
    rows[4]["net"]["genotype"]["normal"][0][0] = "attention"
    rows[5] = rows[0]
    rows[6]["net"]["aux"] = True
    results = imported(tmp_path, "nds", write_nds(tmp_path / "ENAS.json", rows))
    assert results.runs["variant"].tolist() == ["cell 1", "cell 7"]
    assert results.runs["regularized"].tolist() == [False, True]
    expected = [
        r"ENAS\.json, row 2 is left out: its curves have lengths other than its 5 epochs: accuracy 3, ",
        r"ENAS\.json, row 3 is left out: `test_ep_top1` holds 30 to 130, not percents",
        r"ENAS\.json, row 4 is left out: it is no training of a cell \(KeyError: 'train_ep_loss'\)",
        r"ENAS\.json, row 5 is left out: normal cell, .* unknown operation 'attention'",
        r"ENAS\.json, row 6 is left out: ENAS-cell-00001 has the same cells",
    ]
    for line, pattern in zip(results.problems, expected, strict=True):
        assert re.match(pattern, line), line


@pytest.mark.parametrize("key", ["depth", "width"])
def test_nds_numbers_without_end_are_named(tmp_path: Path, key: str) -> None:
    first, second = (nds_training(cell, np.full(3, 60.0)) for cell in random_cells(2))
    first["net"][key] = float("inf")
    results = imported(tmp_path, "nds", write_nds(tmp_path / "ENAS.json", [first, second]))
    (line,) = results.problems
    assert re.match(r"ENAS\.json, row 1 is left out: it is no training of a cell \(OverflowError", line), line


def test_nds_halves_must_be_lists(tmp_path: Path) -> None:
    (tmp_path / "ENAS.json").write_text('{"top": 1, "mid": 2}')
    with pytest.raises(ValueError, match=r"ENAS\.json must hold a list of trainings, or two under `top`"):
        imported(tmp_path, "nds", tmp_path / "ENAS.json")


# Tables.


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_gives_runs_of_cells_and_seeds(tmp_path: Path, suffix: str) -> None:
    table = tidy_table(space="my space", init_channels=16, num_cells=8, regularized=False, loss=1.5)
    table = pd.concat([table, table.assign(seed=1), table[:5].assign(genotype="darts:C4", seed=2)])
    path = tmp_path / f"curves.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    runs = imported(tmp_path, "table", path, citation="Someone, 2026").runs
    assert len(runs) == 9
    assert runs["architecture"].tolist()[:4] == [f"my space:cell {number}" for number in range(1, 5)]
    assert runs["architecture"].tolist()[4:8] == runs["architecture"].tolist()[:4]
    assert runs["seed"].tolist() == [0] * 4 + [1] * 4 + [2]
    last = runs.iloc[-1]
    assert (last["architecture"], last["kind"]) == ("darts_v2:C4", "connections")
    assert runs["final_loss"].tolist() == [1.5] * 9
    assert runs["parameters"].notna().all()
    assert runs["regularized"].eq(False).all()
    assert runs[["learning_rate", "batch_size"]].isna().all(axis=None)


def test_a_table_without_seeds_classes_or_known_data_is_used(tmp_path: Path) -> None:
    table = tidy_table().drop(columns="seed").assign(data="Flowers")
    table.to_csv(tmp_path / "curves.csv", index=False)
    runs = imported(tmp_path, "table", tmp_path / "curves.csv").runs
    assert runs[["seed", "num_classes", "diverged", "regularized", "parameters"]].isna().all(axis=None)
    assert runs["mean_error"].notna().all()


def test_rows_of_a_table_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    table = tidy_table(count=6, epochs=4).astype(object)
    table.loc[1, "accuracy"] = "high"
    table.loc[2, "epoch"] = 1
    table.loc[4, "accuracy"] = 97.0
    table.loc[5, "accuracy"] = ""
    table.loc[8:11, "genotype"] = "resnet"
    table.loc[12:15, "seed"] = -1
    table.loc[16:19, "data"] = ""
    table.loc[20, "epoch"] = 0
    table["note"] = "x"
    table.to_csv(tmp_path / "curves.csv", index=False)
    results = imported(tmp_path, "table", tmp_path / "curves.csv")
    assert results.runs["variant"].tolist() == ["cell 1", "cell 2", "cell 5"]
    expected = [
        r"curves\.csv: columns that are not read: note",
        r"curves\.csv, row 2 is not used: `accuracy` \(='high'\) must be a number",
        r"curves\.csv, row 3 is not used: epoch 1 of this training appears twice",
        r"curves\.csv, row 1 has no accuracy for 2 epochs of 4",
        r"curves\.csv, row 5 is not used: `accuracy` \(=97\) must be a fraction from 0 to 1",
        r"curves\.csv, row 5 has no accuracy for 2 epochs of 4",
        r"curves\.csv, row 9, with the other rows of its training, is left out: .*unknown genotype",
        r"curves\.csv, row 13, with the other rows .* is left out: `seed` \(=-1\) must be a whole",
        r"curves\.csv, row 17, with the other rows .* is left out: it has no `data`",
        r"curves\.csv, row 21 is not used: `epoch` \(=0\) must be a whole number; epochs count from 1",
        r"curves\.csv, row 21 has no accuracy for an epoch of 4",
    ]
    for line, pattern in zip(results.problems, expected, strict=True):
        assert re.match(pattern, line), line


def test_curves_of_different_lengths_are_used_and_named(tmp_path: Path) -> None:
    table = tidy_table(count=3, epochs=5)
    table[:-2].to_csv(tmp_path / "curves.csv", index=False)
    results = imported(tmp_path, "table", tmp_path / "curves.csv")
    assert results.runs["epochs"].tolist() == [5, 5, 3]
    (line,) = results.problems
    assert (
        line == "curves have different lengths (1 of 3 epochs, 2 of 5 epochs): only equal ones are compared"
    )


def test_a_genotype_file_is_not_opened(tmp_path: Path) -> None:
    tidy_table(count=1).assign(genotype="/etc/cells.yaml").to_csv(tmp_path / "curves.csv", index=False)
    with pytest.raises(ValueError, match="`genotype` must be a literal or the name of a published cell"):
        imported(tmp_path, "table", tmp_path / "curves.csv")


def test_tables_of_one_name_are_refused_and_cells_are_numbered_through(tmp_path: Path) -> None:
    table = tidy_table(count=4, space="mine")
    for name, part in (("first", table[:10]), ("second", table[10:])):
        part.to_csv(tmp_path / f"{name}.csv", index=False)
    table[:10].to_parquet(tmp_path / "first.parquet")
    with pytest.raises(ValueError, match=r"first\.csv and .*first\.parquet have one name"):
        imported(tmp_path, "table", tmp_path / "first.csv", tmp_path / "first.parquet")
    results = imported(tmp_path, "table", tmp_path / "first.csv", tmp_path / "second.csv")
    assert results.runs["variant"].tolist() == [f"cell {number}" for number in range(1, 5)]
    table[5:].to_csv(tmp_path / "second.csv", index=False)
    results = imported(tmp_path, "table", tmp_path / "first.csv", tmp_path / "second.csv")
    assert len(results.runs) == 4
    (line,) = results.problems
    assert line == "second.csv, row 1 is left out: first-00002 has the same cells, data, settings and seed"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("num_cells", 0, "1 to 1000"),
        ("num_cells", 10**9, "1 to 1000"),
        ("init_channels", 0, "1 to 10000"),
        ("init_channels", 10**30, "1 to 10000"),
        ("seed", 2**63, "0 to 9223372036854775807"),
        ("batch_size", 0, "1 to 1000000000"),
    ],
)
def test_settings_that_no_network_has_are_named(tmp_path: Path, name: str, value: int, shown: str) -> None:
    table = tidy_table(count=2, init_channels=16, num_cells=8).astype({"seed": object})
    table[name] = [value] * 5 + [3] * 5
    table.to_csv(tmp_path / "curves.csv", index=False)
    results = imported(tmp_path, "table", tmp_path / "curves.csv")
    assert len(results.runs) == 1
    (line,) = results.problems
    assert re.fullmatch(rf"curves\.csv, row 1 is left out: `{name}` \(=.*\) must be from {shown}", line), line


def test_rows_longer_than_the_header_do_not_shift_the_columns(tmp_path: Path) -> None:
    text = tidy_table(count=1).to_csv(index=False)
    header, *rows = text.splitlines()
    (tmp_path / "curves.csv").write_text("\n".join([header, *(f"{row},9" for row in rows)]))
    with pytest.raises(ValueError, match=r"curves\.csv cannot be read: it has rows longer than its header"):
        imported(tmp_path, "table", tmp_path / "curves.csv")


def test_the_reason_is_the_row_and_not_a_column_that_is_not_read(tmp_path: Path) -> None:
    tidy_table(count=1, epochs=1).assign(note="x", genotype="resnet").to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(
        ValueError, match=r"c\.csv, row 1, .* left out: `genotype`: unknown genotype 'resnet'"
    ):
        imported(tmp_path, "table", tmp_path / "c.csv")


# The real files.


@pytest.mark.skipif(
    CURVES is None, reason="set NAS_LIGHTNING_RANDOM_DARTS_CURVES to the folder of the 214 curves"
)
def test_the_214_cells(tmp_path: Path) -> None:
    folder = Path(str(CURVES))
    files = (folder / "214genotypes.pkl", folder / "214_random_architectures.npy")
    results = imported(tmp_path, "random-darts", *files)
    assert results.problems == ()
    runs = results.runs
    assert len(runs) == runs["genotype"].nunique() == 214
    assert runs["epochs"].eq(600).all()
    # The mean, deviation and extremes of the largest accuracies.
    best = 100 * runs["best_accuracy"]
    assert (best.max(), best.min()) == pytest.approx((97.56, 96.18), abs=0.005)
    assert runs["width"].mean() == pytest.approx(2.62, abs=0.01)
