"""The table of kinds: name → how it is made and what is expected of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

Maker = Callable[[Path], Path]
READ, WARNED, REFUSED = "read", "warned", "refused"


@dataclass(frozen=True)
class Kind:
    """One kind of hostile, damaged or odd input.

    Attributes:
        name: of the kind, and of the maker.
        make: writes it into an empty folder and returns the path that a user would name.
        outcome: ``read`` (it is as good as any), ``warned`` (it is read, and told of) or ``refused``.
        says: what the sentence must match.
    """

    name: str
    make: Maker
    outcome: str
    says: str = ""

    def fits(self, sentence: str) -> bool:
        return re.search(self.says, sentence) is not None


KINDS: dict[str, Kind] = {}


def _kind(outcome: str, says: str = "") -> Callable[[Maker], Maker]:
    def add(make: Maker) -> Maker:
        name = make.__name__
        assert name not in KINDS, f"two kinds are called {name}"
        KINDS[name] = Kind(name, make, outcome, says)
        return make

    return add


def refused(says: str) -> Callable[[Maker], Maker]:
    """The kind is refused with a sentence that matches."""
    return _kind(REFUSED, says)


def warned(says: str) -> Callable[[Maker], Maker]:
    """The kind is read with a warning that matches."""
    return _kind(WARNED, says)


def sound(make: Maker) -> Maker:
    """The kind is read without a warning."""
    return _kind(READ)(make)


def voxels(shape: tuple[int, ...] = (12, 10, 8)) -> np.ndarray:
    """Noise in whole numbers."""
    return np.random.default_rng(0).integers(-500, 1500, shape).astype(np.int16)


def nifti(path: Path, array: np.ndarray | None = None, affine: np.ndarray | None = None, **fields: object) -> Path:
    """A NIfTI file with header fields set as given, whatever nibabel thinks of them."""
    array = voxels() if array is None else array
    image = nib.Nifti1Image(array, np.diag([1.0, 1.5, 2.0, 1.0]) if affine is None else affine)
    image.to_filename(path)
    if fields:
        edit_header(path, **fields)
    return path


def edit_header(path: Path, **fields: object) -> Path:
    """Overwrite fields of the NIfTI header of a file, compressed or not."""
    import gzip

    packed = path.read_bytes()
    content = bytearray(gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed)
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content), 1) if packed[:2] == b"\x1f\x8b" else bytes(content))
    return path
