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
from rarevox.pipeline.trust.sums import SUMS_FILE
from rarevox.pipeline.trust.verify import compare

OF_THE_CALL = {"seconds", "seconds_per_step", "resume"}
"""Entries that differ from call to call: its time, and whether it went on with another."""
TRAINED = ("network", "optimizer", "step", "ema", "patch_counts", "iteration")
NOT_COMPARED = {".html", ".png"}
"""Pages, which hold the figures of files that are compared, and the time."""


def files_of(folder: Path) -> list[Path]:
    """All that stands at its final name: what a killed call left unfinished has another.

    TensorBoard's event files are left out: they grow as it likes, and each call begins one. So are the journals of
    predictions, which are append-only, a file a call; what is made of them is compared.
    """
    found = (
        path for path in sorted(folder.rglob("*")) if path.is_file() and not {"tensorboard", "journal"} & {*path.parts}
    )
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
        compared = [n for n, name in enumerate(rows[0]) if name not in OF_THE_CALL] if rows else []
        return [[row[n] for n in compared] for row in rows]
    if kind == ".html":
        assert text.rstrip().endswith("</html>"), f"{path} is cut off"
    else:
        assert text, f"{path} is empty"
    return text


def plain(value: Any) -> Any:
    """A value without what is of the call alone."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if key not in OF_THE_CALL}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def first_unlike(a: Any, b: Any, place: str = "") -> str:
    """Where two values differ, and how; empty where they are the same bit for bit, NaN like NaN."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return next(filter(None, (first_unlike(a[key], b[key], f"{place}/{key}") for key in a)), "")
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return next(
            filter(None, (first_unlike(*two, f"{place}/{n}") for n, two in enumerate(zip(a, b, strict=True)))), ""
        )
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return first_unlike(a.numpy(), b.numpy(), place)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    else:
        same = type(a) is type(b) and a == b
    return "" if same else f"{place}: {a!s:.200} | {b!s:.200}"


def difference(found: Path, expected: Path) -> str:
    """The first file in which two folders differ, or that one of them lacks; empty where they are the same."""
    names = [{path.relative_to(folder) for path in files_of(folder)} for folder in (found, expected)]
    for name in sorted(names[0] ^ names[1]):
        return f"{name} is in one alone"
    for name in sorted(names[0]):
        if name.suffix in NOT_COMPARED or name.name == "previous.pt":  # a checkpoint of whichever step
            continue
        if name.name == SUMS_FILE:  # of configurations that say whether a call went on with another
            if faults := compare((found / name).parent):
                return faults[0]
            continue
        values = (of_the_work(plain(content(folder / name)), name.name) for folder in (found, expected))
        if unlike := first_unlike(*values):
            return f"{name} differs: {unlike}"
    return ""


def of_the_work(value: Any, name: str) -> Any:
    """Of a checkpoint what is trained: the rest is the time that it took, and what was drawn at random last."""
    return {key: value[key] for key in TRAINED} if name == "last.pt" else value
