"""Kernels for the CPU in C, their build and their operators."""
