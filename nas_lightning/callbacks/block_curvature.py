"""The curvature of every cell and node at the trained weights, beside the split of the gradient variance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from matplotlib.figure import Figure

from nas_lightning.analysis import Point, Surface, block_eigenvalues, parameter_blocks
from nas_lightning.analysis.block_curvature import Block, children_places, with_filters
from nas_lightning.analysis.block_surface import BlockSurface, block_scalars, block_variables
from nas_lightning.analysis.extreme_eigenvalues import check_run
from nas_lightning.analysis.trial import check_second_derivative
from nas_lightning.callbacks.context import AnalysisContext, Dataset
from nas_lightning.callbacks.point_analysis import MeasurePoint, PointAnalysis
from nas_lightning.figures import draw_block_curvature, read_block_curvature


class BlockCurvature(PointAnalysis):
    """Largest and smallest eigenvalue of every cell's and node's own block of the Hessian at w*.

    The blocks are those by which :class:`~nas_lightning.callbacks.gradient_variance.GradientVariance` splits
    the variance: stem, cells, their nodes and input projections, classifier; of a module without cells its
    children, below what all parameters have in common. The whole network's stands beside them: no block has a
    larger one. A product with a block needs gradients in it alone. Each block is measured by one rank, and
    saved when it is done.

    Args:
        normalized: Whether the eigenvalues are those of D H D, D the filters' root mean squares, which do not
            see the scale of weights before a batch norm; blocks without filters are then left out.
        tolerance: Residual, relative to the block's largest absolute eigenvalue, at which it is done.
        max_products: Limit on the products of a block; one that reaches it is marked as not converged.
        seed: Of Lanczos's start vector.
        batch_size: Images in a batch; a product needs several times the memory of a training step.
        settings: As for :class:`nas_lightning.callbacks.analysis.Analysis`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind = "block_curvature"
    headline = ("network_largest_eigenvalue", "largest_block_eigenvalue", "block_share")
    chunk_size: ClassVar[int] = 1

    def __init__(
        self,
        normalized: bool = True,
        tolerance: float = 1e-4,
        max_products: int = 100,
        seed: int = 0,
        batch_size: int = 40,
        **settings: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **settings)
        check_run(tolerance, max_products)
        if not 0 <= seed < 2**31:
            raise ValueError(f"`seed` (={seed}) must be from 0 to 2**31 - 1")
        self.normalized = normalized
        self.settings = {"tolerance": tolerance, "max_products": max_products, "seed": seed}

    def rehearse(self, context: AnalysisContext) -> None:
        """Refuse a loss without a second derivative, and a network without a block to measure."""
        super().rehearse(context)
        check_second_derivative(context.network, *context.few_samples(), self.loss)
        self.prepare(context)

    def prepare(self, context: AnalysisContext) -> list[Block]:
        """The blocks of the network."""
        names = context.parameter_names
        if context.cells is None:
            places = children_places(names)
        else:
            places = {name: context.cells.network.parameter_place(name) for name in names}
        blocks = parameter_blocks(places)
        blocks = with_filters(context.network, blocks) if self.normalized else blocks
        if not blocks:
            raise ValueError(
                f"`normalized` (=True) needs a weight of more than one dimension, and"
                f" {type(context.network).__name__} has none: set it to false"
            )
        return blocks

    def start(self, context: AnalysisContext, prepared: Sequence[Block]) -> Surface:
        """The blocks that the file holds, or new ones; on rank 0."""
        attributes = {**context.attributes(), "normalized": self.normalized, **self.settings}
        variables = block_variables(self.normalized, "nat" if self.loss is None else "1")
        sizes = [
            sum(context.network.get_parameter(name).numel() for name in block.parameters)
            for block in prepared
        ]
        fresh = BlockSurface.of(prepared, sizes, variables, attributes)
        return BlockSurface.resume_or_create(context.path, fresh)

    @contextmanager
    def at_points(
        self, context: AnalysisContext, prepared: Sequence[Block], surface: Surface
    ) -> Iterator[MeasurePoint]:
        """A Lanczos run a block."""
        forward = context.twice_differentiable(self.speed)
        settings: dict[str, Any] = {"normalized": self.normalized, "loss": self.loss, **self.settings}

        def measure(point: Point) -> dict[str, float]:
            names = prepared[point.index[1]].parameters
            found = block_eigenvalues(context.network, context.batches, names, forward=forward, **settings)
            return found.variables()

        yield measure

    def scalars(self, dataset: Dataset) -> Dataset:
        """The sharpest block, see :func:`nas_lightning.analysis.block_surface.block_scalars`."""
        return block_scalars(BlockSurface(dataset).table)

    def figures(self, surface: Surface) -> dict[str, Figure]:
        """The eigenvalues of every block."""
        assert isinstance(surface, BlockSurface)
        curvature = read_block_curvature(surface.table, str(surface.dataset.attrs["title"]))
        return {"landscape/block_curvature": draw_block_curvature([curvature])}
