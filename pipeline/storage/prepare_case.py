"""One case after the deterministic transforms: plain tensors in small types, an index, a size in bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch


def compact(case: Mapping[Any, Any], image_type: torch.dtype = torch.float32) -> dict[str, Any]:
    """The tensors of a prepared case without MetaTensor bookkeeping, in the smallest type that loses nothing.

    Floating-point volumes become ``image_type``, but for masks of whole numbers under 256, which become uint8; label
    maps keep the type of :class:`rarevox.transforms.LabelsToClassesd` (uint8 to 255 classes). The affine of the first
    volume that has one comes along as ``affine`` (4×4, float64).

    >>> compact({"image": torch.ones(1, 2, dtype=torch.float64), "case": "a"})["image"].dtype
    torch.float32
    """
    out: dict[str, Any] = {}
    for key, value in case.items():
        if not isinstance(value, torch.Tensor):
            if key in ("case", "foreground"):
                out[str(key)] = value
            continue
        if hasattr(value, "affine") and "affine" not in out:
            out["affine"] = torch.as_tensor(value.affine).to(torch.float64).clone()
        tensor = value.as_tensor() if hasattr(value, "as_tensor") else value
        if tensor.is_floating_point():
            tensor = tensor.to(torch.uint8 if key == "mask" and _small_whole(tensor) else image_type)
        out[str(key)] = tensor.contiguous()
    return out


def _small_whole(tensor: torch.Tensor) -> bool:
    return bool(((tensor >= 0) & (tensor <= 255) & (tensor == tensor.round())).all())


def index_case(case: dict[str, Any], index: Callable[[Any], dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """The case with what ``index`` added, and the key of that."""
    indexed = index(case)
    added = [key for key in indexed if key not in case]
    if len(added) != 1:
        raise ValueError(f"the index transform added {added}; expected one entry")
    return indexed, added[0]


def case_bytes(case: Mapping[str, Any]) -> int:
    """Memory of a prepared case's tensors and of its index's arrays."""
    total = 0
    for value in case.values():
        if isinstance(value, torch.Tensor):
            total += value.numel() * value.element_size()
        else:
            total += _index_bytes(value)
    return total


def _index_bytes(value: object) -> int:
    """Memory of the arrays in an index, those of its parts included."""
    if hasattr(value, "__dataclass_fields__"):
        return sum(_index_bytes(getattr(value, name)) for name in value.__dataclass_fields__)
    if isinstance(value, tuple):
        return sum(_index_bytes(part) for part in value)
    return int(value.nbytes) if isinstance(value, np.ndarray) else 0
