from __future__ import annotations

from pathlib import Path

import pytest

import nas_lightning.cells
from nas_lightning.cells import (
    count_parameters,
    get_genotype,
    operation_names,
    published_genotypes,
    published_variants,
)
from nas_lightning.cells.published import SECTION4_CELLS
from tests.cells.data import COUNTED

PUBLISHED = published_genotypes()


def test_every_cell_is_there_once() -> None:
    assert list(PUBLISHED) == list(COUNTED)
    assert len(PUBLISHED) == 64
    # The first and second order search of arch2vec and DARTS share a cell with nobody.
    assert len({entry.genotype for entry in PUBLISHED.values()}) == 64


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_has_citation_source_and_valid_figures(name: str) -> None:
    entry = PUBLISHED[name]
    assert entry.name == name
    assert isinstance(entry.year, int)
    assert 2018 <= entry.year <= 2026
    assert all((entry.method, entry.authors, entry.title, entry.venue))
    assert "et al" not in entry.authors
    assert entry.citation.startswith(entry.authors)
    assert entry.citation.endswith(f"{entry.venue}, {entry.year}.")
    assert entry.searched_on in {"cifar10", "cifar100", "imagenet"}
    repository, _, rest = entry.source.partition(" ")
    assert repository.count("/") == 1
    assert ":" in rest
    if entry.reported is not None:
        assert entry.reported.where
        assert entry.reported.parameters_M is not None or entry.reported.error_percent is not None
        assert 2 < (entry.reported.parameters_M or 3) < (8 if name == "nasp" else 5)
        assert 2 < (entry.reported.error_percent or 3) < 4
    assert {edge.op for edge in entry.genotype.normal + entry.genotype.reduce} <= set(operation_names())


def test_the_authors_variants_are_apart_from_the_cells_of_searches() -> None:
    variants = published_variants()
    names = [f"darts_conn{i}" for i in range(1, 5)] + [f"darts_ops{i}" for i in range(1, 6)]
    names += [f"{base}_adapted" for base in ("nasnet", "amoebanet", "enas", "snas")]
    assert list(variants) == names
    assert not set(names) & set(PUBLISHED)
    for name, entry in variants.items():
        base = PUBLISHED[entry.variant_of].genotype
        assert not PUBLISHED[entry.variant_of].variant_of
        assert entry.source.startswith("shuyao95/")
        assert entry.citation.startswith("Yao Shu, Wei Wang, Shaofeng Cai. Understanding Architectures")
        assert (entry.genotype.normal_concat, entry.genotype.reduce_concat) == (
            base.normal_concat,
            base.reduce_concat,
        )
        kept = "source" if entry.kind == "operations" else "op"
        for varied, original in ((entry.genotype.normal, base.normal), (entry.genotype.reduce, base.reduce)):
            assert [getattr(e, kept) for e in varied] == [getattr(e, kept) for e in original], name
    assert len({entry.genotype for entry in (*PUBLISHED.values(), *variants.values())}) == 64 + 13


def test_section_4_s_c3_and_c4_never_read_input_0_in_the_normal_cell() -> None:
    read = [{edge.source for edge in get_genotype(name).normal} & {0, 1} for name in SECTION4_CELLS.values()]
    assert read == [{0, 1}, {0, 1}, {1}, {1}]


def test_no_count_stands_in_the_data() -> None:
    text = (Path(nas_lightning.cells.__file__).parent / "published.yaml").read_text()
    for name, figures in COUNTED.items():
        for count in figures["parameters"]:
            assert str(count) not in text, name


def test_the_papers_short_names() -> None:
    assert get_genotype("darts") is PUBLISHED["darts_v2"].genotype
    assert get_genotype("snas") is PUBLISHED["snas_mild"].genotype


def test_a_reported_figure_known_by_heart() -> None:
    reported = PUBLISHED["darts_v2"].reported
    assert reported is not None
    assert (reported.parameters_M, reported.error_percent) == (3.3, 2.76)
    assert PUBLISHED["setn"].reported is None


def test_cells_of_fairdarts_count_as_their_authors_say() -> None:
    """The authors' README gives 2.83 M and 3.88 M with the tower, 2.59 M without."""
    counted = [
        count_parameters(PUBLISHED[f"fairdarts_{letter}"].genotype, auxiliary=tower)
        for letter, tower in (("a", True), ("b", True), ("c", False))
    ]
    assert counted == [2_837_208, 3_884_304, 2_598_814]
    assert PUBLISHED["fairdarts_a"].genotype.normal.counts == (2, 0, 1, 1)
