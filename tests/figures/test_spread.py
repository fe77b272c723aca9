from __future__ import annotations

import numpy as np
import pytest

from nas_lightning.figures.landscape import LOSS_LEVELS
from nas_lightning.figures.spread import SurfaceSpread, draw_spread
from tests.figures.surfaces import bowl, contours, heights, inside, marks, planes, vertices


def spread(resolution: int = 9, curvatures: tuple[float, ...] = (2.0, 3.0, 7.0)) -> SurfaceSpread:
    surfaces = [bowl(resolution, curvature) for curvature in curvatures]
    return SurfaceSpread(
        surfaces[0].alphas, surfaces[0].betas, np.stack([s.values for s in surfaces]), "darts_v2"
    )


def test_the_spread_shows_the_mean_and_a_band_of_one_standard_deviation() -> None:
    figure = draw_spread([spread()])
    plane, along_alpha, along_beta = planes(figure)
    np.testing.assert_allclose(
        np.array(contours(plane).levels), [v for v in LOSS_LEVELS if v < 8], atol=1e-12
    )
    steps = np.linspace(-1, 1, 9)
    for axes in (along_alpha, along_beta):
        *singles, mean = [heights(line) for line in axes.lines]
        for curvature, single in zip((2.0, 3.0, 7.0), singles, strict=True):
            np.testing.assert_allclose(single, curvature * steps**2)
        np.testing.assert_allclose(mean, 4 * steps**2)
        # Curvatures 2, 3 and 7: mean 4, variance (4 + 1 + 9) / 2.
        (band,) = axes.collections
        outline = vertices(band.get_paths()[0])
        edge = outline[np.isclose(outline[:, 0], 1.0), 1]
        np.testing.assert_allclose([edge.min(), edge.max()], [4 - np.sqrt(7), 4 + np.sqrt(7)])
        assert axes.get_ylabel() == "loss (nat)"
        assert axes.get_ylim() == pytest.approx((0, 7 * 1.05))
    assert along_alpha.get_title() == "along \N{GREEK SMALL LETTER ALPHA}, β = 0"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["one pair of directions", "mean", "± standard deviation"]
    assert inside(figure)


def test_the_spread_keeps_nan_and_infinity() -> None:
    values = spread().values
    values[0, 0, 0] = np.nan
    values[1, 8, 8] = np.inf
    values[1, 0, 4] = np.inf  # on the profile along alpha
    steps = np.linspace(-1, 1, 9)
    figure = draw_spread([SurfaceSpread(steps, steps, values)], loss=False, label="deviation")
    plane, along_alpha, _ = planes(figure)
    assert marks(plane) == {"NaN": 1, "infinite": 2}
    assert [bool(np.isfinite(heights(line)[0])) for line in along_alpha.lines] == [
        True,
        False,
        True,
        False,
    ]
    assert along_alpha.get_ylabel() == "deviation"


def test_a_single_pair_has_no_band_and_rows_share_one_scale() -> None:
    figure = draw_spread([spread(curvatures=(1.0,)), spread(5, (4.0, 8.0))])
    profiles = [axes for axes in planes(figure) if axes.get_title().startswith("along")]
    assert [len(axes.collections) for axes in profiles] == [0, 0, 1, 1]
    assert [len(axes.lines) for axes in profiles] == [1, 1, 3, 3]
    assert {axes.get_ylim() for axes in profiles} == {(0, 8.4)}
    high = draw_spread([spread(curvatures=(400.0, 500.0))])
    assert planes(high)[1].get_ylim() == (0, 10)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        draw_spread([])
