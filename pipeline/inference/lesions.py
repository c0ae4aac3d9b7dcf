"""Every connected part of a structure as a row: its size and place, how sure the network was, and in which region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy

from rarevox.transforms.reading.geometry import voxel_ml

CONNECTIVITIES = {6: 1, 18: 2, 26: 3}
"""Neighbours of a voxel, and the rank that ``scipy.ndimage.generate_binary_structure`` calls it."""
DIGITS = 4
"""Of volumes in ml and places in mm, after the point."""
Structures = Mapping[str, "int | tuple[int, ...]"]
"""Name to label value, or to the values whose union the structure is."""


def lesion_rows(
    labels: np.ndarray,
    structures: Structures,
    affine: np.ndarray,
    *,
    connectivity: int = 26,
    probabilities: Mapping[str, tuple[np.ndarray, float]] | None = None,
    regions: np.ndarray | None = None,
    names: Mapping[int, str] | None = None,
) -> list[dict[str, Any]]:
    """The connected parts of each structure, the largest first; a structure without any has no row.

    Args:
        labels: (X, Y, Z) label values.
        structures: name to label value, or to those whose union it is.
        affine: 4×4, voxel indices to RAS mm.
        connectivity: 6, 18 or 26 neighbours join a part.
        probabilities: of each structure its probabilities (X, Y, Z) as whole numbers, and the one that stands for 1.
        regions: (X, Y, Z) whole numbers of an atlas on this grid, 0 where it names nothing.
        names: of the atlas' numbers; others are called by their number.

    Returns:
        Rows with ``structure``, ``number`` (from 1 in each structure), ``voxels``, ``volume_ml``, the centre of mass of
        its voxels in RAS mm (``x_mm``, ``y_mm``, ``z_mm``), its bounding box in voxels (``i_first`` to ``k_last``, both
        inside) and in mm (``x_min_mm`` to ``z_max_mm``, from edge to edge of the voxels, on axes of the patient),
        ``mean_probability`` and ``peak_probability`` where they are known, ``region`` and ``region_share`` where there
        is an atlas: the region that holds most of its voxels, and their share; empty where none holds any.

    >>> labels = np.zeros((4, 4, 4), int)
    >>> labels[0, 0, 0] = labels[2:, 2, 2] = 7
    >>> rows = lesion_rows(labels, {"lesion": 7}, np.diag([2.0, 1.0, 1.0, 1.0]))
    >>> [(row["number"], row["volume_ml"], row["x_mm"], row["i_first"], row["x_max_mm"]) for row in rows]
    [(1, 0.004, 5.0, 2, 7.0), (2, 0.002, 0.0, 0, 1.0)]
    """
    near = scipy.ndimage.generate_binary_structure(3, CONNECTIVITIES[connectivity])
    rows: list[dict[str, Any]] = []
    for name, value in structures.items():
        parts, _ = scipy.ndimage.label(_mask(labels, value), near)
        own = (probabilities or {}).get(name)
        found = [
            _row(parts[box] == number, box, affine, own, regions, names or {})
            for number, box in enumerate(scipy.ndimage.find_objects(parts), start=1)
        ]
        found.sort(key=lambda row: -row["voxels"])
        rows += [{"structure": name, "number": number, **row} for number, row in enumerate(found, start=1)]
    return rows


def parts_of(labels: np.ndarray, value: int, connectivity: int = 26) -> int:
    """How many connected parts a structure has.

    >>> parts_of(np.array([[[1, 0, 1, 1]]]), 1)
    2
    """
    near = scipy.ndimage.generate_binary_structure(3, CONNECTIVITIES[connectivity])
    return int(scipy.ndimage.label(labels == value, near)[1])


def _row(
    mask: np.ndarray,
    box: tuple[slice, ...],
    affine: np.ndarray,
    probabilities: tuple[np.ndarray, float] | None,
    regions: np.ndarray | None,
    names: Mapping[int, str],
) -> dict[str, Any]:
    """What is told of one part, its voxels given within its bounding box."""
    count = int(np.count_nonzero(mask))
    first = np.array([span.start for span in box])
    centre = affine[:3, :3] @ (np.argwhere(mask).mean(0) + first) + affine[:3, 3]
    low, high = _edges(box, affine)
    row: dict[str, Any] = {"voxels": count, "volume_ml": _rounded(count * voxel_ml(affine))}
    row |= {f"{axis}_mm": _rounded(place) for axis, place in zip("xyz", centre, strict=True)}
    row |= {f"{axis}_first": span.start for axis, span in zip("ijk", box, strict=True)}
    row |= {f"{axis}_last": span.stop - 1 for axis, span in zip("ijk", box, strict=True)}
    row |= {f"{axis}_min_mm": _rounded(place) for axis, place in zip("xyz", low, strict=True)}
    row |= {f"{axis}_max_mm": _rounded(place) for axis, place in zip("xyz", high, strict=True)}
    if probabilities is not None:
        values = probabilities[0][box][mask]
        row["mean_probability"] = round(float(values.mean(dtype=np.float64)) / probabilities[1], DIGITS)
        row["peak_probability"] = round(float(values.max()) / probabilities[1], DIGITS)
    if regions is not None:
        row |= _region(regions[box][mask], names)
    return row


def _edges(box: Sequence[slice], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest place, along the patient's axes, of a box's corners: half a voxel beyond centres."""
    spans = [(span.start - 0.5, span.stop - 0.5) for span in box]
    corners = np.stack(np.meshgrid(*spans, indexing="ij"), -1).reshape(-1, 3)
    places = corners @ affine[:3, :3].T + affine[:3, 3]
    return places.min(0), places.max(0)


