"""The loss along random directions, and the numbers by which architectures are compared."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from nas_lightning.analysis import (
    Point,
    ProfileSurface,
    evaluate,
    loss_profile,
    measure_pending,
    new_profile,
    profile_scalars,
    random_direction,
    read_profile,
)
from nas_lightning.provenance import weights_hash
from tests.analysis.cases import make_batches, small_network

RADII = [0.0, 0.25, 0.5, 1.0]


def test_a_profile_is_the_loss_of_displaced_copies() -> None:
    network, batches = small_network(nn.BatchNorm2d(4), nn.ReLU()), make_batches()
    before = weights_hash(network.state_dict())
    profile = loss_profile(network, batches, RADII, [3, 7])
    assert weights_hash(network.state_dict()) == before
    assert profile["loss"].dims == ("direction_seed", "radius")
    for seed in (3, 7):
        direction = random_direction(network, seed)
        for radius in RADII:
            moved = copy.deepcopy(network)
            with torch.no_grad():
                for name, parameter in moved.named_parameters():
                    parameter.add_(direction[name], alpha=radius)
            loss, accuracy = evaluate(moved, batches)
            point = profile.sel(direction_seed=seed, radius=radius)
            assert float(point["loss"]) == pytest.approx(loss, rel=1e-12)
            assert float(point["accuracy"]) == accuracy
    assert profile.attrs["num_classes"] == 10
    assert profile.attrs["samples"] == 11


def profile_of(*losses: list[float], classes: int = 10) -> xr.Dataset:
    radii = np.linspace(0, 1, len(losses[0]))
    return xr.Dataset(
        {"loss": (("direction_seed", "radius"), np.array(losses))},
        {"direction_seed": list(range(len(losses))), "radius": radii},
        attrs={"num_classes": classes},
    )


def test_the_mean_rise_is_the_area_under_the_capped_rise() -> None:
    cap = math.log(10)
    rises = profile_scalars(
        profile_of(
            [0.5, 1.0, 1.5],  # linear: half of the last rise
            [0.5, 0.5, 0.5],
            [1.0, 0.5, 0.0],  # falls
            [0.0, 100.0, math.inf],
            [0.0, math.nan, math.nan],
            [9.0, 9.5, 10.0],  # above chance level: the cap is on the rise
            [math.nan, 1.0, 1.0],
        )
    )["mean_rise"].values
    assert rises[:-1] == pytest.approx([0.5, 0.0, -0.5, 0.75 * cap, 0.75 * cap, 0.5])
    assert math.isnan(rises[-1])
    finer = profile_scalars(profile_of([0.5, 0.75, 1.0, 1.25, 1.5]))["mean_rise"].values
    assert finer == pytest.approx([0.5])  # the number of radii does not matter


def test_the_radius_of_one_nat_is_where_the_loss_crosses() -> None:
    found = profile_scalars(
        profile_of(
            [0.5, 1.0, 2.0],
            [0.5, 0.6, 0.7],  # never
            [0.0, 0.5, math.inf],
            [0.0, math.nan, 3.0],
            [0.0, 1.0, 0.2],
            [math.inf, 1.0, 1.0],
        )
    )["one_nat_radius"].values
    assert found[:-1] == pytest.approx([0.75, 1.0, 0.5, 0.0, 0.5])
    assert math.isnan(found[-1])


def test_exploding_losses_have_finite_numbers() -> None:
    network, batches = small_network(), make_batches()
    profile = loss_profile(network.float(), [(x.float(), y) for x, y in batches], [0.0, 1e5, 1e20], [0, 1])
    assert not np.isfinite(profile["loss"].values).all()
    assert profile["mean_rise"].values == pytest.approx(math.log(10) * (0.25 + 0.5), rel=0.35)
    assert np.isfinite(profile["one_nat_radius"].values).all()


def value_at(point: Point) -> dict[str, float]:
    return {"loss": point.direction_seed + point.alpha**2, "accuracy": 1 - point.alpha}


@pytest.mark.parametrize("stop", [0, 3, 5])
def test_interrupted_and_continued_is_unbroken(tmp_path: Path, stop: int) -> None:
    def until_stop(point: Point) -> dict[str, float]:
        if len(measured) == stop:
            raise KeyboardInterrupt
        measured.append(point)
        return value_at(point)

    measured: list[Point] = []
    path, whole = tmp_path / "profile.nc", tmp_path / "whole.nc"
    profile = new_profile(RADII, [0, 2], {"num_classes": 10})
    with pytest.raises(KeyboardInterrupt):
        measure_pending(profile, until_stop, chunk_size=1, after_chunk=lambda surface: surface.save(path))
    profile = ProfileSurface.resume_or_create(path, new_profile(RADII, [0, 2], {"num_classes": 10}))
    assert profile.finished == stop
    measure_pending(profile, value_at)
    profile.attach({str(n): v for n, v in profile_scalars(profile.curves).data_vars.items()})
    profile.save(path)
    unbroken = new_profile(RADII, [0, 2], {"num_classes": 10})
    measure_pending(unbroken, value_at)
    unbroken.attach({str(n): v for n, v in profile_scalars(unbroken.curves).data_vars.items()})
    unbroken.save(whole)
    assert path.read_bytes() == whole.read_bytes()
    found = read_profile(path)
    assert found["loss"].dims == ("direction_seed", "radius")
    assert found["loss"].sel(direction_seed=2, radius=0.5) == 2.25
    again = ProfileSurface.resume_or_create(path, new_profile(RADII, [0, 2], {"num_classes": 10}))
    assert again.complete
    assert again.dataset["mean_rise"].dims == ("direction_seed",)


@pytest.mark.parametrize(
    ("radii", "seeds", "attributes", "message"),
    [
        (
            [0.0, 0.5, 1.0],
            [0, 2],
            {"num_classes": 10},
            "`radius` is 3 steps from 0 to 1, the file has 4 steps",
        ),
        (RADII, [0, 1], {"num_classes": 10}, "`direction_seed`"),
        (RADII, [0, 2], {"num_classes": 3}, "`num_classes` is 3, the file has 10"),
    ],
)
def test_a_file_of_another_profile_is_refused(
    tmp_path: Path, radii: list[float], seeds: list[int], attributes: dict[str, int], message: str
) -> None:
    path = tmp_path / "profile.nc"
    new_profile(RADII, [0, 2], {"num_classes": 10}).save(path)
    with pytest.raises(ValueError, match=message):
        ProfileSurface.resume_or_create(path, new_profile(radii, seeds, attributes))


def test_damaged_files_and_radii_out_of_range_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "profile.nc"
    path.write_bytes(b"CDF")
    with pytest.raises(ValueError, match="is not an analysis file, or it is damaged"):
        read_profile(path)
    xr.Dataset(attrs={"kind": "loss_profile"}).to_netcdf(path, engine="scipy")
    with pytest.raises(ValueError, match="is not a loss profile, or it is damaged: `loss`"):
        read_profile(path)
    for radii in ([0.0], [0.5, 1.0], [-1.0, 0.0]):
        with pytest.raises(ValueError, match="must be two or more, from 0"):
            new_profile(radii, [0], {})
