from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nas_lightning.analysis import (
    HessianProduct,
    estimate_running_statistics,
    gradient_statistics,
    tangent_kernel_trace,
)
from nas_lightning.audit import initial, matched_controls
from nas_lightning.audit.initial import (
    STATISTICS,
    InitialSettings,
    audit_initial,
    fixed_images,
    measure_initial,
)
from nas_lightning.audit.stacked import InitialWeights, stacked_network
from nas_lightning.cells import Genotype
from nas_lightning.datamodules import Digits
from nas_lightning.networks import CellNetwork, register_operation

EVERYTHING = Genotype(
    [
        *(("sep_conv_3x3", 0), ("max_pool_3x3", 1), ("conv_7x1_1x7", 0), ("skip_connect", 2)),
        *(("inv_res_3x3", 1), ("none", 3), ("dil_conv_3x3", 2), ("noise", 0)),
    ],
    [3, 4],
    [
        *(("skip_connect", 0), ("sep_conv_5x5_single", 1), ("avg_pool_3x3", 1), ("conv_3x3", 2)),
        *(("max_pool_3x3", 0), ("inv_res_5x5", 1), ("nor_conv_1x1", 0), ("dil_conv_5x5", 3)),
    ],
    [2, 4, 5],
)
CHAIN = Genotype([("sep_conv_3x3", 1), ("max_pool_3x3", 1)], [2], [("conv_1x1", 1), ("skip_connect", 1)], [2])
SETTINGS = InitialSettings(seeds=(3, 5), init_channels=4, num_cells=3, stem_stride=2, double=True)
IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([1, 0, 7])


def plain_network(genotype: Genotype, place: int) -> CellNetwork:
    """The network of one seed, built as ever, with the weights that the stack has for it."""
    size: dict[str, Any] = {"init_channels": 4, "num_cells": 3, "num_classes": 10, "stem_stride": 2}
    _, stack = stacked_network(genotype, InitialWeights(SETTINGS.seeds), 1, dtype=torch.float64, **size)
    network = CellNetwork(genotype, **size).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(stack.weights[name][place])
    return network


@pytest.mark.parametrize(
    ("genotype", "places"), [(EVERYTHING, [1]), (CHAIN, [0, 1])], ids=["every layer", "chain"]
)
def test_statistics_are_those_of_the_analyses(genotype: Genotype, places: list[int]) -> None:
    found = measure_initial(genotype, IMAGES, TARGETS, SETTINGS)
    batches = [(IMAGES.double(), TARGETS)]
    for place in places:
        network = plain_network(genotype, place)
        estimate_running_statistics(network, batches)
        expected = gradient_statistics(network, batches)
        losses = torch.nn.functional.cross_entropy(network.eval()(IMAGES.double()), TARGETS, reduction="none")
        live = [p for p in network.parameters() if p.requires_grad]
        samples = [torch.autograd.grad(loss, live, retain_graph=True) for loss in losses]
        gradients = torch.stack([torch.cat([g.flatten() for g in sample]) for sample in samples])
        norms, gradient = gradients.norm(dim=1), gradients.mean(0).numpy()
        curvature = gradient @ HessianProduct(network, batches).partial(gradient) / (gradient @ gradient)
        for name, value in {
            "gradient_norm": expected.mean_gradient_norm,
            "sample_gradient_norm": float(norms.mean()),
            "gradient_variance": expected.variance,
            "tangent_kernel_trace": tangent_kernel_trace(network, batches),
            "gradient_curvature": curvature,
        }.items():
            assert found[name][place] == pytest.approx(value, rel=1e-8), name


def test_a_seed_has_its_weights_whatever_is_measured_beside_it() -> None:
    weights = InitialWeights(SETTINGS.seeds)
    measure_initial(CHAIN, IMAGES, TARGETS, SETTINGS, weights)
    shared = measure_initial(EVERYTHING, IMAGES, TARGETS, SETTINGS, weights)
    alone = InitialSettings(seeds=(5,), init_channels=4, num_cells=3, stem_stride=2, double=True)
    for name, values in measure_initial(EVERYTHING, IMAGES, TARGETS, alone).items():
        assert values[0] == pytest.approx(shared[name][1], rel=1e-10)


def test_float32_agrees() -> None:
    single = InitialSettings(seeds=(3, 5), init_channels=4, num_cells=3)
    exact = measure_initial(EVERYTHING, IMAGES, TARGETS, SETTINGS)
    for name, values in measure_initial(EVERYTHING, IMAGES, TARGETS, single).items():
        np.testing.assert_allclose(values, exact[name], rtol=1e-3)


