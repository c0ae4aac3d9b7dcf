"""Shapes of lesions from a folder of lesion maps, on the grid of the training cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.funcs import squeeze_image

from rarevox.transforms.planting.donors import Donor, shape_donor
from rarevox.transforms.planting.surroundings import evenly
from rarevox.transforms.sampling.foreground_index import ForegroundIndex

SAME_VOXELS = 1.1
"""Voxel edges within this factor of the training grid's are taken as the same."""


def map_files(folder: Path, most: int) -> list[Path]:
    """At most so many maps of a folder (.nii, .nii.gz), evenly picked by name.

    Raises:
        ValueError: there are none.
    """
    found = [file for file in folder.iterdir() if file.name.endswith((".nii", ".nii.gz"))] if folder.is_dir() else []
    if not found:
        raise ValueError(f"{folder} holds no lesion maps (.nii, .nii.gz)")
    return list(evenly(np.array(sorted(found), dtype=object), most))


def shapes_of(
    file: Path,
    affine: np.ndarray | None,
    *,
    label: int,
    sizes: tuple[int, int],
    extent: tuple[int, ...],
    number: int = 0,
) -> list[Donor]:
    """The lesions of a map, components joined by faces and corners, turned and resampled as training cases are.

    Args:
        file: everything in it that is not 0 (or no number) is lesion.
        affine: (4, 4), of a training case: which way its axes run and how large its voxels are, mm; None takes the
            map's voxels as they are, axes to the right, anterior and superior.
        label: the class of the lesions.
        sizes: least and largest number of voxels.
        extent: largest size along each axis, voxels.
        number: of the map, noted in the donors.

    Raises:
        ValueError: the file cannot be read as a volume, or does not say how large its voxels are.
    """
    mask = _on_grid(file, affine)
    found = []
    for voxels in ForegroundIndex.of_components(mask.astype(np.uint8)).voxels:
        places = np.stack(np.unravel_index(voxels, mask.shape), 1)
        places -= places.min(0)
        box = places.max(0) + 1
        if sizes[0] <= len(voxels) <= sizes[1] and (box <= extent).all():
            shape = np.zeros(box, bool)
            shape[tuple(places.T)] = True
            found.append(shape_donor(shape, label, -2 - number))
    return found


def _on_grid(file: Path, affine: np.ndarray | None) -> np.ndarray:
    """Where a map is not 0, in voxels like those of the training case."""
    try:
        image: Any = squeeze_image(nib.load(file))  # type: ignore[attr-defined]
        codes: Any = nib.aff2axcodes(np.eye(4) if affine is None else affine)  # type: ignore[attr-defined]
        if image.ndim != len(codes):
            raise ValueError(f"it has {image.ndim} axes")
        ornt = nib.orientations.ornt_transform(
            nib.io_orientation(image.affine),  # type: ignore[attr-defined]
            nib.orientations.axcodes2ornt(codes),  # type: ignore[no-untyped-call]
        )
        turned: Any = image.as_reoriented(ornt)
        mask = np.nan_to_num(np.asarray(turned.dataobj)) != 0
        edges = np.linalg.norm(turned.affine[:3, :3], axis=0)
    except (OSError, ValueError, TypeError, EOFError, ImageFileError) as error:
        raise ValueError(f"{file} is no lesion map: {error}") from None  # what is told is the last error of a chain
    if affine is None:
        return mask
    wanted = np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0)
    if not (np.isfinite(edges) & (edges > 0)).all():
        raise ValueError(f"{file} does not say how large its voxels are, so that its lesions would come in any size")
    return nearest(mask, edges / wanted)


def nearest(mask: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """A mask with voxels so many times as many along each axis: each is that of the mask in which its middle lies.

    A voxel becomes as many as it is large, on average, so that no lesion grows or shrinks for lying across voxels.
    Factors within 1.1 of one are none.

    >>> nearest(np.array([True, False]), np.array([2.0])).tolist()
    [True, True, False, False]
    """
    grids = []
    for n, factor in zip(mask.shape, factors, strict=True):
        if 1 / SAME_VOXELS <= factor <= SAME_VOXELS:
            factor = 1.0
        count = max(round(n * factor), 1)
        grids.append(np.minimum(((np.arange(count) + 0.5) / factor).astype(int), n - 1))
    return mask[np.ix_(*grids)]
