"""Balanced accuracy and the confusion matrix of uneven classes, against scikit-learn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.metrics import balanced_accuracy_score, confusion_matrix
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from nas_lightning.callbacks import ConfusionMatrix, RunRecord, check_monitors
from nas_lightning.callbacks.loader_classes import class_balance
from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.main import main
from nas_lightning.datamodules.base import Split
from tests.callbacks import cases, uneven
from tests.callbacks.any_module import Own, convolutions, loader, samples
from tests.cli.commands import TINY, read_events, read_metrics, read_result, refusal, run_process

UNEVEN = (
    "--model.init_channels=4",
    "--model.num_cells=3",
    "--data.batch_size=16",
    "--data.evaluation_batch_size=4",
    "--trainer.accelerator=cpu",
)


def plain_evaluation(classifier: LightningModule) -> tuple[np.ndarray, np.ndarray]:
    """Classes of the test split and what the network takes them for."""
    data = uneven.Uneven(batch_size=16)
    data.setup()
    images, targets = data.split_arrays("test")
    with torch.no_grad():
        logits = classifier.eval()(data.normalise(images))
    return targets.numpy(), logits.argmax(1).numpy()


def read_matrix(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, index_col=0)


def fitted(folder: Path, module: LightningModule, *data: Any, callback: ConfusionMatrix) -> Trainer:
    seed_everything(0)
    logger = TensorBoardLogger(folder, name="", version="tb")
    fit = cases.trainer(callback, logger=logger, enable_progress_bar=False, num_sanity_val_steps=1)
    fit.fit(module, *data)
    return fit


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on uneven classes of the command line."""
    folder = tmp_path_factory.mktemp("uneven")
    arguments = ["--data=tests.callbacks.uneven.Uneven", "--trainer.max_epochs=2"]
    main(["fit", *UNEVEN, *arguments, f"--trainer.default_root_dir={folder}"])
    return folder / "uneven" / "darts_v2"


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_uneven_classes_have_balanced_accuracy_and_a_matrix(finished: Path) -> None:
    trained = CellClassifier.load_from_checkpoint(finished / "checkpoints" / "last.ckpt")
    true, predicted = plain_evaluation(trained)
    expected = balanced_accuracy_score(true, predicted)
    rows = read_metrics(finished)
    assert rows[-1]["balanced_accuracy/test"] == pytest.approx(expected, abs=1e-6)
    result = read_result(finished)
    assert result["final"]["balanced_accuracy/test"] == rows[-1]["balanced_accuracy/test"]
    balance = result["provenance"]["data"]["class_balance"]
    assert balance["train"]["largest"] == {"class": "cat", "images": 24}
    assert balance["test"] == {
        "largest": {"class": "cat", "images": 11},
        "smallest": {"class": "newt", "images": 3},
        "empty": ["yak"],
    }
    events = read_events(finished)
    points = events.Scalars("balanced_accuracy/test")
    assert [point.value for point in points] == pytest.approx([row["balanced_accuracy/test"] for row in rows])
    assert [image.step for image in events.Images("confusion_matrix/test")] == [1]
    matrix = read_matrix(finished / "confusion_matrix-test.csv")
    assert list(matrix.index) == list(matrix.columns) == ["cat", "dog", "newt", "yak"]
    assert np.array_equal(matrix.to_numpy(), confusion_matrix(true, predicted, labels=range(4)))
    assert not list(finished.glob("*.png"))


