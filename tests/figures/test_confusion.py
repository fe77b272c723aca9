"""What a picture of a confusion matrix shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from nas_lightning.figures import draw_confusion_matrix
from nas_lightning.figures.dark import dark_copy
from nas_lightning.figures.picture import ON_COLOUR, figure_to_array

COUNTS = np.array([[398, 1, 1], [0, 0, 0], [2, 1, 5]])
NAMES = ("cat", "dog", "newt")


def mesh(figure: Figure) -> Any:
    """The shares that are drawn, masked where there are none."""
    (found,) = (one for one in figure.axes[0].collections if isinstance(one, QuadMesh))
    shares: Any = found.get_array()
    side = round(shares.size**0.5)
    return shares.reshape(side, side)


def test_rows_are_shares_of_their_class_and_a_class_without_samples_is_blank() -> None:
    figure = draw_confusion_matrix(COUNTS, NAMES, title="darts_v2")
    shares = mesh(figure)
    np.testing.assert_allclose(shares[0], COUNTS[0] / 400)
    np.testing.assert_allclose(shares[2], COUNTS[2] / 8)
    assert shares.mask[1].all()
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat (400)", "dog (0)", "newt (8)"]
    assert [text.get_text() for text in axes.get_xticklabels()] == list(NAMES)
    top, bottom = axes.transData.transform([(0, 0), (0, 2)])[:, 1]
    assert top > bottom
    written = {tuple(map(round, text.get_position())): text.get_text() for text in axes.texts}
    assert written == {
        (0, 0): ">99%\n398",
        (1, 0): "<1%\n1",
        (2, 0): "<1%\n1",
        (0, 2): "25%\n2",
        (1, 2): "12%\n1",
        (2, 2): "62%\n5",
    }


def test_many_classes_are_ordered_by_samples_and_have_no_names() -> None:
    random = np.random.default_rng(0)
    sizes = 2 * random.permutation(60) + 2
    counts = np.diag(sizes)
    counts[sizes.argmin(), sizes.argmax()] = 1  # the smallest has 3 samples now, one of them mistaken
    figure = draw_confusion_matrix(counts)
    axes = figure.axes[0]
    assert not axes.get_xticks().size
    assert axes.get_ylabel() == "true class, from most to fewest samples"
    shares = mesh(figure)
    assert [int(row) for row in np.flatnonzero(shares[:, 0])] == [0, 59]
    assert shares[59, 0] == pytest.approx(1 / 3)


@pytest.mark.parametrize("classes", [1, 2, 20, 21, 50, 51])
def test_cells_are_square_and_names_are_whole_or_cut_with_an_ellipsis(classes: int) -> None:
    name = "Cavalier-King-Charles-Spaniel of a long line"
    names = [f"{number} {name}" for number in range(classes)]
    figure = draw_confusion_matrix(np.diag(np.arange(classes) + 1), names)
    figure_to_array(figure, 60.0)
    axes = figure.axes[0]
    box = axes.get_window_extent()
    assert box.width == pytest.approx(box.height, rel=1e-6)
    assert bool(axes.texts) == (classes <= 20)
    for tick, whole in zip(axes.get_yticklabels(), names, strict=False):
        shown = " ".join(tick.get_text().rpartition(" (")[0].split("\n"))
        assert shown in (whole, shown[:-1] + "…")
        assert whole.replace(" ", "").startswith(shown.removesuffix("…").replace(" ", ""))


def test_counts_keep_their_colour_on_dark_pages_as_their_cells_do() -> None:
    figure = draw_confusion_matrix(COUNTS, NAMES)
    before, after = (
        [text.get_color() for text in one.axes[0].texts if text.get_gid() == ON_COLOUR]
        for one in (figure, dark_copy(figure))
    )
    assert before == after
    assert set(before) == {"black", "white"}


@pytest.mark.parametrize("names", [(), ("cat", "dog")])
def test_names_that_do_not_fit_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must be one for each of the 3 classes"):
        draw_confusion_matrix(COUNTS, names)
