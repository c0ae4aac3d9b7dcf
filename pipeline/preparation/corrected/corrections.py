"""``--fix``: corrected copies of files whose fault has one certain remedy; the originals are never written to.

What is certain, and nothing else:

- *Label or mask on another grid*: its axes are put into the image's order and direction (voxels move, none is
  interpolated), and an offset is removed, where afterwards every corner lies within a tenth of a voxel of the image's.
- *Label values*: floats within 0.01 of whole numbers are stored as whole numbers.
- *NaN around the head*: voxels that are NaN become 0 where NaN fills the surround (five of eight corners), none of them
  is foreground, and none is infinite.
- *sform against qform*: the sform counts, as when reading; the qform is set to it, or switched off where the sform is
  sheared, which a qform cannot say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from rarevox.pipeline.preparation.cases import Fault
from rarevox.pipeline.preparation.checks.case import Loaded, form_gap_mm, load_case, surround_corners
from rarevox.pipeline.preparation.corrected.copies import by_file, corner_gap_mm, write_copy
from rarevox.pipeline.words import counted
from rarevox.transforms.reader import Scan, same_affine

NEAR_VOXEL = 0.1
"""Grids whose corners differ by less than this share of a voxel are one grid, written with rounding."""

NEAR_WHOLE = 0.01
"""A label value this close to a whole number is that number."""


@dataclass(frozen=True)
class Fix:
    """One thing corrected: the case, the check that would have found it, the file, its copy, and what was done."""

    case: str
    check: str
    file: str
    copy: str
    what: str


def correct(loaded: Loaded, folder: Path) -> tuple[Loaded | None, list[Fault], list[Fix]]:
    """Write corrected copies of a case's files into ``folder/CASE`` and load the case from them.

    Args:
        loaded: the case as it is.
        folder: where copies go; nothing is made where nothing is corrected.

    Returns:
        The case with the copies in place of the originals (None, with the faults, where they cannot be read back), and
        what was done; the same case and nothing where there was nothing certain to do.

    Raises:
        OSError: a copy cannot be written.
    """
    case, place = loaded.case, folder / loaded.case.case
    fixes: list[Fix] = []

    def note(check: str, original: Path, copy: Path, what: str) -> None:
        fixes.append(Fix(case.case, check, str(original), str(copy), what))

    label = _corrected_label(loaded, place / "label.nii.gz", note)
    mask = _corrected_mask(loaded, place / "mask.nii.gz", note)
    image = _corrected_image(loaded, place, note)
    if not fixes:
        return loaded, [], []
    again, faults = load_case(replace(case, image=image, label=label, mask=mask), loaded.declared, loaded.ignored)
    return again, faults, fixes


def on_grid(scan: Scan, image: Scan) -> tuple[np.ndarray, str] | None:
    """A label's voxels (1, X, Y, Z) on the image's grid and what that took; None where they are different grids."""
    turn = nib.orientations.ornt_transform(nib.io_orientation(scan.affine), nib.io_orientation(image.affine))
    turned = nib.apply_orientation(scan.array[0], turn)
    affine = scan.affine @ nib.orientations.inv_ornt_aff(turn, scan.shape)
    if turned.shape != image.shape:
        return None
    gap = corner_gap_mm(affine, image.affine, image.shape)
    if gap > NEAR_VOXEL * min(image.spacing_mm):
        return None
    done = []
    before, after = ("".join(nib.aff2axcodes(a)) for a in (scan.affine, image.affine))
    if before != after:
        done.append(f"axes turned from {before} to {after}")
    if not same_affine(affine, image.affine):
        done.append(f"an offset of up to {gap:.2g} mm removed")
    return np.ascontiguousarray(turned)[None], ", ".join(done)


def whole_numbers(array: np.ndarray) -> tuple[np.ndarray, str] | None:
    """Float label values as the unsigned whole numbers that they nearly are, and what that took; None if they are not.

    >>> whole_numbers(np.array([0.0, 1.999]))
    (array([0, 2], dtype=uint8), 'values up to 0.001 off rounded, float64 stored as uint8')
    """
    if array.dtype.kind != "f" or not np.all(np.isfinite(array)):
        return None
    near = np.round(array)
    off = float(np.abs(array - near).max())
    if off > NEAR_WHOLE or near.min() < 0 or near.max() > 65535:
        return None
    found = near.astype(np.uint8 if near.max() <= 255 else np.uint16)
    rounded = f"values up to {off:.2g} off rounded, " if off else ""
    return found, f"{rounded}{array.dtype} stored as {found.dtype}"


def _corrected_label(loaded: Loaded, copy: Path, note: Any) -> Path:
    """The label's file, or its corrected copy."""
    scan, original = loaded.label, loaded.case.label
    if scan.array.shape[0] != 1:
        return original
    array, affine = scan.array, scan.affine
    if scan.shape != loaded.image.shape or not same_affine(affine, loaded.image.affine):
        placed = on_grid(scan, loaded.image)
        if placed is None:
            return original
        check = "label-affine"
        if np.linalg.det(affine[:3, :3]) * np.linalg.det(loaded.image.affine[:3, :3]) < 0:
            check = "label-handedness"
        elif scan.shape != loaded.image.shape:
            check = "label-shape"
        array, affine = placed[0], loaded.image.affine
        note(check, original, copy, placed[1])
    whole = whole_numbers(array)
    if whole is not None:
        array = whole[0]
        note("label-not-whole", original, copy, whole[1])
    gap = form_gap_mm(scan)
    if gap > 0.1:
        note("form-conflict", original, copy, _form_text(gap))
    if whole is None and gap <= 0.1 and array is scan.array:
        return original
    return write_copy(copy, array, affine)


