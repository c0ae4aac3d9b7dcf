"""Lesion-wise detection and overlap: every connected component counts once, whatever its size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from rarevox.pipeline.evaluation.metrics.surface import surface_distances

CONNECTIVITIES = {6: 1, 18: 2, 26: 3}
"""Neighbours of a voxel, and the rank that ``scipy.ndimage.generate_binary_structure`` calls it."""


LARGE = 1_000_000
"""Boxes of more voxels than this are worked through with an eye on memory, smaller ones on time."""
SIZES = ("small", "medium", "large")
"""Classes of lesions by their volume, and of cases by that of their reference."""


def neighbourhood(connectivity: int) -> np.ndarray:
    """The 3×3×3 mask of a voxel and its 6, 18 or 26 neighbours."""
    return ndimage.generate_binary_structure(3, CONNECTIVITIES[connectivity])


def lesion_scores(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    connectivity: int = 26,
    dilation: int = 0,
    min_ml: float = 0.0,
    penalty_mm: float | None = None,
    surface: str = "voxels",
    sizes_ml: Sequence[float] = (0.1, 1.0),
) -> dict[str, float]:
    """Counts and scores over connected components.

    A reference lesion is detected if a predicted voxel lies in it, and a predicted lesion is true if a reference voxel
    lies in it. With R reference lesions, D of them detected, P predicted ones, T of them true::

        recall = D / R    precision = T / P    F1 = 2 · precision · recall / (precision + recall)
        lesion Dice = Σ over reference lesions Dice(lesion, union of the predicted lesions that touch it) / (R + P − T)

    so a missed lesion and a false one each count as 0 (BraTS 2023). The lesion HD95 is the same average with
    ``penalty_mm`` for each missed and each false lesion; it is computed only if a penalty is given.

    Args:
        prediction: (X, Y, Z) bool.
        reference: (X, Y, Z) bool.
        spacing_mm: voxel edge lengths.
        connectivity: 6, 18 or 26 neighbours join a component.
        dilation: the reference is dilated so many times before its components are found, which joins neighbours into
            one lesion, and a predicted lesion may touch the dilated one (BraTS 2023: 3). Volumes stay undilated.
        min_ml: reference lesions of this volume or less are not counted, nor are predicted lesions that touch only
            them (BraTS 2023: 0.05); 0 counts all.
        penalty_mm: HD95 of a missed or false lesion (BraTS 2023: 374).
        surface: the surface definition of the lesion HD95.
        sizes_ml: a lesion is small below the first volume, large from the second on.

    Returns:
        ``lesions_reference`` R, ``lesions_predicted`` P, ``lesions_detected`` D, ``lesions_true`` T,
        ``lesion_precision``, ``lesion_recall``, ``lesion_f1``, ``lesion_dice``, ``lesion_hd95_mm``; a ratio with a zero
        denominator is NaN. The four counts for each class of size (``lesions_detected_small``): R and D by the size of
        the reference lesion, P and T by that of the predicted one; and ``lesion_dice_small``: the mean Dice of the
        reference lesions of the class, where a missed one is 0.

    Sources: Kuijf et al. 2019 (WMH challenge) for detection; Saluja et al., BraTS 2023 metrics, for the lesion Dice.

    Example, two lesions of which one is found in half, and one false lesion: Dice is (2·1/(1+2) + 0 + 0) / (2 + 1):
        >>> a, b = np.zeros((9, 1, 1), bool), np.zeros((9, 1, 1), bool)
        >>> b[[0, 1, 4]], a[[1, 8]] = True, True
        >>> found = lesion_scores(a, b, (1, 1, 1))
        >>> found["lesion_recall"], found["lesion_precision"], round(found["lesion_dice"], 4)
        (0.5, 0.5, 0.2222)
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    lesions = reference_lesions(reference, neighbourhood(connectivity), dilation)
    predicted = components_of(prediction, neighbourhood(connectivity))
    sizes = sizes_of(predicted)
    found, ignored = matches(lesions, predicted, sizes, dilation, min_ml / voxel_ml)
    true = np.zeros(len(sizes), bool)
    for lesion in found:
        true[lesion.touching] = True
    counted = np.flatnonzero(~(ignored & ~true))[1:]
    scores = _summary(found, len(counted), int(true.sum()))
    if penalty_mm is not None:
        distances = _distances(found, lesions, predicted, spacing_mm, surface)
        total = scores["lesions_reference"] + scores["lesions_predicted"] - scores["lesions_true"]
        scores["lesion_hd95_mm"] = _ratio(sum(distances) + penalty_mm * (total - len(distances)), total)
    return scores | _by_size(found, sizes[counted], true[counted], np.asarray(sizes_ml) / voxel_ml)


class _Lesion(NamedTuple):
    """A reference lesion that counts: its number and box, its voxels, the predicted lesions that touch it, its Dice."""

    number: int
    box: tuple[slice, ...]
    size: int
    touching: np.ndarray
    dice: float


