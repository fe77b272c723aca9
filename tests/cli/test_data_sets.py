"""Each shipped configuration of a data set trains from official files and names a damaged one in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_lightning.cli.main import main
from tests.cli.commands import TINY, read_metrics, read_result
from tests.datamodules.official_layouts import (
    Written,
    write_cifar10,
    write_cifar100,
    write_fashion_mnist,
    write_tiny_imagenet,
)

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("form", ["archive", "folder"])
@pytest.mark.parametrize(
    ("overlay", "write", "experiment", "classes"),
    [
        ("cifar10", write_cifar10, "cifar10", 10),
        ("cifar100", write_cifar100, "cifar100", 100),
        ("tiny_imagenet", write_tiny_imagenet, "tinyimagenet", 200),
        ("fashion_mnist", write_fashion_mnist, "fashionmnist", 10),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_data_set_trains_from_its_official_files(
    overlay: str,
    write: Callable[..., Written],
    experiment: str,
    classes: int,
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    written = write(tmp_path / "data", monkeypatch, form)
    configs = [
        f"--config={CONFIGS / name}" for name in ("darts.yaml", f"data/{overlay}.yaml", "regularized.yaml")
    ]
    tiny = [
        "--model.init_channels=4",
        "--model.num_cells=3",
        "--trainer.max_epochs=1",
        "--data.batch_size=20",
    ]
    main(["fit", *configs, *tiny, "--trainer.limit_train_batches=2"])
    run = tmp_path / "tb_logs" / experiment / "darts_v2"
    sizes = read_result(run)["provenance"]["data"]["split_sizes"]
    assert sizes == {"train": len(written.train[1]), "test": len(written.test[1])}
    assert read_result(run)["settings"]["model.num_classes"] == classes
    row = read_metrics(run)[0]
    correct = row["accuracy/test"] * len(written.test[1])
    assert correct == pytest.approx(round(correct), abs=1e-3)


@pytest.mark.parametrize(
    ("data", "write", "form", "spoilt"),
    [
        ("CIFAR10", write_cifar10, "archive", "cifar-10-python.tar.gz"),
        ("CIFAR10", write_cifar10, "folder", "cifar-10-batches-py/data_batch_4"),
        ("CIFAR100", write_cifar100, "folder", "cifar-100-python/meta"),
        ("FashionMNIST", write_fashion_mnist, "archive", "FashionMNIST/raw/t10k-images-idx3-ubyte.gz"),
        ("FashionMNIST", write_fashion_mnist, "folder", "FashionMNIST/raw/train-labels-idx1-ubyte"),
        ("TinyImageNet", write_tiny_imagenet, "archive", "tiny-imagenet-200.zip"),
        ("TinyImageNet", write_tiny_imagenet, "folder", "tiny-imagenet-200/val/images/val_7.JPEG"),
    ],
)
def test_one_line_names_a_truncated_file(
    data: str,
    write: Callable[..., Written],
    form: str,
    spoilt: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data", monkeypatch, form)
    path = tmp_path / "data" / spoilt
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SystemExit) as exit_information:
        main(["fit", *TINY, f"--data={data}", "--data.batch_size=20"])
    assert exit_information.value.code == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line)
    assert re.match(rf"nas-lightning: error: data/{re.escape(spoilt)}: \w+", line)
    assert not (tmp_path / "tb_logs").exists()
