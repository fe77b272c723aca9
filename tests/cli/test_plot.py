from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from nas_lightning import figures
from nas_lightning.analysis import new_interpolation, new_profile, path_scalars
from nas_lightning.analysis.surface import Surface
from nas_lightning.cli import plot
from nas_lightning.cli.plot import main
from nas_lightning.figures import SurfacePanel, draw_loss_contours, figure_to_bytes
from nas_lightning.netcdf import read_dataset, write_dataset
from tests.figures.surfaces import heights, planes

NODES = ["preprocess", "2", "3"]


def loss_file(
    path: Path,
    *,
    resolution: int = 5,
    seeds: tuple[int, ...] = (0,),
    points: int | None = None,
    special: dict[tuple[int, int, int], float] | None = None,
    title: str = "darts_v2",
) -> Path:
    """A file of loss (seed + 1) * (alpha^2 + beta^2), finished or not."""
    steps = np.linspace(-1, 1, resolution)
    surface = Surface.create(
        "loss_contour", {"loss": {}, "accuracy": {}}, steps, steps, seeds, {"title": title}
    )
    for point in surface.pending()[:points]:
        loss = (point.direction_seed + 1) * (point.alpha**2 + point.beta**2)
        surface.record(point, {"loss": (special or {}).get(point.index, loss), "accuracy": 1 / (1 + loss)})
    surface.save(path)
    return path


FACTS = {
    "data": "CIFAR100",
    "split": "test",
    "samples": 10000,
    "sample_seed": 0,
    "epoch": 149,
    "training_seed": "0",
    "normalization": "filter",
    "batch_norm": "frozen",
    "precision": "float32",
    "weights_sha256": "0123456789abcdef",
}


def file_with(path: Path, **facts: str | int) -> Path:
    """A file of a loss that knows where it comes from."""
    dataset = read_dataset(loss_file(path))
    dataset.attrs |= FACTS | facts
    write_dataset(path, dataset.drop_attrs(deep=False).assign_attrs(dataset.attrs))
    return path


def notes(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_a_picture_names_data_images_epoch_seed_and_grid_and_leaves_the_usual_out(tmp_path: Path) -> None:
    figure = draw(file_with(tmp_path / "a.nc"))
    assert figure.axes[0].get_title() == "darts_v2"
    (note,) = notes(figure)
    assert " ".join(note.split()) == (
        "CIFAR100, test split, 10000 images, after 150 epochs, seed 0, 5 x 5 points, ±1"
    )
    (note,) = notes(
        draw(file_with(tmp_path / "b.nc", batch_norm="reestimated", autocast="bfloat16", epoch=-1))
    )
    assert " ".join(note.split()).endswith(
        "epoch unknown, seed 0, 5 x 5 points, ±1, batch norm re-estimated, bfloat16"
    )


def test_a_run_that_is_called_as_its_genotype_is_named_once(tmp_path: Path) -> None:
    for run in ("darts_v2", "longer"):
        (tmp_path / run).mkdir()
    figure = draw(*(file_with(tmp_path / run / "a.nc") for run in ("darts_v2", "longer")), "--view", "heat")
    assert [axes.get_title() for axes in planes(figure)] == ["darts_v2", "darts_v2\nlonger"]


@pytest.mark.parametrize(
    ("differing", "titles"),
    [
        ([{"epoch": 0}, {"epoch": 149}], ["after 1 epoch", "after 150 epochs"]),
        ([{"training_seed": "0"}, {"training_seed": "7"}], ["seed 0", "seed 7"]),
        ([{"split": "train"}, {"split": "test"}], ["train split", "test split"]),
        ([{"autocast": "bfloat16"}, {}], ["bfloat16", "float32"]),
        ([{"weights_sha256": "aaaaaaaabbbb"}, {}], ["weights aaaaaaaa", "weights 01234567"]),
        (
            [{"epoch": 0, "weights_sha256": "aaaaaaaabbbb"}, {"data": "Digits"}],
            ["CIFAR100, after 1 epoch", "Digits, after 150 epochs"],
        ),
    ],
)
def test_panels_of_one_genotype_say_what_differs(
    tmp_path: Path, differing: list[dict[str, str | int]], titles: list[str]
) -> None:
    paths = [file_with(tmp_path / f"{index}.nc", **facts) for index, facts in enumerate(differing)]
    figure = draw(*paths, "--view", "heat")
    shown = [" ".join(axes.get_title().split()) for axes in planes(figure)]
    assert shown == [f"darts_v2 {title}" for title in titles]
    # What differs is not in the note on all of them.
    (note,) = notes(figure)
    assert not any(part in note for title in titles for part in title.split(", "))


def test_labels_are_the_users_own_or_made_of_facts(tmp_path: Path) -> None:
    first, second = file_with(tmp_path / "a.nc"), file_with(tmp_path / "b.nc", epoch=4, training_seed="3")

    def titles(*labels: str) -> list[str]:
        return [axes.get_title() for axes in planes(draw(first, second, "--labels", *labels))]

    assert titles("early", "late: $5") == ["early", "late: $5"]
    assert titles("{epoch}; {seed}") == ["after 150 epochs; seed 0", "after 5 epochs; seed 3"]
    with pytest.raises(ValueError, match=r"`labels` \(=a b c\) must be one for all files or one for each of"):
        titles("a", "b", "c")
    with pytest.raises(ValueError, match=r"`labels` \(=\{epochs\}\): there is no \{epochs\}; there are geno"):
        titles("{epochs}")
    bare = loss_file(tmp_path / "bare.nc")
    with pytest.raises(ValueError, match=r"`labels` \(=\{seed\}\): .*bare\.nc does not say its seed"):
        draw(bare, "--labels", "{seed}")


def variance_file(path: Path, *, by_node: bool = True, title: str = "enas") -> Path:
    """A file of variance 4 (alpha^2 + beta^2)^2, so that the standard deviation is 2 (alpha^2 + beta^2)."""
    steps = np.linspace(-1, 1, 5)
    names = ("variance", "mean_gradient_norm")
    surface = Surface.create(
        "gradient_variance", {name: {} for name in names}, steps, steps, [0], {"title": title}
    )
    for point in surface.pending():
        square = point.alpha**2 + point.beta**2
        surface.record(point, {"variance": 4 * square**2, "mean_gradient_norm": square})
    if by_node:
        shares = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, 5.0]])
        surface.attach(
            {
                "variance_by_node": xr.DataArray(shares, dims=("cell", "node"), coords={"node": NODES}),
                "variance_by_part": xr.DataArray(
                    np.array([0.5, 15.0, 0.25]), coords={"part": ["stem", "cells", "classifier"]}
                ),
            }
        )
    surface.save(path)
    return path


