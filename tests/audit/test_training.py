"""The study of an audit: its files, its runs, and what is said of them."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nas_lightning.audit.controls import Controls, matched_controls
from nas_lightning.audit.document import validate
from nas_lightning.audit.ranks import compare
from nas_lightning.audit.referee import sentences
from nas_lightning.audit.study import Budget, write_study
from nas_lightning.audit.subjects import Subject
from nas_lightning.audit.training import Training, training_comparison
from nas_lightning.cells import Genotype, genotype_slug, get_genotype
from nas_lightning.identity import differing_settings
from nas_lightning.report.controls import detectable_difference
from nas_lightning.report.power import Noise
from nas_lightning.report.resampling import holm
from nas_lightning.study import resolve
from nas_lightning.study.executors import LocalExecutor
from nas_lightning.study.resolve import resolve_settings
from nas_lightning.study.results import collect_results
from nas_lightning.study.run import run_study
from nas_lightning.study.study import Study
from nas_lightning.yaml_files import read_mapping
from tests.cli.commands import command, environment
from tests.cli.test_study import wait_for
from tests.study.run_files import write_run

CONFIGS = Path(__file__).parents[2] / "configs"
SETTINGS = {"model.num_cells": 6, "data.batch_size": 48, "trainer.max_epochs": 4}
"""Those of the runs that `write_run` writes."""
BUDGET = Budget(1, (0, 1), settings=SETTINGS)
COUNT = 4


@pytest.fixture(autouse=True)
def kept_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "settings"
    monkeypatch.setattr(resolve, "_cache_folder", lambda: folder)


def subject_of(spec: str, name: str | None = None) -> Subject:
    return Subject(name or genotype_slug(spec), spec, get_genotype(spec))


def controls_of(genotype: Genotype, count: int = COUNT, seed: int = 0) -> Controls:
    return matched_controls(genotype, count, seed=seed, init_channels=8, num_cells=6)


DARTS = subject_of("darts_v2")
CONTROLS = controls_of(DARTS.genotype)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write_trained(study: Study, cells: Mapping[Genotype, Sequence[Sequence[float]]], **more: Any) -> None:
    """Write finished runs with curves of accuracy, one a seed; the loss falls as the accuracy rises."""
    for run in study.runs:
        curves = cells.get(run.architecture.genotype, ())
        if run.seed < len(curves):
            curve = curves[run.seed]
            losses = [math.nan if math.isnan(value) else 3 * (1 - value) for value in curve]
            write_run(
                run.folder,
                spec=str(run.architecture.genotype),
                seed=run.seed,
                accuracy=[0.1 if math.isnan(value) else value for value in curve],
                loss=losses,
                train_loss=losses,
                stems=(),
                **more,
            )


def test_a_study_names_every_cell_by_a_file_of_its_own_and_shares_runs(tmp_path: Path) -> None:
    variant = subject_of("darts_v2:connections=7")
    taken = dataclasses.replace(subject_of("darts_v2:C4"), name="enas")
    long = dataclasses.replace(subject_of("darts_v2:C5"), name="cell_" + 20 * "long")
    # Cells of one class have controls in common; a control of one may be the other.
    shared = dataclasses.replace(CONTROLS, base=variant.genotype)
    own = dataclasses.replace(
        CONTROLS, genotypes=(*CONTROLS.genotypes[:2], variant.genotype), live_parameters=(1, 1, 1)
    )
    audited = [
        (DARTS, own),
        (variant, shared),
        (taken, CONTROLS),
        (long, controls_of(long.genotype, 3, seed=1)),
    ]
    study = write_study(tmp_path, audited, BUDGET)
    before = contents(tmp_path)
    again = write_study(tmp_path, audited, BUDGET)
    assert contents(tmp_path) == before
    assert again == study
    assert sorted(before) == sorted(
        f"level_1/{name}"
        for name in (
            *("study.yaml", "defaults.yaml", "cells/darts_v2.yaml", "cells/darts_v2-connections7.yaml"),
            *("cells/enas-own.yaml", f"cells/{study.runs[3].architecture.label}.yaml"),
        )
    )
    genotypes = {run.architecture.genotype for run in study.runs}
    wanted = {
        genotype for subject, controls in audited for genotype in (subject.genotype, *controls.genotypes)
    }
    assert genotypes == wanted
    assert len(study.runs) == 2 * len(wanted) == len({run.folder for run in study.runs})
    assert study.folder == tmp_path / "level_1" / "runs"
    labels = [run.architecture.label for run in study.runs]
    assert labels[:3] == ["darts_v2", "darts_v2-connections7", "enas-own"]
    assert max(map(len, labels)) == 60
    assert f"darts_v2-{CONTROLS.wirings[0].replace('/', '-')}" in labels
    # Nothing in it names a cell but by its own file, and what a process gets is the audited cell.
    architectures = yaml.safe_load(before["level_1/study.yaml"])["axes"]["architectures"]
    assert all(one["genotype"].startswith("cells/") for one in architectures)
    for run in study.runs:
        given = run.arguments[run.arguments.index("--model.genotype") + 1]
        assert get_genotype(given) == run.architecture.genotype
        assert len(run.name) <= 120


@pytest.mark.parametrize("level", [1, 2])
def test_a_budget_is_the_levels_own_under_configurations_under_settings(tmp_path: Path, level: int) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("model: {num_cells: 4, init_channels: 6}\n")
    budget = Budget(level, (5,), "FashionMNIST", (config,), {"model.init_channels": 7})
    settings = budget.resolved()
    assert str(settings["data.class_path"]).endswith("FashionMNIST")
    assert (settings["model.num_cells"], settings["model.init_channels"]) == (4, 7)
    assert settings["model.optimizer.init_args.lr"] == (0.1 if level == 1 else 0.025)
    assert len(settings["trainer.callbacks"] or ()) == (0 if level == 1 else 4)
    study = write_study(tmp_path / "audit", [(DARTS, CONTROLS)], budget)
    assert {run.seed for run in study.runs} == {5}
    for run in study.runs:
        assert differing_settings(settings, run.settings) == [
            "another genotype",
            "seed_everything 5, planned 0",
        ]
        assert [one.stem for one in run.analyses] == (
            [] if level == 1 else ["gradient_variance", "hessian_spectrum", "loss_contour", "loss_profile"]
        )


def test_level_2_is_the_papers_training_with_what_it_measures_at_convergence() -> None:
    files = [CONFIGS / "base.yaml", CONFIGS / "landscape.yaml"]
    arguments = ["fit", *(part for file in files for part in ("--config", str(file)))]
    paper = resolve_settings([*arguments, "--model.genotype", "darts_v2"], files).settings
    found = Budget(2).resolved()
    free = ("config", "seed_everything", "data.init_args.root")
    assert {key: value for key, value in found.items() if key not in free} == {
        key: value for key, value in paper.items() if key not in free
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"level": 0}, "`level` (=0) must be 1 or 2: level 0 trains nothing"),
        ({"seeds": ()}, "`seeds` (=[]) must be one or more different numbers"),
        ({"seeds": (1, 1)}, "`seeds` (=[1, 1]) must be one or more different numbers"),
        ({"seeds": (-1,)}, "`axes: seeds`: -1 must be a number from 0 to 2**32 - 1"),
        ({"configs": (Path("none.yaml"),)}, "`config` (=none.yaml) is not a file"),
        (
            {"settings": {"model.genotype": "enas"}},
            "`model.genotype` (=enas) must be left out: an audit sets it itself",
        ),
        ({"settings": {"model.depth": 3}}, "model.depth"),
        ({"settings": {"model.init_channels": "many"}}, "init_channels"),
        ({"settings": {"mode.num_cells": 3}}, "'mode.num_cells' must be a setting of `model`, `data`"),
        ({"data": "Digit"}, "Digit"),
    ],
    ids=str,
)
def test_what_is_wrong_ends_in_a_line_and_leaves_nothing(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "audit"
    with pytest.raises((ValueError, OSError), match=r"\A[^\n]+\Z") as caught:
        write_study(folder, [(DARTS, CONTROLS)], Budget(**{"level": 1, **wrong}))
    assert message in str(caught.value)
    assert "study.yaml" not in str(caught.value)
    assert not folder.exists()


def test_a_study_without_cells_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^there is no cell to audit$"):
        write_study(tmp_path, [], BUDGET)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_study(tmp_path_factory.mktemp("planned"), [(DARTS, CONTROLS)], BUDGET)


@pytest.fixture
def study(planned: Study, tmp_path: Path) -> Study:
    """The same study with its runs in an empty folder."""
    runs = tuple(dataclasses.replace(run, folder=tmp_path / "runs" / run.name) for run in planned.runs)
    return dataclasses.replace(planned, root=tmp_path, runs=runs)


def compared(study: Study, budget: Budget = BUDGET) -> Training | None:
    return training_comparison(collect_results(study), DARTS, CONTROLS, budget)


def found(study: Study) -> Training:
    training = compared(study)
    assert training is not None
    check(training.record())
    return training


def check(record: dict[str, Any]) -> None:
    """Refuse a record that the document's schema has no place for, or that is no JSON."""
    validate(json.loads(json.dumps(record, allow_nan=False)), "training")


