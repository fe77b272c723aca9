from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.text import Text

from nas_lightning.figures import figure_to_array
from nas_lightning.figures.theory import draw_theory

VERMILION = "#d55e00"


def cases(seed: int = 0, count: int = 60) -> tuple[xr.Dataset, xr.Dataset]:
    """Made-up results: theorem 4.3 and the corrected bound hold, theorem 4.2 fails in every third case."""
    random = np.random.default_rng(seed)
    node = np.arange(count) % 4 + 1
    product = np.exp(random.uniform(-4, 3, count))
    bound = np.exp(random.uniform(-9, 9, count))
    share = np.where(np.arange(count) % 3 == 0, 2.5, 0.4)
    names = {"node": ("case", node), "spectral_norm_product": ("case", product)}
    variance = xr.Dataset(
        {
            **names,
            "variance": (("norm", "case"), np.stack([0.7 * bound, 0.5 * bound])),
            "widest_variance": (("norm", "case"), np.stack([bound, 0.25 * bound])),
            "bound": (("norm", "case"), np.stack([bound, bound])),
        },
        coords={"norm": ["frobenius", "spectral"]},
    )
    smoothness = xr.Dataset(
        {
            **names,
            "constant": ("case", share * bound),
            "widest_constant": ("case", 0.1 * share * bound),
            "paper_bound": ("case", bound),
            "corrected_bound": ("case", 4 * bound),
        }
    )
    return variance, smoothness


def colour(collection: PathCollection) -> str:
    return to_hex(tuple(np.asarray(collection.get_facecolor())[0]))


def points(axes: Axes, *, beyond: bool) -> np.ndarray:
    """Points of a panel that are drawn as beyond the bound, or the others, by rising abscissa."""
    together = np.concatenate(
        [
            np.asarray(collection.get_offsets())
            for collection in axes.collections
            if isinstance(collection, PathCollection) and (colour(collection) == VERMILION) == beyond
        ]
    )
    return together[np.argsort(together[:, 0])]


def legend(axes: Axes) -> str:
    box = axes.get_legend()
    assert box is not None
    return box.get_texts()[0].get_text()


def test_every_case_is_drawn_at_its_place() -> None:
    variance, smoothness = cases()
    figure = draw_theory(variance, smoothness)
    above, below = figure.axes[:4], figure.axes[4:8]
    order = np.argsort(smoothness["paper_bound"].to_numpy())
    bound = smoothness["paper_bound"].to_numpy()[order]
    np.testing.assert_allclose(points(above[0], beyond=False), np.stack([bound, bound / 2], axis=1))
    beyond = order % 3 == 0
    np.testing.assert_allclose(
        points(above[1], beyond=True), np.stack([bound[beyond], 2.5 * bound[beyond]], axis=1)
    )
    np.testing.assert_allclose(
        points(above[1], beyond=False), np.stack([bound[~beyond], 0.4 * bound[~beyond]], axis=1)
    )
    assert len(points(above[2], beyond=True)) == 0
    assert len(points(above[2], beyond=False)) == 60
    product = np.sort(smoothness["spectral_norm_product"].to_numpy())
    np.testing.assert_allclose(points(below[0], beyond=False), np.stack([product, 0 * product + 0.5], axis=1))
    assert points(below[1], beyond=True)[:, 1] == pytest.approx(2.5)
    assert points(above[3], beyond=False)[:, 1] == pytest.approx(2)  # 0.5 / 0.25 in the spectral norm
    assert points(below[3], beyond=False)[:, 1] == pytest.approx(10)


def test_cases_beyond_have_a_colour_and_a_shape_of_their_own_and_their_share_in_the_legend() -> None:
    figure = draw_theory(*cases())
    assert legend(figure.axes[0]) == "beyond the bound: 0 of 60 (0%)"
    assert legend(figure.axes[1]) == "beyond the bound: 20 of 60 (33%)"
    assert legend(figure.axes[2]) == "beyond the bound: 0 of 60 (0%)"
    looks = set()
    for collection in figure.axes[1].collections:
        assert isinstance(collection, PathCollection)
        looks.add((colour(collection), np.asarray(collection.get_paths()[0].vertices).tobytes()))
    # Four matrices, and what is beyond.
    assert [len(set(kind)) for kind in zip(*looks, strict=True)] == [5, 5]
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries[:5] == [f"$W^{{({i})}}$" for i in (1, 2, 3, 4)] + ["beyond the bound, any matrix"]


def test_what_a_logarithm_cannot_show_is_counted() -> None:
    variance, smoothness = cases()
    smoothness["constant"][1] = 0.0
    smoothness["constant"][2] = np.nan
    smoothness["constant"][4] = np.inf
    figure = draw_theory(variance, smoothness)
    assert legend(figure.axes[1]) == "beyond the bound: 21 of 60 (35%); 3 not shown"
    assert len(points(figure.axes[1], beyond=True)) == 20
    assert len(points(figure.axes[1], beyond=False)) == 37


def labels(axes: Axes) -> list[Text]:
    """Title, axis labels and the tick labels within the panel's range."""
    texts = [axes.title, axes.xaxis.label, axes.yaxis.label]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [text for text in texts if text.get_text()]


def test_every_text_lies_inside_the_figure_and_titles_stand_apart() -> None:
    figure = draw_theory(*cases())
    figure_to_array(figure, 100.0)
    for text in [text for axes in figure.axes for text in labels(axes)]:
        left, bottom, right, top = text.get_window_extent().extents
        assert min(left, bottom) >= 0, text
        assert right <= figure.bbox.width, text
        assert top <= figure.bbox.height, text
    for row in (figure.axes[:4], figure.axes[4:]):
        for first, second in combinations(row, 2):
            assert not first.title.get_window_extent().overlaps(second.title.get_window_extent())


def test_the_legend_covers_no_point_beyond_the_bound() -> None:
    axes = draw_theory(*cases(seed=1, count=300)).axes[1]
    figure_to_array(axes.get_figure(root=True), 100.0)  # type: ignore[arg-type]
    box = axes.get_legend()
    assert box is not None
    covered = box.get_window_extent().contains
    assert not [point for point in axes.transData.transform(points(axes, beyond=True)) if covered(*point)]


def test_nothing_to_draw_is_refused() -> None:
    variance, smoothness = cases()
    with pytest.raises(ValueError, match="at least one case"):
        draw_theory(variance.isel(case=slice(0)), smoothness)
