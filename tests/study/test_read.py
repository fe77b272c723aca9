"""A study's file is the runs that it says, and a training has one name wherever it stands."""

from __future__ import annotations

import copy
import itertools
import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from PIL import Image

from nas_lightning.acceleration.level import Speed
from nas_lightning.cells import get_genotype
from nas_lightning.cli.resolve import resolve
from nas_lightning.identity import identity_hash
from nas_lightning.study import resolve as resolve_module
from nas_lightning.study.read import read_study
from nas_lightning.study.study import Run, Study

BASE: dict[str, Any] = {
    "model": {"num_cells": 3, "init_channels": 4, "optimizer": {"class_path": "torch.optim.SGD"}},
    "data": {"class_path": "nas_lightning.datamodules.Synthetic", "init_args": {"batch_size": 16}},
    "trainer": {"max_epochs": 2},
}
BASE["model"]["optimizer"]["init_args"] = {"lr": 0.1}
CONTOUR = {"class_path": "nas_lightning.callbacks.LossContour", "init_args": {"resolution": 3}}
VARIANCE = {"class_path": "GradientVariance", "init_args": {"resolution": 3}}
STOPPING = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "loss/test"}}


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
    """BASE with another value of a dotted key."""
    base = copy.deepcopy(BASE)
    *sections, last = key.split(".")
    section = base
    for name in sections:
        section = section.setdefault(name, {})
    section[last] = value
    return base


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
    (callback,) = json.loads(pairs.pop("--trainer.callbacks"))
    assert callback["class_path"] == CONTOUR["class_path"]
    assert (callback["init_args"]["resolution"], callback["init_args"]["split"]) == (3, "test")
    assert pairs == {
        "--model.genotype": "enas:C4",
        "--model.drop_path": "0.1",
        "--data.cutout": "4",
        "--model.optimizer.lr": "0.25",
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
        ("trainer.callbacks", [STOPPING]),
    ],
)
def test_a_setting_that_decides_changes_the_name(tmp_path: Path, key: str, value: object) -> None:
    before, after = only_run(tmp_path), only_run(tmp_path, changed(key, value))
    assert before.name.rpartition("-")[2] != after.name.rpartition("-")[2]


def test_folders_of_images_are_told_apart_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, name in itertools.product(("pets", "insects", "elsewhere/pets"), ("a", "b")):
        Path(folder, "train", name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(Path(folder, "train", name, "0.png"))
    data = {"class_path": "nas_lightning.datamodules.ImageFolder", "init_args": {"root": "pets"}}
    both = study(tmp_path, BASE | {"data": data}, axes={"data.root": ["pets", "insects"]}).runs
    assert [run.deciding["data.folder"] for run in both] == ["pets", "insects"]
    assert [run.data_set for run in both] == ["pets", "insects"]
    assert [run.name.split("-")[1] for run in both] == ["pets", "insects"]
    moved = only_run(tmp_path, BASE | {"data": data | {"init_args": {"root": "elsewhere/pets"}}})
    assert moved.name == both[0].name


def test_a_limit_is_what_the_command_line_reads(tmp_path: Path) -> None:
    # 1 is one batch, 1.0 all of them.
    limits = {
        limit: only_run(tmp_path, changed("trainer.limit_train_batches", limit))
        for limit in ("1", "1.0", 0.5, 3)
    }
    assert len({run.name for run in limits.values()}) == 4
    assert [run.limited_batches(10) for run in limits.values()] == [1, 10, 5, 3]


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


def test_settings_are_those_that_the_command_line_resolves(tmp_path: Path) -> None:
    overlay = {"data": {"class_path": "Digits"}, "model": {"drop_path": 0.3}, "trainer": {"max_epochs": 5}}
    write(tmp_path / "data.yaml", overlay)
    run = only_run(
        tmp_path,
        analyses=(CONTOUR, VARIANCE),
        settings={"model.auxiliary_weight": 0.1, "trainer.precision": "bf16-mixed"},
        axes={
            "architectures": ["enas"],
            "data": ["data.yaml"],
            "data.batch_size": [24],
            "learning_rates": [3e-4],
            "seeds": [2],
        },
    )
    settings, deciding = resolve(run.arguments)
    assert deciding == run.deciding
    assert run.name.endswith(identity_hash(deciding)[:8])
    callbacks = [callback["class_path"] for callback in settings["trainer"]["callbacks"]]
    assert callbacks == [analysis.settings["class_path"] for analysis in run.analyses]
    assert settings["data"]["init_args"]["batch_size"] == run.settings["data.init_args.batch_size"] == 24
    assert settings["model"]["drop_path"] == run.settings["model.drop_path"] == 0.3
    assert (run.data, run.epochs, run.learning_rate) == ("Digits", 5, 3e-4)


@pytest.mark.parametrize("optimizer", [None, {"class_path": "torch.optim.Adam"}])
def test_an_optimizer_has_what_the_command_line_gives_it(
    tmp_path: Path, optimizer: dict[str, Any] | None
) -> None:
    model = {"num_cells": 3} | ({} if optimizer is None else {"optimizer": optimizer})
    run = only_run(tmp_path, BASE | {"model": model})
    # The parser keeps the default's learning rate for another class, too.
    assert run.learning_rate == 0.025
    assert resolve(run.arguments)[0]["model"]["optimizer"]["init_args"]["lr"] == 0.025


def test_what_is_resolved_is_kept_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "inner.yaml", {"model": {"num_cells": 4}})
    base = BASE | {"include": "inner.yaml", "model": {"init_channels": 4}}
    run = only_run(tmp_path, base)
    with monkeypatch.context() as patched:
        patched.setattr("nas_lightning.cli.resolve.resolve", lambda _: pytest.fail("resolved again"))
        assert only_run(tmp_path, base) == run
    write(tmp_path / "inner.yaml", {"model": {"num_cells": 5}})
    assert only_run(tmp_path, base).settings["model.num_cells"] == 5
    monkeypatch.setattr(resolve_module, "_cache_folder", lambda: Path("/proc/nowhere"))
    assert only_run(tmp_path, base).settings["model.num_cells"] == 5


