"""Reading a scan for MONAI; apart from :mod:`rarevox.transforms.reader`, which needs neither MONAI nor PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils.enums import MetaKeys, SpaceKeys
from numpy.typing import DTypeLike

from rarevox.transforms.reader import read_scan
from rarevox.transforms.told import WARNINGS


class ScanReader(ImageReader):
    """:func:`rarevox.transforms.reader.read_scan` for MONAI.

    ``LoadImaged(keys, reader="rarevox.transforms.ScanReader")`` reads any scan.

    The array comes as (C, X, Y, Z) and the metadata say so (``original_channel_dim`` 0), so that
    ``ensure_channel_first=True`` and ``EnsureChannelFirstd`` work as ever. The metadata hold the same few keys for
    every format (``affine``, ``original_affine``, ``spatial_shape``, ``original_channel_dim``, ``space``,
    ``original_dtype``, ``warnings``), so that a batch may mix formats.

    ``read`` only notes the names: ``LoadImage`` swallows what a reader's ``read`` raises and tries its other readers,
    which buries the reason; a ScanError raised by ``get_data`` reaches the caller.

    Args:
        dtype: as in :func:`read_scan`; None (the default) leaves the conversion to ``LoadImage(dtype=…)``.
    """

    def __init__(self, *, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        self.dtype = dtype

    def verify_suffix(self, filename: Any) -> bool:
        """Every name is taken: what cannot be read fails with its reason."""
        return True

    def read(self, data: Any, **kwargs: Any) -> tuple[Path, ...]:
        """The names of the files, as paths; nothing is opened yet."""
        return (Path(data),) if isinstance(data, (str, Path)) else tuple(Path(path) for path in data)

    def get_data(self, img: Sequence[Path]) -> tuple[np.ndarray, dict]:
        """The voxels (C, X, Y, Z) and MONAI's metadata.

        Raises:
            ScanError: as :func:`read_scan`.
        """
        scan = read_scan(list(img), dtype=self.dtype)
        return scan.array, {
            MetaKeys.AFFINE: scan.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: scan.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(scan.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
            MetaKeys.SPACE: SpaceKeys.RAS,
            "original_dtype": scan.stored_dtype,
            WARNINGS: "\n".join(scan.warnings),
        }
