"""Whether `study power` keeps its word: simulated results of a design, judged by the report itself.

One design with every test: two base cells with their variants, six with an adapted cell. `study power` says
which effects it detects in 80 % of studies. Then results are drawn, by a generator of their own: without any
effect, where a p-value of at most 0.05 may occur in 5 % of studies and a verdict in fewer, and with each of
the stated effects, where it should occur in 80 %. The report examines them as it does any results.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import product
from multiprocessing import get_context

import numpy as np
import pandas as pd
from scipy import optimize, stats

from benchmarks.record import write
from nas_lightning.cells import get_genotype, topology
from nas_lightning.report import examine_claims
from nas_lightning.report.effects import RankBlock
from nas_lightning.report.power import FULL, Noise, population_tau
from nas_lightning.report.study_power import PREDICTED, StudyNoise, study_power
from nas_lightning.report.uncorrected import ALPHA, SIZES, Predictor

NOISE = Noise(seed=1.1, architecture=3.1)
"""That of the small CIFAR-10 study in docs/evidence.md, in points."""
FAMILIES = ("darts_v2", "enas")
ADAPTED = (*FAMILIES, "amoebanet", "nasnet", "snas_mild", "darts_v1")
SEEDS = (0, 1, 2)
_POINT = 0.001
"""Of the logarithm of an error, for a point of accuracy: so small that logarithms and means commute."""


@cache
def design() -> pd.DataFrame:
    """The planned runs: variants of two cells without regularisation, pairs with it."""
    variants = ["original", *(f"C{n}" for n in range(1, 14)), *(f"operations={n}" for n in range(1, 7))]
    plain = [(family, variant, False) for family, variant in product(FAMILIES, variants)]
    pairs = [(family, variant, True) for family, variant in product(ADAPTED, ("original", "adapted"))]
    rows = []
    for family, variant, regularized in (*plain, *pairs):
        genotype = get_genotype(family if variant == "original" else f"{family}:{variant}")
        cell = {"genotype": str(genotype), "architecture": f"{family}:{variant}", "family": family}
        cell["kind"] = "connections" if variant.startswith("C") else variant.partition("=")[0]
        cell |= dataclasses.asdict(topology(genotype, 20))
        about = {"data": "CIFAR10", "learning_rate": 0.025, "regularized": regularized, "diverged": False}
        rows += [cell | about | {"seed": seed} for seed in SEEDS]
    return pd.DataFrame(rows)


@cache
def correlation(predictor: Predictor, tau: float) -> float:
    """The correlation of normal values with midranks at which tau is to be expected."""
    cells = design()[design()["kind"] == "connections"].drop_duplicates(["family", "genotype"])
    groups = [group[SIZES[predictor]].to_numpy(float) for _, group in cells.groupby("family")]
    blocks = [RankBlock(group, np.ones((1, group.size))) for group in groups]
    return float(optimize.brentq(lambda rho: population_tau(blocks, rho) - tau, 0, 1 - 1e-9))


def draw(predictor: Predictor | None, effect: float, seed: int) -> pd.DataFrame:
    """Results of one study with an effect of one predictor, in its unit; None is no effect of any."""
    generator = np.random.default_rng([seed, 1])
    runs = design().copy()
    rho = correlation(predictor, effect) if predictor in SIZES and effect else 0.0
    column = SIZES.get(predictor, "") if predictor else ""
    true: dict[tuple[Hashable, Hashable, str], float] = {}
    for (family, regularized), cells in runs.groupby(["family", "regularized"], sort=False):
        first = cells.drop_duplicates("genotype")
        value = NOISE.architecture * generator.normal(size=len(first))
        kind = first["kind"].to_numpy()
        if rho:
            ranked = kind == "connections"
            sign = 1 if predictor == "width" else -1
            scores = stats.zscore(stats.rankdata(sign * first[column][ranked]))
            value[ranked] *= math.sqrt(1 - rho**2)
            value[ranked] += rho * NOISE.architecture * scores
        if predictor == "kind":
            value[kind == "operations"] /= effect
        if predictor == "original" and not regularized:
            value[kind == "original"] = effect
        if predictor == "adaptation" and regularized:
            value[kind == "adapted"] += effect
        true |= {
            (family, regularized, cell): each for cell, each in zip(first["genotype"], value, strict=True)
        }
    keys = zip(runs["family"], runs["regularized"], runs["genotype"], strict=True)
    points = np.array([true[key] for key in keys]) + NOISE.seed * generator.normal(size=len(runs))
    plain = ~runs["regularized"]
    runs["mean_error"] = np.where(plain, 0.2 * np.exp(-_POINT * points), math.nan)
    runs["final_error_percent"] = np.where(plain, math.nan, 20 * np.exp(-_POINT * points))
    return runs


def examine(resamples: int, scenario: tuple[Predictor | None, float], seed: int) -> dict[str, float]:
    """P-values of a study's tests by predictor, and `verdicts`: how many claims have one."""
    claims = examine_claims(draw(*scenario, seed), resamples=resamples)
    found: dict[str, float] = {}
    for claim in claims:
        regularized, about = claim.predictor == "adaptation", claim.statistic
        column = "final_error_percent" if regularized else "mean_error"
        if about.column == column and (about.runs == "regularized") is regularized and not claim.given:
            found[claim.predictor] = claim.p_value
    directed = [claim for claim in claims if claim.primary and claim.bound is None]
    found["verdicts"] = sum(claim.verdict in {"supported", "contradicted"} for claim in directed)
    return found


