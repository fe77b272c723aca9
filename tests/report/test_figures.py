from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

from nas_lightning.cells import published, published_genotypes
from nas_lightning.netcdf import read_dataset, write_dataset
from nas_lightning.report.claims import examine_claims
from nas_lightning.report.figures import FIGURES, report_figures, uncovered
from nas_lightning.report.forest import forest
from nas_lightning.report.landscapes import (
    family_contours,
    loss_profiles,
    read_panel,
    section4_contours,
    section4_heat_maps,
)
from nas_lightning.report.live import Drawing
from nas_lightning.report.paper import paper_families
from nas_lightning.report.selection import Selection, architectures, conditions
from nas_lightning.report.tables import architecture_table
from nas_lightning.report.topology import adapted_cells, variant_cells, width_depth_plane
from nas_lightning.report.training import (
    accuracy_at_convergence,
    connection_curves,
    operation_curves,
    other_rate_curves,
    section4_curves,
)
from nas_lightning.study.results import Results
from tests.figures.surfaces import heights, inside, planes
from tests.report.made_up import made_up_results
from tests.report.test_live import content

SECTION4 = ("original", *published.SECTION4_CELLS.values())
FOUR = ("darts_v2", "enas", "amoebanet", "nasnet")
DARTS = ("darts_v2",)


def selection(folder: Path, **choices: Any) -> Selection:
    return Selection(made_up_results(folder, **{"surfaces": False, **choices}))


def drawn(picture: Drawing | None) -> Drawing:
    assert picture is not None
    return picture


def live(picture: Drawing | None) -> Any:
    found = drawn(picture).live
    assert found is not None
    return content(found)


def variants_of(figure: Any) -> list[str]:
    """Variants of the curves of a live panel, in order."""
    names = dict.fromkeys(trace["legendgroup"] for trace in figure["data"])
    return ["original" if name in published_genotypes() else name.rpartition(":")[2] for name in names]


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in planes(figure)]


def cells_drawn(figure: Figure) -> set[str]:
    """Every text of a drawing of cells, titles included."""
    texts = (text for axes in figure.axes for text in (*axes.texts, axes.title))
    return {text.get_text() for text in texts}


def with_runs(results: Results, runs: pd.DataFrame) -> Results:
    return Results(results.study, runs, results.curves, results.problems)


def test_curves_are_mean_and_range_of_the_results(tmp_path: Path) -> None:
    chosen = selection(tmp_path, variants=SECTION4, seeds=(0, 1, 2), epochs=5)
    picture = drawn(section4_curves(chosen, (), "CIFAR10"))
    curves = chosen.results.curves
    c1 = curves[curves["architecture"] == "darts_conn1"].groupby("epoch")
    for axes, column, factor in zip(picture.still.axes, ("loss", "accuracy"), (1, 100), strict=True):
        (line,) = [line for line in axes.lines if line.get_label() == "C1 (2.5c, 3)"]
        assert np.asarray(line.get_xdata()).tolist() == [1, 2, 3, 4, 5]
        np.testing.assert_allclose(heights(line), factor * c1[column].mean(), rtol=1e-12)
    loss, accuracy = live(picture)["figures"]
    (trace,) = [t for t in accuracy["data"] if t["legendgroup"] == "darts_conn1" and "customdata" in t]
    np.testing.assert_allclose(trace["customdata"][:, 0], 100 * c1["accuracy"].min(), rtol=3e-4)
    np.testing.assert_allclose(trace["customdata"][:, 1], 100 * c1["accuracy"].max(), rtol=3e-4)
    assert line.get_label() in [entry["name"] for entry in live(picture)["legend"]]
    vertical = [figure["layout"]["yaxis"] for figure in (loss, accuracy)]
    assert [axis["type"] for axis in vertical] == ["log", "linear"]
    assert vertical[0]["title"]["text"] == "test loss (nat)"
    assert "seeds 0, 1 and 2" in picture.caption