ENDS = [[0.6, 0.7, 0.8, end] for end in (0.93, 0.90, 0.94, 0.91)]


def trained(own: Sequence[Sequence[float]]) -> dict[Genotype, Sequence[Sequence[float]]]:
    cells = {genotype: [curve, curve] for genotype, curve in zip(CONTROLS.genotypes, ENDS, strict=True)}
    return {DARTS.genotype: own, **cells}


def test_a_cell_is_ranked_by_its_mean_over_seeds(study: Study) -> None:
    write_trained(study, trained([[0.2, 0.4, 0.6, 0.96], [0.2, 0.4, 0.6, 0.91]]))
    training = found(study)
    record = training.record()
    accuracy, convergence = record["quantities"]
    assert accuracy["own"] == pytest.approx([96.0, 91.0])
    assert accuracy["own_mean"] == pytest.approx(93.5)
    assert accuracy["controls"] == pytest.approx([93.0, 90.0, 94.0, 91.0])
    assert (accuracy["rank"], accuracy["of"], accuracy["p_value"]) == (2, 5, 0.4)
    # With the second seed alone 0.91 is a tie, which counts against the cell.
    assert accuracy["ranks_by_seed"] == [1, 4]
    assert accuracy["difference"] == pytest.approx(1.5)
    assert accuracy["seed_sd"] == pytest.approx(math.sqrt(12.5 / 5))
    assert accuracy["controls_sd"] == pytest.approx(np.std([93, 90, 94, 91], ddof=1))
    assert accuracy["label"] == "final test accuracy"
    assert convergence["column"] == "area_under_loss_clipped"
    assert (convergence["rank"], convergence["p_value"]) == (5, 1.0)
    assert record["badge"] == training.badge == "level 1: rank 2 of 5, p = 0.4"
    assert record["runs"] == {"finished": 10, "planned": 10}
    assert (record["data"], record["epochs"], record["seeds"]) == ("Digits", 4, [0, 1])
    assert record["settings"]["model.num_cells"] == 6
    assert record["budget"]["rank_by_epoch"] == [5, 5, 5, 2]
    assert (
        record["budget"]["by_epoch"][-1]["picked"] == training.record()["quantities"][0]["control_names"][2]
    )
    assert record["curves"]["epochs"] == [1, 2, 3, 4]
    assert record["curves"]["own"]["accuracy"][1] == pytest.approx([0.2, 0.4, 0.6, 0.91])
    assert record["curves"]["controls"]["loss"][0] == pytest.approx([3 * (1 - value) for value in ENDS[0]])
    # Four controls reach no p-value of 5 %, whatever the difference.
    assert record["detectable"]["difference"] is None
    assert record["missing"] == []


