"""The lesions that can be planted: those of the training cases, and shapes from a folder of lesion maps."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from rarevox.transforms.labels import is_ignored
from rarevox.transforms.planting.donors import Donor, donors_of
from rarevox.transforms.planting.maps import map_files, shapes_of
from rarevox.transforms.planting.surroundings import evenly
from rarevox.transforms.sampling.content import content_of

DRAWS = ("as_found", "log_size")
LARGEST_LIBRARY = 2000
"""Donors that are kept, evenly picked from all."""
MOST_CASES = 40
"""Cases and maps that are read, evenly picked."""
RANGE = (0.1, 99.9)
"""Percentiles of the intensities, of the content and of the lesions, between which planted ones are held."""


class LesionLibrary:
    """Lesions of training cases, with their intensities, and shapes of lesion maps, without; drawn one by one.

    A lesion is a connected component of all classes together that may be planted, each voxel with its own class. A
    shape takes the mean contrast of a lesion of its class and about its size, inside and on each ring of the rim, and
    noise as strong as that lesion's texture.

    Args:
        cases: prepared training cases: ``image`` (C, *spatial) and ``label`` (1, *spatial) of class indices; where they
            have them, ``mask`` (1, *spatial), the anatomy, and ``affine`` (4, 4), the grid, on which maps are brought.
        maps: a folder of lesion maps (NIfTI; everything that is not 0 is lesion), or None.
        maps_share: of the draws, where there are maps.
        map_class: the class of what the maps show; None is the one class that may be planted.
        sizes: least and largest lesion, voxels.
        classes: class indices of the structures that may be planted; None is all.
        extent: largest lesion along each axis, voxels, such as half of the patch.
        draw: ``as_found``: every lesion alike, so that sizes come as they are; ``log_size``: every octave of size that
            there is alike, so that large lesions come as often as small ones.

    Cases and maps are read when a lesion is first asked for.

    Raises:
        ValueError: an option is wrong; maps where several classes may be planted and ``map_class`` does not say which
            they show; when lesions are asked for, the folder holds no maps, or one that cannot be read.
    """

    def __init__(
        self,
        cases: Sequence[Mapping[str, Any]],
        *,
        maps: str | Path | None = None,
        maps_share: float = 0.5,
        map_class: int | None = None,
        sizes: Sequence[int] = (3, 4000),
        extent: Sequence[int] = (24, 24, 24),
        classes: Sequence[int] | None = None,
        draw: str = "as_found",
    ) -> None:
        if draw not in DRAWS:
            raise ValueError(f"draw is {draw!r}; expected one of {', '.join(DRAWS)}")
        if not 0 <= maps_share <= 1:
            raise ValueError(f"maps_share is {maps_share}; expected 0 to 1")
        if len(sizes) != 2 or not 1 <= sizes[0] <= sizes[1]:
            raise ValueError(f"sizes are {list(sizes)}; expected the least and the largest number of voxels")
        self.cases = cases
        self.maps = None if maps is None else Path(maps)
        self.maps_share = 0.0 if maps is None else maps_share
        self.sizes = (int(sizes[0]), int(sizes[1]))
        self.extent = tuple(int(n) for n in extent)
        self.classes = None if classes is None else {int(one) for one in classes}
        self.map_class = map_class
        if self.maps is not None and self.classes is not None:
            self.map_class = class_of_maps(self.maps, self.classes, map_class)
        self.draw_by = draw

    @functools.cached_property
    def limits(self) -> np.ndarray:
        """(C, 2), lowest and highest intensity of the cases' content and lesions, less a thousandth at both ends."""
        return self._taken[1]

    @functools.cached_property
    def donors(self) -> list[Donor]:
        """The lesions of the cases, by size, taken when first asked for; without any, nothing can be planted."""
        return self._taken[0]

    @functools.cached_property
    def shapes(self) -> list[Donor]:
        """Those of the maps, by size; none where no case has a lesion of their class, whose contrast they take."""
        if self.maps is None or not self.donors:
            return []
        held: set[int] = set().union(*(donor.held for donor in self.donors))
        label = class_of_maps(self.maps, held) if self.map_class is None else self.map_class
        if label not in held:
            return []
        found: list[Donor] = []
        options: Any = {"label": label, "sizes": self.sizes, "extent": self.extent}
        for number, file in enumerate(map_files(self.maps, MOST_CASES)):
            found += shapes_of(file, self._affine, number=number, **options)
        if not found:
            least, most = self.sizes
            raise ValueError(f"{self.maps} holds no lesion maps with lesions of {least} to {most} voxels")
        return _thinned(found)

    @functools.cached_property
    def largest_class(self) -> int:
        """The largest class index that can be planted."""
        return max((max(donor.held) for donor in (*self.donors, *self.shapes)), default=0)

    @functools.cached_property
    def _taken(self) -> tuple[list[Donor], np.ndarray]:
        found: list[Donor] = []
        limits = []
        for number in evenly(np.arange(len(self.cases)), MOST_CASES).tolist():
            case = self.cases[number]
            image, labels = (torch.as_tensor(case[key]) for key in ("image", "label"))
            unknown = is_ignored(labels[0])
            labels = torch.where(unknown, torch.zeros_like(labels[0]), labels[0])
            values = image.float().cpu().numpy()
            mask = case.get("mask")
            content = content_of(values) if mask is None else np.asarray(torch.as_tensor(mask)[0].cpu()) > 0
            if not content.any():  # a mask that holds nothing: no place, and no lesion
                continue
            limits.append(_range(values, content))
            options: Any = {"sizes": self.sizes, "extent": self.extent, "classes": self.classes}
            options["unknown"] = unknown.cpu().numpy()
            taken = list(donors_of(image, labels, content, case=number, **options))
            limits += [_range(values, _planted(labels, self.classes))] if taken else []
            found += taken
        if not limits:
            raise ValueError("the masks of all training cases are empty: no lesion has tissue around it")
        both = np.stack(limits)
        return _thinned(found), np.stack([both[:, :, 0].min(0), both[:, :, 1].max(0)], 1)

    @property
    def _affine(self) -> np.ndarray | None:
        """That of a training case, where it is known."""
        affine = self.cases[0].get("affine")
        return None if affine is None else np.asarray(torch.as_tensor(affine).cpu(), float)

    @functools.cached_property
    def _octaves(self) -> tuple[list[list[int]], list[list[int]]]:
        return _octaves(self.donors), _octaves(self.shapes)

    def draw(self, random: np.random.RandomState) -> Donor:
        """One lesion, with intensities."""
        if self.shapes and random.random_sample() < self.maps_share:
            return self._filled(self._one(self.shapes, self._octaves[1], random), random)
        return self._one(self.donors, self._octaves[0], random)

    def _one(self, group: list[Donor], bins: list[list[int]], random: np.random.RandomState) -> Donor:
        if self.draw_by == "as_found":
            return group[random.randint(len(group))]
        chosen = bins[random.randint(len(bins))]
        return group[chosen[random.randint(len(chosen))]]

    def _filled(self, shape: Donor, random: np.random.RandomState) -> Donor:
        """A shape with the contrast of one of the eight lesions nearest to it in size that hold its class."""
        label = int(shape.classes.max())
        alike = [donor for donor in self.donors if label in donor.held]
        near = sorted(alike, key=lambda donor: abs(math.log(donor.voxels / shape.voxels)))[:8]
        model = near[random.randint(len(near))]
        assert model.change is not None
        inside = model.change[:, model.classes == label]
        first, last = shape.at.min(0), shape.at.max(0) + 1
        noise = _smoothed(random.standard_normal((len(inside), *(last - first))))
        noise = noise[(slice(None), *(shape.at - first).T)]
        change = _profile(model, label, shape.weight) + inside.std(1)[:, None] * noise
        return replace(shape, change=change.astype(np.float32), tissue=model.tissue, spread=model.spread)


