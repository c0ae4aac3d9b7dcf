"""Which files a scan is made of: besides the one that is named, those that its header sends the reader to."""

from __future__ import annotations

from pathlib import Path

from rarevox.transforms.reading.content import content_of
from rarevox.transforms.reading.detached import declared_by
from rarevox.transforms.reading.nifti import header_path, pair_files


def parts_of(path: Path) -> tuple[Path, ...]:
    """The files that reading a file opens, itself among them, in a fixed order; told by content, not by the suffix.

    Raises:
        ScanError: as reading, of what the header can tell.

    >>> import nibabel as nib, numpy as np, tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> nib.save(nib.Nifti1Pair(np.zeros((2, 2, 2), np.uint8), np.eye(4)), folder / "scan.img")
    >>> [part.name for part in parts_of(folder / "scan.hdr")]
    ['scan.hdr', 'scan.img']
    """
    header = header_path(path)
    kind = content_of(header).kind
    if kind in ("nrrd", "metaimage"):
        return (header, *declared_by(header, kind).files)
    return pair_files(header, kind)
