from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import stats

from nas_lightning.report import claims
from nas_lightning.report.claims import Claim
from nas_lightning.report.samples import group_columns, take_sample
from nas_lightning.report.statements import statements, statistics
from nas_lightning.report.words import say
from tests.oracles.rank_association import paired_p
from tests.report.made_up import made_up_results

Numbers: TypeAlias = Sequence[float] | npt.NDArray[np.float64]

WIDTHS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0)


def runs_of(
    statistic: str,
    values: Numbers,
    *,
    family: str = "enas",
    widths: Numbers = WIDTHS,
    seeds: Sequence[int] = (0,),
    kinds: Sequence[str] | None = None,
    **columns: object,
) -> pd.DataFrame:
    """Runs of invented architectures, every seed alike, with one statistic."""
    rows = [
        {
            "genotype": f"{family}-{index}",
            "architecture": f"{family}:connections={index}",
            "family": family,
            "kind": "connections" if kinds is None else kinds[index],
            "width": width,
            "depth": 3,
            "data": "CIFAR10",
            "learning_rate": 0.025,
            "epochs": 10,
            "seed": seed,
            "regularized": False,
            "diverged": False,
            "mean_error": 0.2,
            statistic: value,
            **columns,
        }
        for index, (width, value) in enumerate(zip(widths, values, strict=True))
        for seed in seeds
    ]
    return pd.DataFrame(rows)


def find(
    runs: pd.DataFrame,
    statistic: str,
    predictor: str = "width",
    key: str | None = None,
    *,
    given: Sequence[str] = (),
    kind: str = "",
) -> Claim:
    wanted = kind or ("regularized" if predictor == "adaptation" else "plain")
    found = [
        claim
        for claim in claims.examine_claims(runs, resamples=499)
        if (claim.statistic.column, claim.predictor, claim.given) == (statistic, predictor, tuple(given))
        and key in (None, claim.key)
        and claim.statistic.runs == wanted
    ]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, list[Claim]]:
    variants = (
        "original",
        "C1",
        "C4",
        "C6",
        "C7",
        "C9",
        "C10",
        "C12",
        "C13",
        *(f"operations={i}" for i in range(1, 6)),
    )
    runs = made_up_results(tmp_path_factory.mktemp("made_up"), variants=variants, surfaces=True).runs
    return runs, claims.examine_claims(runs, resamples=999)


def test_what_the_made_up_rule_says_is_supported(made_up: tuple[pd.DataFrame, list[Claim]]) -> None:
    verdicts = {
        (claim.statistic.column, claim.predictor): claim.verdict for claim in made_up[1] if claim.primary
    }
    columns = {
        "area_under_loss_clipped": "supported",
        "loss_profile.mean_rise": "supported",
        "gradient_variance.center_normalized_variance": "supported",
        "hessian_spectrum.normalized_largest_eigenvalue": "no data",
    }
    for column, verdict in columns.items():
        assert verdicts[column, "width"] == verdict
        # Two of eight variants are deep: 28 arrangements, the smallest p-value is 2/28.
        assert verdicts[column, "depth"] == ("cannot decide" if verdict == "supported" else "no data")
    assert verdicts["area_under_loss_clipped", "kind"] == "supported"
    assert verdicts["final_error_percent", "adaptation"] == "no data"


def test_effect_and_p_value_are_those_of_the_seed_means(made_up: tuple[pd.DataFrame, list[Claim]]) -> None:
    runs, tested = made_up
    claim = tested[0]
    assert (claim.statistic.column, claim.predictor) == ("area_under_loss_clipped", "width")
    wirings = runs[runs["kind"] == "connections"]
    means = wirings.groupby("architecture")[["width", "area_under_loss_clipped"]].mean()
    expected = stats.kendalltau(means["width"], -means["area_under_loss_clipped"])
    assert claim.effect == pytest.approx(expected.statistic)
    assert claim.groups[["family", "data", "n", "seeds"]].values.tolist() == [["darts_v2", "CIFAR10", 8, 2]]
    assert claim.test == "all 40320 permutations"


