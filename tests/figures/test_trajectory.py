"""Pictures and animations of paths in a plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex
from PIL import Image

from nas_lightning.figures import (
    SurfacePanel,
    TrajectoryPanel,
    TrajectoryPath,
    draw_trajectories,
    read_trajectory_panel,
    write_trajectory_animation,
)
from nas_lightning.figures.dark import PAPER, dark_copy


def panel(paths: int = 1, height: float = 4.0, count: int = 7) -> TrajectoryPanel:
    alphas, betas = np.linspace(-10, 2, 5), np.linspace(-height / 2, height, 5)
    losses = 0.05 + 0.02 * (alphas[:, None] ** 2 + betas[None] ** 2)
    there = np.linspace(1, 0, count)
    made = [
        TrajectoryPath(
            f"run {number}",
            np.stack([-8 * there, (1 - 2 * number) * height / 2 * np.sin(3 * there)], 1),
            np.arange(count, dtype=float),
            np.arange(count) * (1 + number),
        )
        for number in range(paths)
    ]
    return TrajectoryPanel(SurfacePanel(alphas, betas, losses, "a cell"), made, (0.714, 0.126))


def dataset(unfinished: bool = False) -> xr.Dataset:
    done = np.ones((1, 3, 3), np.int8)
    done[0, 2, 2] = not unfinished
    grid = ("direction_seed", "alpha", "beta")
    return xr.Dataset(
        {
            "loss": (grid, np.where(done, 1.0, np.nan)),
            "done": (grid, done),
            "coordinate": (("checkpoint", "axis"), np.array([[-2.0, 1.0], [-1.0, 0.5], [0, 0], [1, 1]])),
            "checkpoint_run": ("checkpoint", np.array([0, 0, 0, 1])),
            "checkpoint_epochs": ("checkpoint", np.array([0.0, np.nan, 2.0, 2.0])),
            "checkpoint_step": ("checkpoint", np.array([0, 4, 6, 6])),
            "explained_variance": ("component", np.array([0.8, 0.15, 0.05])),
        },
        {"direction_seed": [0], "alpha": [-3.0, 0.0, 2.0], "beta": [-1.0, 0.0, 2.0]},
        {"kind": "trajectory", "run_names": '["slow", "fast"]', "batch_norm": "reestimated", "split": "test"},
    )


def test_the_axes_say_what_the_components_explain() -> None:
    figure = draw_trajectories([panel()])
    axes = figure.axes[0]
    assert axes.get_xlabel().replace("\n", " ") == "first component, 71 % of the variance"
    assert axes.get_ylabel().replace("\n", " ") == "second component, 13 % of the variance"
    [note] = [text.get_text() for text in figure.texts]
    assert "of a random walk the two components explain 61 % and 15 %" in note.replace("\n", " ")
    assert "scales" not in note
    line = axes.get_lines()[0]
    np.testing.assert_array_equal(line.get_xydata(), panel().paths[0].coordinates)
    # The ends have their epochs.
    assert {"0", "6"} <= {text.get_text() for text in axes.texts}
    tall = draw_trajectories([panel(height=60.0)])
    assert "the axes have different scales" in tall.texts[-1].get_text().replace("\n", " ")


def test_several_runs_and_planes_have_their_names_and_colours() -> None:
    figure = draw_trajectories([panel(2), panel(2)], columns=2)
    assert figure.axes[1].get_xlabel() == "first component (71 %)"
    [legend] = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["run 0", "run 1", "first checkpoint", "last"]
    first, second = (figure.axes[0].get_lines()[index].get_color() for index in (0, 3))
    assert first != second


def test_labels_do_not_cover_one_another() -> None:
    crowded = panel(count=200)
    labels = [text for text in draw_trajectories([crowded]).axes[0].texts if text.get_text().isdigit()]
    boxes = [label.get_window_extent() for label in labels]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_edges_turn_dark_with_the_page() -> None:
    axes = dark_copy(draw_trajectories([panel(2)])).axes[0]
    artists = [axes.get_lines()[0], axes.get_lines()[3], axes.texts[-1]]
    effects = [effect for artist in artists for effect in artist.get_path_effects()]
    edges = [to_hex(vars(effect)["_gc"]["foreground"]) for effect in effects]
    assert edges == [PAPER] * len(artists)


def test_a_file_is_read() -> None:
    read = read_trajectory_panel(dataset(), "a cell")
    assert [path.name for path in read.paths] == ["slow", "fast"]
    assert [len(path.coordinates) for path in read.paths] == [3, 1]
    assert read.explained == (0.8, 0.15)
    assert read.surface.facts["batch_norm"] == "batch norm re-estimated"
    assert "extent" not in read.surface.facts
    assert "8 of 9 points" in read_trajectory_panel(dataset(unfinished=True), "a cell").surface.title
    with pytest.raises(ValueError, match="has no variable 'coordinate': it holds no trajectory"):
        read_trajectory_panel(dataset().drop_vars("coordinate"))


def test_an_animation_grows_and_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_trajectory_animation(panel(2, count=5), tmp_path / f"{name}.gif")
    content = (tmp_path / "a.gif").read_bytes()
    assert content == (tmp_path / "b.gif").read_bytes()
    assert list(tmp_path.glob(".*.tmp")) == []
    colour = np.array([0xD5, 0x5E, 0x00])
    shown = []
    with Image.open(tmp_path / "a.gif") as animation:
        assert getattr(animation, "n_frames", 1) == 7  # steps 0, 1, 2, 3, 4, and 6, 8 of the second run
        for frame in range(7):
            animation.seek(frame)
            pixels = np.asarray(animation.convert("RGB")).astype(int)
            shown.append(int((np.abs(pixels - colour).sum(axis=2) < 40).sum()))
            assert pixels[0, 0].tolist() == [255, 255, 255]
    assert shown[0] < shown[1] < shown[2] < shown[3]


def test_fifty_frames_stay_below_a_megabyte(tmp_path: Path) -> None:
    sizes = []
    for count in (4, 8):
        write_trajectory_animation(panel(count=count), tmp_path / "some.gif")
        sizes.append((tmp_path / "some.gif").stat().st_size)
    assert sizes[0] + 46 * (sizes[1] - sizes[0]) / 4 < 1_000_000