def test_the_sentences_answer_the_question_first(study: Study) -> None:
    write_trained(study, trained([[0.2, 0.4, 0.6, 0.96], [0.2, 0.4, 0.6, 0.91]]))
    said = found(study).record()["sentences"]
    assert said[0] == (
        "Would a random cell with the same operations and size have done as well? 1 of the 4 that were "
        "trained did: in final accuracy this cell has rank 2 of 5 (p = 0.4). With 4 controls no p-value can "
        "be below 0.2: they are too few to tell it from a random cell."
    )
    assert said[1].startswith(
        "Its final accuracy is 93.50 %, that of its controls 92.00 % on average: a difference of 1.50 points "
        "(95 % interval "
    )
    assert "It beats 3 of its 4 controls; of all such random cells that is 19 to 100 %" in said[1]
    assert said[2].startswith("A second look, not corrected for being the second: in the mean test loss")
    assert "rank 5 of 5 (p = 1), 1.374 nat against 0.735 nat on average." in said[2]
    assert said[-1].startswith(
        "All of this holds for one training budget (4 epochs on Digits, 6 cells, 8 init"
    )
    for sentence in said:
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert "  " not in sentence


def test_ties_are_said_wherever_they_count(study: Study) -> None:
    write_trained(study, trained([ENDS[0], ENDS[0]]))
    verdict, effect, second, *_ = found(study).record()["sentences"]
    assert "1 tie counted against it" in verdict
    assert "(95 % interval, ties as halves)" in effect
    assert "1 tie counted against it" in second


