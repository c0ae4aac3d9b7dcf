"""Every kind of fault, planted in a Decathlon task of real cases: what each check must find."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np


class Task:
    """The files of a copied task, changed one case at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content = json.loads((root / "dataset.json").read_text())

    def path(self, kind: str, case: str) -> Path:
        return self.root / ("imagesTr" if kind == "image" else "labelsTr") / f"{case}.nii.gz"

    def read(self, kind: str, case: str) -> tuple[np.ndarray, np.ndarray]:
        volume = nib.load(self.path(kind, case))
        return np.array(volume.dataobj), np.array(volume.affine)

    def save(self, kind: str, case: str, array: np.ndarray, affine: np.ndarray) -> None:
        volume = nib.Nifti1Image(array, affine)
        volume.set_sform(affine, 1)
        volume.header["qform_code"] = 0
        nib.save(volume, self.path(kind, case))

    def change(self, kind: str, case: str, of: Callable[[np.ndarray], np.ndarray]) -> None:
        array, affine = self.read(kind, case)
        self.save(kind, case, of(array), affine)

    def move(self, case: str, of: Callable[[np.ndarray], np.ndarray], kinds: tuple[str, ...] = ("label",)) -> None:
        for kind in kinds:
            array, affine = self.read(kind, case)
            self.save(kind, case, array, of(affine))


def _put(value: float, count: int = 1) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32)
        array.flat[:count] = value
        return array

    return change


def _sheared(affine: np.ndarray) -> np.ndarray:
    return affine @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def _singular(task: Task, case: str) -> None:
    volume = nib.load(task.path("image", case))
    header = volume.header.copy()
    header["srow_y"] = header["srow_x"]
    header["sform_code"], header["qform_code"] = 1, 0
    nib.Nifti1Image(np.array(volume.dataobj), None, header).to_filename(task.path("image", case))


def _conflict(task: Task, case: str) -> None:
    array, affine = task.read("image", case)
    volume = nib.Nifti1Image(array, affine)
    volume.set_sform(affine, 1)
    volume.set_qform(affine + np.array([[0, 0, 0, 5.0], [0] * 4, [0] * 4, [0] * 4]), 1)
    nib.save(volume, task.path("image", case))


def _truncate(task: Task, case: str) -> None:
    content = task.path("image", case).read_bytes()
    task.path("image", case).write_bytes(content[: len(content) // 2])


def _unlink(kind: str) -> Callable[[Task, str], None]:
    return lambda task, case: task.path(kind, case).unlink()


def _twin(noise: float, factor: float) -> Callable[[Task, str], None]:
    """The image of the task's first case, rescaled and with noise of a share of its standard deviation."""

    def plant(task: Task, case: str) -> None:
        first = Path(task.content["training"][0]["image"]).name.removesuffix(".nii.gz")
        image, affine = task.read("image", first)
        rng = np.random.default_rng(0)
        changed = factor * (image + noise * image.std() * rng.normal(size=image.shape)) if noise else image
        task.save("image", case, changed.astype(np.float32) if noise else image, affine)
        label, affine = task.read("label", first)
        task.save("label", case, label, affine)

    return plant


def _copied(task: Task, case: str) -> None:
    """The label under the image's name."""
    task.save("image", case, *task.read("label", case))


def _in_surround(task: Task, case: str) -> None:
    """A scan with an empty surround of ten voxels, and the label in a corner of it."""
    image, affine = task.read("image", case)
    label, _ = task.read("label", case)
    task.save("image", case, np.pad(image, 10), affine)
    task.save("label", case, np.pad(label, ((0, 20), (0, 20), (0, 20))), affine)


def _flipped(task: Task, case: str) -> None:
    """Image and label stored from front to back and from left to right, with the affine that says so."""
    for kind in ("image", "label"):
        array, affine = task.read(kind, case)
        turn = np.diag([-1.0, -1.0, 1.0, 1.0])
        turn[:2, 3] = np.array(array.shape[:2]) - 1
        task.save(kind, case, array[::-1, ::-1], affine @ turn)


BOTH = ("image", "label")
PLANTS: dict[str, Callable[[Task, str], None]] = {
    "missing-file": _unlink("label"),
    "unreadable": _truncate,
    "singular-affine": _singular,
    "channel-count": lambda task, case: task.change("image", case, lambda a: np.stack([a, a], -1)),
    "label-channels": lambda task, case: task.change("label", case, lambda a: np.stack([a == 1, a == 2], -1) * 1.0),
    "label-shape": lambda task, case: task.change("label", case, lambda a: a[:-1]),
    "label-affine": lambda task, case: task.move(case, lambda a: a + 0.01 * np.eye(4)[:, [3, 3, 3, 0]]),
    "label-handedness": lambda task, case: task.move(case, lambda a: a @ np.diag([-1.0, 1, 1, 1])),
    "label-not-whole": lambda task, case: task.change("label", case, _put(0.5)),
    "label-undeclared": lambda task, case: task.change("label", case, _put(7)),
    "not-finite": lambda task, case: task.change("image", case, _put(np.nan)),
    "constant-channel": lambda task, case: task.change("image", case, lambda a: np.full_like(a, 5)),
    "label-as-channel": _copied,
    "empty-label": lambda task, case: task.change("label", case, np.zeros_like),
    "label-outside": _in_surround,
    "sheared-affine": lambda task, case: task.move(case, _sheared, BOTH),
    "form-conflict": _conflict,
    "implausible-spacing": lambda task, case: task.move(
        case, lambda a: a @ np.diag([1e-3] * 3 + [1]), ("image", "label")
    ),
    "duplicate-content": _twin(0.0, 1.0),
    "near-duplicate": _twin(0.1, 1.7),
    "spacing-outlier": lambda task, case: task.move(case, lambda a: a @ np.diag([1, 1, 3.0, 1]), BOTH),
    "intensity-outlier": lambda task, case: task.change("image", case, lambda a: a.max() - a.astype(np.float32)),
    "orientation-outlier": _flipped,
}
"""Name of a check to what plants its fault in a case. The others need another layout or a stated split."""

ALSO = {"implausible-spacing": {"spacing-outlier"}, "label-outside": {"intensity-outlier"}}
"""Further checks that a planted fault rightly meets."""