def test_holm_corrects_among_the_primary_tests(made_up: tuple[pd.DataFrame, list[Claim]]) -> None:
    tested = [claim for claim in made_up[1] if not math.isnan(claim.p_adjusted)]
    ordered = sorted(tested, key=lambda claim: claim.p_value)
    assert ordered[0].p_adjusted == pytest.approx(len(tested) * ordered[0].p_value)
    assert all(claim.p_adjusted >= claim.p_value for claim in tested)
    others = [claim for claim in made_up[1] if not claim.primary]
    assert {claim.verdict for claim in others} == {"exploratory", "no data"}
    assert all(math.isnan(claim.p_adjusted) for claim in others)
    known = [claim for claim in others if claim.verdict == "exploratory"]
    assert all(claim.explanation.startswith("Exploratory, not corrected: ") for claim in known)


def test_statements_are_those_of_the_sections() -> None:
    sections = {key: statement.section for key, statement in statements().items()}
    assert sections == {
        "convergence": "4.1",
        "landscape": "4.2.1",
        "gradient_variance": "4.2.2",
        "operations": "4.1",
        "generalization": "5",
        "observation": "3",
    }
    primary = [one for kind in ("sizes", "kinds", "pairs") for one in statistics(kind) if one.primary]
    counts = {key: sum(one.claim == key for one in primary) for key in sections}
    assert list(counts.values()) == [1, 3, 2, 1, 3, 0]
    # Theorem 4.1 is about the training, at a given loss.
    assert {one.column.partition(".")[0] for one in primary if one.given} == {
        "hessian_spectrum_train",
        "gradient_variance_train",
    }


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([6, 5, 4, 3, 2, 1], "supported"),
        ([1, 2, 3, 4, 5, 6], "contradicted"),
        ([3, 1, 2, 3, 1, 2], "undecided"),
    ],
)
def test_verdict_of_a_claim_of_a_direction(values: list[float], verdict: str) -> None:
    claim = find(runs_of("area_under_loss_clipped", values), "area_under_loss_clipped")
    assert claim.verdict == verdict
    if verdict == "undecided":
        assert "absence of evidence" in claim.explanation
    else:
        assert claim.effect == (1 if verdict == "supported" else -1)
        assert claim.p_value == pytest.approx(2 / 720)
        assert claim.explanation.startswith(
            "Wider cells have a " + ("smaller", "larger")[verdict == "contradicted"]
        )
        assert ("against the claim" in claim.explanation) == (verdict == "contradicted")


def test_more_seeds_do_not_make_a_smaller_p_value() -> None:
    values = [6, 4, 5, 3, 1, 2]
    one = find(runs_of("area_under_loss_clipped", values), "area_under_loss_clipped")
    many = find(runs_of("area_under_loss_clipped", values, seeds=range(8)), "area_under_loss_clipped")
    assert (many.effect, many.low, many.high, many.p_value) == (one.effect, one.low, one.high, one.p_value)
    assert many.groups["n"].tolist() == [6]
    assert many.groups["seeds"].tolist() == [8]


def test_the_noise_of_seeds_widens_the_interval_and_is_said() -> None:
    rng = np.random.default_rng(0)
    widths = rng.choice(WIDTHS, 13)
    values = 9 - widths + 0.3 * rng.normal(size=13)

    def spread(noise: float) -> Claim:
        seeds = [
            runs_of("area_under_loss_clipped", values + sign * noise, widths=widths, seeds=(seed,))
            for seed, sign in enumerate((-1, 1))
        ]
        return find(pd.concat(seeds), "area_under_loss_clipped")

    sharp, noisy = spread(0.0), spread(1.0)
    assert (noisy.effect, noisy.p_value) == (sharp.effect, sharp.p_value)
    assert noisy.low < sharp.low - 0.05
    assert noisy.low <= noisy.effect <= noisy.high
    # Variance 2 of -1 and 1, halved by the mean of two.
    assert f"seeds is {100 / values.std(ddof=1):.0f} % of the spread" in noisy.explanation


