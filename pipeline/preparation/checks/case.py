"""What can be wrong with one case: each check a function that yields a sentence for every fault it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch

from rarevox.pipeline.preparation.cases import Case, Fault
from rarevox.pipeline.preparation.checks.catalogue import fault
from rarevox.pipeline.words import counted
from rarevox.transforms.intensity.outcome import outweighing
from rarevox.transforms.reader import (
    AFFINE_TOLERANCE,
    Scan,
    ScanError,
    forms_mm,
    odd_spacing,
    read_scan,
    same_affine,
    size_text,
)

MAX_LABEL_VALUES = 128
"""A label with more values than this, none of them declared, is taken for an image."""


@dataclass
class Loaded:
    """A case in memory: image (C, X, Y, Z) float32, label as stored, and the declared label values with their names."""

    case: Case
    image: Scan
    label: Scan
    mask: Scan | None = None
    declared: Mapping[int, str] | None = None
    ignored: int | None = None

    @cached_property
    def label_counts(self) -> dict[int, int] | None:
        """Voxels of each value in the label, ascending; None where a value is not a whole number."""
        return count_values(self.label.array)

    @cached_property
    def foreground(self) -> np.ndarray:
        """(X, Y, Z) boolean: every voxel of a structure, with a label other than 0 and the ignored one."""
        labels = self.label.array[0]
        return (labels != 0) if self.ignored is None else (labels != 0) & (labels != self.ignored)


Finding = tuple[str, Path]


class Check(NamedTuple):
    """A check's name, as the catalogue has it, and the function that does it."""

    name: str
    find: Callable[[Loaded], Iterator[Finding]]


