"""The table of sums on a CUDA device, by Triton kernels: `overlap.py` launches what `kernels.py` holds."""
