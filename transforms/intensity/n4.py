"""N4 bias field correction (SimpleITK): slow shading by the coil divided out of MRI."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from rarevox.transforms.reading.geometry import spacing_mm

SHRINK = 4
"""The field is fitted on every fourth voxel along each axis of 64 or more; it is smooth, and 64 times as fast."""

ITERATIONS = (50, 50, 50, 50)
"""At most so many iterations on each of four levels, with control points twice as dense on each."""


class NegativeIntensityError(ValueError):
    """A channel holds values below 0, which no logarithm takes: it is no raw MRI."""


def n4_corrected(
    volume: np.ndarray, spacing_mm: Sequence[float], mask: np.ndarray | None = None, *, shrink: int = SHRINK
) -> np.ndarray:
    """The volume divided by its bias field, with the mean inside the mask kept.

    Tustison et al., *N4ITK: improved N3 bias correction*, IEEE Trans. Med. Imaging 29 (2010) 1310:
    log v = log u + log b; b is a B-spline field that sharpens the histogram of u.

    Args:
        volume: (X, Y, Z) raw intensities, none negative.
        spacing_mm: voxel edge lengths.
        mask: (X, Y, Z), non-zero where the field is fitted; None takes what lies above Otsu's threshold.
        shrink: the field is fitted on every so-many-th voxel of long axes; it is applied to all.

    Returns:
        (X, Y, Z) float32; a volume whose mask is empty or that is constant comes back as it is.

    Raises:
        NegativeIntensityError: negative intensities.

    >>> n4_corrected(np.full((8, 8, 8), 3.0), (1.0, 1.0, 1.0)).max()
    np.float32(3.0)
    """
    volume = np.asarray(volume, np.float32)
    if volume.min() < 0:
        raise NegativeIntensityError(
            f"the smallest value is {volume.min():g}; N4 corrects raw MRI, which has none below 0"
        )
    import SimpleITK

    image = _itk(volume, spacing_mm)
    if mask is None:
        inside = SimpleITK.OtsuThreshold(image, 0, 1, 200)
    else:
        inside = _itk((np.asarray(mask) != 0).astype(np.uint8), spacing_mm)
    where = SimpleITK.GetArrayFromImage(inside).T != 0
    if volume.max() == volume.min() or not where.any():
        return volume
    steps = [max(1, min(shrink, size // 16)) for size in volume.shape]
    fit = SimpleITK.N4BiasFieldCorrectionImageFilter()
    fit.SetMaximumNumberOfIterations(list(ITERATIONS))
    fit.SetNumberOfThreads(1)  # cases run side by side
    fit.Execute(SimpleITK.Shrink(image, steps), SimpleITK.Shrink(inside, steps))
    field = SimpleITK.GetArrayFromImage(fit.GetLogBiasFieldAsImage(image)).T  # a copy: a view would outlive its image
    corrected = volume / np.exp(field)
    corrected *= volume[where].mean(dtype=np.float64) / max(corrected[where].mean(dtype=np.float64), 1e-12)
    return np.ascontiguousarray(corrected, np.float32)


def _itk(array: np.ndarray, spacing_mm: Sequence[float]) -> Any:
    """A volume (X, Y, Z) as a SimpleITK image."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing([float(edge) for edge in spacing_mm])
    return image


class N4Correctedd(MapTransform):
    """Correct every channel of images in a data dictionary by :func:`n4_corrected`.

    Args:
        keys: the images, each (C, X, Y, Z); a MetaTensor's affine gives the spacing, else it is 1 mm.
        mask_key: the entry that holds a mask (1, X, Y, Z), used where a case has it.
        shrink: see :func:`n4_corrected`.
    """

    def __init__(
        self, keys: KeysCollection, *, mask_key: str = "mask", shrink: int = SHRINK, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key = mask_key
        self.shrink = shrink

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each image by its corrected self."""
        out = dict(data)
        mask = out.get(self.mask_key)
        inside = None if mask is None else np.asarray(mask)[0]
        for key in self.key_iterator(out):
            image = out[key]
            spacing = spacing_mm(np.asarray(getattr(image, "affine", np.eye(4))))
            done = image.float().clone()
            for channel in range(done.shape[0]):
                plain = np.asarray(image[channel])
                done[channel] = torch.as_tensor(n4_corrected(plain, spacing, inside, shrink=self.shrink))
            out[key] = done
        return out
