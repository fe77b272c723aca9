"""Surfaces that are measured, shared, killed and continued: the same numbers, the same bytes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
import xarray as xr

from nas_lightning.analysis.grid import axis
from nas_lightning.analysis.surface import Point, Surface, finest_lattice, measure_pending, read_surface

VARIABLES = {"loss": {"long_name": "mean cross entropy", "units": "nat"}, "accuracy": {"units": "1"}}


ATTRIBUTES: dict[str, str | int | float] = {
    "weights_sha256": "12ab" * 16,
    "genotype": "Genotype(normal=[('é', 0)])",
    "samples": 256,
    "epsilon": 0.1,
    "versions": "torch 1",
    "nothing": "",
    "unknown": math.nan,
}


SPECIAL = {(-1.0, -1.0): math.nan, (1.0, 1.0): math.inf, (0.0, 0.0): -math.inf, (-1.0, 1.0): -0.0}


def fresh(rows: int = 5, columns: int = 6, **changes: str | int | float) -> Surface:
    steps = axis(rows, 1.0), axis(columns, (-1.0, 1.0))
    return Surface.create("loss_contour", VARIABLES, *steps, [3, -1], ATTRIBUTES | changes)


def measure(point: Point) -> dict[str, float]:
    loss = SPECIAL.get((point.alpha, point.beta), point.direction_seed + point.alpha / 3 + 1e-30 * point.beta)
    return {"loss": loss, "accuracy": -loss / 7}


def with_center(surface: Surface) -> Surface:
    surface.attach(
        {
            "cosine": xr.DataArray([0.25, math.nan], dims="direction_seed"),
            "variance_by_node": xr.DataArray(
                [[1.0, math.nan], [math.inf, 2.0]],
                dims=("cell", "node"),
                coords={"cell": [0, 1], "node": ["preprocess", "2"]},
            ),
            "center_variance": xr.DataArray(3.5),
        }
    )
    return surface


def filled() -> Surface:
    surface = fresh()
    measure_pending(surface, measure)
    return surface


def test_a_picture_is_the_finest_sub_grid_without_holes() -> None:
    surface = fresh(9, 9)
    assert finest_lattice(surface.dataset) is None
    sizes = []
    for point in surface.pending():
        surface.record(point, measure(point))
        picture = finest_lattice(surface.dataset, point.direction_seed)
        if picture is None:
            continue
        sizes.append(picture["loss"].shape[0])
        assert set(picture.data_vars) == {"loss", "accuracy"}
        assert picture["loss"].dims == ("alpha", "beta")
        for alpha in picture["alpha"].values.tolist():
            for beta in picture["beta"].values.tolist():
                expected = measure(Point(point.direction_seed, alpha, beta, (0, 0, 0)))
                np.testing.assert_equal(
                    picture.sel(alpha=alpha, beta=beta)["loss"].item(), expected["loss"] + 0.0
                )
    assert sizes == 2 * ([3] * (25 - 9) + [5] * (81 - 25) + [9])
    # The order of the points is not presumed: one hole in the coarsest lattice, and there is no picture.
    surface.dataset["done"].values[0, 0, 0] = 0
    assert finest_lattice(surface.dataset, 3) is None
    last = finest_lattice(surface.dataset, -1)
    assert last is not None
    assert last["loss"].shape == (9, 9)
    with pytest.raises(ValueError, match=r"`direction_seed` \(=7\) must be one of \[3, -1\]"):
        finest_lattice(surface.dataset, 7)


def test_a_surface_knows_what_is_done() -> None:
    surface = fresh()
    assert (surface.finished, surface.total, surface.complete) == (0, 60, False)
    first = surface.pending()[0]
    assert first == Point(3, -1.0, -1.0, (0, 0, 0))
    surface.record(first, {"loss": math.nan, "accuracy": math.inf})
    assert surface.finished == 1
    assert first not in surface.pending()
    assert [point.direction_seed for point in surface.pending()] == [3] * 29 + [-1] * 30
    with pytest.raises(ValueError, match=r"the surface holds \['accuracy', 'loss'\], not \['loss'\]"):
        surface.record(first, {"loss": 1.0})
    measure_pending(surface, measure)
    assert surface.complete
    assert math.isnan(surface.dataset["loss"].values[0, 0, 0])  # what is done is not measured again


def test_values_survive_the_file(tmp_path: Path) -> None:
    surface = with_center(filled())
    surface.save(tmp_path / "deep" / "surface.nc")
    read = read_surface(tmp_path / "deep" / "surface.nc")
    xr.testing.assert_identical(read, surface.dataset)
    values = read["loss"].sel(direction_seed=-1)
    assert math.isnan(values.sel(alpha=-1, beta=-1))
    assert values.sel(alpha=1, beta=1) == math.inf
    assert read["done"].dtype == np.int8
    assert all(
        "_FillValue" not in v.attrs and "_FillValue" not in v.encoding for v in read.variables.values()
    )
    assert type(read.attrs["samples"]) is int
    # Half-filled: what is not measured is told apart from what was measured as not a number.
    half = fresh()
    half.record(half.pending()[0], {"loss": math.nan, "accuracy": math.nan})
    half.save(tmp_path / "half.nc")
    read = read_surface(tmp_path / "half.nc")
    assert np.isnan(read["loss"].values).all()
    assert read["done"].values.sum() == 1


@pytest.mark.parametrize("stop", [1, 9, 30, 59])
@pytest.mark.parametrize("chunk_size", [1, 7])
def test_interrupted_and_continued_is_unbroken(tmp_path: Path, stop: int, chunk_size: int) -> None:
    path, unbroken = tmp_path / "surface.nc", tmp_path / "unbroken.nc"
    with_center(filled()).save(unbroken)
    measured: list[Point] = []

    def until_stop(point: Point) -> dict[str, float]:
        if len(measured) == stop:
            raise KeyboardInterrupt
        measured.append(point)
        return measure(point)

    with pytest.raises(KeyboardInterrupt):
        measure_pending(
            with_center(fresh()), until_stop, chunk_size=chunk_size, after_chunk=lambda s: s.save(path)
        )
    resumed = Surface.resume_or_create(path, with_center(fresh()))
    assert resumed.finished == stop // chunk_size * chunk_size
    measure_pending(resumed, measure, chunk_size=4, after_chunk=lambda s: s.save(path))
    assert path.read_bytes() == unbroken.read_bytes()
    assert Surface.resume_or_create(path, fresh()).complete


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda: fresh(weights_sha256="34cd" * 16),
            r"`weights_sha256` is '34cd[34cd]*\.\.\.'?, the file has '12ab",
        ),
        (
            lambda: fresh(genotype=f"{ATTRIBUTES['genotype']}, reduce"),
            r"`genotype` is \"...\('é', 0\)\]\), reduce\", the file has \"...\('é', 0\)\]\)\"",
        ),
        (lambda: fresh(samples=128), r"`samples` is 128, the file has 256"),
        (lambda: fresh(batch_norm="frozen"), r"`batch_norm` is 'frozen', the file has 'missing'"),
        (lambda: fresh(7), r"`alpha` is 7 steps from -1.0 to 1.0, the file has 5 steps from"),
        (lambda: fresh(5, 7), r"`beta` is 7 steps"),
        (
            lambda: Surface.create("loss_contour", VARIABLES, axis(5, 1), axis(6, 1), [3, 2], ATTRIBUTES),
            r"`direction_seed` is \[3, 2\], the file has \[3, -1\]",
        ),
        (
            lambda: Surface.create("other", VARIABLES, axis(5, 1), axis(6, 1), [3, -1], ATTRIBUTES),
            r"`kind` is 'other', the file has 'loss_contour'",
        ),
        (
            lambda: Surface.create("loss_contour", {"loss": {}}, axis(5, 1), axis(6, 1), [3, -1], ATTRIBUTES),
            r"`variables` is \['loss'\], the file has \['accuracy', 'loss'\]",
        ),
    ],
)
def test_a_file_of_another_surface_is_refused(
    tmp_path: Path, other: Callable[[], Surface], message: str
) -> None:
    path = tmp_path / "surface.nc"
    filled().save(path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=message) as caught:
        Surface.resume_or_create(path, other())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert path.read_bytes() == content


def test_versions_do_not_decide_and_attached_variables_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "surface.nc"
    surface = fresh()
    surface.attach({"cosine": xr.DataArray([0.1, 0.2], dims="direction_seed")})
    surface.save(path)
    other = fresh(versions="torch 2", device="cuda")
    other.attach({"cosine": xr.DataArray([9.0, 9.0], dims="direction_seed"), "extra": xr.DataArray(1.5)})
    resumed = Surface.resume_or_create(path, other)
    assert resumed.dataset.attrs["versions"] == "torch 1"
    assert resumed.dataset["cosine"].values.tolist() == [0.1, 0.2]
    assert resumed.dataset["extra"].item() == 1.5
    with pytest.raises(ValueError, match="`bad` lies on the grid"):
        resumed.attach({"bad": xr.DataArray(np.zeros(5), dims="alpha")})
    assert Surface.resume_or_create(tmp_path / "none.nc", other) is other


def test_damaged_and_foreign_files_are_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "surface.nc"
    surface = fresh(3, 3)
    surface.save(path)
    content = path.read_bytes()
    foreign = xr.Dataset({"done": ("x", np.zeros(3, np.int8))}).to_netcdf(engine="scipy")
    contents = [content[:length] for length in range(0, len(content), 13)]
    contents += [b"\x89HDF\r\n\x1a\n" + bytes(500), b"PK\x03\x04 zip", os.urandom(300), bytes(foreign)]
    contents += [b"CDF\x02" + os.urandom(200) for _ in range(20)]
    for damaged in contents:
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is not an? ") as caught:
            Surface.resume_or_create(path, fresh(3, 3))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == damaged
    with pytest.raises(FileNotFoundError, match=r"none\.nc"):
        read_surface(tmp_path / "none.nc")
    surface.dataset["done"].values[0, 0, 0] = 2
    surface.save(path)
    with pytest.raises(ValueError, match="`done` is not 0 or 1 over the grid"):
        read_surface(path)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write"):
        filled().save(tmp_path / "file" / "surface.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("seeds", "attributes", "message"),
    [
        ([], {}, r"`direction_seeds` \(=\[\]\)"),
        ([1, 1], {}, r"`direction_seeds` \(=\[1, 1\]\) must be a list of different"),
        ([2**31], {}, r"`direction_seeds` \(=2147483648\) must fit into 32 bits"),
        ([0], {"data_seed": 2**40}, r"`data_seed` \(=1099511627776\) must fit into 32 bits"),
        ([0], {"alphas": [1, 0]}, r"`alphas` \(=\[1.0, 0.0\]\) must be finite, increasing"),
    ],
)
def test_create_refuses(seeds: list[int], attributes: dict[str, int], message: str) -> None:
    attributes = dict(attributes)
    alphas = attributes.pop("alphas", axis(3, 1))
    with pytest.raises(ValueError, match=message):
        Surface.create("loss_contour", VARIABLES, alphas, axis(3, 1), seeds, attributes)  # type: ignore[arg-type]


def test_fill_refuses() -> None:
    with pytest.raises(ValueError, match=r"`chunk_size` \(=0\)"):
        measure_pending(fresh(), measure, chunk_size=0)
    with pytest.raises(ValueError, match=r"`rank` \(=2\) must be at least 0 and below `world_size` \(=2\)"):
        measure_pending(fresh(), measure, rank=2, world_size=2)
    with pytest.raises(ValueError, match="needs `reduce`"):
        measure_pending(fresh(), measure, world_size=2)
    with pytest.raises(ValueError, match=r"not \['loss'\]"):
        measure_pending(fresh(), lambda point: {"loss": 1.0})


@pytest.mark.parametrize("world_size", [1, 2, 5, 17])
@pytest.mark.parametrize("chunk_size", [1, 4, 16])
def test_ranks_share_the_points(world_size: int, chunk_size: int) -> None:
    size = math.ceil(chunk_size / world_size) * world_size
    barrier = threading.Barrier(world_size, timeout=30)
    arrays: dict[int, np.ndarray] = {}
    surfaces = [fresh() for _ in range(world_size)]
    own: list[list[Point]] = [[] for _ in range(world_size)]
    finished: list[list[int]] = [[] for _ in range(world_size)]

    def work(rank: int) -> None:
        def reduce(array: np.ndarray) -> np.ndarray:
            arrays[rank] = array
            barrier.wait()
            total = np.sum([arrays[other] for other in range(world_size)], axis=0)
            barrier.wait()
            return np.asarray(total)

        def measured(point: Point) -> dict[str, float]:
            own[rank].append(point)
            return measure(point)

        measure_pending(
            surfaces[rank],
            measured,
            rank=rank,
            world_size=world_size,
            reduce=reduce,
            chunk_size=chunk_size,
            after_chunk=lambda surface: finished[rank].append(surface.finished),
        )

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one = filled()
    for surface, counts in zip(surfaces, finished, strict=True):
        xr.testing.assert_identical(surface.dataset, one.dataset)
        assert counts == [*range(size, 60, size), 60]
    pending = fresh().pending()
    assert [pending.index(point) for point in own[0]] == list(range(0, 60, world_size))
    assert sorted(pending.index(point) for points in own for point in points) == list(range(60))


def distributed_worker(rank: int, folder: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)

    def reduce(array: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(array)
        dist.all_reduce(tensor)
        return tensor.numpy()

    surface = Surface.resume_or_create(f"{folder}/begun.nc", fresh())
    measure_pending(surface, measure, rank=rank, world_size=2, reduce=reduce, chunk_size=5)
    surface.save(f"{folder}/{rank}.nc")
    dist.destroy_process_group()


def test_two_processes_continue_what_one_began(tmp_path: Path) -> None:
    begun = fresh()
    for point in begun.pending()[:13]:
        begun.record(point, measure(point))
    begun.save(tmp_path / "begun.nc")
    multiprocessing.spawn(distributed_worker, args=(str(tmp_path),), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    filled().save(tmp_path / "one.nc")
    for rank in (0, 1):
        assert (tmp_path / f"{rank}.nc").read_bytes() == (tmp_path / "one.nc").read_bytes()


KILLED = """
import sys, time
from tests.analysis.test_surface import measure_pending, fresh, measure

def slowly(point):
    time.sleep(0.03)
    return measure(point)

measure_pending(fresh(), slowly, chunk_size=2, after_chunk=lambda surface: surface.save(sys.argv[1]))
"""


def test_a_killed_process_leaves_a_file_to_continue(tmp_path: Path) -> None:
    path = tmp_path / "surface.nc"
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], cwd=root)
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    surface = Surface.resume_or_create(path, fresh())
    assert 0 < surface.finished < surface.total
    measure_pending(surface, measure)
    surface.save(path)
    filled().save(tmp_path / "unbroken.nc")
    assert path.read_bytes() == (tmp_path / "unbroken.nc").read_bytes()
