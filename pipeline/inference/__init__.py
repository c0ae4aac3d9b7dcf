"""From a network and a scan to a label map: tiles, dense inference, files written."""

from rarevox.pipeline.faces import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {"dense": ["DenseInferer"], "saving": ["SaveLabelsd"], "scan_statistics": ["ScanStatistics"]},
)