def draw(*arguments: str | Path) -> Figure:
    return plot.draw(plot.argument_parser().parse_args([str(argument) for argument in arguments]))


def test_the_picture_is_written_beside_the_first_file_as_the_function_draws_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = loss_file(tmp_path / "loss.nc")
    main(["plot", str(path)])
    assert capsys.readouterr() == (f"{tmp_path / 'loss.png'}\n", "")
    steps = np.linspace(-1, 1, 5)
    values = steps[:, None] ** 2 + steps[None] ** 2
    facts = {"grid": "5 x 5 points", "extent": "±1"}
    own = draw_loss_contours([SurfacePanel(steps, steps, values, "darts_v2", facts=facts)])
    assert (tmp_path / "loss.png").read_bytes() == figure_to_bytes(own, "png")
    output = tmp_path / "new" / "loss.svg"
    main(["plot", str(path), "-o", str(output)])
    assert output.read_bytes().startswith(b"<?xml")


def test_several_files_stand_side_by_side_under_one_scale(tmp_path: Path) -> None:
    first = loss_file(tmp_path / "a.nc")
    second = loss_file(tmp_path / "b.nc", resolution=9, seeds=(6,), title="enas")
    third = loss_file(tmp_path / "c.nc")
    figure = draw(first, second, third, "--title", "Test split")
    titles = [axes.get_title().replace("\n", "") for axes in figure.axes[:3]]
    # A name that two files share is followed by what differs in their paths, if nothing else does.
    assert titles == ["darts_v2a.nc", "enas", "darts_v2c.nc"]
    assert len(figure.axes) == 4
    assert figure.get_suptitle() == "Test split"
    heat = draw(first, second, "--view", "heat")
    assert {axes.collections[0].norm.vmax for axes in heat.axes[:2]} == {10.0}
    assert {axes.collections[0].norm.vmin for axes in heat.axes[:2]} == {0.0}


def test_the_default_of_gradient_variance_is_the_standard_deviation(tmp_path: Path) -> None:
    path = variance_file(tmp_path / "variance.nc")
    figure = draw(path)
    mesh = planes(figure)[0].collections[0]
    steps = np.linspace(-1, 1, 5)
    wanted = 2 * (steps[:, None] ** 2 + steps[None] ** 2)
    np.testing.assert_allclose(mesh.get_array(), wanted.T)
    assert figure.axes[1].get_ylabel() == "standard deviation of the gradient"
    other = draw(path, "--variable", "variance", "--vmax", "8", "--vmin", "1")
    np.testing.assert_allclose(np.maximum(wanted**2, 1).T, planes(other)[0].collections[0].get_array())
    assert planes(other)[0].collections[0].norm.vmax == 8
    assert planes(draw(path, "--view", "surface"))[0].get_zlim() == (0, 4)


