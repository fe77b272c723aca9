"""Products of vectors with the curvature of the mean loss: its Hessian, and the Gauss-Newton part of it.

F(w) = (1/n) sum_i f_i(w) over all n samples, f_i = l(z_i, t_i) the cross entropy of the logits z_i(w) of
sample i in evaluation mode, without weight decay, or a loss of one's own. With J_i = d z_i / d w,

    H = G + R,    G = (1/n) sum_i J_i^T (d^2 l / d z_i^2) J_i,
                  R = (1/n) sum_i sum_c (d l / d z_ic) d^2 z_ic / d w^2.

For the cross entropy the inner matrix is diag(p_i) - p_i p_i^T with p_i = softmax(z_i): G is positive
semidefinite, and equals the Fisher information matrix.

Sources: Pearlmutter, *Fast exact multiplication by the Hessian* (Neural Computation 6, 1994); Schraudolph,
*Fast curvature matrix-vector products for second-order gradient descent* (Neural Computation 14, 2002);
Martens, *New insights and perspectives on the natural gradient method* (JMLR 21, 2020), section 8.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from nas_lightning.analysis.evaluation import (
    Batches,
    Forward,
    Loss,
    check_batches,
    differentiating,
    evaluating,
    losses_of,
    sample_losses,
)

Vectors: TypeAlias = Float64[np.ndarray, "parameters *vectors"]
"""One vector ``[parameters]``, or several ``[parameters, vectors]``."""

Product = Callable[[Vectors], Vectors]
"""Maps a vector v to A v, or several to as many."""


class CurvatureProduct(ABC):
    """Products of vectors with a matrix that is a mean over samples, from double backward passes.

    Every sample counts the same, also in a smaller last batch. Products are computed in the parameters' dtype
    and summed over batches in float64. Entries are in the order of ``module.parameters()``. Several vectors
    at once share the forward and the first backward pass of every batch.

    Only parameters with ``requires_grad=True`` count; entries of those that evaluation mode does not use (an
    auxiliary tower) are zero. The module is in evaluation mode only during a product, without autocast and
    compiled code, which has no second derivative.

    Args:
        module: Returns logits ``[batch, classes]`` in evaluation mode, or what ``loss`` takes.
        batches: The samples, on the module's device; with several processes, those of this one.
        total: Number n of samples of all processes; None counts those of ``batches``.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.
        forward: Computes the module, differentiably in its parameters, twice; None is the module itself.

    Attributes:
        size: Number of live parameters.
        total: n.

    Raises:
        ValueError: If no parameter is live, or there are no samples, or ``total`` is not positive.
    """

    name: str
    """What the matrix is called in messages."""

    def __init__(
        self,
        module: nn.Module,
        batches: Batches,
        *,
        total: int | None = None,
        loss: Loss | None = None,
        forward: Forward | None = None,
    ) -> None:
        check_batches(batches)
        self._module = module
        self._forward: Forward = module if forward is None else forward
        self._loss = loss
        self._batches = batches
        self._parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.size = sum(parameter.numel() for parameter in self._parameters)
        if self.size == 0:
            raise ValueError(
                f"{type(module).__name__} has no parameter with requires_grad=True: there is no {self.name}"
            )
        if total is not None and total < 1:
            raise ValueError(f"`total` (={total}) must be at least 1: it is the number of samples")
        self.total = sum(len(targets) for _, targets in batches) if total is None else total
        if self.total == 0:
            raise ValueError("`batches` hold no samples: a mean loss needs at least one")

    def partial(self, vectors: Vectors) -> Vectors:
        """This process's share of A v: the sum over its own batches, divided by the n of all processes.

        The sum over processes is A v; in one process this is A v.

        Args:
            vectors: One vector ``[size]``, or several ``[size, k]``.

        Returns:
            As many products, of the same shape.

        Raises:
            ValueError: If a vector has another size.
        """
        if len(vectors) != self.size:
            raise ValueError(f"`vector` has {len(vectors)} entries, the module {self.size} live parameters")
        device = self._parameters[0].device
        # Tensors are made outside inference mode, those of a loader too.
        with evaluating(self._module), differentiating(device.type):
            columns = torch.tensor(vectors.reshape(self.size, -1).T)
            tangents = [self._in_shape(column) for column in columns]
            results = torch.zeros(len(columns), self.size, dtype=torch.float64, device=device)
            for inputs, targets in self._batches:
                for result, rows in zip(results, self._batch_sums(inputs, targets, tangents), strict=False):
                    result += torch.cat([row.reshape(-1).double() for row in rows])
        share: np.ndarray = results.T.cpu().numpy().reshape(vectors.shape) / self.total
        return share

    def partial_loss(self) -> float:
        """This process's share of F(w*): the sum of its samples' losses over the n of all processes."""
        device = self._parameters[0].device
        total = torch.zeros((), dtype=torch.float64, device=device)
        no_autocast = torch.autocast(device.type, enabled=False)
        with evaluating(self._module), torch.no_grad(), no_autocast:
            for inputs, targets in self._batches:
                losses = sample_losses(self._module, inputs, targets, self._loss)
                total += losses.sum(dtype=torch.float64)
        return float(total) / self.total

    @abstractmethod
    def _batch_sums(
        self, inputs: Tensor, targets: Tensor, tangents: Sequence[list[Tensor]]
    ) -> Iterator[Sequence[Tensor]]:
        """Sum over a batch's samples of their matrices, times each vector; nothing if all of it is zero."""

    def _in_shape(self, vector: Tensor) -> list[Tensor]:
        """A vector as tensors like the parameters."""
        pieces = torch.split(vector, [parameter.numel() for parameter in self._parameters])
        return [
            piece.to(parameter.dtype).to(parameter.device).view_as(parameter)
            for piece, parameter in zip(pieces, self._parameters, strict=True)
        ]

    def _gradients(
        self, outputs: Sequence[Tensor], cotangents: Sequence[Tensor], is_last: bool
    ) -> Sequence[Tensor]:
        """Gradients in the parameters of outputs times cotangents; the last one frees the graph."""
        return torch.autograd.grad(
            outputs,
            self._parameters,
            grad_outputs=cotangents,
            retain_graph=not is_last,
            allow_unused=True,
            materialize_grads=True,
        )