def _region(numbers: np.ndarray, names: Mapping[int, str]) -> dict[str, Any]:
    """The region with the most voxels (of equally many the one with the lower number)."""
    inside = numbers[numbers != 0]
    if not inside.size:
        return {"region": "", "region_share": 0.0}
    found, counts = np.unique(inside, return_counts=True)
    most = int(np.argmax(counts))
    number = int(found[most])
    return {"region": names.get(number, str(number)), "region_share": round(int(counts[most]) / numbers.size, DIGITS)}


def _mask(labels: np.ndarray, value: int | tuple[int, ...]) -> np.ndarray:
    return np.isin(labels, value) if isinstance(value, tuple) else labels == value


def _rounded(value: float) -> float:
    return round(float(value), DIGITS) + 0.0  # no minus before a zero


PERCENTILES = (5, 25, 50, 75, 95)


def intensity_rows(
    labels: np.ndarray, structures: Structures, image: np.ndarray, channels: Sequence[str], ml: float
) -> list[dict[str, Any]]:
    """Volume and intensities of each structure, a row for each channel; of an absent one no intensities.

    Args:
        labels: (X, Y, Z) label values.
        structures: name to label value, or to those whose union it is.
        image: (C, X, Y, Z) intensities as the scan has them.
        channels: their names.
        ml: the volume of a voxel.

    Returns:
        Rows with ``structure``, ``channel``, ``voxels``, ``volume_ml``, ``mean``, ``sd`` (of the voxels, not of a
        population that they were drawn from), ``p5``, ``p25``, ``median``, ``p75``, ``p95``.

    >>> rows = intensity_rows(np.array([[[1, 1, 0]]]), {"a": 1, "b": 2}, np.array([[[[2.0, 4.0, 9.0]]]]), ["t1"], 0.5)
    >>> [(row["structure"], row["volume_ml"], row["mean"], row["sd"], row["median"]) for row in rows]
    [('a', 1.0, 3.0, 1.0, 3.0), ('b', 0.0, None, None, None)]
    """
    rows = []
    for name, value in structures.items():
        mask = _mask(labels, value)
        count = int(np.count_nonzero(mask))
        for number, channel in enumerate(channels):
            row: dict[str, Any] = {"structure": name, "channel": channel, "voxels": count}
            rows.append(row | {"volume_ml": _rounded(count * ml)} | _statistics(image[number][mask]))
    return rows


def _statistics(values: np.ndarray) -> dict[str, Any]:
    keys = ["mean", "sd", *("median" if p == 50 else f"p{p}" for p in PERCENTILES)]
    if not values.size:
        return dict.fromkeys(keys)
    values = values.astype(np.float64)
    found = [values.mean(), values.std(), *np.percentile(values, PERCENTILES)]
    return {key: float(f"{number:.6g}") for key, number in zip(keys, found, strict=True)}
