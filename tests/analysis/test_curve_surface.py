"""Curves are measured and resumed like surfaces, under names of their own."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from nas_lightning.analysis import CurveSurface, Point, measure_pending


class Pairs(CurveSurface):
    title = "a line"
    dimensions = ("pair", "position")
    descriptions: ClassVar = {
        "pair": {"long_name": "number of the pair"},
        "position": {"long_name": "share of the way", "units": "1"},
    }
    needed = ("loss",)


def fresh(steps: list[float]) -> Pairs:
    return Pairs.create("line", {"loss": {"units": "nat"}}, steps, [0.0], [0, 1], {"epoch": 3})


def test_a_file_has_the_names_of_its_class_and_is_resumed(tmp_path: Path) -> None:
    path, steps = tmp_path / "line.nc", [0.0, 0.5, 1.0]

    def value_at(point: Point) -> dict[str, float]:
        return {"loss": 10.0 * point.direction_seed + point.alpha}

    lines = fresh(steps)
    lines.record(lines.pending()[0], value_at(lines.pending()[0]))
    lines.save(path)
    again = Pairs.resume_or_create(path, fresh(steps))
    assert again.finished == 1
    measure_pending(again, value_at)
    again.save(path)
    found = Pairs.read(path)
    assert found["loss"].dims == ("pair", "position")
    assert found["loss"].values.tolist() == [[0.0, 0.5, 1.0], [10.0, 10.5, 11.0]]
    assert found["position"].attrs["long_name"] == "share of the way"
    with pytest.raises(ValueError, match="`position` is 2 steps from 0 to 1, the file has 3 steps from 0"):
        Pairs.resume_or_create(path, fresh([0.0, 1.0]))


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "line.nc"
    CurveSurface.create("line", {"loss": {}}, [0.0, 1.0], [0.0], [0], {}).dataset.to_netcdf(
        path, engine="scipy"
    )
    with pytest.raises(ValueError, match="is not a line, or it is damaged: `loss` is not over pair and"):
        Pairs.read(path)
