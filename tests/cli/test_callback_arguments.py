"""Callbacks of the configuration are addressed by their class, or by the name of an analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nas_lightning.identity import as_list
from tests.cli.parsing import ParsedLandscape, ParsedOnly

CONFIGS = Path(__file__).parents[2] / "configs"
LANDSCAPE = f"--config={CONFIGS / 'landscape.yaml'}"


def arguments_of(cli: ParsedOnly) -> dict[str, dict[str, Any]]:
    callbacks = cli.settings.as_dict()["trainer"]["callbacks"]
    return {
        one["init_args"].get("name") or one["class_path"].rpartition(".")[2]: one["init_args"]
        for one in callbacks
    }


def test_a_class_addresses_its_callback_and_no_other() -> None:
    before = arguments_of(ParsedOnly(["fit", LANDSCAPE]))
    for spelling in (
        ["--trainer.callbacks.LossContour.resolution=5"],
        ["--trainer.callbacks.LossContour.init_args.resolution", "5"],
        ["--trainer.callbacks.loss_contour.resolution=5"],
    ):
        after = arguments_of(ParsedOnly(["fit", LANDSCAPE, *spelling]))
        assert after.pop("LossContour") == before["LossContour"] | {"resolution": 5}
        assert after == {name: value for name, value in before.items() if name != "LossContour"}


def test_a_name_addresses_one_of_several_of_a_class() -> None:
    split = f"--config={CONFIGS / 'training_split.yaml'}"
    one = arguments_of(
        ParsedOnly(["fit", split, LANDSCAPE, "--trainer.callbacks.gradient_variance_train.max_samples=64"])
    )
    assert one["gradient_variance_train"]["max_samples"] == 64
    assert one["GradientVariance"]["max_samples"] is None
    both = arguments_of(
        ParsedOnly(["fit", split, LANDSCAPE, "--trainer.callbacks.GradientVariance.max_samples=64"])
    )
    assert both["gradient_variance_train"]["max_samples"] == both["GradientVariance"]["max_samples"] == 64


def test_values_are_checked_like_others() -> None:
    with pytest.raises(ValueError, match=r"^`resolution` \(=x\) must be of type int"):
        ParsedOnly(["fit", LANDSCAPE, "--trainer.callbacks.LossContour.resolution=x"])
    with pytest.raises(ValueError, match="there is no setting `resolutoin`; did you mean `resolution`"):
        ParsedOnly(["fit", LANDSCAPE, "--trainer.callbacks.LossContour.resolutoin=5"])
    with pytest.raises(ValueError, match=r"`trainer\.callbacks\.LossContour\.resolution` needs a value"):
        ParsedOnly(["fit", LANDSCAPE, "--trainer.callbacks.LossContour.resolution"])


def test_a_callback_that_is_not_there_is_refused_with_those_that_are() -> None:
    config = f"--config={CONFIGS / 'loss_profile.yaml'}"
    for callback in ("LossContour", "0", "LosProfile"):
        with pytest.raises(
            ValueError, match=f"`trainer.callbacks.{callback}.resolution`.* has LossProfile; .*`--trainer"
        ):
            ParsedOnly(["fit", config, f"--trainer.callbacks.{callback}.resolution=5"])
    with pytest.raises(ValueError, match="is empty"):
        ParsedOnly(["fit", "--trainer.callbacks.LossContour.resolution=5"])


def test_a_landscape_without_callbacks_changes_its_own() -> None:
    reference = "--reference_weights=weights.pt"
    changed = arguments_of(
        ParsedLandscape(["landscape", reference, "--trainer.callbacks.LossContour.resolution=5"])
    )
    assert list(changed) == ["LossContour", "LossProfile", "GradientVariance", "HessianSpectrum"]
    assert changed["LossContour"]["resolution"] == 5
    initial = arguments_of(ParsedLandscape(["landscape", "--trainer.callbacks.HessianSpectrum.k=3"]))
    assert list(initial) == ["GradientVariance", "HessianSpectrum"]
    assert (initial["GradientVariance"]["resolution"], initial["HessianSpectrum"]["k"]) == (None, 3)


def test_one_callback_keeps_its_short_keys() -> None:
    cli = ParsedOnly(["fit", "--trainer.callbacks=LossContour", "--trainer.callbacks.resolution=5"])
    assert as_list(cli.settings.trainer.callbacks)[0].init_args.resolution == 5
