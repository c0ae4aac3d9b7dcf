"""Passes over the memory of a GPU, in kernels of Triton, that `rarevox.networks.cpu.ops` calls."""
