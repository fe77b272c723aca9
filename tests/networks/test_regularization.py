from __future__ import annotations

import pytest
import torch

from nas_lightning.cells import Stem
from nas_lightning.cells.stack import TOWER_INPUT_SIZES
from nas_lightning.networks import AuxiliaryTower, drop_path_factors
from tests.oracles.plain_network import AuxiliaryHead, drop_path


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.7])
def test_drop_path_has_the_plain_distribution(probability: float) -> None:
    edges, samples = 40, 5000
    torch.manual_seed(0)
    factors = drop_path_factors(edges, samples, torch.tensor(probability))
    plain = drop_path(torch.ones(edges * samples, 1, 1, 1), probability)
    keep = 1 - probability
    for drawn in (factors, plain):
        values = torch.unique(drawn)
        torch.testing.assert_close(values, torch.tensor([0.0, 1 / keep] if probability else [1.0]))
        # The mean of n independent factors is 1 with standard deviation sqrt(p / keep / n).
        deviation = (probability / keep / drawn.numel()) ** 0.5
        assert abs(float(drawn.double().mean()) - 1) <= 4 * deviation + 1e-6
    if probability:
        # Neither edges nor samples share their draws: correlations of n values are near 1 / sqrt(n).
        across_edges = torch.corrcoef(factors) - torch.eye(edges)
        assert float(across_edges.abs().max()) < 5 / samples**0.5
        across_samples = torch.corrcoef(factors.T[:100]) - torch.eye(100)
        assert float(across_samples.abs().max()) < 5.5 / edges**0.5


def test_drop_path_follows_the_global_generator() -> None:
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(drop_path_factors(10, 10, torch.tensor(0.5)))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    ("stem", "size"), [(stem, size) for stem, sizes in TOWER_INPUT_SIZES.items() for size in sizes]
)
def test_tower_equals_the_plain_head(stem: Stem, size: int) -> None:
    torch.manual_seed(0)
    plain, own = (
        AuxiliaryHead(6, 4, imagenet=stem == "imagenet").double(),
        AuxiliaryTower(6, 4, stem).double(),
    )
    for parameter, reference in zip(own.parameters(), plain.parameters(), strict=True):
        parameter.data.copy_(reference.data)
    x = torch.randn(3, 6, size, size, dtype=torch.float64)
    torch.testing.assert_close(own(x.relu()), plain(x), rtol=1e-12, atol=1e-12)
