"""Surfaces through the command line: of a training and of a checkpoint, killed, resumed, on two ranks."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from nas_lightning.analysis import read_surface
from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.main import main
from nas_lightning.netcdf import read_dataset, write_dataset
from nas_lightning.networks import reference_names
from tests.cli.commands import TINY, command, environment, read_checkpoint, read_events, refusal, run_process

OVERLAY = """
trainer:
  callbacks+:
    - class_path: nas_lightning.callbacks.LossContour
      init_args: {{resolution: {resolution}, batch_size: 10, direction_seeds: {seeds}}}
    - class_path: nas_lightning.callbacks.GradientVariance
      init_args: {{resolution: 3, batch_size: 10}}
    - class_path: nas_lightning.callbacks.LossProfile
      init_args: {{resolution: 4, batch_size: 10, curvature_samples: 2}}
    - class_path: nas_lightning.callbacks.HessianSpectrum
      init_args: {{k: 1, smallest: 0, trace_samples: 1, max_samples: 5, batch_size: 3, tolerance: 0.1}}
"""
WHOLE = """
trainer:
  callbacks+:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args:
        filename: epoch{epoch:04d}
        auto_insert_metric_name: false
        save_top_k: -1
        save_weights_only: true
        save_on_train_epoch_end: true
        enable_version_counter: false
    - class_path: nas_lightning.callbacks.Trajectory
      init_args: {resolution: 3, max_samples: 10, batch_size: 4}
    - class_path: nas_lightning.callbacks.LossLine
      init_args: {resolution: 3, max_samples: 10, batch_size: 4, batch_norm: reestimated}
    - class_path: nas_lightning.callbacks.Interpolation
      init_args: {resolution: 3, max_samples: 10, batch_size: 4}
    - class_path: nas_lightning.callbacks.CurvatureMap
      init_args: {resolution: 2, max_samples: 5, batch_size: 5, tolerance: 0.1, max_products: 20}
    - class_path: nas_lightning.callbacks.BlockCurvature
      init_args: {max_samples: 5, batch_size: 3, tolerance: 0.1, max_products: 20}
    - class_path: nas_lightning.callbacks.SpectralDensity
      init_args: {steps: 4, start_vectors: 2, max_samples: 5, batch_size: 3}
