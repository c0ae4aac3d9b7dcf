"""What a file's name says: whether it holds a volume, and what the volume is called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rarevox.transforms.dicom import is_dicom_folder

SUFFIXES = (".nii.gz", ".nii", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh")
"""Of the files that are looked for in folders. Of a NIfTI pair the header stands for both files."""
DETACHED = (".mhd", ".nhdr", ".hdr", ".img")
"""Of formats whose header and voxels lie in several files."""
_NAMED = (*SUFFIXES, ".img")


def suffix_of(path: str | Path) -> str:
    """The suffix of a volume file in small letters; empty where the name has none of them.

    >>> suffix_of("a/case.01.nii.gz"), suffix_of("b/CASE.IMG"), suffix_of("series.3"), suffix_of("a.txt")
    ('.nii.gz', '.img', '', '')
    """
    return _suffix(Path(path).name)


def _suffix(name: str) -> str:
    lower = name.lower()
    return next((suffix for suffix in _NAMED if lower.endswith(suffix)), "") if lower.endswith(_NAMED) else ""


def stem(path: str | Path) -> str:
    """A volume's name without its suffix; that of a folder (a DICOM series) is whole.

    >>> stem("a/case.01.nii.gz"), stem("b/case_2.mha"), stem("series.3/")
    ('case.01', 'case_2', 'series.3')
    """
    return stem_of_name(Path(path).name)


def stem_of_name(name: str) -> str:
    """:func:`stem` of a name without a folder: of a million of them in a second."""
    return name[: len(name) - len(_suffix(name))]


def is_volume(path: Path) -> bool:
    """Whether the name says that this is a volume file (hidden files, such as macOS's ``._`` twins, are not)."""
    return is_volume_name(path.name)


def is_volume_name(name: str) -> bool:
    """:func:`is_volume` of a name without a folder."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def volumes_in(folder: Path, *, deep: bool = False) -> Iterator[Path]:
    """The volume files and DICOM series folders in ``folder``, sorted; with ``deep`` also those further down."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if is_dicom_folder(path):
                yield path
            elif deep:
                yield from volumes_in(path, deep=True)
        elif is_volume(path):
            yield path
