"""Checkpoints of odd structure, or that name foreign code: one line each, and nothing is imported."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.main import main
from tests.cli.commands import TINY, read_checkpoint, refusal

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    adam = ["--model.optimizer=Adam", "--model.speed=reference", "--trainer.max_epochs=1"]
    main(["fit", *TINY, *adam, f"--trainer.default_root_dir={root}", "--run=r"])
    return root / "synthetic" / "r"


@pytest.fixture(scope="module")
def checkpoint(run: Path) -> dict[str, Any]:
    return read_checkpoint(run / "checkpoints" / "last.ckpt")


def put(*keys: str, value: Any) -> Change:
    def change(checkpoint: dict[str, Any]) -> None:
        part = checkpoint
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("state_dict", value=[1, 2]), "`state_dict` is of type list, not a mapping"),
        (put("state_dict", value="weights"), "`state_dict` is of type str, not a mapping"),
        (
            put("state_dict", "network.classifier.bias", value="x"),
            "network.classifier.bias` of its state dict is",
        ),
        (put("state_dict", value={3: torch.zeros(2)}), "a name in its `state_dict` is no text"),
        (put("hyper_parameters", value=3), "`hyper_parameters` is of type int, not a mapping"),
        (put("hyper_parameters", value=["a"]), "`hyper_parameters` is of type list"),
        (put("hyper_parameters", "num_layers", value=3), "it has no setting `num_layers`"),
        (
            put("hyper_parameters", "num_cells", value=b"3"),
            "a value in its `hyper_parameters` is of type bytes",
        ),
        (put("hyper_parameters", "num_cells", value="three"), "its `model.num_cells` (=three) must be"),
        (put("hyper_parameters", "drop_path", value=[0.1]), "its `model.drop_path` (=[0.1]) must be"),
        (put("hyper_parameters", "speed", value="quick"), "its `model.speed` (=quick) must be one of"),
        (
            put("datamodule_hyper_parameters", "batch_size", value="all"),
            "its `data.batch_size` (=all) must be",
        ),
        (put("hyper_parameters", "operations", value="os"), "`operations` (='os') must be a list"),
        (put("datamodule_hyper_parameters", value="data"), "`datamodule_hyper_parameters` is of type str"),
        (put("datamodule_hyper_parameters", "_class_path", value=3), "names 3, which it must not import"),
        (put("datamodule_hyper_parameters", "_class_path", value="torch.nn.Module"), "which is no data set"),
        (put("datamodule_hyper_parameters", "_class_path", value="os.path"), "which is no data set"),
        (put("datamodule_hyper_parameters", "_class_path", value="torch.NoSuch"), "names 'torch.NoSuch'"),
        (put("epoch", value="1"), "`epoch` is of type str, not a whole number"),
        (put("epoch", value=True), "`epoch` is of type bool"),
        (put("epoch", value=-1), "`epoch` (=-1) is negative"),
        (put("genotype", value=3), "`genotype` is of type int, not text"),
        (put("pytorch-lightning_version", value="new"), "cannot be restored: InvalidVersion"),
    ],
)
def test_odd_checkpoints_are_refused_by_what_is_odd(
    change: Change,
    said: str,
    checkpoint: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    odd = copy.deepcopy(checkpoint)
    change(odd)
    torch.save(odd, tmp_path / "odd.ckpt")
    line = refusal(["validate", f"--ckpt_path={tmp_path / 'odd.ckpt'}", "--trainer.accelerator=cpu"], capsys)
    assert said in line
    assert "odd.ckpt" in line


def test_the_folder_of_a_run_means_its_last_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for path in (run, run / "checkpoints" / "last.ckpt"):
        main(["validate", f"--ckpt_path={path}", "--trainer.accelerator=cpu"])
        lines.append(capsys.readouterr().out.splitlines())
    assert lines[0] == lines[1]
    assert any("loss/test" in line for line in lines[0])


@pytest.mark.parametrize("content", [[1], "text", torch.zeros(2), {}, {"state_dict": {}}])
def test_what_is_no_checkpoint_is_said(
    content: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "odd.ckpt")
    line = refusal(["validate", f"--ckpt_path={tmp_path / 'odd.ckpt'}"], capsys)
    assert "odd.ckpt) is not a checkpoint of a CellClassifier" in line


@pytest.mark.parametrize(
    "change",
    [
        put("hyper_parameters", "operations", value=["foreign"]),
        put("hyper_parameters", "operations", value=["folder/foreign.py"]),
        put("hyper_parameters", "optimizer", "class_path", value="foreign.Optimizer"),
        put("hyper_parameters", "optimizer", "init_args", "lr", value="foreign.rate"),
        put("hyper_parameters", "lr_scheduler", value="foreign.Schedule"),
        put("datamodule_hyper_parameters", "_class_path", value="foreign.Data"),
        put("datamodule_hyper_parameters", "inner", value={"class_path": "foreign.Data"}),
    ],
    ids=["operations", "file", "optimizer", "argument", "schedule", "data", "inside data"],
)
def test_a_checkpoint_imports_nothing(
    change: Change,
    checkpoint: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "foreign.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path / "folder")
    monkeypatch.chdir(tmp_path)
    odd = copy.deepcopy(checkpoint)
    change(odd)
    torch.save(odd, "odd.ckpt")
    for arguments in (["validate"], ["fit", "--trainer.default_root_dir=x"], ["landscape"]):
        line = refusal([*arguments, "--ckpt_path=odd.ckpt", "--trainer.accelerator=cpu"], capsys)
        assert "odd.ckpt" in line
        assert "foreign" in line
    if "datamodule" not in str(change.__closure__):
        try:
            CellClassifier.load_from_checkpoint("odd.ckpt")
        except ValueError as error:
            line = str(error)
        assert "foreign" in line
    assert not (tmp_path / "mark").exists()
    assert "foreign" not in sys.modules


def test_a_flipped_bit_is_noticed_by_every_command(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((run / "checkpoints" / "last.ckpt").read_bytes())
    weights = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]["network.classifier.weight"]
    content[content.index(weights.numpy().tobytes()) + 9] ^= 16
    path = tmp_path / "flipped.ckpt"
    path.write_bytes(content)
    for command in ("validate", "test", "fit", "landscape"):
        assert "flipped.ckpt) is damaged" in refusal([command, f"--ckpt_path={path}"], capsys)
    with pytest.raises(ValueError, match=r"flipped\.ckpt is damaged"):
        CellClassifier.load_from_checkpoint(path)


def test_pairs_of_an_optimiser_are_no_contradiction(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints" / "last.ckpt"
    main(["validate", f"--ckpt_path={path}", "--trainer.accelerator=cpu"])
    assert "accuracy/test" in capsys.readouterr().out
    line = refusal(["validate", f"--ckpt_path={path}", "--model.optimizer.betas=[0.8,0.999]"], capsys)
    assert "betas" in line
