from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from nas_lightning.datamodules import CIFAR10, Digits, ImageDataModule, Synthetic
from nas_lightning.datamodules.checks import check_integer
from nas_lightning.datamodules.sampling import EvaluationSampler, TrainingSampler, stratified_split
from tests.datamodules.recording import Recorder, make_trainer

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def small(**options: Any) -> Synthetic:
    """A small set that is ready for use."""
    sizes = {"image_size": 8, "train_size": 50, "test_size": 21, "batch_size": 16}
    data = Synthetic(**{**sizes, **options})
    data.prepare_data()
    data.setup()
    return data


def on_rank(data: ImageDataModule, rank: int, ranks: int) -> ImageDataModule:
    """The module as one rank of several sees it."""
    trainer: Any = SimpleNamespace(world_size=ranks, global_rank=rank, lightning_module=None)
    data.trainer = trainer
    return data


def batches(data: ImageDataModule, loader: Any) -> list[tuple[Tensor, Tensor]]:
    """What Lightning would hand to a step."""
    return [data.on_after_batch_transfer(data.transfer_batch_to_device(batch, CPU, 0), 0) for batch in loader]


def training_epoch(data: ImageDataModule, epoch: int) -> list[tuple[Tensor, Tensor]]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return batches(data, loader)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_get_the_very_images_of_one_process(ranks: int) -> None:
    single = training_epoch(small(cutout=4), epoch=1)
    together = [training_epoch(on_rank(small(cutout=4), rank, ranks), epoch=1) for rank in range(ranks)]
    assert len(single) == 3
    for step, (inputs, targets) in enumerate(single):
        parts = torch.stack([rank[step][0] for rank in together], dim=1).flatten(0, 1)
        assert torch.equal(parts, inputs)
        assert torch.equal(torch.stack([rank[step][1] for rank in together], dim=1).flatten(), targets)
        assert not torch.equal(together[0][step][0], together[1][step][0])


def test_augmentation_repeats_from_seed_and_epoch_and_differs_otherwise() -> None:
    def epoch_of(seed: int, epoch: int) -> Tensor:
        return torch.cat([inputs for inputs, _ in training_epoch(small(seed=seed), epoch)])

    assert torch.equal(epoch_of(0, 3), epoch_of(0, 3))
    for seed, epoch in ((0, 4), (1, 3), (1, 2)):
        assert not torch.equal(epoch_of(0, 3), epoch_of(seed, epoch))


def test_an_epoch_does_not_depend_on_the_ones_before() -> None:
    data = small()
    for epoch in range(3):
        through = training_epoch(data, epoch)
    straight = training_epoch(small(), 2)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(through, straight, strict=True))


def test_evaluation_batches_are_the_plain_images_even_while_training() -> None:
    data = small(evaluation_batch_size=4, cutout=8)
    images, targets = data.split_arrays("test")
    inputs = torch.cat([inputs for inputs, _ in batches(data, data.val_dataloader())])
    assert torch.equal(inputs, data.normalise(images))
    assert torch.equal(torch.cat([t for _, t in batches(data, data.test_dataloader())]), targets)
    plain = torch.cat([inputs for inputs, _ in batches(data, data.evaluation_dataloader("train"))])
    assert torch.equal(plain, data.normalise(data.split_arrays("train")[0]))


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_every_test_image_is_counted_once_over_the_ranks(ranks: int) -> None:
    expected = torch.bincount(small().split_arrays("test")[1], minlength=10)
    counted, sizes = torch.zeros(10, dtype=torch.int64), set()
    for rank in range(ranks):
        data = on_rank(small(evaluation_batch_size=2), rank, ranks)
        found = batches(data, data.test_dataloader())
        sizes.add(tuple(len(targets) for _, targets in found))
        targets = torch.cat([targets for _, targets in found])
        counted += torch.bincount(targets[targets >= 0], minlength=10)
    assert torch.equal(counted, expected)
    assert len(sizes) == 1


def test_held_out_part_is_stratified_disjoint_and_has_its_own_seed() -> None:
    data = small(train_size=200, validation_fraction=0.25)
    assert data.split_sizes == {"train": 150, "val": 50, "test": 21}
    assert data.evaluation_split == "val"
    assert torch.bincount(data.split_arrays("val")[1]).tolist() == [5] * 10
    train, val = data.split_arrays("train")[0].flatten(1), data.split_arrays("val")[0].flatten(1)
    whole = small(train_size=200).split_arrays("train")[0].flatten(1)
    assert {tuple(row) for row in torch.cat([train, val]).tolist()} == {tuple(row) for row in whole.tolist()}

    def held_out(**seeds: int) -> Tensor:
        return small(train_size=200, validation_fraction=0.25, **seeds).split_arrays("val")[0]

    assert torch.equal(held_out(seed=5), data.split_arrays("val")[0])
    assert not torch.equal(held_out(validation_seed=5), data.split_arrays("val")[0])
    inputs = torch.cat([inputs for inputs, _ in batches(data, data.val_dataloader())])
    assert torch.equal(inputs, data.normalise(data.split_arrays("val")[0]))


