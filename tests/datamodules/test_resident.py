"""Images that stay on the host give the same batches, whatever ends the iteration, and take no memory."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from nas_lightning.callbacks.split_batches import HostImages, SplitBatches, split_batches
from nas_lightning.datamodules import Synthetic, residence
from nas_lightning.datamodules.base import LabelledImages, OfficialSplit
from nas_lightning.datamodules.residence import check_resident
from nas_lightning.datamodules.sampling import ImageBatch, IndexBatch
from nas_lightning.datamodules.threads import AHEAD, on_all_cores, prepared_ahead
from tests.cli.commands import environment
from tests.datamodules.recording import Recorder, make_trainer

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
SIZES = {"image_size": 8, "train_size": 50, "test_size": 21, "batch_size": 8, "evaluation_batch_size": 4}


class Broken(Synthetic):
    """One of its training images cannot be read."""

    unreadable = -1

    def _gather(self, batch: IndexBatch, device: torch.device | None) -> ImageBatch:
        if batch.epoch is not None and self.unreadable in batch.indices:
            raise OSError("the disk is gone")
        return super()._gather(batch, device)


class ChannelsLast(Synthetic):
    """Images as torchvision keeps them."""

    def load_split(self, split: OfficialSplit) -> LabelledImages:
        images, targets = super().load_split(split)
        return images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), targets


def ready(resident: str, cls: type[Synthetic] = Synthetic, **options: Any) -> Synthetic:
    data = cls(**{**SIZES, "cutout": 4, "resident": resident, **options})
    data.setup()
    return data


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("images")]


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """Every test ends as it began, and what it left to the garbage collector too."""
    yield
    if threads():
        gc.collect()
    assert not threads()


def batches(data: Synthetic, split: str, epoch: int = 0) -> list[tuple[Tensor, Tensor]]:
    """What a step would get."""
    loader: Any = data.train_dataloader() if split == "train" else data.evaluation_dataloader(split)  # type: ignore[arg-type]
    loader.sampler.set_epoch(epoch)
    moved = (data.transfer_batch_to_device(batch, CPU) for batch in loader)
    return [data.on_after_batch_transfer(batch) for batch in moved]


def assert_same(expected: list[tuple[Any, ...]], found: list[tuple[Any, ...]]) -> None:
    """Bit for bit, and in the same order in memory."""
    assert len(expected) == len(found) > 0
    for first, second in zip(expected, found, strict=True):
        for one, other in zip(first, second, strict=True):
            same = torch.equal(one, other) if isinstance(one, Tensor) else one == other
            assert same
            assert not isinstance(one, Tensor) or one.stride() == other.stride()


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("cls", [Synthetic, ChannelsLast])
def test_the_batches_are_the_same_bit_for_bit(cls: type[Synthetic], ranks: int) -> None:
    for rank in range(ranks):
        modules = [ready(resident, cls, validation_fraction=0.2) for resident in ("device", "host", "auto")]
        for data in modules:
            data.trainer = SimpleNamespace(world_size=ranks, global_rank=rank, lightning_module=None)  # type: ignore[assignment]
        for split, epoch in (("train", 0), ("train", 1), ("val", 0), ("test", 0)):
            device, host, auto = (batches(data, split, epoch) for data in modules)
            assert_same(device, host)
            assert_same(device, auto)
    assert type(next(iter(modules[0].train_dataloader()))) is IndexBatch
    assert type(next(iter(modules[1].train_dataloader()))) is ImageBatch
    assert type(next(iter(modules[2].train_dataloader()))) is IndexBatch  # a CPU's images stay as they are


class Stop(Callback):
    """Ends a training in the middle of an epoch, by an error if asked."""

    def __init__(self, error: bool) -> None:
        self.error = error

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 8:
            if self.error:
                raise RuntimeError("stopped")
            trainer.should_stop = True


def recorded(folder: Path, resident: str, *callbacks: Callback, **options: Any) -> Recorder:
    """A training's module with the batches that it got; the trainer is gone."""
    torch.manual_seed(0)
    module, resume = Recorder(image_size=8), options.pop("ckpt_path", None)
    trainer = make_trainer(folder, 2, callbacks=list(callbacks), enable_checkpointing=True, **options)
    trainer.fit(module, datamodule=ready(resident), ckpt_path=resume)
    assert not threads()  # also while the trainer lives
    return module


