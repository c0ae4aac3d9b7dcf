"""The stages from scans to figures, the command line, and everything that touches disk, devices or logs."""

from rarevox.pipeline.faces import face

__getattr__, __dir__, __all__ = face(__name__, {"device": ["place_network", "select_device", "select_precision"]})
