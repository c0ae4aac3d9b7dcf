"""Compressed DICOM slices that GDCM cannot decode, by pydicom and its decoders (pylibjpeg)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rarevox.transforms.reading.quiet import quietly


def decoded_planes(paths: Sequence[Path]) -> np.ndarray | None:
    """The slices (Z, Y, X), rescaled, as float32; None where pydicom is not installed or cannot decode one either.

    Args:
        paths: of the files, in order.
    """
    try:
        from pydicom import dcmread
        from pydicom.pixels import apply_rescale
    except ImportError:
        return None
    planes = []
    with quietly():
        for path in paths:
            try:
                data = dcmread(path)
                planes.append(np.asarray(apply_rescale(data.pixel_array, data), np.float32))
            except MemoryError:
                raise
            except Exception:  # each decoder has errors of its own
                return None
    if any(plane.ndim != 2 or plane.shape != planes[0].shape for plane in planes):
        return None
    return np.stack(planes)