def test_nothing_of_this_process_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve_module, "_cache_folder", lambda: tmp_path / "empty")
    before = torch.get_rng_state()
    only_run(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert "PL_GLOBAL_SEED" not in os.environ


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
    parsed, _ = resolve(run.arguments)
    assert (run.data, run.settings["data.init_args.image_size"]) == ("Synthetic", 16)
    assert parsed["data"]["class_path"] == "nas_lightning.datamodules.Synthetic"
    assert parsed["data"]["init_args"]["image_size"] == 16


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
    assert set(speeds) == set(get_args(Speed))
    # As with every other setting that does not decide.
    assert len(study(tmp_path, axes={"trainer.accelerator": ["cpu", "gpu"]}).runs) == 1


def test_a_genotype_in_a_configuration_does_not_change_the_name(tmp_path: Path) -> None:
    literal = {"normal": [["skip_connect", 0]], "normal_concat": [2]}
    axes = {"architectures": ["enas"]}
    assert (
        only_run(tmp_path, changed("model.genotype", literal), axes=axes).name
        == only_run(tmp_path, axes=axes).name
    )


def test_a_folder_that_an_earlier_version_named_is_found(tmp_path: Path) -> None:
    run = only_run(tmp_path, root=tmp_path / "logs")
    earlier = run.folder.with_name(run.name[:-8] + "01234567")
    other = run.folder.with_name(run.name[:-8] + "00000000")
    for folder, arguments in ((earlier, run.arguments), (other, (*run.arguments, "--model.num_cells=4"))):
        settings, _ = resolve(arguments)
        del settings["trainer"]["limit_test_batches"]  # a setting that it did not have
        write(folder / "config.yaml", settings)
    found = only_run(tmp_path, root=tmp_path / "logs")
    assert (found.name, found.folder, found.deciding) == (earlier.name, earlier, run.deciding)
    assert found.arguments[found.arguments.index("--run") + 1] == earlier.name
    write(run.folder / "config.yaml", {})  # its own folder comes first
    assert only_run(tmp_path, root=tmp_path / "logs") == run


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
        ValueError, match=r"a.yaml and .*b.yaml set up the analysis 'loss_contour'.*`resolution`: 3 and 5"
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
        ({"axes": {"data.class_path": ["Digits"]}}, "the class of `data` belongs to a file of"),
        ({"axes": {"model.genotype": ["enas"]}}, "`model.genotype` belongs to `axes: architectures`"),
        ({"axes": {"architectures": ["dart_v2"]}}, "study.yaml: `architectures`, entry 'dart_v2'"),
        ({"axes": {"architectures": [3]}}, "3 must be a genotype spec"),
        ({"axes": {"model.num_cells": [3]}, "settings": {"model.num_cells": 4}}, "is fixed in `settings`"),
        ({"settings": {"seed_everything": 1}}, "`seed_everything` belongs to `axes: seeds`"),
        ({"settings": {"run": "x"}}, "`run` must be left out"),
        ({"settings": {"modl.num_cells": 1}}, "did you mean 'model'"),
        (
            {"settings": {"trainer.max_epochs": -1}},
            r"study.yaml: `trainer.max_epochs` \(=-1\) must",
        ),
        ({"settings": {"trainer.max_epochs": "x"}}, r"`trainer.max_epochs` \(=x\) must be of type int"),
        (
            {"settings": {"data.validation_fraction": 2}},
            r"`validation_fraction` \(=2.0\) must be at least 0 and less than 1",
        ),
        ({"axes": {"model.num_cells": ["abc"]}}, r"`model.num_cells` \(=abc\) must be of type int"),
        ({"settings": {"data": "Digts"}}, r"`data` \(=Digts\) must be the name or import path of a class"),
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


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "base.yaml", BASE)
    text = path.read_text().replace("lr: 0.1", "lr: 1e-1")
    (tmp_path / "other.yaml").write_text(text)
    names = {
        read_study(write(tmp_path / "s.yaml", {"name": "s", "configs": [file]})).runs[0].name
        for file in ("base.yaml", "other.yaml")
    }
    assert len(names) == 1
