"""An atlas of regions, on the grid of any scan that lies in its space."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.plain_data import LARGEST_YAML, parse_json, read_text
from rarevox.transforms.reader import Scan, ScanError, read_grid, read_scan, same_affine
from rarevox.transforms.reading.geometry import labels_on_grid


@dataclass
class Atlas:
    """Regions as whole numbers in a volume, and what they are called. Sent to other processes by the file's name.

    Attributes:
        path: the volume.
        names: of its numbers.
    """

    path: Path
    names: Mapping[int, str] = field(default_factory=dict)

    @cached_property
    def scan(self) -> Scan:
        """The volume, read when first asked for."""
        return read_scan(self.path, dtype=None)

    def __getstate__(self) -> dict[str, object]:
        """Without the voxels."""
        return {"path": self.path, "names": self.names}

    def on_grid(self, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
        """The number at the centre of each voxel of another grid, of the atlas' nearest voxel; 0 outside the atlas.

        Args:
            shape: of the grid.
            affine: 4×4, its voxel indices to RAS mm.
        """
        regions = self.scan.array[0]
        if regions.shape == tuple(shape) and same_affine(affine, self.scan.affine):
            return regions
        return labels_on_grid(regions, self.scan.affine, shape, affine)


def read_atlas(path: str | Path, names: str | Path | None = None) -> Atlas:
    """An atlas, its header and names checked.

    Args:
        path: a volume of whole numbers.
        names: what they are called: JSON ``{"1": "NAME"}``, or lines ``NUMBER NAME``, parted by a tab, comma or blank
            (a BIDS ``dseg.tsv``, a colour table of FreeSurfer or ITK-SNAP); a heading and lines that begin with ``#``
            are passed over.

    Raises:
        RequestError: no volume that can be read, no names in the file.
    """
    try:
        read_grid(path)
    except ScanError as error:
        raise RequestError(f"--atlas: {error}") from error
    return Atlas(Path(path), {} if names is None else _names(Path(names)))


def _names(path: Path) -> dict[int, str]:
    try:
        text = read_text(path, LARGEST_YAML)
    except FileNotFoundError:
        raise RequestError(f"--atlas-names: {path} does not exist") from None
    if text.lstrip().startswith("{"):
        try:
            found = {int(number): str(name) for number, name in parse_json(text).items()}
        except ValueError as error:
            raise RequestError(f'--atlas-names: {path} is no JSON of {{"NUMBER": "NAME"}}: {error}') from error
    else:
        found = dict(filter(None, map(_line, text.splitlines())))  # type: ignore[arg-type]
    if not found:
        raise RequestError(f"--atlas-names: {path} names nothing; expected lines NUMBER NAME, or JSON")
    return found


def _line(line: str) -> tuple[int, str] | None:
    r"""Number and name of a line; None where there are none.

    >>> _line("3\tLeft thalamus\t#fff"), _line("5, Pons"), _line("17 Left-Horn 220 216 20 0"), _line("index name")
    ((3, 'Left thalamus'), (5, 'Pons'), (17, 'Left-Horn'), None)
    >>> _line('1 255 0 0 1 1 1 "Left horn"')  # of ITK-SNAP
    (1, 'Left horn')
    """
    line = line.strip()
    if not line or line.startswith("#"):
        return None
    parting = "\t" if "\t" in line else "," if "," in line else " "
    cells = [
        cell.strip() for cell in next(csv.reader([line], delimiter=parting, skipinitialspace=True)) if cell.strip()
    ]
    if len(cells) < 2 or not re.fullmatch(r"\d{1,18}", cells[0]):
        return None
    words = [cell for cell in cells[1:] if not re.fullmatch(r"[\d.]+", cell)]
    if parting == " ":
        return (int(cells[0]), " ".join(words)) if words else None
    return (int(cells[0]), words[0]) if words else None
