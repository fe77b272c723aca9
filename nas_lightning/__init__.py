"""Train, measure and compare the cells of cell-based neural architecture search."""
