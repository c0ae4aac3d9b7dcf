"""The parts of reading: what a file is, what its header declares, where it lies."""
