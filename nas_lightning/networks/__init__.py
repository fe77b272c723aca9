"""What a cell computes: operations, cells and the network of stacked cells."""

from nas_lightning.networks.cell import Cell
from nas_lightning.networks.network import CellNetwork
from nas_lightning.networks.operations import OperationFactory, build_operation, register_operation
from nas_lightning.networks.reference_weights import load_reference_weights, reference_names
from nas_lightning.networks.regularization import AuxiliaryTower, drop_path_factors
from nas_lightning.networks.size import NetworkSize, measure_size

__all__ = [
    "AuxiliaryTower",
    "Cell",
    "CellNetwork",
    "NetworkSize",
    "OperationFactory",
    "build_operation",
    "drop_path_factors",
    "load_reference_weights",
    "measure_size",
    "reference_names",
    "register_operation",
]
