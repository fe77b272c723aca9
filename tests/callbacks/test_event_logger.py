"""TensorBoard's event file on a disk that fills up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nas_lightning.callbacks.event_logger import EventLogger
from tests.datamodules.limited import with_file_size_limit


def logger(folder: Path) -> EventLogger:
    return EventLogger(folder, name="experiment", version="run", default_hp_metric=False)


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "experiment" / "run"), size_guidance={"scalars": 0}).Reload()


def log_losses(folder: Path, epochs: range) -> None:
    log = logger(folder)
    for epoch in epochs:
        log.log_metrics({"loss": 1 / (epoch + 1)}, step=epoch)
        log.save()
    log.finalize("success")


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    log = logger(tmp_path)
    log.log_hyperparams({"lr": 0.1}, {"final": 1.0}, step=3)
    log.log_metrics({"loss": 0.5}, step=2)
    log.experiment.add_image("cell", torch.zeros(3, 8, 8), 0)
    log.experiment.close()
    log.log_metrics({"loss": 0.25}, step=3)  # after closing, in a file of its own
    log.finalize("success")
    events = read(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(2, 0.5), (3, 0.25)]
    assert events.Images("cell")[0].height == 8
    assert yaml.safe_load((tmp_path / "experiment" / "run" / "hparams.yaml").read_text()) == {"lr": 0.1}


@pytest.mark.parametrize("limit", [300, 301, 333, 350])
def test_a_full_disk_is_named_and_the_file_stays_whole(tmp_path: Path, limit: int) -> None:
    message = with_file_size_limit(lambda: log_losses(tmp_path, range(20)), limit)
    (file,) = (tmp_path / "experiment" / "run").glob("events*")
    assert message == f"OSError: [Errno 27] cannot write {file}: File too large"
    written = [event.step for event in read(tmp_path).Scalars("loss")]
    assert written == list(range(len(written)))
    assert 0 < len(written) < 20
    log_losses(tmp_path, range(len(written), 20))
    # Files of one second are read in no particular order.
    assert sorted(event.step for event in read(tmp_path).Scalars("loss")) == list(range(20))


def test_a_file_that_cannot_be_begun_is_not_there(tmp_path: Path) -> None:
    message = with_file_size_limit(lambda: log_losses(tmp_path, range(1)), 10)
    assert message.startswith(f"OSError: [Errno 27] cannot write {tmp_path}")
    assert list((tmp_path / "experiment" / "run").iterdir()) == []


def test_hyperparameters_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def log_many() -> None:
        log = logger(tmp_path)
        log.hparams.update({f"setting{index}": index for index in range(100)})
        log.save()

    path = tmp_path / "experiment" / "run" / "hparams.yaml"
    message = with_file_size_limit(log_many, 1000)
    assert message == f"OSError: [Errno 27] cannot write {path}: File too large"
    assert [entry.name.split(".")[0] for entry in path.parent.iterdir()] == ["events"]
    log_many()
    assert len(yaml.safe_load(path.read_text())) == 100


def test_a_number_that_is_none_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not supported"):
        logger(tmp_path).log_metrics({"loss": "text"}, step=0)
