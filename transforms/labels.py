"""Label maps as class indices, and back to the values that the files hold."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

IGNORED = 255
"""The class index of voxels that nobody annotated; the losses take it as ``ignore_index``."""


def is_ignored(classes: Any) -> Any:
    """Where nobody annotated, in a tensor or an array of class indices; nowhere in int16, whose 255 is a class.

    >>> is_ignored(torch.tensor([255, 1], dtype=torch.uint8)).tolist()
    [True, False]
    >>> is_ignored(torch.tensor([255, 1], dtype=torch.int16)).tolist()
    [False, False]
    """
    many = str(classes.dtype).endswith("int16")
    return (classes == IGNORED) & (not many)


def classes_from_values(labels: torch.Tensor, values: Sequence[int], ignored: int | None = None) -> torch.Tensor:
    """The class index (position in ``values``) of every voxel, as uint8 (int16 above 255 classes).

    Args:
        labels: label values, whole numbers in any dtype, any shape.
        values: the value of each class in order; ``values[0]`` is the background.
        ignored: the value of voxels that nobody annotated; they become ``IGNORED``.

    Raises:
        ValueError: a value that is in no class; it is named. ``ignored`` beside more than 255 classes.

    Example:
        >>> classes_from_values(torch.tensor([0.0, 4.0, 2.0]), [0, 2, 4]).tolist()
        [0, 2, 1]
    """
    if ignored is not None and len(values) > IGNORED:
        raise ValueError(f"{len(values)} classes and an ignored label; beside one there may be {IGNORED} classes")
    dtype = torch.uint8 if len(values) <= IGNORED else torch.int16
    whole = labels.round()
    out = torch.zeros(labels.shape, dtype=dtype, device=labels.device)
    known = whole == values[0]
    others = [*enumerate(values[1:], start=1), *([] if ignored is None else [(IGNORED, ignored)])]
    for index, value in others:
        here = whole == value
        out[here] = index
        known |= here
    if not bool(known.all()) or not bool((whole == labels).all()):
        wrong = torch.unique(labels[~known | (whole != labels)])[:5].tolist()
        raise ValueError(f"label map holds {wrong}, declared are {list(values)}; declare the value or correct the map")
    return out


def values_from_classes(classes: torch.Tensor, values: Sequence[int]) -> torch.Tensor:
    """The inverse of :func:`classes_from_values`: label values as uint8, or int32 where a value exceeds 255.

    Example:
        >>> values_from_classes(torch.tensor([0, 2, 1]), [0, 2, 4]).tolist()
        [0, 4, 2]
    """
    if list(values) == list(range(len(values))):
        return classes if classes.dtype == torch.uint8 else classes.to(torch.int32)
    table = torch.tensor(list(values), device=classes.device)
    return table.to(torch.uint8 if max(values) <= 255 else torch.int32)[classes.long()]


class LabelsToClassesd(MapTransform):
    """Turn label maps (1, *spatial) in a data dictionary into class indices; see :func:`classes_from_values`."""

    def __init__(
        self,
        keys: KeysCollection,
        values: Sequence[int],
        allow_missing_keys: bool = False,
        ignored: int | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(values) < 2 or len(set(values)) != len(values):
            raise ValueError(
                f"values are {list(values)}; expected at least two distinct label values, background first"
            )
        if ignored is not None and ignored in values:
            raise ValueError(
                f"ignored is {ignored}, which is a class too ({list(values)}); expected a value of its own"
            )
        self.values = [int(value) for value in values]
        self.ignored = ignored

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each label map by its class indices."""
        out = dict(data)
        for key in self.key_iterator(out):
            labels = out[key]
            plain = labels.as_tensor() if hasattr(labels, "as_tensor") else labels
            classes = classes_from_values(plain, self.values, self.ignored)
            out[key] = type(labels)(classes, meta=labels.meta) if hasattr(labels, "meta") else classes
        return out
