"""DICOM files of several frames, each placed by its own position: GDCM takes them as they follow one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rarevox.transforms.reading.errors import ScanError
from rarevox.transforms.reading.geometry import size_text
from rarevox.transforms.reading.quiet import quietly

_REASONS = {
    "regularly-spaced": "its frames are not evenly spaced, or some are missing",
    "Multiple frames": "it holds several frames at one position (several echoes, times or diffusion weightings)",
}


def frames_image(path: Path) -> Any:
    """A file of several frames (enhanced MR, CT, PET) as a SimpleITK image, slices along the normal of their plane.

    highdicom places the frames. ITK's reader would take them in the order of the file with the distance of the first
    two: of shuffled, repeated or missing frames it makes a volume that was never there.

    Args:
        path: of the file, whose header was judged.

    Raises:
        ScanError: highdicom is not installed, or the frames are not one even stack.
    """
    try:
        import highdicom
    except ImportError:
        raise ScanError(
            f"{path} holds several frames, which highdicom places in space: pip install --constraint constraints.txt "
            "--editable '.[dicom]' in the checkout of rarevox"
        ) from None
    try:
        with quietly():
            volume = highdicom.imread(path).get_volume(dtype=np.float32, apply_real_world_transform=False)
    except MemoryError:
        raise
    except Exception as error:
        told = next((words for mark, words in _REASONS.items() if mark in str(error)), "")
        told = told or f"they are no volume that highdicom understands ({type(error).__name__})"
        raise ScanError(f"the frames of {path} cannot be used: {told}") from error
    if volume.array.ndim != 3:
        raise ScanError(f"{path} holds frames of {size_text(volume.array.shape)} values; expected grey values")
    return _as_itk(volume.array, np.asarray(volume.affine, float))


def _as_itk(array: np.ndarray, affine: np.ndarray) -> Any:
    """Frames (slice, row, column) with their affine (LPS) as an image, whose third axis is row × column."""
    import SimpleITK

    normal = np.cross(affine[:3, 2], affine[:3, 1])
    if affine[:3, 0] @ normal < 0:
        array = array[::-1]
        affine = affine.copy()
        affine[:3, 3] += (len(array) - 1) * affine[:3, 0]
        affine[:3, 0] *= -1
    axes = affine[:3, [2, 1, 0]]
    spacing = np.linalg.norm(axes, axis=0)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((axes / spacing).ravel().tolist())
    return image
