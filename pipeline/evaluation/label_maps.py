"""Label maps as they are scored: read and checked, on the reference's grid, and what structures they hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from rarevox.pipeline.evaluation.in_parallel import in_parallel
from rarevox.pipeline.evaluation.metrics.options import MetricOptions, Structures, foreground
from rarevox.pipeline.evaluation.score_pairs import Pairs
from rarevox.transforms.reader import AFFINE_TOLERANCE, Scan, ScanError, read_scan, same_affine, size_text
from rarevox.transforms.reading.geometry import labels_on_grid


@dataclass(frozen=True)
class LabelMap:
    """A label map as read: ``array`` (X, Y, Z) integers, ``affine`` 4×4, ``spacing_mm``; what is odd, in sentences."""

    array: np.ndarray
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    warnings: tuple[str, ...] = ()


DECLARE = "declare it (--structure NAME=VALUE) or give --ignore-unknown"


def read_label_map(path: Path, known: set[int] | None = None, remedy: str = DECLARE) -> LabelMap:
    """Read a label map; floats that are whole numbers are integers.

    Args:
        path: the file.
        known: values that it may hold; None takes any.
        remedy: what to do about others.

    Raises:
        ScanError: unreadable, several channels, values that are not whole numbers, or not in ``known`` (if given).
    """
    scan: Scan = read_scan(path, dtype=None)
    if len(scan.array) != 1:
        raise ScanError(f"{path.name} has {len(scan.array)} channels; expected one label map (X, Y, Z)")
    array = scan.array[0]
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.rint(array)).any():
            raise ScanError(f"{path.name} holds values that are not whole numbers; expected labels (argmax of scores)")
        array = array.astype(np.int32)
    if known is not None:
        unknown = [value for value in label_values(array) if value not in known]
        if unknown:
            raise ScanError(
                f"{path.name} holds the undeclared label {', '.join(map(str, unknown[:5]))}; declared are "
                f"{', '.join(map(str, sorted(known)))}: {remedy}"
            )
    # That a map is blank or all of one label is told by its figures.
    odd = tuple(sentence for sentence in scan.warnings if not sentence.startswith("every voxel"))
    return LabelMap(array, scan.affine, scan.spacing_mm, odd)


def label_values(array: np.ndarray) -> list[int]:
    """The distinct values of an integer array, sorted.

    >>> label_values(np.array([3, 0, 3], np.int16))
    [0, 3]
    """
    if array.dtype.itemsize <= 2 and array.size and array.min() >= 0:  # counting beats sorting by far
        return [int(v) for v in np.flatnonzero(np.bincount(array.ravel(order="K")))]
    return [int(v) for v in np.unique(array)]


def on_grid(prediction: LabelMap, reference: LabelMap, resample: bool = False) -> np.ndarray:
    """The prediction's labels on the reference's grid.

    Raises:
        ScanError: the grids differ and ``resample`` is off; both are described.
    """
    same_shape = prediction.array.shape == reference.array.shape
    if same_shape and same_affine(prediction.affine, reference.affine):
        return prediction.array
    if not resample:
        gap = float(np.abs(prediction.affine - reference.affine).max())
        raise ScanError(
            f"prediction and reference are on different grids: {grid_text(prediction)} against {grid_text(reference)}, "
            f"affines {gap:.3g} apart (allowed {AFFINE_TOLERANCE:g}); correct the geometry or give --resample"
        )
    return labels_on_grid(prediction.array, prediction.affine, reference.array.shape, reference.affine)


def known_values(structures: Structures) -> set[int]:
    """Every declared value, and the background."""
    return {0} | {
        v for values in foreground(structures, MetricOptions(include_background=True)).values() for v in values
    }


def found_structures(pairs: Pairs, workers: int = 2, ignored: int | None = None) -> dict[str, int]:
    """A structure for each value but 0 and ``ignored`` in any readable map, named ``label_<value>``."""
    paths = [path for pair in pairs.matched.values() for path in pair if path is not None]
    values = set().union(*in_parallel(_values_of, paths, workers, "looking for label values"))
    return {f"label_{value}": value for value in sorted(values - {0, ignored})}


def _values_of(path: Path) -> set[int]:
    try:
        return set(label_values(read_label_map(path).array))
    except ValueError:
        return set()  # it fails, with its reason, when its turn to be scored comes


def grid_text(labels: LabelMap) -> str:
    """Size, spacing, where the axes run to and where they begin: what may differ between two grids."""
    spacing = "×".join(f"{s:.4g}" for s in labels.spacing_mm)
    axes = "".join(letter or "?" for letter in nib.aff2axcodes(labels.affine))
    first = ", ".join(f"{place:.4g}" for place in labels.affine[:3, 3])
    return f"{size_text(labels.array.shape)} voxels of {spacing} mm, {axes}, from ({first})"