def count_values(array: np.ndarray) -> dict[int, int] | None:
    """How often each whole number occurs, or None where any entry is not a whole number (NaN and infinity included).

    >>> count_values(np.array([0.0, 2.0, 2.0])), count_values(np.array([0.0, 0.5]))
    ({0: 1, 2: 2}, None)
    """
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = array.astype(np.int64)
        if not np.array_equal(whole, array):
            return None
        array = whole
    if array.min() >= 0 and array.max() <= 65535:  # counting is several times as fast as sorting
        counts = np.bincount(array.reshape(-1).astype(np.intp, copy=False))
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(array, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def label_channels(loaded: Loaded) -> Iterator[Finding]:
    """A label is one volume of values, not one channel per structure."""
    if loaded.label.array.shape[0] != 1:
        count = loaded.label.array.shape[0]
        yield (
            f"the label has {count} channels; expected one volume with a value for each structure",
            loaded.case.label,
        )


def label_grid_shape(loaded: Loaded) -> Iterator[Finding]:
    """Image and label have the same number of voxels along each axis."""
    if loaded.label.shape != loaded.image.shape:
        image, label = size_text(loaded.image.shape), size_text(loaded.label.shape)
        yield (
            f"the label is {label} voxels and the image {image}; resample the label to the image",
            loaded.case.label,
        )


def label_grid_affine(loaded: Loaded) -> Iterator[Finding]:
    """The affines of image and label agree within ``AFFINE_TOLERANCE``."""
    image, label = loaded.image.affine, loaded.label.affine
    if not same_affine(image, label) and not _mirrored(image, label):
        yield _affine_gap(image, label), loaded.case.label


def label_handedness(loaded: Loaded) -> Iterator[Finding]:
    """The axes of image and label are both right-handed or both left-handed."""
    image, label = loaded.image.affine, loaded.label.affine
    if _mirrored(image, label):
        yield f"the label is mirrored against the image: {_affine_gap(image, label)}", loaded.case.label


def _mirrored(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.linalg.det(first[:3, :3]) * np.linalg.det(second[:3, :3]) < 0)


def _affine_gap(image: np.ndarray, label: np.ndarray) -> str:
    gap = float(np.abs(image - label).max())
    axes = "".join(nib.aff2axcodes(image)), "".join(nib.aff2axcodes(label))
    turned = f"; the image's axes run {axes[0]}, the label's {axes[1]}" if axes[0] != axes[1] else ""
    return f"the affines of image and label differ by {gap:.3g} (allowed {AFFINE_TOLERANCE:g}){turned}"


def mask_grid(loaded: Loaded) -> Iterator[Finding]:
    """The mask, where there is one, lies on the image's grid."""
    if loaded.mask is None or loaded.case.mask is None:
        return
    if loaded.mask.array.shape != (1, *loaded.image.shape) or not same_affine(loaded.mask.affine, loaded.image.affine):
        yield "the mask does not lie on the image's grid; resample it to the image", loaded.case.mask


def mask_empty(loaded: Loaded) -> Iterator[Finding]:
    """The mask, where there is one, selects at least one voxel."""
    if loaded.mask is not None and loaded.case.mask is not None and not loaded.mask.array.any():
        yield "the mask selects no voxel", loaded.case.mask


def not_finite(loaded: Loaded) -> Iterator[Finding]:
    """Every voxel of the image is a finite number."""
    for channel, file in _channels(loaded):
        # A sum is NaN or infinite when a voxel is; only then (or when it overflows) is it worth counting.
        with np.errstate(invalid="ignore"):  # +inf and −inf together
            total = channel.sum(dtype=np.float64)
        if not np.isfinite(total):
            bad = int(channel.size - np.isfinite(channel).sum())
            if bad:
                yield f"{bad} of {channel.size} voxels are NaN or infinite", file


def constant_channel(loaded: Loaded) -> Iterator[Finding]:
    """Every channel of the image holds more than one value."""
    for channel, file in _channels(loaded):
        if channel.min() == channel.max():
            yield f"every voxel is {channel.flat[0]:g}; the channel carries nothing", file


def label_as_channel(loaded: Loaded) -> Iterator[Finding]:
    """No channel is the label itself: a pattern or a folder that was named twice."""
    label = loaded.label.array[0]
    if label.min() == label.max():
        return  # as a channel it carries nothing either, which is another fault
    for channel, file in _channels(loaded):
        if channel.shape == label.shape and np.array_equal(channel, label):
            yield "the channel holds the voxels of the label: a network would learn to copy them; name the scan", file


def extreme_voxels(loaded: Loaded) -> Iterator[Finding]:
    """No few voxels make up nearly all of a channel's variance."""
    for channel, file in _channels(loaded):
        values = torch.from_numpy(channel)
        if bool(torch.isfinite(values.sum(dtype=torch.float64))) and (count := outweighing(values)):
            most = channel.flat[np.abs(channel).argmax()]
            verb = "outweighs" if count == 1 else "outweigh"
            told = f"{counted(count, 'voxel')} as extreme as {most:g} {verb} all others"
            yield f"{told}, which a z-score makes alike", file


def label_not_whole(loaded: Loaded) -> Iterator[Finding]:
    """Label values are whole numbers, however they are stored."""
    if loaded.label_counts is None:
        array = loaded.label.array
        odd = array[~(array == np.round(array)) | ~np.isfinite(array)]
        shown = ", ".join(f"{value:g}" for value in np.unique(odd)[:3])
        told = f"not whole numbers in {counted(odd.size, 'label voxel')} (such as {shown})"
        yield f"{told}; resample label maps by nearest neighbour, or write the mask that is meant", loaded.case.label


def label_ignored(loaded: Loaded) -> Iterator[Finding]:
    """How many voxels have the value that marks what nobody annotated; they count in neither training nor scores."""
    count = ignored_voxels(loaded)
    if 0 < count < loaded.label.array.size:
        share = 100 * count / loaded.label.array.size
        message = f"nobody annotated {share:.3g} % of the voxels (label {loaded.ignored}): they count for nothing"
        yield message, loaded.case.label


def nothing_annotated(loaded: Loaded) -> Iterator[Finding]:
    """At least one voxel was annotated, be it as background."""
    if ignored_voxels(loaded) == loaded.label.array.size:
        message = (
            f"every voxel has the label {loaded.ignored}, which marks what nobody annotated; there is nothing to learn"
        )
        yield message, loaded.case.label


def ignored_voxels(loaded: Loaded) -> int:
    """Voxels with the label that marks what nobody annotated."""
    return 0 if loaded.ignored is None else (loaded.label_counts or {}).get(loaded.ignored, 0)


def label_undeclared(loaded: Loaded) -> Iterator[Finding]:
    """Label values are among those declared; negative ones never are."""
    counts = loaded.label_counts or {}
    wrong = [value for value in counts if value < 0 or value > 65535 or _undeclared(value, loaded)]
    if loaded.declared is None and len(counts) > MAX_LABEL_VALUES:
        message = f"the label holds {len(counts)} different values; is it an image? If not, declare structures"
        yield f"{message} with --structure NAME=VALUE", loaded.case.label
    elif wrong:
        listed = ", ".join(f"{value} ({counted(counts[value], 'voxel')})" for value in wrong[:5])
        expected = f"0, {', '.join(map(str, sorted(loaded.declared)))}" if loaded.declared else "0 to 65535"
        yield f"the label holds {listed}; expected {expected}{_meant(wrong, loaded)}", loaded.case.label


def _meant(wrong: Sequence[int], loaded: Loaded) -> str:
    """What the declaration should have been, where one value is there in place of one that is not; or how to add it."""
    if not loaded.declared or wrong[0] < 0:
        return ""
    absent = [name for value, name in loaded.declared.items() if value not in (loaded.label_counts or {})]
    if len(wrong) == len(absent) == 1:
        return f"; is it --structure {absent[0]}={wrong[0]}?"
    return f"; correct it, or name it too: --structure NAME={wrong[0]}"


def _undeclared(value: int, loaded: Loaded) -> bool:
    return loaded.declared is not None and value not in (0, loaded.ignored) and value not in loaded.declared


def empty_label(loaded: Loaded) -> Iterator[Finding]:
    """The label holds at least one voxel that is not background. Such a case is kept: it teaches what absence is."""
    if not loaded.foreground.any():
        yield "the label holds no foreground: of such a case is learnt what absence is", loaded.case.label


def label_outside(loaded: Loaded) -> Iterator[Finding]:
    """At most a tenth of the foreground lies in the empty surround of the image, where it has one.

    A channel's surround is the value that at least five of the volume's eight corners share; a voxel is surround where
    every channel says so.
    """
    if loaded.label.shape != loaded.image.shape or not loaded.foreground.any():
        return
    corners = [surround_corners(channel) for channel in loaded.image.array]
    inside = loaded.image.array[:, loaded.foreground]
    surround = np.ones(inside.shape[1], bool)
    for channel, corner in zip(inside, corners, strict=True):
        values, counts = np.unique(corner, return_counts=True)
        surround &= (channel == values[counts.argmax()]) & (counts.max() >= 5)
    outside, total = int(surround.sum()), surround.size
    varies = any(channel.min() != channel.max() for channel in loaded.image.array)
    if varies and outside > 0.1 * total:
        message = f"{outside} of {total} foreground voxels lie in the image's empty surround; is it the right label?"
        yield message, loaded.case.label


def surround_corners(volume: np.ndarray) -> np.ndarray:
    """The eight corners of a volume (X, Y, Z); fewer where an axis has one voxel."""
    x, y, z = (max(1, size - 1) for size in volume.shape)
    return volume[::x, ::y, ::z].reshape(-1)


def sheared_affine(loaded: Loaded) -> Iterator[Finding]:
    """The image's axes stand at right angles, within 0.6°."""
    axes = loaded.image.affine[:3, :3] / np.linalg.norm(loaded.image.affine[:3, :3], axis=0)
    worst = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if worst > 0.01:
        angle = float(np.degrees(np.arcsin(min(worst, 1.0))))
        yield (
            f"the image's axes are {angle:.1f}° off the right angle; distances will be wrong",
            loaded.case.image[0],
        )


def form_conflict(loaded: Loaded) -> Iterator[Finding]:
    """A NIfTI file's sform and qform, where both are set, place every corner within 0.1 mm of each other."""
    for scan, file in ((loaded.image, loaded.case.image[0]), (loaded.label, loaded.case.label)):
        gap = form_gap_mm(scan)
        if gap > 0.1:
            yield f"sform and qform place the volume up to {gap:.3g} mm apart; the sform is used", file


def form_gap_mm(scan: Scan) -> float:
    """How far apart sform and qform place a corner, at most; 0 where a scan does not have both."""
    header = scan.header
    if header is None or not (header["sform_code"] > 0 and header["qform_code"] > 0):
        return 0.0
    corners = np.array([[(i >> axis & 1) * (scan.shape[axis] - 1) for axis in range(3)] + [1] for i in range(8)])
    sform, qform = forms_mm(header)
    return float(np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max())


def implausible_spacing(loaded: Loaded) -> Iterator[Finding]:
    """Voxels are between 0.01 and 30 mm long; others hint at wrong units."""
    if text := odd_spacing(loaded.image.affine):
        yield text, loaded.case.image[0]


def odd_file(loaded: Loaded) -> Iterator[Finding]:
    """What reading found odd about a file, where no other check tells of it."""
    files = [(loaded.image, loaded.case.image[0]), (loaded.label, loaded.case.label)]
    files += [(loaded.mask, loaded.case.mask)] if loaded.mask is not None and loaded.case.mask is not None else []
    for scan, file in files:
        for sentence in scan.warnings:
            spacing = odd_spacing(scan.affine)
            if not (spacing and sentence.endswith(spacing)) and "carries nothing" not in sentence:
                yield f"odd, though it could be read: {sentence}", file


CHECKS = (
    Check("label-channels", label_channels),
    Check("label-shape", label_grid_shape),
    Check("label-affine", label_grid_affine),
    Check("label-handedness", label_handedness),
    Check("mask-grid", mask_grid),
    Check("empty-mask", mask_empty),
    Check("not-finite", not_finite),
    Check("constant-channel", constant_channel),
    Check("label-as-channel", label_as_channel),
    Check("extreme-voxels", extreme_voxels),
    Check("label-not-whole", label_not_whole),
    Check("label-ignored", label_ignored),
    Check("nothing-annotated", nothing_annotated),
    Check("label-undeclared", label_undeclared),
    Check("empty-label", empty_label),
    Check("label-outside", label_outside),
    Check("sheared-affine", sheared_affine),
    Check("form-conflict", form_conflict),
    Check("implausible-spacing", implausible_spacing),
    Check("odd-file", odd_file),
)


def _channels(loaded: Loaded) -> Iterator[tuple[np.ndarray, Path]]:
    """Each channel with the file it came from."""
    files = loaded.case.image
    for number, channel in enumerate(loaded.image.array):
        yield channel, files[number if len(files) == loaded.image.array.shape[0] else 0]


def load_case(
    case: Case, declared: Mapping[int, str] | None = None, ignored: int | None = None
) -> tuple[Loaded | None, list[Fault]]:
    """Read a case's files; each that fails is a fault, and then there is no loaded case."""
    faults: list[Fault] = []

    def read(files: tuple[Path, ...], dtype: type | None) -> Scan | None:
        try:
            return read_scan(files, dtype=dtype)
        except ScanError as error:
            faults.append(fault(case.case, error.check, str(error), files[0]))
            return None

    image = read(case.image, np.float32)
    label = read((case.label,), None)
    mask = read((case.mask,), None) if case.mask else None
    if faults or image is None or label is None:
        return None, faults
    return Loaded(case, image, label, mask, declared, ignored), []


def check_case(loaded: Loaded) -> list[Fault]:
    """Every fault that the table ``CHECKS`` finds in a loaded case."""
    return [
        fault(loaded.case.case, check.name, message, file) for check in CHECKS for message, file in check.find(loaded)
    ]