def _profile(model: Donor, label: int, weight: np.ndarray) -> np.ndarray:
    """(C, n), the mean contrast of a model where weights are 1, in its voxels of a class, and on each ring of its rim.

    A ring that it lacks, beside other anatomy, has none, nor has the rim of a lesion of several classes.
    """
    assert model.change is not None
    out = np.zeros((len(model.change), len(weight)), np.float32)
    for one in np.unique(weight):
        there = model.classes == (label if one == 1 else 0)
        there &= (model.weight == one) & (one == 1 or model.held == {label})
        if there.any():
            out[:, weight == one] = model.change[:, there].mean(1)[:, None]
    return out


def class_of_maps(folder: Path, classes: set[int], stated: int | None = None) -> int:
    """The class of the lesions that maps show, which is stated or the only one that may be planted.

    Raises:
        ValueError: it may be one of several, or the one stated is none of them.

    >>> class_of_maps(Path("maps"), {2})
    2
    """
    if stated is None and len(classes) == 1:
        return next(iter(classes))
    if stated is None or stated not in classes:
        said = "it is not said" if stated is None else f"map_class is {stated}"
        raise ValueError(
            f"{said} which class the lesion maps of {folder} show; expected lesion_library#map_class to be one of "
            f"those that may be planted: {', '.join(map(str, sorted(classes)))}"
        )
    return stated


def _planted(labels: torch.Tensor, classes: set[int] | None) -> np.ndarray:
    """Where the classes that may be planted lie."""
    marks = labels.cpu().numpy()
    return marks != 0 if classes is None else np.isin(marks, list(classes))


def _smoothed(noise: np.ndarray) -> np.ndarray:
    """Noise (C, *spatial) in which neighbours are alike, of standard deviation 1."""
    for axis in range(1, noise.ndim):
        kernel = np.array([0.25, 0.5, 0.25]) / math.sqrt(0.375)  # Σ of the squares: 1/16 + 1/4 + 1/16
        noise = ndimage.correlate1d(noise, kernel, axis, mode="constant")
    return noise


def _range(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(C, 2), the percentiles of intensities in each channel."""
    inside = values[:, where]
    inside = inside[:, :: max(inside.shape[1] // 200_000, 1)]
    return np.percentile(inside, RANGE, axis=1).T.astype(np.float32)


def _thinned(donors: list[Donor]) -> list[Donor]:
    """At most so many, by size."""
    ordered = sorted(donors, key=lambda donor: donor.voxels)
    return [ordered[number] for number in evenly(np.arange(len(ordered)), LARGEST_LIBRARY)]


def _octaves(donors: list[Donor]) -> list[list[int]]:
    """The donors' places in the list, by the octave of their size."""
    bins: dict[int, list[int]] = {}
    for place, donor in enumerate(donors):
        bins.setdefault(donor.voxels.bit_length(), []).append(place)
    return [bins[octave] for octave in sorted(bins)]
