"""Whether what a call left is whole, and whether two calls left the same."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import yaml

from rarevox.pipeline.files import is_leftover
from rarevox.pipeline.training.kept.checkpoint import load_tensors

TIMES = {"seconds", "seconds_per_step", "time"}
"""Entries that differ from call to call."""
NOT_COMPARED = {".html", ".png"}
"""Pages, which hold the figures of files that are compared, and the time."""


def files_of(folder: Path) -> list[Path]:
    """All that stands at its final name: what a killed call left unfinished has another."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if not any(map(is_leftover, [path, *path.relative_to(folder).parents]))]


def content(path: Path) -> Any:
    """Of a file, read in full.

    Raises:
        Exception: what its reader raises for a file that is torn.
    """
    kind = "".join(path.suffixes[-2:]) if path.name.endswith(".nii.gz") else path.suffix
    if kind == ".nii.gz":
        volume = nib.load(path)
        return np.asarray(volume.dataobj), volume.affine, int(volume.header["qform_code"])
    if kind == ".pt":
        return load_tensors(path)
    if kind == ".npy":
        return np.load(path)
    text = path.read_text(encoding="utf-8")
    if kind == ".json":
        return json.loads(text)
    if kind in (".yaml", ".yml"):
        return yaml.safe_load(text)
    if kind == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    if kind == ".csv":
        rows = list(csv.reader(io.StringIO(text, newline="")))
        assert text.endswith("\n") and len({len(row) for row in rows}) <= 1, f"{path} is cut off"
        return rows
    if kind == ".html":
        assert text.rstrip().endswith("</html>"), f"{path} is cut off"
    else:
        assert text, f"{path} is empty"
    return text


def plain(value: Any, root: Path) -> Any:
    """A value without times, and with the folder of its call under one name."""
    if isinstance(value, dict):
        return {plain(key, root): plain(one, root) for key, one in value.items() if key not in TIMES}
    if isinstance(value, (list, tuple)):
        return [plain(one, root) for one in value]
    return value.replace(str(root), "ROOT") if isinstance(value, str) else value


def same(a: Any, b: Any) -> bool:
    """Bit for bit, NaN like NaN."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and same(a.numpy(), b.numpy())
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(a == b)


def difference(found: Path, expected: Path) -> str:
    """The first file in which two folders differ, or that one of them lacks; empty where they are the same."""
    names = [sorted(path.relative_to(folder) for path in files_of(folder)) for folder in (found, expected)]
    for name in sorted({*names[0]} ^ {*names[1]}):
        return f"{name} is in one alone"
    for name in names[0]:
        if name.suffix in NOT_COMPARED or "tensorboard" in name.parts:
            continue
        a, b = (plain(content(folder / name), folder) for folder in (found, expected))
        if not same(a, b):
            return f"{name} differs: {a!s:.2000} | {b!s:.2000}"
    return ""
