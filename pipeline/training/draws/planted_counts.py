"""What was planted into the patches of a run: by structure, by size, by the case that lesions come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

SIZES = (10, 30, 100)
"""Voxels at which the next size of planted lesions begins."""
PLANTED = ("planted", "planted_structures", "planted_sizes", "planted_from")


class PlantedCounts:
    """Counts of planted lesions.

    Attributes:
        planted: patches that were planted, lesions, voxels.
        planted_structures: (structures, 2), lesions that hold it, its voxels.
        planted_sizes: lesions of under 10, 30 and 100 voxels, and of more.
        planted_from: lesions of each case; the last number is of shapes of lesion maps.

    Args:
        structures: names of the classes 1, 2, ….
        cases: number of training cases.
        donors: the cases with their names, or nothing.
    """

    def __init__(self, structures: Sequence[str], cases: int, donors: Sequence[Mapping[str, Any]] = ()) -> None:
        self.structures = tuple(structures)
        self.donors = donors
        self.planted = torch.zeros(3, dtype=torch.int64)
        self.planted_structures = torch.zeros((len(self.structures), 2), dtype=torch.int64)
        self.planted_sizes = torch.zeros(len(SIZES) + 1, dtype=torch.int64)
        self.planted_from = torch.zeros(cases + 1, dtype=torch.int64)

    def take(self, lesions: torch.Tensor) -> None:
        """Take in ``planted_lesions`` of a batch (:class:`rarevox.transforms.BatchPlantLesions`), in host memory."""
        voxels = lesions[..., 1:].sum(-1)
        done = voxels > 0
        self.planted += torch.stack([done.any(1).sum(), done.sum(), voxels.sum()])
        rows = lesions[done]
        held = rows[:, 1:]
        self.planted_structures[: held.shape[1]] += torch.stack([(held > 0).sum(0), held.sum(0)], 1)
        sizes = torch.bucketize(voxels[done], torch.tensor(SIZES), right=True)
        self.planted_sizes += torch.bincount(sizes, minlength=len(SIZES) + 1)
        last = len(self.planted_from) - 1
        self.planted_from += torch.bincount(torch.where(rows[:, 0] < 0, last, rows[:, 0]), minlength=last + 1)

    def summary(self) -> dict[str, Any]:
        """``patches``, ``lesions`` and ``voxels`` that were planted; the lesions by ``structures`` (those that hold it,
        and its voxels), by ``sizes`` in voxels, by the ``donors``, cases by name, and how many are shapes of
        ``maps``. Of a run that began when totals alone were counted, these alone."""
        patches, lesions, voxels = self.planted.tolist()
        if int(self.planted_sizes.sum()) != lesions:
            return {"patches": patches, "lesions": lesions, "voxels": voxels}
        *cases, maps = self.planted_from.tolist()
        edges = ["1", *map(str, SIZES)]
        names = [f"{low} to {high - 1}" for low, high in zip(edges, SIZES, strict=False)]
        return {
            "patches": patches,
            "lesions": lesions,
            "voxels": voxels,
            "structures": {
                name: {"lesions": row[0], "voxels": row[1]}
                for name, row in zip(self.structures, self.planted_structures.tolist(), strict=True)
            },
            "sizes": dict(zip([*names, f"{SIZES[-1]} or more"], self.planted_sizes.tolist(), strict=True)),
            "donors": {self._name(number): count for number, count in enumerate(cases) if count},
            "maps": maps,
        }

    def _name(self, number: int) -> str:
        """Of a case; its number from 0 where it has none."""
        return str(self.donors[number].get("case", number)) if number < len(self.donors) else str(number)
