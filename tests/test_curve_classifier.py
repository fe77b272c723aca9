from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD

from nas_lightning.analysis import estimate_running_statistics, evaluate
from nas_lightning.callbacks import LossContour, ModeConnectivity
from nas_lightning.curve_classifier import CurveClassifier
from tests.callbacks.cases import data, images, trainer
from tests.curves import SETTINGS, curve_between, write_end

DECAY = 0.02


def by_hand(curve: CurveClassifier, t: float) -> dict[str, Tensor]:
    """Every parameter at t, from the files of the ends."""
    start, end = (torch.load(path, weights_only=True)["state_dict"] for path in curve.end_names)
    return {
        name: (1 - t) ** 2 * start[f"network.{name}"].double()
        + 2 * t * (1 - t) * theta.detach()
        + t**2 * end[f"network.{name}"].double()
        for name, theta in curve.network.named_parameters()
    }


def test_a_step_moves_the_bend_by_2t_1_minus_t_times_the_gradient_at_the_point(tmp_path: Path) -> None:
    curve = curve_between(tmp_path, optimizer=lambda p: SGD(p, lr=0.1, weight_decay=DECAY)).double()
    assert curve.make_optimizer().param_groups[0]["weight_decay"] == 0
    steps = []

    def drawn(batch_index: int) -> float:
        steps.append(batch_index)
        return 0.3

    curve.drawn_position = drawn  # type: ignore[method-assign]
    curve.log_training_metrics = lambda: None  # type: ignore[method-assign]
    inputs, targets = torch.randn(6, 3, 16, 16, dtype=torch.float64), torch.arange(6)

    plain = copy.deepcopy(curve.network).train()
    with torch.no_grad():
        for name, values in by_hand(curve, 0.3).items():
            dict(plain.named_parameters())[name].copy_(values)
    live = {name: values for name, values in plain.named_parameters() if values.requires_grad}
    loss = functional.cross_entropy(plain(inputs), targets)
    loss = loss + DECAY / 2 * sum(values.square().sum() for values in live.values())
    expected = dict(zip(live, torch.autograd.grad(loss, list(live.values())), strict=True))

    found = curve.train().training_step((inputs, targets), 7)
    found.backward()  # type: ignore[no-untyped-call]
    assert steps == [7]
    torch.testing.assert_close(found, loss, rtol=1e-7, atol=0)
    for name, values in curve.network.named_parameters():
        if values.requires_grad:
            torch.testing.assert_close(values.grad, 2 * 0.3 * 0.7 * expected[name], rtol=1e-9, atol=1e-12)


def test_the_ends_are_the_files_bit_for_bit(tmp_path: Path) -> None:
    curve = curve_between(tmp_path)
    for path, t in zip(curve.end_names, (0.0, 1.0), strict=True):
        state = torch.load(path, weights_only=True)["state_dict"]
        for straight in (False, True):
            for name, values in curve.weights_at(t, straight=straight).items():
                assert torch.equal(values, state[f"network.{name}"])


def test_the_bend_starts_half_way(tmp_path: Path) -> None:
    curve = curve_between(tmp_path)
    curve.load_ends()
    for t in (0.25, 0.5):
        line = curve.weights_at(t, straight=True)
        for name, values in curve.weights_at(t).items():
            torch.testing.assert_close(values, line[name], rtol=0, atol=1e-6)


def fitted(
    folder: Path, *callbacks: Any, epochs: int = 2, **settings: Any
) -> tuple[CurveClassifier, Trainer]:
    seed_everything(0)
    curve = curve_between(folder, statistics_samples=20, **settings)
    callbacks = (*callbacks, ModeConnectivity(resolution=3))
    fit = trainer(*callbacks, max_epochs=epochs, enable_progress_bar=False, default_root_dir=folder)
    fit.fit(curve, datamodule=data())
    return curve, fit


def test_an_evaluation_is_that_of_the_middle_with_its_own_statistics(tmp_path: Path) -> None:
    curve, fit = fitted(tmp_path)
    plain = copy.deepcopy(curve.network).eval()
    with torch.no_grad():
        for name, values in by_hand(curve, 0.5).items():
            dict(plain.named_parameters())[name].copy_(values)
    inputs, targets = images("train")
    rows = torch.randperm(48, generator=torch.Generator().manual_seed(0))[:20].sort().values
    estimate_running_statistics(plain, [(inputs[rows], targets[rows])])
    loss, accuracy = evaluate(plain, [images("test")])
    assert float(fit.callback_metrics["loss/test"]) == pytest.approx(loss, rel=1e-4)
    assert float(fit.callback_metrics["accuracy/test"]) == pytest.approx(accuracy)