def test_section_4_shows_the_authors_cells_and_says_which_are_missing(tmp_path: Path) -> None:
    def curves(*variants: str) -> tuple[list[str], str]:
        picture = section4_curves(selection(tmp_path, variants=("original", *variants)), (), "CIFAR10")
        return variants_of(live(picture)["figures"][0]), drawn(picture).caption

    names, caption = curves(*SECTION4[1:], "C9")
    assert names == list(SECTION4)
    assert "The authors' own cells, named as in section 4." in caption
    assert "missing" not in caption
    names, caption = curves("darts_conn3", "C9")
    assert names == ["original", "darts_conn3"]
    assert "The authors' C1 (darts_conn1), C2 (darts_conn2) and C4 (darts_conn4) are missing." in caption
    names, caption = curves("C9", "C6", "C13")
    assert names == ["original", "C6", "C9", "C13"]
    assert "and C4 (darts_conn4) are missing; these are other variants." in caption


def test_figures_of_table_2_leave_out_section_4_s_cells(tmp_path: Path) -> None:
    chosen = selection(tmp_path, variants=(*SECTION4, "C9"), surfaces=True, seeds=(0,))
    groups = [variants_of(figure) for figure in live(connection_curves(chosen, DARTS, "CIFAR10"))["figures"]]
    assert groups == [["original", "C9"]]
    assert live(family_contours(chosen, DARTS, "CIFAR10"))["choices"] == [
        "width 3c, depth 3, C9",
        "width 3.5c, depth 3, DARTS",
    ]
    alone = made_up_results(tmp_path, variants=SECTION4, surfaces=True, seeds=(0,))
    reasons = [line for line in uncovered(alone) if line.startswith("Figure 13 ")]
    assert reasons == [
        "Figure 13 (loss curves): no finished run of a variant by random connections other than section 4's"
        " of DARTS"
    ]


def test_stand_ins_are_marked_in_every_figure(tmp_path: Path) -> None:
    variants = ("original", "C1", "C4", "C9")
    chosen = selection(tmp_path, variants=variants, surfaces=True, seeds=(0,))
    marked = "C1 (stand-in)"
    for picture in (
        section4_curves(chosen, (), "CIFAR10"),
        connection_curves(chosen, DARTS, "CIFAR10"),
    ):
        legend = [entry["name"] for entry in live(picture)["legend"]]
        assert {"C1 (stand-in; 2c, 4)", "C4 (2.5c, 4)"} <= set(legend)
    for picture in (family_contours(chosen, DARTS, "CIFAR10"), section4_contours(chosen, (), "CIFAR10")):
        assert sum(marked in name for name in live(picture)["choices"]) == 1
        assert not any("C4 (stand-in)" in name for name in live(picture)["choices"])
    assert marked in cells_drawn(drawn(variant_cells(chosen, DARTS)).still)
    dots = drawn(accuracy_at_convergence(chosen, DARTS, "CIFAR10"))
    assert [text.get_text() for text in dots.still.axes[0].get_xticklabels()] == ["0", "1*", "4", "9"]
    assert "an asterisk marks a stand-in" in dots.caption
    assert "A stand-in has the width and depth that table 2 prints" in dots.caption
    frame = architecture_table(chosen.results.runs).frame
    assert [name for name in frame["Architecture"] if "stand-in" in name] == ["darts_v2:C1 (stand-in)"]


def test_a_seed_without_a_finite_value_breaks_the_line(tmp_path: Path) -> None:
    results = made_up_results(tmp_path, variants=("original", "C1"), surfaces=False)
    of_one = (results.curves["architecture"] == "darts_v2:C1") & (results.curves["seed"] == 1)
    results.curves.loc[of_one & (results.curves["epoch"] == 3), "loss"] = np.inf
    picture = drawn(section4_curves(Selection(results), (), "CIFAR10"))
    (trace,) = [
        trace
        for trace in live(picture)["figures"][0]["data"]
        if trace["legendgroup"] == "darts_v2:C1" and "customdata" in trace
    ]
    for values in (trace["y"], *trace["customdata"].T):
        assert np.isnan(values).tolist() == [epoch == 3 for epoch in range(8)]
    assert "A line breaks where a seed has no finite value." in picture.caption


