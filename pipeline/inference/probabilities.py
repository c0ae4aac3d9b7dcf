"""Class probabilities as files in a small integer type, one for each structure, without holding them in memory."""

from __future__ import annotations

import errno
import math
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rarevox.pipeline.data.volumes import write_shares
from rarevox.transforms.reader import Scan

if TYPE_CHECKING:
    import torch

DTYPES = ("uint8", "uint16")


class ProbabilityMaps:
    """Gather the probability of each structure on the scan's grid; a :class:`rarevox.pipeline.inference.watch.Watch`.

    Probabilities are kept as whole numbers, round(255 · p) or round(65535 · p), in memory-mapped files in ``scratch``:
    on disk, X·Y·Z bytes (or twice that) for each structure while the scan is computed; in memory, a block. The
    background is what is left of 1 and has no file. Voxels that the network never saw have probability 0.

    Args:
        structures: names of the classes 1, 2, ….
        dtype: ``uint8`` or ``uint16``.
        scratch: an existing folder; what is put there is removed with this object.
        nested: the structures are nested regions, the classes depths in them: the probability of a region is the sum of
            those of its depths.

    Raises:
        ValueError: another dtype.
    """

    def __init__(self, structures: Sequence[str], dtype: str, scratch: str | Path, *, nested: bool = False) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"probabilities are kept as {' or '.join(DTYPES)}, not as {dtype}")
        self.structures, self.nested = tuple(structures), nested
        self.dtype = np.dtype(dtype)
        self._folder = tempfile.TemporaryDirectory(dir=scratch, prefix=f".{os.getpid()}.part.")
        self.maps: list[np.memmap] = []

    def begin(self, shape: tuple[int, ...]) -> None:
        """A pass begins: all probabilities are 0.

        Raises:
            OSError: the disk has no room for the scratch files.
        """
        self.maps = []  # of an earlier pass, whose files are made anew
        size = math.prod(shape) * self.dtype.itemsize
        for number in range(len(self.structures)):
            file = Path(self._folder.name) / f"{number}.raw"
            try:
                reserve(file, size)
            except OSError as error:
                whole = size * len(self.structures) / 1e9
                said = f"no room for {whole:.3g} GB of probabilities beside the maps: {error.strerror or error}"
                raise OSError(said) from None
            self.maps.append(np.memmap(file, self.dtype, mode="r+", shape=shape, order="F"))

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        """Add a block."""
        largest = np.iinfo(self.dtype).max
        for number, stored in enumerate(self.maps, start=1):
            logs = log_probabilities[number:].logsumexp(0) if self.nested else log_probabilities[number]
            share = logs.exp().mul_(largest).round_().clamp_(0, largest)
            stored[where] = share.cpu().numpy().astype(self.dtype)

    def save(self, folder: Path, case: str, grid: Scan) -> dict[str, Any]:
        """Write ``CASE_prob_STRUCTURE.nii.gz`` for each structure; the entry of the result row."""
        names = file_names(self.structures)
        written = {
            name: write_shares(folder / f"{case}_prob_{file}.nii.gz", stored, grid).name
            for name, file, stored in zip(self.structures, names, self.maps, strict=True)
        }
        self.close()
        return {"probabilities": written}

    def close(self) -> None:
        """Give the scratch files back."""
        self.maps = []
        self._folder.cleanup()


def reserve(file: Path, size: int) -> None:
    """Make a file of so many zero bytes that are all on the disk.

    A sparse file would grow while it is written through memory, and where the disk is full by then the process dies
    of SIGBUS instead of being told.

    Raises:
        OSError: no room.
    """
    with file.open("wb") as handle:
        try:
            os.posix_fallocate(handle.fileno(), 0, size)
            return
        except AttributeError:  # no such call on this system
            pass
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # nor in this file system
                raise
        block = bytes(min(size, 1 << 20))
        for begin in range(0, size, 1 << 20):
            handle.write(block[: size - begin])


def file_names(structures: Sequence[str]) -> list[str]:
    """The names as parts of file names, each another one.

    >>> file_names(["lesion", "left/right", "left right"])
    ['lesion', 'left_right', 'left_right_3']
    """
    found: list[str] = []
    for number, name in enumerate(structures, start=1):
        safe = re.sub(r"[^\w.+-]+", "_", name)
        found.append(f"{safe}_{number}" if safe.lower() in map(str.lower, found) else safe)
    return found