def test_the_nodes_are_those_of_the_file(tmp_path: Path) -> None:
    figure = draw(variance_file(tmp_path / "v.nc"), "--view", "nodes")
    assert figure.axes[0].get_title() == "enas\nin all 15.75"
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["stem", "0", "1", "classifier"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["preprocess", "node 2", "node 3"]


def test_pairs_of_directions_are_averaged_or_chosen(tmp_path: Path) -> None:
    path = loss_file(tmp_path / "l.nc", seeds=(0, 1, 5))
    assert draw(path).axes[0].get_title() == "darts_v2\nmean of 3 pairs of directions"
    one = draw(path, "--direction_seed", "5", "--view", "heat").axes[0]
    assert one.get_title() == "darts_v2\npair of directions 5"
    profile = draw(path, "--view", "spread").axes[1]
    np.testing.assert_allclose([heights(line)[0] for line in profile.lines], [1, 2, 6, 3])


def test_nan_and_infinity_reach_the_picture(tmp_path: Path) -> None:
    special = {(0, 1, 1): np.nan, (0, 4, 4): np.inf}
    path = loss_file(tmp_path / "l.nc", seeds=(0, 1), special=special)
    labels = {patch.get_label() for patch in draw(path, "--view", "heat").axes[0].patches}
    assert labels == {"NaN", "infinite"}


def test_an_unfinished_file_is_drawn_as_far_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = loss_file(tmp_path / "l.nc", resolution=9, points=30)
    main([str(path)])
    assert f"{path} is unfinished: 30 of 81 points; drawn on 5 x 5 of them\n" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"l\.nc: the surface has no finished point yet"):
        draw(loss_file(path, points=0))
    pairs = loss_file(path, seeds=(0, 1, 2), points=60)
    draw(pairs, "--view", "spread")
    with pytest.raises(ValueError, match="no finished pair of directions"):
        draw(loss_file(path, points=20), "--view", "spread")


def recorder(called: list[str], name: str) -> Callable[..., Figure]:
    def drawing(*_: object, **__: object) -> Figure:
        called.append(name)
        return Figure()

    return drawing


