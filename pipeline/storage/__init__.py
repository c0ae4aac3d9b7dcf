"""Where the prepared training cases are held: in memory, in memory-mapped files, on the device."""

from rarevox.pipeline.faces import face

__getattr__, __dir__, __all__ = face(__name__, {"cases": ["training_cases"], "readable": ["WholeCases"]})
