"""Loggers on the command line."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from nas_lightning.cli.main import main
from tests.cli.commands import TINY, read_checkpoint, read_metrics, refusal


@pytest.mark.parametrize(
    ("logger", "package"), [("WandbLogger", "wandb"), ("MLFlowLogger", "mlflow"), ("CometLogger", "comet-ml")]
)
def test_a_missing_package_is_named_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], logger: str, package: str
) -> None:
    if find_spec(package.replace("-", "_")):
        pytest.skip(f"{package} is installed")
    with pytest.raises(SystemExit):
        main(["fit", *TINY, "--trainer.logger", logger, "--trainer.default_root_dir", str(tmp_path)])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.endswith(
        f"{logger} needs the package {package}, which is not installed: `pip install {package}`"
    )
    assert not list(tmp_path.iterdir())


def test_csv_files_of_a_logger_and_of_the_run_stand_side_by_side(tmp_path: Path) -> None:
    settings = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", str(tmp_path / "csv")]
    main(
        [
            *("fit", *TINY, "--run", "r", "--trainer.default_root_dir", str(tmp_path), *settings),
            *("--trainer.max_epochs", "1"),
        ]
    )
    assert read_metrics(tmp_path / "synthetic" / "r")[0]["loss/train"] > 0
    written = {path.name for path in (tmp_path / "csv").rglob("*")}
    assert {"metrics.csv", "hparams.yaml"} <= written
    assert (tmp_path / "synthetic" / "r" / "pictures" / "cell" / "normal-epoch0000.png").exists()


class Unreachable(CSVLogger):
    """A logger whose server is gone from an epoch on."""

    def __init__(self, epoch: int, save_dir: str) -> None:
        super().__init__(save_dir)
        self.epoch = epoch

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if "loss/train" in metrics and step is not None and step >= self.epoch:
            raise RuntimeError("the server\nis gone")
        super().log_metrics(metrics, step)


def test_a_logger_that_fails_ends_the_training_in_a_line_and_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit", *TINY, "--run", "r", "--trainer.default_root_dir", str(tmp_path), "--trainer.max_epochs=2"]
    logger = [
        f"--trainer.logger={__name__}.Unreachable",
        "--trainer.logger.epoch=1",
        f"--trainer.logger.save_dir={tmp_path / 'other'}",
    ]
    assert refusal([*fit, *logger], capsys) == (
        "`trainer.logger`: Unreachable failed: RuntimeError: the server is gone; resume with"
        " `--ckpt_path last`, without this logger if need be"
    )
    run = tmp_path / "synthetic" / "r"
    assert len(rows := read_metrics(run)) == 2
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["epoch"] == 0
    main([*fit, "--ckpt_path=last", "--trainer.logger=false"])
    resumed = read_metrics(run)
    assert [row["loss/train"] for row in resumed] == [row["loss/train"] for row in rows]
    assert (run / "result.json").is_file()
