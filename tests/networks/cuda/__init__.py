"""Kernels of networks for a GPU, under Triton's interpreter."""