def _corrected_mask(loaded: Loaded, copy: Path, note: Any) -> Path | None:
    """The mask's file, or its copy on the image's grid."""
    scan, original = loaded.mask, loaded.case.mask
    if scan is None or original is None or scan.array.shape[0] != 1:
        return original
    if scan.shape == loaded.image.shape and same_affine(scan.affine, loaded.image.affine):
        return original
    placed = on_grid(scan, loaded.image)
    if placed is None:
        return original
    note("mask-grid", original, copy, placed[1])
    return write_copy(copy, (placed[0] != 0).astype(np.uint8), loaded.image.affine)


def _corrected_image(loaded: Loaded, place: Path, note: Any) -> tuple[Path, ...]:
    """The image's files, each replaced by its copy where it was corrected."""
    scan, files = loaded.image, loaded.case.image
    groups = by_file(files, scan.array)
    if groups is None:
        return files
    chosen = []
    for number, (file, array) in enumerate(zip(files, groups, strict=True)):
        copy = place / f"image_{number:04d}.nii.gz"
        count, filled = _filled_surround(array, loaded)
        if count:
            note("not-finite", file, copy, f"{counted(count, 'NaN voxel')} of the surround set to 0")
        gap = form_gap_mm(scan) if number == 0 else 0.0  # the header kept is the first file's
        if gap > 0.1:
            note("form-conflict", file, copy, _form_text(gap))
        chosen.append(write_copy(copy, filled, scan.affine) if count or gap > 0.1 else file)
    return tuple(chosen)


def _filled_surround(array: np.ndarray, loaded: Loaded) -> tuple[int, np.ndarray]:
    """How many NaN were set to 0, and the channels with them; 0 where it is not certain that they are the surround."""
    bad = ~np.isfinite(array)
    count = int(bad.sum())
    if not count or np.isinf(array).any():
        return 0, array
    label = loaded.label
    if label.shape != loaded.image.shape or not same_affine(label.affine, loaded.image.affine):
        return 0, array  # which voxels are foreground is not known
    for channel in bad:
        if channel.any() and ((channel & loaded.foreground).any() or surround_corners(channel).sum() < 5):
            return 0, array
    return count, np.where(bad, np.float32(0), array)


def _form_text(gap: float) -> str:
    return f"qform set to the sform, from which it was up to {gap:.3g} mm away"