@pytest.mark.parametrize("count", [3, 4])
def test_a_study_of_few_cells_cannot_decide(count: int) -> None:
    runs = runs_of("area_under_loss_clipped", np.arange(count, dtype=np.float64), widths=WIDTHS[:count])
    claim = find(runs, "area_under_loss_clipped")
    assert claim.verdict == "cannot decide"
    assert claim.effect == -1
    assert claim.p_value == claim.smallest_p == pytest.approx(2 / math.factorial(count))
    assert math.isnan(claim.p_adjusted)
    assert math.isnan(claim.low)
    assert claim.explanation.startswith("The study is too small to decide whether wider cells")
    assert "absence of evidence" not in claim.explanation
    sentence = say("short", claims=[claim], others=[])
    assert "too small to decide whether wider cells (tau-b \N{MINUS SIGN}1.00, no interval)" in sentence
    # Exploratory tests of so few are not shown.
    error = find(runs.assign(mean_error=runs["area_under_loss_clipped"]), "mean_error", key="convergence")
    assert error.verdict == "no data"
    assert f"no outcome of {count} architectures has a p-value below" in error.explanation


def test_a_correction_can_leave_a_study_too_small() -> None:
    statistics = ("area_under_loss_clipped", "loss_profile.mean_rise", "final_accuracy")
    runs = runs_of("area_under_loss_clipped", [5.0, 4, 3, 2, 1], widths=WIDTHS[:5]).assign(
        depth=[5, 4, 3, 2, 1], **{name: [5.0, 4, 3, 2, 1] for name in statistics[1:]}
    )
    claim = find(runs, "area_under_loss_clipped")
    assert claim.smallest_p == pytest.approx(2 / 120)
    assert claim.p_adjusted == pytest.approx(6 * 2 / 120)
    assert claim.verdict == "cannot decide"
    assert "could have a p-value below 0.1 after Holm's correction" in claim.explanation
    # A claim of absence can be decided by its bound.
    assert find(runs, "final_accuracy").verdict == "undecided"
    alone = find(runs[[name for name in runs if name not in statistics[1:]]].assign(depth=3), statistics[0])
    assert alone.verdict == "supported"


def test_ties_that_break_an_interval_leave_the_verdict_to_the_p_value() -> None:
    # One of 80 is wide: a third of the draws lack it.
    values = np.append(np.arange(79.0), -1.0)
    runs = runs_of("area_under_loss_clipped", values, widths=[2.0] * 79 + [3.0])
    claim = find(runs, "area_under_loss_clipped")
    assert math.isnan(claim.low)
    assert "It has no interval: ties leave 3" in claim.explanation
    assert claim.smallest_p == pytest.approx(2 / 80, abs=0.01)
    assert claim.verdict == "supported"


def test_two_names_of_one_genotype_are_one_architecture() -> None:
    runs = runs_of("area_under_loss_clipped", [6, 4, 5, 3, 1, 2])
    again = runs.assign(architecture=[f"alias{i}" for i in range(6)], seed=1)
    assert find(pd.concat([runs, again]), "area_under_loss_clipped").groups["n"].tolist() == [6]


def test_shifting_a_group_changes_nothing_and_pooling_weighs_by_architectures() -> None:
    first = runs_of("area_under_loss_clipped", [6, 4, 5, 3, 1, 2])
    second = runs_of("area_under_loss_clipped", [1, 3, 2], family="nasnet", widths=WIDTHS[:3])
    here = find(pd.concat([first, second]), "area_under_loss_clipped")
    shifted = second.assign(area_under_loss_clipped=second["area_under_loss_clipped"] + 1000.0)
    there = find(pd.concat([first, shifted]), "area_under_loss_clipped")
    assert (there.effect, there.p_value) == (here.effect, here.p_value)
    effects = here.groups.set_index("family")["effect"]
    assert here.effect == pytest.approx((6 * effects["enas"] + 3 * effects["nasnet"]) / 9)


