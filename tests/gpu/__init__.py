"""Whole stages on a CUDA device."""