def test_other_learning_rates_make_figure_4_and_no_other_figure(tmp_path: Path) -> None:
    rates = (0.25, 0.025, 0.0025)
    chosen = selection(tmp_path, variants=("original", "C1", "C6"), learning_rates=rates, epochs=4)
    assert chosen.default_rate("CIFAR10") == 0.025
    picture = drawn(other_rate_curves(chosen, (), "CIFAR10"))
    assert titles(picture.still) == ["CIFAR-10, learning rate 0.0025", "CIFAR-10, learning rate 0.25"]
    assert len({axes.get_ylim() for axes in picture.still.axes}) == 1
    assert "learning rate 0.025;" in drawn(section4_curves(chosen, (), "CIFAR10")).caption
    # Without the paper's rate the most frequent one is the default.
    runs = chosen.results.runs
    fewer = runs[(runs["learning_rate"] == 0.25) | (runs["variant"] == "C1") & (runs["learning_rate"] < 0.01)]
    assert Selection(with_runs(chosen.results, fewer)).default_rate("CIFAR10") == 0.25


def test_loss_curves_are_grouped_by_width_in_four_panels(tmp_path: Path) -> None:
    variants = ("original", *(f"C{index}" for index in range(13, 0, -1)))
    chosen = selection(tmp_path, variants=variants, seeds=(0,), epochs=3)
    picture = drawn(connection_curves(chosen, ("darts_v2",), "CIFAR10"))
    assert titles(picture.still) == ["width 2c", "width 2.5c", "width 2.5c to 3c", "width 3c to 3.5c"]
    groups = [variants_of(figure) for figure in live(picture)["figures"]]
    assert groups == [
        ["original", "C1", "C2", "C3"],
        ["original", "C4", "C5", "C6"],
        ["original", "C7", "C8", "C9"],
        ["original", "C10", "C11", "C12", "C13"],
    ]
    assert len({axes.get_ylim() for axes in picture.still.axes}) == 1
    assert "Missing" not in picture.caption
    assert "One seed per architecture." in picture.caption
    assert inside(picture.still)


def test_figure_5_has_a_panel_for_every_family_with_operations(tmp_path: Path) -> None:
    variants = ("original", "operations=2", "operations=1", "C1")
    chosen = selection(tmp_path, families=("enas", "darts_v2"), variants=variants, epochs=3)
    picture = drawn(operation_curves(chosen, FOUR, "CIFAR10"))
    assert titles(picture.still) == ["DARTS", "ENAS"]
    for figure in live(picture)["figures"]:
        assert variants_of(figure) == ["original", "operations=1", "operations=2"]
    assert "Missing: AmoebaNet, NASNet." in picture.caption


def test_accuracy_at_convergence_is_mean_and_deviation_by_table_2s_number(tmp_path: Path) -> None:
    chosen = selection(tmp_path, variants=("original", "C9", "C4"), seeds=(0, 1, 2))
    picture = accuracy_at_convergence(chosen, FOUR, "CIFAR10")
    (figure,) = live(picture)["figures"]
    (trace,) = figure["data"]
    assert figure["layout"]["yaxis"]["title"]["text"] == "test accuracy (%)"
    val = with_runs(chosen.results, chosen.results.runs.assign(evaluation_split="val"))
    on_val = live(accuracy_at_convergence(Selection(val), FOUR, "CIFAR10"))["figures"][0]
    assert on_val["layout"]["yaxis"]["title"]["text"] == "val accuracy (%)"
    assert list(zip(trace["x"], trace["text"], strict=True)) == [(0, "0"), (4, "4"), (9, "9")]
    runs = chosen.results.runs
    values = 100 * runs.loc[runs["variant"] == "C4", "final_accuracy"]
    found = [trace["y"][1], trace["error_y"]["array"][1]]
    np.testing.assert_allclose(found, [values.mean(), values.std()])
    free = accuracy_at_convergence(
        selection(tmp_path, variants=("original", "connections=5")), FOUR, "CIFAR10"
    )
    names = [text.get_text() for text in drawn(free).still.axes[0].get_xticklabels()]
    assert names == ["0", "connections=5"]


