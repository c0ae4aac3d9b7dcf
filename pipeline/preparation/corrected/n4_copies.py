"""``--n4``: images with the bias field divided out, as copies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from rarevox.pipeline.preparation.cases import Fault
from rarevox.pipeline.preparation.checks.case import Loaded
from rarevox.pipeline.preparation.checks.catalogue import fault
from rarevox.pipeline.preparation.corrected.copies import by_file, write_copy
from rarevox.transforms.intensity.n4 import NegativeIntensityError, n4_corrected


def n4_case(loaded: Loaded, folder: Path) -> tuple[Loaded, list[Fault]]:
    """Write a case's images, corrected channel by channel inside its mask (or above Otsu's threshold), and use those.

    Args:
        loaded: a case without an error.
        folder: the copies go into ``folder/CASE``.

    Returns:
        The case with the copies in place of the originals; or as it was, with the fault, where a value is negative.

    Raises:
        OSError: a copy cannot be written.
    """
    image, case = loaded.image, loaded.case
    mask = None if loaded.mask is None else loaded.mask.array[0]
    try:
        array = np.stack([n4_corrected(channel, image.spacing_mm, mask) for channel in image.array])
    except NegativeIntensityError as error:
        return loaded, [fault(case.case, "n4-negative", str(error), case.image[0])]
    parts = by_file(case.image, array) or [array]
    files = tuple(
        write_copy(folder / case.case / f"image_{number:04d}.nii.gz", part, image.affine)
        for number, part in enumerate(parts)
    )
    return replace(loaded, case=replace(case, image=files), image=replace(image, array=array)), []
