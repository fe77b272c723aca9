"""Genotypes and comparisons that several tests of the networks share."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from nas_lightning.cells import Genotype, Stem, get_genotype
from nas_lightning.networks import CellNetwork, load_reference_weights, reference_names
from nas_lightning.networks.operations import BUILT_IN_FACTORIES
from tests.oracles.plain_network import PlainNetwork

BASE_CELLS = ("nasnet", "amoebanet", "enas", "darts_v2", "snas_mild")
PUBLISHED = (*BASE_CELLS, "setn", "eeea_net_c", "snas_aggressive", "relativenas", "gdas")

_NODES = [("sep_conv_3x3", 2), ("skip_connect", 2)]
WIRINGS = {
    # no live edge of either cell reads input 0: every cell reads the one before it only
    "input 0 free": Genotype(
        [("sep_conv_3x3", 1), ("skip_connect", 1), *_NODES],
        [2, 3],
        [("max_pool_3x3", 1), ("dil_conv_3x3", 1), *_NODES],
        [3],
    ),
    # input 0 is read by a dead node
    "input 0 read in vain": Genotype(
        [("sep_conv_3x3", 1), ("skip_connect", 1), ("sep_conv_3x3", 0), ("skip_connect", 2)],
        [2],
        [("max_pool_3x3", 1), ("dil_conv_3x3", 1), ("none", 0), ("skip_connect", 2)],
        [2, 3],
    ),
    # every cell reads the one before the last only: every second cell is dead, or feeds the tower alone
    "input 1 free": Genotype(
        [("sep_conv_3x3", 0), ("skip_connect", 0), *_NODES],
        [2, 3],
        [("max_pool_3x3", 0), ("skip_connect", 0), *_NODES],
        [2, 3],
    ),
    "input 1 free, reduction reads both": Genotype(
        [("sep_conv_3x3", 0), ("avg_pool_3x3", 0), *_NODES],
        [3],
        [("max_pool_3x3", 1), ("skip_connect", 0), *_NODES],
        [2, 3],
    ),
    # nodes of one, no, three and two edges; the one without edges is read and concatenated
    "any number of edges": Genotype(
        [
            [("sep_conv_3x3", 0)],
            [],
            [("dil_conv_3x3", 3), ("skip_connect", 3), ("max_pool_5x5", 1)],
            [("conv_3x3", 2), ("sep_conv_3x3_single", 4)],
        ],
        [3, 4, 5],
        [[], [("nor_conv_5x5", 0), ("avg_pool_5x5", 1), ("skip_connect", 2)], [("conv_1x1", 3)]],
        [2, 3, 4],
    ),
    # a zero node is read by live edges and concatenated
    "zero node": Genotype(
        [("none", 0), ("none", 1), ("sep_conv_3x3", 2), ("skip_connect", 0)],
        [2, 3],
        [("none", 0), ("none", 1), ("max_pool_3x3", 2), ("skip_connect", 1)],
        [2, 3],
    ),
}

NOISY = Genotype(
    [[("sep_conv_3x3", 0), ("noise", 1)], [("noise", 2)], [("noise", 0), ("dil_conv_3x3", 1), ("noise", 3)]],
    [2, 3, 4],
    [("noise", 0), ("noise", 1), ("noise", 2), ("sep_conv_5x5_single", 1)],
    [3],
)
"""Noise beside other edges, alone in a node, and behind a node that only it reads."""


def all_cases() -> dict[str, Genotype]:
    """Base cells, their adapted cells, variants with dead nodes, and the wirings above, by name."""
    specs = [*PUBLISHED, *(f"{name}:adapted" for name in BASE_CELLS)]
    specs += ["amoebanet:connections=3", "amoebanet:operations=4", "darts_v2:connections=7"]
    return {spec: get_genotype(spec) for spec in specs} | WIRINGS


@st.composite
def cell_pairs(draw: st.DrawFn) -> list[Any]:
    """Arguments of a genotype of one to four nodes of any number of edges, with many `none` and dead nodes.

    None of them is `noise`, which differs between two networks in training.
    """
    names = st.one_of(st.just("none"), st.sampled_from(sorted(set(BUILT_IN_FACTORIES) - {"noise"})))
    nodes = draw(st.integers(1, 4))
    cells: list[Any] = []
    for _ in range(2):
        counts = draw(
            st.one_of(st.just([2] * nodes), st.lists(st.integers(0, 5), min_size=nodes, max_size=nodes))
        )
        edges = [
            [(draw(names), draw(st.integers(0, node - 1))) for _ in range(count)]
            for node, count in enumerate(counts, start=2)
        ]
        concat = draw(st.lists(st.integers(2, nodes + 1), min_size=1, unique=True))
        # Without a path from an input to the output there is no cell: give the last concatenated node one.
        edges[concat[-1] - 2][:1] = [("skip_connect", draw(st.integers(0, 1)))]
        cells += [edges, concat]
    return cells


def oracle_and_network(
    genotype: Genotype,
    num_cells: int = 6,
    auxiliary: bool = True,
    init_channels: int = 2,
    stem: Stem = "cifar",
) -> tuple[PlainNetwork, CellNetwork]:
    """The plain network, with batch norm away from its identity start, and ours with the same weights, in
    float64."""
    torch.manual_seed(0)
    imagenet = stem == "imagenet"
    oracle = PlainNetwork(genotype, 5, init_channels, num_cells, auxiliary, imagenet=imagenet).double()
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for name, buffer in oracle.named_buffers():
            if buffer.is_floating_point():
                buffer.add_(0.5 * torch.rand_like(buffer) + (0.0 if name.endswith("var") else -0.25))
    network = CellNetwork(genotype, 5, init_channels, num_cells, auxiliary, stem=stem).double()
    load_reference_weights(network, oracle.state_dict())
    return oracle, network


def batch(size: int = 32, samples: int = 3) -> tuple[Tensor, Tensor]:
    """Random images in float64, and labels of five classes."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(samples, 3, size, size, dtype=torch.float64, generator=generator)
    return images, torch.randint(5, (samples,), generator=generator)