def test_only_runs_with_equal_settings_are_compared(tmp_path: Path) -> None:
    plain = made_up_results(tmp_path, variants=("original", "C1"), surfaces=False)
    tower = made_up_results(
        tmp_path, variants=("original", "C1", "adapted"), surfaces=False, regularized=True
    )
    both = with_runs(plain, pd.concat([tower.runs, plain.runs], ignore_index=True))
    chosen = Selection(both)
    assert not chosen.all_rates["regularized"].any()
    assert len(chosen.all_rates) == 4
    longer = plain.runs.assign(epochs=20, run=plain.runs["run"] + "-long")
    mixed = Selection(with_runs(plain, pd.concat([longer[:1], plain.runs], ignore_index=True)))
    assert set(mixed.all_rates["epochs"]) == {8}
    # With regularised runs alone, they are shown, and the caption says so.
    assert "with regularisation" in conditions(Selection(tower).runs("CIFAR10"))


def test_architectures_come_in_the_papers_order(tmp_path: Path) -> None:
    variants = ("operations=10", "C12", "adapted", "C2", "operations=9", "connections=3", "original")
    found = architectures(selection(tmp_path, variants=variants, seeds=(0,)).runs("CIFAR10"))
    order = ["original", "C2", "C12", "connections=3", "operations=9", "operations=10", "adapted"]
    assert [one.variant for one in found] == order


@pytest.mark.parametrize(("name", "variable"), [("loss", "loss"), ("variance", "standard_deviation")])
def test_surfaces_are_those_of_the_lowest_seed(tmp_path: Path, name: str, variable: Any) -> None:
    chosen = selection(tmp_path, variants=("original", "C1"), seeds=(3, 2), surfaces=True)
    draw = section4_contours if name == "loss" else section4_heat_maps
    picture = draw(chosen, (), "CIFAR10")
    runs = chosen.results.runs
    stem = "loss_contour" if name == "loss" else "gradient_variance"
    row = runs[(runs["variant"] == "C1") & (runs["seed"] == 2)].iloc[0]
    panel, _ = read_panel(Path(row[f"{stem}_file"]), variable, "")
    surface = live(picture)["figures"][0]["data"][2]
    np.testing.assert_allclose(surface["z"].T, panel.values, rtol=3e-4)
    assert surface["meta"] == "C1 (stand-in), 2c, 4"
    assert "seed 2." in drawn(picture).caption
    # The first pair is the widest against the narrowest.
    assert live(picture)["pair"] == [0, 1]


def test_profiles_are_means_of_directions_and_seeds_with_standard_errors(tmp_path: Path) -> None:
    variants = ("original", "C12", "C1")
    chosen = selection(tmp_path, variants=variants, seeds=(0, 1), surfaces=True)
    runs = chosen.runs("CIFAR10")
    label = "darts_v2:C12"
    paths = runs.loc[runs["architecture"] == label, "loss_profile_file"]
    means = np.stack([read_dataset(Path(path))["loss"].values.mean(axis=0) for path in paths])
    Path(runs.loc[runs["architecture"] == "darts_v2:C1", "loss_profile_file"].iloc[0]).unlink()
    Path(runs.loc[runs["architecture"] == "darts_v2:C1", "loss_profile_file"].iloc[1]).write_bytes(b"CDF")
    picture = drawn(loss_profiles(chosen, ("darts_v2",), "CIFAR10"))
    [axes] = picture.still.axes
    line = next(line for line in axes.lines if str(line.get_label()).startswith("C12"))
    np.testing.assert_allclose(np.asarray(line.get_ydata()), means.mean(axis=0))
    assert axes.get_xlabel() == "radius (in norms of the filters)"
    assert "Without a curve: C1 (stand-in)." in picture.caption
    assert "along 3 random directions" in picture.caption
    traces = [trace for trace in live(picture)["figures"][0]["data"] if "customdata" in trace]
    [shown] = [trace for trace in traces if trace["legendgroup"] == label]
    error = means.std(axis=0, ddof=1) / np.sqrt(2)
    np.testing.assert_allclose(np.array(shown["customdata"])[:, 1], means.mean(axis=0) + error, rtol=1e-3)