def test_what_diverged_counts_and_what_is_missing_is_said(study: Study) -> None:
    nothing = [math.nan] * 4
    cells = trained([nothing, nothing])
    first, second = CONTROLS.genotypes[:2]
    cells |= {first: [ENDS[0]], second: []}
    write_trained(study, cells)
    training = found(study)
    record = training.record()
    assert record["quantities"][0]["rank"] == record["quantities"][1]["rank"] == 4
    assert record["quantities"][0]["of"] == 4
    assert [name.split("-digits")[0] for name in record["diverged"]] == ["darts_v2", "darts_v2"]
    assert record["curves"]["own"]["loss"] == [[None] * 4] * 2
    assert record["runs"] == {"finished": 7, "planned": 10}
    assert record["controls"] == 3
    assert len(record["missing"]) == 3
    assert all("not started" in line for line in record["missing"])
    said = " ".join(record["sentences"])
    assert "All of the 3 that were trained did" in said
    assert "2 trainings learnt nothing and count with what they reached: darts_v2-digits" in said
    assert "3 of 10 trainings are missing; the others are compared, each cell by the seeds it has." in said
    assert training.badge == "level 1: rank 4 of 4, p = 1, 3 of 10 trainings missing"
    assert "1 of 4 controls has no finished training." in said


def test_what_is_evaluated_on_a_validation_split_is_called_so(study: Study) -> None:
    write_trained(study, trained([ENDS[0]]), split="val")
    training = found(study)
    assert training.record()["split"] == "val"
    labels = [quantity.measure.label for quantity in training.quantities]
    assert labels[0] == "final validation accuracy"
    assert labels[1].startswith("mean validation loss over")


def test_nothing_is_compared_before_there_are_three_controls(study: Study) -> None:
    assert compared(study) is None
    cells = trained([ENDS[0]])
    write_trained(
        study, {genotype: cells[genotype] for genotype in (DARTS.genotype, *CONTROLS.genotypes[:2])}
    )
    assert compared(study) is None
    write_trained(study, {genotype: cells[genotype] for genotype in CONTROLS.genotypes[2:3]})
    assert compared(study) is not None
    other = subject_of("enas")
    with pytest.raises(ValueError, match=r"^the study does not train Genotype"):
        training_comparison(collect_results(study), other, CONTROLS, BUDGET)


