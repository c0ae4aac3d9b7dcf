"""Post-processing of label maps by structure: small components removed, the largest kept, holes filled."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy import ndimage

from rarevox.transforms.reading import geometry

RULES = ("min_ml", "largest", "fill_holes")
_NEIGHBOURS = np.ones((3, 3, 3), bool)  # 26, as in the lesion-wise metrics


def clean_labels(labels: np.ndarray, rules: Mapping[int, Mapping[str, Any]], voxel_ml: float) -> np.ndarray:
    """A label map after the rules of its structures, one structure after the other in the order of the rules.

    For each structure: components (26 neighbours) of less than ``min_ml`` become background; with ``largest`` all but
    the largest do (of equal ones the first in the order of the array stays); with ``fill_holes`` background that the
    structure encloses (no way out through faces) becomes the structure. Voxels of other structures are never changed.

    Args:
        labels: (X, Y, Z) label values; not changed.
        rules: label value → ``min_ml`` (0: off), ``largest``, ``fill_holes``.
        voxel_ml: volume of a voxel.

    Returns:
        A new array of the same type. A structure without a voxel stays so.

    >>> labels = np.array([1, 1, 0, 1, 2]).reshape(5, 1, 1)
    >>> clean_labels(labels, {1: {"largest": True}}, voxel_ml=1.0).ravel().tolist()
    [1, 1, 0, 0, 2]
    """
    out = labels.copy()
    for value, rule in rules.items():
        found = ndimage.find_objects((out == value).view(np.uint8))
        if not found:
            continue
        region = out[found[0]]  # a view; nothing outside the structure's box can change
        mask = region == value
        kept = _components(mask, rule.get("min_ml", 0.0) / voxel_ml, bool(rule.get("largest")))
        region[mask & ~kept] = 0
        if rule.get("fill_holes"):
            region[ndimage.binary_fill_holes(kept) & (region == 0)] = value
    return out


def clean_regions(
    labels: np.ndarray, rules: Mapping[int, Mapping[str, Any]], values: Sequence[int], voxel_ml: float
) -> np.ndarray:
    """The same for nested regions: what a region loses stays in those around it, and what it gains is in them too.

    Args:
        labels: (X, Y, Z) label values; not changed.
        rules: number of a region, from 1 for the outermost on → its rules, as of :func:`clean_labels`.
        values: the label of each depth, 0 first: how many regions hold a voxel.
        voxel_ml: volume of a voxel.

    >>> labels = np.array([9, 9, 7, 9, 7, 0]).reshape(6, 1, 1)  # two parts of region 2 (label 9) in region 1
    >>> clean_regions(labels, {2: {"largest": True}}, [0, 7, 9], voxel_ml=1.0).ravel().tolist()
    [9, 9, 7, 7, 7, 0]
    """
    depth = np.zeros(labels.shape, np.uint8)
    for number, value in enumerate(values):
        depth[labels == value] = number
    for number, rule in rules.items():
        mask = depth >= number
        kept = _components(mask, rule.get("min_ml", 0.0) / voxel_ml, bool(rule.get("largest")))
        depth[mask & ~kept] = number - 1
        if rule.get("fill_holes"):
            depth[ndimage.binary_fill_holes(kept) & (depth < number)] = number
    return np.asarray(values, labels.dtype)[depth]


def read_rules(declared: Any, structures: Mapping[str, int]) -> dict[int, dict[str, Any]]:
    """Rules by structure name, checked, as rules by label value.

    Raises:
        ValueError: an unknown structure or rule, or a value that the rule does not take.

    >>> read_rules({"lesion": {"min_ml": 0.05}}, {"lesion": 1})
    {1: {'min_ml': 0.05}}
    """
    if not isinstance(declared or {}, Mapping):
        raise ValueError(f"post_processing is {declared!r}; expected for example {{lesion: {{min_ml: 0.05}}}}")
    rules = {}
    for name, rule in (declared or {}).items():
        if name not in structures:
            raise ValueError(f"post_processing: no structure is called {name!r}{_near(name, structures)}")
        if not isinstance(rule or {}, Mapping):
            raise ValueError(f"post_processing: {name} is {rule!r}; expected rules, for example {{largest: true}}")
        for key, value in (rule or {}).items():
            if key not in RULES:
                raise ValueError(f"post_processing: {name} has no rule {key!r}{_near(key, RULES)}")
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if key == "min_ml" and not (number and value >= 0):
                raise ValueError(f"post_processing: min_ml of {name} is {value!r}; expected a volume in ml, 0 or more")
            if key != "min_ml" and not isinstance(value, bool):
                raise ValueError(f"post_processing: {key} of {name} is {value!r}; expected true or false")
        if rule and any(rule.values()):
            rules[int(structures[name])] = dict(rule)
    return rules


class CleanLabelsd(MapTransform):
    """Apply :func:`clean_labels` to label maps on the grid of the file that the image came from.

    Args:
        keys: label maps (1, X, Y, Z), as :class:`rarevox.transforms.LabelsOnNativeGridd` leaves them.
        rules: structure → rules; without any, nothing changes.
        structures: structure → label value.
        image_key: the preprocessed image, whose meta holds ``original_affine``.
        raw_key: where the label map as it was goes, if there are rules.
        regions: names of nested regions, the outermost first, of which the rules then are (:func:`clean_regions`); the
            structures are in the order of depth.

    Raises:
        ValueError: an unknown structure or rule; see :func:`read_rules`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        rules: Mapping[str, Any] | None,
        structures: Mapping[str, int],
        *,
        image_key: str = "image",
        raw_key: str = "raw",
        allow_missing_keys: bool = False,
        regions: Mapping[str, Any] | Sequence[str] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        numbers = {name: number for number, name in enumerate(regions or (), start=1)}
        self.rules = read_rules(rules, numbers or structures)
        self.values = [0, *structures.values()] if numbers else []
        self.image_key, self.raw_key = image_key, raw_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Clean every label map."""
        out = dict(data)
        if not self.rules:
            return out
        affine = np.asarray(out[self.image_key].meta["original_affine"], float)
        each_ml = geometry.voxel_ml(affine)
        for key in self.key_iterator(out):
            out[self.raw_key] = out[key]
            labels = np.asarray(out[key])[0]
            if self.values:
                cleaned = clean_regions(labels, self.rules, self.values, each_ml)
            else:
                cleaned = clean_labels(labels, self.rules, each_ml)
            out[key] = torch.from_numpy(cleaned)[None]
        return out


def _components(mask: np.ndarray, min_voxels: float, largest: bool) -> np.ndarray:
    """The voxels of the components that stay."""
    if not largest and min_voxels <= 0:
        return mask
    components, _ = ndimage.label(mask, _NEIGHBOURS)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    stays = sizes >= min_voxels * (1 - 1e-9)  # exactly min_ml stays, whatever the rounding of the division
    stays[0] = False
    if largest:
        stays &= np.arange(len(sizes)) == sizes.argmax()
    return stays[components]


def _near(name: Any, valid: Any) -> str:
    close = difflib.get_close_matches(str(name).lower(), list(valid), n=1, cutoff=0.5)
    listed = ", ".join(valid)
    return f": did you mean {close[0]!r}? Valid names: {listed}" if close else f"; valid names: {listed}"
