"""The line from the initial to the trained weights of a small training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from nas_lightning.analysis import InterpolationSurface, evaluate, loss_interpolation
from nas_lightning.callbacks import Interpolation
from nas_lightning.callbacks.checkpoint_states import network_state
from nas_lightning.callbacks.interpolation import between_name
from nas_lightning.classifier import CellClassifier
from nas_lightning.torch_files import write_torch_file
from tests.callbacks.cases import data, small_classifier, trainer
from tests.callbacks.test_loss_line import splits_of
from tests.cli.commands import read_events


def test_a_training_is_measured_from_its_initial_weights(
    measured: tuple[Path, CellClassifier, Trainer],
) -> None:
    folder, classifier, _ = measured
    line = InterpolationSurface.read(folder / "interpolation-epoch0001.nc")
    start = network_state(folder.parent / "checkpoints" / "start.ckpt", classifier.network, "start")
    assert start.epoch == -1
    splits = splits_of(classifier, "train", "test")
    pair = (start.state, classifier.network.state_dict())
    expected = loss_interpolation(classifier.network, splits, [pair], [0, 0.5, 1])
    for name in map(str, expected.data_vars):
        assert line[name].values == pytest.approx(expected[name].values, rel=1e-4), name
    assert json.loads(line.attrs["labels"]) == [["tb, initial weights", "tb, after 2 epochs"]]
    assert line.attrs["batch_norm"] == "reestimated"
    events = read_events(folder.parent)
    [number] = events.Scalars("landscape/test_barrier")
    assert number.value == pytest.approx(float(line["test_barrier"][0]), rel=1e-4)
    assert "landscape/interpolation" in events.Tags()["images"]


def validated(run: Path, *callbacks: Callback, classifier: CellClassifier | None = None) -> CellClassifier:
    """A network whose analyses run on it as they do on a checkpoint."""
    classifier = classifier or small_classifier()
    validation = trainer(*callbacks, default_root_dir=run, enable_progress_bar=False)
    validation.validate(classifier, data(), verbose=False)
    return classifier


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three checkpoints of networks with other weights, each in its run."""
    folder = tmp_path_factory.mktemp("runs")
    paths = []
    for seed in range(3):
        torch.manual_seed(seed)
        path = folder / f"run{seed}" / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        state = small_classifier().state_dict()
        write_torch_file(path, {"state_dict": state, "epoch": 0, "global_step": 0})
        paths.append(path)
    return paths


def between(run: Path, checkpoints: list[Path], **settings: Any) -> tuple[Interpolation, CellClassifier]:
    fixed: dict[str, Any] = {"resolution": 3, "batch_size": 16, "speed": "reference"}
    analysis = Interpolation(folder=str(run), **fixed | settings)
    analysis.between, analysis.checkpoint_epoch = tuple(checkpoints), 0
    return analysis, validated(run, analysis)


def test_all_pairs_of_checkpoints_are_measured(checkpoints: list[Path], tmp_path: Path) -> None:
    _, classifier = between(tmp_path, checkpoints, batch_norm="interpolated")
    [path] = tmp_path.glob("*.nc")
    assert path.name == "interpolation-run0-start-to-run1-start-to-run2-start.nc"
    line = InterpolationSurface.read(path)
    assert line["test_barrier"].dims == ("pair",)
    assert [pair[1][:4] for pair in json.loads(line.attrs["labels"])] == ["run1", "run2", "run2"]
    assert "epoch" not in line.attrs
    [batches] = splits_of(classifier, "test", batch_size=16).values()
    for number, (first, second) in enumerate([(0, 1), (0, 2), (1, 2)]):
        for t, place in ((0, first), (1, second)):
            state = network_state(checkpoints[place], classifier.network, "between").state
            classifier.network.load_state_dict(state)
            loss, accuracy = evaluate(classifier.network, batches)
            found = line.sel(pair=number, position=t)
            assert float(found["test_loss"]) == loss  # bit for bit
            assert float(found["test_accuracy"]) == accuracy


def test_a_broken_measurement_is_resumed_bit_for_bit(
    checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas_lightning.callbacks import point_analysis

    usual: Callable[..., None] = vars(point_analysis)["measure_pending"]

    def in_chunks(*arguments: Any, **settings: Any) -> None:
        usual(*arguments, **settings | {"chunk_size": 2})

    def killed(*arguments: Any, after_chunk: Any, **settings: Any) -> None:
        def and_stop(surface: Any) -> None:
            after_chunk(surface)
            raise KeyboardInterrupt

        in_chunks(*arguments, after_chunk=and_stop, **settings)

    monkeypatch.setattr(point_analysis, "measure_pending", in_chunks)
    between(tmp_path / "whole", checkpoints[:2])
    with monkeypatch.context() as patch:
        patch.setattr(point_analysis, "measure_pending", killed)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            between(tmp_path / "broken", checkpoints[:2])
    [path] = (tmp_path / "broken").glob("*.nc")
    assert int(InterpolationSurface.read(path)["done"].sum()) == 2
    between(tmp_path / "broken", checkpoints[:2])
    assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()


def test_checkpoints_that_do_not_fit_are_refused(checkpoints: list[Path], tmp_path: Path) -> None:
    for other, message in (
        (checkpoints[0], "both ends of the line have the same weights"),
        (tmp_path / "gone.ckpt", r"`between` \(=.*gone.ckpt\) is not a file"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            between(tmp_path, [checkpoints[0], other])
    larger = small_classifier(init_channels=6)
    analysis = Interpolation(start=str(checkpoints[0]), resolution=3)
    analysis.checkpoint_epoch = 0
    with pytest.raises(ValueError, match="it was trained with another network"):
        validated(tmp_path, analysis, classifier=larger)
    missing = Interpolation(resolution=3)
    missing.checkpoint_epoch = 0
    with pytest.raises(FileNotFoundError, match=r"`start` \(=start\): .*start.ckpt is not there"):
        validated(tmp_path, missing)
    assert not list(tmp_path.glob("**/*.nc"))


def test_a_training_without_its_start_says_so_and_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    fit = trainer(
        Interpolation(start="first", resolution=3), default_root_dir=run, max_epochs=1, limit_train_batches=1
    )
    fit.fit(small_classifier(), data())
    assert "no line is measured: `start` (=" in caplog.text
    assert not list(run.glob("landscape/*.nc"))
    shutil.rmtree(run)


def test_names_of_files_say_the_checkpoints_or_hash_them() -> None:
    labels = ["darts, initial weights", "darts, after 1 epoch"]
    assert between_name("interpolation", labels) == "interpolation-darts-start-to-darts-1.nc"
    many = between_name(
        "interpolation", [f"a_rather_long_name_of_a_run{i}, after 2 epochs" for i in range(9)]
    )
    assert many.startswith("interpolation-9-checkpoints-")
    assert len(many) < 60


def test_settings_out_of_range_are_refused() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"resolution": 1}, "`resolution`"),
        ({"extent": (0.0, 0.5)}, r"`extent` \(=\(0.0, 0.5\)\) must reach from 0"),
        ({"start": ""}, "`start`"),
        ({"splits": ["test", "test"]}, "`splits`"),
    ]
    for settings, message in refused:
        with pytest.raises(ValueError, match=message):
            Interpolation(**settings)
