"""A surface becomes a panel: the mean over pairs of directions, or what is there of an unfinished one."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from nas_lightning.figures import SurfacePanel, read_surface_panel
from nas_lightning.figures.surface import cell_borders


def surface(seeds: tuple[int, ...] = (0,), done: np.ndarray | None = None) -> xr.Dataset:
    """Variance (seed + 1)^2 (alpha^2 + beta^2)^2 on a grid of 5 x 5, NaN where it is not done."""
    steps = np.linspace(-1, 1, 5)
    bowl = (steps[:, None] ** 2 + steps[None] ** 2) ** 2
    variance = np.stack([(seed + 1) ** 2 * bowl for seed in seeds])
    done = np.ones(variance.shape) if done is None else done
    dimensions = ("direction_seed", "alpha", "beta")
    return xr.Dataset(
        {
            "variance": (dimensions, np.where(done, variance, np.nan)),
            "done": (dimensions, done.astype(np.int8)),
            "cosine": ("direction_seed", np.zeros(len(seeds))),
        },
        coords={"direction_seed": list(seeds), "alpha": steps, "beta": steps},
    )


def every_second(dataset: xr.Dataset, seed: int) -> xr.Dataset:
    return dataset.sel(direction_seed=seed).isel(alpha=slice(0, 5, 2), beta=slice(0, 5, 2))


def bowl(panel: SurfacePanel) -> np.ndarray:
    return np.asarray(panel.alphas[:, None] ** 2 + panel.betas[None] ** 2)


def test_finished_pairs_are_averaged_or_chosen() -> None:
    read = read_surface_panel(surface((0, 1, 5)), "standard_deviation", "x")
    np.testing.assert_allclose(read.panel.values, 3 * bowl(read.panel))
    np.testing.assert_allclose(read.pairs, np.array([1, 2, 6])[:, None, None] * bowl(read.panel))
    assert (read.panel.title, read.note) == ("x\nmean of 3 pairs of directions", "")
    one = read_surface_panel(surface((0, 1, 5)), "variance", "x", direction_seed=5)
    np.testing.assert_allclose(one.panel.values, 36 * bowl(one.panel) ** 2)
    assert one.panel.title == "x\npair of directions 5"
    assert read_surface_panel(surface(), "variance", "x").panel.title == "x"


def test_the_order_of_dimensions_does_not_matter() -> None:
    dataset = surface((0, 1))
    dataset["variance"][:, 0, 1] = 7.0
    read, other = (read_surface_panel(data, "variance") for data in (dataset, dataset.transpose()))
    np.testing.assert_array_equal(read.panel.values, other.panel.values)


def test_nan_and_infinity_of_one_pair_are_kept_in_the_mean() -> None:
    dataset = surface((0, 1))
    dataset["variance"][0, 1, 1], dataset["variance"][1, 4, 4] = np.nan, np.inf
    panel = read_surface_panel(dataset, "variance").panel
    assert np.argwhere(panel.is_nan).tolist() == [[1, 1]]
    assert np.argwhere(panel.is_infinite).tolist() == [[4, 4]]
    assert panel.is_measured.all()


def test_only_finished_pairs_are_averaged() -> None:
    done = np.ones((3, 5, 5))
    done[1, 2, 3] = 0
    read = read_surface_panel(surface((0, 1, 2), done), "standard_deviation", "x")
    np.testing.assert_allclose(read.panel.values, 2 * bowl(read.panel))
    assert read.panel.title == "x\nmean of 2 of 3 pairs of directions"
    assert read.note == "unfinished: 74 of 75 points"
    assert len(read.pairs) == 2


def test_an_unfinished_pair_shows_its_finest_grid_or_its_points() -> None:
    done = np.zeros((2, 5, 5))
    done[1, ::2, ::2] = 1
    dataset = surface((0, 3), done)
    grid = read_surface_panel(dataset, "standard_deviation", "x", finest=every_second)
    np.testing.assert_allclose(grid.panel.alphas, [-1, 0, 1])
    np.testing.assert_allclose(grid.panel.values, 4 * bowl(grid.panel))
    assert grid.panel.is_measured.all()
    assert grid.panel.title == "x\n9 of 25 points, pair of directions 3"
    assert grid.note == "unfinished: 9 of 50 points; drawn on 3 x 3 of them"
    for finest in (None, lambda *_: None):
        points = read_surface_panel(dataset, "variance", finest=finest)
        assert np.array_equal(points.panel.is_measured, done[1].astype(bool))
        assert not points.panel.is_nan.any()
        assert points.note.endswith("; those are drawn")
    assert len(grid.pairs) == len(points.pairs) == 0


@pytest.mark.parametrize(
    ("variable", "seed", "message"),
    [
        ("loss", None, "no variable 'loss' over pairs of directions"),
        ("cosine", None, "no variable 'cosine' over pairs of directions"),
        ("variance", 4, r"`direction_seed` \(=4\) must be one of 0, 2"),
        ("variance", None, "no finished point yet$"),
        ("variance", 2, r"no finished point yet for `direction_seed` \(=2\)"),
    ],
)
def test_what_cannot_be_read_is_refused(variable: str, seed: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_surface_panel(surface((0, 2), np.zeros((2, 5, 5))), variable, direction_seed=seed)


@pytest.mark.parametrize("steps", [[0.0], [0.0, 0.0], [1.0, 0.0], [0.0, np.nan]])
def test_steps_that_span_no_surface_are_refused(steps: list[float]) -> None:
    with pytest.raises(ValueError, match="`alphas` must be two or more finite, increasing steps"):
        SurfacePanel(np.array(steps), np.array([0.0, 1.0]), np.zeros((len(steps), 2)))


def test_borders_lie_half_way() -> None:
    np.testing.assert_allclose(cell_borders(np.array([-1.0, 0.0, 4.0])), [-1.5, -0.5, 2.0, 6.0])
