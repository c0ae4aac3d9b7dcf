"""From a network and a scan to a label map: tiles, dense inference, files written."""

from rarevox.pipeline.inference.dense import DenseInferer

__all__ = ["DenseInferer"]
