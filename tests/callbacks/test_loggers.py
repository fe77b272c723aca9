"""A plain trainer logs what the command line logs, to every logger in its own way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import (
    CometLogger,
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from matplotlib.figure import Figure
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from nas_lightning.callbacks import LossContour, RunRecord
from nas_lightning.classifier import CellClassifier
from tests.callbacks.any_module import loader
from tests.callbacks.cases import data, small_classifier, trainer
from tests.cli.commands import read_events, read_metrics

PICTURES = {"cell/normal", "cell/reduction", "landscape/loss_contour", "landscape/loss_surface"}


def fitted(logger: Any, classifier: CellClassifier | None = None, **settings: Any) -> Trainer:
    seed_everything(0)
    fit = trainer(LossContour(resolution=3), max_epochs=1, logger=logger, enable_progress_bar=False)
    fit.fit(classifier or small_classifier(), **settings or {"datamodule": data()})
    return fit


def test_a_plain_training_logs_what_the_command_line_does(tmp_path: Path) -> None:
    fit = fitted(
        TensorBoardLogger(tmp_path, name="", version="tb"), CellClassifier(init_channels=4, num_cells=4)
    )
    folder = tmp_path / "tb"
    events = read_events(folder)
    row = read_metrics(folder)[0]
    for name in ("loss/train", "accuracy/train", "loss/test", "accuracy/test", "learning_rate"):
        assert [point.value for point in events.Scalars(name)] == pytest.approx([row[name]])
    assert row["learning_rate"] == 0.025
    assert set(events.Tags()["images"]) >= PICTURES
    assert events.Scalars("cell/depth")[0].value == 3
    result = json.loads((folder / "result.json").read_text())
    assert result["settings"]["data.class"] == "Synthetic"
    assert (folder / "landscape" / "loss_contour-epoch0000.nc").exists()
    settings = yaml.safe_load((folder / "hparams.yaml").read_text())
    assert settings == {
        "model.genotype": "darts_v2",
        "model.init_channels": 4,
        "model.num_cells": 4,
        "data.class": "Synthetic",
        "data.batch_size": 16,
        "data.image_size": 16,
        "data.train_size": 48,
        "data.test_size": 37,
        "trainer.max_epochs": 1,
        "optimizer": "SGD",
        "learning_rate": 0.025,
        "seed": 0,
    }
    tag = next(tag for tag in events.PluginTagToContent("hparams") if tag.endswith("session_start_info"))
    content = events.SummaryMetadata(tag).plugin_data.content
    table = HParamsPluginData.FromString(content).session_start_info.hparams
    assert table["learning_rate"].number_value == 0.025
    assert table["seed"].number_value == 0
    fit.test(small_classifier(num_cells=4), datamodule=data(), verbose=False)
    assert "loss/test" in read_events(folder).Tags()["scalars"]


def test_plain_loaders_do_as_well(tmp_path: Path) -> None:
    images = torch.randn(32, 3, 16, 16)
    batches = loader(images, torch.arange(32) % 10)
    fitted(CSVLogger(tmp_path, name="", version="csv"), train_dataloaders=batches, val_dataloaders=batches)
    folder = tmp_path / "csv"
    result = json.loads((folder / "result.json").read_text())
    assert result["evaluation_split"] == "val"
    rows = read_metrics(folder)  # those of the logger, in which the metrics of one call share a row
    assert result["final"]["loss/val"] in [row.get("loss/val") for row in rows]
    assert result["cell"]["multiply_adds"] > 0
    assert result["provenance"]["data"] == {"name": "TensorDataset", "split_sizes": {}}


def test_plain_loaders_need_no_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    batches = loader(torch.randn(32, 3, 16, 16), torch.arange(32) % 10)
    fit = trainer(max_epochs=1, enable_progress_bar=False, logger=CSVLogger(tmp_path, name="", version="csv"))
    fit.fit(small_classifier(), batches)
    result = json.loads((tmp_path / "csv" / "result.json").read_text())
    assert result["finished"]
    assert result["provenance"]["data"] == {"name": "TensorDataset", "split_sizes": {}}


def test_a_training_without_a_logger_writes_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seed_everything(0)
    fit = trainer(max_epochs=1, enable_progress_bar=False)
    fit.fit(small_classifier(), datamodule=data())
    assert not list(tmp_path.iterdir())
    assert {"loss/train", "accuracy/test"} <= fit.callback_metrics.keys()


def test_a_logger_that_takes_no_pictures_gets_files_and_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fitted([CSVLogger(tmp_path, name="", version="csv"), TensorBoardLogger(tmp_path, name="", version="tb")])
    pictures = tmp_path / "csv" / "pictures"
    found = {path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png")}
    assert found == {f"{tag}-epoch0000.png" for tag in PICTURES}
    assert caplog.text.count(f"CSVLogger takes no pictures: they are in {pictures}") == 1
    assert set(read_events(tmp_path / "tb").Tags()["images"]) >= PICTURES
    written = yaml.safe_load((tmp_path / "csv" / "hparams.yaml").read_text())
    assert (written["model.genotype"], written["learning_rate"], written["seed"]) == ("darts_v2", 0.025, 0)


class Recorder:
    """Stands in for the client of W&B, MLflow or Comet, whose packages are not installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.figures: dict[str, object] = {}
        self.numbers: dict[str, float] = {}
        self.settings: dict[str, Any] = {}

    def log_figure(self, *arguments: Any, **named: Any) -> None:
        if named:  # Comet's
            self.figures[named["figure_name"]] = named["figure"]
        else:  # MLflow's
            run, figure, file = arguments
            assert run == "run7"
            self.figures[file.removesuffix("-epoch0000.png")] = figure