def test_positions_are_drawn_from_seed_epoch_and_batch(tmp_path: Path) -> None:
    drawn: list[float] = []
    draw = CurveClassifier.drawn_position

    def noted(self: CurveClassifier, batch_index: int) -> float:
        drawn.append(draw(self, batch_index))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CurveClassifier, "drawn_position", noted)
        fitted(tmp_path)
        first, drawn[:] = list(drawn), []
        fitted(tmp_path)
    assert first == drawn
    assert len(set(first)) == 6
    assert all(0 <= t < 1 for t in first)


def test_a_checkpoint_holds_the_whole_curve(tmp_path: Path) -> None:
    curve, fit = fitted(tmp_path, epochs=1)
    fit.save_checkpoint(tmp_path / "curve.ckpt", weights_only=False)
    for name in ("a", "b"):
        (tmp_path / f"{name}.ckpt").unlink()
    again = CurveClassifier.load_from_checkpoint(tmp_path / "curve.ckpt")
    assert isinstance(again, CurveClassifier)
    for t in (0.0, 0.4, 1.0):
        expected = curve.weights_at(t)
        assert all(torch.equal(values, expected[name]) for name, values in again.weights_at(t).items())
    assert again.end_names == curve.end_names


def test_a_callback_of_one_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"LossContour measures one network, but a curve between two is"):
        fitted(tmp_path, LossContour())


def test_ends_must_be_two_networks_that_fit(tmp_path: Path) -> None:
    a = write_end(tmp_path / "a.ckpt")
    state = torch.load(a, weights_only=True)
    unknown = dict(state["state_dict"])
    unknown["network.classifier.bias"] = torch.full((10,), math.nan)
    digits, other = ({"datamodule_hyper_parameters": {"_class_path": name}} for name in ("Digits", "CIFAR10"))
    (tmp_path / "damaged.ckpt").write_bytes(a.read_bytes()[:-4000])
    cases: list[tuple[list[str], str]] = [
        ([str(a)], r"`model.ends` \(=\[.*\]\) must be two checkpoints: \[A.ckpt, B.ckpt\]"),
        ([str(a), str(a)], r"`model.ends`: both are .*a.ckpt: a curve needs two networks"),
        (
            [str(a), str(write_end(tmp_path / "same.ckpt"))],
            "have the same weights: a curve needs two networks",
        ),
        ([str(a), str(tmp_path / "gone.ckpt")], r"`model.ends` \(=.*gone.ckpt\) is not a file"),
        ([str(a), str(tmp_path / "damaged.ckpt")], r"`model.ends` \(=.*\) is damaged or incomplete"),
        (
            [str(a), str(write_end(tmp_path / "cells.ckpt", genotype="nasnet"))],
            r"a.ckpt was trained with the genotype .*, .*cells.ckpt with Genotype",
        ),
        (
            [str(a), str(write_end(tmp_path / "large.ckpt", init_channels=3))],
            r"a.ckpt was trained with `model.init_channels` 2, .*large.ckpt with 3",
        ),
        (
            [str(a), str(write_end(tmp_path / "classes.ckpt", num_classes=5))],
            r"a.ckpt was trained with `model.num_classes` 10, .*classes.ckpt with 5",
        ),
        (
            [
                str(write_end(tmp_path / "digits.ckpt", content=digits)),
                str(write_end(tmp_path / "cifar.ckpt", 1, content=other)),
            ],
            r"digits.ckpt was trained with the data Digits, .*cifar.ckpt with CIFAR10",
        ),
        (
            [str(a), str(write_end(tmp_path / "nan.ckpt", content={"state_dict": unknown}))],
            r"`model.ends`: the tensor classifier.bias of .*nan.ckpt holds NaN or infinity",
        ),
    ]
    for ends, message in cases:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            CurveClassifier(ends=ends, **SETTINGS).load_ends()
    ends = [str(a), str(write_end(tmp_path / "b.ckpt", 1))]
    with pytest.raises(ValueError, match=r"`model.init_channels` \(=3\) contradicts .*a.ckpt, an end of the"):
        CurveClassifier(ends=ends, **SETTINGS | {"init_channels": 3}).load_ends()
    with pytest.raises(ValueError, match=r"the weights of the ends are not read yet"):
        CurveClassifier(ends=ends, **SETTINGS).weights_at(0.5)