@pytest.mark.parametrize(
    "options",
    [{}, {"limit_train_batches": 2, "limit_val_batches": 2}, {"max_steps": 8, "val_check_interval": 3}],
    ids=["whole", "limited", "evaluated within an epoch"],
)
def test_a_training_gets_the_same_batches_and_leaves_no_thread(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    device, host = (recorded(tmp_path, resident, **options) for resident in ("device", "host"))
    assert_same(device.training_batches, host.training_batches)
    assert_same(device.evaluation_batches, host.evaluation_batches)
    assert torch.equal(device.layer.weight, host.layer.weight)


@pytest.mark.parametrize("second", ["host", "device"])
def test_a_training_goes_on_within_an_epoch(tmp_path: Path, second: str) -> None:
    whole = recorded(tmp_path, "device")
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=8, save_top_k=-1)
    first = recorded(tmp_path, "host", saver, Stop(error=False), min_epochs=0)
    assert len(first.training_batches) == 8  # two of the second epoch
    path = next(tmp_path.glob("*step=8*.ckpt"))
    again = recorded(tmp_path, second, ckpt_path=str(path))
    assert_same(whole.training_batches, first.training_batches + again.training_batches)
    assert torch.equal(whole.layer.weight, again.layer.weight)


def test_nothing_is_gathered_of_what_was_given_before() -> None:
    data = ready("host")
    loader: Any = data.train_dataloader()
    iterator = iter(loader)
    given = [next(iterator).source.indices.tolist() for _ in range(2)]
    state = loader.state_dict()
    assert state == {"batches": 2}  # although more are gathered
    rest = [batch.source.indices.tolist() for batch in iterator]
    assert loader.state_dict() == {"batches": 0}
    gathered: list[list[int]] = []
    original = data._gather

    def noted(batch: IndexBatch, device: torch.device | None) -> ImageBatch:
        gathered.append(batch.indices.tolist())
        return original(batch, device)

    data._gather = noted  # type: ignore[method-assign]
    again: Any = data.train_dataloader()
    again.load_state_dict(state)
    assert [batch.source.indices.tolist() for batch in again] == rest == gathered
    assert len(given + rest) == 6


def test_an_error_of_the_thread_comes_where_its_batch_would(tmp_path: Path) -> None:
    data: Any = ready("host", Broken)
    order: list[int] = list(data.train_dataloader().sampler)
    data.unreadable = order[3 * 8 + 5]
    iterator = iter(data.train_dataloader())
    for _ in range(3):
        next(iterator)
    with pytest.raises(OSError, match="the disk is gone"):
        next(iterator)
    assert not threads()
    trainer = make_trainer(tmp_path, 1)
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.fit(Recorder(image_size=8), datamodule=data)
    assert not threads()