"""
"""The measures of the landscape beside those of `OVERLAY`."""
KINDS = ("loss_contour", "gradient_variance", "loss_profile", "hessian_spectrum")
FILES = tuple(f"{kind}-epoch0001.nc" for kind in KINDS)
WHOLE_KINDS = (*("trajectory", "loss_line", "interpolation", "curvature_map", "block_curvature"),)
ALL_FILES = (*FILES, *(f"{kind}-epoch0001.nc" for kind in WHOLE_KINDS))
DENSITY = ("spectral_density-epoch0001.nc",)


def overlay(folder: Path, resolution: int = 5, seeds: str = "[0, 1]") -> Path:
    path = folder / f"landscape{resolution}.yaml"
    path.write_text(OVERLAY.format(resolution=resolution, seeds=seeds))
    return path


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    settings = [f"--config={overlay(folder)}", *TINY, "--trainer.max_epochs=2"]
    main(["fit", *settings, f"--trainer.default_root_dir={folder / 'logs'}"])
    return folder / "logs" / "synthetic" / "darts_v2"


def assert_same_surfaces(
    first: Path, second: Path, *, rel: float, atol: float = 1e-12, files: Sequence[str] = FILES
) -> None:
    """The two folders hold the same surfaces, provenance and all, but for what tells where they were made."""
    for name in files:
        one, other = read_dataset(first / name), read_dataset(second / name)
        for dataset in (one, other):
            dataset.attrs.pop("device")
        assert one.attrs == other.attrs
        assert set(one.data_vars) == set(other.data_vars)
        for variable in map(str, one.data_vars):
            if one[variable].dtype.kind not in "fiu":
                assert (one[variable] == other[variable]).all(), variable
            elif not variable.endswith("residual"):  # rounding itself, where Lanczos has converged
                np.testing.assert_allclose(
                    one[variable], other[variable], rtol=rel, atol=atol, err_msg=variable
                )


def landscape(run: Path, *arguments: str) -> list[str]:
    config, checkpoint = run / "config.yaml", run / "checkpoints" / "last.ckpt"
    return ["landscape", f"--config={config}", f"--ckpt_path={checkpoint}", *arguments]


def emptied_copy(run: Path, folder: Path) -> Path:
    """The run without its surfaces."""
    copied = folder / "copied" / run.name
    shutil.copytree(run / "checkpoints", copied / "checkpoints")
    shutil.copy(run / "config.yaml", copied)
    return copied


def test_one_analysis_says_what_to_draw_of_its_own(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(finished_run, copied)  # with surfaces of other kinds
    for path in (copied / "landscape").glob("loss_profile*"):
        path.unlink()
    profile = ("--trainer.callbacks=LossProfile", "--trainer.callbacks.resolution=3")
    checkpoint = copied / "checkpoints" / "last.ckpt"
    main(["landscape", f"--ckpt_path={checkpoint}", *profile, "--trainer.callbacks.max_samples=20"])
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "result  1 analysis measured",
        f"folder  {copied / 'landscape'}",
        f"next    nas-lightning plot {next((copied / 'landscape').glob('loss_profile-*.nc'))}",
    ]


@pytest.mark.slow
def test_a_checkpoint_has_the_surfaces_of_its_training(finished_run: Path, tmp_path: Path) -> None:
    copied = emptied_copy(finished_run, tmp_path)
    main(landscape(copied))
    for name in FILES:
        assert (copied / "landscape" / name).read_bytes() == (finished_run / "landscape" / name).read_bytes()
    assert {"landscape/loss_contour", "landscape/gradient_surface"} <= set(
        read_events(copied).Tags()["images"]
    )
    # Nothing else of the run is touched.
    assert not (copied / "metrics.csv").exists()
    assert {path.name for path in (copied / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_without_callbacks_a_checkpoint_gets_all_four_analyses(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = emptied_copy(finished_run, tmp_path)
    measured: list[str] = []
    monkeypatch.setattr(
        "nas_lightning.callbacks.analysis.Analysis._run", lambda self, *_: measured.append(self.kind)
    )
    main(["landscape", f"--ckpt_path={copied / 'checkpoints' / 'last.ckpt'}", "--trainer.accelerator=cpu"])
    assert measured == ["loss_contour", "loss_profile", "gradient_variance", "hessian_spectrum"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_a_gpu_trained_and_measured_a_cpu_measures_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    (tmp_path / "whole.yaml").write_text(WHOLE)
    settings = [f"--config={overlay(tmp_path)}", f"--config={tmp_path / 'whole.yaml'}", *TINY]
    settings += ["--trainer.max_epochs=2", "--trainer.devices=1"]
    folder = tmp_path / "logs"
    main(["fit", *settings, "--trainer.accelerator=gpu", f"--trainer.default_root_dir={folder}"])
    run = folder / "synthetic" / "darts_v2"
    copied = emptied_copy(run, tmp_path)
    main(landscape(copied, "--trainer.accelerator=cpu"))
    assert read_surface(run / "landscape" / FILES[0]).attrs["device"] == "cuda:0"
    assert_same_surfaces(run / "landscape", copied / "landscape", rel=5e-3, atol=1e-5, files=ALL_FILES)
    assert_same_surfaces(run / "landscape", copied / "landscape", rel=5e-2, atol=1e-3, files=DENSITY)


@pytest.mark.slow
def test_a_training_on_two_ranks_measures_what_its_checkpoint_holds(tmp_path: Path) -> None:
    (tmp_path / "whole.yaml").write_text(WHOLE)
    settings = [f"--config={overlay(tmp_path)}", "--config=whole.yaml", *TINY, "--trainer.max_epochs=2"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.default_root_dir=logs"]
    result = run_process(["fit", *settings, *two], tmp_path)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "logs" / "synthetic" / "darts_v2"
    copied = emptied_copy(run, tmp_path)
    main(landscape(copied, "--trainer.devices=1", "--trainer.strategy=auto"))
    assert_same_surfaces(run / "landscape", copied / "landscape", rel=1e-6, files=ALL_FILES)
    # Eigenvalues in the bulk are differences of large ones; a density changes fast beside a narrow kernel.
    assert_same_surfaces(run / "landscape", copied / "landscape", rel=2e-2, atol=1e-4, files=DENSITY)


def finished_points(path: Path) -> int:
    try:
        return int(read_surface(path)["done"].sum())
    except FileNotFoundError:
        return 0


def killed_while_measuring(arguments: Sequence[str], folder: Path, file: Path) -> int:
    """Run a command, kill it when a file has some of its points, and return how many it has."""
    process = subprocess.Popen(
        command(arguments),
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while process.poll() is None and not finished_points(file) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    _, errors = process.communicate()
    points = finished_points(file)
    assert points > 0, errors
    return points


@pytest.mark.slow
def test_a_run_killed_after_its_last_epoch_completes_its_surfaces(tmp_path: Path) -> None:
    """The kill comes when the training is over: resuming has nothing to train, and all to measure."""
    settings = [f"--config={overlay(tmp_path, 13, '[0]')}", *TINY, "--trainer.max_epochs=2"]
    settings += ["--trainer.default_root_dir=logs"]
    run = tmp_path / "logs" / "synthetic" / "darts_v2"
    file = run / "landscape" / FILES[0]
    points = killed_while_measuring(["fit", *settings], tmp_path, file)
    assert 0 < points < 13 * 13
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["epoch"] == 1
    assert not (run / "result.json").exists()

    resumed = run_process(["fit", *settings, "--ckpt_path=last"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert (run / "result.json").exists()
    unbroken = emptied_copy(run, tmp_path)
    main(landscape(unbroken))
    assert_same_surfaces(run / "landscape", unbroken / "landscape", rel=1e-9)
    assert {"landscape/loss_contour", "landscape/gradient_by_node"} <= set(read_events(run).Tags()["images"])


@pytest.mark.slow
def test_a_kill_while_an_epoch_is_measured_loses_neither_epoch_nor_points(tmp_path: Path) -> None:
    contour = ["--trainer.callbacks=LossContour", "--trainer.callbacks.every_n_epochs=1"]
    settings = [*TINY, *contour, "--trainer.callbacks.resolution=17", "--trainer.max_epochs=2"]
    settings += ["--trainer.default_root_dir=logs"]
    run = tmp_path / "logs" / "synthetic" / "darts_v2"
    first = run / "landscape" / "loss_contour-epoch0000.nc"
    assert killed_while_measuring(["fit", *settings], tmp_path, first) < 17 * 17
    before = read_surface(first)
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["epoch"] == 0
    resumed = run_process(["fit", *settings, "--ckpt_path=last"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    after = read_surface(first)
    done = before["done"].values == 1
    assert after["done"].values.all()
    assert (after["loss"].values[done] == before["loss"].values[done]).all()
    assert read_surface(run / "landscape" / FILES[0])["done"].values.all()


@pytest.mark.slow
def test_sigterm_ends_all_ranks_of_a_hessian(finished_run: Path, tmp_path: Path) -> None:
    checkpoint = emptied_copy(finished_run, tmp_path) / "checkpoints" / "last.ckpt"
    hessian = ["--trainer.callbacks=HessianSpectrum", "--trainer.callbacks.tolerance=1e-12"]
    hessian += ["--trainer.callbacks.max_products=100000", "--trainer.callbacks.k=20"]
    two = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    process = subprocess.Popen(
        command(["landscape", f"--ckpt_path={checkpoint}", *hessian, *two]),
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert any("Hessian: 25 products" in line for line in lines)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)  # ends only when every rank has closed its end of the pipe
    assert process.returncode == 143
    assert "Traceback" not in errors
    assert "resume with the same command" in errors
    assert not list((checkpoint.parents[1] / "landscape").glob("*.nc"))


@pytest.mark.slow
def test_a_killed_surface_goes_on_with_two_ranks(finished_run: Path, tmp_path: Path) -> None:
    copied = emptied_copy(finished_run, tmp_path)
    config = (copied / "config.yaml").read_text().replace("resolution: 5", "resolution: 9")
    (copied / "config.yaml").write_text(config)
    file = copied / "landscape" / FILES[0]
    points = killed_while_measuring(landscape(copied), tmp_path, file)
    assert 0 < points < 2 * 9 * 9
    before = read_surface(file)
    two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    result = run_process(landscape(copied, *two), tmp_path)
    assert result.returncode == 0, result.stderr
    after = read_surface(file)
    done = before["done"].values == 1
    assert (after["loss"].values[done] == before["loss"].values[done]).all()  # not measured again
    unbroken = emptied_copy(copied, tmp_path / "unbroken")
    main(landscape(unbroken))
    assert_same_surfaces(copied / "landscape", unbroken / "landscape", rel=1e-6)


@pytest.mark.slow
def test_sigterm_ends_a_surface_and_keeps_its_points(finished_run: Path, tmp_path: Path) -> None:
    copied = emptied_copy(finished_run, tmp_path)
    config = (copied / "config.yaml").read_text().replace("resolution: 5", "resolution: 51")
    (copied / "config.yaml").write_text(config)
    file = copied / "landscape" / FILES[0]
    process = subprocess.Popen(
        command(landscape(copied)), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 100
    while process.poll() is None and not finished_points(file) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 143
    assert "nas-lightning: stopped by SIGTERM" in errors
    assert "Traceback" not in errors
    assert 0 < finished_points(file) < 2 * 51 * 51


def test_weights_of_the_darts_family(finished_run: Path, tmp_path: Path) -> None:
    classifier = CellClassifier.load_from_checkpoint(
        finished_run / "checkpoints" / "last.ckpt", map_location="cpu"
    )
    state = classifier.network.state_dict()
    names = reference_names(classifier.network)
    torch.save({names[key]: tensor for key, tensor in state.items()}, tmp_path / "reference.pt")
    settings = yaml.safe_load((finished_run / "config.yaml").read_text())
    del settings["trainer"]["callbacks"][1:]  # the contour alone
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["landscape", f"--config={tmp_path / 'config.yaml'}"]
    arguments += [f"--reference_weights={tmp_path / 'reference.pt'}"]
    main([*arguments, f"--trainer.default_root_dir={tmp_path}"])
    made = read_surface(tmp_path / "synthetic" / "darts_v2" / "landscape" / "loss_contour.nc")
    expected = read_surface(finished_run / "landscape" / FILES[0])
    xr.testing.assert_equal(made["loss"], expected["loss"])
    assert made.attrs["epoch"] == -1


def test_surfaces_are_drawn_side_by_side(finished_run: Path, tmp_path: Path) -> None:
    file = str(finished_run / "landscape" / FILES[0])
    main(["plot", file, file, "-o", str(tmp_path / "two.png")])
    assert (tmp_path / "two.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--trainer.callbacks=LossContour", "--trainer.callbacks.resolution=1"], ["resolution", "1", "2"]),
        (["--trainer.callbacks=LossContour", "--trainer.callbacks.extent=[1,-1]"], ["extent", "1.0, -1.0"]),
        (["--trainer.callbacks=LossContour", "--trainer.callbacks.extent=0"], ["extent", "0"]),
        (
            ["--trainer.callbacks=GradientVariance", "--trainer.callbacks.max_samples=38"],
            ["max_samples", "38", "37"],
        ),
        (["--trainer.callbacks=HessianSpectrum", "--trainer.callbacks.k=0"], ["k", "0", "1"]),
        (["--trainer.callbacks=LossContour", "--trainer.callbacks.split=val"], ["split", "val", "test"]),
        (
            ["--trainer.callbacks=LossContour", "--trainer.callbacks.normalization=filters"],
            ["normalization", "filter", "layer", "none"],
        ),
        (["--trainer.callbacks=LossContour", "--trainer.callbacks.resolutoin=5"], ["resolutoin"]),
        (["--ckpt_path=missing.ckpt"], ["missing.ckpt"]),
        (["--reference_weights=missing.pt"], ["reference_weights", "ckpt_path", "leave one out"]),
        (["--model.genotype=nasnet"], ["genotype", "nasnet", "contradicts"]),
    ],
    ids=lambda value: value[-1].lstrip("-") if value[-1].startswith("--") else "",
)
def test_bad_settings_are_refused_in_one_line(
    finished_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    fragments: list[str],
) -> None:
    checkpoint = emptied_copy(finished_run, tmp_path) / "checkpoints" / "last.ckpt"
    base = ["landscape", f"--ckpt_path={checkpoint}", "--trainer.accelerator=cpu"]
    line = refusal([*base, *arguments], capsys)
    assert all(fragment in line for fragment in fragments), line
    assert not (checkpoint.parent.parent / "landscape").exists()


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--initial_seeds=[]"], ["initial_seeds", "[]", "numbers"]),
        (["--initial_seeds=[1,1]"], ["initial_seeds", "[1, 1]", "different"]),
        (["--initial_seeds=[-1]"], ["initial_seeds", "-1"]),
        (
            ["--initial_seeds=[0]", "--reference_weights=missing.pt"],
            ["initial_seeds", "without a checkpoint"],
        ),
    ],
)
def test_seeds_that_are_none_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], fragments: list[str]
) -> None:
    line = refusal(["landscape", *TINY, *arguments], capsys)
    assert all(fragment in line for fragment in fragments), line


def test_damaged_reference_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"no weights")
    assert str(file) in refusal(["landscape", *TINY, f"--reference_weights={file}"], capsys)
    torch.save({"cells.0.preprocess0.op.1.weight": torch.zeros(2)}, file)
    assert "does not fit the network" in refusal(["landscape", *TINY, f"--reference_weights={file}"], capsys)


@pytest.mark.parametrize("content", [b"", b"no surface", None], ids=["empty", "foreign", "truncated"])
def test_a_file_that_is_no_surface_is_refused_and_kept(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    copied = emptied_copy(finished_run, tmp_path)
    file = copied / "landscape" / FILES[0]
    file.parent.mkdir()
    content = (finished_run / "landscape" / FILES[0]).read_bytes()[:-7] if content is None else content
    file.write_bytes(content)
    line = refusal(landscape(copied), capsys)
    assert str(file) in line
    assert "damaged" in line
    assert file.read_bytes() == content


def test_a_file_of_other_weights_is_refused_by_name(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = emptied_copy(finished_run, tmp_path)
    file = copied / "landscape" / FILES[0]
    surface = read_surface(finished_run / "landscape" / FILES[0])
    surface.attrs["weights_sha256"] = "0" * 64
    write_dataset(file, surface)
    line = refusal(landscape(copied), capsys)
    assert f"{file}: `weights_sha256` is" in line


def test_an_unwritable_place_is_said_before_the_work(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = emptied_copy(finished_run, tmp_path)
    (copied / "landscape").write_text("a file where the folder belongs")
    assert str(copied / "landscape") in refusal(landscape(copied), capsys)


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_the_finished_points(finished_run: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    copied = emptied_copy(finished_run, tmp_path)
    config = (copied / "config.yaml").read_text().replace("resolution: 5", "resolution: 51")
    (copied / "config.yaml").write_text(config)
    file = copied / "landscape" / FILES[0]
    assert killed_while_measuring(landscape(copied), tmp_path, file) > 0
    before = file.read_bytes()
    limit = len(before) // 2

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    result = subprocess.run(
        command(landscape(copied, "--trainer.logger=false")),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        preexec_fn=limited,
    )
    assert result.returncode == 2, result.stderr
    [line] = [line for line in result.stderr.splitlines() if "nas-lightning: error: " in line]
    assert f"cannot write {file}" in line
    assert file.read_bytes() == before


def test_two_processes_do_not_share_a_folder(finished_run: Path, tmp_path: Path) -> None:
    copied = emptied_copy(finished_run, tmp_path)
    script = (
        "import sys, time; from filelock import FileLock; "
        "lock = FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); time.sleep(100)"
    )
    (copied / "landscape").mkdir()
    lock = copied / "landscape" / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SystemExit):
            main(landscape(copied))
    finally:
        holder.kill()
        holder.communicate()
    assert not list((copied / "landscape").glob("*.nc"))


# Initial weights.

AT_START = (
    "--trainer.callbacks=GradientVariance",
    "--trainer.callbacks.resolution=2",
    "--trainer.callbacks.batch_size=10",
    "--trainer.callbacks.at_start=true",
    "--trainer.callbacks.at_end=false",
)


def test_initial_weights_are_those_from_which_fit_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*TINY, *AT_START, "--trainer.callbacks.resolution=null", "--model.drop_path=0.2"]
    alone, trained = tmp_path / "alone", tmp_path / "trained"
    main(["landscape", *settings, "--initial_seeds=[0,1]", f"--trainer.default_root_dir={alone}"])
    printed = capsys.readouterr().out.splitlines()
    folder = alone / "synthetic" / "darts_v2" / "landscape"
    assert sorted(path.name for path in folder.glob("*.nc")) == [
        "gradient_variance-start-seed1.nc",
        "gradient_variance-start.nc",
    ]
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
    for seed, run, file in ((0, "darts_v2", ""), (1, "darts_v2-seed1", "-seed1")):
        root = f"--trainer.default_root_dir={trained}"
        main(["fit", *settings, *short, root, f"--seed_everything={seed}"])
        start = trained / "synthetic" / run / "landscape" / "gradient_variance-start.nc"
        assert start.read_bytes() == (folder / f"gradient_variance-start{file}.nc").read_bytes()
    norms = [
        float(read_dataset(path)["center_mean_gradient_norm"])
        for path in (folder / "gradient_variance-start.nc", folder / "gradient_variance-start-seed1.nc")
    ]
    assert norms[0] != norms[1]
    header = next(number for number, line in enumerate(printed) if line.startswith("at initialisation"))
    assert printed[header].split()[-6:] == ["seed", "0", "seed", "1", "mean", "sd"]
    row = next(line for line in printed[header:] if line.startswith("gradient norm"))
    expected = [*norms, np.mean(norms), np.std(norms, ddof=1)]
    assert [float(cell) for cell in row.split()[-4:]] == pytest.approx(expected, rel=5e-2)
    assert [line for line in printed[header:] if line.startswith("tangent-kernel trace")]


def test_fit_takes_the_start_that_is_measured_already(tmp_path: Path) -> None:
    settings = [*TINY, *AT_START, f"--trainer.default_root_dir={tmp_path}"]
    main(["landscape", *settings])
    run = tmp_path / "synthetic" / "darts_v2"
    start = run / "landscape" / "gradient_variance-start.nc"
    before = start.stat()
    events = read_events(run).Tags()
    assert {"landscape_start/gradient_surface"} <= set(events["images"])
    main(["fit", *settings, "--trainer.max_epochs=1"])
    dataset = read_dataset(start)
    assert dataset["done"].values.all()
    assert (run / "result.json").exists()
    assert start.stat().st_size == before.st_size


@pytest.mark.slow
def test_a_kill_while_the_start_is_measured_loses_no_point(tmp_path: Path) -> None:
    contour = ["--trainer.callbacks=LossContour", "--trainer.callbacks.at_start=true"]
    settings = [*TINY, *contour, "--trainer.callbacks.resolution=17", "--trainer.max_epochs=1"]
    settings += ["--trainer.default_root_dir=logs"]
    run = tmp_path / "logs" / "synthetic" / "darts_v2"
    start = run / "landscape" / "loss_contour-start.nc"
    assert killed_while_measuring(["fit", *settings], tmp_path, start) < 17 * 17
    before = read_surface(start)
    assert not (run / "checkpoints" / "last.ckpt").exists()
    resumed = run_process(["fit", *settings, "--ckpt_path=last"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    after = read_surface(start)
    done = before["done"].values == 1
    assert after["done"].values.all()
    assert (after["loss"].values[done] == before["loss"].values[done]).all()
    unbroken = run_process(["fit", *settings[:-1], "--trainer.default_root_dir=unbroken"], tmp_path)
    assert unbroken.returncode == 0, unbroken.stderr
    other = tmp_path / "unbroken" / "synthetic" / "darts_v2" / "landscape"
    for name in ("loss_contour-start.nc", "loss_contour-epoch0000.nc"):
        assert (other / name).read_bytes() == (run / "landscape" / name).read_bytes()

    start.unlink()
    again = run_process(["fit", *settings, "--ckpt_path=last"], tmp_path)
    assert again.returncode == 0, again.stderr
    assert "loss_contour-start.nc: the initial weights are gone" in again.stderr
    assert not start.exists()


@pytest.mark.slow
def test_two_ranks_measure_the_same_start(tmp_path: Path) -> None:
    config = overlay(tmp_path, 3, "[0]")
    config.write_text(config.read_text().replace("init_args: {", "init_args: {at_start: true, "))
    settings = [f"--config={config}", *TINY]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    for root, command_line in (
        ("one", ["landscape", *settings, "--initial_seeds=[0,4]"]),
        ("two", ["landscape", *settings, *two, "--initial_seeds=[0,4]"]),
        ("fit", ["fit", *settings, *two, "--trainer.max_epochs=1"]),
    ):
        result = run_process([*command_line, f"--trainer.default_root_dir={root}"], tmp_path)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("gradient norm") == (root != "fit")
    one, two_ranks, fit = (
        tmp_path / root / "synthetic" / "darts_v2" / "landscape" for root in ("one", "two", "fit")
    )
    starts = [f"{kind}-start.nc" for kind in KINDS]
    assert_same_surfaces(
        one, two_ranks, rel=1e-5, files=[*starts, *(f"{kind}-start-seed4.nc" for kind in KINDS)]
    )
    assert_same_surfaces(two_ranks, fit, rel=1e-5, files=starts)