def test_training_never_shows_a_held_out_image() -> None:
    data = small(train_size=200, validation_fraction=0.25, batch_size=10)
    seen = []
    for batch in data.train_dataloader():
        seen += data.transfer_batch_to_device(batch, CPU, 0).images.flatten(1).tolist()
    held_out = {tuple(row) for row in data.split_arrays("val")[0].flatten(1).tolist()}
    assert len(seen) == 150
    assert not held_out & {tuple(row) for row in seen}


def test_stratified_split_keeps_the_shares_of_uneven_classes() -> None:
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    kept, held_out = stratified_split(targets, 20, seed=1)
    assert torch.bincount(targets[held_out]).tolist() == [12, 6, 2]
    assert torch.equal(torch.cat([kept, held_out]).sort().values, torch.arange(100))


def test_log_says_once_that_the_test_split_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr("nas_lightning.datamodules.base.rank_zero_info", messages.append)
    data = small()
    data.setup("test")
    small(validation_fraction=0.5)
    (message,) = messages
    assert message.startswith("Synthetic: loss and accuracy of every epoch are measured on the test split")


def test_hyperparameters_are_primitive_and_complete() -> None:
    data = Synthetic(num_classes=3, batch_size=4, cutout=2)
    assert dict(data.hparams) == {
        "num_classes": 3,
        "image_size": 32,
        "train_size": 512,
        "test_size": 128,
        "root": "data",
        "batch_size": 4,
        "cutout": 2,
        "validation_fraction": 0.0,
        "validation_seed": 0,
        "seed": 0,
        "evaluation_batch_size": 250,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"`batch_size` \(=0\) must be an integer of at least 1"),
        ({"batch_size": -80}, r"`batch_size` \(=-80\) must be"),
        ({"evaluation_batch_size": 0}, r"`evaluation_batch_size` \(=0\)"),
        ({"cutout": -1}, r"`cutout` \(=-1\) must be an integer of at least 0"),
        ({"cutout": 33}, r"`cutout` \(=33\) must be at most the image size of Digits \(32 pixels\)"),
        ({"validation_fraction": 1.0}, r"`validation_fraction` \(=1.0\) must be at least 0 and less than 1"),
        ({"validation_fraction": -0.1}, r"`validation_fraction` \(=-0.1\)"),
        ({"validation_fraction": float("nan")}, r"`validation_fraction` \(=nan\)"),
        ({"seed": -1}, r"`seed` \(=-1\)"),
    ],
)
def test_arguments_out_of_range_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Digits(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [1.5, "16", True, None])
def test_a_length_that_is_no_integer_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"`cutout` \(=.*\) must be an integer"):
        check_integer("cutout", value, minimum=0)


def test_sizes_that_do_not_fit_the_data_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`batch_size` \(=51\) must be at most .* \(50 images\)"):
        small(batch_size=51)
    with pytest.raises(
        ValueError,
        match=r"`validation_fraction` \(=0.1\) does not suit Synthetic: .* has 5 images, ",
    ):
        small(validation_fraction=0.1)
    with pytest.raises(ValueError, match=r"does not suit Synthetic: the remaining part has 5 images"):
        small(validation_fraction=0.9)
    with pytest.raises(ValueError, match=r"does not suit Synthetic: class 1 has a single image"):
        small(validation_fraction=0.5, train_size=11)
    with pytest.raises(
        ValueError, match=r"`batch_size` \(=16\) must be divisible by the number of devices \(3\)"
    ):
        on_rank(Synthetic(batch_size=16), 0, 3).setup()
    with pytest.raises(ValueError, match="has no split 'val': it has 'train', 'test'"):
        small().evaluation_dataloader("val")
    with pytest.raises(RuntimeError, match="call `prepare_data\\(\\)` and `setup\\(\\)`"):
        Synthetic().train_dataloader()


def test_torchvision_is_imported_only_for_its_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (ROOT / "nas_lightning" / "datamodules").glob("*.py"):
        assert not re.search(r"^(import|from) torchvision", path.read_text(), re.MULTILINE)
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.setitem(sys.modules, module, None)
    for data in (Digits(), small()):
        data.prepare_data()
        data.setup()
    with pytest.raises(ImportError, match="torchvision"):
        CIFAR10().prepare_data()


