"""Weights of other programs and of other runs on the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas_lightning.cells import get_genotype
from nas_lightning.cli.main import main
from nas_lightning.cli.weights import load_weights
from nas_lightning.networks import CellNetwork
from tests.cli.commands import TINY, read_metrics, read_result, refusal
from tests.oracles.plain_network import PlainNetwork


class Foreign(nn.Module):
    """A network of another program."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)


def reference(folder: Path, classes: int = 10, **wrapped: Any) -> Path:
    torch.manual_seed(1)
    state = PlainNetwork(get_genotype("darts_v2"), classes, 4, 3).state_dict()
    torch.save({"state_dict": state, **wrapped}, folder / "reference.pt")
    return folder / "reference.pt"


@pytest.mark.parametrize(
    ("wrapped", "zipped"), [(True, True), (False, False)], ids=["in a dictionary", "alone, before 1.6"]
)
def test_whole_models_are_told_how_to_be_saved(tmp_path: Path, wrapped: bool, zipped: bool) -> None:
    path, module = tmp_path / "whole.pt", Foreign()
    torch.save({"model": module} if wrapped else module, path, _use_new_zipfile_serialization=zipped)
    network = CellNetwork(get_genotype("darts_v2"), 10, 4, 3)
    with pytest.raises(ValueError, match="save its weights anew in the repository") as caught:
        load_weights(network, "reference_weights", str(path))
    assert "\n" not in str(caught.value)
    if zipped:
        assert f"it is a whole pickled model ({__name__}.Foreign)" in str(caught.value)
    command = str(caught.value).rpartition(": `")[2].rstrip("`")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = command.replace("python -c", f"{sys.executable} -c")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, env=environment, timeout=120)
    saved = torch.load(tmp_path / "whole-state.pt", weights_only=True)
    assert torch.equal(saved["layer.weight"], module.layer.weight)


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_reference_weights_are_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subcommand: str
) -> None:
    file = reference(tmp_path)
    main([subcommand, *TINY, f"--reference_weights={file}", f"--trainer.default_root_dir={tmp_path}"])
    printed = capsys.readouterr().out
    torch.manual_seed(7)
    main([subcommand, *TINY, f"--reference_weights={file}#state_dict", "--seed_everything=3"])
    assert re.search(rf"\n\nresult  accuracy 0\.\d+, loss .* on the test split\nfile    {file}\n$", printed)
    assert re.fullmatch("(accuracy|accuracy_top5|loss)/test", printed.partition(" ")[0])  # no table before
    assert capsys.readouterr().out.replace("#state_dict", "") == printed


def test_what_cannot_be_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = reference(tmp_path, classes=7)
    assert "ckpt_path` is missing" in refusal(["validate", *TINY], capsys)
    both = ["test", *TINY, f"--reference_weights={file}", "--ckpt_path=a.ckpt"]
    assert "both give weights: leave one out" in refusal(both, capsys)
    line = refusal(["test", *TINY, f"--reference_weights={file}"], capsys)
    assert "it has 7 classes, the network 10" in line
    assert "is not a file" in refusal(["test", *TINY, "--reference_weights=missing.pt"], capsys)


def test_a_run_from_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    file = reference(tmp_path, classes=7, epoch=600)
    fit = ["fit", *TINY, "--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path}"]
    main([*fit, f"--weights={file}", "--run=first", "--model.optimizer.lr=0", "--model.optimizer.momentum=0"])
    run = tmp_path / "synthetic" / "first"
    found = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    expected = torch.load(file, weights_only=True)["state_dict"]
    assert torch.equal(found["network.stem.convolution.weight"], expected["stem.0.weight"])
    assert found["network.classifier.weight"].shape == (10, 64)
    assert read_result(run)["deciding"]["weights"] == str(file)
    capsys.readouterr()
    caplog.clear()

    # A checkpoint of this program brings the settings of its network, and nothing else.
    checkpoint = run / "checkpoints" / "last.ckpt"
    others = [one for one in fit if "init_channels" not in one and "num_cells" not in one]
    main([*others, f"--weights={checkpoint}", "--run=second", "--model.optimizer.lr=0"])
    assert f"weights: taken from {checkpoint}" in caplog.text  # also where all of them fit
    second = torch.load(tmp_path / "synthetic" / "second" / "checkpoints" / "last.ckpt", weights_only=True)
    assert torch.equal(second["state_dict"]["network.stem.convolution.weight"], expected["stem.0.weight"])
    assert second["hyper_parameters"]["init_channels"] == 4
    line = refusal([*fit, f"--weights={checkpoint}", "--run=third", "--model.genotype=nasnet"], capsys)
    assert "it holds the genotype" in line
    assert not (tmp_path / "synthetic" / "third").exists()
    line = refusal(["test", *TINY, f"--reference_weights={checkpoint}"], capsys)
    assert "it is a checkpoint of this program: give it as `ckpt_path`" in line