def test_settings_separate_groups_and_seeds_and_places_do_not() -> None:
    runs = runs_of("area_under_loss_clipped", [6, 4, 5, 3, 1, 2])
    other = runs.assign(
        area_under_loss_clipped=[1.0, 2, 3, 4, 5, 6],
        **{"settings.model.optimizer.init_args.weight_decay": "0.001", "settings.data.root": "elsewhere"},
    )
    same = runs.assign(**{"settings.data.root": "here", "settings.data.seed": "3"})
    claim = find(pd.concat([runs, other]), "area_under_loss_clipped")
    assert claim.groups["n"].tolist() == [6, 6]
    assert min(claim.groups["effect"]) == pytest.approx(-1)
    both = pd.concat([runs, same.assign(**{"settings.seed_everything": "3"})])
    assert "settings.data.root" not in group_columns(both)
    assert find(both, "area_under_loss_clipped").groups["n"].tolist() == [6]
    held_out = runs.assign(**{"settings.data.validation_seed": "1"})
    assert find(pd.concat([runs, held_out]), "area_under_loss_clipped").groups["n"].tolist() == [6, 6]


@pytest.mark.parametrize(("connections", "operations", "tested"), [(3, 3, False), (3, 4, True), (4, 4, True)])
def test_kinds_need_a_p_value_within_reach(connections: int, operations: int, tested: bool) -> None:
    kinds = ["connections"] * connections + ["operations"] * operations
    values = np.exp(np.arange(len(kinds)) ** 1.5 % 1)
    runs = runs_of("mean_error", values, widths=[3.0] * len(kinds), kinds=kinds)
    claim = find(runs, "mean_error", "kind")
    assert (claim.verdict != "cannot decide") == tested
    # Of 35 exchanges none is the mirror image of another, of 20 and 70 each has one.
    count = math.comb(connections + operations, connections)
    assert claim.smallest_p == pytest.approx((1 if connections != operations else 2) / count)
    lacking = find(runs.iloc[1:] if connections == 3 else runs.iloc[2:], "mean_error", "kind")
    assert lacking.verdict == "no data"
    assert f"2 variants by connections and {operations} by operations; a test needs" in lacking.explanation
    assert "as three against four have" in lacking.explanation


def test_runs_that_never_got_there_rank_last() -> None:
    reached = [math.nan, math.nan, 9.0, 7.0, 5.0, 3.0]
    runs = runs_of("epochs_to_accuracy_0.9", reached)
    claim = find(runs, "epochs_to_accuracy_0.9")
    expected = stats.kendalltau(WIDTHS, -np.nan_to_num(reached, nan=100.0))
    assert claim.effect == pytest.approx(expected.statistic)
    assert "2 runs never got there and rank last" in claim.explanation
    # Without a curve nothing is known; a diverged run never got there.
    runs.loc[0, "mean_error"] = math.nan
    unknown = find(runs, "epochs_to_accuracy_0.9")
    assert unknown.groups["n"].tolist() == [5]
    assert "1 run never got there and ranks last. 1 run without a value is left out." in unknown.explanation
    runs.loc[0, "diverged"] = True
    assert find(runs, "epochs_to_accuracy_0.9").groups["n"].tolist() == [6]


def test_one_of_two_seeds_that_never_got_there_ranks_between() -> None:
    runs = pd.concat(
        [
            runs_of("epochs_to_accuracy_0.9", [5.0, 5.0, 3.0, 3.0, 3.0, 3.0]),
            runs_of("epochs_to_accuracy_0.9", [math.nan, 5.0, 3.0, 3.0, 3.0, 3.0], seeds=(1,)),
        ]
    )
    table = take_sample(runs, "epochs_to_accuracy_0.9", ("connections",), censored=True).table
    values = table.set_index("width")["value"]
    assert values[1.5] == (10 + 12) / 2  # ranks 9 to 11 are three runs with 5 epochs, 12 is the missing one
    assert values[2.0] == 10
    assert values[4.0] == 4.5