def test_an_error_of_the_training_ends_the_thread(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        recorded(tmp_path, "host", Stop(error=True))


def test_an_iteration_that_is_left_ends_its_thread() -> None:
    iterator = iter(ready("host").train_dataloader())
    assert not threads()  # nothing begins before the first batch
    next(iterator)
    assert len(threads()) == 1
    del iterator
    assert not threads()


def test_no_more_is_prepared_than_asked_for() -> None:
    begun: list[int] = []

    def prepare(item: int) -> tuple[int, str]:
        begun.append(item)
        return item, threading.current_thread().name

    results = prepared_ahead(iter(range(20)), prepare)
    for number in range(5):
        item, thread = next(results)
        assert item == number
        assert thread.startswith("images")
        assert max(begun) <= number + AHEAD
    assert [item for item, _ in results] == list(range(5, 20))
    assert begun == list(range(20))


@pytest.mark.parametrize("count", [0, 1, 5, 200])
def test_all_cores_give_results_in_order_and_errors_in_their_place(count: int) -> None:
    def prepare(item: int) -> int:
        if item == 150:
            raise KeyError(item)
        return 2 * item

    results = on_all_cores(range(count), prepare, at_once=3)
    assert list(itertools.islice(results, 150)) == [2 * item for item in range(min(count, 150))]
    if count > 150:
        with pytest.raises(KeyError, match="150"):
            list(results)
    assert not threads()


def test_a_copy_reads_its_images_again() -> None:
    data = ready("host", validation_fraction=0.2, train_size=500)
    state = pickle.dumps(data)
    assert len(state) < 20_000 < data.split_arrays("train")[0].nbytes
    for other in (pickle.loads(state), copy.deepcopy(data)):
        assert other.split_sizes == data.split_sizes
        assert_same(batches(data, "train", 1), batches(other, "train", 1))
        assert_same([data.split_arrays("val")], [other.split_arrays("val")])
        other.setup()
        assert_same(batches(data, "test"), batches(other, "test"))


def on_gpu(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """The CPU tells how much memory it has free, as a GPU does."""
    monkeypatch.setattr(residence, "free_memory", lambda device: free)


def test_auto_takes_the_device_where_half_of_its_free_memory_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    image = 3 * 8 * 8

    def kind(free: int, stage: str, **options: Any) -> type:
        on_gpu(monkeypatch, free)
        data = Synthetic(**{**SIZES, **options})
        data.setup(stage)
        strategy = SimpleNamespace(root_device=CPU)
        data.trainer = SimpleNamespace(world_size=1, global_rank=0, strategy=strategy)  # type: ignore[assignment]
        (batch, *_), _ = list(data.test_dataloader()), list(data.val_dataloader())
        return type(batch)

    assert kind(2 * 71 * image, "fit") is IndexBatch
    assert kind(2 * 71 * image - 2, "fit") is ImageBatch
    assert kind(2 * 50 * image, "fit", validation_fraction=0.2) is IndexBatch  # the test split is not read
    assert kind(2 * 21 * image, "validate") is IndexBatch
    assert kind(2 * 50 * image - 2, "validate", validation_fraction=0.2) is ImageBatch
    assert kind(2 * 21 * image, "test", validation_fraction=0.2) is IndexBatch
    assert kind(2 * 21 * image - 2, "test") is ImageBatch
    assert kind(0, "fit", resident="device") is IndexBatch
    lines = [record.getMessage() for record in caplog.records if "stay on the host" in record.getMessage()]
    assert len(lines) == 3
    assert lines[0] == (
        "Synthetic: images stay on the host: their 0.00 GiB are more than 50% of the 0.00 GiB that are free"
        " on cpu (`resident` = 'auto')"
    )
    caplog.clear()
    kind(0, "fit", resident="host")
    assert "stay on the host" not in caplog.text  # as it was asked for

    on_gpu(monkeypatch, 0)
    host = recorded(tmp_path, "auto")
    assert "stay on the host" in caplog.text
    monkeypatch.undo()
    assert_same(recorded(tmp_path, "device").training_batches, host.training_batches)


def test_batches_without_a_trainer_come_from_the_host_where_they_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = batches(ready("device"), "train")
    data = ready("auto")
    on_gpu(monkeypatch, 0)
    loader = data.train_dataloader()
    assert type(next(iter(loader))) is IndexBatch  # nobody has said yet where to
    assert_same(expected, batches(data, "train"))
    assert not data._copies


@pytest.mark.parametrize("value", ["gpu", "", None, True, 1])
def test_another_place_is_refused_in_one_line(value: object) -> None:
    with pytest.raises(ValueError, match=r"^`resident` \(=.*\) must be 'auto', 'device' or 'host'$"):
        check_resident(value)


@pytest.mark.parametrize("options", [{}, {"max_samples": 7}, {"max_samples": 7, "shuffled": True}])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_analysis_reads_the_same_images_from_the_host(split: str, options: dict[str, Any]) -> None:
    data: Any = ready("host", validation_fraction=0.2)
    settings = {"max_samples": None, "sample_seed": 3, "batch_size": 4, "shuffled": False, **options}
    found = split_batches(data, split, **settings, device=CPU, dtype=torch.float32)
    assert isinstance(found.inputs, HostImages)
    images, targets = data.split_arrays(split)
    if options:
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(3))[:7]
        order = order if "shuffled" in options else order.sort().values
        images, targets = images[order], targets[order]
    whole = SplitBatches(images, targets, split, 3, 4, data.normalise, torch.float32)
    assert found.inputs.shape == images.shape
    assert found.sha256() == whole.sha256()
    assert_same(list(whole), list(found))
    assert_same(list(whole.share(1, 2)), list(found.share(1, 2)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gets_pinned_batches_that_equal_those_it_holds(tmp_path: Path) -> None:
    device = torch.device("cuda", 0)
    data = ready("host")
    strategy = SimpleNamespace(root_device=device)
    data.trainer = SimpleNamespace(world_size=1, global_rank=0, strategy=strategy, lightning_module=None)  # type: ignore[assignment]
    gathered = list(data.train_dataloader())
    for batch in gathered:
        assert batch.images.is_pinned()
        assert batch.targets.is_pinned()
        assert batch.source.indices.is_pinned()
    moved = [data.transfer_batch_to_device(batch, device) for batch in gathered]
    assert not data._copies
    found = [data.on_after_batch_transfer(batch) for batch in moved]
    data = ready("device")
    held = [data.transfer_batch_to_device(batch, device) for batch in data.train_dataloader()]
    assert_same([data.on_after_batch_transfer(batch) for batch in held], found)
    assert all(part.device == device for batch in found for part in batch)

    def trained(resident: str) -> list[tuple[Any, ...]]:
        module, data = Recorder(image_size=8), ready(resident)
        trainer = make_trainer(tmp_path, 2, accelerator="gpu")
        trainer.fit(module, datamodule=data)
        return [*module.training_batches, *module.evaluation_batches]

    assert_same(trained("device"), trained("host"))
    assert residence.free_memory(device) == pytest.approx(torch.cuda.mem_get_info(device)[0], rel=0.2)
    # An analysis holds on the GPU what fits.
    settings: dict[str, Any] = {"max_samples": None, "sample_seed": 0, "batch_size": 4, "shuffled": False}
    for resident, kind in (("host", HostImages), ("device", Tensor), ("auto", Tensor)):
        own: Any = ready(resident)
        part = split_batches(own, "test", **settings, device=device, dtype=torch.float32)
        assert isinstance(part.inputs, kind)
        assert all(inputs.device == device for inputs, _ in part)


@pytest.mark.slow
def test_a_start_takes_no_memory_for_the_images(tmp_path: Path) -> None:
    analyses = [
        *("--trainer.callbacks+=GradientVariance", "--trainer.callbacks.split=train"),
        *("--trainer.callbacks.resolution=2", "--trainer.callbacks.max_samples=32"),
        *("--trainer.callbacks.batch_size=16", "--trainer.callbacks+=LossContour"),
        *("--trainer.callbacks.resolution=2", "--trainer.callbacks.split=val"),
        "--trainer.callbacks.max_samples=32",
    ]
    settings = [
        *("--data=tests.datamodules.sparse.Sparse", f"--data.root={tmp_path}", "--data.batch_size=16"),
        *("--data.validation_fraction=0.1", "--data.evaluation_batch_size=16", "--model.speed=reference"),
        *("--model.init_channels=4", "--model.num_cells=3", "--trainer.accelerator=cpu"),
        *("--trainer.max_epochs=1", "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=2"),
    ]
    command = [sys.executable, "-m", "tests.datamodules.sparse", "fit", *settings, *analyses]
    done = subprocess.run(
        [*command, f"--trainer.default_root_dir={tmp_path}"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sum(path.stat().st_size for path in tmp_path.glob("*.npy")) > 20 * 10**9
    assert sum(path.stat().st_blocks for path in tmp_path.glob("*.npy")) < 1000
    size, unit = done.stdout.split()[-2:]
    assert unit == "GiB"
    assert float(size) < 1.5