def test_what_it_could_have_found_follows_from_its_own_spread(tmp_path: Path) -> None:
    controls = controls_of(DARTS.genotype, 19)
    budget = dataclasses.replace(BUDGET, seeds=(0, 1))
    study = write_study(tmp_path, [(DARTS, controls)], budget)
    generator = np.random.default_rng(0)
    ends = 0.9 + generator.normal(0, 0.01, (20, 1)) + generator.normal(0, 0.005, (20, 2))
    ends[0] = 0.99
    cells = (DARTS.genotype, *controls.genotypes)
    write_trained(
        study, {cell: [[0.5, 0.6, 0.7, end] for end in own] for cell, own in zip(cells, ends, strict=True)}
    )
    training = training_comparison(collect_results(study), DARTS, controls, budget)
    assert training is not None
    within = 1e4 * ends.var(axis=1, ddof=1).mean()
    between = 1e4 * ends[1:].mean(axis=1).var(ddof=1)
    noise = Noise(math.sqrt(within), math.sqrt(between - within / 2))
    assert training.detectable == pytest.approx(detectable_difference(noise, 19, 2), rel=1e-3)
    said = training.record()["sentences"]
    assert said[0] == (
        "Would a random cell with the same operations and size have done as well? None of the 19 that were "
        "trained did: in final accuracy this cell has rank 1 of 20 (p = 0.05). A cell that was drawn at "
        "random like its controls would have such a rank, or a better one, with a probability of at most "
        "0.05."
    )
    assert f"truly {training.detectable:.2f} points better than the mean of its controls" in " ".join(said)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (
            0.95,
            "would have such a rank, or a better one, with a probability of at most 0.05.",
        ),
        (0.905, "does not tell it from a random cell; that is absence of evidence, not evidence of absence."),
        (
            0.89,
            "would have such a rank, or a worse one, with a probability of at most 0.05.",
        ),
    ],
)
def test_a_verdict_says_no_more_than_the_rank(study: Study, own: float, said: str) -> None:
    write_trained(study, trained([[0.2, 0.4, 0.6, own]] * 2))
    training = found(study)
    accuracy = training.accuracy
    controls = {str(number): {0: 90 + number / 10} for number in range(19)}
    quantity = compare(accuracy.measure, {0: 100 * own}, controls)
    (verdict, *others) = sentences(dataclasses.replace(training, quantities=(quantity,)))
    assert said in verdict
    assert "one seed does not tell the spread between seeds" in others[0]


TINY = """
model: {init_channels: 4, num_cells: 3, stem_stride: 2}
data: {class_path: nas_lightning.datamodules.Digits, init_args: {batch_size: 64}}
trainer:
  max_epochs: 2
  limit_train_batches: 4
  limit_val_batches: 2
  accelerator: cpu
  callbacks:
    - class_path: nas_lightning.callbacks.LossProfile
      init_args: {resolution: 3, max_samples: 32, batch_size: 32, direction_seeds: [0, 1]}
    - class_path: nas_lightning.callbacks.GradientVariance
      init_args: {resolution: null, max_samples: 32, batch_size: 32}
    - class_path: nas_lightning.callbacks.HessianSpectrum
      init_args: {k: 1, smallest: 0, trace_samples: 0, normalized: true, max_samples: 16, batch_size: 16}
"""


@pytest.mark.slow
def test_a_killed_audit_of_level_2_goes_on_and_has_what_was_measured(tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    budget = Budget(2, (0,), configs=(config,))
    controls = matched_controls(DARTS.genotype, 3, init_channels=4, num_cells=3)
    study = write_study(tmp_path, [(DARTS, controls)], budget)
    arguments = ["study", "run", str(study.file), "--root", str(study.root), "--jobs", "1"]
    process = subprocess.Popen(
        command(arguments),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    first, second = (run.folder / "result.json" for run in study.runs[:2])
    wait_for(lambda: first.exists() and second.parent.exists(), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = first.stat()
    assert not second.exists()

    again = write_study(tmp_path, [(DARTS, controls)], budget)
    assert again == study
    assert run_study(again, LocalExecutor(2)) == 0
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
    training = training_comparison(collect_results(again), DARTS, controls, budget)
    assert training is not None
    record = training.record()
    check(record)
    assert record["runs"] == {"finished": 4, "planned": 4}
    assert record["missing"] == []
    assert [quantity["column"] for quantity in record["quantities"]] == [
        "final_accuracy",
        "area_under_loss_clipped",
        "loss_profile.mean_rise",
        "hessian_spectrum.normalized_largest_eigenvalue",
        "gradient_variance.center_normalized_variance",
    ]
    for quantity in record["quantities"][2:]:
        assert len(quantity["controls"]) == 3
    shown = record["quantities"][2:]
    assert [one["p_adjusted"] for one in shown] == holm([one["p_value"] for one in shown])
    assert any("At convergence, rank 1 being" in sentence for sentence in record["sentences"])
    assert read_mapping(study.root / "defaults.yaml")["trainer"]["max_epochs"] == 600