@pytest.mark.parametrize(
    ("values", "widths", "reason"),
    [
        ([1.0, 2], WIDTHS[:2], "no base cell has three variants"),
        ([1.0], WIDTHS[:1], "no base cell has three variants"),
        ([1.0, 2, 3, 4, 5, 6], [2.0] * 6, "have the same width"),
        ([1.0] * 6, WIDTHS, "have the same value"),
        ([math.nan] * 6, WIDTHS, "no variant trained without regularisation has it"),
    ],
)
def test_what_is_missing_for_a_test_is_said(
    values: list[float], widths: Sequence[float], reason: str
) -> None:
    claim = find(runs_of("loss_profile.mean_rise", values, widths=widths), "loss_profile.mean_rise")
    assert claim.verdict == "no data"
    assert reason in claim.explanation
    assert all(
        math.isnan(value) for value in (claim.effect, claim.low, claim.high, claim.p_value, claim.p_adjusted)
    )


@pytest.mark.parametrize("runs", [pd.DataFrame(), runs_of("mean_error", [0.1] * 6).iloc[:0]])
def test_without_runs_no_claim_has_data(runs: pd.DataFrame) -> None:
    tested = claims.examine_claims(runs)
    assert {claim.verdict for claim in tested} == {"no data"}
    order = ["convergence", "landscape", "gradient_variance", "operations", "generalization"]
    assert list(dict.fromkeys(claim.key for claim in tested)) == order


def test_generalisation_is_a_claim_of_absence() -> None:
    rising = find(runs_of("final_accuracy", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), "final_accuracy")
    assert rising.verdict == "contradicted"
    falling = find(runs_of("final_accuracy", [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]), "final_accuracy")
    assert falling.verdict == "supported"
    assert "an advantage of 0.2 in tau-b is ruled out" in falling.explanation
    unclear = find(runs_of("final_accuracy", [0.3, 0.1, 0.2, 0.3, 0.1, 0.2]), "final_accuracy")
    assert unclear.verdict == "undecided"
    assert "absence of evidence" in unclear.explanation


def test_no_association_in_much_data_supports_absence() -> None:
    rng = np.random.default_rng(0)
    frames = [runs_of("final_accuracy", rng.permutation(6) / 10, family=f"cell{i}") for i in range(40)]
    claim = find(pd.concat(frames), "final_accuracy")
    assert claim.high < 0.2
    assert claim.verdict == "supported"


def pairs(original: Numbers, adapted: Numbers) -> pd.DataFrame:
    frames = [
        runs_of(
            "final_error_percent",
            [one, other],
            family=f"cell{index}",
            widths=(3.0, 4.0),
            kinds=("original", "adapted"),
        )
        for index, (one, other) in enumerate(zip(original, adapted, strict=True))
    ]
    return pd.concat(frames).assign(regularized=True)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "supported"), (1.3, "supported"), (0.7, "contradicted")]
)
def test_adapted_cells_are_compared_within_pairs(factor: float, verdict: str) -> None:
    original = np.array([2.0, 30.0, 17.0, 5.0, 3.0, 9.0, 12.0])
    adapted = original * factor * np.array([1.01, 0.99, 1.0, 1.02, 0.98, 1.01, 0.99])
    claim = find(pairs(original, adapted), "final_error_percent", "adaptation")
    assert claim.effect == pytest.approx(np.log(original / adapted).mean())
    assert claim.verdict == verdict
    assert claim.groups["n"].tolist() == [2] * 7
    five = find(pairs(original[:5], adapted[:5]), "final_error_percent", "adaptation")
    # The interval of five cells can rule an advantage out; their 32 changes of sign cannot show one.
    assert five.verdict == ("undecided" if factor == 0.7 else "supported")
    assert find(pairs(original[:4], adapted[:4]), "final_error_percent", "adaptation").verdict == "no data"


def test_data_sets_do_not_count_as_cells() -> None:
    four = pairs([2.0, 30.0, 17.0, 5.0], [2.1, 29.0, 17.0, 5.1])
    many = pd.concat([four.assign(data=data) for data in ("CIFAR10", "CIFAR100", "TinyImageNet200")])
    claim = find(many, "final_error_percent", "adaptation")
    assert claim.verdict == "no data"
    assert "of at least five base cells; there are 4" in claim.explanation


