from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from nas_lightning.analysis.surface_scalars import RINGS, loss_scalars, spread, variance_scalars

Function = Callable[[np.ndarray, np.ndarray], np.ndarray]


def surface(
    function: Function, resolution: int = 51, variable: str = "loss", extent: float = 1.0
) -> xr.Dataset:
    axis = np.linspace(-extent, extent, resolution)
    field = np.broadcast_to(function(axis[:, None], axis[None, :]), (resolution, resolution))
    return xr.Dataset({variable: (("alpha", "beta"), field.copy())}, {"alpha": axis, "beta": axis})


def values(scalars: xr.Dataset) -> dict[str, float]:
    return {str(name): float(value) for name, value in scalars.items()}


def bowl(steepness: float, flatness: float | None = None) -> Function:
    other = steepness if flatness is None else flatness
    return lambda a, b: 0.3 + steepness * a**2 + other * b**2


def test_a_round_bowl() -> None:
    # s - s(0) = 4 r^2 reaches 1 at r = 1/2; the region is a disc in a square of area 4.
    scalars = values(loss_scalars(surface(bowl(4.0), 101)))
    assert scalars["near_convex_radius"] == pytest.approx(0.5, abs=1e-3)
    assert scalars["near_convex_share"] == pytest.approx(math.pi * 0.5**2 / 4, rel=0.02)
    assert scalars["convexity_ratio"] == scalars["convexity_ratio_square"] == 1
    for name in ("curvature_center", "curvature_center_max", "curvature_mean", "curvature_max"):
        assert scalars[name] == pytest.approx(8, rel=1e-9)


def test_the_region_grows_with_the_rise_as_its_root() -> None:
    for rise in (0.25, 1, 2.25):
        scalars = values(loss_scalars(surface(bowl(4.0), 101), rise))
        assert scalars["near_convex_radius"] == pytest.approx(math.sqrt(rise) / 2, abs=1e-3)
        assert scalars["near_convex_share"] == pytest.approx(math.pi * rise / 16, rel=0.03)


def test_an_elongated_bowl() -> None:
    # Half axes 1/4 and 1/2: the disc has the smaller one, the share is the ellipse's.
    scalars = values(loss_scalars(surface(bowl(16.0, 4.0), 101)))
    assert scalars["near_convex_radius"] == pytest.approx(0.25, abs=2e-3)
    assert scalars["near_convex_share"] == pytest.approx(math.pi * 0.25 * 0.5 / 4, rel=0.03)
    assert scalars["curvature_center"] == pytest.approx((32 + 8) / 2)
    assert scalars["curvature_center_max"] == pytest.approx(32)
    assert scalars["curvature_mean"] == pytest.approx((32 + 8) / 2)
    assert scalars["curvature_max"] == pytest.approx(32)


@pytest.mark.parametrize("resolution", [25, 51, 101, 26, 52, 102])
def test_values_converge_with_the_resolution(resolution: int) -> None:
    step = 2 / (resolution - 1)
    scalars = values(loss_scalars(surface(bowl(4.0), resolution)))
    # Bilinear interpolation errs by at most 2 step^2, on an even grid at the centre too; the slope at the
    # crossing is 4. The share errs by less than half a step all around.
    assert abs(scalars["near_convex_radius"] - 0.5) < 1.5 * step**2
    assert abs(scalars["near_convex_share"] - math.pi / 16) < math.pi / 4 * step / 2
    assert scalars["curvature_center"] == pytest.approx(8, rel=1e-9)


def test_a_bowl_wider_than_the_square_fills_it() -> None:
    scalars = values(loss_scalars(surface(bowl(0.4), 21)))
    assert scalars["near_convex_share"] == 1
    assert scalars["near_convex_radius"] == 1  # at least the distance to the border


def test_the_corners_count_for_the_share_but_not_for_the_radius() -> None:
    # Beyond the rise outside of |a| + |b| <= 1.5: the corners are cut, the disc of radius 1 is whole.
    scalars = values(loss_scalars(surface(lambda a, b: 10.0 * (np.abs(a) + np.abs(b) > 1.5), 201)))
    assert scalars["near_convex_share"] == pytest.approx(1 - 4 * 0.125 / 4, abs=0.01)
    assert scalars["near_convex_radius"] == pytest.approx(1, abs=1e-9)
    scalars = values(loss_scalars(surface(lambda a, b: 10.0 * (np.abs(a) + np.abs(b) > 1.2), 201)))
    assert scalars["near_convex_radius"] == pytest.approx(1.2 / math.sqrt(2), abs=0.01)


