"""The check of `study power` by the report draws what it says, and keeps what it found."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import record, study_power


def test_the_report_s_share_of_small_p_values_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    options = ["--studies=1", "--resamples=99", "--planned=100", "--processes=1"]
    study_power.main([*options, "--predictors", "original"])
    kept = json.loads((tmp_path / "study_power.json").read_text())
    assert set(kept["stated"]) == {"original"}
    share = kept[f"original {kept['stated']['original']:.3g}"]
    assert share["share"] in {0.0, 1.0}
    assert share["low"] <= share["share"] <= share["high"]
    names = {f"no effect, {name}" for name in ("width", "depth", "path", "original", "kind", "adaptation")}
    assert names | {"no effect, any verdict"} <= set(kept)
    assert kept["no effect, width"]["studies"] == 2
    assert "of 2 studies" in capsys.readouterr().out


def test_an_effect_that_none_misses_has_a_small_p_value() -> None:
    found = study_power.examine(99, ("width", 0.85), 0)
    assert found["width"] <= 0.05
    assert found["verdicts"] >= 1


def test_studies_have_the_tau_that_was_asked_for() -> None:
    taus = []
    for seed in range(25):
        runs = study_power.draw("depth", 0.6, seed)
        cells = runs[runs["kind"] == "connections"].groupby(["family", "genotype"])
        table = cells.agg({"depth": "first", "mean_error": "mean"})
        taus += [
            stats.kendalltau(group["depth"], group["mean_error"]).statistic
            for _, group in table.groupby("family")
        ]
    # The seeds' noise, 1.1 / sqrt(3) of 3.1 points, takes a little off.
    error = float(np.std(taus)) / math.sqrt(len(taus))
    assert np.mean(taus) == pytest.approx(0.58, abs=0.02 + 3 * error)


def test_kinds_and_pairs_differ_by_what_was_asked_for() -> None:
    logs = []
    for seed in range(25):
        runs = study_power.draw("kind", 4.0, seed)
        means = runs.groupby(["kind", "genotype"], sort=False)["mean_error"].mean()
        logs.append(np.log(means.groupby("kind").std()))
    table = np.exp(np.mean([[one["connections"], one["operations"]] for one in logs], axis=0))
    # Of 3.1 / 4 points with 1.1 / sqrt(3) of the seeds.
    assert table[0] / table[1] == pytest.approx(math.hypot(3.1, 0.635) / math.hypot(3.1 / 4, 0.635), rel=0.2)
    pairs = study_power.draw("adaptation", 300.0, 0)
    errors = pairs[pairs["regularized"]].groupby("kind")["final_error_percent"].mean()
    assert math.log(errors["original"] / errors["adapted"]) == pytest.approx(0.3, abs=0.01)


def test_no_number_is_below_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        study_power.main(["--studies", "0"])
    assert "every number must be at least 1" in capsys.readouterr().err
