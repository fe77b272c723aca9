"""What a cell is: genotypes, topology, size. No torch."""

from nas_lightning.cells.genotype import Edge, Genotype
from nas_lightning.cells.stack import CellPlan, StackPlan, stack_plan
from nas_lightning.cells.topology import live_nodes

__all__ = ["CellPlan", "Edge", "Genotype", "StackPlan", "live_nodes", "stack_plan"]
