"""What rewriting the mathematics of a cell gains, piece by piece, forward and backward.

Each pair computes the same from the same tensors, which is asserted first. Channels-last, uncompiled, in the
sizes that a network of 16 channels has at its first resolution.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.record import DEVICE, alternate, machine, ratio_of, summary, write
from nas_lightning.acceleration.fused_network import NodeReduction
from nas_lightning.acceleration.layers import Convolution
from nas_lightning.networks.operations import FactorizedReduction

Pair = tuple[Callable[[], Tensor], Callable[[], Tensor], list[Tensor]]


def tensor(*shape: int) -> Tensor:
    """A random tensor that wants a gradient, channels-last where it is an image or a weight."""
    values = torch.randn(*shape, device=DEVICE)
    if len(shape) == 4:
        values = values.to(memory_format=torch.channels_last)
    return values.requires_grad_()


def pairs(batch: int, channels: int, size: int) -> dict[str, Pair]:
    """As written, rewritten, and what both are differentiated by."""
    wide = tensor(batch, 4 * channels, size, size)
    first, second = tensor(channels, 4 * channels, 1, 1), tensor(channels, 4 * channels, 1, 1)
    nodes = [tensor(batch, channels, size, size) for _ in range(4)]
    parts = [tensor(channels, channels, 1, 1) for _ in range(4)]
    depthwise = [tensor(channels, 1, 3, 3) for _ in range(2)]
    keep = torch.rand(batch, 1, 1, 1, device=DEVICE)
    dilated = Convolution(channels, channels, 3, 1, 2, 2, groups=channels, bias=False).to(DEVICE)
    reduction = FactorizedReduction(4 * channels, channels).to(DEVICE).eval()

    def grouped(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        together = torch.cat(list(weights))
        return functional.conv2d(x, together, padding=1, groups=len(together))

    return {
        "two 1x1 convolutions of one tensor as one": (
            lambda: torch.cat([functional.conv2d(wide, first), functional.conv2d(wide, second)], dim=1),
            lambda: functional.conv2d(wide, torch.cat([first, second])),
            [wide, first, second],
        ),
        "two readers' ReLU of one node as one": (
            lambda: torch.relu(nodes[0]) + 2 * torch.relu(nodes[0]),
            lambda: (shared := torch.relu(nodes[0])) + 2 * shared,
            [nodes[0]],
        ),
        "two depthwise convolutions of one node as a wider one": (
            lambda: torch.cat(
                [functional.conv2d(nodes[0], weight, padding=1, groups=channels) for weight in depthwise],
                dim=1,
            ),
            lambda: grouped(torch.cat([nodes[0], nodes[0]], dim=1), depthwise),
            [nodes[0], *depthwise],
        ),
        "a 1x1 convolution of a concatenation as a sum": (
            lambda: functional.conv2d(torch.cat(nodes, dim=1), torch.cat(parts, dim=1)),
            lambda: sum(
                (functional.conv2d(x, w) for x, w in zip(nodes[1:], parts[1:], strict=True)),
                start=functional.conv2d(nodes[0], parts[0]),
            ),
            [*nodes, *parts],
        ),
        "drop path's factor in the sum of the node": (
            lambda: nodes[0] + nodes[1] * keep,
            lambda: torch.addcmul(nodes[0], nodes[1], keep),
            nodes[:2],
        ),
        "a dilated convolution by parity": (
            lambda: functional.conv2d(nodes[0], dilated.weight, None, 1, 2, 2, channels),
            lambda: dilated(nodes[0]),
            [nodes[0], dilated.weight],
        ),
        "a factorised reduction of the pixels it reads": (
            lambda: reduction(wide),
            lambda: NodeReduction(reduction)([wide]),
            [wide, reduction.convolution_even.weight, reduction.convolution_odd.weight],
        ),
    }


def forward_and_backward(function: Callable[[], Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of the sum of squares of an output."""
    return torch.autograd.grad(function().square().sum(), list(inputs))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, default in {"batch": 64, "channels": 16, "image_size": 32, "rounds": 15}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    settings = parser.parse_args(arguments)
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32
    torch.manual_seed(0)
    contestants: dict[str, Callable[[], object]] = {}
    ideas = pairs(settings.batch, settings.channels, settings.image_size)
    for name, (written, rewritten, inputs) in ideas.items():
        both = [forward_and_backward(function, inputs) for function in (written, rewritten)]
        for one, other in zip(*both, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max()))
        for kind, function in (("written", written), ("rewritten", rewritten)):
            contestants[f"{name}, {kind}"] = partial(forward_and_backward, function, inputs)
    seconds = alternate(contestants, settings.rounds)
    ratios = {name: ratio_of(seconds, f"{name}, written", f"{name}, rewritten") for name in ideas}
    print(f"{machine()['processor']}, {machine()['threads']} threads, {machine()['gpu'] or 'no GPU'}")
    for name, ratio in ratios.items():
        before, after = (
            1e3 * sorted(seconds[f"{name}, {kind}"])[settings.rounds // 2]
            for kind in ("written", "rewritten")
        )
        print(f"{name:<56} {before:8.2f} ms {after:8.2f} ms  {ratio['median']:.2f} times")
    record = {"settings": vars(settings), "seconds": summary(seconds), "ratios": ratios}
    print(f"written to {write('rewrites', record)}")


if __name__ == "__main__":
    main()
