from __future__ import annotations

import warnings

import numpy as np

from nas_lightning.figures.spectrum import draw_spectrum
from tests.figures.surfaces import inside


def test_a_spectrum_shows_values_residuals_and_trace() -> None:
    eigenvalues, residuals = np.array([40.0, 20.0, 10.0]), np.array([1.0, 2.0, 0.5])
    figure = draw_spectrum(
        eigenvalues,
        residuals,
        smallest=np.array([-5.0, -1.0]),
        smallest_residuals=np.array([0.25, 0.75]),
        trace=123.4,
        trace_error=5.0,
        title="darts_v2",
    )
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["λ₁", "λ₂", "λ₃", "…", "λₙ₋₁", "λₙ"]
    assert axes.get_title() == "darts_v2\ntrace 123.4 ± 5"
    bars = {}
    for container in axes.containers:
        marks, _, (segments,) = container
        for x, y, segment in zip(*marks.get_data(), segments.get_segments(), strict=True):
            bars[float(x)] = (float(y), segment[:, 1].tolist())
    assert bars == {
        0: (40, [39, 41]),
        1: (20, [18, 22]),
        2: (10, [9.5, 10.5]),
        4: (-1, [-1.75, -0.25]),
        5: (-5, [-5.25, -4.75]),
    }
    assert inside(figure)


def test_a_spectrum_without_the_rest_says_what_is_missing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        axes = draw_spectrum(
            np.array([1.0, np.nan]), np.array([np.nan, np.nan]), trace=float("nan"), converged=False
        ).axes[0]
    assert axes.get_title() == "(not converged)"
    assert [text.get_text() for text in axes.texts] == ["NaN"]
    assert axes.get_legend() is None