def test_a_users_own_data_set_is_checked() -> None:
    class Own(ImageDataModule):
        name, num_classes, image_size = "Own", 2, 8
        mean = std = (0.5, 0.5, 0.5)

        def load_split(self, split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
            return torch.zeros(100, 3, 8, 8, dtype=torch.uint8), torch.arange(100) % 3

    with pytest.raises(ValueError, match=r"Own, train split: classes 0 \.\. 2, expected 0 \.\. 1"):
        Own().setup()
    Own.num_classes, Own.image_size = 3, 9
    with pytest.raises(
        ValueError, match=r"Own, train split: .*\(100, 3, 8, 8\), expected .*\(100, 3, 9, 9\)"
    ):
        Own().setup()


def test_a_resumed_run_gets_the_batches_of_an_unbroken_one(tmp_path: Path) -> None:
    def run(max_epochs: int, folder: str, resume: str | None = None) -> Recorder:
        module = Recorder(image_size=8)
        saver = ModelCheckpoint(tmp_path / folder, save_last=True, save_on_train_epoch_end=True)
        trainer = make_trainer(tmp_path, max_epochs, enable_checkpointing=True, callbacks=[saver])
        trainer.fit(module, datamodule=small(cutout=4), ckpt_path=resume)
        return module

    unbroken = run(4, "unbroken").training_batches
    first = run(2, "broken").training_batches
    second = run(4, "broken", str(tmp_path / "broken" / "last.ckpt")).training_batches
    assert len(unbroken) == 12
    for expected, found in zip(unbroken, first + second, strict=True):
        assert expected[0] == found[0]
        assert torch.equal(expected[1], found[1])
        assert torch.equal(expected[2], found[2])
    assert not torch.equal(unbroken[0][1], unbroken[3][1])


def test_lightning_leaves_the_samplers_alone_and_inputs_take_the_modules_type(tmp_path: Path) -> None:
    module, data = Recorder(image_size=8), small(evaluation_batch_size=8)
    trainer = make_trainer(tmp_path, 1, precision="64-true")
    trainer.fit(module, datamodule=data)
    loaders: list[Any] = [trainer.train_dataloader, trainer.val_dataloaders]
    assert [type(loader.sampler) for loader in loaders] == [TrainingSampler, EvaluationSampler]
    assert {inputs.dtype for _, inputs, _ in module.training_batches} == {torch.float64}
    assert sum(len(targets) for _, _, targets in module.evaluation_batches) == 21


def test_overfitting_a_few_batches_works(tmp_path: Path) -> None:
    module = Recorder(image_size=8)
    trainer = make_trainer(tmp_path, 2, overfit_batches=1)
    trainer.fit(module, datamodule=small())
    assert [len(targets) for _, _, targets in module.training_batches] == [16, 16]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident", ["device", "host"])
def test_a_gpu_gets_the_batches_of_the_cpu(resident: str) -> None:
    data, device = small(cutout=4, resident=resident), torch.device("cuda", 0)
    expected = training_epoch(small(cutout=4), epoch=1)
    strategy = SimpleNamespace(root_device=device)
    trainer = SimpleNamespace(world_size=1, global_rank=0, strategy=strategy, lightning_module=None)
    data.trainer = trainer  # type: ignore[assignment]
    loader: Any = data.train_dataloader()
    loader.sampler.set_epoch(1)
    for batch, (inputs, targets) in zip(loader, expected, strict=True):
        assert resident == "device" or batch.images.is_pinned()
        found = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)
        assert [part.device for part in found] == [device, device]
        assert torch.equal(found[1].cpu(), targets)
        torch.testing.assert_close(found[0].cpu(), inputs, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_two_real_ranks_get_the_batches_of_one_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.datamodules.recording", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=200)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    data = small(cutout=4, evaluation_batch_size=4)
    expected = [batch for epoch in range(2) for batch in training_epoch(data, epoch)]
    found = list(zip(*(rank["train"] for rank in ranks), strict=True))
    assert len(found) == 6
    for (inputs, targets), parts in zip(expected, found, strict=True):
        assert torch.equal(torch.stack([part[1] for part in parts], dim=1).flatten(0, 1), inputs)
        assert torch.equal(torch.stack([part[2] for part in parts], dim=1).flatten(), targets)
    for epoch in range(2):
        counted = torch.cat([batch[2] for rank in ranks for batch in rank["test"] if batch[0] == epoch])
        assert (len(counted), int((counted == -1).sum())) == (22, 1)
        kept = counted[counted >= 0]
        assert torch.equal(torch.bincount(kept), torch.bincount(data.split_arrays("test")[1]))
