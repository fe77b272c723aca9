"""A curve between two trained networks, as a user trains it: `fit --model.ends "[A, B]"`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import xarray as xr
import yaml

from nas_lightning.analysis import PathSurface
from nas_lightning.cli.main import main
from nas_lightning.netcdf import read_dataset
from tests.cli.commands import TINY, read_checkpoint, read_metrics, read_result, refusal, run_process
from tests.cli.test_resume import assert_same_run
from tests.forked import run_and_kill

OWN = (*TINY, "--model.genotype=snas", "--model.init_channels=2", "--data.seed=3")
CURVE = (
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=3",
    "--model.statistics_samples=20",
    "--trainer.callbacks=ModeConnectivity",
    "--trainer.callbacks.resolution=3",
)
CONFIG = Path(__file__).parents[2] / "configs" / "connectivity.yaml"


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of two trainings that differ in their seeds."""
    root = tmp_path_factory.mktemp("ends")
    for seed in (0, 1):
        seeded = (f"--seed_everything={seed}", f"--run={seed}", f"--trainer.default_root_dir={root}")
        main(["fit", *OWN, "--trainer.max_epochs=1", *seeded])
    return [root / "synthetic" / str(seed) for seed in (0, 1)]


def curve(root: Path, ends: list[Path], *arguments: str) -> list[str]:
    named = f"--model.ends=[{', '.join(map(str, ends))}]"
    return ["fit", f"--config={CONFIG}", named, *CURVE, f"--trainer.default_root_dir={root}", *arguments]


def killed(arguments: list[str], epochs: int) -> None:
    """Train in a process that is killed after so many checkpoints."""
    run_and_kill(lambda: main(arguments), lambda path: path.name == "last.ckpt", epochs)


@pytest.fixture(scope="module")
def trained(ends: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curve")
    main(curve(root, ends))
    return root / "connectivity" / "snas_mild"


def test_a_curve_has_the_cells_sizes_and_data_of_its_ends(trained: Path, ends: list[Path]) -> None:
    result = read_result(trained)
    settings = result["settings"]
    assert (settings["model.genotype"], settings["model.init_channels"]) == ("snas", 2)
    assert (settings["data.class"], settings["data.train_size"]) == ("Synthetic", 48)
    assert settings["data.seed"] is None  # that of this training, not of an end
    assert settings["model.ends"] == [str(end) for end in ends]
    assert result["finished"]
    assert len(read_metrics(trained)) == 3
    files = [read_checkpoint(end / "checkpoints" / "last.ckpt")["state_dict"] for end in ends]
    state = read_checkpoint(trained / "checkpoints" / "last.ckpt")["state_dict"]
    assert torch.equal(
        state["end_weights"][:, -10:], torch.stack([f["network.classifier.bias"] for f in files])
    )
    found = PathSurface.read(trained / "landscape" / "mode_connectivity-epoch0002.nc")
    assert found["done"].values.all()


def test_a_killed_curve_goes_on_without_its_ends(trained: Path, ends: list[Path], tmp_path: Path) -> None:
    copies = [tmp_path / end.name for end in ends]
    for end, copy in zip(ends, copies, strict=True):
        shutil.copytree(end, copy)
    killed(curve(tmp_path, copies), epochs=2)
    for copy in copies:
        shutil.rmtree(copy)
    broken = tmp_path / "connectivity" / "snas_mild"
    assert read_checkpoint(broken / "checkpoints" / "last.ckpt")["epoch"] == 1
    main(["fit", f"--config={broken / 'config.yaml'}", "--ckpt_path=last"])
    assert_same_run(trained, broken)
    name = Path("landscape", "mode_connectivity-epoch0002.nc")
    assert (broken / name).read_bytes() == (trained / name).read_bytes()


@pytest.mark.slow
def test_two_ranks_measure_what_one_does(trained: Path, tmp_path: Path) -> None:
    copied = tmp_path / "logs" / "connectivity" / "snas_mild"
    shutil.copytree(trained, copied)
    name = Path("landscape", "mode_connectivity-epoch0002.nc")
    (copied / name).unlink()
    two = ("--ckpt_path=last", "--trainer.devices=2", "--trainer.strategy=ddp")
    result = run_process(["fit", f"--config={copied / 'config.yaml'}", *two], tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Starting with 2 processes" in result.stderr
    one, other = (read_dataset(run / name) for run in (trained, copied))
    assert one.attrs == other.attrs
    xr.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_and_measures_the_curve_of_a_cpu(
    trained: Path, ends: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    main(curve(tmp_path, ends, "--trainer.accelerator=gpu", "--trainer.devices=1"))
    name = Path("landscape", "mode_connectivity-epoch0002.nc")
    one, other = (read_dataset(run / name) for run in (tmp_path / "connectivity" / "snas_mild", trained))
    assert (one.attrs.pop("device"), other.attrs.pop("device")) == ("cuda:0", "cpu")
    xr.testing.assert_allclose(one, other, rtol=5e-3, atol=1e-5)


def test_the_command_that_started_a_curve_finishes_it(
    trained: Path, ends: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = trained.parents[1]
    main(curve(root, ends, "--ckpt_path=last"))
    assert "it was finished before" in capsys.readouterr().out
    line = refusal(curve(root, ends), capsys)
    assert "already holds a run: continue it with `--ckpt_path last`" in line


def test_what_does_not_go_with_a_curve_is_refused(
    trained: Path, ends: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, last = str(ends[0]), trained / "checkpoints" / "last.ckpt"
    cases = [
        (curve(tmp_path, ends[:1]), f"`model.ends` (=['{first}']) must be two checkpoints: [A.ckpt, B.ckpt]"),
        (curve(tmp_path, [ends[0], tmp_path / "gone"]), f"`model.ends` (={tmp_path / 'gone'}) is not a file"),
        (["fit", "--model.ends=A.ckpt"], "`model.ends` (=A.ckpt) must be two checkpoints: [A.ckpt, B.ckpt]"),
        (curve(tmp_path, ends, "--model.num_cells=4"), "`model.num_cells` (=4) contradicts"),
        (curve(tmp_path, ends, "--model.genotype=darts"), "but `model.genotype` is Genotype"),
        (curve(tmp_path, ends, "--weights=x.ckpt"), "`weights` (=x.ckpt) does not go with `model.ends`"),
        (curve(tmp_path, [ends[0], trained]), "holds a curve between two networks (`model.ends`), not one"),
        (["landscape", f"--config={trained / 'config.yaml'}"], "`landscape` takes one network"),
        (["landscape", f"--ckpt_path={last}"], "holds a curve between two networks, not one network: `fit"),
        (["fit", f"--ckpt_path={last}"], "holds a curve between two networks, not one network: `fit"),
        (
            ["predict", str(last), "--split=test"],
            "holds a curve between two networks (`model.ends`), not one",
        ),
        (
            curve(tmp_path, ends, f"--ckpt_path={ends[0]}"),
            "holds one network, no curve: leave out `model.ends`",
        ),
    ]
    for arguments, message in cases:
        assert message in refusal(arguments, capsys), arguments
    assert not (tmp_path / "connectivity").exists()


def test_the_settings_of_the_ends_are_shown(ends: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(curve(Path("logs"), ends, "--print_config"))
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["model"]["genotype"] == "snas"
    assert settings["data"]["class_path"].endswith("Synthetic")
    assert settings["model"]["optimizer"]["init_args"]["lr"] == 0.025
