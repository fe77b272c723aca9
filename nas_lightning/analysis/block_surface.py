"""The curvature of every block of a network: measured, shared and resumed as a surface of one row."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas_lightning.analysis.block_curvature import WHOLE, Block
from nas_lightning.analysis.surface import Surface
from nas_lightning.netcdf import read_dataset, refuse, write_dataset

if TYPE_CHECKING:
    import xarray as xr  # takes as long to import as the rest of the analyses together

KIND = "block_curvature"
NO_CELL = -1
"""Number of the cell of a block outside the cells."""
_LABELS = ("name", "cell", "node", "parameters")


def block_variables(normalized: bool, unit: str = "nat") -> Mapping[str, Mapping[str, str]]:
    """What is measured of every block; curvatures of D H D are in the unit of the loss."""
    curvature = {"units": unit if normalized else f"{unit} per squared weight"}
    return {
        "largest_eigenvalue": {"long_name": "largest eigenvalue of the block of the Hessian", **curvature},
        "smallest_eigenvalue": {"long_name": "smallest eigenvalue of the block of the Hessian", **curvature},
        "residual": {"long_name": "larger residual of the two", **curvature},
        "converged": {"long_name": "1 if the residual is within the tolerance", "units": "1"},
        "products": {"long_name": "products with the block", "units": "1"},
    }


class BlockSurface(Surface):
    """Values of every block: in a :class:`~nas_lightning.analysis.surface.Point`, alpha is a block's number.

    The file has them over ``block``, with the block's ``name``, ``cell`` (-1 outside the cells), ``node``
    (``"preprocess"``, a number, or empty) and number of ``parameters``.
    """

    @classmethod
    def of(
        cls,
        blocks: Sequence[Block],
        sizes: Iterable[int],
        variables: Mapping[str, Mapping[str, str]],
        attributes: Mapping[str, str | int | float],
    ) -> BlockSurface:
        """A surface of some blocks, with the number of parameters of each, of which none is measured."""
        numbers = np.arange(len(blocks), dtype=np.float64)
        surface = cls.create(KIND, variables, numbers, [0.0], [0], attributes)
        cells = [NO_CELL if block.cell is None else block.cell for block in blocks]
        labels = {
            "name": (np.array([block.name for block in blocks]), "name of the block"),
            "cell": (np.array(cells, np.int32), "number of the cell, -1 outside the cells"),
            "node": (np.array([block.node for block in blocks]), "node of the cell, empty for no single one"),
            "parameters": (np.array(list(sizes), np.int32), "parameters of the block"),
        }
        for name, (values, long_name) in labels.items():
            surface.dataset[name] = ("alpha", values, {"long_name": long_name})
        return surface

    @property
    def table(self) -> xr.Dataset:
        """The values so far over ``block``."""
        table = self.dataset.isel(direction_seed=0, beta=0, drop=True).rename(alpha="block")
        table["block"].attrs = {"long_name": "number of the block", "units": "1"}
        return table

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as netCDF-3, atomically; an OSError names the file."""
        write_dataset(path, self.table)

    @classmethod
    def resume_or_create(cls, path: str | os.PathLike[str], fresh: BlockSurface) -> BlockSurface:
        """Read the blocks that a file holds, if they are those to measure; see :class:`Surface`."""
        if not Path(path).exists():
            return fresh
        found = read_blocks(path)
        names, wanted = block_names(found), block_names(fresh.table)
        if names != wanted:
            refuse(path, "blocks", ", ".join(wanted), ", ".join(names))
        found = found.rename(block="alpha")
        measured = [
            name for name in found.data_vars if found[name].dims == ("alpha",) and name not in _LABELS
        ]
        axes = {name: fresh.dataset[name] for name in ("direction_seed", "beta")}
        found = found.assign(
            {
                name: found[name].expand_dims(axes).transpose("direction_seed", "alpha", "beta")
                for name in measured
            }
            | {name: fresh.dataset[name] for name in _LABELS}
        )
        return cls._resumed(path, found, fresh)


def read_blocks(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read a file of block curvatures into memory, and close it.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it holds something else, or is damaged.
    """
    dataset = read_dataset(path)
    for name in ("largest_eigenvalue", "smallest_eigenvalue", "done", *_LABELS):
        if name not in dataset.variables or dataset[name].dims != ("block",):
            raise ValueError(
                f"{path} is no file of block curvatures, or it is damaged: `{name}` is not over blocks"
            )
    if not np.isin(dataset["done"].values, (0, 1)).all():
        raise ValueError(f"{path} is damaged: `done` is not 0 or 1 over blocks")
    return dataset


def block_names(table: xr.Dataset) -> list[str]:
    """Names of a table's blocks, in order."""
    return texts(table["name"].values)


def texts(values: np.ndarray) -> list[str]:
    """Strings, which netCDF-3 may return as bytes."""
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]


def block_scalars(table: xr.Dataset) -> xr.Dataset:
    """Compute the numbers of a finished table by which architectures are compared.

    - ``network_largest_eigenvalue``, ``network_smallest_eigenvalue``: of the whole matrix.
    - ``largest_block_eigenvalue``: the largest of a part or cell of the network.
    - ``largest_node_eigenvalue``: the largest of a node; NaN without cells.
    - ``block_share``: ``largest_block_eigenvalue`` over that of the network, at most 1: at 1 the sharpest
      direction lies within one cell or part.

    Values that are not finite make those that depend on them not finite.
    """
    import xarray as xr

    names, nodes = block_names(table), texts(table["node"].values)
    largest = table["largest_eigenvalue"].values.astype(np.float64)
    smallest = table["smallest_eigenvalue"].values.astype(np.float64)
    whole = names.index(WHOLE)
    parts = [i for i, name in enumerate(names) if i != whole and not nodes[i]]
    inner = [i for i in range(len(names)) if nodes[i]]
    units = table["largest_eigenvalue"].attrs.get("units", "")
    sharpest = largest[parts].max() if parts else largest[whole]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = sharpest / largest[whole]
    values = {
        "network_largest_eigenvalue": (largest[whole], "largest eigenvalue of the Hessian", units),
        "network_smallest_eigenvalue": (smallest[whole], "smallest eigenvalue of the Hessian", units),
        "largest_block_eigenvalue": (sharpest, "largest eigenvalue of a cell's or part's block", units),
        "largest_node_eigenvalue": (
            largest[inner].max() if inner else np.nan,
            "largest eigenvalue of a node's block",
            units,
        ),
        "block_share": (share, "largest eigenvalue of a block over that of the Hessian", "1"),
    }
    return xr.Dataset(
        {
            name: ((), float(value), {"long_name": long_name, "units": unit})
            for name, (value, long_name, unit) in values.items()
        }
    )