def test_unregularised_pairs_are_no_pairs_of_table_1() -> None:
    runs = pairs([2.0] * 7, [3.0] * 7).assign(regularized=False)
    assert find(runs, "final_error_percent", "adaptation").verdict == "no data"


def test_regularised_runs_say_nothing_about_convergence() -> None:
    runs = runs_of("area_under_loss_clipped", [6, 5, 4, 3, 2, 1]).assign(regularized=True)
    assert find(runs, "area_under_loss_clipped").verdict == "no data"


def test_operations_matter_less_is_a_ratio_of_spreads_on_a_log_scale() -> None:
    kinds = ["connections"] * 5 + ["operations"] * 5
    values = [0.1, 0.2, 0.4, 0.8, 1.6, 0.50, 0.51, 0.52, 0.49, 0.5]
    runs = runs_of("area_under_loss_clipped", values, widths=[3.0] * 10, kinds=kinds)
    claim = find(runs, "area_under_loss_clipped", "kind")
    spreads = [np.log(values[:5]).std(ddof=1), np.log(values[5:]).std(ddof=1)]
    assert claim.effect == pytest.approx(math.log(spreads[0] / spreads[1]))
    assert claim.verdict == "supported"
    swapped = runs.assign(kind=kinds[::-1])
    opposite = find(swapped, "area_under_loss_clipped", "kind")
    assert opposite.effect == pytest.approx(-claim.effect)
    assert opposite.verdict == "contradicted"


def test_seed_noise_of_both_kinds_is_taken_off() -> None:
    kinds = ["connections"] * 5 + ["operations"] * 5
    centers = np.array([-2.0, -1, 0, 1, 2, -0.5, -0.25, 0, 0.25, 0.5])
    frames = [
        runs_of(
            "area_under_loss_clipped",
            np.exp(centers + shift),
            widths=[3.0] * 10,
            kinds=kinds,
            seeds=(seed,),
        )
        for seed, shift in enumerate((-0.2, 0.2))
    ]
    claim = find(pd.concat(frames), "area_under_loss_clipped", "kind")
    noise = 0.08 / 2  # variance of -0.2 and 0.2, of a mean of two
    expected = 0.5 * math.log((2.5 - noise) / (0.15625 - noise))
    assert claim.effect == pytest.approx(expected)


def test_the_paper_s_own_table_1_by_hand() -> None:
    claim = claims.examine_paper_table1()
    cifar10 = [(2.65, 2.80), (2.76, 2.91), (2.64, 2.76), (2.67, 2.73), (2.88, 2.69)]
    cifar100 = [(17.06, 16.86), (17.55, 17.28), (16.67, 16.04), (16.41, 16.15), (17.78, 17.20)]
    tiny = [(31.88, 32.05), (32.22, 33.16), (30.68, 31.36), (30.58, 31.33), (32.40, 32.61)]
    differences = [math.log(one / other) for one, other in (*cifar10, *cifar100, *tiny)]
    assert claim.effect == pytest.approx(np.mean(differences))
    assert len(claim.groups) == 15
    # A cell's three data sets are the same two architectures: five samples, not fifteen.
    of_cell = [differences[cell::5] for cell in range(5)]
    assert claim.p_value == pytest.approx(paired_p(of_cell))
    assert claim.test == "all 32 changes of sign of base cells"
    assert "compares 15 pairs of 5 base cells, 1 seed each" in claim.explanation
    means = sorted(float(np.mean(cell)) for cell in of_cell)
    assert means[0] <= claim.low < means[1]
    assert means[-2] < claim.high <= means[-1]
    assert claim.verdict == "supported"


