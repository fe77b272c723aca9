from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from nas_lightning.acceleration import Speed
from nas_lightning.callbacks import DropPathSchedule
from nas_lightning.classifier import CellClassifier
from nas_lightning.datamodules import Synthetic
from tests.acceleration.cases import SIZES, SMALL, needs_compiler


def fit(
    folder: Path, speed: Speed, epochs: int = 2, checkpoint: str | None = None, **settings: Any
) -> tuple[Trainer, CellClassifier]:
    torch.manual_seed(0)
    data = Synthetic(train_size=24, test_size=13, image_size=16, num_classes=10, batch_size=8, seed=0)
    model = CellClassifier(str(SMALL), num_classes=10, **SIZES, drop_path=0.2, speed=speed)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        gradient_clip_val=5.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=False if checkpoint else None)
    return trainer, model


def test_checkpoints_of_one_level_load_at_another(tmp_path: Path) -> None:
    path = str(tmp_path / "first.ckpt")
    checkpoints = {}
    for speed in ("reference", "fast"):
        trainer, _ = fit(tmp_path, speed)
        trainer.save_checkpoint(path)
        checkpoints[speed] = torch.load(path, weights_only=False)
    one, other = checkpoints["reference"], checkpoints["fast"]
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for name, values in one["state_dict"].items():
        torch.testing.assert_close(values, other["state_dict"][name], rtol=1e-3, atol=1e-4)
    groups = [checkpoint["optimizer_states"][0]["param_groups"] for checkpoint in (one, other)]
    assert groups[0] == groups[1]
    trainer, model = fit(tmp_path, "reference", epochs=2, checkpoint=path)
    assert trainer.optimizers[0].param_groups[0]["fused"] is None
    for name, values in model.network.state_dict().items():
        assert torch.equal(values, other["state_dict"][f"network.{name}"])


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.message.startswith("speed:")]


@pytest.mark.parametrize(
    ("speed", "begins"),
    [
        ("auto", "speed: fast, chosen by `auto` for 3 steps; "),
        ("fast", "speed: fast; "),
        ("reference", "speed: reference; the plain network"),
    ],
)
def test_a_run_says_how_it_is_computed(
    tmp_path: Path, speed: Speed, begins: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        fit(tmp_path, speed, epochs=1)
    (line,) = said(caplog)
    assert line.startswith(begins)


class Hook(DropPathSchedule):
    """A callback of the user's that watches a layer."""

    def __init__(self) -> None:
        self.seen: list[torch.Size] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        def watch(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            self.seen.append(output.shape)

        pl_module.network.cells[0].edges[0].register_forward_hook(watch)


def test_hooks_of_a_callback_are_called_and_the_run_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = Hook()
    with caplog.at_level("INFO"):
        fit(tmp_path, "fast", epochs=1, callbacks=[hook])
    assert len(hook.seen) >= 3
    assert "layer 'cells.0.edges.0' (SeparableConvolution) has hooks" in said(caplog)[0]


def test_the_module_brings_the_drop_path_schedule(tmp_path: Path) -> None:
    trainer, model = fit(tmp_path, "reference")
    assert sum(type(callback) is DropPathSchedule for callback in trainer.callbacks) == 1  # type: ignore[attr-defined]
    assert model.network.drop_path_probability == pytest.approx(0.1)  # the second of two epochs
    trainer, _ = fit(tmp_path, "reference", callbacks=[DropPathSchedule()])
    assert sum(isinstance(callback, DropPathSchedule) for callback in trainer.callbacks) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("with_classes", [True, False])
def test_predictions_are_logits_of_any_loader(tmp_path: Path, *, with_classes: bool) -> None:
    torch.manual_seed(0)
    model = CellClassifier(str(SMALL), num_classes=10, **SIZES)
    images, classes = torch.randn(5, 3, 16, 16), torch.arange(5)
    data: Dataset[Any] = TensorDataset(images, classes)
    loader: DataLoader[Any] = DataLoader(data if with_classes else cast("Dataset[Any]", images), batch_size=3)
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False)
    predicted = cast("list[Tensor]", trainer.predict(model, loader))
    torch.testing.assert_close(torch.cat(predicted), model.eval()(images))


def test_the_state_dict_holds_the_network_once(tmp_path: Path) -> None:
    _, model = fit(tmp_path, "fast", epochs=1)
    names = [name for name in model.state_dict() if not name.startswith(("train_", "evaluation_"))]
    assert names == [f"network.{name}" for name in model.network.state_dict()]


@needs_compiler
@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("speed", ["compiled", "max"])
def test_compiled_fits_end_where_the_reference_does(
    tmp_path: Path, speed: Speed, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []

    def compile_quickly(module: nn.Module, **options: Any) -> None:
        compiled.append(module.training)
        module.compile(dynamic=False, backend="aot_eager")

    monkeypatch.setattr("nas_lightning.acceleration.accelerated.compile_module", compile_quickly)
    expected, _ = fit(tmp_path, "reference")
    trainer, model = fit(tmp_path, speed)
    assert sorted(compiled) == [False, True]
    tolerance = 0.05 if speed == "max" else 1e-3
    for name in ("loss/train", "loss/test"):
        value = float(expected.callback_metrics[name])
        assert float(trainer.callback_metrics[name]) == pytest.approx(value, rel=tolerance)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": torch.zeros(2, 3, 8, 8), "label": torch.zeros(2).long()}, "gives a dict: .* pairs"),
        (
            [torch.zeros(2, 3, 8, 8), torch.zeros(2).long(), torch.zeros(2)],
            "gives a list of Tensor, Tensor, Tensor: .* pairs",
        ),
        (
            [torch.zeros(2, 1, 8, 8), torch.zeros(2).long()],
            r"shape \[2, 1, 8, 8\]: .* \[batch, 3, height, width\]",
        ),
        (
            [torch.zeros(2, 3, 8, 8).byte(), torch.zeros(2).long()],
            "images of torch.uint8 .* floating-point images",
        ),
        ([torch.zeros(2, 3, 8, 8), torch.zeros(2)], "classes of torch.float32: .* takes integers"),
        (
            [torch.zeros(2, 3, 8, 8), torch.tensor([0, 10])],
            r"class 10; `num_classes` \(=10\) must be above it",
        ),
    ],
)
def test_batches_of_other_kinds_are_refused(batch: Any, message: str) -> None:
    module = CellClassifier("darts_v2", init_channels=4, num_cells=3)
    for step in (module.training_step, module.validation_step, module.test_step):
        with pytest.raises(ValueError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
            step(batch, 0)
