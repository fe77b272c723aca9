"""Products of vectors with a matrix over the images, of which every rank has a share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch

from nas_lightning.analysis.curvature_products import CurvatureProduct, Vectors
from nas_lightning.callbacks.context import AnalysisContext

Result = TypeVar("Result")


class SharedProducts:
    """Rank 0 runs an algorithm and asks for products; the other ranks compute their shares of each.

    Args:
        context: Of the analysis.
        products: By name, this rank's shares of the products with each matrix.

    Attributes:
        made: Number of vectors multiplied so far, on rank 0.
    """

    def __init__(self, context: AnalysisContext, products: Mapping[str, CurvatureProduct]) -> None:
        self._context = context
        self._products = products
        self.made = 0

    def run(self, algorithm: Callable[[], Result]) -> Result:
        """Run an algorithm that calls :meth:`multiply` on rank 0; every rank gets its result."""

        def alone() -> Result:
            try:
                return algorithm()
            finally:
                self._request(None)  # the other ranks wait for the next vector

        if self._context.rank > 0:
            while (request := self._request(None)) is not None:
                name, shape = request
                self._share_of(name, np.empty(shape))
        return self._context.on_rank_zero(alone)

    def multiply(self, name: str, vectors: Vectors) -> Vectors:
        """The matrix of a name times one vector ``[size]`` or several ``[size, k]``, on rank 0."""
        self._context.stop_if_asked()
        count = 1 if vectors.ndim == 1 else vectors.shape[1]
        if self.made // 25 < (self.made + count) // 25:
            self._context.say(f"{self._products[name].name}: {self.made + count} products")
        self.made += count
        self._request((name, vectors.shape))
        return self._share_of(name, vectors)

    def loss(self) -> float:
        """F(w*), on every rank."""
        share = next(iter(self._products.values())).partial_loss()
        return float(self._context.reduce(np.array([share]))[0])

    def _request(self, request: tuple[str, tuple[int, ...]] | None) -> tuple[str, tuple[int, ...]] | None:
        asked: tuple[str, tuple[int, ...]] | None = self._context.trainer.strategy.broadcast(request)
        return asked

    def _share_of(self, name: str, vectors: Vectors) -> Vectors:
        if self._context.world_size > 1:
            on_device = torch.from_numpy(np.ascontiguousarray(vectors))
            on_device = on_device.to(self._context.trainer.strategy.root_device)
            torch.distributed.broadcast(on_device, src=0)
            vectors = on_device.cpu().numpy()
        return self._context.reduce(np.ascontiguousarray(self._products[name].partial(vectors)))
