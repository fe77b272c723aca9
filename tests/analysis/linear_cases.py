"""Random tensors and second derivatives for the tests of the theory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nas_lightning.analysis.linear_cells import (
    LossFunction,
)

ROUNDING = 1 + 1e-9


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def hessian(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Second derivatives as a matrix."""
    derivatives: Tensor = torch.autograd.functional.hessian(function, at)  # type: ignore[no-untyped-call]
    return derivatives.reshape(at.numel(), at.numel())


def loss_of_output(objective: LossFunction, target: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda z: objective(z[None], target)[0]
