"""A run through the command line: what it computes, what it leaves behind, how it goes on after a kill."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import seed_everything
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.nn import functional

from nas_lightning.analysis import read_surface
from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.main import main
from nas_lightning.datamodules import Synthetic
from nas_lightning.provenance import weights_hash
from tests.cli.commands import (
    TINY,
    command,
    environment,
    read_checkpoint,
    read_events,
    read_metrics,
    read_result,
    run_process,
)

EVERYTHING_RANDOM = ("--model.drop_path=0.3", "--data.cutout=4", "--model.operations=[]")


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs of a tiny network with a learning rate that is easy to check."""
    root = tmp_path_factory.mktemp("finished")
    main(
        [
            "fit",
            *TINY,
            "--trainer.max_epochs=3",
            f"--trainer.default_root_dir={root}",
            "--model.drop_path=0.3",
        ]
    )
    return root / "synthetic" / "darts_v2"


def test_a_run_is_one_folder(finished_run: Path) -> None:
    names = {path.name for path in finished_run.iterdir()}
    assert {"config.yaml", "hparams.yaml", "checkpoints", "metrics.csv", "result.json"} <= names
    assert {path.name for path in (finished_run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert not [name for name in names if name.endswith(".tmp")]


def test_metrics_have_one_row_an_epoch_with_the_schedules_of_the_paper(finished_run: Path) -> None:
    rows = read_metrics(finished_run)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    for epoch, row in enumerate(rows):
        assert row["learning_rate"] == pytest.approx(0.025 * (1 + math.cos(math.pi * epoch / 3)) / 2)
        assert row["drop_path_probability"] == pytest.approx(0.3 * epoch / 3)
        assert row["images_per_second"] > 0


def plain_evaluation(checkpoint: Path) -> dict[str, float]:
    """Test loss and accuracies of a checkpoint of TINY, computed the obvious way."""
    classifier = CellClassifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    data = Synthetic(image_size=16, train_size=48, test_size=37, num_classes=10, batch_size=16)
    data.prepare_data()
    data.setup()
    images, targets = data.split_arrays("test")
    with torch.no_grad():
        logits = classifier(data.normalise(images))
    in_top5 = (logits.topk(5).indices == targets[:, None]).any(1)
    return {
        "loss/test": float(functional.cross_entropy(logits, targets)),
        "accuracy/test": float((logits.argmax(1) == targets).double().mean()),
        "accuracy_top5/test": float(in_top5.double().mean()),
    }


def test_logged_metrics_equal_a_plain_evaluation_of_the_checkpoint(finished_run: Path) -> None:
    expected = plain_evaluation(finished_run / "checkpoints" / "last.ckpt")
    row = read_metrics(finished_run)[-1]
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_tensorboard_has_the_curves_over_epochs_and_the_cells(finished_run: Path) -> None:
    events = read_events(finished_run)
    tags = events.Tags()
    rows = read_metrics(finished_run)
    for name in (
        "loss/train",
        "loss/test",
        "accuracy/train",
        "accuracy/test",
        "accuracy_top5/test",
        "learning_rate",
        "drop_path_probability",
        "images_per_second",
    ):
        points = events.Scalars(name)
        assert [point.step for point in points] == [0, 1, 2]
        assert [point.value for point in points] == pytest.approx([row[name] for row in rows], rel=1e-6)
    assert {"cell/normal", "cell/reduction"} <= set(tags["images"])
    cell = read_result(finished_run)["cell"]
    for name in ("width", "depth", "parameters", "live_parameters", "multiply_adds"):
        assert events.Scalars(f"cell/{name}")[0].value == pytest.approx(cell[name])


def test_tensorboard_sorts_runs_by_cell_and_final_metrics(finished_run: Path) -> None:
    events = read_events(finished_run)
    tag = next(tag for tag in events.PluginTagToContent("hparams") if tag.endswith("session_start_info"))
    content = events.SummaryMetadata(tag).plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert (hparams["cell.width"].number_value, hparams["cell.depth"].number_value) == (3.5, 3)
    assert hparams["model.genotype"].string_value == "darts_v2"
    last = read_metrics(finished_run)[-1]
    for metric in ("accuracy/test", "loss/test"):
        assert events.Scalars(f"final/{metric}")[0].value == pytest.approx(last[metric])
    settings = yaml.safe_load((finished_run / "hparams.yaml").read_text())
    assert settings["trainer.max_epochs"] == 3
    assert settings["model.drop_path"] == 0.3


def test_result_tells_sizes_metrics_and_provenance(finished_run: Path) -> None:
    result = read_result(finished_run)
    rows = read_metrics(finished_run)
    assert result["finished"]
    assert result["final"]["accuracy/test"] == pytest.approx(rows[-1]["accuracy/test"])
    assert result["best"]["accuracy/test"] == max(row["accuracy/test"] for row in rows)
    weights = read_checkpoint(finished_run / "checkpoints" / "last.ckpt")["state_dict"]
    counted = {name for name, _ in CellClassifier(init_channels=4, num_cells=3).network.named_parameters()}
    assert result["cell"]["parameters"] == sum(weights[f"network.{name}"].numel() for name in counted)
    assert (result["cell"]["width"], result["cell"]["depth"]) == (3.5, 3)
    network = {
        name.removeprefix("network."): tensor
        for name, tensor in weights.items()
        if name.startswith("network.")
    }
    assert result["provenance"]["weights_sha256"] == weights_hash(network)
    assert result["provenance"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert result["provenance"]["device"] == "cpu"
    assert result["provenance"]["seed"] == 0
    assert result["provenance"]["data"]["split_sizes"] == {"train": 48, "test": 37}


def test_the_saved_config_repeats_the_run(finished_run: Path, tmp_path: Path) -> None:
    main(["fit", "--config", str(finished_run / "config.yaml"), f"--trainer.default_root_dir={tmp_path}"])
    again = tmp_path / "synthetic" / "darts_v2"
    assert (
        read_result(again)["provenance"]["weights_sha256"]
        == read_result(finished_run)["provenance"]["weights_sha256"]
    )


def test_another_seed_is_another_run(finished_run: Path, tmp_path: Path) -> None:
    config = ["--config", str(finished_run / "config.yaml"), f"--trainer.default_root_dir={tmp_path}"]
    main(["fit", *config, "--seed_everything=1", "--trainer.max_epochs=1"])
    other = read_result(tmp_path / "synthetic" / "darts_v2-seed1")
    assert other["provenance"]["seed"] == 1
    assert other["final"]["loss/train"] != read_metrics(finished_run)[0]["loss/train"]


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_a_checkpoint_is_evaluated_as_it_was_while_training(
    finished_run: Path, subcommand: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = finished_run / "checkpoints" / "last.ckpt"
    main([subcommand, "--config", str(finished_run / "config.yaml"), f"--ckpt_path={checkpoint}"])
    output = capsys.readouterr().out
    accuracy = read_metrics(finished_run)[-1]["accuracy/test"]
    shown = re.search(r"accuracy/test\D+([0-9.]+)", output)
    assert shown is not None
    assert float(shown.group(1)) == pytest.approx(accuracy, abs=1e-6)


def test_a_held_out_part_is_called_val(tmp_path: Path) -> None:
    arguments = ["--data.validation_fraction=0.25", "--trainer.max_epochs=1", "--data.train_size=80"]
    main(["fit", *TINY, *arguments, f"--trainer.default_root_dir={tmp_path}"])
    row = read_metrics(tmp_path / "synthetic" / "darts_v2")[0]
    assert {"loss/val", "accuracy/val", "accuracy_top5/val"} <= set(row)
    assert "loss/test" not in row
    assert read_result(tmp_path / "synthetic" / "darts_v2")["provenance"]["data"]["split_sizes"] == {
        "train": 60,
        "val": 20,
        "test": 37,
    }


def test_optimiser_and_schedule_are_replaceable(tmp_path: Path) -> None:
    config = {
        "model": {
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            "lr_scheduler": {
                "class_path": "torch.optim.lr_scheduler.StepLR",
                "init_args": {"step_size": 1, "gamma": 0.5},
            },
        }
    }
    (tmp_path / "adam.yaml").write_text(yaml.safe_dump(config))
    arguments = [
        f"--config={tmp_path / 'adam.yaml'}",
        "--trainer.max_epochs=3",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    main(["fit", *TINY, *arguments])
    run = tmp_path / "synthetic" / "darts_v2"
    assert [row["learning_rate"] for row in read_metrics(run)] == pytest.approx([0.01, 0.005, 0.0025])
    assert "exp_avg" in read_checkpoint(run / "checkpoints" / "last.ckpt")["optimizer_states"][0]["state"][0]


def test_dead_parameters_are_neither_trained_nor_optimised(tmp_path: Path) -> None:
    arguments = ["--model.genotype=relativenas", "--trainer.max_epochs=1"]
    main(["fit", *TINY, *arguments, f"--trainer.default_root_dir={tmp_path}"])
    checkpoint = read_checkpoint(tmp_path / "synthetic" / "relativenas" / "checkpoints" / "last.ckpt")
    seed_everything(0)
    initial = dict(CellClassifier("relativenas", init_channels=4, num_cells=3).network.named_parameters())
    trained = {name: checkpoint["state_dict"][f"network.{name}"] for name in initial}
    live = [name for name, parameter in initial.items() if parameter.requires_grad]
    dead = [name for name, parameter in initial.items() if not parameter.requires_grad]
    assert dead
    assert all(torch.equal(trained[name], initial[name]) for name in dead)
    assert not any(torch.equal(trained[name], initial[name]) for name in live)
    assert len(checkpoint["optimizer_states"][0]["state"]) == len(live)


def started(arguments: list[str], folder: Path, run: Path) -> subprocess.Popen[str]:
    """A training process that has written its first checkpoint."""
    process = subprocess.Popen(
        command(arguments),
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    epochs = 6
    tiny = (*TINY, *EVERYTHING_RANDOM, "--model.auxiliary_weight=0.4", "--data.image_size=32")
    arguments = ["fit", *tiny, f"--trainer.max_epochs={epochs}", "--trainer.default_root_dir=logs"]
    unbroken = run_process([*arguments, "--run=unbroken"], tmp_path)
    assert unbroken.returncode == 0, unbroken.stderr

    killed_folder = tmp_path / "logs" / "synthetic" / "killed"
    process = started([*arguments, "--run=killed"], tmp_path, killed_folder)
    process.kill()
    process.communicate()
    finished = read_checkpoint(killed_folder / "checkpoints" / "last.ckpt")["epoch"] + 1
    assert 1 <= finished < epochs
    assert not (killed_folder / "result.json").exists()

    resumed = run_process([*arguments, "--run=killed", "--ckpt_path=last"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    unbroken_folder = tmp_path / "logs" / "synthetic" / "unbroken"
    states = [
        read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (unbroken_folder, killed_folder)
    ]
    assert states[0]["epoch"] == states[1]["epoch"] == epochs - 1
    for name, weight in states[0]["state_dict"].items():
        assert torch.equal(weight, states[1]["state_dict"][name]), name
    rows = [read_metrics(folder) for folder in (unbroken_folder, killed_folder)]
    assert [row["epoch"] for row in rows[1]] == list(range(epochs))
    for first, second in zip(*rows, strict=True):
        assert {k: v for k, v in first.items() if k != "images_per_second"} == {
            k: v for k, v in second.items() if k != "images_per_second"
        }
    results = [read_result(folder) for folder in (unbroken_folder, killed_folder)]
    assert results[0]["provenance"]["weights_sha256"] == results[1]["provenance"]["weights_sha256"]


def test_a_finished_run_without_a_result_gets_it_when_resumed(tmp_path: Path) -> None:
    arguments = ["fit", *TINY, "--trainer.max_epochs=2", f"--trainer.default_root_dir={tmp_path}"]
    main(arguments)
    run = tmp_path / "synthetic" / "darts_v2"
    result = read_result(run)
    (run / "result.json").unlink()  # as if killed just before it was written
    main([*arguments, "--ckpt_path=last"])
    assert read_result(run) == result


@pytest.mark.slow
def test_two_ranks_count_an_odd_split_exactly_and_share_the_global_batch(tmp_path: Path) -> None:
    two = [
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--trainer.max_epochs=2",
        "--trainer.default_root_dir=logs",
    ]
    completed = run_process(["fit", *TINY, *two], tmp_path)
    assert completed.returncode == 0, completed.stderr
    run = tmp_path / "logs" / "synthetic" / "darts_v2"
    rows = read_metrics(run)
    checkpoint = run / "checkpoints" / "last.ckpt"
    # 48 images in global batches of 16, two epochs; the padding of a split of 37 counts nowhere.
    assert read_checkpoint(checkpoint)["global_step"] == 2 * 3
    expected = plain_evaluation(checkpoint)
    assert {name: rows[-1][name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert rows[-1]["accuracy/test"] * 37 == pytest.approx(round(expected["accuracy/test"] * 37), abs=1e-4)


OWN_OPERATION = """
from torch import nn

from nas_lightning.networks import register_operation


def spatial_gate(channels, stride, affine):
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
        nn.Sigmoid(),
    )


register_operation("spatial_gate", spatial_gate)
"""


@pytest.mark.slow
def test_an_own_operation_works_in_genotypes_specs_and_training(tmp_path: Path) -> None:
    (tmp_path / "own_operations.py").write_text(OWN_OPERATION)
    cell = [["spatial_gate", 0], ["skip_connect", 1], ["sep_conv_3x3", 2], ["spatial_gate", 1]]
    genotype = {"normal": cell, "normal_concat": [2, 3], "reduce": cell, "reduce_concat": [2, 3]}
    (tmp_path / "gated.yaml").write_text(yaml.safe_dump(genotype))
    fit = ["fit", *TINY, "--model.genotype=gated.yaml:connections=3", "--model.operations=[own_operations]"]
    fit += ["--trainer.max_epochs=1", "--trainer.default_root_dir=logs"]
    assert (completed := run_process(fit, tmp_path)).returncode == 0, completed.stderr
    result = read_result(next((tmp_path / "logs" / "synthetic").iterdir()))
    assert result["cell"]["genotype"].count("spatial_gate") == 4
    weights = read_checkpoint(next(tmp_path.glob("logs/synthetic/*/checkpoints/last.ckpt")))["state_dict"]
    # Layer 1 of the user's nn.Sequential in edge 0: zero weights in a channel would mean it was never built.
    assert weights["network.cells.0.edges.0.1.weight"].shape == (4, 1, 3, 3)


@pytest.mark.slow
def test_ctrl_c_keeps_the_last_epoch(tmp_path: Path) -> None:
    arguments = ["fit", *TINY, "--trainer.max_epochs=500", "--trainer.default_root_dir=logs"]
    run = tmp_path / "logs" / "synthetic" / "darts_v2"
    process = started(arguments, tmp_path, run)
    try:
        process.send_signal(signal.SIGINT)
        message = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130
    assert "stopped by Ctrl-C; resume with `--ckpt_path last`" in message
    assert "Traceback" not in message
    assert len(read_metrics(run)) >= read_checkpoint(run / "checkpoints" / "last.ckpt")["epoch"] + 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_start_reaches_97_percent_and_has_its_surfaces(tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
    start = time.monotonic()
    completed = subprocess.run(
        command(["fit", f"--config={config}"]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=800,  # two minutes on two free cores
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    run = tmp_path / "tb_logs" / "quickstart" / "darts_v2"
    assert read_result(run)["final"]["accuracy/test"] >= 0.97
    pictures = {
        *("cell/normal", "cell/reduction", "landscape/loss_contour", "landscape/loss_surface"),
        *("landscape/gradient_heat_map", "landscape/gradient_surface", "landscape/gradient_by_node"),
    }
    assert pictures <= set(read_events(run).Tags()["images"])
    for kind in ("loss_contour", "gradient_variance"):
        surface = read_surface(run / "landscape" / f"{kind}-epoch0009.nc")
        assert surface["done"].shape == (1, 9, 9)
        assert surface["done"].values.all()
        assert surface.attrs["samples"] == 256
    print(f"quick start: {time.monotonic() - start:.0f} s")


@pytest.mark.slow
def test_a_run_in_progress_is_left_alone_and_sigterm_is_no_success(tmp_path: Path) -> None:
    arguments = ["fit", *TINY, "--trainer.max_epochs=2000", "--trainer.default_root_dir=logs"]
    process = started(arguments, tmp_path, tmp_path / "logs" / "synthetic" / "darts_v2")
    try:
        second = run_process([*arguments, "--ckpt_path=last"], tmp_path)
        assert second.returncode == 2, second.stderr
        assert "is being written by another process" in second.stderr
        process.send_signal(signal.SIGTERM)
        message = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 143
    assert "stopped by SIGTERM; resume with `--ckpt_path last`" in message
    assert "Traceback" not in message
