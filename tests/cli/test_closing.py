from __future__ import annotations

import json
from pathlib import Path

import pytest

from nas_lightning.cli.closing import fit_end, landscape_files, say_end


def run_folder(folder: Path) -> Path:
    result = {"evaluation_split": "test", "epochs": 10, "final": {"accuracy/test": 0.975, "loss/test": 0.09}}
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_a_training_ends_with_result_folder_and_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "a run")
    text, commands = fit_end(folder)
    say_end(text, folder, commands)
    assert capsys.readouterr().out.splitlines() == [
        "",
        "result  accuracy 0.9750, loss 0.0900 on the test split after 10 epochs",
        f"folder  {folder}",
        f"next    nas-lightning landscape --ckpt_path '{folder}/checkpoints/last.ckpt'",
    ]


@pytest.mark.parametrize(
    ("script", "path", "typed"),
    [
        (".venv/bin/nas-lightning", "", ".venv/bin/nas-lightning"),
        (".venv/bin/nas-lightning", "bin", "nas-lightning"),
        ("nas_lightning/__main__.py", "", "nas-lightning"),
    ],
)
def test_the_next_command_begins_as_the_user_can_type_it(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    path: str,
    typed: str,
) -> None:
    program = tmp_path / "bin" / "nas-lightning"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / (path or "empty")))
    monkeypatch.setattr("sys.argv", [script, "fit"])
    say_end("done", "logs", [["plot", "x.nc"]])
    assert capsys.readouterr().out.splitlines()[-1] == f"next    {typed} plot x.nc"


def test_what_was_measured_is_drawn_next_contours_first_and_the_last_epoch(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    (folder / "landscape").mkdir()
    names = ("gradient_variance-epoch0009.nc", "loss_contour-epoch0004.nc", "loss_contour-epoch0009.nc")
    for name in (*names, "hessian_spectrum-epoch0009.nc"):
        (folder / "landscape" / name).touch()
    assert [path.name for path in landscape_files(folder / "landscape")] == [*names[:0:-1], names[0]]
    assert fit_end(folder)[1] == [["plot", str(folder / "landscape" / names[2])]]


def test_an_early_end_has_its_reason(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    result = json.loads((folder / "result.json").read_text())
    for ended, said in (("all 10 epochs", ""), ("max_steps: 6 steps", "; max_steps: 6 steps"), (None, "")):
        (folder / "result.json").write_text(json.dumps(result | {"ended": ended}))
        assert fit_end(folder)[0].endswith(f"after 10 epochs{said}")
