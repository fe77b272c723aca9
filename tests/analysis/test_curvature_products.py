from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_lightning.analysis.curvature_products import CurvatureProduct, GaussNewtonProduct, HessianProduct
from tests.oracles.dense_hessian import dense_gauss_newton, dense_hessian


def perceptron() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()


def samples(count: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (count,), generator=generator)


def batches_of(size: int, inputs: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))


@pytest.mark.parametrize("size", [1, 3, 7])
def test_products_give_the_dense_gauss_newton_matrix_whatever_the_batches(size: int) -> None:
    module = perceptron()
    product = GaussNewtonProduct(module, batches_of(size, *samples()))
    expected = dense_gauss_newton(module, *samples()).numpy()
    matrix = product.partial(np.eye(product.size))
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-13)
    assert np.linalg.eigvalsh(expected)[0] > -1e-14
    hessian = dense_hessian(module, *samples()).numpy()
    assert np.abs(hessian - expected).max() > 0.1 * np.abs(hessian).max()  # another matrix


@pytest.mark.parametrize("kind", [HessianProduct, GaussNewtonProduct])
def test_several_vectors_at_once_are_multiplied_as_one_by_one(kind: type[CurvatureProduct]) -> None:
    product = kind(perceptron(), batches_of(3, *samples()))
    vectors = np.random.default_rng(0).standard_normal((product.size, 3))
    one_by_one = np.stack([product.partial(vector) for vector in vectors.T], axis=1)
    np.testing.assert_array_equal(product.partial(vectors), one_by_one)
    assert product.partial(vectors[:, :0]).shape == (product.size, 0)
    with pytest.raises(ValueError, match="`vector` has 38 entries, the module 39 live parameters"):
        product.partial(vectors[1:])


def test_an_own_loss_of_several_outputs_is_curved_as_autograd_says() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 2), nn.Linear(2, 1)
            self.unused = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            hidden = self.body(x).tanh()
            return {"value": self.head(hidden)[:, 0], "hidden": hidden, "input": x}

    def loss(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        squares = (outputs["value"] - targets).square() + outputs["input"].sum(1)
        return (squares + outputs["hidden"].pow(4).sum(1)).mean()

    torch.manual_seed(0)
    module, (inputs, targets) = TwoHeads().double(), samples()
    product = GaussNewtonProduct(module, [(inputs, targets)], loss=loss)
    matrix = product.partial(np.eye(product.size))
    live = list(module.parameters())
    expected = np.zeros_like(matrix)
    for x in inputs:
        outputs = module(x[None])
        rows, curvature = [], []
        for output, second in (
            *((outputs["value"][0], 2.0),),
            *((h, 12 * float(h.detach()) ** 2) for h in outputs["hidden"][0]),
        ):
            row = torch.autograd.grad(output, live, retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([piece.reshape(-1) for piece in row]).numpy())
            curvature.append(second)
        expected += np.stack(rows).T @ np.diag(curvature) @ np.stack(rows) / len(inputs)
    np.testing.assert_allclose(matrix, expected, rtol=1e-10, atol=1e-13)


def test_a_loss_without_curvature_gives_zeros() -> None:
    module, batches = nn.Linear(3, 3).double(), [samples()]

    def linear(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs[torch.arange(len(targets)), targets]

    for kind in (HessianProduct, GaussNewtonProduct):
        product = kind(module, batches, loss=linear)
        assert not product.partial(np.ones((product.size, 2))).any()
    module.bias.requires_grad_(False)
    module.weight.requires_grad_(False)
    extra = nn.Sequential(module, nn.Linear(3, 3).double().requires_grad_(False))
    extra.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    assert not GaussNewtonProduct(extra, batches).partial(np.ones(2)).any()


def test_the_matrix_of_a_convex_model_is_the_hessian() -> None:
    module, batches = nn.Linear(3, 3).double(), batches_of(3, *samples())
    vectors = np.random.default_rng(0).standard_normal((12, 2))
    hessian, part = (kind(module, batches).partial(vectors) for kind in (HessianProduct, GaussNewtonProduct))
    np.testing.assert_allclose(part, hessian, rtol=1e-10)
    squared = GaussNewtonProduct(module, batches, loss=lambda z, t: (z - functional.one_hot(t, 3)).square())
    second = np.stack([x.numpy() for x, _ in batches_of(1, *samples())]).reshape(7, 3)
    inputs = np.hstack([second, np.ones((7, 1))])
    block = 2 / 3 * inputs.T @ inputs / 7
    own = squared.partial(np.eye(12))
    order = [0, 1, 2, 9]
    np.testing.assert_allclose(own[np.ix_(order, order)], block, rtol=1e-12)
