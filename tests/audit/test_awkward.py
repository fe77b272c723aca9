"""Level 0 of genotypes that few searches find: each has a sensible record."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from nas_lightning.audit import audit_structure, level_0_verdict, matched_controls
from nas_lightning.audit.initial import InitialSettings, audit_initial
from nas_lightning.audit.structure import NetworkSettings
from nas_lightning.cells import Genotype

SIZE: dict[str, Any] = {"init_channels": 4, "num_cells": 3}
ONE_NODE = Genotype(
    [("sep_conv_3x3", 0), ("skip_connect", 1)], [2], [("max_pool_3x3", 0), ("skip_connect", 1)], [2]
)
ONE_EDGE_A_NODE = Genotype(
    [[("sep_conv_3x3", 1)], [("skip_connect", 2)], [("dil_conv_3x3", 3)]],
    [4],
    [[("max_pool_3x3", 0)], [("sep_conv_3x3", 2)]],
    [3],
)
MOSTLY_NONE = Genotype(
    [("none", 0), ("skip_connect", 1), ("none", 2), ("sep_conv_3x3", 0)],
    [2, 3],
    [("max_pool_3x3", 0), ("none", 1)],
    [2],
)


@pytest.mark.parametrize(
    ("genotype", "total", "inputs_not_read", "tested"),
    [
        (ONE_NODE, 3, ((), ()), 8),
        (ONE_EDGE_A_NODE, 23, ((0,), (1,)), 8),
        (MOSTLY_NONE, 23, ((), (1,)), 6),
    ],
    ids=["one node", "one edge a node", "none"],
)
def test_an_awkward_genotype_has_a_record(
    genotype: Genotype, total: int, inputs_not_read: tuple[tuple[int, ...], ...], tested: int
) -> None:
    structure = audit_structure(genotype, NetworkSettings(image_size=8, stem_stride=2, **SIZE))
    cells = structure.normal, structure.reduction
    assert tuple(cell.inputs_not_read for cell in cells) == inputs_not_read
    controls = matched_controls(genotype, 5, **SIZE)
    assert (controls.total, len(controls.genotypes)) == (total, min(total, 5))
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    settings = InitialSettings(seeds=(0,), **SIZE)
    initial = audit_initial(genotype, controls, images, torch.tensor([1, 7]), settings, processes=1)
    verdict = level_0_verdict(structure, initial)
    assert len(verdict.structure) == tested
    assert "too few for a verdict" in verdict.sentences[1]
    records = [part.record() for part in (structure, controls, initial, verdict)]
    json.dumps(records, allow_nan=False)
