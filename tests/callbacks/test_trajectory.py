"""The path of a small training: its file, its picture, its animation, and what is refused."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor, nn

from nas_lightning.analysis import Surface, evaluate, plane_directions, read_surface
from nas_lightning.analysis.stored_weights import StoredWeights
from nas_lightning.callbacks import Trajectory
from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.main import main
from nas_lightning.netcdf import read_dataset
from nas_lightning.study.record import measured_otherwise
from nas_lightning.study.study import AnalysisFile
from nas_lightning.torch_files import read_torch_file
from tests.callbacks.any_module import Own, loader, samples
from tests.callbacks.cases import data, images, small_classifier, trained, trainer
from tests.cli.commands import TINY, read_events, refusal
from tests.oracles import trajectory as oracle
from tests.oracles.loss_surface import loss_surface
from tests.study.run_files import planned_run

EPOCHS = 3
SMALL: dict[str, Any] = {"resolution": 5, "batch_size": 20}


def checkpoints(**settings: Any) -> ModelCheckpoint:
    kept: dict[str, Any] = {"filename": "epoch{epoch:04d}", "auto_insert_metric_name": False}
    kept |= {"save_top_k": -1, "save_weights_only": True, "enable_version_counter": False}
    return ModelCheckpoint(**{**kept, "save_on_train_epoch_end": True, **settings})


def run(folder: Path, *callbacks: Callback, **settings: Any) -> tuple[CellClassifier, Trainer]:
    torch.manual_seed(0)
    made = small_classifier(init_channels=2, num_cells=2)
    settings = {"max_epochs": EPOCHS, "enable_checkpointing": True} | settings
    return trained(folder, *callbacks, classifier=made, **settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CellClassifier]:
    folder = tmp_path_factory.mktemp("trajectory")
    classifier, _ = run(folder, checkpoints(), Trajectory(**SMALL))
    return folder / "tb", classifier


def states_of(folder: Path) -> list[dict[str, Tensor]]:
    """The network's state dicts along the path."""
    names = ["start", *(f"epoch{epoch:04d}" for epoch in range(EPOCHS))]
    found = [read_torch_file(folder / "checkpoints" / f"{name}.ckpt")["state_dict"] for name in names]
    return [{name.removeprefix("network."): value for name, value in state.items()} for state in found]


