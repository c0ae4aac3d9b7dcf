"""One DICOM series as one volume, refused where its files are not one even stack, each of them sound."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.transforms.reading.decoded import decoded_planes
from rarevox.transforms.reading.errors import ScanError
from rarevox.transforms.reading.files import product, require_memory
from rarevox.transforms.reading.geometry import size_text
from rarevox.transforms.reading.slices import (
    INDEX,
    Slice,
    begins_as_dicom,
    claims_dicom,
    image_of,
    is_dicom_file,
    read_slice,
    reads_pixels,
    sop_class,
)

__all__ = ["SeriesError", "holds_series", "is_dicom_file", "is_dicom_folder", "read_series", "series_files"]

FEW = 0.1
"""Copying loses a few slices; who splits or resamples a series leaves its headers further from the truth than this."""


class SeriesError(ValueError):
    """A folder of DICOM files is not one usable series; the message names the folder and the fault."""


def is_dicom_folder(folder: str | Path) -> bool:
    """Whether ``folder`` holds at least one DICOM file directly, other than an index; see :func:`is_dicom_file`.

    A folder that may not be read holds none.
    """
    try:
        entries = sorted(Path(folder).iterdir())
    except OSError:
        return False
    return holds_series(entries)


def holds_series(files: Iterable[Path]) -> bool:
    """Whether one of the files is a DICOM file other than an index; those after it are not looked at."""
    return any(is_dicom_file(path) and not _is_index(path) for path in files)


def series_files(folder: Path) -> list[Path]:
    """The files of a folder that are, or claim to be, DICOM images.

    They begin as DICOM does, or are called so (``.dcm``, ``.dicom``, ``.ima``), or are called like those that do, but
    for the digits: an empty ``IM0007`` among slices ``IM0001`` … is a slice. An index (DICOMDIR) and all else is not.
    """
    entries = [path for path in sorted(folder.iterdir()) if not path.is_dir()]
    sure = {path for path in entries if claims_dicom(path) or begins_as_dicom(path)}
    sure -= {path for path in sure if _is_index(path)}
    patterns = {_pattern(path) for path in sure if re.search(r"\d", path.name)}
    return [path for path in entries if path in sure or (_pattern(path) in patterns and not _is_index(path))]


def _pattern(path: Path) -> str:
    return re.sub(r"\d+", "#", path.name)


def _is_index(path: Path) -> bool:
    try:
        return path.name.upper() == "DICOMDIR" or sop_class(path) == INDEX
    except ScanError:
        return False


def read_series(folder: Path) -> tuple[Any, list[str]]:
    """The one series in ``folder`` as a SimpleITK image, after its files were checked, and what is odd about it.

    Raises:
        SeriesError: no DICOM files, a file that is DICOM or claims to be and cannot be read, more than one series,
            fewer slices than their headers tell, slices that differ in size or direction, that lie at one position,
            slide (gantry tilt) or leave a gap.
    """
    import SimpleITK

    slices = _sound_slices(folder)
    _require_one_series(slices, folder)
    if len(slices) == 1 and slices[0].size[2] > 1:
        return image_of(slices[0].path), []
    slices = _in_order(slices)
    _require_even_slices(slices, folder)
    warnings = list(_told_by_headers(slices, folder))
    reader = SimpleITK.ImageSeriesReader()
    if len({found.pixel for found in slices}) > 1:  # the first file's type would cut off the others' fractions
        reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    shape = (*slices[0].size[:2], len(slices) if len(slices) > 1 else slices[0].size[2])
    require_memory(folder, product(shape) * 4, f"{size_text(shape)} voxels")
    reader.SetFileNames([str(found.path) for found in slices])
    try:
        return reader.Execute(), warnings
    except RuntimeError as error:
        planes = decoded_planes([found.path for found in slices])
        if planes is not None:
            return _placed(planes, slices), warnings
        damaged = [found.path.name for found in slices if not reads_pixels(found.path)]
        if damaged:
            raise SeriesError(f"the pixels of {_listed(damaged)} in {folder} are damaged") from error
        raise


def _placed(planes: np.ndarray, slices: Sequence[Slice]) -> Any:
    """Slices that others decoded, as a SimpleITK image where the headers place them."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(planes)
    first, last = slices[0], slices[-1]
    apart = float(np.linalg.norm(last.position - first.position)) / max(len(slices) - 1, 1)
    image.SetSpacing([*first.spacing[:2], apart if len(slices) > 1 else first.spacing[2]])
    image.SetOrigin(first.position.tolist())
    image.SetDirection(first.direction.ravel().tolist())
    return image


