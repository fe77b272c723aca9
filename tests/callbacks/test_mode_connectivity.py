"""The curve of a small training, measured by the callback that the module brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nas_lightning.analysis import PathSurface, mode_connectivity
from nas_lightning.callbacks import ModeConnectivity
from nas_lightning.callbacks.context import AnalysisContext
from nas_lightning.curve_classifier import CurveClassifier
from tests.callbacks.cases import images, small_classifier, trained
from tests.cli.commands import read_events
from tests.curves import curve_between

FILE = Path("tb", "landscape", "mode_connectivity-epoch0000.nc")


def run(folder: Path, **settings: Any) -> CurveClassifier:
    """Train a curve for an epoch and measure it at 9 positions."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    curve = curve_between(folder, statistics_samples=20)
    trained(folder, ModeConnectivity(resolution=9, **settings), classifier=curve, max_epochs=1)
    return curve


def test_the_file_is_that_of_the_analysis(tmp_path: Path) -> None:
    curve = run(tmp_path, batch_size=48)
    start, end = curve.ends()
    bend = dict(curve.network.named_parameters())
    splits = {split: [images(split)] for split in ("train", "test")}
    found = PathSurface.read(tmp_path / FILE)
    expected = mode_connectivity(curve.network, splits, (start, bend, end), found["position"].values)
    assert found["done"].values.all()
    for name in expected.data_vars:
        assert found[name].values == pytest.approx(expected[name].values, rel=1e-3, abs=1e-6), name
    assert (found.attrs["samples"], found.attrs["test_samples"]) == (48, 37)
    assert found.attrs["splits"] == "train, test"
    events = read_events(tmp_path / "tb")
    [number] = events.Scalars("landscape/curve_train_barrier")
    assert number.value == pytest.approx(float(found["curve_train_barrier"]), rel=1e-5)
    assert "landscape/mode_connectivity" in events.Tags()["images"]


def test_a_measure_that_was_broken_off_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        patch.setattr(AnalysisContext, "stop_if_asked", lambda self: 1 / 0)  # after the first 16 points
        with pytest.raises(ZeroDivisionError):
            run(tmp_path / "broken")
    part = PathSurface.read(tmp_path / "broken" / FILE)
    assert 0 < part["done"].values.sum() < part["done"].size
    run(tmp_path / "broken")
    assert (tmp_path / "broken" / FILE).read_bytes() == (tmp_path / "unbroken" / FILE).read_bytes()


def test_a_training_of_one_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"and one network is trained: name the two with `--model.ends "):
        trained(tmp_path, ModeConnectivity(), classifier=small_classifier(init_channels=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 2}, "`resolution`"),
        ({"splits": []}, "`splits`"),
        ({"splits": ["test", "test"]}, "`splits`"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModeConnectivity(**settings)