def matches(
    lesions: np.ndarray, predicted: np.ndarray, sizes: np.ndarray, dilation: int, smallest: float
) -> tuple[list[_Lesion], np.ndarray]:
    """The reference lesions of more than ``smallest`` voxels; and which predicted lesions touch one that is smaller."""
    found: list[_Lesion] = []
    ignored = np.zeros(len(sizes), bool)
    for index, box in enumerate(ndimage.find_objects(lesions), start=1):
        window = _grow(box, dilation, lesions.shape)
        lesion = lesions[window] == index
        reach = ndimage.binary_dilation(lesion, neighbourhood(18), iterations=dilation) if dilation else lesion
        size, touching = int(np.count_nonzero(lesion)), _present(predicted[window], reach, len(sizes))
        if size <= smallest:
            ignored[touching] = True
            continue
        # Every predicted voxel in the lesion belongs to a component that touches it.
        dice = 2.0 * int(np.count_nonzero(predicted[window][lesion])) / (size + int(sizes[touching].sum()))
        found.append(_Lesion(index, box, size, touching, dice))
    return found, ignored


def _distances(
    found: Sequence[_Lesion], lesions: np.ndarray, predicted: np.ndarray, spacing_mm: Sequence[float], surface: str
) -> list[float]:
    """HD95 of each detected lesion with all predicted lesions that touch it."""
    boxes, distances = ndimage.find_objects(predicted), []
    for lesion in found:
        if len(lesion.touching):
            around = _union([lesion.box, *(boxes[t - 1] for t in lesion.touching)])
            pair = np.isin(predicted[around], lesion.touching), lesions[around] == lesion.number
            distances.append(surface_distances(*pair, spacing_mm, surface=surface).hausdorff_mm(95.0))
    return distances


def _by_size(found: Sequence[_Lesion], sizes: np.ndarray, true: np.ndarray, bounds: np.ndarray) -> dict[str, float]:
    """Counts and mean Dice of each class of size: the reference lesions, the voxels and truth of the predicted ones."""
    scores: dict[str, float] = {}
    theirs = np.searchsorted(bounds, sizes, side="right")
    for number, size in enumerate(SIZES):
        here = [one for one in found if np.searchsorted(bounds, one.size, side="right") == number]
        scores[f"lesions_reference_{size}"] = len(here)
        scores[f"lesions_predicted_{size}"] = int(np.count_nonzero(theirs == number))
        scores[f"lesions_detected_{size}"] = sum(bool(len(one.touching)) for one in here)
        scores[f"lesions_true_{size}"] = int(np.count_nonzero(true[theirs == number]))
        scores[f"lesion_dice_{size}"] = _ratio(sum(one.dice for one in here), len(here))
    return scores


def _summary(found: Sequence[_Lesion], predicted: int, true: int) -> dict[str, float]:
    """The scores of :func:`lesion_scores` that need no distance: R reference lesions, the numbers P and T."""
    detected = sum(bool(len(lesion.touching)) for lesion in found)
    recall, precision = _ratio(detected, len(found)), _ratio(true, predicted)
    total = len(found) + predicted - true
    return {
        "lesions_reference": len(found),
        "lesions_predicted": predicted,
        "lesions_detected": detected,
        "lesions_true": true,
        "lesion_precision": precision,
        "lesion_recall": recall,
        "lesion_f1": _ratio(2.0 * precision * recall, precision + recall) if detected and true else _ratio(0, total),
        "lesion_dice": _ratio(sum(lesion.dice for lesion in found), total),
    }


def components_of(mask: np.ndarray, near: np.ndarray) -> np.ndarray:
    """The components of a mask, numbered from 1, in as few bytes a voxel as their number takes (1, 2 or 4)."""
    kinds = (np.uint8, np.uint16, np.int32) if mask.size > LARGE else (np.uint16, np.int32)
    for kind in kinds:
        labels = np.empty(mask.shape, kind)
        try:
            ndimage.label(mask, near, output=labels)
            break
        except RuntimeError:  # more components than this type can number
            continue
    return labels


def sizes_of(components: np.ndarray) -> np.ndarray:
    """The voxels of each component; of 0, which is none of them, whatever is left.

    Slab by slab, since counting makes whole numbers of 8 bytes out of what it counts.
    """
    most = int(components.max(initial=0)) + 1
    sizes = np.zeros(most, np.int64)
    for slab in components:
        sizes += np.bincount(slab.ravel(), minlength=most) if slab.any() else 0
    return sizes


def _present(components: np.ndarray, mask: np.ndarray, most: int) -> np.ndarray:
    """The components that have a voxel in the mask, sorted; slab by slab where np.unique would copy and sort much."""
    if mask.size <= LARGE:
        found = np.unique(components[mask])
        return found[found > 0]
    seen = np.zeros(most, bool)
    for slab, here in zip(components, mask, strict=True):
        seen[slab[here]] = True
    seen[0] = False
    return np.flatnonzero(seen)


def reference_lesions(mask: np.ndarray, near: np.ndarray, dilation: int) -> np.ndarray:
    """The components of the dilated mask, restricted to the mask."""
    if not dilation:
        return components_of(mask, near)
    room = np.pad(mask, dilation)  # lesions at the edge of the crop may join through voxels outside it
    grown = components_of(ndimage.binary_dilation(room, neighbourhood(18), iterations=dilation), near)
    inner = tuple(slice(dilation, dilation + size) for size in mask.shape)
    return np.where(mask, grown[inner], 0).astype(grown.dtype)


def _grow(box: tuple[slice, ...], margin: int, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """A bounding box with ``margin`` more voxels on each side, within the array."""
    return tuple(slice(max(s.start - margin, 0), min(s.stop + margin, n)) for s, n in zip(box, shape, strict=True))


def _union(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    """The bounding box of bounding boxes."""
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan  # one object, so that equal rows compare equal
