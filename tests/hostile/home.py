"""What a clinic's folder might hold: sound cases, and beside them one of every kind."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tests.hostile import of_dicom, of_files, of_itk, of_nifti  # noqa: F401, each adds its kinds
from tests.hostile.kinds import KINDS, REFUSED

GOOD = 6
AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])
SHAPE = (12, 10, 8)


@dataclass
class Home:
    """A folder with sound cases and every kind in a folder of its own; nothing but outputs is written into it later.

    Attributes:
        folder: an empty one.
        kinds: the path that a user would name, by kind.
    """

    folder: Path
    kinds: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number in range(GOOD):
            write_good(self.folder / "good" / f"good_{number}", number)
        for kind in KINDS.values():
            place = self.folder / "kinds" / kind.name
            place.mkdir(parents=True)
            self.kinds[kind.name] = kind.make(place)

    @cached_property
    def labels(self) -> dict[str, Path]:
        """For each kind a label map: on its grid where there is one, else a sound case's."""
        from rarevox.pipeline.data.volumes import write_labels
        from rarevox.transforms.reader import read_grid

        found = {}
        (self.folder / "labels").mkdir()
        for kind in KINDS.values():
            found[kind.name] = self.folder / "good" / "good_0" / "label.nii.gz"
            if kind.outcome != REFUSED:
                grid = read_grid(self.kinds[kind.name])
                labels = np.zeros(grid.shape, np.uint8)
                labels[tuple(slice(size // 3, size // 3 + max(1, size // 3)) for size in grid.shape)] = 1
                found[kind.name] = write_labels(self.folder / "labels" / f"{kind.name}.nii.gz", labels, grid)
        return found

    def row(self, case: str, image: Path, label: Path) -> dict[str, Any]:
        """An entry of a list, its files as seen from the folder."""
        return {
            "case": case,
            "image": os.path.relpath(image, self.folder),
            "label": os.path.relpath(label, self.folder),
        }

    def good_rows(self) -> list[dict[str, Any]]:
        """The sound cases."""
        places = [self.folder / "good" / f"good_{number}" for number in range(GOOD)]
        return [self.row(place.name, place / "image.nii.gz", place / "label.nii.gz") for place in places]

    def scan_rows(self) -> list[dict[str, Any]]:
        """Every kind as the scan of a case that has a sound label map."""
        return [self.row(f"scan_{name}", path, self.labels[name]) for name, path in self.kinds.items()]

    def label_rows(self) -> list[dict[str, Any]]:
        """Every kind as the label map of a sound scan."""
        scan = self.folder / "good" / "good_0" / "image.nii.gz"
        return [self.row(f"label_{name}", scan, path) for name, path in self.kinds.items()]


def write_good(folder: Path, seed: int) -> None:
    """``image.nii.gz`` and ``label.nii.gz``: a bright box in noise, another one in every case."""
    random = np.random.default_rng(100 + seed)
    labels = np.zeros(SHAPE, np.uint8)
    x, y, z = (int(random.integers(1, size - 5)) for size in SHAPE)
    labels[x : x + 4, y : y + 4, z : z + 4] = 1
    image = random.normal(100, 10, SHAPE) + 60 * labels
    folder.mkdir(parents=True)
    nib.Nifti1Image(image.astype(np.float32), AFFINE).to_filename(folder / "image.nii.gz")
    nib.Nifti1Image(labels, AFFINE).to_filename(folder / "label.nii.gz")
