"""The parser's pages become lines that name the setting, the value and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas_lightning.cli.messages import one_line, trainer_message
from tests.cli.parsing import ParsedOnly


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--model.num_cells=2.5"], "`model.num_cells` (=2.5) must be of type int"),
        (["--model.operations=gated"], "`model.operations` (=gated) must be a list, such as [gated]"),
        (["--data.batch_size=x"], "`data.batch_size` (=x) must be of type int"),
        (["--weights_only=x"], "`weights_only` (=x) must be of type bool, or null"),
        (["--trainer.default_root_dir=null"], "`trainer.default_root_dir` (=null) needs a value"),
        (["--model.num_cells=null"], "`model.num_cells` (=None) must be of type int"),
        (["--data.cutout=null"], "`data.cutout` (=null) needs a value"),
        (
            ["--trainer.callbacks=LossContour", "--trainer.callbacks.extent=null"],
            "`trainer.callbacks.LossContour.extent` (=null) needs a value",
        ),
        (["--model.optimizer.lr=big"], "`model.optimizer.lr` (=big) must be of type float"),
        (["--model.lr_scheduler=StepLR"], "`model.lr_scheduler.step_size` is missing"),
        (["--model.num_cells"], "`model.num_cells` needs a value"),
        (["--config"], "`config` needs a file: `--config FILE`"),
        (["--model=absent.yaml"], "`model` (=absent.yaml) must be a file with settings of `model`"),
        (["--code"], "`code` needs a value"),
        (
            ["--trainer.accumulate_grad_batches=0"],
            "`trainer.accumulate_grad_batches` (=0) must be at least 1",
        ),
        (["stray"], "there is no argument 'stray'; settings are given as `--KEY VALUE`"),
        (["--data=os.path.join"], "`data` (=os.path.join) must be a class derived from ImageDataModule"),
        (
            ["--data=nas_lightning.datamodules.Nothing"],
            "`data` names 'nas_lightning.datamodules.Nothing': there is no Nothing in"
            " nas_lightning.datamodules",
        ),
        (
            ["--model.init_chanels=4"],
            "there is no setting `model.init_chanels`; did you mean `model.init_channels`?",
        ),
        (["--data.batch_sise=3"], "there is no setting `data.batch_sise`; did you mean `data.batch_size`?"),
        (["--model.colour=red"], "there is no setting `model.colour`; --help_all lists all settings"),
        (
            ["--model.optimizer=Adm"],
            "`model.optimizer` (=Adm) must be the name or import path of a class; did you mean `Adam`?",
        ),
        (
            ["--data=digits"],
            "`data` (=digits) must be the name or import path of a class; did you mean `Digits`?",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_setting_is_one_plain_line(arguments: list[str], line: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as error:
        ParsedOnly(["fit", *arguments])
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("model.lr", "model.optimizer.lr"),
        ("lr", "model.optimizer.lr"),
        ("trainer.weight_decay", "model.optimizer.weight_decay"),
        ("learning_rate", "model.optimizer.lr"),
        ("cutout", "data.cutout"),
        ("model.cutuot", "data.cutout"),
        ("epochs", "trainer.max_epochs"),
        ("layers", "model.num_cells"),
        ("genotype", "model.genotype"),
        ("dataset", "data"),
        ("step_size", "model.lr_scheduler.step_size"),
        ("trace_samples", "trainer.callbacks.HessianSpectrum.trace_samples"),
    ],
)
def test_a_setting_in_the_wrong_place_is_pointed_to_its_own(given: str, meant: str, tmp_path: Path) -> None:
    """On the command line and in a file, settings of the classes that settings name among them."""
    (tmp_path / "mine.yaml").write_text(f"{given.replace('.', ': {')}: 1{'}' * given.count('.')}")
    for argument in (f"--{given}=1", f"--config={tmp_path / 'mine.yaml'}"):
        with pytest.raises(ValueError, match=f"`{given}`; did you mean `{meant}`"):
            ParsedOnly(["fit", argument])


@pytest.mark.parametrize("key", ["model.optimizer.lr", "model.optimizer.init_args.lr"])
def test_both_spellings_of_a_nested_setting_work(key: str) -> None:
    assert ParsedOnly(["fit", f"--{key}=0.5"]).settings.model.optimizer.init_args.lr == 0.5


def test_an_error_of_the_system_says_what_failed_without_its_number() -> None:
    assert one_line(OSError(2, "cannot write x.svg: No such file")) == "cannot write x.svg: No such file"
    assert one_line(FileNotFoundError(2, "No such file", "there.npy")) == "there.npy: No such file"
    assert one_line(OSError(5, "Bad\ndisk", "a", None, "b")) == "a -> b: Bad disk"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("No supported gpu backend found!", "`trainer.accelerator` (=gpu): No supported gpu backend found!"),
        ("The strategy `fsdp` requires a GPU accelerator", "`trainer.strategy` (=fsdp): The strategy `fsdp`"),
        ("Requirement 'torch_xla>=1.13' not met. HINT", None),
        ("`loggers` must be a list", None),
    ],
)
def test_what_the_machine_lacks_is_said_with_its_setting(text: str, line: str | None) -> None:
    settings = {"accelerator": "gpu", "strategy": "fsdp", "devices": "auto", "precision": None}
    message = trainer_message(text, settings)
    assert message is None if line is None else message is not None and message.startswith(line)


def test_choices_are_listed() -> None:
    with pytest.raises(
        ValueError, match=r"`trainer\.precision` \(=17\) must be one of 64, 32, 16, .*bf16-mixed"
    ):
        ParsedOnly(["fit", "--trainer.precision=17"])


@pytest.mark.parametrize(
    ("content", "fragment"),
    [("- 1\n", "must hold settings"), ("model: [\n", "is no valid YAML"), ("", "must hold settings")],
    ids=["list", "broken", "empty"],
)
def test_a_damaged_config_is_named(content: str, fragment: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    for arguments in (["fit", f"--config={path}"], ["fit", "--config", str(path)], ["fit", "-c", str(path)]):
        with pytest.raises(ValueError, match=fragment) as error:
            ParsedOnly(arguments)
        assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("callback", "line"),
    [
        (
            "{class_path: LossContour, init_args: {resolutoin: 5}}",
            "there is no setting `resolutoin`; did you mean `resolution`?",
        ),
        (
            "{class_path: LossContour, init_args: {normalization: filters}}",
            "`normalization` (=filters) must be one of filter, layer, none",
        ),
        (
            "{class_path: nas_lightning.callbacks.LosContour}",
            "`trainer.callbacks` names 'nas_lightning.callbacks.LosContour':"
            " there is no LosContour in nas_lightning.callbacks",
        ),
        (
            "{class_path: LossContour, resolution: 5}",
            "`trainer.callbacks` must be {class_path: CLASS, init_args: {SETTING: VALUE}}",
        ),
        (
            "{class_path: LossContour, init_args: 5}",
            "`trainer.callbacks` names 'nas_lightning.callbacks.LossContour': its `init_args` must be"
            " a mapping of settings",
        ),
    ],
)
def test_a_wrong_setting_of_a_callback_is_one_plain_line(callback: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "overlay.yaml"
    path.write_text(f"trainer: {{callbacks: [{callback}]}}\n")
    (tmp_path / "including.yaml").write_text("include: overlay.yaml")
    for file in (path, tmp_path / "including.yaml"):
        with pytest.raises(ValueError, match=r"\S") as error:
            ParsedOnly(["fit", f"--config={file}"])
        assert str(error.value) == line
