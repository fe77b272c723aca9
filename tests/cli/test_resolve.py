"""Settings are resolved as `fit` resolves them, and what is decisive of them is the record's identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas_lightning.cli.main import main as fit
from nas_lightning.cli.resolve import SettingsOnly, resolve
from nas_lightning.identity import NOT_DECIDING, deciding_settings, flatten, identity_hash
from tests.cli.commands import TINY, read_result, run_process
from tests.cli.parsing import ParsedOnly


def test_all_settings_are_resolved_without_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", "--data=Digits", "--model.optimizer.lr=0.2", "--trainer.callbacks+=LossContour"]
    settings, deciding = resolve(arguments)
    assert settings["data"]["init_args"]["batch_size"] == 80
    assert (
        settings["model"]["optimizer"]["init_args"] | {"lr": 0.2, "momentum": 0.9}
        == (settings["model"]["optimizer"]["init_args"])
    )
    assert settings["trainer"]["callbacks"][0]["init_args"]["resolution"] == 51
    assert not {"trainer.callbacks", "model.optimizer.init_args.nesterov"} & deciding.keys()
    assert deciding["model.genotype"].startswith("Genotype(")
    assert list(tmp_path.iterdir()) == []


def test_a_genotype_of_null_is_refused(tmp_path: Path) -> None:
    (tmp_path / "null.yaml").write_text("model: {genotype: null}\n")
    with pytest.raises(ValueError, match=r"^`model.genotype` \(=null\) needs a value$"):
        resolve(["fit", "--data=Digits", f"--config={tmp_path / 'null.yaml'}"])


def test_one_parser_resolves_all_runs_of_a_study(tmp_path: Path) -> None:
    commands = [
        ["fit", "--data=Digits", "--model.optimizer.lr=0.2", "--trainer.callbacks+=LossContour"],
        ["fit", "--data=CIFAR10", "--model.optimizer=Adam", "--trainer.max_epochs=3"],
        ["fit", "--data=Nothing"],
        ["fit", "--config=configs/base.yaml", "--data.batch_size=16"],
        ["fit", f"--ckpt_path={tmp_path}"],
    ]

    def outcome(arguments: list[str]) -> object:
        try:
            return resolve(arguments)
        except (ValueError, OSError) as error:
            return str(error)

    resolve(["fit", "--data=Digits"])
    shared = [outcome(arguments) for arguments in commands]
    parser = (SettingsOnly._made or {})["parser"]
    assert outcome(commands[0]) == shared[0]
    assert (SettingsOnly._made or {})["parser"] is parser
    alone = []
    for arguments in commands:
        SettingsOnly._made = None
        alone.append(outcome(arguments))
    assert shared == alone
    assert sum(isinstance(found, str) for found in alone) == 2


def test_a_parser_with_a_checkpoint_s_settings_serves_once(tmp_path: Path) -> None:
    fit(
        [
            "fit",
            *TINY,
            "--model.drop_path=0.3",
            "--trainer.max_epochs=1",
            f"--trainer.default_root_dir={tmp_path}",
        ]
    )
    (checkpoint,) = tmp_path.glob("**/last.ckpt")
    plain = resolve(["fit", *TINY])
    assert resolve(["fit", *TINY, f"--ckpt_path={checkpoint}"])[0]["model"]["drop_path"] == 0.3
    assert resolve(["fit", *TINY]) == plain
    assert plain[0]["model"]["drop_path"] == 0


@pytest.mark.parametrize(("typed", "read"), [("1", 1), ("1.0", 1.0), ("3", 3), ("0.5", 0.5), ("null", None)])
def test_one_batch_is_not_all_batches(typed: str, read: float | None) -> None:
    keys = ("limit_train_batches", "limit_val_batches", "limit_test_batches")
    settings, deciding = resolve(["fit", "--data=Digits", *(f"--trainer.{key}={typed}" for key in keys)])
    for key in keys:
        assert (settings["trainer"][key], type(settings["trainer"][key])) == (read, type(read))
    # Earlier versions read every number as a float: the identity of their runs stays.
    recorded = read if read is None or typed == "1" else float(read)
    earlier = deciding_settings({f"trainer.{key}": recorded for key in keys}, {})
    assert str(earlier) == str({key: deciding.get(key) for key in earlier})


def test_what_does_not_decide_are_settings() -> None:
    data = ["--data=ImageFolder", "--data.root=pets", "--trainer.strategy=auto"]
    parsed = flatten(ParsedOnly(["fit", *data]).settings.as_dict())
    assert set(NOT_DECIDING) <= {*parsed, "config"}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--model.num_cells=1.5", "`model.num_cells` .* must be of type int"),
        ("--model.init_channels=0", r"`init_channels` \(=0\) must be at least 1"),
        ("--model.auxiliary_weight=-1", "`auxiliary_weight` .* must not be negative"),
        ("--model.optimizer.momentum=-1", "`model.optimizer` is not valid: Invalid momentum"),
        ("--data.batch_size=0", "`batch_size`"),
        ("--trainer.max_epochs=0", r"`trainer.max_epochs` \(=0\) must be at least 1"),
        ("--trainer.max_epohcs=1", "did you mean `trainer.max_epochs`"),
    ],
)
def test_what_fit_refuses_is_refused(argument: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        resolve(["fit", "--data=Digits", argument])
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_run_records_the_identity_that_was_resolved(tmp_path: Path) -> None:
    arguments = ["fit", *TINY, "--trainer.max_epochs=1", "--experiment=e", "--run=r", "--seed_everything=3"]
    _, deciding = resolve(arguments)
    folder = tmp_path / "tb_logs" / "e" / "r"
    for more in ([], ["--trainer.accumulate_grad_batches=1", "--ckpt_path=last"]):  # resumed, the same
        completed = run_process([*arguments, *more], tmp_path)
        assert completed.returncode == 0, completed.stderr
        result = read_result(folder)
        assert result["deciding"] == deciding
        assert result["identity"] == identity_hash(deciding)
        (folder / "result.json").unlink()