def interval(share: float, studies: int) -> tuple[float, float]:
    """Wilson's 95 % interval."""
    found = stats.binomtest(round(share * studies), studies).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, print and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--studies",
        type=int,
        default=120,
        help="simulated studies of each effect; without any, twice as many",
    )
    parser.add_argument("--predictors", nargs="+", choices=PREDICTED, default=PREDICTED)
    parser.add_argument("--resamples", type=int, default=999, help="resamples of the report's tests")
    parser.add_argument(
        "--planned", type=int, default=FULL.studies, help="studies that `study power` simulates"
    )
    parser.add_argument("--processes", type=int, default=2)
    settings = parser.parse_args(arguments)
    if min(settings.studies, settings.resamples, settings.planned, settings.processes) < 1:
        parser.error("every number must be at least 1")
    effort = dataclasses.replace(FULL, studies=settings.planned)
    stated = study_power(
        design().assign(final_accuracy=math.nan),
        StudyNoise(NOISE, "stated"),
        effort=effort,
        predictors=settings.predictors,
    )
    effects = {one.predictor: one.effect.effect for one in stated.comparisons}
    scenarios = [(None, 0.0), *((name, effect) for name, effect in effects.items() if not math.isnan(effect))]
    record: dict[str, object] = {"settings": vars(settings), "stated": effects}
    with ProcessPoolExecutor(settings.processes, mp_context=get_context("spawn")) as pool:
        run: Callable[..., Iterable[dict[str, float]]] = (
            map if settings.processes == 1 else partial(pool.map, chunksize=4)
        )
        for scenario in scenarios:
            one = partial(examine, settings.resamples, scenario)
            studies = settings.studies if scenario[0] else 2 * settings.studies
            record |= _shares(scenario, pd.DataFrame(run(one, range(studies))))
    print(f"written to {write('study_power', record)}")


def _shares(scenario: tuple[Predictor | None, float], found: pd.DataFrame) -> Mapping[str, object]:
    """Print and return shares of studies with a small p-value, of every test or of the scenario's."""
    predictor, effect = scenario
    rows = {}
    if predictor is None:
        rows = {f"no effect, {name}": found[name] <= ALPHA for name in found if name != "verdicts"}
        rows["no effect, any verdict"] = found["verdicts"] > 0
    else:
        rows[f"{predictor} {effect:.3g}"] = found[predictor] <= ALPHA
    shares = {}
    for name, small in rows.items():
        share, studies = float(small.mean()), len(small)
        low, high = interval(share, studies)
        shares[name] = {"share": share, "low": low, "high": high, "studies": studies}
        print(f"{name:<24} {100 * share:5.1f} % ({100 * low:.1f} to {100 * high:.1f}) of {studies} studies")
    return shares


if __name__ == "__main__":
    main()
