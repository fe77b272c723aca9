"""Ratios against plain implementations, measured in one process."""
