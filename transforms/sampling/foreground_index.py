"""Where the foreground of one case lies: the voxels of every class, or of every connected component."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True, eq=False)
class ForegroundIndex:
    """The foreground voxels of one case in groups, a class or a connected component each.

    Memory: 4 bytes a foreground voxel (8 in volumes of 2³¹ voxels and more).

    Attributes:
        shape: the volume's size, voxels.
        voxels: the flat voxel indices (C order) of each group; no group is empty.
        classes: the class of each group, ascending.
        rule: how the groups were made; a sampler takes only an index of its own rule.
    """

    shape: tuple[int, ...]
    voxels: tuple[np.ndarray, ...]
    classes: tuple[int, ...]
    rule: str = "class"

    @classmethod
    def of(cls, labels: np.ndarray) -> ForegroundIndex:
        """Index a map of class indices (*spatial), 0 being background, with a group for each class present.

        >>> ForegroundIndex.of(np.array([[0, 2], [1, 2]])).classes
        (1, 2)
        """
        flat = np.ascontiguousarray(labels).ravel()
        where = np.flatnonzero(flat)
        found = flat[where]
        order = np.argsort(found, kind="stable")
        classes, first = np.unique(found[order], return_index=True)
        dtype = np.int32 if flat.size < 2**31 else np.int64
        groups = np.split(where[order].astype(dtype), first[1:]) if classes.size else []
        return cls(tuple(labels.shape), tuple(groups), tuple(int(c) for c in classes))

    @classmethod
    def of_components(cls, labels: np.ndarray, connectivity: int | None = None) -> ForegroundIndex:
        """Index a map of class indices with a group for each connected component of each class.

        Args:
            labels: (*spatial), 0 is background; touching components of different classes stay apart.
            connectivity: 1 joins voxels that share a face, the number of axes (None) also those that share a corner.

        >>> ForegroundIndex.of_components(np.array([1, 1, 0, 1, 2])).classes
        (1, 1, 2)
        """
        by_class = cls.of(labels)
        groups, classes = [], []
        for value, voxels in zip(by_class.classes, by_class.voxels, strict=True):
            parts = list(components(voxels, by_class.shape, connectivity))
            groups += parts
            classes += [value] * len(parts)
        return cls(by_class.shape, tuple(groups), tuple(classes), component_rule(connectivity))


def component_rule(connectivity: int | None) -> str:
    """The ``rule`` of an index of components."""
    return f"component, connectivity {'full' if connectivity is None else connectivity}"


def components(voxels: np.ndarray, shape: tuple[int, ...], connectivity: int | None = None) -> Iterator[np.ndarray]:
    """Split the voxels of one class, flat indices in a volume of ``shape``, into connected components.

    >>> [part.tolist() for part in components(np.array([0, 1, 4]), (5,))]
    [[0, 1], [4]]
    """
    places = np.unravel_index(voxels, shape)
    low = [int(p.min()) for p in places]
    inside = tuple(p - n for p, n in zip(places, low, strict=True))
    mask = np.zeros([int(p.max()) + 1 for p in inside], dtype=bool)
    mask[inside] = True
    structure = ndimage.generate_binary_structure(len(shape), len(shape) if connectivity is None else connectivity)
    numbered, count = ndimage.label(mask, structure)
    numbers = numbered[inside]
    order = np.argsort(numbers, kind="stable")
    first = np.searchsorted(numbers[order], np.arange(2, count + 1))
    yield from np.split(voxels[order], first)
