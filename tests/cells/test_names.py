from __future__ import annotations

import pytest

from nas_lightning.cells import get_genotype, published_genotypes, published_variants
from nas_lightning.cells.names import ALIASES, full_name, unknown_name_hint

ENTRIES = {**published_genotypes(), **published_variants()}


@pytest.mark.parametrize("name", ENTRIES)
def test_case_and_separators_do_not_matter_and_the_source_s_variable_is_a_name(name: str) -> None:
    for spelt in (name.upper(), name.replace("_", "-"), name.replace("_", ""), f" {name.title()} "):
        assert full_name(spelt) == name
    variable = ENTRIES[name].source.rpartition(":")[2]
    if variable.isidentifier() and variable != "genotype":
        assert full_name(variable) == name


@pytest.mark.parametrize(
    ("spelt", "name"),
    [
        ("DARTS", "darts_v2"),
        ("DARTS_V2", "darts_v2"),
        ("Darts V1", "darts_v1"),
        ("P-DARTS", "pdarts"),
        ("PC-DARTS", "pc_darts_cifar"),
        ("pcdarts", "pc_darts_cifar"),
        ("PCDARTS", "pc_darts_cifar"),
        ("PC_DARTS", "pc_darts_cifar"),
        ("PC_DARTS_image", "pc_darts_imagenet"),
        ("GDAS_V1", "gdas"),
        ("NASNet_ADAPT", "nasnet_adapted"),
        ("NASNet-A", "nasnet"),
        ("AmoebaNet-A", "amoebanet"),
        ("PNAS", "pnasnet"),
        ("PNASNet-5", "pnasnet"),
        ("MdeNAS", "mdenas"),
        ("MDENAS", "mdenas"),
        ("FairDARTS_a", "fairdarts_a"),
        ("SNAS", "snas_mild"),
        ("DrNAS", "drnas_cifar10"),
        ("SDARTS-ADV", "sdarts_adv"),
        ("noisy_darts_a", "noisydarts_a"),
        ("Shapley-NAS", "shapley_nas_cifar10"),
        ("NSGA-Net", "nsganet"),
        ("ISTA_twostage", "ista_nas_twostage"),
        ("Cri1_CIFAR_3", "sgas_cri1"),
    ],
)
def test_known_names(spelt: str, name: str) -> None:
    assert full_name(spelt) == name
    assert get_genotype(spelt) is ENTRIES[name].genotype


def test_every_alias_names_a_cell() -> None:
    assert set(ALIASES.values()) <= set(ENTRIES)
    assert not set(ALIASES) & set(ENTRIES)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("dart_v2", "darts_v2"), ("nasnte", "nasnet"), ("amoebenet", "amoebanet"), ("pdart", "pdarts")],
)
def test_a_misspelt_name_is_suggested(name: str, meant: str) -> None:
    assert unknown_name_hint(name) == f"; did you mean {meant!r}?"


# Search methods of others, of which no cell is here.
OTHERS = (
    "R-DARTS S-DARTS Q-DARTS i-DARTS iDARTS EDARTS DARTS+ DARTS- beta-DARTS DARTS-D GDARTS MSDARTS UDARTS",
    "ZARTS FARTS BNAS BANANAS DNAS ANAS TNAS ONAS LNAS GNAS MNasNet PNASNet-4 NASNet-B NASNetC AmoebaNet-B",
    "AmoebaNet-D GDAS_FRC SNAS2 DATA ASAP BayesNAS MiLeNAS EGNAS2 EPNAS CARS_J FairDARTS_z NoisyDARTS-b",
    "EEEA-Net-D DOTS2 XNAS2 PRDARTS PCDARTS2 PDARTS+ SETNet CDARTS++ AdvRush2 TE-NAS NAONet",
)


@pytest.mark.parametrize("method", [method for line in OTHERS for method in line.split()])
def test_a_suggestion_never_names_another_method(method: str) -> None:
    assert full_name(method) is None
    assert "did you mean" not in unknown_name_hint(method)


def test_a_name_of_several_cells_lists_them() -> None:
    for name, listed in (("sgas", "sgas_cri1, sgas_cri2"), ("darts_v3", "darts_v1, darts_v2")):
        with pytest.raises(ValueError, match=rf"unknown genotype '{name}'; there are {listed}"):
            get_genotype(name)
