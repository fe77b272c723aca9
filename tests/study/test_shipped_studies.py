"""Every shipped study is what the paper did, and its runs are commands that the program takes."""

from __future__ import annotations

import itertools
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml
from PIL import Image

from nas_lightning.cells import count_parameters, get_genotype, published_genotypes, topology
from nas_lightning.cells.published import SECTION4_CELLS
from nas_lightning.cells.variants import table3_spec
from nas_lightning.cli.resolve import resolve
from nas_lightning.identity import identity_hash
from nas_lightning.study.architectures import figure2_number
from nas_lightning.study.read import read_study
from nas_lightning.study.study import Run
from tests.study.shipped import CONFIGS, read, shipped

SMALL = ("quickstart", "digits", "initialisation", "small", "small_figure4")
REAL = ("cifar10_small", "cifar10_gpu", "landscape")
STUDIES = sorted((CONFIGS / "studies").glob("*.yaml"))
SEEDS = 3
FAMILIES = ("darts_v2", "enas", "amoebanet", "nasnet")


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images that two studies train on: a plan looks at the folder."""
    for split, number in itertools.product(("train", "test"), range(10)):
        folder = tmp_path / "data" / "cifar10_jpeg" / split / str(number)
        folder.mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / "0.jpg")
    monkeypatch.chdir(tmp_path)


def labels(name: str) -> list[str]:
    return list(dict.fromkeys(run.architecture.label for run in shipped(name).runs))


def stems(name: str) -> set[tuple[str, ...]]:
    return {tuple(analysis.stem for analysis in run.analyses) for run in shipped(name).runs}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_is_named_as_its_file_and_trains_nothing_twice(path: Path) -> None:
    study = read(path)
    assert study.name == path.stem
    of_paper = "paper" if study.name not in REAL else study.name.replace("_", "-")
    small = f"{study.name.partition('_')[0]}-study"
    assert study.experiment == (small if study.name in SMALL else of_paper)
    identities = {identity_hash(run.deciding) for run in study.runs}
    assert len(identities) == len(study.runs) == len({run.name for run in study.runs}) > 0
    seeds = {"quickstart": 2, "small": 1, "small_figure4": 1}.get(study.name, SEEDS)
    assert len({run.seed for run in study.runs}) == seeds


def test_the_whole_paper_counted_by_hand() -> None:
    originals = 4
    connections = 4 * 13  # table 2, with figures 9 and 13 to 24 among them
    operations = 4 * 10  # table 3, figures 5 and 12
    snas = 1 + 13  # figures 1, 11 and 25
    section4 = 4  # the authors' C1 to C4 of figures 2, 3, 6 to 8
    cifar100 = 1 + 4  # figures 3, 6 and 8: the DARTS cell and section 4's C1 to C4
    figure4 = 3 * 2 * 2  # three cells, two learning rates, two data sets
    table1 = 5 * 2 * 3  # five cells, original and adapted, three data sets, regularised
    trainings = originals + connections + operations + snas + section4 + cifar100 + figure4 + table1
    assert trainings == 161
    runs = shipped("paper").runs
    assert len(runs) == SEEDS * trainings == 483
    data = Counter(run.data for run in runs)
    assert data["CIFAR10"] == SEEDS * (4 + 52 + 40 + 14 + 4 + 6 + 10)
    assert data["CIFAR100"] == SEEDS * (5 + 6 + 10)
    assert data["TinyImageNet"] == SEEDS * 10


def test_the_paper_s_measurements_counted_by_hand() -> None:
    # Figures 6 to 8 and 17 to 24: 56 + 4 cells on CIFAR-10 and 5 on CIFAR-100 have both.
    counted = Counter(tuple(a.stem for a in run.analyses) for run in shipped("paper").runs)
    assert counted == {
        ("gradient_variance", "loss_contour", "loss_profile"): SEEDS * 65,
        (): 483 - SEEDS * 65,
    }


@pytest.mark.parametrize(
    "path", [p for p in STUDIES if p.stem not in ("paper", "census", "intervention", *SMALL, *REAL)]
)
def test_the_paper_s_studies_are_parts_of_the_whole(path: Path) -> None:
    whole = {run.name: run for run in shipped("paper").runs}
    for run in read(path).runs:
        assert run.folder == whole[run.name].folder
        assert set(run.analyses) <= set(whole[run.name].analyses)
    content = yaml.safe_load((CONFIGS / "studies" / "paper.yaml").read_text())
    assert path.name in content["include"]


def test_every_study_trains_as_the_paper_says() -> None:
    for run in shipped("paper").runs:
        settings = run.settings
        assert run.epochs == (300 if run.data == "TinyImageNet" else 600)
        assert settings["model.stem_stride"] == (2 if run.data == "TinyImageNet" else 1)
        sizes = (
            settings["model.init_channels"],
            settings["model.num_cells"],
            settings["data.init_args.batch_size"],
        )
        assert sizes == (36, 20, 80)
        keys = ("model.drop_path", "model.auxiliary_weight", "data.init_args.cutout")
        assert tuple(settings[key] for key in keys) in ((0, 0, 0), (0.2, 0.4, 16))
    regularised = {run.name for run in shipped("paper").runs if run.settings["data.init_args.cutout"]}
    assert regularised == {run.name for run in shipped("table1").runs}


def test_figures_2_to_8_have_section_4_s_variants() -> None:
    for name in ("figure3", "figure6", "figures7-8"):
        runs = [run for run in shipped(name).runs if run.seed == 0 and run.data == "CIFAR100"]
        assert [figure2_number(run.architecture) for run in runs] == [None, "C1", "C2", "C3", "C4"]
        assert {run.data for run in shipped(name).runs} == {"CIFAR10", "CIFAR100"}
        assert {run.learning_rate for run in shipped(name).runs} == {0.025}
    figure4 = shipped("figure4").runs
    assert {figure2_number(run.architecture) for run in figure4} == {None, "C1", "C3"}
    assert {run.learning_rate for run in figure4} == {0.0025, 0.25}


def test_other_figures_have_their_cells_and_measurements() -> None:
    operations = [table3_spec(base, number) for base in FAMILIES for number in range(1, 11)]
    assert operations[4:6] == ["darts_ops5", "darts_v2:operations=6"]
    assert set(labels("figure5")) == {*FAMILIES, *operations}
    connections = {f"{base}:C{number}" for base in FAMILIES for number in range(1, 14)}
    for name in ("figure9", "figures17-20", "figures21-24"):
        assert set(labels(name)) == {*FAMILIES, *connections}
    assert connections - set(labels("figures13-16")) == {f"{base}:C13" for base in FAMILIES}
    names = ["nasnet", "amoebanet", "enas", "darts_v2", "snas_mild"]
    assert set(labels("table1")) == {*names, *(f"{name}:adapted" for name in names)}
    for name in ("figure3", "figure4", "figure5", "figure9", "figures13-16", "snas", "table1"):
        assert stems(name) == {()}
    assert stems("figure6") == stems("figures17-20") == {("loss_contour", "loss_profile")}
    assert stems("figures7-8") == stems("figures21-24") == {("gradient_variance",)}


def test_snas_has_the_widths_and_depths_of_figure_11() -> None:
    cells = {run.architecture.variant: run.architecture for run in shipped("snas").runs}
    variants = [cells[f"connections={seed}"] for seed in (4, 3, 1, 2)]
    assert [(cell.width, cell.depth) for cell in variants] == [(3.5, 3), (3, 3), (2.5, 4), (2, 5)]
    assert sum(run.architecture.family == "snas_mild" for run in shipped("snas").runs) == SEEDS * 14


def test_the_intervention_holds_one_quantity_and_varies_another() -> None:
    cells = {run.architecture.variant: run.architecture.genotype for run in shipped("intervention").runs}
    original = cells.pop("original")
    found = [topology(cell) for cell in cells.values()]
    paths, widths = found[:6], found[6:]
    assert {(one.width, one.depth) for one in paths} == {(2.5, 4)}
    assert [round(one.network_path or 0, 1) for one in paths] == [36.1, 38.6, 41.5, 44.6, 48.2, 50.9]
    assert {one.depth for one in widths} == {4}
    assert [one.width for one in widths] == [2, 2.5, 3]
    assert all(abs((one.network_path or 0) - 40) < 0.2 for one in widths)
    sizes = {count_parameters(cell, live=True) for cell in cells.values()}
    assert len(sizes) == 1
    assert {cell.reduce for cell in cells.values()} == {original.reduce}


def test_the_census_has_twenty_wirings_of_each_space() -> None:
    runs = [run for run in shipped("census").runs if run.seed == 0]
    kinds = Counter((run.architecture.kind, len(run.architecture.genotype.normal) // 2) for run in runs)
    assert kinds["connections", 4] == kinds["connections", 5] == 20
    assert kinds.total() == len(runs) == len(labels("census"))
    landscape = ("gradient_variance", "hessian_spectrum", "loss_contour", "loss_profile")
    assert stems("census") == {landscape}
    training = ("gradient_variance_train", "hessian_spectrum_train")
    assert stems("intervention") == {tuple(sorted(landscape + training))}
    paper = {run.name for run in shipped("paper").runs}
    assert {run.name for run in runs if run.architecture.label in FAMILIES} <= paper


def test_the_example_of_the_documentation_is_a_study(tmp_path: Path) -> None:
    shutil.copytree(CONFIGS, tmp_path / "configs")
    text = (CONFIGS.parent / "docs" / "studies.md").read_text()
    [example] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "configs" / "studies" / "mine.yaml"
    path.with_name("study.yaml").write_text(example)
    path.write_text(str(get_genotype("darts_v2:connections=1234")))
    study = read_study(path.with_name("study.yaml"))
    five_nodes = [
        entry for entry in published_genotypes().values() if entry.genotype.normal.counts == (2,) * 5
    ]
    assert len(study.runs) == (14 + 5 + 1 + len(five_nodes)) * 2 * 2 * 3 * 2
    assert {run.epochs for run in study.runs} == {50}
    assert {analysis.stem for analysis in study.runs[0].analyses} == {
        "loss_contour",
        "loss_profile",
        "gradient_variance",
        "hessian_spectrum",
    }


def test_names_of_runs_stay_what_they_are() -> None:
    # A name that changes leaves all finished runs of a study behind.
    names = {run.architecture.label: run.name for run in shipped("quickstart").runs[:8]}
    assert names["darts_v2"] == "darts_v2-digits-lr0.1-seed0-653ea657"
    assert names["darts_v2:C4"] == "darts_v2-C4-digits-lr0.1-seed0-35d92b9e"
    paper = [run.name for run in shipped("table1").runs if run.seed == 0]
    assert paper[0] == "nasnet-cifar10-lr0.025-seed0-fa62d390"


def test_the_quick_start_spreads_over_the_widths() -> None:
    runs = shipped("quickstart").runs
    assert len(runs) == 16
    assert {run.data for run in runs} == {"Digits"}
    assert {run.architecture.width for run in runs} == {2, 2.5, 3, 3.5}
    assert stems("quickstart") == {
        ("gradient_variance", "loss_contour", "loss_line", "loss_profile", "spectral_density", "trajectory")
    }


def test_the_small_study_of_section_4_trains_the_authors_cells() -> None:
    runs = shipped("digits").runs
    assert labels("digits") == ["darts_v2", *SECTION4_CELLS.values()]
    assert len(runs) == 5 * SEEDS
    assert {run.data for run in runs} == {"Digits"}
    assert {"gradient_variance", "loss_contour"} < set(*stems("digits"))  # figures 6, 7 and 8


@pytest.mark.parametrize(
    "path", [p for p in STUDIES if not p.stem.startswith("small")], ids=lambda path: path.stem
)
def test_surfaces_have_five_pairs_of_directions(path: Path) -> None:
    for run in read(path).runs:
        for analysis in run.analyses:
            arguments = analysis.settings["init_args"]
            if arguments.get("resolution") and "direction_seeds" in arguments:
                is_costly = analysis.stem == "gradient_variance" and path.stem in REAL[:2]
                pairs = 1 if analysis.stem == "curvature_map" else 3 if is_costly else 5
                assert arguments["direction_seeds"] == list(range(pairs))


def command(run: Run) -> tuple[str, ...]:
    """Arguments without what only tells runs of one kind apart."""
    arguments = list(run.arguments)
    for key in ("--model.genotype", "--seed_everything", "--run"):
        at = arguments.index(key)
        del arguments[at : at + 2]
    return tuple(arguments)


@pytest.mark.slow
def test_the_program_understands_every_kind_of_command_as_planned() -> None:
    kinds = {command(run): run for path in STUDIES for run in read(path).runs}
    for run in kinds.values():
        settings, deciding = resolve(run.arguments)
        assert deciding == run.deciding
        callbacks = settings["trainer"]["callbacks"] or []
        analyses = [one for one in callbacks if "ModelCheckpoint" not in one["class_path"]]
        assert analyses == [analysis.settings for analysis in run.analyses]
        keeps = any(analysis.stem == "trajectory" for analysis in run.analyses)
        assert len(callbacks) - len(analyses) == keeps  # the checkpoints of its path
        assert settings["data"]["class_path"] == f"nas_lightning.datamodules.{run.data}"
        assert (settings["run"], settings["model"]["genotype"]) == (run.name, run.architecture.spec)


def test_the_initialisation_trains_next_to_nothing() -> None:
    study = shipped("initialisation")
    cells = ["darts_v2", *(f"darts_conn{number}" for number in range(1, 5))]
    assert labels("initialisation") == cells
    assert stems("initialisation") == {("gradient_variance", "hessian_spectrum")}
    for run in study.runs:
        assert (run.data, run.epochs) == ("Digits", 1)
        assert run.settings["model.num_cells"] == 20
        assert run.settings["model.init_channels"] == 8
        assert run.limited_batches(40) == 2
        assert [analysis.measured_after(run.epochs) for analysis in run.analyses] == [(0,), (0,)]


def test_the_small_study_has_every_cell_of_the_paper() -> None:
    section4 = {*SECTION4_CELLS.values()}
    of_paper = set(labels("paper")) - {f"snas_mild:connections={seed}" for seed in range(14)}
    assert of_paper | section4 <= {"snas_mild", *labels("small")}
    rates = {run.learning_rate for run in shipped("small").runs}
    assert rates == {0.0025, 0.1, 0.25}
    assert {run.data for run in shipped("small").runs} == {"Digits"}
