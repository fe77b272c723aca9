"""Classes of one's own: found in the working folder, remembered by the run, found again from anywhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from nas_lightning.cells import own_modules
from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.main import main
from nas_lightning.identity import as_list
from nas_lightning.networks import operations
from tests.cli.commands import TINY, environment, read_checkpoint, refusal
from tests.cli.parsing import ParsedOnly

MINE = """
from lightning.pytorch import Callback
from torch.optim import SGD

from nas_lightning.datamodules import Synthetic
from beside import TEXT


class Mine(Synthetic):
    pass


class Greeting(Callback):
    def __init__(self, word: str = "hello") -> None:
        self.word = word

    def on_fit_start(self, trainer, module):
        print(self.word, TEXT)


class Slow(SGD):
    pass
"""
OPERATION = """
from torch import nn
from nas_lightning.networks import register_operation

register_operation("own_conv", lambda channels, stride, affine: nn.Conv2d(channels, channels, 3, stride, 1))
"""
CELL = "[[own_conv, 0], [skip_connect, 1]]"
GENOTYPE = f"normal: {CELL}\nnormal_concat: [2]\nreduce: {CELL}\nreduce_concat: [2]\n"
OWN = [
    *(argument for argument in TINY if argument != "--data=Synthetic"),
    *("--data=mine.Mine", "--model.optimizer=mine.Slow", "--model.optimizer.lr=0.1"),
    *("--trainer.callbacks=mine.Greeting", "--model.operations=[operations/own.py]"),
    *("--model.genotype=own.yaml", "--trainer.max_epochs=1", "--run=own"),
]
OWN.insert(0, OWN.pop(OWN.index("--data=mine.Mine")))


@pytest.fixture
def fresh() -> Iterator[Callable[[], None]]:
    """Forgets what was imported and where it was found, as a new process has."""
    before = set(sys.modules)

    def forget() -> None:
        own_modules._folders.clear()
        own_modules._files.clear()
        operations._registered.pop("own_conv", None)
        for name in set(sys.modules) - before:
            if name in ("mine", "beside", "broken", "evil") or name.startswith("nas_lightning_operations"):
                del sys.modules[name]

    forget()
    yield forget
    forget()


def write_own(folder: Path) -> None:
    (folder / "operations").mkdir(parents=True)
    (folder / "mine.py").write_text(MINE)
    (folder / "beside.py").write_text("TEXT = 'from beside'")
    (folder / "operations" / "own.py").write_text(OPERATION)
    (folder / "own.yaml").write_text(GENOTYPE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of classes and an operation of one's own, by the installed command in a process of its own."""
    folder = tmp_path_factory.mktemp("project")
    write_own(folder)
    completed = subprocess.run(
        [str(Path(sys.executable).with_name("nas-lightning")), "fit", *OWN],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert completed.returncode == 0, completed.stderr
    assert "hello from beside" in completed.stdout
    return folder / "tb_logs" / "mine" / "own"


@pytest.mark.slow
def test_a_run_remembers_the_files_of_its_own_classes(run: Path) -> None:
    project = run.parents[2]
    files = {"mine": str(project / "mine.py"), "operations/own.py": str(project / "operations" / "own.py")}
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["own_code"] == files
    assert sorted(yaml.safe_load((run / "config.yaml").read_text())["code"]) == sorted(files.values())


@pytest.mark.slow
def test_own_classes_are_found_again_from_any_folder(
    run: Path,
    tmp_path: Path,
    fresh: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
    for arguments in (["validate", checkpoint], ["test", f"--config={run / 'config.yaml'}", checkpoint]):
        fresh()
        main(arguments)
        assert "accuracy/test" in capsys.readouterr().out
    fresh()
    settings = ParsedOnly(["fit", f"--config={run / 'config.yaml'}", "--ckpt_path=last"]).settings
    assert settings.data.class_path == "mine.Mine"
    assert as_list(settings.trainer.callbacks)[0].class_path == "mine.Greeting"


@pytest.mark.slow
def test_a_checkpoint_alone_imports_nothing_that_its_run_does_not_name(
    run: Path,
    tmp_path: Path,
    fresh: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Allowed are the working folder and what the command gives; else one line says how to allow it."""
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    monkeypatch.chdir(tmp_path)
    line = refusal(["validate", f"--ckpt_path={alone}"], capsys)
    project = run.parents[2]
    assert f"of {project / 'operations' / 'own.py'}, which it must not import by itself" in line
    assert f"allow it with `--code {project / 'operations' / 'own.py'}`" in line
    assert "mine" not in sys.modules
    for allowed, folder in (([f"--code={project}"], tmp_path), ([], project)):
        fresh()
        monkeypatch.chdir(folder)
        main(["validate", f"--ckpt_path={alone}", *allowed])
        assert "accuracy/test" in capsys.readouterr().out


@pytest.mark.slow
def test_in_python_own_operations_are_found_as_on_the_command_line(
    run: Path, tmp_path: Path, fresh: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run / "checkpoints" / "last.ckpt"
    monkeypatch.chdir(tmp_path)
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    names = CellClassifier.load_from_checkpoint(path).classify(images).names
    fresh()
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"own\.py, which it must not import by itself"):
        CellClassifier.load_from_checkpoint(alone)
    monkeypatch.chdir(run.parents[2])
    assert CellClassifier.load_from_checkpoint(alone).classify(images).names == names


@pytest.mark.slow
def test_a_config_that_everybody_may_write_names_nothing(
    run: Path,
    tmp_path: Path,
    fresh: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    config = run / "config.yaml"
    mode = config.stat().st_mode
    config.chmod(0o666)
    try:
        line = refusal(["validate", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"], capsys)
    finally:
        config.chmod(mode)
    assert "must not import by itself" in line


@pytest.mark.slow
def test_own_code_that_is_gone_is_named_with_its_file(
    run: Path,
    tmp_path: Path,
    fresh: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    project = run.parents[2]
    moved = tmp_path / "elsewhere"
    checkpoint = f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
    files = [project / "mine.py", project / "beside.py", project / "operations"]
    moved.mkdir()
    for file in files:
        file.rename(moved / file.name)
    try:
        line = refusal(["validate", checkpoint], capsys)
        assert f"of {project / 'operations' / 'own.py'}, which is gone: `--code FOLDER`" in line
        line = refusal(["validate", f"--config={run / 'config.yaml'}", checkpoint], capsys)
        assert line.startswith(f"`data` names 'mine.Mine' of {project / 'mine.py'}, which is gone")
        fresh()
        main(["validate", checkpoint, f"--code={moved}"])
        assert "accuracy/test" in capsys.readouterr().out
    finally:
        for file in files:
            (moved / file.name).rename(file)


def parsed(*arguments: str) -> ParsedOnly:
    return ParsedOnly(["fit", *arguments])


def test_the_folder_of_a_configuration_may_say_where_its_classes_are(
    tmp_path: Path, fresh: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths of `code` are relative to the file."""
    write_own(tmp_path / "project")
    (tmp_path / "project" / "mine.yaml").write_text("code: mine.py\ndata: {class_path: mine.Mine}")
    monkeypatch.chdir(tmp_path)
    settings = parsed("--config=project/mine.yaml").settings
    assert settings.data.class_path == "mine.Mine"
    assert settings.code == [str(tmp_path / "project" / "mine.py")]


def test_a_file_of_the_working_folder_hides_no_module_of_python(
    tmp_path: Path, fresh: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_own(tmp_path)
    (tmp_path / "colorsys.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert parsed("--data=mine.Mine").settings.data.class_path == "mine.Mine"
    import colorsys

    assert colorsys.rgb_to_hls(0, 0, 0) == (0, 0, 0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("class A(", "SyntaxError: '(' was never closed (broken.py, line 1)"),
        ("import nothing_there", "ModuleNotFoundError: No module named 'nothing_there'"),
        ("raise RuntimeError('one\\ntwo')", "RuntimeError: one two"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
@pytest.mark.parametrize("key", ["data", "trainer.callbacks", "model.optimizer"])
def test_a_module_that_cannot_be_imported_is_one_line(
    key: str, content: str, reason: str, tmp_path: Path, fresh: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text(content)
    with pytest.raises(ValueError, match="cannot be imported") as error:
        parsed(f"--{key}=broken.A")
    assert str(error.value) == f"`{key}` names 'broken.A', which cannot be imported: {reason}"


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--data=nowhere.Mine", "`--code FOLDER` says where modules are"),
        ("--code=absent.py", "`code` (=absent.py) must be a Python file or a folder that exists"),
        ("--code=3", "`code` (=3) must be a Python file"),
        ("--data=mine.Yours", "`data` names 'mine.Yours': there is no Yours in mine"),
        ("--data=mine.Greeting", "`data` (=mine.Greeting) must be a class derived from ImageDataModule"),
    ],
)
def test_a_class_that_is_not_there_is_one_line(
    argument: str, line: str, tmp_path: Path, fresh: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_own(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    with pytest.raises(ValueError, match=r"\S") as error:
        parsed(argument)
    assert line in str(error.value)
