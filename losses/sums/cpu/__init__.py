"""The table of sums on a CPU, by kernels that Numba compiles.

`overlap.py` needs no Numba and is what the rest of `sums` imports. It describes the work in an array of int64, a job,
whose places `job.py` names. `kernels.py` does the work, chunk by chunk of the volume: `chunks.py` loads and stores,
`softmax.py`, `class_sums.py` and `gradient.py` compute, and `numbers.py` has pointers, exponential and logarithm for
them. These six need Numba.
"""
