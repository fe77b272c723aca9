"""Loss surfaces against a copy of the network per point in float64, and no trace of them on the module."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from nas_lightning.analysis.directions import Directions, Normalization, cosine, random_directions
from nas_lightning.analysis.grid import axis
from nas_lightning.analysis.loss import (
    LOSS_VARIABLES,
    estimate_running_statistics,
    evaluate,
    loss_at_points,
    loss_surface,
)
from nas_lightning.analysis.surface import Point, Surface, measure_pending
from nas_lightning.cells import get_genotype
from nas_lightning.networks import CellNetwork
from nas_lightning.provenance import weights_hash
from tests.oracles.loss_surface import loss_and_accuracy
from tests.oracles.loss_surface import loss_surface as plain_loss_surface

Batches = list[tuple[Tensor, Tensor]]
STEPS = [-0.5, 0.0, 0.7]


def batches(dtype: torch.dtype = torch.float32, sizes: Sequence[int] = (5, 5, 3)) -> Batches:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 3, 16, 16, generator=generator).to(dtype),
            torch.randint(5, (size,), generator=generator),
        )
        for size in sizes
    ]


def network(dtype: torch.dtype = torch.float32, auxiliary: bool = False) -> CellNetwork:
    """A tiny cell network with running statistics of its own, in training mode."""
    torch.manual_seed(2)
    module = CellNetwork(get_genotype("darts_v2"), 5, 4, 3)
    with torch.no_grad():
        for inputs, _ in batches(sizes=(32, 32)):
            module(inputs)
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    if auxiliary:
        with_tower = CellNetwork(get_genotype("darts_v2"), 5, 4, 3, auxiliary=True)
        with_tower.load_state_dict(module.state_dict(), strict=False)
        module = with_tower
    return module.to(dtype).train()


def close_to_oracle(
    module: nn.Module, data: Batches, directions: Directions, tolerance: float, reestimated: bool = False
) -> xr.Dataset:
    mode: Literal["frozen", "reestimated"] = "reestimated" if reestimated else "frozen"
    surface = loss_surface(module, data, directions, STEPS, STEPS[1:], mode)
    loss, accuracy = plain_loss_surface(module, data, directions, STEPS, STEPS[1:], reestimated)
    np.testing.assert_allclose(surface["loss"], loss, rtol=tolerance)
    np.testing.assert_array_equal(surface["accuracy"], accuracy)
    return surface


@pytest.mark.parametrize("normalization", ["filter", "layer", "none"])
def test_surface_is_the_oracles(normalization: Normalization) -> None:
    module = network(torch.float64)
    directions = random_directions(module, 0, normalization)
    surface = close_to_oracle(module, batches(torch.float64), directions, 1e-10)
    assert surface["loss"].dims == ("alpha", "beta")
    assert float(surface["loss"].max() - surface["loss"].min()) > 0.05
    assert surface.attrs["cosine"] == cosine(*directions)
    assert surface.attrs["samples"] == 13


def test_surface_in_float32_is_that_of_float64() -> None:
    module = network()
    directions = random_directions(module, 0)
    close_to_oracle(module, batches(), directions, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reestimated_statistics_are_the_oracles(dtype: torch.dtype) -> None:
    module = network(dtype)
    directions = random_directions(module, 3)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    surface = close_to_oracle(module, batches(dtype), directions, tolerance, reestimated=True)
    frozen = loss_surface(module, batches(dtype), directions, STEPS, STEPS[1:])
    assert float(abs(surface["loss"] - frozen["loss"]).min()) > 1e-3
    # A mean of the batches that does not weigh them by size is something else.
    even = [(torch.cat([x, x]), torch.cat([y, y])) if len(y) == 3 else (x, y) for x, y in batches(dtype)]
    assert loss_surface(module, even, directions, [0.0], [0.0], "reestimated")["loss"] != pytest.approx(
        surface["loss"].sel(alpha=0, beta=0).item(), abs=1e-4
    )


def test_the_last_smaller_batch_counts_by_its_size() -> None:
    module, data = network(torch.float64), batches(torch.float64)
    loss, accuracy = evaluate(module, data)
    expected = loss_and_accuracy(copy.deepcopy(module).eval(), data)
    assert loss == pytest.approx(expected[0], rel=1e-12)
    assert accuracy == expected[1]
    whole = [(torch.cat([x for x, _ in data]), torch.cat([y for _, y in data]))]
    assert evaluate(module, whole)[0] == pytest.approx(loss, rel=1e-12)
    by_batch = np.mean([evaluate(module, [batch])[0] for batch in data])
    assert abs(by_batch - loss) > 1e-3


def test_the_centre_is_the_evaluation() -> None:
    module, data = network(), batches()
    steps = axis(3, 1)
    surface = loss_surface(module, data, random_directions(module, 0), steps, steps)
    centre = surface.sel(alpha=0, beta=0)
    assert (centre["loss"].item(), centre["accuracy"].item()) == evaluate(module, data)


def test_another_computation_of_the_same_function_follows_the_weights() -> None:
    module, data = network(), batches()
    directions = random_directions(module, 0)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    double, calls = copy.deepcopy(module).double().eval(), 0

    def forward(inputs: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        state = {name: tensor.detach().double() for name, tensor in tensors.items()}
        logits: Tensor = torch.func.functional_call(double, state, (inputs.double(),))
        return logits

    for mode in ("frozen", "reestimated"):
        expected = loss_surface(module, data, directions, STEPS, STEPS, mode)
        surface = loss_surface(module, data, directions, STEPS, STEPS, mode, forward=forward)
        np.testing.assert_allclose(surface["loss"], expected["loss"], rtol=1e-5)
        assert not np.array_equal(surface["loss"], expected["loss"])
        np.testing.assert_array_equal(surface["accuracy"], expected["accuracy"])
    assert calls == 2 * 9 * 3
    assert evaluate(module, data, forward=forward)[0] == pytest.approx(evaluate(module, data)[0], rel=1e-5)


def test_sums_are_in_float64() -> None:
    class Identity(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    logits = torch.tensor([[2.0, 1.0, 0.0]]).expand(1000, 3)
    data = [(logits, torch.full((1000,), target % 3)) for target in range(300)]
    losses = torch.nn.functional.cross_entropy(logits[:3], torch.arange(3), reduction="none")
    loss, accuracy = evaluate(Identity(), data)
    assert loss == pytest.approx(losses.double().mean().item(), rel=1e-12)
    assert accuracy == pytest.approx(1 / 3, rel=1e-15)


@pytest.mark.parametrize("mode", ["frozen", "reestimated"])
@pytest.mark.parametrize("fails", [False, True])
def test_no_trace_is_left(mode: Literal["frozen", "reestimated"], fails: bool) -> None:
    module, data = network(), batches()
    module.cells[1].eval()
    module.classifier.weight.requires_grad_(False)
    digest = weights_hash(module.state_dict())
    probability = module._drop_path_probability.clone()

    def state() -> list[object]:
        layers = [(m.training, getattr(m, "momentum", None), "forward" in vars(m)) for m in module.modules()]
        return [layers, [(p.requires_grad, p.grad is None) for p in module.parameters()]]

    before = state()
    if fails:
        data[-1] = (data[-1][0], data[-1][1] + 5)  # classes that do not exist
        with pytest.raises((IndexError, RuntimeError)):
            loss_surface(module, data, random_directions(module, 0), STEPS, STEPS, mode)
    else:
        loss_surface(module, data, random_directions(module, 0), STEPS, STEPS, mode)
    assert weights_hash(module.state_dict()) == digest
    assert torch.equal(module._drop_path_probability, probability)
    assert state() == before


def test_values_that_are_not_finite_are_kept_and_do_not_spread() -> None:
    module, data = network(), batches()
    directions = random_directions(module, 0)
    directions[0]["classifier.weight"][0, 0] = math.inf
    for mode in ("frozen", "reestimated"):
        # In the row of alpha = 0 nothing is moved along the infinite direction.
        surface = loss_surface(module, data, directions, [-1.0, 0.0, 1.0], STEPS, mode)
        assert not np.isfinite(surface["loss"].sel(alpha=[-1, 1]).values).any()
        assert np.isfinite(surface["loss"].sel(alpha=0).values).all()
        assert (surface["accuracy"].sel(alpha=1).values <= 1).all()
    # Statistics that became infinite at one point are not those of the next.
    directions = random_directions(module, 0)
    directions[0]["stem.convolution.weight"][0] = math.inf
    expected = loss_surface(module, data, random_directions(module, 0), [0.0], [0.5], "reestimated")
    surface = loss_surface(module, data, directions, [-1.0, 0.0], [0.5], "reestimated")
    assert math.isnan(surface["loss"].sel(alpha=-1).item())
    assert surface["accuracy"].sel(alpha=-1).item() == 0
    assert surface["loss"].sel(alpha=0).item() == expected["loss"].item()


def test_the_tower_changes_nothing() -> None:
    with_tower, without = network(auxiliary=True), network()
    names = [name for name, _ in without.named_parameters()]
    surfaces = [
        loss_surface(module, batches(), random_directions(module, 5, names=names), STEPS, STEPS)
        for module in (with_tower, without)
    ]
    assert surfaces[0]["loss"].equals(surfaces[1]["loss"])


def test_works_in_inference_mode() -> None:
    module = network()
    directions = random_directions(module, 0)
    expected = loss_surface(module, batches(), directions, STEPS, STEPS, "reestimated")
    with torch.inference_mode():
        surface = loss_surface(module, batches(), directions, STEPS, STEPS, "reestimated")
        assert torch.is_inference_mode_enabled()
    assert surface.identical(expected)


def test_a_contour_of_several_direction_seeds_is_that_of_each() -> None:
    module, data = network(), batches()
    seeds = {seed: random_directions(module, seed) for seed in (4, 2)}
    surface = Surface.create("loss_contour", LOSS_VARIABLES, axis(3, 0.5), axis(3, 0.5), list(seeds), {})
    digest = weights_hash(module.state_dict())
    with loss_at_points(module, data, seeds) as measure:
        # There and back again: every seed starts from w*.
        points = surface.pending()
        first = measure(points[0])
        measure(points[-1])
        assert measure(points[0]) == first
        measure_pending(surface, measure)
        with pytest.raises(KeyError):
            measure(Point(7, 0.0, 0.0, (0, 0, 0)))
    assert weights_hash(module.state_dict()) == digest
    for seed, directions in seeds.items():
        alone = loss_surface(module, data, directions, axis(3, 0.5), axis(3, 0.5))
        page = surface.dataset.sel(direction_seed=seed)
        assert np.array_equal(page["loss"], alone["loss"])
        assert np.array_equal(page["accuracy"], alone["accuracy"])
    assert not np.allclose(surface.dataset["loss"][0], surface.dataset["loss"][1])


def test_synchronised_batch_norm_is_estimated_by_each_rank_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = network(), batches()
    directions = random_directions(module, 0)
    expected = loss_surface(module, data, directions, STEPS, STEPS, "reestimated")
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(module))  # type: ignore[no-untyped-call]

    def forward(layer: nn.SyncBatchNorm, x: Tensor) -> Tensor:
        assert not layer.training, "in training mode, statistics of different points would be mixed"
        return nn.BatchNorm2d.forward(layer, x)

    monkeypatch.setattr(nn.SyncBatchNorm, "forward", forward)
    with loss_at_points(synchronised, data, {0: directions}, "reestimated") as measure:
        centre = measure(Point(0, 0.0, 0.0, (0, 1, 1)))
    assert centre["loss"] == expected["loss"].sel(alpha=0, beta=0).item()
    assert not any("forward" in vars(layer) for layer in synchronised.modules())


def test_bad_input_is_refused() -> None:
    module, data = nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), batches()
    directions = random_directions(module, 0)
    with pytest.raises(ValueError, match=r"`batch_norm` \(='reestimated'\) needs batch-norm layers"):
        loss_surface(module, data, directions, STEPS, STEPS, "reestimated")
    with pytest.raises(ValueError, match=r"`alphas` \(=\[1.0, -1.0\]\) must be finite, increasing"):
        loss_surface(module, data, directions, [1.0, -1.0], STEPS)
    with pytest.raises(ValueError, match="`batches` hold no sample"):
        evaluate(module, [])
    with pytest.raises(ValueError, match="`batches` can be iterated only once"):
        evaluate(module, iter(data))

    class WithTower(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(ValueError, match=r"WithTower returns tuple for 5 inputs"):
        evaluate(WithTower(), data)
    with pytest.raises(ValueError, match=r"returns \(5, 3, 16, 16\) for 5 inputs"):
        evaluate(nn.Identity(), data)


def test_running_statistics_are_those_of_the_batches() -> None:
    """Beside PyTorch's own cumulative average in training mode."""
    module, slow, images = network(torch.float64), network(torch.float64), batches(torch.float64, (5, 5))
    for layer in slow.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    with torch.no_grad():
        for inputs, _ in images:
            slow.train()(inputs)
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}
    estimate_running_statistics(module, images)
    for (name, found), expected in zip(module.named_buffers(), slow.buffers(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12, msg=name)
    assert all(torch.equal(parameter, before[name]) for name, parameter in module.named_parameters())
    assert module.training
    estimate_running_statistics(nn.Linear(2, 2), [(torch.ones(1, 2), torch.zeros(1).long())])