def _sound_slices(folder: Path) -> list[Slice]:
    """The headers of all files; a file without a sound one fails the series."""
    files = series_files(folder)
    if not files:
        raise SeriesError(f"the folder {folder} holds no DICOM files; give a file, or a folder with one series")
    found: list[Slice] = []
    faults: dict[Path, str] = {}
    for path in files:
        try:
            found.append(read_slice(path))
        except ScanError as error:
            faults[path] = str(error).removeprefix(f"{path} ")
    if faults:
        path, fault = next(iter(faults.items()))
        fault = _truncated_or_damaged(path, fault, [item.path for item in found])
        others = f"; nor can {_listed([p.name for p in faults][1:])} be used" if len(faults) > 1 else ""
        raise SeriesError(f"{path.name} in {folder} {fault}{others}")
    return found


def _truncated_or_damaged(path: Path, fault: str, others: Sequence[Path]) -> str:
    """Which of the two it is, where the sizes of the other files tell."""
    if not fault.startswith("is damaged or truncated") or not others:
        return fault
    size, usual = path.stat().st_size, int(statistics.median(other.stat().st_size for other in others))
    if size < 0.999 * usual:
        return f"is truncated ({size} bytes, the others have about {usual})"
    return "is damaged: its header cannot be read"


def _require_one_series(slices: Sequence[Slice], folder: Path) -> None:
    series: dict[str, list[Slice]] = {}
    for found in slices:
        series.setdefault(found.tags.get("series", ""), []).append(found)
    if len(series) == 1:
        return
    ordered = sorted(series.values(), key=len, reverse=True)
    listed = ", ".join(f"{len(group)} file(s) such as {group[0].path.name}" for group in ordered[:3])
    raise SeriesError(
        f"expected one DICOM series in {folder}, found {len(series)} series ({listed}"
        f"{', …' if len(series) > 3 else ''}); choose with --series, or put each into its own folder"
    )


def _in_order(slices: Sequence[Slice]) -> list[Slice]:
    """Along the first slice's normal."""
    normal = slices[0].direction[:, 2]
    return sorted(slices, key=lambda found: float(found.position @ normal))


def _require_even_slices(slices: Sequence[Slice], folder: Path) -> None:
    """Refuse a series that is not one stack of parallel, evenly spaced, unsheared slices."""
    if len(slices) < 2:
        return
    if any(found.size[2] > 1 for found in slices):
        raise SeriesError(f"{folder} holds several files of several frames each; put each into its own folder")
    if not all("position" in found.tags for found in slices):
        raise SeriesError(f"the slices in {folder} do not say where they lie (ImagePositionPatient)")
    sizes = {found.size[:2] for found in slices}
    if len(sizes) > 1:
        raise SeriesError(f"the slices in {folder} differ in size: {', '.join(map(size_text, sorted(sizes)))}")
    axes = np.stack([found.direction for found in slices])
    if np.abs(axes - axes[0]).max() > 1e-3:
        raise SeriesError(f"the slices in {folder} are not parallel; it mixes series (a localiser?)")
    steps = np.diff(np.stack([found.position for found in slices]), axis=0)
    along = steps @ axes[0][:, 2]
    _require_one_at_a_place(slices, along, folder)
    gap = float(np.median(along))
    across = np.linalg.norm(steps - along[:, None] * axes[0][:, 2], axis=1)
    if across.max() > 0.02 * gap + 1e-3:
        raise SeriesError(f"{folder} was taken with gantry tilt (slices slide by {across.max():.3g} mm); straighten it")
    if np.abs(along - gap).max() > 0.1 * gap:
        worst = int(np.argmax(np.abs(along - gap)))
        raise SeriesError(
            f"slices are missing in {folder}: {along[worst]:.3g} mm between slices {worst + 1} and {worst + 2}, "
            f"{gap:.3g} mm elsewhere"
        )


