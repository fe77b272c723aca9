"""Every shipped configuration parses against the real signatures and says what the paper says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nas_lightning.cells import get_genotype
from nas_lightning.yaml_files import read_mapping
from tests.cli.parsing import ParsedOnly

CONFIGS = Path(__file__).parents[1] / "configs"
OVERLAYS = [
    *sorted((CONFIGS / "data").glob("*.yaml")),
    CONFIGS / "regularized.yaml",
    CONFIGS / "small_network.yaml",
    CONFIGS / "learning_rate_0.25.yaml",
    CONFIGS / "learning_rate_0.0025.yaml",
    CONFIGS / "cluster.yaml",
    CONFIGS / "landscape.yaml",
    CONFIGS / "loss_contour.yaml",
    CONFIGS / "loss_profile.yaml",
    CONFIGS / "loss_line.yaml",
    CONFIGS / "interpolation.yaml",
    CONFIGS / "gradient_variance.yaml",
    CONFIGS / "hessian_spectrum.yaml",
    CONFIGS / "curvature_map.yaml",
    CONFIGS / "block_curvature.yaml",
    CONFIGS / "initialisation.yaml",
    CONFIGS / "training_split.yaml",
    CONFIGS / "spectral_density.yaml",
    CONFIGS / "trajectory.yaml",
    CONFIGS / "connectivity.yaml",
]
CELLS = {
    "nasnet": "nasnet",
    "amoebanet": "amoebanet",
    "enas": "enas",
    "darts": "darts_v2",
    "snas": "snas_mild",
}
COMPLETE = [CONFIGS / f"{name}.yaml" for name in ("quickstart", "base", *CELLS)]


def parse(*paths: Path, extra: tuple[str, ...] = ()) -> dict[str, Any]:
    arguments = ["fit", *(f"--config={path}" for path in paths), *extra]
    settings: dict[str, Any] = ParsedOnly(arguments).settings.as_dict()
    del settings["config"]
    return settings


def test_no_config_is_forgotten() -> None:
    found = [path for path in CONFIGS.rglob("*.yaml") if CONFIGS / "studies" not in path.parents]
    assert sorted(found) == sorted(OVERLAYS + COMPLETE)


def test_the_landscape_is_its_four_analyses() -> None:
    names = ("loss_contour", "loss_profile", "gradient_variance", "hessian_spectrum")
    analyses = [CONFIGS / f"{name}.yaml" for name in names]
    together = parse(CONFIGS / "darts.yaml", CONFIGS / "landscape.yaml")
    assert together == parse(CONFIGS / "darts.yaml", *analyses)
    assert len(together["trainer"]["callbacks"]) == 4


@pytest.mark.parametrize("path", COMPLETE, ids=lambda path: path.stem)
def test_a_complete_config_parses(path: Path) -> None:
    settings = parse(path)
    get_genotype(settings["model"]["genotype"])
    assert settings["trainer"]["gradient_clip_val"] == 5.0


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_s_config_is_the_base_with_its_genotype(name: str) -> None:
    genotype = f"--model.genotype={CELLS[name]}"
    settings = parse(CONFIGS / f"{name}.yaml")
    assert settings == parse(CONFIGS / "base.yaml", extra=(genotype,))
    assert settings == parse(extra=(genotype, "--data=CIFAR10", "--data.root=data"))


def test_the_base_is_the_paper_s_recipe() -> None:
    settings = parse(CONFIGS / "base.yaml")
    model, data, trainer = settings["model"], settings["data"]["init_args"], settings["trainer"]
    assert settings["data"]["class_path"] == "nas_lightning.datamodules.CIFAR10"
    assert (model["init_channels"], model["num_cells"], model["stem_stride"]) == (36, 20, 1)
    assert (model["drop_path"], model["auxiliary_weight"], data["cutout"]) == (0, 0, 0)
    assert model["optimizer"]["class_path"] == "torch.optim.SGD"
    sgd = model["optimizer"]["init_args"]
    assert (sgd["lr"], sgd["momentum"], sgd["weight_decay"]) == (0.025, 0.9, 3e-4)
    assert model["lr_scheduler"] is None  # the cosine to zero over all epochs
    assert (data["batch_size"], data["validation_fraction"]) == (80, 0)
    assert (trainer["max_epochs"], trainer["gradient_clip_val"]) == (600, 5.0)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_composes_with_a_base_config(overlay: Path) -> None:
    settings = parse(CONFIGS / "nasnet.yaml", overlay)
    assert settings["model"]["genotype"] == "nasnet"
    assert settings["model"]["init_channels"] == (8 if overlay.stem == "small_network" else 36)
    assert settings["trainer"]["gradient_clip_val"] == 5.0


def test_overlays_compose_in_any_order() -> None:
    paths = (CONFIGS / "data" / "cifar100.yaml", CONFIGS / "regularized.yaml")
    for order in (paths, paths[::-1]):
        settings = parse(CONFIGS / "darts.yaml", *order)
        assert settings["data"]["class_path"] == "nas_lightning.datamodules.CIFAR100"
        assert settings["data"]["init_args"]["cutout"] == 16
        assert (settings["model"]["drop_path"], settings["model"]["auxiliary_weight"]) == (0.2, 0.4)


def test_tiny_imagenet_has_its_stem_and_epochs() -> None:
    settings = parse(CONFIGS / "darts.yaml", CONFIGS / "data" / "tiny_imagenet.yaml")
    assert settings["model"]["stem_stride"] == 2
    assert settings["trainer"]["max_epochs"] == 300


@pytest.mark.parametrize(("name", "rate"), [("learning_rate_0.25", 0.25), ("learning_rate_0.0025", 0.0025)])
def test_learning_rates_of_figure_4(name: str, rate: float) -> None:
    settings = parse(CONFIGS / "darts.yaml", CONFIGS / f"{name}.yaml")
    assert settings["model"]["optimizer"]["init_args"]["lr"] == rate
    assert settings["model"]["optimizer"]["init_args"]["momentum"] == 0.9


def test_the_cluster_overlay_uses_every_gpu() -> None:
    settings = parse(CONFIGS / "darts.yaml", CONFIGS / "cluster.yaml", extra=("--trainer.num_nodes=2",))
    trainer = settings["trainer"]
    assert (trainer["strategy"], trainer["devices"], trainer["num_nodes"]) == ("ddp", "auto", 2)


def test_the_training_split_is_measured_beside_the_test_split() -> None:
    settings = parse(*(CONFIGS / f"{name}.yaml" for name in ("darts", "landscape", "training_split")))
    callbacks = settings["trainer"]["callbacks"]
    own = [callback["init_args"] for callback in callbacks if callback["init_args"]["split"] == "train"]
    assert [given["name"] for given in own] == ["gradient_variance_train", "hessian_spectrum_train"]
    assert {(given["max_samples"], given["sample_seed"]) for given in own} == {(512, 0)}
    assert {given["every_n_epochs"] for given in own} == {10}
    assert len(callbacks) == 6


def test_the_initialisation_has_no_end() -> None:
    for callback in parse(CONFIGS / "darts.yaml", CONFIGS / "initialisation.yaml")["trainer"]["callbacks"]:
        assert (callback["init_args"]["at_start"], callback["init_args"]["at_end"]) == (True, False)


def work_of(name: str) -> str:
    """What the page on the landscape must say of an overlay's work, as far as settings decide it."""
    [*_, callback] = read_mapping(CONFIGS / f"{name}.yaml")["trainer"]["callbacks+"]
    settings = callback["init_args"]
    steps, seeds = settings.get("resolution"), len(settings.get("direction_seeds", []))
    match name:
        case "loss_contour" | "gradient_variance":
            return f"{seeds} x {steps**2} "
        case "curvature_map" | "trajectory":
            return f"{steps**2} "
        case "loss_profile":
            return f"{steps * seeds} evaluations, {settings['curvature_samples']} products"
        case "loss_line":
            return f"{seeds} x {steps} "
        case "interpolation":
            return f"{steps} "
        case "connectivity":
            return f"a training, then 2 x {steps} "
        case "spectral_density":
            return f"{settings['steps'] * settings['start_vectors']} products each"
    return ""


def test_the_page_on_the_landscape_says_what_the_overlays_cost() -> None:
    page = (CONFIGS.parent / "docs" / "landscape.md").read_text()
    rows = re.findall(r"^\|.*\| `(\w+)\.yaml`[^|]*\| ([^|]*) \|", page, re.MULTILINE)
    assert len(rows) == 11
    for name, work in rows:
        assert work.startswith(work_of(name)), name