class Faked(Logger):
    """What the three loggers share."""

    _experiment = None

    def __init__(self, folder: Path) -> None:
        self.recorder = Recorder(folder)

    experiment = property(lambda self: self.recorder)
    name = property(lambda self: "project")
    version = property(lambda self: "run7")
    run_id = property(lambda self: "run7")
    save_dir = property(lambda self: self.recorder.folder)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.recorder.numbers |= metrics

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        self.recorder.settings |= params

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        assert step == 0
        self.recorder.figures[key] = images[0]

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None: ...

    def finalize(self, status: str) -> None: ...


class FakedWandb(Faked, WandbLogger): ...  # type: ignore[misc]


class FakedMLFlow(Faked, MLFlowLogger): ...  # type: ignore[misc]


class FakedComet(Faked, CometLogger): ...


@pytest.mark.parametrize("kind", [FakedWandb, FakedMLFlow, FakedComet])
def test_other_loggers_get_settings_numbers_and_pictures(tmp_path: Path, kind: type[Faked]) -> None:
    logger = kind(tmp_path)
    fitted(logger)
    assert logger.recorder.figures.keys() == PICTURES
    expected = "ndarray" if kind is FakedWandb else Figure.__name__
    assert {type(figure).__name__ for figure in logger.recorder.figures.values()} == {expected}
    assert {"loss/train", "cell/width", "learning_rate"} <= logger.recorder.numbers.keys()
    assert logger.recorder.settings["model.genotype"] == "darts_v2"
    run = tmp_path / "project" / "run7"
    assert {"metrics.csv", "result.json", "landscape"} <= {path.name for path in run.iterdir()}


def test_a_second_training_by_one_trainer_has_rows_of_its_own(tmp_path: Path) -> None:
    fit = trainer(max_epochs=1, logger=CSVLogger(tmp_path, name="", version="csv"))
    for _ in range(2):
        fit.fit_loop.epoch_progress.reset()
        fit.fit(small_classifier(), datamodule=data())
    [record] = [callback for callback in fit.callbacks if isinstance(callback, RunRecord)]  # type: ignore[attr-defined]
    assert len(record.rows) == 1