def test_a_saddle_is_nowhere_convex() -> None:
    scalars = values(loss_scalars(surface(lambda a, b: 3 * a**2 - 2 * b**2)))
    assert scalars["convexity_ratio"] == scalars["convexity_ratio_square"] == 0
    assert scalars["curvature_center"] == pytest.approx(1)
    assert scalars["curvature_center_max"] == pytest.approx(6)
    assert scalars["curvature_mean"] == pytest.approx(5)  # absolute values
    # Downhill along beta the region goes on to the border, along alpha it ends at sqrt(1/3).
    assert scalars["near_convex_radius"] == pytest.approx(math.sqrt(1 / 3), abs=1e-3)


def test_a_saddle_along_the_diagonals_needs_the_mixed_difference() -> None:
    scalars = values(loss_scalars(surface(lambda a, b: a**2 + b**2 + 4 * a * b)))
    assert scalars["convexity_ratio_square"] == 0
    scalars = values(loss_scalars(surface(lambda a, b: a**2 + b**2 + 1.9 * a * b)))
    assert scalars["convexity_ratio_square"] == 1


def test_a_valley_is_convex_up_to_rounding() -> None:
    def valley(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        loss: np.ndarray = (2.3 + 5 * (a + b) ** 2).astype(np.float32).astype(np.float64)
        return loss

    scalars = values(loss_scalars(surface(valley)))
    assert scalars["convexity_ratio_square"] == 1


def test_convexity_is_that_of_the_region_or_of_the_square() -> None:
    # 1 - cos(pi r): convex up to r = 1/2 along a radius, where it has risen by 1; concave beyond.
    def ripple(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        loss: np.ndarray = 1 - np.cos(math.pi * np.hypot(a, b))
        return loss

    scalars = values(loss_scalars(surface(ripple, 201), 0.98))
    assert scalars["near_convex_radius"] == pytest.approx(math.acos(0.02) / math.pi, abs=1e-3)
    assert scalars["convexity_ratio"] == 1
    # Across a radius the curvature is slope / r, negative beyond r = 1: only the disc r < 1/2 is convex.
    assert scalars["convexity_ratio_square"] == pytest.approx(math.pi * 0.25 / 4, rel=0.05)
    assert scalars["curvature_max"] == pytest.approx(math.pi**2, rel=1e-3)
    assert scalars["curvature_mean"] == pytest.approx(2 * math.pi, rel=0.02)  # mean of pi^2 |cos|


def test_a_second_basin_does_not_count() -> None:
    def basins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        loss: np.ndarray = np.minimum(25 * (a**2 + b**2), 25 * ((a - 0.7) ** 2 + b**2))
        return loss

    scalars = values(loss_scalars(surface(basins, 201)))
    assert scalars["near_convex_share"] == pytest.approx(math.pi * 0.04 / 4, rel=0.03)
    assert scalars["near_convex_radius"] == pytest.approx(0.2, abs=1e-3)


def test_basins_that_touch_at_a_corner_only_are_two() -> None:
    loss = np.full((5, 5), 9.0)
    loss[2, 2] = loss[3, 3] = 0.0
    dataset = surface(lambda a, b: 0 * a, 5)
    dataset["loss"][:] = loss
    scalars = values(loss_scalars(dataset))
    assert scalars["near_convex_share"] == 1 / 16


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_points_that_are_not_finite_are_outside_and_not_convex(bad: float) -> None:
    # A plateau whose half a >= 0.4 was not computable.
    scalars = values(loss_scalars(surface(lambda a, b: np.where(a > 0.39, bad, 1.0) + 0 * b, 21)))
    # 14 of 21 columns, the first of them with half the area of others.
    assert scalars["near_convex_share"] == pytest.approx(13.5 / 20)
    # The cell from the last finite point, 0.3, on is beyond at once, up to a step of the ray.
    assert scalars["near_convex_radius"] == pytest.approx(0.3, abs=0.1 / 16)
    # Of 19 x 19 interior points 13 columns are in the region; the last has neighbours that are not finite.
    assert scalars["convexity_ratio"] == pytest.approx(12 / 13)
    assert scalars["convexity_ratio_square"] == pytest.approx(12 / 19)
    assert scalars["curvature_center"] == 0
    assert not math.isfinite(scalars["curvature_mean"])
    assert not math.isfinite(scalars["curvature_max"])


def test_an_infinite_corner_is_no_convex_neighbour() -> None:
    dataset = surface(bowl(4.0), 5)
    dataset["loss"][0, 0] = math.inf
    scalars = values(loss_scalars(dataset))
    assert scalars["convexity_ratio_square"] == pytest.approx(8 / 9)
    assert math.isfinite(scalars["curvature_max"])  # not on an axis


def test_points_beside_the_axes_do_not_reach_them() -> None:
    dataset = surface(bowl(4.0), 5)
    dataset["loss"][1, 1] = math.nan
    scalars = values(loss_scalars(dataset))
    assert scalars["curvature_mean"] == pytest.approx(8)
    assert scalars["near_convex_radius"] == pytest.approx(0, abs=0.5 / 16)  # a corner of a cell at the centre


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_centre_keeps_its_loss_beside_points_that_are_not_finite(bad: float) -> None:
    dataset = surface(lambda a, b: 1000.0 * ((a != 0) | (b != 0)), 5)
    dataset["loss"][3, 3] = bad
    scalars = values(loss_scalars(dataset))
    assert scalars["near_convex_share"] == 1 / 16
    assert scalars["near_convex_radius"] == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_without_a_loss_at_the_centre_there_is_no_region(bad: float) -> None:
    scalars = values(loss_scalars(surface(lambda a, b: np.where((a == 0) & (b == 0), bad, 1.0), 5)))
    for name in ("near_convex_share", "near_convex_radius", "convexity_ratio"):
        assert math.isnan(scalars[name])
    assert not math.isfinite(scalars["curvature_center"])
    assert scalars["convexity_ratio_square"] == 0


def rugged(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    loss: np.ndarray = (
        3 * a**2 + 2 * b**2 + 0.8 * a * b + 0.4 * np.sin(7 * a + 1) * np.cos(5 * b - 0.3) + a**3
    )
    return loss


@pytest.mark.parametrize("resolution", [20, 21])
def test_swapped_and_mirrored_axes_change_nothing(resolution: int) -> None:
    expected = values(loss_scalars(surface(rugged, resolution)))
    assert 0 < expected["convexity_ratio"] < 1
    changed: list[Function] = [
        lambda a, b: rugged(b, a),
        lambda a, b: rugged(-a, b),
        lambda a, b: rugged(a, -b),
    ]
    for function in changed:
        assert values(loss_scalars(surface(function, resolution))) == pytest.approx(expected, rel=1e-9)


def test_stretched_axes_scale_lengths_and_curvatures() -> None:
    expected = values(loss_scalars(surface(rugged, 21)))
    stretched = values(loss_scalars(surface(lambda a, b: rugged(a / 3, b / 3), 21, extent=3.0)))
    for name, value in stretched.items():
        factor = 3 if name == "near_convex_radius" else 1 / 9 if name.startswith("curvature") else 1
        assert value == pytest.approx(factor * expected[name], rel=1e-9)


def test_uneven_steps_give_exact_curvatures_and_areas() -> None:
    alphas, betas = np.array([-1, -0.7, -0.2, 0.1, 0.4, 1.0]), np.array([-2, -0.5, 0, 1, 2.0])
    loss = 4 * alphas[:, None] ** 2 + 0.1 * betas**2
    dataset = xr.Dataset({"loss": (("alpha", "beta"), loss)}, {"alpha": alphas, "beta": betas})
    scalars = values(loss_scalars(dataset, 1.5))
    assert scalars["curvature_max"] == pytest.approx(8)
    assert scalars["curvature_center"] == pytest.approx((8 + 0.2) / 2)
    # Interpolated, the loss at the centre is 4 (0.1^2 2/3 + 0.2^2 1/3) = 0.08. Within 1.5 of it are the
    # points from -0.2 to 0.4, which stand for -0.45 to 0.7, at every beta.
    assert scalars["near_convex_share"] == pytest.approx(1.15 / 2)


def test_the_smallest_grids() -> None:
    two = values(loss_scalars(surface(bowl(4.0), 2)))
    assert two["near_convex_share"] == 1  # all four points are equally near
    assert math.isnan(two["convexity_ratio"])
    assert math.isnan(two["curvature_mean"])
    three = values(loss_scalars(surface(bowl(4.0), 3)))
    assert three["convexity_ratio"] == 1
    assert three["curvature_center"] == pytest.approx(8)


def test_variance_rings_of_a_paraboloid() -> None:
    # The mean of r^2 over r0 < r <= r1 is (r0^2 + r1^2) / 2, of r it is 2/3 (r1^3 - r0^3) / (r1^2 - r0^2).
    dataset = surface(lambda a, b: 9 * (a**2 + b**2), 401, "variance")
    scalars = variance_scalars(dataset)
    assert float(scalars["variance_center"]) == 0
    inner = np.array([0.0, 0.25, 0.5, 0.75])
    outer = np.array(RINGS)
    np.testing.assert_array_equal(scalars["ring"], outer)
    np.testing.assert_allclose(scalars["variance_ring"], 9 * (inner**2 + outer**2) / 2, rtol=5e-3)
    radius = 2 / 3 * (outer**3 - inner**3) / (outer**2 - inner**2)
    np.testing.assert_allclose(scalars["standard_deviation_ring"], 3 * radius, rtol=5e-3)


def test_rings_are_in_units_of_the_extent_and_hold_their_outer_circle() -> None:
    # Steps of 0.5: the points at distance 1, the outer circle of ring 2, are 1; those beyond are 2.
    dataset = surface(lambda a, b: 1.0 + (np.hypot(a, b) > 1.01), 9, "variance", extent=2.0)
    scalars = variance_scalars(dataset)
    np.testing.assert_allclose(scalars["variance_ring"], [1, 1, 2, 2])
    assert float(scalars["standard_deviation_ring"][2]) == pytest.approx(math.sqrt(2))


def test_rounded_distances_stay_in_their_ring() -> None:
    # In float64 (0.3, 0.4) of this grid lies beyond 0.5.
    dataset = surface(lambda a, b: 1.0 * (np.hypot(a, b) > 0.501), 21, "variance")
    assert np.hypot(dataset["alpha"][13], dataset["beta"][14]) > 0.5
    np.testing.assert_array_equal(variance_scalars(dataset)["variance_ring"], [0, 0, 1, 1])


def test_ring_of_a_coarse_grid_without_points_is_nan() -> None:
    scalars = variance_scalars(surface(lambda a, b: 4.0 + 0 * a * b, 3, "variance"))
    np.testing.assert_array_equal(scalars["variance_ring"], [math.nan, math.nan, math.nan, 4.0])
    assert float(scalars["standard_deviation_center"]) == 2


def test_a_ring_with_a_point_that_is_not_finite_is_not_finite() -> None:
    dataset = surface(lambda a, b: 1.0 + 0 * a * b, 21, "variance")
    dataset["variance"][14, 10] = math.inf  # alpha 0.4
    dataset["variance"][3, 10] = math.nan  # alpha -0.7
    dataset["variance"][0, 0] = math.nan  # a corner, in no ring
    ring = variance_scalars(dataset)["variance_ring"].to_numpy()
    np.testing.assert_array_equal(ring, [1, math.inf, math.nan, 1])


def seeds(*factors: float) -> xr.Dataset:
    surfaces = [surface(bowl(4.0 * factor), 21) for factor in factors]
    dataset = xr.concat(surfaces, "direction_seed").assign_coords(direction_seed=range(3, 3 + len(factors)))
    dataset.attrs["title"] = "darts_v2"
    return dataset


def test_every_direction_seed_has_its_value() -> None:
    scalars = loss_scalars(seeds(1, 2, 4))
    np.testing.assert_array_equal(scalars["direction_seed"], [3, 4, 5])
    np.testing.assert_allclose(scalars["curvature_center"], [8, 16, 32])
    for factor, seed in zip((1, 2, 4), (3, 4, 5), strict=True):
        alone = loss_scalars(surface(bowl(4.0 * factor), 21))
        assert values(scalars.sel(direction_seed=seed)) == values(alone)
    assert scalars.attrs == {"title": "darts_v2", "loss_rise": 1.0}
    assert scalars["curvature_center"].attrs["units"] == "nat alpha-2"
    assert all({"long_name", "units"} <= set(variable.attrs) for variable in scalars.values())


def test_the_order_of_dimensions_does_not_matter() -> None:
    dataset = seeds(1, 2).isel(alpha=slice(4, None))
    xr.testing.assert_identical(
        loss_scalars(dataset), loss_scalars(dataset.transpose("beta", "direction_seed", "alpha"))
    )


def test_spread_is_that_of_a_sample() -> None:
    scalars = spread(loss_scalars(seeds(1, 2, 4)))
    curvature = scalars["curvature_center"]
    np.testing.assert_allclose(curvature.sel(statistic="mean"), (8 + 16 + 32) / 3)
    np.testing.assert_allclose(curvature.sel(statistic="standard_deviation"), np.std([8, 16, 32], ddof=1))
    assert curvature.attrs["units"] == "nat alpha-2"
    assert scalars.attrs["direction_seeds"] == 3


def test_spread_of_rings_keeps_what_is_not_finite() -> None:
    surfaces = [surface(lambda a, b: 1.0 + 0 * a * b, 21, "variance") * factor for factor in (1, 3)]
    dataset = xr.concat(surfaces, "direction_seed").assign_coords(direction_seed=[0, 1])
    dataset["variance"][1, 10, 11] = math.inf  # in the first ring
    scalars = spread(variance_scalars(dataset))["variance_ring"].transpose("statistic", "ring")
    assert scalars.sel(statistic="mean").to_numpy() == pytest.approx([math.inf, 2, 2, 2])
    deviation = scalars.sel(statistic="standard_deviation").to_numpy()
    assert math.isnan(deviation[0])
    np.testing.assert_allclose(deviation[1:], math.sqrt(2))


@pytest.mark.parametrize("dataset", [seeds(2), surface(bowl(8.0), 21)], ids=["one seed", "no dimension"])
def test_one_seed_has_no_spread(dataset: xr.Dataset) -> None:
    scalars = spread(loss_scalars(dataset))
    assert float(scalars["curvature_center"].sel(statistic="mean")) == pytest.approx(16)
    assert math.isnan(float(scalars["curvature_center"].sel(statistic="standard_deviation")))


@pytest.mark.parametrize("rise", [0, -1, math.nan, math.inf])
def test_a_rise_that_is_none_is_refused(rise: float) -> None:
    with pytest.raises(ValueError, match=r"`loss_rise` \(=.*\) must be a number of nats above 0"):
        loss_scalars(surface(bowl(1.0), 3), rise)


def test_other_datasets_are_refused() -> None:
    with pytest.raises(ValueError, match="has no variable `variance`, it has loss"):
        variance_scalars(surface(bowl(1.0), 3))
    with pytest.raises(ValueError, match="at most direction_seed are needed"):
        loss_scalars(surface(bowl(1.0), 3).expand_dims("epoch"))
    with pytest.raises(ValueError, match=r"`alpha` \(from 0.5 to 1\) must increase from below 0 to above 0"):
        loss_scalars(surface(bowl(1.0), 5).isel(alpha=slice(3, None)))
    with pytest.raises(ValueError, match=r"`beta` \(from 1 to -1\)"):
        loss_scalars(surface(bowl(1.0), 5).isel(beta=slice(None, None, -1)))
    unfinished = seeds(1, 2)
    unfinished["done"] = xr.ones_like(unfinished["loss"], dtype=np.int8)
    assert loss_scalars(unfinished)["curvature_max"].shape == (2,)
    unfinished["done"][1, 2, 3] = 0
    with pytest.raises(ValueError, match="unfinished: 881 of 882 points are done"):
        loss_scalars(unfinished)