def test_every_view_calls_its_own_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    names = ("loss_contours", "heat_maps", "surfaces", "spread", "variance_by_node")
    for name in names:
        monkeypatch.setattr(figures, f"draw_{name}", recorder(called, name))
    path = variance_file(tmp_path / "v.nc")
    draw(loss_file(tmp_path / "l.nc"))
    for view in ("heat", "surface", "spread", "nodes"):
        draw(path, "--view", view)
    assert called == list(names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of both kinds, and what is none."""
    made = tmp_path_factory.mktemp("surfaces")
    content = loss_file(made / "loss.nc").read_bytes()
    variance_file(made / "variance.nc")
    variance_file(made / "bare.nc", by_node=False)
    (made / "cut.nc").write_bytes(content[: len(content) // 2])
    (made / "text.nc").write_text("no surface")
    xr.Dataset({"x": ("y", np.zeros(3))}).to_netcdf(made / "foreign.nc", engine="scipy")
    Surface.create("dream", {"x": {}}, [0.0, 1.0], [0.0, 1.0], [0], {}).save(made / "strange.nc")
    return made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["loss.nc", "variance.nc"],
            r"loss\.nc is of kind loss_contour, variance\.nc of kind gradient_variance",
        ),
        (["missing.nc"], r"missing\.nc"),
        (["text.nc"], r"text\.nc is not an analysis file, or it is damaged"),
        (["cut.nc"], r"cut\.nc is not an analysis file, or it is damaged"),
        (["foreign.nc"], r"foreign\.nc is not an analysis file"),
        (["strange.nc"], r"strange\.nc is of kind 'dream'; plot draws loss_contour"),
        (["loss.nc", "-o", "x.jpg"], r"'x\.jpg' must end in \.png, \.svg or \.pdf"),
        (["loss.nc", "-o", "text.nc/x.png"], r"cannot write text\.nc/x\.png"),
        (["loss.nc", "--view", "pie"], r"invalid choice: 'pie'"),
        (["loss.nc", "--view", "nodes"], r"`view` \(=nodes\) needs files of kind gradient_variance"),
        (["bare.nc", "--view", "nodes"], r"bare\.nc: the surface has no variance by node"),
        (["variance.nc", "--view", "contour"], r"`view` \(=contour\) draws the loss, not standard_deviation"),
        (["loss.nc", "--variable", "variance"], r"`variable` \(=variance\) must be one of loss, accuracy"),
        (
            ["variance.nc", "--variable", "standard_error"],
            r"variance\.nc: .* no variable 'standard_error'",
        ),
        (["loss.nc", "--vmax", "3"], r"`vmax` has no effect with `view` \(=contour\)"),
        (["loss.nc", "--view", "spread", "--direction_seed", "0"], r"`direction_seed` has no effect"),
        (["variance.nc", "--vmin", "3", "--vmax", "2"], r"`vmin` \(=3\) must be below `vmax` \(=2\)"),
        (["loss.nc", "--direction_seed", "2"], r"loss\.nc: `direction_seed` \(=2\) must be one of 0"),
        (["loss.nc", "--columns", "0"], r"`columns` \(=0\) must be at least 1"),
    ],
)
def test_bad_input_is_said_in_one_line_and_writes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    before = {path.name for path in folder.iterdir()}
    with pytest.raises((ValueError, OSError), match=message) as caught:
        main(["plot", *arguments])
    assert "\n" not in str(caught.value)
    assert {path.name for path in folder.iterdir()} == before


def profile_file(path: Path, *, slope: float, title: str, points: int | None = None) -> Path:
    """A file of loss slope * r + seed, finished or not."""
    surface = new_profile([0.0, 0.5, 1.0], [0, 1], {"title": title, "num_classes": 10})
    for point in surface.pending()[:points]:
        surface.record(point, {"loss": slope * point.alpha + point.direction_seed, "accuracy": 0.5})
    surface.save(path)
    return path


def test_profiles_stand_in_one_panel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = profile_file(tmp_path / "first.nc", slope=2.0, title="darts_v2")
    second = profile_file(tmp_path / "second.nc", slope=4.0, title="enas", points=4)
    [axes] = plot.draw(plot.argument_parser().parse([str(first), str(second)])).axes
    lines = {str(line.get_label()): line.get_ydata() for line in axes.lines}
    assert np.asarray(lines["darts_v2"]).tolist() == [0.5, 1.5, 2.5]
    assert np.asarray(lines["enas"]).tolist() == [0.0, 2.0, 4.0]
    assert "second.nc is unfinished: 1 of 2 directions are measured" in capsys.readouterr().err
    main([str(first)])
    assert first.with_suffix(".png").stat().st_size > 1000
    for option, message in (("--view=heat", "`view`"), ("--vmax=3", "`vmax` .* no effect")):
        with pytest.raises(ValueError, match=message):
            plot.draw(plot.argument_parser().parse([str(first), option]))
    contour = loss_file(tmp_path / "contour.nc")
    with pytest.raises(ValueError, match=r"`view` \(=profile\) needs files of kind loss_profile"):
        plot.draw(plot.argument_parser().parse([str(contour), "--view=profile"]))


def line_file(path: Path, *, title: str, points: int | None = None) -> Path:
    """A file of two pairs whose losses rise by 1 in the middle, finished or not."""
    attributes = {"title": title, "labels": '[["a", "b"], ["a", "c"]]'}
    surface = new_interpolation([0.0, 0.5, 1.0], [0, 1], ["train", "test"], attributes)
    for point in surface.pending()[:points]:
        loss = 1 - abs(2 * point.alpha - 1) + point.direction_seed
        values = {"train_loss": loss, "test_loss": loss + 1, "train_accuracy": 0.9, "test_accuracy": 0.8}
        surface.record(point, values)
    if surface.complete:
        scalars = path_scalars(surface.curves, [1.0, 2.0]).rename(pair="direction_seed")
        surface.attach({str(name): scalars[name] for name in scalars.data_vars})
    surface.save(path)
    return path


def test_lines_between_checkpoints_have_a_panel_for_loss_and_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = line_file(tmp_path / "first.nc", title="darts_v2")
    loss, accuracy = plot.draw(plot.argument_parser().parse([str(first), "--view=line"])).axes
    assert loss.get_title() == "barrier: train 1 ± 0, test 1 ± 0"
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss (nat)", "accuracy")
    second = line_file(tmp_path / "second.nc", title="enas", points=4)
    figure = plot.draw(plot.argument_parser().parse([str(first), str(second)]))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:2] == ["darts_v2, train split", "darts_v2, test split"]
    assert "second.nc is unfinished: 1 of 2 pairs are measured" in capsys.readouterr().err
    contour = loss_file(tmp_path / "contour.nc")
    with pytest.raises(ValueError, match=r"`view` \(=line\) needs files of kind .*interpolation"):
        plot.draw(plot.argument_parser().parse([str(contour), "--view=line"]))


def test_the_variance_at_the_weights_alone_has_nodes_and_no_surface(tmp_path: Path) -> None:
    whole = read_dataset(variance_file(tmp_path / "whole.nc"))
    plane = [name for name in whole.variables if set(whole[name].dims) & {"alpha", "beta", "direction_seed"}]
    path = tmp_path / "center.nc"
    write_dataset(path, whole.drop_vars(plane))
    assert plot.draw(plot.argument_parser().parse([str(path), "--view=nodes"])).axes
    with pytest.raises(ValueError, match="holds the gradient variance at w\\* alone"):
        plot.draw(plot.argument_parser().parse([str(path)]))
