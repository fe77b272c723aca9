"""Loggers on the command line."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from nas_lightning.cli.main import main
from tests.cli.commands import TINY, read_metrics


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