class HessianProduct(CurvatureProduct):
    """Products with the Hessian, H v = (1/n) sum_b d/dw (v . d/dw sum_{i in b} f_i).

    With PyTorch's own layers a product costs three to four times a gradient over the same batches; with those
    that differentiate twice at less cost (``forward``), twice.

    Arguments, attributes and errors are those of :class:`CurvatureProduct`.

    Example:
        Two classes and one linear layer make the logistic loss, with curvature p (1 - p) along a bias.

        >>> layer = nn.Linear(1, 2)
        >>> _ = nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
        >>> product = HessianProduct(layer, [(torch.zeros(3, 1), torch.tensor([0, 1, 1]))])
        >>> product.partial(np.array([0.0, 0.0, 1.0, 0.0]))
        array([ 0.  ,  0.  ,  0.25, -0.25])
    """

    name = "Hessian"

    def _batch_sums(
        self, inputs: Tensor, targets: Tensor, tangents: Sequence[list[Tensor]]
    ) -> Iterator[Sequence[Tensor]]:
        loss = sample_losses(self._forward, inputs, targets, self._loss).sum()
        if not loss.requires_grad:  # it depends on no live parameter
            return
        gradients = torch.autograd.grad(loss, self._parameters, create_graph=True, allow_unused=True)
        used = [index for index, g in enumerate(gradients) if g is not None and g.requires_grad]
        if not used:  # it is linear in them
            return
        slopes = [gradients[index] for index in used]
        for tangent in tangents:
            yield self._gradients(slopes, [tangent[index] for index in used], tangent is tangents[-1])


class GaussNewtonProduct(CurvatureProduct):
    """Products with the Gauss-Newton matrix, G v = (1/n) sum_i J_i^T (d^2 l / d z_i^2) J_i v.

    J v is the derivative of J^T u in u, which does not depend on u (the double-backward trick). For a loss of
    one's own the inner matrix is the second derivative of the loss in the module's outputs; G is then
    positive semidefinite only if the loss is convex in them.

    Arguments, attributes and errors are those of :class:`CurvatureProduct`.

    Example:
        A linear layer has no other curvature than that of the loss: G is the Hessian.

        >>> layer, batch = nn.Linear(2, 3), (torch.ones(1, 2), torch.tensor([2]))
        >>> v = np.arange(9.0)
        >>> g, h = (p(layer, [batch]).partial(v) for p in (GaussNewtonProduct, HessianProduct))
        >>> np.allclose(g, h, atol=1e-6)
        True
    """

    name = "Gauss-Newton matrix"

    def _batch_sums(
        self, inputs: Tensor, targets: Tensor, tangents: Sequence[list[Tensor]]
    ) -> Iterator[Sequence[Tensor]]:
        outputs, leaves, slopes = self._curved_outputs(inputs, targets)
        if not outputs:
            return
        cotangents = [torch.zeros_like(output, requires_grad=True) for output in outputs]
        gradients = torch.autograd.grad(
            outputs, self._parameters, grad_outputs=cotangents, create_graph=True, allow_unused=True
        )
        used = [index for index, g in enumerate(gradients) if g is not None]
        towards = [gradients[index] for index in used]
        options: dict[str, bool] = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        for tangent in tangents:
            own = [tangent[index] for index in used]
            changes = torch.autograd.grad(towards, cotangents, grad_outputs=own, **options)
            curved = torch.autograd.grad(slopes, leaves, grad_outputs=changes, **options)
            yield self._gradients(outputs, curved, tangent is tangents[-1])

    def _curved_outputs(
        self, inputs: Tensor, targets: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Outputs, leaves of their values, and the slopes of the loss in these, with a graph.

        Without outputs that depend on no live parameter or in which the loss has no curvature.
        """
        outputs: list[Tensor] = []
        leaves: list[Tensor] = []

        def cut(inputs: Tensor) -> Any:
            """The module's outputs, whose derivatives end here."""
            flat, structure = tree_flatten(self._forward(inputs))
            for index, part in enumerate(flat):
                if isinstance(part, Tensor) and part.requires_grad:
                    outputs.append(part)
                    leaves.append(part.detach().requires_grad_())
                    flat[index] = leaves[-1]
            return tree_unflatten(flat, structure)

        if inputs.is_inference():
            inputs, targets = inputs.clone(), targets.clone()  # autograd refuses tensors of inference mode
        loss = losses_of(cut, inputs, targets, self._loss)[1].sum()
        if not loss.requires_grad:  # it depends on no live parameter
            return [], [], []
        slopes = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
        curved = [index for index, s in enumerate(slopes) if s is not None and s.requires_grad]
        return tuple([values[index] for index in curved] for values in (outputs, leaves, slopes))  # type: ignore[return-value]
