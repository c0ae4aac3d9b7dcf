"""The lesions that can be planted: those of the training cases, and shapes from a folder of lesion maps."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F

from rarevox.transforms.labels import is_ignored
from rarevox.transforms.planting.donors import Donor, donors_of, shape_donor
from rarevox.transforms.sampling.content import content_of
from rarevox.transforms.sampling.foreground_index import ForegroundIndex

DRAWS = ("as_found", "log_size")
LARGEST_LIBRARY = 2000
"""Donors that are kept, evenly picked from all."""
MOST_CASES = 40
"""Cases and maps that are read, evenly picked."""
RANGE = (0.1, 99.9)
"""Percentiles of the content's intensities between which planted ones are held."""


class LesionLibrary:
    """Lesions of training cases, with their intensities, and shapes of lesion maps, without; drawn one by one.

    A shape takes the mean contrast of a lesion of its class and about its size, and noise as strong as that lesion's
    texture.

    Args:
        cases: prepared training cases: ``image`` (C, *spatial) and ``label`` (1, *spatial) of class indices.
        maps: a folder of lesion maps (NIfTI; everything that is not 0 is lesion) with voxels of the training grid's
            size, or None.
        maps_share: of the draws, where there are maps.
        map_class: the class of what the maps show.
        sizes: least and largest lesion, voxels.
        classes: class indices of the structures that may be planted; None is all.
        extent: largest lesion along each axis, voxels, such as half of the patch.
        draw: ``as_found``: every lesion alike, so that sizes come as they are; ``log_size``: every octave of size that
            there is alike, so that large lesions come as often as small ones.

    Cases and maps are read when a lesion is first asked for.

    Raises:
        ValueError: an option is wrong; when lesions are asked for, the folder holds no maps.
    """

    def __init__(
        self,
        cases: Sequence[Mapping[str, Any]],
        *,
        maps: str | Path | None = None,
        maps_share: float = 0.5,
        map_class: int = 1,
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
        self.map_class = map_class
        self.sizes = (int(sizes[0]), int(sizes[1]))
        self.extent = tuple(int(n) for n in extent)
        self.classes = None if classes is None else {int(one) for one in classes}
        self.draw_by = draw

    @functools.cached_property
    def limits(self) -> torch.Tensor:
        """(C, 2), the lowest and highest intensity of the cases' content, less a thousandth at both ends."""
        return self._taken[1]

    @functools.cached_property
    def donors(self) -> list[Donor]:
        """The lesions of the cases, by size, taken when first asked for; without any, nothing can be planted."""
        return self._taken[0]

    @functools.cached_property
    def shapes(self) -> list[Donor]:
        """The lesions of the maps, by size."""
        return [] if self.maps is None else _thinned(_shapes(self.maps, self.map_class, self.sizes, self.extent))

    @functools.cached_property
    def _taken(self) -> tuple[list[Donor], torch.Tensor]:
        found: list[Donor] = []
        limits = []
        for number in _spread(len(self.cases), MOST_CASES):
            image, labels = (torch.as_tensor(self.cases[number][key]) for key in ("image", "label"))
            labels = torch.where(is_ignored(labels[0]), torch.zeros_like(labels[0]), labels[0])
            content = content_of(image.float().cpu().numpy())
            limits.append(_range(image, content))
            taken = donors_of(image, labels, content, sizes=self.sizes, extent=self.extent, case=number)
            found += [donor for donor in taken if self.classes is None or donor.label in self.classes]
        both = torch.stack(limits)
        return _thinned(found), torch.stack([both[:, :, 0].amin(0), both[:, :, 1].amax(0)], 1)

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
        """A shape with the contrast of one of the eight lesions nearest to it in size, of its class."""
        alike = [donor for donor in self.donors if donor.label == shape.label] or self.donors
        near = sorted(alike, key=lambda donor: abs(math.log(donor.voxels / shape.voxels)))[:8]
        model = near[random.randint(len(near))]
        assert model.change is not None
        inside = model.change[:, model.mask]
        noise = torch.from_numpy(random.standard_normal((len(inside), *shape.mask.shape)).astype(np.float32))
        noise = _smoothed(noise)
        column = (slice(None), *(None,) * shape.mask.ndim)
        texture = inside.std(1, correction=0)[column] * noise
        return replace(shape, change=inside.mean(1)[column] + texture, tissue=model.tissue, spread=model.spread)


def _smoothed(noise: torch.Tensor) -> torch.Tensor:
    """Noise (C, *spatial) in which neighbours are alike, of standard deviation 1."""
    for axis in range(1, noise.ndim):
        moved = noise.movedim(axis, -1)
        kernel = noise.new_tensor([[[0.25, 0.5, 0.25]]])
        rows = F.conv1d(moved.reshape(-1, 1, moved.shape[-1]), kernel, padding=1)
        noise = rows.reshape(moved.shape).movedim(-1, axis) / math.sqrt(0.375)  # Σ of the squares: 1/16 + 1/4 + 1/16
    return noise


def _range(image: torch.Tensor, content: np.ndarray) -> torch.Tensor:
    """(C, 2), the percentiles of the content's intensities in a channel."""
    values = image.float().cpu().numpy()[:, content]
    values = values[:, :: max(values.shape[1] // 200_000, 1)]
    return torch.from_numpy(np.percentile(values, RANGE, axis=1).T.astype(np.float32))


def _shapes(folder: Path, label: int, sizes: tuple[int, int], extent: tuple[int, ...]) -> list[Donor]:
    files = (
        sorted(file for file in folder.iterdir() if file.name.endswith((".nii", ".nii.gz"))) if folder.is_dir() else []
    )
    found = []
    for number in _spread(len(files), MOST_CASES):
        # Voxel indices along right, anterior, superior, as training has them.
        mask = np.asarray(nib.as_closest_canonical(nib.load(files[number])).dataobj) != 0  # type: ignore[attr-defined]
        for voxels in ForegroundIndex.of_components(mask.astype(np.uint8)).voxels:
            places = np.stack(np.unravel_index(voxels, mask.shape))
            places -= places.min(1, keepdims=True)
            box = places.max(1) + 1
            if sizes[0] <= len(voxels) <= sizes[1] and all(n <= most for n, most in zip(box, extent, strict=True)):
                shape = np.zeros(box, bool)
                shape[tuple(places)] = True
                found.append(shape_donor(shape, label, number))
    if not found:
        raise ValueError(
            f"{folder} holds no lesion maps (.nii, .nii.gz) with lesions of {sizes[0]} to {sizes[1]} voxels"
        )
    return found


def _thinned(donors: list[Donor]) -> list[Donor]:
    """At most so many, by size."""
    ordered = sorted(donors, key=lambda donor: donor.voxels)
    return [ordered[number] for number in _spread(len(ordered), LARGEST_LIBRARY)]


def _spread(count: int, most: int) -> list[int]:
    """At most so many of ``count`` numbers, evenly spread.

    >>> _spread(3, 5), _spread(10, 3)
    ([0, 1, 2], [0, 4, 9])
    """
    return list(range(count)) if count <= most else [i * (count - 1) // (most - 1) for i in range(most)]


def _octaves(donors: list[Donor]) -> list[list[int]]:
    """The donors' places in the list, by the octave of their size."""
    bins: dict[int, list[int]] = {}
    for place, donor in enumerate(donors):
        bins.setdefault(donor.voxels.bit_length(), []).append(place)
    return [bins[octave] for octave in sorted(bins)]
