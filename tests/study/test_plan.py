"""A study's file is the runs that it says, and a training has one name wherever it stands."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from nas_lightning.acceleration.level import Speed
from nas_lightning.cells import get_genotype
from nas_lightning.classifier import CellClassifier
from nas_lightning.study.configuration import (
    DEFAULT_OPTIMIZER,
    DEFAULTS,
    NOT_DECIDING,
    SAME_MATHEMATICS,
    flatten,
    merge,
    nest,
    with_class_paths,
)
from nas_lightning.study.plan import read_study
from nas_lightning.study.study import Run, Study
from tests.cli.parsing import ParsedOnly

BASE: dict[str, Any] = {
    "model": {"num_cells": 3, "init_channels": 4, "optimizer": {"class_path": "torch.optim.SGD"}},
    "data": {"class_path": "nas_lightning.datamodules.Synthetic", "init_args": {"batch_size": 16}},
    "trainer": {"max_epochs": 2},
}
BASE["model"]["optimizer"]["init_args"] = {"lr": 0.1}
CONTOUR = {"class_path": "nas_lightning.callbacks.LossContour", "init_args": {"resolution": 3}}
VARIANCE = {"class_path": "GradientVariance", "init_args": {"resolution": 3}}


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def study(
    folder: Path,
    base: dict[str, Any] = BASE,
    *,
    analyses: tuple[dict[str, Any], ...] = (),
    file: str = "study.yaml",
    **content: Any,
) -> Study:
    """A study of one base configuration; ``root`` of ``content`` is an argument of ``read_study``."""
    root = content.pop("root", None)
    stem = Path(file).stem
    write(folder / f"{stem}-base.yaml", base)
    files = []
    for number, callback in enumerate(analyses):
        files.append(f"{stem}-analysis{number}.yaml")
        write(folder / files[-1], {"trainer": {"callbacks+": [callback]}})
    whole = {"name": "mine", "configs": [f"{stem}-base.yaml"], "analyses": files} | content
    return read_study(write(folder / file, whole), root)


def only_run(folder: Path, base: dict[str, Any] = BASE, **content: Any) -> Run:
    (run,) = study(folder, base, **content).runs
    return run


def changed(key: str, value: object) -> dict[str, Any]:
    return merge(copy.deepcopy(BASE), nest({key: value}))


def test_runs_are_the_product_of_the_axes_seed_by_seed(tmp_path: Path) -> None:
    for name in ("Digits", "Synthetic"):
        write(tmp_path / f"{name}.yaml", {"data": name})
    found = study(
        tmp_path,
        axes={
            "architectures": ["darts_v2 and C1..C2"],
            "data": ["Digits.yaml", "Synthetic.yaml"],
            "learning_rates": [0.1, 0.2],
            "data.batch_size": [8, 16],
            "seeds": [3, 4],
        },
    )
    assert len(found.runs) == 3 * 2 * 2 * 2 * 2
    assert len({run.name for run in found.runs}) == len(found.runs)
    assert [run.seed for run in found.runs] == [3] * 24 + [4] * 24
    combinations = {
        (r.architecture.label, r.data, r.learning_rate, r.settings["data.init_args.batch_size"], r.seed)
        for r in found.runs
    }
    assert len(combinations) == 48
    assert {run.data for run in found.runs} == {"Digits", "Synthetic"}


def test_a_run_says_where_and_how(tmp_path: Path) -> None:
    run = only_run(
        tmp_path,
        root=tmp_path / "logs",
        experiment="together",
        analyses=(CONTOUR,),
        settings={"model": {"drop_path": 0.1}, "data.cutout": 4},
        axes={"architectures": ["enas:C4"], "learning_rates": [0.25], "seeds": [7]},
    )
    assert run.name.startswith("enas-C4-synthetic-lr0.25-seed7-")
    assert run.folder == tmp_path / "logs" / "together" / run.name
    assert (run.data, run.learning_rate, run.seed, run.epochs) == ("Synthetic", 0.25, 7, 2)
    assert [analysis.path(run.folder, run.epochs) for analysis in run.analyses] == [
        run.folder / "landscape" / "loss_contour-epoch0001.nc"
    ]
    arguments = run.arguments
    assert arguments[:3] == ("fit", "--config", str(tmp_path / "study-base.yaml"))
    pairs = dict(zip(arguments[3::2], arguments[4::2], strict=True))
    assert json.loads(pairs.pop("--trainer.callbacks")) == [CONTOUR]
    assert pairs == {
        "--model.genotype": "enas:C4",
        "--model.drop_path": "0.1",
        "--data.init_args.cutout": "4",
        "--model.optimizer.init_args.lr": "0.25",
        "--seed_everything": "7",
        "--experiment": "together",
        "--run": run.name,
        "--trainer.default_root_dir": str(tmp_path / "logs"),
    }


def test_a_plain_study_takes_the_configuration_as_it_is(tmp_path: Path) -> None:
    found = study(tmp_path, changed("model.genotype", "darts") | {"seed_everything": 5}, name="plain")
    assert (found.title, found.experiment, found.root) == ("plain", "plain", Path("tb_logs"))
    assert found.output_folder == Path("tb_logs/plain/reports/plain")
    (run,) = found.runs
    assert (run.architecture.label, run.seed, run.learning_rate) == ("darts_v2", 0, 0.1)
    assert "--trainer.callbacks" not in run.arguments
    own_root = study(tmp_path, changed("trainer.default_root_dir", "elsewhere"))
    assert own_root.runs[0].folder == Path("elsewhere/mine") / run.name


# The one training of BASE; a name changes with every setting that decides, and with no other.


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.num_cells", 4),
        ("model.drop_path", 0.2),
        ("model.auxiliary_weight", 0.4),
        ("model.optimizer.init_args.lr", 0.2),
        ("model.optimizer.init_args.momentum", 0.5),
        ("model.optimizer.class_path", "torch.optim.Adam"),
        ("model.lr_scheduler", "torch.optim.lr_scheduler.ConstantLR"),
        ("data.class_path", "nas_lightning.datamodules.Digits"),
        ("data.init_args.batch_size", 32),
        ("data.init_args.cutout", 2),
        ("data.init_args.validation_fraction", 0.5),
        ("data.init_args.seed", 1),
        ("trainer.max_epochs", 3),
        ("trainer.gradient_clip_val", 1.0),
        ("trainer.precision", "bf16-mixed"),
        ("model.speed", "max"),
        ("trainer.limit_train_batches", 1),
        ("trainer.callbacks", [{"class_path": "lightning.pytorch.callbacks.EarlyStopping"}]),
    ],
)
def test_a_setting_that_decides_changes_the_name(tmp_path: Path, key: str, value: object) -> None:
    before, after = only_run(tmp_path), only_run(tmp_path, changed(key, value))
    assert before.name.rpartition("-")[2] != after.name.rpartition("-")[2]


def test_a_batch_is_not_the_whole_epoch(tmp_path: Path) -> None:
    names = {
        only_run(tmp_path, changed("trainer.limit_train_batches", limit)).name for limit in (1, 1.0, 0.5)
    }
    assert len(names) == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer.devices", 2),
        ("trainer.accelerator", "cpu"),
        ("trainer.strategy", {"class_path": "DDPStrategy", "init_args": {"find_unused_parameters": True}}),
        ("trainer.num_nodes", 2),
        ("trainer.logger", False),
        ("trainer.enable_progress_bar", False),
        ("trainer.default_root_dir", "elsewhere"),
        ("trainer.callbacks", [CONTOUR, VARIANCE]),
        ("data.init_args.root", "somewhere"),
        ("data.init_args.evaluation_batch_size", 10),
        ("experiment", "another"),
        ("run", "another"),
        # The same, said otherwise.
        ("model.stem_stride", 1),
        ("trainer.gradient_clip_val", 5),
        ("model.drop_path", 0),
        ("model.optimizer.class_path", "SGD"),
        ("data.class_path", "Synthetic"),
        ("model.genotype", "darts"),
        ("data.init_args.validation_seed", 5),
        ("model.speed", "auto"),
        ("model.speed", "reference"),
        ("model.speed", "fast"),
        ("model.speed", "compiled"),
        ("trainer.precision", None),
        ("trainer.precision", 32),
        ("trainer.precision", "32-true"),
    ],
)
def test_no_other_setting_changes_the_name(tmp_path: Path, key: str, value: object) -> None:
    assert only_run(tmp_path).name == only_run(tmp_path, changed(key, value)).name


def test_a_name_belongs_to_the_training_alone(tmp_path: Path) -> None:
    before = only_run(tmp_path).name
    turned = {key: dict(reversed(BASE[key].items())) for key in reversed(BASE)}
    assert list(turned) != list(BASE)
    assert only_run(tmp_path, turned).name == before
    assert only_run(tmp_path, root=tmp_path, name="other", title="t", experiment="e").name == before
    assert only_run(tmp_path, axes={"seeds": [0], "learning_rates": [1e-1]}).name == before
    assert only_run(tmp_path, changed("model.num_cells", 9), settings={"model.num_cells": 3}).name == before
    assert only_run(tmp_path, axes={"seeds": [1]}).name.replace("seed1", "seed0")[:-8] == before[:-8]
    assert only_run(tmp_path, axes={"seeds": [1]}).name[-8:] != before[-8:]


def test_a_name_is_a_folder_of_bounded_length(tmp_path: Path) -> None:
    file = write(tmp_path / f"{'long' * 40}.yaml", str(get_genotype("pdarts:connections=99")))
    run = only_run(tmp_path, axes={"architectures": [file.name]})
    assert len(run.name) == 120
    assert run.name.startswith("longlong")
    assert Path(run.name).name == run.name


def test_the_defaults_are_the_command_line_s() -> None:
    parsed = flatten(ParsedOnly(["fit", "--data=Digits"]).settings.as_dict())
    ours = flatten(DEFAULTS)
    assert {key: parsed.get(key) for key in ours} == ours


def test_the_default_optimizer_is_the_command_line_s(tmp_path: Path) -> None:
    optimizer = CellClassifier(init_channels=2, num_cells=1).make_optimizer()
    assert f"torch.optim.{type(optimizer).__name__}" == DEFAULT_OPTIMIZER["class_path"]
    assert {key: optimizer.defaults[key] for key in DEFAULT_OPTIMIZER["init_args"]} == DEFAULT_OPTIMIZER[
        "init_args"
    ]
    bare = {key: value for key, value in BASE.items() if key != "model"}
    assert only_run(tmp_path, bare).learning_rate == 0.025
    adam = bare | {"model": {"optimizer": {"class_path": "torch.optim.Adam"}}}
    run = only_run(tmp_path, adam)
    assert (run.learning_rate, "-lr" in run.name) == (None, False)


def test_merged_settings_are_what_the_parser_makes(tmp_path: Path) -> None:
    overlay = {"data": {"class_path": "Digits"}, "model": {"drop_path": 0.3}, "trainer": {"max_epochs": 5}}
    write(tmp_path / "data.yaml", overlay)
    run = only_run(
        tmp_path,
        analyses=(CONTOUR, VARIANCE),
        settings={"model.auxiliary_weight": 0.1, "trainer.precision": "bf16-mixed"},
        axes={"data": ["data.yaml"], "data.batch_size": [24], "learning_rates": [3e-4], "seeds": [2]},
    )
    parsed = ParsedOnly(list(run.arguments)).settings.as_dict()
    names = [callback["class_path"].rpartition(".")[2] for callback in parsed["trainer"].pop("callbacks")]
    assert sorted(names) == ["GradientVariance", "LossContour"]
    flat = flatten(parsed)
    said = {key: value for key, value in run.settings.items() if not key.endswith("class_path")}
    assert {key: flat[key] for key in said} == said
    assert flat["data.class_path"].endswith(f".{run.data}")


@pytest.mark.parametrize(
    "settings",
    [
        {"data": "Synthetic", "data.image_size": 16},
        {"data.image_size": 16, "data": "Synthetic"},
        {"data": {"class_path": "Synthetic", "image_size": 16}},
    ],
)
@pytest.mark.parametrize("data", [None, "Digits"])
def test_settings_may_name_the_data_class(tmp_path: Path, data: str | None, settings: dict[str, Any]) -> None:
    base = BASE if data else {"trainer": {"max_epochs": 2}}
    run = only_run(tmp_path, base | ({"data": data} if data else {}), settings=settings)
    parsed = flatten(ParsedOnly(list(run.arguments)).settings.as_dict())
    assert (run.data, run.settings["data.init_args.image_size"]) == ("Synthetic", 16)
    assert parsed["data.class_path"] == "nas_lightning.datamodules.Synthetic"
    assert parsed["data.init_args.image_size"] == 16


def test_the_seed_of_a_validation_split_counts_where_there_is_one(tmp_path: Path) -> None:
    base = changed("data.init_args.validation_fraction", 0.5)
    names = {only_run(tmp_path, base, settings={"data.validation_seed": seed}).name for seed in (0, 5)}
    assert len(names) == 2
    precisions = ("16", "16-mixed", "bf16-mixed", "64")
    names = {only_run(tmp_path, settings={"trainer.precision": value}).name for value in precisions}
    assert len(names) == 3


def test_speeds_that_round_alike_are_one_run(tmp_path: Path) -> None:
    speeds = ["auto", "reference", "fast", "compiled", "max"]
    found = study(tmp_path, axes={"model.speed": speeds}).runs
    assert [run.settings["model.speed"] for run in found] == ["auto", "max"]
    assert {*SAME_MATHEMATICS, "max"} == set(speeds) == set(get_args(Speed))
    # As with every other setting that does not decide.
    assert len(study(tmp_path, axes={"trainer.accelerator": ["cpu", "gpu"]}).runs) == 1


def test_a_genotype_in_a_configuration_does_not_change_the_name(tmp_path: Path) -> None:
    literal = {"normal": [["skip_connect", 0]], "normal_concat": [2]}
    axes = {"architectures": ["enas"]}
    assert (
        only_run(tmp_path, changed("model.genotype", literal), axes=axes).name
        == only_run(tmp_path, axes=axes).name
    )


def test_what_does_not_decide_are_settings() -> None:
    parsed = flatten(ParsedOnly(["fit", "--data=Digits", "--trainer.strategy=auto"]).settings.as_dict())
    assert set(NOT_DECIDING) <= {*parsed, "config"}


# Included studies.


def test_included_studies_share_runs_and_measurements(tmp_path: Path) -> None:
    study(
        tmp_path,
        file="a.yaml",
        experiment="e",
        analyses=(CONTOUR,),
        axes={"architectures": ["darts_v2 and C1"]},
    )
    study(
        tmp_path,
        file="b.yaml",
        experiment="e",
        analyses=(VARIANCE,),
        axes={"architectures": ["darts_v2 and C2"]},
    )
    both = read_study(write(tmp_path / "both.yaml", {"name": "both", "include": ["a.yaml", "b.yaml"]}))
    stems = {run.architecture.label: [a.stem for a in run.analyses] for run in both.runs}
    assert stems == {
        "darts_v2": ["gradient_variance", "loss_contour"],
        "darts_v2:C1": ["loss_contour"],
        "darts_v2:C2": ["gradient_variance"],
    }
    assert both.experiment == "e"
    for run in both.runs:
        callbacks = json.loads(run.arguments[run.arguments.index("--trainer.callbacks") + 1])
        assert len(callbacks) == len(run.analyses)
        assert run.arguments.count("--trainer.callbacks") == 1
    alone = {run.name for name in "ab" for run in read_study(tmp_path / f"{name}.yaml").runs}
    assert alone == {run.name for run in both.runs}


def test_included_studies_must_agree(tmp_path: Path) -> None:
    finer = {"class_path": "LossContour", "init_args": {"resolution": 5}}
    study(tmp_path, file="a.yaml", experiment="e", analyses=(CONTOUR,))
    study(tmp_path, file="b.yaml", experiment="e", analyses=(finer,))
    both = write(tmp_path / "both.yaml", {"name": "both", "include": ["a.yaml", "b.yaml"]})
    with pytest.raises(
        ValueError, match=r"a.yaml and .*b.yaml measure 'loss_contour'.*`resolution`: 3 and 5"
    ):
        read_study(both)
    study(tmp_path, file="b.yaml", experiment="f")
    with pytest.raises(ValueError, match=r"`experiment` must be the same .*'e' of .*a.yaml, 'f' of .*b.yaml"):
        read_study(both)
    write(tmp_path / "a.yaml", {"name": "a", "include": ["both.yaml"]})
    with pytest.raises(ValueError, match="circle"):
        read_study(both)


def test_callbacks_of_the_configuration_are_measurements(tmp_path: Path) -> None:
    base = changed("trainer.callbacks", [CONTOUR])
    assert [a.stem for a in only_run(tmp_path, base).analyses] == ["loss_contour"]
    with_more = only_run(tmp_path, base, analyses=(VARIANCE, CONTOUR))
    assert [a.stem for a in with_more.analyses] == ["gradient_variance", "loss_contour"]
    named = {"class_path": "LossContour", "init_args": {"resolution": 9, "name": "fine"}}
    assert [a.stem for a in only_run(tmp_path, base, analyses=(named,)).analyses] == ["fine", "loss_contour"]


# What is wrong is said in one line.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"axis": {}}, "study.yaml: unknown key 'axis'; did you mean 'axes'"),
        ({"name": "a/b"}, r"`name` \(='a/b'\) must be the name of one folder"),
        ({"name": ".."}, "`name`"),
        ({"experiment": 3}, "`experiment`"),
        ({"configs": "base.yaml"}, "`configs` .* must be a list of files"),
        ({"axes": {"seed": [1]}}, "unknown axis 'seed'; did you mean 'seeds'"),
        ({"axes": {"seeds": 3}}, r"`axes: seeds` \(=3\) must be a list"),
        ({"axes": {"seeds": []}}, "`axes: seeds`"),
        ({"axes": {"seeds": [-1]}}, "-1 must be a number from 0"),
        ({"axes": {"seeds": [0, 0]}}, "has 0 twice"),
        ({"axes": {"learning_rates": [0]}}, "0 must be a number above 0"),
        ({"axes": {"learning_rates": [0.1], "model.optimizer.lr": [0.2]}}, "set the same"),
        (
            {"settings": {"data": "Digits"}, "axes": {"data": ["a.yaml"]}},
            "`data` would overrule the files of",
        ),
        ({"axes": {"data.class_path": ["Digits"]}}, "`data.class_path` belongs to a file of `axes: data`"),
        ({"axes": {"model.genotype": ["enas"]}}, "`model.genotype` belongs to `axes: architectures`"),
        ({"axes": {"architectures": ["dart_v2"]}}, "study.yaml: `architectures`, entry 'dart_v2'"),
        ({"axes": {"architectures": [3]}}, "3 must be a genotype spec"),
        ({"axes": {"model.num_cells": [3]}, "settings": {"model.num_cells": 4}}, "is fixed in `settings`"),
        ({"settings": {"seed_everything": 1}}, "`seed_everything` belongs to `axes: seeds`"),
        ({"settings": {"run": "x"}}, "`run` must be left out"),
        ({"settings": {"modl.num_cells": 1}}, "did you mean 'model'"),
        ({"settings": {"trainer.max_epochs": -1}}, r"`trainer.max_epochs` \(=-1\) must be an integer of"),
        ({"settings": {"trainer.max_epochs": "3"}}, r"`trainer.max_epochs` \(='3'\) must be an integer of"),
        (
            {"settings": {"data.validation_fraction": 2}},
            r"`data.validation_fraction` \(=2\) must be .* 0 to 1",
        ),
        ({"axes": {"model.num_cells": ["abc"]}}, r"`model.num_cells` \(='abc'\) must be an integer"),
        ({"settings": {"data": "Digts"}}, r"`data` \(=Digts\) is no data set that ships.*'Digits'"),
        ({"settings": [1]}, "`settings` must be a mapping"),
    ],
)
def test_a_wrong_study_is_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        study(tmp_path, **content)
    assert "\n" not in str(error.value)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.yaml is not a file"):
        read_study(tmp_path / "nowhere.yaml")
    with pytest.raises(FileNotFoundError, match=r"study.yaml: `configs`: gone.yaml is not a file"):
        study(tmp_path, configs=["gone.yaml"])
    write(tmp_path / "more.yaml", {"trainer": {"callbacks+": [CONTOUR]}, "model": {"num_cells": 2}})
    with pytest.raises(ValueError, match=r"`analyses`: .*more.yaml must hold `trainer: callbacks\+:`"):
        read_study(write(tmp_path / "s.yaml", {"name": "s", "analyses": ["more.yaml"]}))
    (tmp_path / "twice.yaml").write_text("name: a\nname: b\n")
    with pytest.raises(ValueError, match=r"twice.yaml is no valid YAML: 'name' appears twice"):
        read_study(tmp_path / "twice.yaml")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"list.yaml must hold settings"):
        read_study(tmp_path / "list.yaml")
    write(tmp_path / "inner.yaml", {"name": "inner", "axis": 1})
    with pytest.raises(ValueError, match=r"^\S*inner.yaml: unknown key"):
        read_study(write(tmp_path / "outer.yaml", {"name": "outer", "include": ["inner.yaml"]}))
    elsewhere = {"class_path": "LossContour", "init_args": {"folder": "x"}}
    with pytest.raises(ValueError, match=r"`folder` \(=x\) of LossContour must be left out"):
        study(tmp_path, analyses=(elsewhere,))


# Merging.


def test_merging_is_deep_and_the_later_wins() -> None:
    base = {"a": {"b": 1, "c": [1]}, "d": 2}
    assert merge(base, {"a": {"b": 3}, "d": {"e": 4}}) == {"a": {"b": 3, "c": [1]}, "d": {"e": 4}}
    assert merge(base, {"a": {"c+": [2]}})["a"] == {"b": 1, "c": [1, 2]}
    assert merge({}, {"c+": 2}) == {"c": [2]}
    assert base == {"a": {"b": 1, "c": [1]}, "d": 2}
    assert nest(flatten(base)) == base


def test_classes_in_short() -> None:
    assert with_class_paths({"data": "CIFAR10"}) == {"data": {"class_path": "CIFAR10"}}
    short = {"model": {"optimizer": {"lr": 1, "init_args": {"momentum": 0}}, "num_cells": 2}}
    assert with_class_paths(short) == {
        "model": {"optimizer": {"init_args": {"momentum": 0, "lr": 1}}, "num_cells": 2}
    }


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "base.yaml", BASE)
    text = path.read_text().replace("lr: 0.1", "lr: 1e-1")
    (tmp_path / "other.yaml").write_text(text)
    names = {
        read_study(write(tmp_path / "s.yaml", {"name": "s", "configs": [file]})).runs[0].name
        for file in ("base.yaml", "other.yaml")
    }
    assert len(names) == 1