def test_the_path_is_that_of_the_checkpoints(finished: tuple[Path, CellClassifier]) -> None:
    folder, classifier = finished
    dataset = read_surface(folder / "landscape" / "trajectory-epoch0002.nc")
    states, names = states_of(folder), list(classifier.network.evaluated_parameters())
    _, coordinates, shares, distances = oracle.plane(states, names)
    np.testing.assert_allclose(dataset["coordinate"], coordinates, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(dataset["explained_variance"], shares, rtol=1e-9)
    np.testing.assert_allclose(dataset["distance"], distances, atol=1e-6)
    assert dataset["checkpoint_epochs"].values.tolist() == [0, 1, 2, 3]
    assert dataset["checkpoint_step"].values.tolist() == [0, 3, 6, 9]
    assert dataset.attrs["checkpoints"] == 4
    assert dataset.attrs["batch_norm"] == "reestimated"
    # The path lies inside the surface.
    for name, column in zip(("alpha", "beta"), coordinates.T, strict=True):
        steps = dataset[name].values
        assert steps[0] < column.min() < column.max() < steps[-1]
    [length] = read_events(folder).Scalars("landscape/path_length")
    assert length.value == pytest.approx(float(dataset["path_step"].sum()), rel=1e-6)
    assert "landscape/trajectory" in read_events(folder).Tags()["images"]


def test_every_checkpoint_is_measured_as_it_is(finished: tuple[Path, CellClassifier]) -> None:
    folder, classifier = finished
    dataset = read_surface(folder / "landscape" / "trajectory-epoch0002.nc")
    network = small_classifier(init_channels=2, num_cells=2).network
    for index, state in enumerate(states_of(folder)):
        network.load_state_dict(state)
        loss, accuracy = evaluate(network, [images()])
        if index:  # initial weights have no statistics of their own
            assert float(dataset["checkpoint_loss"][index]) == pytest.approx(loss, rel=1e-5)
            assert float(dataset["checkpoint_accuracy"][index]) == pytest.approx(accuracy)
    assert float(dataset["checkpoint_loss"][-1]) == pytest.approx(
        evaluate(classifier.network, [images()])[0], rel=1e-5
    )


def test_the_surface_has_the_origin_of_the_path(finished: tuple[Path, CellClassifier]) -> None:
    folder, classifier = finished
    dataset = read_surface(folder / "landscape" / "trajectory-epoch0002.nc")
    names = list(classifier.network.evaluated_parameters())
    stored = [StoredWeights(state, names) for state in states_of(folder)]
    origin = {name: value.double() for name, value in states_of(folder)[-1].items()}
    directions = plane_directions(stored, origin, dataset["coefficient"].values)
    inputs, targets = images()
    batches = [(inputs[i : i + 20], targets[i : i + 20]) for i in (0, 20)]
    alpha, beta = (float(dataset[name][1]) for name in ("alpha", "beta"))
    loss, _ = loss_surface(classifier.network, batches, directions, [alpha], [beta], reestimated=True)
    assert float(dataset["loss"][0, 1, 1]) == pytest.approx(float(loss[0, 0]), rel=1e-3)


def test_the_animation_has_a_frame_a_checkpoint(finished: tuple[Path, CellClassifier]) -> None:
    path = finished[0] / "landscape" / "trajectory-epoch0002.gif"
    with Image.open(path) as animation:
        assert getattr(animation, "n_frames", 1) == EPOCHS + 1
    assert path.stat().st_size < 100_000


def test_a_broken_measure_goes_on_to_the_same_bytes(
    finished: tuple[Path, CellClassifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = finished[0] / "landscape" / "trajectory-epoch0002.nc"
    saved, save = [], Surface.save

    def breaks(self: Surface, path: Any) -> None:
        save(self, path)
        saved.append(self.finished)
        if self.finished:
            raise RuntimeError("broken off")

    monkeypatch.setattr(Surface, "save", breaks)
    with pytest.raises(RuntimeError, match="broken off"):
        run(tmp_path, checkpoints(), Trajectory(**SMALL))
    monkeypatch.undo()
    assert saved == [0, 16]
    run(tmp_path, checkpoints(), Trajectory(**SMALL))
    path = tmp_path / "tb" / "landscape" / "trajectory-epoch0002.nc"
    assert path.read_bytes() == expected.read_bytes()
    # Another set of checkpoints is another plane.
    monkeypatch.setattr(Trajectory, "check", lambda *_: None)
    with pytest.raises(ValueError, match=r"`checkpoints` is 3, the file has 4: it belongs to another"):
        run(
            tmp_path, checkpoints(), Trajectory(files="epoch000[01].ckpt", **SMALL), Removes("epoch0000.ckpt")
        )


class Removes(Callback):
    """Removes a checkpoint before the end of the training."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (Path(trainer.log_dir or "") / "checkpoints" / self.name).unlink(missing_ok=True)


def test_any_module_has_a_path_within_an_epoch_too(tmp_path: Path) -> None:
    made = trainer(
        checkpoints(filename="epoch{epoch}-step{step}", every_n_train_steps=1),
        Trajectory(resolution=2, split="train", animation=False),
        **{"default_root_dir": tmp_path, "enable_checkpointing": True, "max_epochs": 1},
        enable_progress_bar=False,
    )
    made.fit(Own(nn.Sequential(nn.Flatten(), nn.Linear(32, 3))), loader(*samples()))
    [path] = tmp_path.rglob("trajectory-epoch0000.nc")
    dataset = read_surface(path)
    assert dataset["checkpoint_step"].values.tolist() == list(range(made.global_step + 1))
    assert np.isnan(dataset["checkpoint_epochs"].values[1:-1]).all()


def test_a_training_that_leaves_no_path_is_refused_before_it() -> None:
    def refused(message: str, *callbacks: Callback, **settings: Any) -> None:
        made = trainer(*callbacks, **{"enable_checkpointing": True, "max_epochs": EPOCHS} | settings)
        with pytest.raises(ValueError, match=message):
            made.fit(small_classifier(init_channels=2, num_cells=2), datamodule=data())

    refused("add the ModelCheckpoint of configs/trajectory.yaml", Trajectory(), checkpoints(save_top_k=0))
    refused(
        r"`every_n_epochs` \(=3\) of the ModelCheckpoint leaves 2 checkpoints of `trainer.max_epochs` \(=3\)",
        *(Trajectory(), checkpoints(every_n_epochs=3)),
    )
    refused(r"`runs` \(=nowhere\) is not the folder of a run", Trajectory(runs=["nowhere"]), checkpoints())


@pytest.mark.parametrize(
    ("rate", "reason"),
    [
        (float("nan"), "the last weights hold NaN or infinity"),
        (0.0, "all 3 checkpoints hold the same weights"),
    ],
)
def test_a_training_without_a_plane_keeps_what_comes_after(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rate: float, reason: str
) -> None:
    class After(Callback):
        reached = False

        def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.reached = True

    after = After()
    analysis = AnalysisFile("trajectory", {"init_args": {"resolution": 2, "split": "train"}})
    made = trainer(
        *(checkpoints(), Trajectory(resolution=2, split="train", animation=False), after),
        **{"default_root_dir": tmp_path, "enable_checkpointing": True, "max_epochs": 2},
        enable_progress_bar=False,
    )
    own = Own(nn.Sequential(nn.Flatten(), nn.Linear(32, 3)))
    own.configure_optimizers = lambda: torch.optim.SGD(own.parameters(), lr=rate)  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO):
        made.fit(own, loader(*samples()))
    assert after.reached
    assert f"trajectory-epoch0001.nc: not measured: {reason}" in caplog.text
    [path] = tmp_path.rglob("*.nc")  # it says so to a study, which does not wait for a path
    assert reason in read_dataset(path).attrs["not_measured"]
    assert measured_otherwise(planned_run(tmp_path, "run"), analysis, read_dataset(path), path) is None
    with pytest.raises(ValueError, match=f"holds nothing to draw: .*{reason}"):
        read_surface(path)


def test_settings_out_of_range_are_refused() -> None:
    settings: list[tuple[dict[str, Any], str]] = [
        ({"resolution": 1}, r"`resolution` \(=1\)"),
        ({"margin": 0.0}, r"`margin` \(=0.0\)"),
        ({"at_start": True}, "`at_start`"),
        ({"files": "a/*.ckpt"}, "`files`"),
    ]
    for setting, message in settings:
        with pytest.raises(ValueError, match=message):
            Trajectory(**setting)


@pytest.mark.slow
def test_several_runs_share_a_plane(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overlay = Path(__file__).parents[2] / "configs" / "trajectory.yaml"
    common = [*TINY, "--model.init_channels=2", "--model.num_cells=2", "--trainer.max_epochs=2"]
    common += [f"--config={overlay}", "--trainer.callbacks.resolution=2"]
    logs = f"--trainer.default_root_dir={tmp_path}"
    for name, rate in (("slow", 0.01), ("fast", 0.1)):
        main(["fit", *common, logs, f"--run={name}", f"--model.optimizer.lr={rate}"])
    runs = [str(tmp_path / "synthetic" / name) for name in ("slow", "fast")]
    capsys.readouterr()
    main(["landscape", "--trajectories", *runs])
    out, err = capsys.readouterr()
    path = tmp_path / "synthetic" / "slow" / "landscape" / "trajectories-epoch0001.nc"
    assert out.splitlines()[-1] == f"next    nas-lightning plot {path}"
    assert "do not start from the same weights" not in err
    dataset: xr.Dataset = read_surface(path)
    assert json.loads(dataset.attrs["run_names"]) == ["slow", "fast"]
    assert dataset["checkpoint_run"].values.tolist() == [0, 0, 0, 1, 1, 1]
    # Both start from one point of the plane; its origin is the end of the first.
    np.testing.assert_array_equal(dataset["coordinate"][0], dataset["coordinate"][3])
    assert dataset["coordinate"][2].values.tolist() == [0.0, 0.0]

    assert "names a run that is in the plane already" in refusal(
        ["landscape", "--trajectories", runs[0], runs[1], runs[1]], capsys
    )
    other = shutil.copytree(runs[1], tmp_path / "synthetic" / "other")
    for file in (other / "checkpoints").glob("*.ckpt"):
        file.unlink()
    assert "holds no start.ckpt and no epoch*.ckpt" in refusal(
        ["landscape", "--trajectories", runs[0], str(other)], capsys
    )
