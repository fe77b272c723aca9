"""Bad input gets one line that names the fault, exit code 2, no traceback, and nothing half-written."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from nas_lightning.cli.main import SUBCOMMANDS, main
from tests.cli.commands import TINY, command, environment, read_checkpoint, read_metrics, refusal

EVERY_EPOCH = (
    "--trainer.callbacks=ModelCheckpoint",
    "--trainer.callbacks.filename={epoch}",
    "--trainer.callbacks.save_top_k=-1",
    "--trainer.callbacks.save_on_train_epoch_end=true",
)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--model.genotype=darts_v3"], ["darts_v3", "darts_v2"]),
        (["--model.genotype=darts_v2:connection=3"], ["connection", "connections"]),
        (["--model.genotype=missing.yaml"], ["missing.yaml"]),
        (["--model.init_chanels=4"], ["init_chanels"]),
        (["--model.init_channels=0"], ["init_channels", "0"]),
        (["--model.init_channels=-3"], ["init_channels", "-3"]),
        (["--model.init_channels=many"], ["init_channels", "many"]),
        (["--model.num_cells=0"], ["num_cells", "0"]),
        (
            ["--model.num_cells=2", "--model.auxiliary_weight=0.4"],
            ["num_cells", "2", "auxiliary_weight", "0.4"],
        ),
        (["--model.auxiliary_weight=0.4"], ["image_size", "16"]),
        (["--model.auxiliary_weight=-1"], ["auxiliary_weight", "-1"]),
        (["--model.drop_path=1.5"], ["drop_path", "1.5"]),
        (["--model.num_classes=7"], ["num_classes", "data"]),
        (["--model.operations=[no_such_module]"], ["no_such_module"]),
        (["--data.batch_size=0"], ["batch_size", "0"]),
        (["--data.batch_size=49"], ["batch_size", "49", "48"]),
        (["--data.cutout=-1"], ["cutout", "-1"]),
        (["--data.validation_fraction=1.5"], ["validation_fraction", "1.5"]),
        (["--data=ImageNet22k"], ["ImageNet22k"]),
        (["--data=CIFAR10", "--data.root=nowhere"], ["nowhere/cifar-10-python.tar.gz", "by hand"]),
        (["--trainer.max_epochs=-1"], ["max_epochs", "-1"]),
        (["--seed_everything=false"], ["seed_everything"]),
        (["--seed_everything=-1"], ["seed_everything", "-1"]),
        (["--trainer.gradient_clip_val=-1"], ["gradient_clip_val", "-1"]),
        (["--model.optimizer.init_args.lr=-1"], ["model.optimizer", "-1"]),
        (["--run=../elsewhere"], ["run", "../elsewhere"]),
        (["--ckpt_path=last", "--model.init_channels=0"], ["init_channels"]),
        (["--trainer.max_epocs=3"], ["max_epocs"]),
        (["--trainer.devices=[9]"], ["trainer.devices", "[9]"]),
        (["--trainer.devices=0"], ["`trainer.devices` (=0)"]),
        (["--trainer.accelerator=warp"], ["`trainer.accelerator` (=warp)"]),
        (["--trainer.accelerator=tpu"], ["`trainer.accelerator` (=tpu)", "torch_xla"]),
        (["--trainer.strategy=fsdp"], ["`trainer.strategy` (=fsdp)", "GPU"]),
        (
            ["--trainer.precision=transformer-engine"],
            ["`trainer.precision`", "the package transformer_engine"],
        ),
        (["--trainer.logger=Nothing"], ["`trainer.logger` (=Nothing)", "such as CSVLogger"]),
        (
            ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.save_top_k=-5"],
            ["save_top_k=-5"],
        ),
        (["--config=absent.yaml"], ["absent.yaml"]),
        (["--ckpt_path=absent.ckpt"], ["ckpt_path", "absent.ckpt"]),
        (["--ckpt_path="], ["`ckpt_path` (='') must be a path"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value[0].startswith("--") else "",
)
def test_one_line_names_the_fault(
    arguments: list[str],
    fragments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz"
    )  # nobody answers
    line = refusal(["fit", *TINY, "--trainer.max_epochs=1", *arguments], capsys)
    for fragment in fragments:
        assert fragment in line
    assert {path.name for path in tmp_path.iterdir()} <= {"nowhere"}  # the folder of the data, with its lock


def test_a_number_of_classes_that_is_not_the_data_set_s_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "classes.yaml").write_text("model: {num_classes: 7}")
    line = refusal(["fit", *TINY, f"--config={tmp_path / 'classes.yaml'}"], capsys)
    assert "`model.num_classes` (=7)" in line
    assert "10 classes" in line


def test_an_unknown_subcommand_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'fti'" in refusal(["fti"], capsys)


REDUCE = "reduce=[('skip_connect', 0), ('skip_connect', 1)], reduce_concat=[2]"


@pytest.mark.parametrize(
    ("normal", "fragments"),
    [
        (
            "normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 5)], normal_concat=[2]",
            ["normal cell", "node 2", "5"],
        ),
        (
            "normal=[('sep_conv_3x4', 0), ('sep_conv_3x3', 1)], normal_concat=[2]",
            ["sep_conv_3x4", "sep_conv_3x3"],
        ),
        ("normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1)], normal_concat=[]", ["normal cell", "concat"]),
        ("normal=__import__('os').system('touch pwned'), normal_concat=[2]", ["genotype", "__import__"]),
    ],
    ids=["source", "operation", "concat", "code"],
)
def test_a_genotype_is_refused_by_cell_node_and_edge(
    normal: str,
    fragments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refusal(["fit", *TINY, f"--model.genotype=Genotype({normal}, {REDUCE})"], capsys)
    for fragment in fragments:
        assert fragment in line
    assert not (tmp_path / "pwned").exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    main(["fit", *TINY, "--trainer.max_epochs=1", f"--trainer.default_root_dir={root}"])
    return root / "synthetic" / "darts_v2"


def test_a_second_run_does_not_write_over_the_first(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    line = refusal(
        ["fit", *TINY, "--trainer.max_epochs=1", f"--trainer.default_root_dir={run.parents[1]}"], capsys
    )
    assert "--ckpt_path last" in line
    assert "--run NAME" in line
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--model.genotype=nasnet"], ["model.genotype", "nasnet", "darts_v2"]),
        (["--model.init_channels=8"], ["model.init_channels", "8", "4"]),
        (["--model.optimizer.init_args.lr=0.1"], ["model.optimizer", "0.1", "0.025"]),
        (["--data=Digits"], ["data", "Digits", "Synthetic"]),
        (["--data.cutout=8"], ["data.cutout", "8"]),
        (["--seed_everything=5"], ["seed_everything", "5", "0"]),
        (["--trainer.max_epochs=7"], ["trainer.max_epochs", "7", "1"]),
        (["--trainer.gradient_clip_val=1"], ["trainer.gradient_clip_val", "1", "5"]),
    ],
    ids=["genotype", "channels", "learning rate", "data set", "cutout", "seed", "epochs", "clip"],
)
def test_settings_that_contradict_the_checkpoint_are_refused(
    run: Path, arguments: list[str], fragments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"--trainer.default_root_dir={run.parents[1]}"
    checkpoint = run / "checkpoints" / "last.ckpt"
    line = refusal(["fit", f"--ckpt_path={checkpoint}", "--run=other", root, *arguments], capsys)
    for fragment in fragments:
        assert fragment in line


def test_settings_that_are_not_given_come_from_the_checkpoint(tmp_path: Path) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    main(["fit", *TINY, root, "--run=mine", "--trainer.max_epochs=3", *EVERY_EPOCH, "--model.drop_path=0.3"])
    run = tmp_path / "synthetic" / "mine"
    unbroken = read_metrics(run)
    first = run / "checkpoints" / "epoch=0.ckpt"
    main(["fit", f"--ckpt_path={first}", root, "--run=mine", "--trainer.accelerator=cpu"])
    resumed = read_metrics(run)
    assert [row["learning_rate"] for row in resumed] == pytest.approx([0.025, 0.01875, 0.00625])
    assert [row["loss/test"] for row in resumed] == [row["loss/test"] for row in unbroken]


def test_a_run_goes_on_in_its_own_folder_only(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = run / "checkpoints" / "last.ckpt"
    root = f"--trainer.default_root_dir={run.parents[1]}"
    line = refusal(["fit", f"--ckpt_path={checkpoint}", root, "--run=other"], capsys)
    assert "belongs to another run" in line
    assert not (run.parent / "other").exists()


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_nothing_is_evaluated_without_a_checkpoint(
    subcommand: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    assert "last.ckpt" in refusal([subcommand, *TINY, root, "--ckpt_path=last"], capsys)
    assert "ckpt_path" in refusal([subcommand, *TINY, root], capsys)


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    run = tmp_path / "synthetic" / "darts_v2"
    run.mkdir(parents=True)
    (run / "metrics.csv").write_text("epoch\n0\n")
    arguments = ["fit", *TINY, "--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path}"]
    main([*arguments, "--ckpt_path=last"])
    assert [row["epoch"] for row in read_metrics(run)] == [0]


def test_a_checkpoint_outlives_the_file_of_its_genotype(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=[2], "
        "reduce=[('max_pool_3x3', 0), ('skip_connect', 1)], reduce_concat=[2])"
    )
    root = f"--trainer.default_root_dir={tmp_path}"
    main(["fit", *TINY, root, "--trainer.max_epochs=1", f"--model.genotype={path}"])
    run = tmp_path / "synthetic" / "mine"
    path.unlink()
    accuracy = read_metrics(run)[-1]["accuracy/test"]
    capsys.readouterr()
    checkpoint = f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
    for arguments in (["validate", checkpoint], ["validate", f"--config={run / 'config.yaml'}", checkpoint]):
        main(arguments)
        assert f"accuracy/test {accuracy:.6f}" in capsys.readouterr().out


def test_the_checkpoint_of_another_network_is_refused_by_its_tensor(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    name = "network.classifier.weight"
    checkpoint["state_dict"][name] = checkpoint["state_dict"][name][:, :-1].clone()
    torch.save(checkpoint, tmp_path / "changed.ckpt")
    assert name in refusal(["validate", f"--ckpt_path={tmp_path / 'changed.ckpt'}"], capsys)


def test_a_lightning_checkpoint_of_another_program_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {"state_dict": {"weight": torch.zeros(2)}, "hyper_parameters": {"lr": 0.1}}
    torch.save(state, tmp_path / "foreign.ckpt")
    assert "foreign.ckpt" in refusal(["validate", *TINY, f"--ckpt_path={tmp_path / 'foreign.ckpt'}"], capsys)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["predict", "", "--split=test", "-o", "a.csv"], "argument checkpoint"),
        (["export", "x.ckpt", "-o", ""], "argument -o/--output"),
        (["plot", ""], "argument FILE"),
        (["validate", *TINY, "--reference_weights="], "`reference_weights` (='')"),
        (["fit", *TINY, "--weights="], "`weights` (='')"),
    ],
)
def test_an_empty_path_is_no_path(
    capsys: pytest.CaptureFixture[str], arguments: list[str], name: str
) -> None:
    assert name in (line := refusal(arguments, capsys))
    assert "must be a path, not an empty text" in line


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.ckpt")
    for name in ("text.ckpt", "other.ckpt"):
        assert name in refusal(["validate", *TINY, f"--ckpt_path={tmp_path / name}"], capsys)


def test_a_truncated_checkpoint_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (run / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    assert "half.ckpt" in refusal(["validate", *TINY, f"--ckpt_path={tmp_path / 'half.ckpt'}"], capsys)


def test_a_changed_genotype_file_does_not_take_the_old_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    literal = (
        "Genotype(normal=[('{}', 0), ('skip_connect', 1)], normal_concat=[2], "
        "reduce=[('max_pool_3x3', 0), ('skip_connect', 1)], reduce_concat=[2])"
    )
    path = tmp_path / "mine.yaml"
    path.write_text(literal.format("sep_conv_3x3"))
    arguments = ["fit", *TINY, f"--model.genotype={path}", f"--trainer.default_root_dir={tmp_path}"]
    main([*arguments, "--trainer.max_epochs=1"])
    path.write_text(literal.format("dil_conv_3x3"))
    assert "mine.yaml" in refusal([*arguments, "--trainer.max_epochs=1", "--ckpt_path=last"], capsys)


def test_an_unwritable_log_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "logs"
    assert str(folder) in refusal(["fit", *TINY, f"--trainer.default_root_dir={folder}"], capsys)


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_whole_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["fit", *TINY, "--trainer.max_epochs=3", "--trainer.default_root_dir=logs", *EVERY_EPOCH]
    monkeypatch.chdir(tmp_path)
    main(arguments)
    run = tmp_path / "logs" / "synthetic" / "darts_v2"
    folder = run / "checkpoints"
    for path in folder.iterdir():  # as if killed in the second epoch
        if path.name != "epoch=0.ckpt":
            path.unlink()
    (folder / "epoch=0.ckpt").rename(folder / "last.ckpt")
    (run / "result.json").unlink()
    before = (folder / "last.ckpt").read_bytes()

    limit = len(before) // 2  # files may grow to this size: a checkpoint does not fit
    resumed = subprocess.run(
        command(["fit", *arguments[1:-4], "--ckpt_path=last"]),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert resumed.returncode == 2, resumed.stderr
    assert "Traceback" not in resumed.stderr
    assert "best.ckpt" in resumed.stderr or "last.ckpt" in resumed.stderr
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]
    assert (folder / "last.ckpt").read_bytes() == before
    assert not (run / "result.json").exists()


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ValueError, match="darts_v3"):
        main(["fit", *TINY, "--model.genotype=darts_v3", "--debug"])


def test_help_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert listed == set(SUBCOMMANDS)
