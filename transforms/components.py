"""Which connected component of the reference each voxel belongs to: made once in the data path, not in the step."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform
from scipy import ndimage
from torch import Tensor


def component_regions(
    labels: Tensor | np.ndarray,
    *,
    num_classes: int,
    spacing_mm: Sequence[float] | None = None,
    nested: bool = False,
) -> Tensor:
    """Divide the volume among the connected components of each foreground class: every voxel to the nearest one.

    Components are connected over faces, edges and corners. What a class claims falsely then counts against the
    component beside it. Take the regions of the whole scan, before patches are cut, and crop and flip them with the
    labels (nearest-neighbour interpolation where they are resampled).

    Args:
        labels: (1, *spatial) class indices.
        num_classes: number of classes, background included; at least 2.
        spacing_mm: voxel size along each axis, for distances in mm; None takes voxels.
        nested: class indices are depths in nested regions: the components of class c are those of all voxels from c on.

    Returns:
        (num_classes − 1, *spatial) int32: for class c in channel c − 1, the number (from 1) of the component nearest
        to each voxel; 0 everywhere where the class is absent.

    Raises:
        ValueError: labels without a channel axis of one, fewer than 2 classes.

    >>> component_regions(torch.tensor([[1, 0, 0, 0, 0, 1]]), num_classes=2).tolist()
    [[1, 1, 1, 2, 2, 2]]
    """
    array = np.asarray(labels)
    if array.ndim < 2 or array.shape[0] != 1:
        raise ValueError(f"labels have shape {array.shape}; expected (1, *spatial)")
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes} is too few; expected at least 2, background included")
    regions = np.zeros((num_classes - 1, *array.shape[1:]), dtype=np.int32)
    neighbours = ndimage.generate_binary_structure(array.ndim - 1, array.ndim - 1)
    for index in range(1, num_classes):
        # What nobody annotated (255) is beyond the classes, and in none of them.
        here = (array[0] >= index) & (array[0] < num_classes) if nested else array[0] == index
        components, count = ndimage.label(here, structure=neighbours)
        if count == 0:
            continue
        nearest = ndimage.distance_transform_edt(
            components == 0, sampling=spacing_mm, return_distances=False, return_indices=True
        )
        regions[index - 1] = components[tuple(nearest)]
    return torch.from_numpy(regions)


class ComponentRegionsd(MapTransform):
    """Append the component regions of each class to a label map, for a loss with ``needs_regions``.

    For whole volumes, before patches are cut: the regions are then cropped and flipped with the labels. Distances are
    taken in mm where the label map knows its affine.

    Args:
        keys: label maps (1, *spatial) of class indices; they come out as (num_classes, *spatial) int32, channel 0 the
            class indices, channel c the regions of class c (:func:`component_regions`).
        num_classes: number of classes, background included.
        nested: class indices are depths in nested regions, whose components are taken.
        allow_missing_keys: pass over keys that the data does not hold.

    Example:
        >>> append = ComponentRegionsd("label", num_classes=2)
        >>> append({"label": torch.tensor([[1, 0, 0, 0, 0, 1]])})["label"].tolist()
        [[1, 0, 0, 0, 0, 1], [1, 1, 1, 2, 2, 2]]
    """

    def __init__(
        self, keys: KeysCollection, num_classes: int, allow_missing_keys: bool = False, *, nested: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.num_classes = num_classes
        self.nested = nested

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Append to each label map."""
        out = dict(data)
        for key in self.key_iterator(out):
            labels = out[key]
            has_meta = hasattr(labels, "meta")
            plain = labels.as_tensor() if has_meta else labels
            spacing = affine_to_spacing(labels.affine, plain.ndim - 1).tolist() if has_meta else None
            regions = component_regions(plain, num_classes=self.num_classes, spacing_mm=spacing, nested=self.nested)
            both = torch.cat((plain.to(torch.int32), regions))
            out[key] = type(labels)(both, meta=labels.meta) if has_meta else both
        return out