@pytest.mark.parametrize("command", ["validate", "test"])
def test_evaluations_show_the_matrix(
    finished: Path,
    tmp_path: Path,
    command: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = tmp_path / "uneven" / "darts_v2"
    shutil.copytree(finished, run)
    expected = read_matrix(run / "confusion_matrix-test.csv")
    (run / "confusion_matrix-test.csv").unlink()
    best = run / "checkpoints" / "best.ckpt"
    shutil.copy(run / "checkpoints" / "last.ckpt", best)
    main([command, f"--config={run}/config.yaml", f"--ckpt_path={best}"])
    value = read_metrics(run)[-1]["balanced_accuracy/test"]
    assert f"balanced_accuracy/test {value:.6f}" in capsys.readouterr().out
    assert f"confusion matrix of the test split: balanced accuracy {value:.4f}; " in caplog.text
    assert read_matrix(run / "confusion_matrix-test-best.csv").equals(expected)
    assert (run / "confusion_matrix-test-best.png").read_bytes()[:4] == b"\x89PNG"
    assert not (run / "confusion_matrix-test.csv").exists()


def test_an_evaluation_in_a_folder_that_nobody_may_write_goes_on(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise OSError(30, "cannot write here: Read-only file system")

    monkeypatch.setattr("nas_lightning.callbacks.confusion_matrix.write_matrix", refused)
    run = tmp_path / "uneven" / "darts_v2"
    shutil.copytree(finished, run)
    with caplog.at_level("INFO"):
        main(["validate", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/last.ckpt"])
    assert "Read-only file system" in caplog.text


def test_even_classes_log_what_they_logged_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    main(["fit", *TINY, "--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path}"])
    run = tmp_path / "synthetic" / "darts_v2"
    assert list(read_metrics(run)[0]) == [
        "epoch",
        *("loss/train", "accuracy/train", "loss/test", "accuracy/test", "accuracy_top5/test"),
        *("learning_rate", "drop_path_probability", "images_per_second"),
    ]
    assert set(read_events(run).Tags()["images"]) == {"cell/normal", "cell/reduction"}
    assert not list(run.glob("confusion*"))
    assert "class_balance" not in read_result(run)["provenance"]["data"]
    assert "confusion" not in caplog.text


def test_even_classes_have_the_matrix_where_it_is_asked_for(tmp_path: Path) -> None:
    asked = "--trainer.callbacks+=nas_lightning.callbacks.ConfusionMatrix"
    main(["fit", *TINY, asked, "--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path}"])
    run = tmp_path / "synthetic" / "darts_v2"
    matrix = read_matrix(run / "confusion_matrix-test.csv")
    assert matrix.sum(axis=1).tolist() == [4] * 7 + [3] * 3
    accuracy = read_metrics(run)[-1]["accuracy/test"]
    assert np.trace(matrix.to_numpy()) == pytest.approx(37 * accuracy)
    assert len(read_events(run).Images("confusion_matrix/test")) == 1
    # It decides no number.
    assert not any("callbacks" in key for key in read_result(run)["deciding"])


def test_a_callback_that_follows_balanced_accuracy_needs_uneven_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=balanced_accuracy/test"]
    line = refusal(["fit", *TINY, *stopping, f"--trainer.default_root_dir={tmp_path}"], capsys)
    assert line == (
        "`monitor` (=balanced_accuracy/test) is a metric of uneven classes, and those of Synthetic are even:"
        " follow accuracy/test"
    )
    callbacks = [EarlyStopping("balanced_accuracy/val"), EarlyStopping("loss/val")]
    assert check_monitors(callbacks, ["loss/val"], perhaps=["balanced_accuracy/val"]) == [
        "balanced_accuracy/val"
    ]


def test_a_training_says_what_is_uneven(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = cases.trainer(max_epochs=1, default_root_dir=tmp_path, enable_progress_bar=False)
    with caplog.at_level("INFO"):
        trainer.fit(cases.small_classifier(num_classes=4), datamodule=uneven.Uneven(batch_size=16))
    said = [record.message for record in caplog.records if record.message.startswith("Uneven: ")][1:]
    assert said == [
        "Uneven: uneven classes: 24 training images of cat, 6 of newt (4.0 to 1); 11 test images of cat, 3 of"
        " newt (3.7 to 1)",
        "Uneven: no test image of yak",
    ]
    assert "confusion matrix of the test split" in caplog.text
    assert not list(tmp_path.iterdir())  # without a logger there is no record


class Returning(Own):
    """A module without a forward that others can call."""

    def forward(self, *_: Any) -> Any:
        raise NotImplementedError

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_index: int) -> Any:
        return {"logits": self.layers(batch[0])}


@pytest.mark.parametrize("kind", [Own, Returning])
def test_any_module_and_loaders_have_a_matrix(
    tmp_path: Path, kind: type[Own], caplog: pytest.LogCaptureFixture
) -> None:
    inputs, targets = samples(40)
    targets[:] = torch.tensor([0] * 30 + [1] * 9 + [2])
    module = kind(convolutions())
    both = loader(inputs, targets, shuffle=True), loader(inputs[5:], targets[5:])
    with caplog.at_level("INFO"):
        fitted(tmp_path, module, *both, callback=ConfusionMatrix(every_n_epochs=1))
    predicted = module.eval().layers(inputs[5:]).argmax(1)
    expected = confusion_matrix(targets[5:].numpy(), predicted.numpy(), labels=range(3))
    matrix = read_matrix(tmp_path / "tb" / "confusion_matrix-val.csv")
    assert np.array_equal(matrix.to_numpy(), expected)
    assert list(matrix.columns) == ["0", "1", "2"]
    images = read_events(tmp_path / "tb").Images("confusion_matrix/val")
    assert [image.step for image in images] == [0, 1]
    assert "loaders: uneven classes: 30 training images of class 0, 1 of class 2 (30.0 to 1)" in caplog.text


def test_a_sanity_check_is_no_evaluation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = loader(*samples())
    fit = cases.trainer(
        ConfusionMatrix(folder=str(tmp_path)),
        max_epochs=1,
        check_val_every_n_epoch=2,
        num_sanity_val_steps=1,
        enable_progress_bar=False,
    )
    with caplog.at_level("INFO"):
        fit.fit(Own(convolutions()), data, data)
    assert "confusion matrix" not in caplog.text
    assert not list(tmp_path.iterdir())


def test_loaders_of_uneven_classes_have_the_balanced_accuracy(tmp_path: Path) -> None:
    data = uneven.Uneven(batch_size=16)
    data.setup()
    splits: list[Split] = ["train", "test"]
    arrays = [data.split_arrays(split) for split in splits]
    train, test = (
        DataLoader(TensorDataset(data.normalise(images), targets), batch_size=8) for images, targets in arrays
    )
    fit = cases.trainer(
        max_epochs=1,
        logger=TensorBoardLogger(tmp_path, name="", version="tb"),
        enable_progress_bar=False,
    )
    classifier = cases.small_classifier(num_classes=4)
    fit.fit(classifier, train, test)
    true, predicted = plain_evaluation(classifier)
    expected = np.mean([np.mean(predicted[true == label] == label) for label in range(3)])
    assert float(fit.callback_metrics["balanced_accuracy/val"]) == pytest.approx(expected, abs=1e-6)
    (record,) = (callback for callback in fit.callbacks if isinstance(callback, RunRecord))  # type: ignore[attr-defined]
    assert record.rows[0]["balanced_accuracy/val"] == pytest.approx(expected, abs=1e-6)
    assert (tmp_path / "tb" / "confusion_matrix-val.csv").is_file()


def test_data_sets_with_targets_know_their_classes() -> None:
    class Pets(torch.utils.data.Dataset[Any]):
        targets = (0, 1, 1, 1, 2)
        classes = ("cat", "dog", "\udcff")  # the folder's name is no UTF-8

        def __len__(self) -> int:
            return 5

    trainer: Any = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    assert class_balance(trainer) is None
    for given, counts in ((Pets(), [1, 3, 1]), (Subset(Pets(), [1, 2, 4]), [0, 2, 1])):
        trainer.fit_loop._combined_loader = torch.nn.Module()
        trainer.fit_loop._combined_loader.iterables = [DataLoader(given)]
        balance = class_balance(trainer)
        assert balance is not None
        assert balance.names == ("cat", "dog", "\\udcff")
        assert balance.counts["train"].tolist() == counts
    for unknown in (TensorDataset(torch.zeros(3)), TensorDataset(torch.zeros(3), torch.zeros(3))):
        trainer.fit_loop._combined_loader.iterables = DataLoader(unknown)
        assert class_balance(trainer) is None


@pytest.mark.parametrize(
    ("module", "targets", "message"),
    [
        (Own(nn.Sequential(nn.Flatten(), nn.Linear(32, 1)), nn.MSELoss()), torch.zeros(24, 1), "it gives .*"),
        (Own(convolutions(2)), torch.arange(24) % 3, "the target 2 is no class: Own gives 2 logits"),
        (type("Bare", (Returning,), {"validation_step": lambda *_: None})(convolutions()), None, "NotImpl.*"),
    ],
)
def test_a_module_without_logits_is_refused_in_a_line(
    tmp_path: Path, module: Own, targets: Tensor | None, message: str
) -> None:
    inputs, classes = samples()
    data = loader(inputs, classes if targets is None else targets)
    module.validation_step = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
        fitted(tmp_path, module, data, data, callback=ConfusionMatrix())


def test_a_training_without_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the trainer has no validation loader"):
        fitted(tmp_path, Own(convolutions()), loader(*samples()), callback=ConfusionMatrix())


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`every_n_epochs` \(=0\) must be at least 1"):
        ConfusionMatrix(every_n_epochs=0)


def test_a_resumed_run_without_its_matrix_says_how_to_get_it(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "uneven" / "darts_v2"
    shutil.copytree(finished, run)
    (run / "confusion_matrix-test.csv").unlink()
    main(["fit", f"--config={run}/config.yaml", "--ckpt_path=last"])
    assert "confusion_matrix-test.csv is missing: `nas-lightning validate`" in caplog.text


@pytest.mark.slow
def test_two_ranks_count_as_one(tmp_path: Path, finished: Path) -> None:
    shutil.copy(uneven.__file__, tmp_path)
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=2"]
    completed = run_process(
        ["fit", *UNEVEN, "--data=uneven.Uneven", *two, "--trainer.default_root_dir=logs"], tmp_path
    )
    assert completed.returncode == 0, completed.stderr
    run = tmp_path / "logs" / "uneven" / "darts_v2"
    true, predicted = plain_evaluation(
        CellClassifier.load_from_checkpoint(run / "checkpoints" / "last.ckpt", map_location="cpu")
    )
    matrix = read_matrix(run / "confusion_matrix-test.csv")  # of 19 images, which two ranks pad
    assert np.array_equal(matrix.to_numpy(), confusion_matrix(true, predicted, labels=range(4)))
    expected = np.mean([np.mean(predicted[true == label] == label) for label in range(3)])
    assert read_metrics(run)[-1]["balanced_accuracy/test"] == pytest.approx(expected, abs=1e-6)
    assert completed.stderr.count("Uneven: uneven classes") == 1
    assert completed.stderr.count("confusion matrix of the test split") == 1
    of_one = json.loads((finished / "result.json").read_text())["provenance"]["data"]
    assert read_result(run)["provenance"]["data"] == of_one
