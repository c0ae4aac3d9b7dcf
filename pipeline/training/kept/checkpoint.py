"""Checkpoints: whole or absent on disk, tensors and plain numbers only, enough to go on exactly."""

from __future__ import annotations

import random
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import atomic


def save_tensors(content: object, path: str | Path, *, keep: str | Path | None = None) -> None:
    """``torch.save`` that is atomic and synced.

    Args:
        content: tensors and plain values.
        path: the file.
        keep: a name for the file that was there before.

    Raises:
        OSError: no space or no permission; an older file of that name stays as it was.
    """
    with atomic(path, keep=keep) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch reports a full disk as a failed write of its archive
            raise OSError(f"could not write {path}: {error}") from error


def save_weights(network: torch.nn.Module, path: str | Path) -> None:
    """Write the state dict alone, on the CPU and contiguous, so that any MONAI or PyTorch script can load it."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_tensors(state, path)


def load_tensors(path: str | Path) -> Any:
    """Read a checkpoint, refusing anything but tensors and plain values (``weights_only``).

    The checksums of the archive are compared first, as ``torch.load`` itself does not: a flipped bit is found too. An
    archive that unpacks to more than the file holds is no checkpoint: ``torch.save`` does not compress.

    Raises:
        RequestError: missing, a pipe or a device, torn or not a checkpoint; the message names the file.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise ValueError("it is a folder, a pipe or a device")
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _require_uncompressed(archive, Path(path))
                damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist; train first, or give the folder of a finished run") from None
    except Exception as error:  # torch raises many kinds for a file that is not a checkpoint
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RequestError(f"{path} is not a readable checkpoint ({reason}); restore it or train again") from error


def _require_uncompressed(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse a small file that would fill the memory: what is stored as it is can be no larger than the file."""
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > path.stat().st_size:
        raise ValueError(f"its parts unpack to {unpacked} bytes, and the file has {path.stat().st_size}")


def load_weights(network: torch.nn.Module, path: str | Path) -> torch.nn.Module:
    """Load a state dict into the network and set it to evaluation.

    Raises:
        RequestError: the file cannot be read, or its layers are not the network's; the first that differs is named.
    """
    state = load_tensors(path)
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise RequestError(f"{path} holds no weights by layer; give a run's models/model.pt")
    own = network.state_dict()
    for name in [*own, *(name for name in state if name not in own)]:
        if name not in state or name not in own or state[name].shape != own[name].shape:
            here = tuple(own[name].shape) if name in own else "absent"
            there = tuple(state[name].shape) if name in state else "absent"
            raise RequestError(
                f"{path} holds weights of another network: layer {name!r} is {there} in the file and {here} in the "
                "configured network; use the configuration that the weights were trained with"
            )
    network.load_state_dict(state)
    return network.eval()


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's generators, as plain values and tensors."""
    version, keys, position = random.getstate()[0], list(random.getstate()[1]), random.getstate()[2]
    name, array, place, has_gauss, gauss = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "python": [version, keys, position],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(array, dtype=np.int64)),
            int(place),
            int(has_gauss),
            float(gauss),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """The inverse of :func:`random_states`."""
    version, keys, position = states["python"]
    random.setstate((version, tuple(keys), position))
    name, array, place, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, array.numpy().astype(np.uint32), place, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