def logits_of(output: Tensor | tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """(logits, auxiliary logits or None) of either network."""
    return output if isinstance(output, tuple) else (output, None)


def loss_of(output: Tensor | tuple[Tensor, Tensor | None], targets: Tensor) -> Tensor:
    """Cross entropy, plus 0.4 times the tower's."""
    logits, auxiliary_logits = logits_of(output)
    loss = functional.cross_entropy(logits, targets)
    if auxiliary_logits is None:
        return loss
    return loss + 0.4 * functional.cross_entropy(auxiliary_logits, targets)


def assert_equal_networks(
    oracle: PlainNetwork, network: CellNetwork, images: Tensor, targets: Tensor, training: bool
) -> None:
    """Same logits, auxiliary logits and gradients; no gradient in dead parameters, where the oracle's is
    zero."""
    oracle.train(training).zero_grad()
    network.train(training).zero_grad()
    expected, actual = oracle(images), network(images)
    for one, other in zip(logits_of(expected), logits_of(actual), strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-9)
    loss_of(expected, targets).backward()  # type: ignore[no-untyped-call]
    loss_of(actual, targets).backward()  # type: ignore[no-untyped-call]
    gradients = {name: parameter.grad for name, parameter in oracle.named_parameters()}
    names = reference_names(network)
    for name, parameter in network.named_parameters():
        gradient = gradients[names[name]]
        if parameter.grad is not None:
            assert gradient is not None
            scale = 1 + float(gradient.abs().max())
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-7, atol=1e-9 * scale, msg=name)
        else:
            assert gradient is None or float(gradient.abs().max()) < 1e-9, name
        # In evaluation mode nothing reaches the tower and what only feeds the tower.
        if training:
            assert (parameter.grad is not None) == parameter.requires_grad, name
        elif not parameter.requires_grad:
            assert parameter.grad is None, name
