"""The CUDA path without a device: everything but numbers, in a process in which fake tensors say `cuda`."""