def test_a_file_is_read_as_mean_of_its_finished_pairs_of_directions(tmp_path: Path) -> None:
    dims, steps = ("direction_seed", "alpha", "beta"), np.linspace(-1, 1, 3)
    values = np.stack([np.full((3, 3), value) for value in (4.0, 16.0, 100.0)])
    values[0, 0, 0] = np.inf
    done = np.ones((3, 3, 3), np.int8)
    done[2, 1, 1] = 0
    coords = {"direction_seed": [0, 1, 2], "alpha": steps, "beta": steps}
    path = tmp_path / "gradient_variance-epoch0000.nc"
    dataset = xr.Dataset(
        {"variance": (dims, values), "done": (dims, done)}, coords, {"kind": "gradient_variance"}
    )
    write_dataset(path, dataset)
    panel, note = read_panel(path, "standard_deviation", "title")
    assert note == "mean of 2 pairs of directions"
    assert (panel.values[1, 1], panel.values[0, 0]) == (3.0, np.inf)
    done[:2, 0] = 0
    write_dataset(path, dataset.assign(done=(dims, done)))
    panel, note = read_panel(path, "variance", "title")
    assert note == "unfinished"
    assert panel.values[0, 0] == 100
    assert panel.is_measured.sum() == 8
    with pytest.raises(ValueError, match="no variable 'loss' over pairs of directions"):
        read_panel(path, "loss", "title")


def test_figure_25_says_which_adapted_cell_is_ours(tmp_path: Path) -> None:
    chosen = selection(
        tmp_path, families=("darts_v2", "enas"), variants=("original", "adapted"), regularized=True
    )
    caption = drawn(adapted_cells(chosen, ())).caption
    assert "Chosen by this project, as the authors' are not public: DARTS." in caption


def test_surfaces_by_width_name_what_has_none(tmp_path: Path) -> None:
    chosen = selection(tmp_path, variants=("original", "C12", "C1", "C6"), seeds=(0,), surfaces=True)
    runs = chosen.results.runs
    Path(runs.loc[runs["variant"] == "C6", "loss_contour_file"].item()).write_bytes(b"cut off")
    picture = family_contours(chosen, ("darts_v2",), "CIFAR10")
    names = live(picture)["choices"]
    assert names == [
        "width 2c, depth 4, C1 (stand-in)",
        "width 3.5c, depth 3, C12",
        "width 3.5c, depth 3, DARTS",
    ]
    assert "Without a surface: C6 (file missing or damaged)." in drawn(picture).caption
    assert inside(drawn(picture).still)


def test_the_plane_has_every_architecture_and_the_exact_census(tmp_path: Path) -> None:
    variants = ("original", "C1", "C2", "operations=4", "adapted")
    chosen = selection(tmp_path, families=("darts_v2", "enas"), variants=variants[:4], surfaces=True)
    picture = width_depth_plane(chosen, (), "CIFAR10")
    found = live(picture)
    enas, darts = found["figures"]
    totals = [figure["data"][0]["text"][0].split(" of ")[1].split()[0] for figure in (enas, darts)]
    assert totals == ["518400", "14400"]
    label = "mean test loss over the training (cut at chance level), nat"
    assert found["choices"][0] == label
    marks = [trace for trace in darts["data"] if trace.get("meta") == label][-1]
    names = [text.partition("<br>")[0] for text in marks["text"]]
    assert names == [
        f"<b>{name}</b>"
        for name in (
            "darts_v2",
            "darts_v2:C1 (stand-in)",
            "darts_v2:C2 (stand-in)",
            "darts_v2:operations=4",
        )
    ]
    runs = chosen.results.runs
    mean = runs.loc[runs["architecture"] == "darts_v2:C2", "area_under_loss_clipped"].mean()
    assert marks["marker"]["color"][2] == pytest.approx(mean)
    assert not any("Hessian" in choice for choice in found["choices"])
    labels = {text.get_text() for axes in drawn(picture).still.axes for text in axes.texts}
    assert labels >= {"C1*", "C2*", "o4"}
    assert "*: stand-in for a variant of table 2;" in drawn(picture).caption
    assert "o7: operations with seed 7;" in drawn(picture).caption


