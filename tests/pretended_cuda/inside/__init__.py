"""Checks that run where CUDA is pretended; `test_pretended_cuda.py` starts them."""
