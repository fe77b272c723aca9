"""A command starts without what it does not need: fresh processes say which modules they have imported."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "configs"
TORCH = {"torch", "torchvision", "torchmetrics", "lightning", "pytorch_lightning"}
NUMBERS = {"numpy", "scipy", "sklearn", "pandas", "pyarrow", "xarray"}
PICTURES = {"matplotlib", "plotly", "jinja2", "PIL"}

MODULES = "import sys; print(*sys.modules, sep='\\n')"


def imported(code: str) -> set[str]:
    """The modules of a fresh process after some code, which prints nothing to standard error."""
    process = subprocess.run(
        [sys.executable, "-c", f"{code}\n{MODULES}"],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr
    return set(process.stdout.splitlines())


def after_command(*arguments: str) -> set[str]:
    return imported(
        "from nas_lightning.cli.main import main\n"
        f"try:\n    main({list(arguments)!r})\nexcept SystemExit as end:\n    assert not end.code"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("cells", "list"),
        ("cells", "--help"),
        ("study", "--help"),
        ("study", "run", "--help"),
        ("plot", "--help"),
        ("theory", "--help"),
    ],
    ids=" ".join,
)
def test_lists_and_helps_need_no_library_of_numbers(arguments: tuple[str, ...]) -> None:
    assert not after_command(*arguments) & (TORCH | NUMBERS | PICTURES)


@pytest.mark.parametrize("arguments", [("cells", "list"), ("study", "--help")], ids=" ".join)
def test_lists_and_helps_come_at_once(arguments: tuple[str, ...]) -> None:
    """A third of a second on an idle machine; a library of numbers alone would take more than the rest."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "nas_lightning", *arguments], check=True, capture_output=True, timeout=60
        )
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 4


@pytest.mark.slow
@pytest.mark.parametrize("subcommand", ["fit", "landscape"])
def test_help_of_a_training_needs_nothing_of_its_data_and_its_end(subcommand: str) -> None:
    modules = after_command(subcommand, "--help")
    assert "lightning.pytorch" in modules
    assert not modules & {"sklearn", "scipy.signal", "scipy.stats", "scipy.sparse.linalg", "scipy.ndimage"}
    assert not modules & {"tensorboard", "plotly", "jinja2", "ray", "pytorch_lightning"}


@pytest.mark.slow
def test_a_first_step_needs_no_library_of_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = ("--model.init_channels=2", "--model.num_cells=2", "--data.batch_size=8")
    config = ("--config", str(CONFIGS / "quickstart.yaml"), "--trainer.callbacks=[]")
    modules = after_command("fit", *config, *sizes, "--trainer.fast_dev_run=1", "--model.speed=reference")
    assert not modules & {"sklearn", "pandas", "pyarrow", "xarray", "scipy.signal", "scipy.stats"}


@pytest.mark.slow
def test_import_freezes_what_it_made_and_collects_again() -> None:
    code = """
import gc
from nas_lightning.cli.quick_import import quick_import
training = quick_import("nas_lightning.cli.training")
assert gc.isenabled() and (frozen := gc.get_freeze_count()) > 100_000
waste = [None]; waste[0] = waste
assert quick_import("nas_lightning.cli.training") is training
assert gc.get_freeze_count() <= frozen  # not what has been made since
"""
    assert "nas_lightning.cli.training" in imported(code)


def test_who_has_turned_collection_off_keeps_it_off() -> None:
    imported("""
import gc
from nas_lightning.cli.quick_import import quick_import
gc.disable()
quick_import("nas_lightning.cli.cells")
assert not gc.isenabled() and gc.get_freeze_count() == 0
""")


def test_collection_is_on_again_after_an_import_that_fails() -> None:
    imported("""
import gc, sys
from nas_lightning.cli.quick_import import quick_import
try:
    quick_import("nas_lightning.cli.nothing")
except ModuleNotFoundError:
    pass
assert gc.isenabled() and "scipy.signal" not in sys.modules
""")


IN_THE_BLOCK = "from nas_lightning.cli.quick_import import SignalOnDemand, signal_on_demand\n"


def test_signal_processing_is_not_loaded_by_who_looks_for_one_function() -> None:
    modules = imported(f"""{IN_THE_BLOCK}
with signal_on_demand():
    import scipy.signal
    assert hasattr(scipy.signal, "hamming") and not hasattr(scipy.signal, "__file__")
""")
    assert "scipy" in modules
    assert not modules & {"scipy.signal", "scipy.stats"}


@pytest.mark.parametrize(
    "asking",
    [
        "import scipy.signal; found = scipy.signal.lfilter",
        "from scipy.signal import lfilter as found",
        "from scipy import signal; found = signal.lfilter",
        "from scipy.signal.windows import hann; import scipy.signal; found = scipy.signal.lfilter",
    ],
)
def test_who_asks_for_more_in_the_block_gets_the_real_one(asking: str) -> None:
    imported(f"""{IN_THE_BLOCK}
import sys
with signal_on_demand():
    {asking}
    assert type(sys.modules["scipy.signal"]) is type(sys)
import scipy.signal
assert found is scipy.signal.lfilter and found([1], [1], [3.0])[0] == 3
""")


def test_after_the_block_everybody_gets_the_real_one() -> None:
    imported(f"""{IN_THE_BLOCK}
with signal_on_demand():
    from scipy import signal as kept
import scipy.signal
assert not isinstance(scipy.signal, SignalOnDemand) and scipy.signal.__file__
assert kept.lfilter is scipy.signal.lfilter
try:
    kept.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError
""")


def test_signal_processing_that_is_loaded_already_stays() -> None:
    imported(f"""{IN_THE_BLOCK}
import scipy.signal
real = scipy.signal
with signal_on_demand():
    import scipy.signal
    assert scipy.signal is real
assert scipy.signal is real
""")


@pytest.mark.slow
def test_torchmetrics_computes_the_same_beside_it() -> None:
    imported(f"""{IN_THE_BLOCK}
with signal_on_demand():
    import torchmetrics
import torch, scipy.signal
from torchmetrics.functional.audio import signal_noise_ratio
ratio = signal_noise_ratio(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0]))
assert abs(float(ratio)) < 1e-6 and scipy.signal.lfilter
""")
