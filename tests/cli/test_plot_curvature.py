"""Pictures of curvature maps and of block curvatures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_lightning.analysis import curvature_variables, new_profile
from nas_lightning.analysis.block_curvature import Block
from nas_lightning.analysis.block_surface import BlockSurface, block_variables
from nas_lightning.analysis.surface import Surface
from nas_lightning.cli.plot import argument_parser, draw, main


def map_file(path: Path) -> Path:
    steps = np.linspace(-1, 1, 3)
    surface = Surface.create("curvature_map", curvature_variables(True), steps, steps, [0], {"title": "a"})
    for point in surface.pending():
        height = 1 + point.alpha**2 + point.beta**2
        values = {"largest_eigenvalue": height, "smallest_eigenvalue": -0.5, "eigenvalue_ratio": 0.5 / height}
        surface.record(point, {**values, "residual": 0, "converged": 1, "products": 20, "loss": height})
    surface.save(path)
    return path


def block_file(path: Path, done: int) -> Path:
    blocks = [Block("network", ("a", "b")), Block("stem", ("a",)), Block("cell 0", ("b",), 0)]
    surface = BlockSurface.of(blocks, [2, 1, 1], block_variables(True), {"title": "a"})
    for point in surface.pending()[:done]:
        values = {"largest_eigenvalue": 3.0 - point.alpha, "smallest_eigenvalue": -1.0}
        surface.record(point, {**values, "residual": 0.0, "converged": 1.0, "products": 20.0})
    surface.save(path)
    return path


def drawn(*arguments: str) -> Any:
    return draw(argument_parser().parse(arguments))


def test_a_map_shows_the_ratio_from_0_to_1_and_its_other_variables(tmp_path: Path) -> None:
    path = str(map_file(tmp_path / "map.nc"))
    ratio = drawn(path)
    assert ratio.axes[-1].get_ylabel() == "|smallest / largest eigenvalue| of the Hessian"
    assert ratio.axes[-1].get_ylim() == (0, 1)
    largest = drawn(path, "--variable=largest_eigenvalue", "--view=surface")
    assert largest.axes[-1].get_ylabel() == "largest eigenvalue of the Hessian"
    smallest = drawn(path, "--variable=smallest_eigenvalue")
    assert smallest.axes[-1].get_ylabel() == "smallest eigenvalue of the Hessian"
    with pytest.raises(ValueError, match=r"`variable` \(=accuracy\) must be one of eigenvalue_ratio"):
        drawn(path, "--variable=accuracy")


def test_blocks_have_a_view_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(block_file(tmp_path / f"{done}.nc", done)) for done in (3, 2)]
    main(["plot", *paths, "-o", str(tmp_path / "blocks.svg")])
    assert (tmp_path / "blocks.svg").stat().st_size > 1000
    assert f"{paths[1]} is unfinished: 2 of 3 blocks are measured" in capsys.readouterr().err
    with pytest.raises(ValueError, match="`view`"):
        drawn(paths[0], "--view=heat")


def test_a_profile_has_its_parabola(tmp_path: Path) -> None:
    surface = new_profile([0, 1, 2], [0, 1], {"num_classes": 10, "title": "a"})
    for point in surface.pending():
        surface.record(point, {"loss": 1 + point.alpha**2, "accuracy": 0.5})
    units = {"long_name": "", "units": "nat"}
    for name, value in (("second_derivative", 2.0), ("second_derivative_standard_error", 0.5)):
        surface.dataset[name] = ((), value, units)
    surface.save(tmp_path / "profile.nc")
    figure = drawn(str(tmp_path / "profile.nc"))
    [guide] = [line for line in figure.axes[0].lines if line.get_label() == "_guide"]
    assert np.asarray(guide.get_ydata()).tolist() == [1, 2, 5]
    assert "parabola of the second derivative at w*" in [
        text.get_text() for text in figure.legends[0].get_texts()
    ]
    [low, high] = [float(end) for end in figure.axes[0].get_ylim()]
    assert (low, high) == pytest.approx((0.84, 5.16))