STEPS = ("--model.lr_scheduler=StepLR", "--model.lr_scheduler.step_size=1", "--model.lr_scheduler.gamma=0.5")


def rates(run: Path) -> list[float]:
    return [row["learning_rate"] for row in read_metrics(run)]


def test_a_schedule_without_a_length_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit = ["fit", *TINY, *STEPS, f"--trainer.default_root_dir={tmp_path}"]
    main([*fit, "--run=whole", "--trainer.max_epochs=3"])
    main([*fit, "--run=longer", "--trainer.max_epochs=1"])
    whole, longer = (tmp_path / "synthetic" / name for name in ("whole", "longer"))
    main(["fit", f"--config={longer / 'config.yaml'}", "--extend=2"])
    assert "goes on to 3 epochs; its schedule does not depend on them" in caplog.text
    assert rates(longer) == rates(whole) == pytest.approx([0.025, 0.0125, 0.00625])
    found, expected = read_result(longer), read_result(whole)
    assert found["identity"] == expected["identity"]
    assert found["provenance"]["weights_sha256"] == expected["provenance"]["weights_sha256"]
    assert found["origin"]["extended"]["how"] == "the schedule goes on"
    assert (found["epochs"], found["finished"], "origin" in expected) == (3, True, False)


def test_a_cosine_starts_anew_from_the_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit = ["fit", *TINY, f"--trainer.default_root_dir={tmp_path}", "--run=first", "--trainer.max_epochs=2"]
    main(fit)
    first = tmp_path / "synthetic" / "first"
    before = (first / "result.json").read_text()
    for name in ("first-extended", "first-extended2"):
        main(["fit", f"--config={first / 'config.yaml'}", "--extend=2"])
        assert f"{name} starts a new one of 2 from its weights" in caplog.text
        run = tmp_path / "synthetic" / name
        assert rates(run) == rates(first) == pytest.approx([0.025, 0.0125])
        result = read_result(run)
        assert result["origin"]["extended"]["how"] == "a new schedule from its weights"
        assert result["identity"] != read_result(first)["identity"]
    assert (first / "result.json").read_text() == before
    # The new run is a run like any other: it can be resumed, evaluated and measured.
    main(["fit", f"--config={run / 'config.yaml'}", "--ckpt_path=last"])
    assert read_result(run)["origin"] == result["origin"]
    assert read_result(run)["identity"] == result["identity"]
    main(["test", f"--config={run / 'config.yaml'}", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"])


def test_what_cannot_be_extended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", *TINY, f"--trainer.default_root_dir={tmp_path}"]
    assert "holds no finished run" in refusal([*fit, "--extend=2"], capsys)
    assert "`extend` (=0) must be at least 1" in refusal([*fit, "--extend=0"], capsys)
    main([*fit, "--run=a", "--trainer.max_epochs=3", "--trainer.max_steps=3"])
    line = refusal([*fit, "--run=a", "--extend=2"], capsys)
    assert "ended after epoch 1, max_steps: 3 steps: start a new run from its weights" in line
    for key in ("trainer.max_epochs=3", "weights=w.pt"):
        line = refusal([*fit, "--run=a", "--extend=2", f"--{key}"], capsys)
        assert f"`extend` (=2) decides `{key.partition('=')[0]}` itself" in line
    path = tmp_path / "synthetic" / "a" / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    del content["callbacks"]["RunRecord"]["deciding"]["trainer.max_steps"]
    torch.save(content, path)
    line = refusal([*fit, "--run=a", "--extend=2"], capsys)
    assert "after epoch 1 of 3: finish the run first" in line
