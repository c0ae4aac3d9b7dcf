"""The commands of ``rarevox``, a module for each group; each imports its stage when it runs: help answers at once."""
