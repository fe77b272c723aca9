from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from nas_lightning.cells import (
    Edge,
    cell_depth,
    cell_path,
    cell_width,
    published_genotypes,
    published_variants,
)
from nas_lightning.cells.census import census_percentiles
from nas_lightning.figures.percentiles import PercentilePanel, draw_percentiles
from nas_lightning.report.claims import examine_claims
from nas_lightning.report.forest import forest
from nas_lightning.report.observation import (
    NULL,
    QUANTITIES,
    Distribution,
    Place,
    by_paper,
    compare_places,
    observation_claims,
    paper_means,
    places,
    select,
)
from nas_lightning.report.observation_views import observation_figure, observation_table
from nas_lightning.report.page import claim_blocks
from nas_lightning.report.tables import claim_table
from tests.report.made_up import made_up_results


def place_of(name: str, *, reduction: bool = False, distinct: bool = False) -> Place:
    (found,) = (one for one in select(reduction=reduction, distinct=distinct) if one.cell.name == name)
    return found


@pytest.mark.parametrize("distinct", [False, True])
def test_percentiles_are_those_of_every_wiring_one_by_one(distinct: bool) -> None:
    genotype = published_genotypes()["darts_v2"].genotype
    operations, concat = [edge.op for edge in genotype.normal], genotype.normal_concat

    def measured(sources: Any) -> tuple[float, float, float]:
        edges = tuple(Edge(*pair) for pair in zip(operations, sources, strict=True))
        return cell_width(edges, concat), cell_depth(edges, concat), cell_path(edges, concat)

    choices = [range(edge // 2 + 2) for edge in range(8)]
    every = np.array(
        [
            measured(sources)
            for sources in product(*choices)
            if not distinct or all(sources[i] != sources[i + 1] for i in range(0, 8, 2))
        ]
    )
    own = measured([edge.source for edge in genotype.normal])
    found = place_of("darts_v2", distinct=distinct).percentiles
    for name, values, value in zip(QUANTITIES, every.T, own, strict=True):
        equal = np.isclose(values, value, atol=1e-9)
        assert found[name] == pytest.approx(np.mean((values < value) & ~equal) + equal.mean() / 2)


def test_percentiles_agree_with_the_census() -> None:
    for name, reduction in (("nasnet", False), ("enas", True), ("pdarts", True)):
        found = place_of(name, reduction=reduction).percentiles
        wanted = census_percentiles(published_genotypes()[name].genotype, reduction=reduction)
        assert found == pytest.approx({"width": wanted.width, "depth": wanted.depth, "path": wanted.path})


def test_wirings_drawn_at_random_have_one_half_on_average() -> None:
    for place in (
        place_of("snas_mild"),
        place_of("nasnet", reduction=True),
        place_of("pdarts", distinct=True),
    ):
        for space in place.spaces.values():
            assert np.average(space.percentiles, weights=space.counts) == pytest.approx(NULL)
            quantiles = (np.arange(20_000) + 0.5) / 20_000
            assert space.at(quantiles).mean() == pytest.approx(NULL, abs=1e-3)
    assert np.isnan(place_of("darts_v2").spaces["path"].percentile(float("nan")))


def test_only_searched_cells_are_there_and_repeated_sources_leave_the_distinct_space() -> None:
    names = {place.cell.name for place in places()}
    assert names <= set(published_genotypes())
    assert not names & set(published_variants())
    distinct = {place.cell.name for place in select(reduction=False, distinct=True)}
    assert {"nasnet", "amoebanet", "enas", "pnasnet"} & distinct == set()
    assert {"darts_v1", "darts_v2", "snas_mild", "pdarts"} <= distinct


def test_cells_of_one_paper_count_once() -> None:
    chosen = select(reduction=False, distinct=False)
    papers = by_paper(chosen, "width")
    (darts,) = (group for group in papers.values() if "darts_v2" in {place.cell.name for place in group})
    assert {place.cell.name for place in darts} == {"darts_v1", "darts_v2"}
    means = dict(zip(papers, paper_means(chosen, "width"), strict=True))
    (cars,) = (title for title, group in papers.items() if group[0].cell.name == "cars_a")
    wanted = np.mean([place_of(f"cars_{letter}").percentiles["width"] for letter in "abcdefghi"])
    assert (len(papers[cars]), means[cars]) == (9, pytest.approx(wanted))
    # A copy of a paper's cell changes nothing.
    doubled = compare_places([*chosen, place_of("nasnet")], "width", resamples=999)
    once = compare_places(chosen, "width", resamples=999)
    assert (doubled.effect, doubled.low) == pytest.approx((once.effect, once.low))


def drawn(chosen: list[Place], generator: np.random.Generator) -> list[Place]:
    """The same papers with a random wiring each, the same quantile for all cells of a paper."""
    quantiles = {title: generator.random(1) for title in by_paper(chosen, "width")}
    return [
        Place(
            place.cell,
            place.reduction,
            place.distinct,
            {name: float(space.at(quantiles[place.cell.title])[0]) for name, space in place.spaces.items()},
            place.spaces,
        )
        for place in chosen
    ]


def test_the_test_is_calibrated() -> None:
    generator, chosen = np.random.default_rng(0), select(reduction=False, distinct=False)
    trials = 300
    results = [compare_places(drawn(chosen, generator), "depth", resamples=199) for _ in range(trials)]
    assert np.mean([result.p_value <= 0.05 for result in results]) <= 0.08
    assert 0.88 <= np.mean([result.low <= NULL <= result.high for result in results]) <= 0.985


def test_normal_cells_are_wide_and_shallow_and_reduction_cells_are_not() -> None:
    claims = observation_claims(resamples=1999)
    primary = [claim for claim in claims if claim.primary]
    assert [(claim.predictor, claim.verdict) for claim in primary] == [
        ("width", "supported"),
        ("depth", "supported"),
    ]
    assert primary[0].effect == pytest.approx(
        paper_means(select(reduction=False, distinct=False), "width").mean()
    )
    assert primary[1].effect == pytest.approx(
        1 - paper_means(select(reduction=False, distinct=False), "depth").mean()
    )
    assert all(claim.low < claim.effect < claim.high for claim in claims)
    assert sorted(claim.p_adjusted for claim in primary) >= sorted(claim.p_value for claim in primary)
    others = [claim for claim in claims if not claim.primary]
    assert {claim.verdict for claim in others} == {"exploratory"}
    reduction = [
        claim for claim in others if claim.statistic.column == "reduction" and claim.predictor == "depth"
    ]
    assert reduction[0].low < NULL < reduction[0].high
    assert (len(claims), len(primary[0].groups)) == (12, len(by_paper(places(), "width")))


def test_the_page_says_what_the_claim_says() -> None:
    claims = observation_claims(resamples=999)
    (block,) = claim_blocks(claims)
    width, depth = (claim for claim in claims if claim.primary)
    assert f"in width {round(100 * width.effect)} % (95 % interval" in block["sentence"]
    assert f"and in shallowness {round(100 * depth.effect)} % (95 %" in block["sentence"]
    assert "papers, of each the mean of its cells" in width.explanation
    assert any("two distinct sources" in claim.statistic.name for claim in claims)
    frame = claim_table(claims).frame
    assert frame["Primary"].tolist() == ["yes"] * 2 + ["no"] * 10
    drawing = forest(claims)
    assert drawing is not None
    assert "mid-percentile among wirings" in [axes.get_xlabel() for axes in drawing.still.axes]


def test_other_claims_do_not_take_part(tmp_path: Any) -> None:
    results = made_up_results(tmp_path, seeds=(0,), surfaces=False)
    assert "observation" not in {claim.key for claim in examine_claims(results.runs, resamples=99)}


def test_the_figure_and_the_table_hold_every_cell() -> None:
    figure = observation_figure()
    labels = [(axes.get_title(), " ".join(axes.get_ylabel().split())) for axes in figure.still.axes[:4]]
    assert labels == [
        ("normal cells", "percentile of the width"),
        ("normal cells", "percentile of the depth"),
        ("normal cells", "percentile of the mean path"),
        ("reduction cells", "percentile of the width"),
    ]
    shown = [line.get_ydata() for line in figure.still.axes[0].lines if line.get_marker() == "o"]
    wanted = [place.percentiles["width"] for place in select(reduction=False, distinct=False)]
    np.testing.assert_allclose(np.sort(np.concatenate(shown)), np.sort(wanted))
    frame = observation_table().frame
    years = frame[(frame["Space"] == "all wirings") & (frame["Years"] != "all")]
    every = frame.iloc[0]
    assert years["Genotypes"].astype(int).sum() == int(every["Genotypes"]) == len(wanted)
    assert years["Papers"].astype(int).sum() == int(every["Papers"])
    assert every["Width, normal"].startswith("0.")


def test_dots_stand_at_their_years() -> None:
    years, values = np.array([2018.0, 2019, 2019]), np.array([0.5, 0.1, 0.9])
    (axes,) = draw_percentiles([PercentilePanel("percentile", "cells", years, values, {2019: 0.5})]).axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(np.round(np.concatenate([line.get_xdata() for line in dots])), years)
    assert np.asarray(axes.lines[-1].get_ydata()).tolist() == [0.5, 0.5]


def test_a_distribution_counts_ties_by_half() -> None:
    space = Distribution(np.array([1.0, 2, 4]), np.array([1.0, 2, 1]))
    np.testing.assert_allclose(space.percentiles, [1 / 8, 1 / 2, 7 / 8])
    assert [space.percentile(value) for value in (0, 1, 2, 3, 5)] == [0, 1 / 8, 1 / 2, 3 / 4, 1]
    np.testing.assert_allclose(
        space.at(np.array([0.1, 0.3, 0.7, 0.8, 1.0])), [1 / 8, 1 / 2, 1 / 2, 7 / 8, 7 / 8]
    )