def test_numbers_of_the_explanation(tmp_path: Path) -> None:
    runs = made_up_results(tmp_path, variants=("C1", "C4", "C6", "C9", "C12"), surfaces=False).runs
    claim = find(runs, "area_under_loss_clipped", key="convergence")
    means = runs.groupby("width")["area_under_loss_clipped"].mean()
    for part in (
        f"{means[3.5]:.4g} nat for the widest (3.5c)",
        f"{means[2.0]:.4g} nat for the narrowest (2c)",
        "5 architectures, 2 seeds each, in one group (DARTS on CIFAR-10)",
        f"tau-b {claim.effect:.2f} (95 % interval {claim.low:.2f} to {claim.high:.2f}",
    ):
        assert part in claim.explanation.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


def test_rank_tests_compare_variants_alone_and_the_original_has_its_own() -> None:
    kinds = ("original", *("connections",) * 7, "adapted")
    widths = (4.0, *WIDTHS, 2.25, 4.5)
    values = (0.1, 6, 5, 4, 3, 2, 1, 4.5, 0.5)
    runs = runs_of("area_under_loss_clipped", values, widths=widths, kinds=kinds)
    width = find(runs, "area_under_loss_clipped")
    assert width.groups["n"].tolist() == [8]
    assert width.effect == 1
    moved = runs.assign(width=runs["width"].where(runs["kind"] != "original", 0.5))
    assert find(moved, "area_under_loss_clipped").p_value == width.p_value
    original = find(runs, "area_under_loss_clipped", "original")
    assert (original.effect, original.null, original.verdict) == (1.0, 0.5, "exploratory")
    assert original.p_value == pytest.approx(2 / 9)
    assert "A search picked the original because it trained well" in original.explanation
    assert original.groups["n"].tolist() == [9]


def test_without_an_original_its_rank_has_no_data() -> None:
    claim = find(
        runs_of("area_under_loss_clipped", [6, 5, 4, 3, 2, 1]), "area_under_loss_clipped", "original"
    )
    assert claim.verdict == "no data"
    assert "it needs an original and three of its variants" in claim.explanation


def test_predictors_are_also_tested_given_the_others_and_that_decides_nothing() -> None:
    rng = np.random.default_rng(0)
    frames = []
    for family in ("enas", "nasnet", "amoebanet", "darts_v2"):
        widths = rng.choice(WIDTHS, 13)
        frame = runs_of("final_accuracy", widths + 0.3 * rng.normal(size=13), family=family, widths=widths)
        frame = frame.assign(depth=rng.integers(2, 6, 13), network_path=40 - 5 * widths + rng.normal(size=13))
        frames.append(frame.assign(live_parameters=rng.integers(2_000_000, 4_000_000, 13)))
    runs = pd.concat(frames)
    others = ("depth", "mean path", "live parameters")
    claim = find(runs, "final_accuracy", given=others)
    assert (claim.verdict, claim.primary) == ("exploratory", False)
    assert claim.effect_name == "partial rank correlation"
    assert claim.low > 0
    path = find(runs, "final_accuracy", "path", given=("width", "depth", "live parameters"))
    assert path.low < 0 < path.high
    assert find(runs, "final_accuracy", "path").low > 0.4
    alone = find(runs, "final_accuracy")
    assert alone.primary
    assert "Width goes together with mean path (rank correlation" in alone.explanation
    assert "Width goes together" not in claim.explanation


def test_generalisation_is_tested_on_regularised_and_unregularised_runs_apart() -> None:
    rising, falling = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    plain = runs_of("final_accuracy", rising)
    regularized = runs_of("final_accuracy", falling).assign(regularized=True)
    both = pd.concat([plain, regularized])
    assert find(both, "final_accuracy").effect == 1
    assert find(both, "final_accuracy", kind="regularized").effect == -1
    unknown = plain.assign(regularized=pd.Series([None] * 6, dtype=object))
    claim = find(unknown, "final_accuracy")
    assert claim.effect == 1
    assert "It is not known whether 6 of the architectures were trained with" in claim.explanation