def _require_one_at_a_place(slices: Sequence[Slice], along: np.ndarray, folder: Path) -> None:
    """Refuse slices at one position: one that is there twice, or several acquisitions."""
    apart = along[along > 1e-6]
    least = 0.01 * float(np.median(apart)) if apart.size else 1e-6
    pairs = [(slices[i], slices[i + 1]) for i in np.flatnonzero(along < max(least, 1e-6)).tolist()]
    if not pairs:
        return
    names = ", ".join(f"{a.path.name} and {b.path.name}" for a, b in pairs[:3]) + (", …" if len(pairs) > 3 else "")
    if all(_same_image(a, b) for a, b in pairs):
        raise SeriesError(f"{folder} holds several slices at one position: {names} are repeated; remove the copies")
    raise SeriesError(f"{folder} holds several slices at one position ({names}); it mixes several acquisitions")


def _same_image(first: Slice, second: Slice) -> bool:
    one, other = first.tags.get("image"), second.tags.get("image")
    return (one is not None and one == other) or first.path.read_bytes() == second.path.read_bytes()


def _told_by_headers(slices: Sequence[Slice], folder: Path) -> Iterator[str]:
    """Warnings about fewer slices than the headers tell.

    Raises:
        SeriesError: where what they tell holds together.
    """
    if len(slices) < 2:
        return
    yield from _images_in_acquisition(slices, folder)
    told = _agreed(slices, "slices")  # of PET, where the standard demands it
    if told is not None and told > len(slices) and slices[0].tags.get("modality") == "PT":
        raise SeriesError(f"slices are missing in {folder}: {len(slices)} are there, {told} by their headers")
    gaps = {found.tags.get("gap", "") for found in slices}
    gap = float(np.linalg.norm(slices[1].position - slices[0].position))
    try:
        times = gap / float(gaps.pop()) if len(gaps) == 1 else 1.0
    except (ValueError, ZeroDivisionError):
        times = 1.0
    if times > 1.5 and abs(times - round(times)) < 0.05:
        yield f"slices are {gap:.3g} mm apart, {round(times)} times as far as their headers say: are some left out?"


def _images_in_acquisition(slices: Sequence[Slice], folder: Path) -> Iterator[str]:
    """ImagesInAcquisition against the slices there are.

    The tag outlives the splitting of a series (echoes, phases) and its resampling. It is believed where the slices'
    numbers agree with it and few are missing, or where an original series is no whole part of what it tells.
    """
    numbers = {number for found in slices if (number := found.whole("number")) is not None}
    numbered = len(numbers) == len(slices)
    told, count = _agreed(slices, "images_in_acquisition"), len(slices)
    few = max(2, round(FEW * count))
    if told is None or told <= count:
        if numbered and told is None and 1 < min(numbers) <= 1 + few and max(numbers) - min(numbers) == count - 1:
            yield f"its slices are numbered from {min(numbers)}: are the first left out?"
        return
    fits = numbered and min(numbers) >= 1 and max(numbers) <= told
    original = slices[0].tags.get("kind", "").upper().startswith("ORIGINAL")
    one = len({found.tags.get("acquisition", "") for found in slices}) == 1
    sentence = f"{count} slices are there, {told} by their headers (ImagesInAcquisition)"
    if fits and one and (told - count <= few or (original and told % count)):
        missing = [str(number) for number in range(1, told + 1) if number not in numbers]
        raise SeriesError(f"slices are missing in {folder}: {sentence}; without the numbers {_listed(missing)}")
    yield f"{sentence}; are some left out?"


def _agreed(slices: Sequence[Slice], name: str) -> int | None:
    """A whole number on which all slices agree."""
    values = {found.whole(name) for found in slices}
    return values.pop() if len(values) == 1 else None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
