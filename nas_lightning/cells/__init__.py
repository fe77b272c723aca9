"""What a cell is: genotypes, topology, variants, size. No torch.

The census of a connection space is in ``nas_lightning.cells.census``, imported only when used: it needs
NumPy.
"""

from nas_lightning.cells.genotype import CellEdges, Edge, Genotype, cell_edges, edge_nodes
from nas_lightning.cells.literal import parse_genotype
from nas_lightning.cells.operations import declare_operation, operation_names
from nas_lightning.cells.paths import PathLengths, Topology, cell_path, network_paths, topology
from nas_lightning.cells.published import (
    PublishedGenotype,
    Reported,
    published_genotypes,
    published_variants,
)
from nas_lightning.cells.size import UnknownOperationSize, count_parameters, multiply_adds
from nas_lightning.cells.spec import genotype_notes, genotype_slug, get_genotype
from nas_lightning.cells.stack import CellPlan, StackPlan, Stem, check_image_size, stack_plan
from nas_lightning.cells.topology import (
    cell_depth,
    cell_width,
    dead_nodes,
    duplicate_edges,
    format_width,
    live_nodes,
    node_depths,
    reads_inputs,
)
from nas_lightning.cells.user_operations import import_operations
from nas_lightning.cells.variants import (
    random_connections,
    random_operations,
    rewired,
    table2_variant,
    widest_shallowest,
)

__all__ = [
    "CellEdges",
    "CellPlan",
    "Edge",
    "Genotype",
    "PathLengths",
    "PublishedGenotype",
    "Reported",
    "StackPlan",
    "Stem",
    "Topology",
    "UnknownOperationSize",
    "cell_depth",
    "cell_edges",
    "cell_path",
    "cell_width",
    "check_image_size",
    "count_parameters",
    "dead_nodes",
    "declare_operation",
    "duplicate_edges",
    "edge_nodes",
    "format_width",
    "genotype_notes",
    "genotype_slug",
    "get_genotype",
    "import_operations",
    "live_nodes",
    "multiply_adds",
    "network_paths",
    "node_depths",
    "operation_names",
    "parse_genotype",
    "published_genotypes",
    "published_variants",
    "random_connections",
    "random_operations",
    "reads_inputs",
    "rewired",
    "stack_plan",
    "table2_variant",
    "topology",
    "widest_shallowest",
]