def test_initial_weights_are_spread_as_those_of_pytorch() -> None:
    drawn = InitialWeights((0, 1)).draw("a", (64, 16, 3, 3), 144)
    layer = torch.nn.Conv2d(16, 64, 3)
    assert float(drawn.abs().max()) <= 1 / 12
    assert float(drawn.std()) == pytest.approx(float(layer.weight.detach().std()), rel=0.03)
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn, InitialWeights((0, 1)).draw("b", (64, 16, 3, 3), 144))


def test_the_cell_is_ranked_among_its_controls() -> None:
    controls = matched_controls(CHAIN, 3, init_channels=4, num_cells=3)
    assert controls.total > 0
    found = audit_initial(CHAIN, controls, IMAGES, TARGETS, SETTINGS, processes=1)
    assert list(found.statistics) == list(STATISTICS)
    for name, statistic in found.statistics.items():
        own = measure_initial(CHAIN, IMAGES, TARGETS, SETTINGS)[name]
        of_controls = [measure_initial(c, IMAGES, TARGETS, SETTINGS)[name] for c in controls.genotypes]
        assert statistic.own == tuple(own)
        assert statistic.controls == tuple(np.median(values) for values in of_controls)
        assert statistic.standing.below == sum(np.median(v) < np.median(own) for v in of_controls)
        assert len(statistic.by_seed) == 2
    json.dumps(found.record(), allow_nan=False)


@pytest.mark.slow
def test_two_processes_measure_what_one_does() -> None:
    controls = matched_controls(CHAIN, 3, init_channels=4, num_cells=3)
    one, two = (
        audit_initial(CHAIN, controls, IMAGES, TARGETS, SETTINGS, processes=count) for count in (1, 2)
    )
    assert one == two


def test_a_process_that_is_killed_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    controls = matched_controls(CHAIN, 3, init_channels=4, num_cells=3)
    # Each process ends for real, as one is that the system kills.
    monkeypatch.setattr(initial, "end_with_parent", partial(os._exit, 9))
    with pytest.raises(OSError, match="was killed, perhaps for want of memory; the same command tries again"):
        audit_initial(CHAIN, controls, IMAGES, TARGETS, SETTINGS, processes=2)


def test_images_are_fixed_by_a_seed() -> None:
    images, targets = fixed_images(Digits(), 4)
    assert images.shape == (4, 3, 32, 32)
    again, _ = fixed_images(Digits(), 4)
    other, _ = fixed_images(Digits(), 4, seed=1)
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    assert targets.shape == (4,)
    with pytest.raises(ValueError, match=r"`count` \(=1\) must be from 2 to 1437"):
        fixed_images(Digits(), 1)


def test_images_and_operations_that_do_not_fit_are_named() -> None:
    for images, message in (
        (IMAGES[:, :1], r"shape \(3, 1, 8, 8\); it must be \(number, 3, height, width\)"),
        (torch.zeros(3, 3, 12, 12), r"`image_size` \(=12\) with `stem_stride` \(=2\) gives 6 pixels"),
    ):
        with pytest.raises(ValueError, match=message):
            measure_initial(CHAIN, images, TARGETS, SETTINGS)
    with pytest.raises(ValueError, match=r"`num_classes` \(=5\) must be above the images' class 7"):
        measure_initial(CHAIN, IMAGES, TARGETS, replace(SETTINGS, num_classes=5))
    # Its gated units have second derivatives that no layer here carries.
    register_operation("audit_gated", lambda c, s, _: nn.Sequential(nn.Conv2d(c, 2 * c, 3, s, 1), nn.GLU(1)))
    own = [("audit_gated", 0), ("skip_connect", 1)]
    with pytest.raises(ValueError, match="operation 'audit_gated' is your own"):
        measure_initial(Genotype(own, [2], own, [2]), IMAGES, TARGETS, SETTINGS)


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"`seeds` \(=\[1, 1\]\)"):
        InitialSettings(seeds=(1, 1))
    controls = matched_controls(CHAIN, 3, init_channels=4, num_cells=3)
    with pytest.raises(ValueError, match=r"`processes` \(=0\)"):
        audit_initial(CHAIN, controls, IMAGES, TARGETS, SETTINGS, processes=0)
