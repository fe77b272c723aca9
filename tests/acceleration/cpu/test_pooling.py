"""Max pooling by the kernels against torch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from nas_lightning.acceleration.cpu.build import MARCH
from nas_lightning.acceleration.cpu.pooling import can_max_pool, max_pool
from tests.acceleration.cpu.cases import MARCHES, images, needs_compiler

pytestmark = needs_compiler


@pytest.mark.parametrize("march", MARCHES)
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 2), (2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_max_pooling_is_torch_s(
    size: int, stride: int, dtype: torch.dtype, march: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARCH, march)
    for channels, sides in ((16, (8, 8)), (1, (6, 16)), (18, (9, 11)), (40, (16, 7)), (4, (1, 1))):
        x = images(channels, sides, dtype).detach().round(decimals=0)  # some are equal
        x[0, 0, 0, 0] = x[1, 0, -1, -1] = float("nan")
        x.requires_grad_()
        padding = size // 2
        assert can_max_pool(x, size, padding)
        expected = functional.max_pool2d(x, size, stride, padding)
        actual = max_pool(x, size, stride, padding)
        torch.testing.assert_close(actual, expected, rtol=0.0, atol=0.0, equal_nan=True)
        incoming = torch.randn_like(expected)
        gradients = (torch.autograd.grad(y, x, incoming)[0] for y in (expected, actual))
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)
        with torch.no_grad():
            actual = max_pool(x, size, stride, padding)
            torch.testing.assert_close(actual, expected, rtol=0.0, atol=0.0, equal_nan=True)


def test_other_types_wide_windows_and_wide_padding_are_left_to_torch() -> None:
    assert not can_max_pool(images(4, (20, 20), torch.bfloat16), 3, 1)
    assert not can_max_pool(images(4, (20, 20)), 17, 8)
    assert not can_max_pool(images(4, (20, 20)), 3, 3)


def test_a_second_derivative_is_refused() -> None:
    x = images(4, (8, 8))
    y = max_pool(x, 3, 1, 1)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(y.square().sum(), x, create_graph=True)