@pytest.mark.slow
def test_covered_and_uncovered_figures_are_all_figures(tmp_path: Path) -> None:
    results = made_up_results(
        tmp_path, variants=(*SECTION4, "C9", "C12"), seeds=(0,), epochs=3, data=("Digits",)
    )
    pictures = report_figures(results)
    numbers = [int(picture.number.split()[1]) for picture in pictures if picture.number]
    assert numbers == [1, 2, 3, 6, 7, 8, 9, 13, 17, 22]
    for picture in pictures:
        unscaled = "Values are unscaled; the paper's are times 1e-5." in picture.caption
        assert unscaled == (picture.number == "Figure 22")
    lines = uncovered(results)
    assert lines[-1].startswith("Figure 26 (")
    assert lines[-1].endswith("; `nas-lightning theory` measures them")
    missing = [int(line.split()[1]) for line in lines]
    assert sorted([*numbers, *missing]) == list(range(1, 27))
    assert lines[0] == "Figure 4 (accuracy curves): no finished run has another learning rate than 0.025"
    assert len({picture.key for picture in pictures}) == len(pictures)
    keys = [picture.key for picture in pictures if not picture.number]
    assert keys == [
        "claims",
        "claims-other-predictors",
        "claims-other-statistics",
        "width-depth-digits",
        "observation",
        "budget-darts_v2-digits",
        "loss-profiles-darts_v2-digits",
    ]
    for picture in pictures:
        assert picture.title
        assert "  " not in picture.caption
        assert picture.number[:6] in ("", "Figure")
        if picture.number and "-" in picture.key:
            assert "Digits, test split; 3 epochs" in picture.caption
            assert "The paper: CIFAR-10 and CIFAR-100, 600 epochs." in picture.caption


def test_without_a_finished_run_there_is_nothing_and_it_is_said(tmp_path: Path) -> None:
    results = made_up_results(tmp_path, variants=("original",), seeds=(0,), surfaces=False)
    empty = Results(results.study, results.runs.iloc[:0], results.curves.iloc[:0], ())
    assert report_figures(empty) == []
    lines = uncovered(empty)
    assert len(lines) == 26
    assert lines[2] == "Figure 3 (loss and accuracy curves): no run is finished"
    assert forest([]) is None
    pictures = [picture.key for picture in report_figures(results)]
    assert pictures == ["width-depth-cifar10", "observation", "figure01"]


def test_the_table_of_figures_has_the_papers_26_and_names_cells_that_exist() -> None:
    assert [kind.number for kind in FIGURES if kind.number] == list(range(1, 27))
    for kind in FIGURES:
        if kind.number:
            assert set(kind.families) <= set(paper_families()) <= set(published_genotypes())
            assert kind.draw is not None or kind.number in (12, 26)
            assert kind.variable is not None or "surface" not in kind.shows
    by_number = {kind.number: kind for kind in FIGURES}
    assert [by_number[number].families for number in (21, 22, 23, 24)] == [
        ("amoebanet",),
        ("darts_v2",),
        ("enas",),
        ("nasnet",),
    ]


def test_base_cells_that_the_paper_lacks_have_figures_of_their_own(tmp_path: Path) -> None:
    results = made_up_results(
        tmp_path, families=("snas_mild",), variants=("original", "connections=1", "connections=2"), epochs=3
    )
    keys = [figure.key for figure in report_figures(results)]
    assert "figure11" in keys
    assert keys[-4:] == [
        "loss-curves-snas_mild-cifar10",
        "loss-profiles-snas_mild-cifar10",
        "loss-contours-snas_mild-cifar10",
        "gradient-variance-snas_mild-cifar10",
    ]


def test_the_forest_has_a_row_for_every_test_with_data_and_names_the_others(tmp_path: Path) -> None:
    results = made_up_results(tmp_path, variants=("original", "C1", "C4", "C6", "C7", "C9", "C12", "C13"))
    claims = examine_claims(results.runs, resamples=99)
    picture = drawn(forest(claims))
    rows = [text.get_text() for axes in picture.still.axes for text in axes.get_yticklabels()]
    primary = [claim for claim in claims if claim.primary]
    tested = [claim for claim in primary if np.isfinite(claim.effect)]
    assert len(rows) == len(tested) < len(primary) == 18
    first = live(picture)["figures"][0]["layout"]
    assert "no data" not in [note["text"] for note in first["annotations"]]
    assert picture.caption.partition("Without data: ")[2].count(";") == len(primary) - len(tested) - 1
    known = [claim for claim in claims if not claim.statistic.primary and np.isfinite(claim.effect)]
    others = live(forest(claims, "statistics"))["figures"][0]
    assert sum(len(trace["x"]) for trace in others["data"]) == len(known)
    # What cannot be tested is named.
    assert "Without data: " in drawn(forest(claims, "statistics")).caption