def test_the_error_stands_in_where_no_run_has_losses() -> None:
    runs = runs_of("mean_error", [0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    claim = find(runs, "mean_error")
    assert claim.primary
    assert "No run of this study has the mean test loss over the training (cut at chance" in claim.explanation
    some = runs.assign(area_under_loss_clipped=[1.0, *[math.nan] * 5])
    assert not find(some, "mean_error").primary
    columns = [one.statistic.column for one in claims.examine_claims(runs, resamples=9) if one.primary]
    assert columns.count("mean_error") == 3
    assert "area_under_loss_clipped" not in columns


THEOREM = "gradient_variance_train.mean_log.center_normalized_variance"


def test_theorem_4_1_is_tested_at_a_given_loss() -> None:
    """Wide cells have a smaller loss and for it a smaller variance; at one loss width says nothing."""
    rng = np.random.default_rng(0)
    frames = []
    for family in ("enas", "nasnet", "amoebanet", "darts_v2"):
        widths = rng.choice(WIDTHS, 13)
        loss = -widths + 0.5 * rng.normal(size=13)
        frame = runs_of(THEOREM, loss + 0.3 * rng.normal(size=13), family=family, widths=widths)
        frames.append(frame.assign(**{"gradient_variance_train.mean_log.center_loss": loss}))
    runs = pd.concat(frames)
    claim = find(runs, THEOREM, given=("the loss",))
    assert claim.primary
    assert claim.low < 0 < claim.high
    assert ", given the loss: partial rank correlation" in claim.explanation
    without = runs.drop(columns="gradient_variance_train.mean_log.center_loss")
    lacking = find(without, THEOREM, given=("the loss",))
    assert lacking.verdict == "no data"
    assert "no run has the loss" in lacking.explanation


def test_the_noise_of_directions_widens_the_interval_and_is_said() -> None:
    rng = np.random.default_rng(0)
    widths = rng.choice(WIDTHS, 13)
    runs = runs_of("loss_profile.mean_rise", 9 - widths + 0.1 * rng.normal(size=13), widths=widths)
    sharp = find(runs, "loss_profile.mean_rise")
    noisy = runs.assign(**{"loss_profile.mean_rise.sd": 2.0, "loss_profile.direction_seeds": 4})
    claim = find(noisy, "loss_profile.mean_rise")
    assert (claim.effect, claim.p_value) == (sharp.effect, sharp.p_value)
    assert claim.low < sharp.low - 0.1
    between = noisy.groupby("genotype")["loss_profile.mean_rise"].mean().std(ddof=1)
    assert f"directions is {100 * 1.0 / between:.0f} % of the spread" in claim.explanation
    # The seeds of a training have directions of their own: twice as many halve the variance.
    two = pd.concat([noisy, noisy.assign(seed=1)])
    table = take_sample(two, "loss_profile.mean_rise", ("connections",)).table
    assert table["direction_noise"].to_numpy() == pytest.approx(0.5)
    single = take_sample(
        noisy.assign(**{"loss_profile.direction_seeds": 1}), "loss_profile.mean_rise", ("connections",)
    )
    assert single.table["direction_noise"].isna().all()


def test_of_cells_that_a_pool_was_drawn_of_it_is_said_that_operations_vary() -> None:
    rng = np.random.default_rng(0)
    widths = rng.choice(WIDTHS, 120)
    runs = runs_of(
        "final_accuracy",
        widths + rng.normal(size=120),
        family="DARTS space",
        widths=widths,
        kinds=["sampled"] * 120,
    ).assign(regularized=True, live_parameters=rng.integers(2_000_000, 4_000_000, 120))
    claim = find(runs, "final_accuracy", kind="regularized")
    assert claim.sampled
    assert claim.test == "normal approximation of all permutations"
    assert "width may stand for operations and parameters" in claim.explanation
    tested = claims.examine_claims(runs, resamples=99)
    mine = [one for one in tested if one.key == "generalization"]
    sentence = say(
        "short",
        claims=[one for one in mine if one.primary],
        others=[one for one in mine if not one.primary],
    )
    assert "and width may go with them: given depth and live parameters, its partial rank" in sentence
