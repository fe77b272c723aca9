"""Damaged checkpoints, analysis files, runs and environments, 300 each: one line or a result."""

from __future__ import annotations

import copy
import logging
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.rank_zero import _get_rank

from nas_lightning.analysis.surface import read_surface
from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.checkpoint_settings import read_checkpoint_settings
from nas_lightning.cli.launcher import NUMBERS, check_launcher
from nas_lightning.cli.main import main
from nas_lightning.cli.messages import is_user_error
from nas_lightning.netcdf import read_dataset, write_dataset
from nas_lightning.private_files import cache_folder
from nas_lightning.study.executors import visible_gpus
from nas_lightning.study.record import analysis_statistics
from nas_lightning.study.state import Status, run_state
from tests.cli.commands import TINY, read_checkpoint
from tests.study.run_files import collect, planned_run, write_run, write_surface

pytestmark = pytest.mark.slow
CASES = 300
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, float("nan"), 10**30, "text", "", b"x", "a\nb", "os.system", ("x",)),
    *([], [1], {}, {"a": 1}, {1: 2}, {"class_path": "antigravity.X"}, {"class_path": "torch.optim.SGD"}),
    torch.zeros(2),
)


def refused(action: Callable[[], object]) -> bool:
    """Whether an action ends in one line; any other error fails the test."""
    try:
        action()
    except Exception as error:
        if not is_user_error(error):
            raise
        return True
    return False


def places(value: Any, depth: int = 5) -> Iterator[tuple[Any, ...]]:
    """The paths of keys to all parts of nested mappings and lists, up to a depth."""
    yield ()
    items: Any = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list | tuple) else items
    for key, part in items if depth else ():
        yield from ((key, *inner) for inner in places(part, depth - 1))


def mutated(value: Any, generator: random.Random) -> Any:
    """A copy in which a part is removed, added or something else."""
    result = copy.deepcopy(value)
    all_places = list(places(value))
    first = generator.choice(sorted({str(place[0]) for place in all_places if place}))
    place = generator.choice([place for place in all_places if place and str(place[0]) == first])
    if generator.random() < 0.03:
        return generator.choice(ODD)
    parent = result
    for key in place[:-1]:
        parent = parent[key]
    if isinstance(parent, tuple):
        return mutated(value, generator)
    what = generator.random()
    if what < 0.2:
        del parent[place[-1]]
    elif what < 0.3 and isinstance(parent, dict):
        parent[generator.choice(["x", 3, "_class_path"])] = generator.choice(ODD)
    else:
        parent[place[-1]] = generator.choice(ODD)
    return result


def damaged(content: bytes, generator: random.Random) -> bytes:
    """Bytes with a flipped bit, a zeroed or repeated block, or an end that is missing."""
    position, length = generator.randrange(len(content)), generator.choice([1, 8, 64, 512])
    what = generator.randrange(4)
    if what == 0:
        flipped = content[position] ^ 1 << generator.randrange(8)
        return content[:position] + bytes([flipped]) + content[position + 1 :]
    if what == 1:
        return content[:position] + bytes(length) + content[position + length :]
    if what == 2:
        return content[:position] + content[position : position + length] + content[position:]
    return content[:position]


def test_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.ERROR, logger="lightning.pytorch")
    folder = ["--trainer.default_root_dir=.", "--experiment=e", "--run=r"]
    reference = [*folder, "--trainer.accelerator=cpu", "--model.speed=reference"]
    main(["fit", *TINY, *reference, "--trainer.max_epochs=1", "--model.optimizer=Adam"])
    last, other = Path("e/r/checkpoints/last.ckpt"), Path("e/r/checkpoints/other.ckpt")
    whole, checkpoint = last.read_bytes(), read_checkpoint(last)
    generator = random.Random(0)
    count = 0
    for case in range(CASES):
        if case % 3:
            torch.save(mutated(checkpoint, generator), other)
        else:
            other.write_bytes(damaged(whole, generator))
        if case % 10 == 0:  # whole commands take a quarter of a second each
            command = generator.choice(["validate", "fit"])
            count += refused(lambda: main([command, f"--ckpt_path={other}", *reference, "--debug"]))  # noqa: B023
            last.write_bytes(whole)
        elif case % 3 == 0:
            count += refused(lambda: CellClassifier.load_from_checkpoint(other))
        else:
            count += refused(lambda: read_checkpoint_settings(other, resuming=True))
    assert CASES // 4 < count < CASES
    assert "antigravity" not in sys.modules


