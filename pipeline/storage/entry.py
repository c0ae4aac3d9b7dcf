"""One stored case or index: a folder of plain ``.npy`` files and a list of them, whole or absent.

``.npy`` files are read by memory map: a patch costs the pages that it lies on, and all processes of a machine share
them. Compressed chunks were measured too: zarr 3 (chunks of 32³, Blosc) takes 30 times as long for a patch of 64³.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rarevox.pipeline.files import finite

LIST = "entry.json"
BLOCKS, BLOCK_BYTES = 16, 1 << 16
"""So many blocks of each file, evenly spread, are checked when an entry is opened."""


class TornEntryError(Exception):
    """A stored entry is incomplete or damaged; it is made anew."""


def write_entry(folder: Path, arrays: Mapping[str, np.ndarray | torch.Tensor], facts: Mapping[str, Any]) -> bool:
    """Write an entry under a temporary name, sync every file, then rename the folder.

    Args:
        folder: where the entry is to be; one that is there already, by another process, is left.
        arrays: by name.
        facts: plain values that go with them.

    Returns:
        Whether this call's entry is the one that is there now.

    Raises:
        OSError: no space or no permission; nothing is left behind.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        sizes = {name: _write_array(part / f"{name}.npy", _as_numpy(array)) for name, array in arrays.items()}
        text = json.dumps(finite({"arrays": sizes, "facts": dict(facts)}), indent=1)
        with (part / LIST).open("w", encoding="utf-8") as handle:
            handle.write(text)
            _sync(handle)
        sync_folder(part)
        try:
            part.rename(folder)
        except OSError:
            if (folder / LIST).is_file():
                return False
            raise
        sync_folder(folder.parent)
        return True
    finally:
        shutil.rmtree(part, ignore_errors=True)


def open_entry(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The arrays, memory-mapped (copy on write: the files cannot be changed through them), and the facts.

    Raises:
        FileNotFoundError: there is no such entry.
        TornEntryError: a file is missing, of another size, or a block of it is not what was written.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    try:
        content = json.loads((folder / LIST).read_text(encoding="utf-8"))
        arrays = {}
        for name, listed in content["arrays"].items():
            path = folder / f"{name}.npy"
            if path.stat().st_size != listed["bytes"] or _checksum(path) != listed["crc32"]:
                raise TornEntryError(f"{path} is not what was written")
            arrays[name] = map_array(path)
        return arrays, content["facts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TornEntryError(f"{folder}: {error}") from error


def map_array(path: Path) -> torch.Tensor:
    """A ``.npy`` file (C order) as a memory-mapped tensor; no file descriptor stays open."""
    with path.open("rb") as handle:
        version = np.lib.format.read_magic(handle)
        if version != (1, 0):
            raise ValueError(f"{path} has .npy version {version}; expected (1, 0)")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(handle)
        offset = handle.tell()
    kind = torch.from_numpy(np.zeros(0, dtype)).dtype
    if fortran or 0 in shape:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    memory = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    return memory[offset:].view(kind).view(shape)


def _as_numpy(array: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(array, torch.Tensor):
        array = (array.as_tensor() if hasattr(array, "as_tensor") else array).detach().cpu().numpy()
    return np.asarray(array, order="C")


def _write_array(path: Path, array: np.ndarray) -> dict[str, int]:
    """Write one array and sync it; plain writes, so that a full disk is an error here and not a signal later."""
    with path.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(array))
        data = memoryview(array.reshape(-1).view(np.uint8)) if array.size else memoryview(b"")
        step = 1 << 24
        for begin in range(0, len(data), step):
            handle.write(data[begin : begin + step])
        _sync(handle)
    return {"bytes": path.stat().st_size, "crc32": _checksum(path)}


def _checksum(path: Path) -> int:
    """CRC-32 over blocks spread evenly over a file, its first and last bytes among them."""
    size, value = path.stat().st_size, 0
    room = max(size - BLOCK_BYTES, 0)
    with path.open("rb") as handle:
        for place in sorted({room * i // (BLOCKS - 1) for i in range(BLOCKS)}):
            handle.seek(place)
            value = zlib.crc32(handle.read(BLOCK_BYTES), value)
    return value


def _sync(handle: Any) -> None:
    handle.flush()
    os.fsync(handle.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable (where the system lets a folder be opened)."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(number)
    except OSError:
        pass
    finally:
        os.close(number)