def test_analysis_files(tmp_path: Path) -> None:
    path = tmp_path / "loss_contour-epoch0004.nc"
    generator = random.Random(0)
    count = 0
    for case in range(CASES):
        write_surface(path, generator.choice(["loss_contour", "hessian_spectrum", "gradient_variance"]))
        dataset = read_dataset(path)
        if case % 3 == 0:  # without a checksum, as older versions wrote them
            dataset.to_netcdf(path, engine="scipy", format="NETCDF3_64BIT")
        if case % 3 < 2:
            path.write_bytes(damaged(path.read_bytes(), generator))
        else:
            write_dataset(path, odd_dataset(dataset, generator))
        count += refused(lambda: (read_surface(path), analysis_statistics(read_dataset(path))))
    assert CASES // 4 < count < CASES


def odd_dataset(dataset: xr.Dataset, generator: random.Random) -> xr.Dataset:
    """A dataset without one of its variables, with another type or shape of it, or with other attributes."""
    name = generator.choice(list(map(str, dataset.variables)))
    what = generator.randrange(5)
    if what == 0:
        return dataset.drop_vars(name)
    if what == 1 and name not in dataset.dims:
        return dataset.drop_vars(name).assign({name: ("other", [1.0, 2.0])})
    if what == 2 and name not in dataset.dims:
        return dataset.drop_vars(name).assign({name: "text"})
    if what == 3:
        return dataset.isel({dimension: slice(0, 1) for dimension in dataset.dims})
    attribute = generator.choice(list(dataset.attrs))
    return dataset.assign_attrs({attribute: generator.choice(["", "text", -1, 1e30])})


def test_states_of_runs(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "run")
    write_run(run.folder)
    for stem in ("loss_contour", "gradient_variance", "hessian_spectrum"):
        write_surface(run.folder / "landscape" / f"{stem}-epoch0004.nc", stem)
    files = sorted(path for path in run.folder.rglob("*") if path.is_file() and path.stat().st_size)
    generator = random.Random(0)
    states = []
    for case in range(CASES):
        path = generator.choice(files)
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, generator))
        states.append(run_state(run).status)
        if case % 5 == 0:
            results = collect(tmp_path, run)
            assert len(results.runs) == 1 or results.problems
            assert not any("\n" in problem for problem in results.problems)
        path.write_bytes(whole)
    assert len(set(states)) > 1
    assert Status.FAILED not in states


def test_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    values = [
        "",
        "0",
        "1",
        "2",
        "-1",
        "1.5",
        "abc",
        "9" * 30,
        "\u0663",
        "a\nb",
        "\udcff",
        "/",
        str(tmp_path),
        " 1",
    ]
    others = [
        "XDG_CACHE_HOME",
        "CUDA_VISIBLE_DEVICES",
        "SLURM_JOB_NAME",
        "SLURM_NODELIST",
        "MASTER_ADDR",
        "HOME",
    ]
    generator = random.Random(0)
    count = 0
    for case in range(CASES):
        with monkeypatch.context() as patch:
            for name in generator.sample([*NUMBERS, *others], generator.randint(1, 4)):
                patch.setenv(name, generator.choice(values))

            def read() -> None:
                check_launcher(os.environ)
                _get_rank()
                for environment in (SLURMEnvironment, TorchElasticEnvironment):
                    if environment.detect():
                        made = environment()
                        _ = made.global_rank(), made.local_rank(), made.node_rank(), made.world_size()
                cache_folder()
                visible_gpus({"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "")})

            count += refused(read)
            if case % 10 == 0:
                root = f"--trainer.default_root_dir={tmp_path}"
                assert refused(lambda: main(["fit", *TINY, root, "--trainer.max_epochs=0", "--debug"]))  # noqa: B023
    assert CASES // 4 < count < CASES
