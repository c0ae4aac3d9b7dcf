"""Regions of interest: what is computed of a scan, what stays background, and masks that do not belong to the scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import ArrayLike

from rarevox.pipeline.inference.native_watch import CERTAIN
from rarevox.pipeline.inference.tiling.tiles import Box
from rarevox.pipeline.inference.watch import Watch
from rarevox.transforms.bounding_box import bounding_box
from rarevox.transforms.native_grid import TOLERANCE, find_lattice
from rarevox.transforms.reader import ScanError, read_grid, read_scan, same_affine, size_text, spacing_mm


def native_grid(image: MetaTensor) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of the file that a preprocessed image came from."""
    x, y, z = (int(n) for n in np.asarray(image.meta["spatial_shape"]).ravel()[:3])
    return (x, y, z), np.asarray(image.meta["original_affine"], float)


def read_region(path: str | Path, image: MetaTensor) -> np.ndarray:
    """A mask file as bool (X, Y, Z) on the grid of the scan's file; every voxel that is not 0 is in the region.

    Args:
        path: of the mask.
        image: the preprocessed scan, whose meta tells its file's grid.

    Raises:
        ScanError: the file cannot be read. ValueError: it is on another grid; both are described.
    """
    scan = read_scan(path, dtype=None)
    shape, affine = native_grid(image)
    require_grid(path, scan.shape, scan.affine, shape, affine)
    return np.asarray((scan.array != 0).any(0))


def check_mask_grid(item: Mapping[str, Any]) -> None:
    """Refuse a normalisation mask (``mask`` of a data list's entry) on another grid than its scan.

    Raises:
        ValueError: both grids are described.
    """
    image = item["image"][0] if isinstance(item["image"], (list, tuple)) else item["image"]
    try:
        scan, mask = read_grid(image), read_grid(item["mask"])
    except ScanError:  # a file that cannot be read: the reader, which comes next, says what is wrong with it
        return
    require_grid(item["mask"], mask.shape, mask.affine, scan.shape, scan.affine)


def require_grid(
    path: str | Path, shape: Sequence[int], affine: np.ndarray, scan_shape: Sequence[int], scan_affine: np.ndarray
) -> None:
    """Refuse a mask on another grid than the scan's.

    >>> require_grid("m.nii.gz", (4, 4, 2), np.eye(4), (4, 4, 4), np.diag([1, 1, 0.5, 1]))
    Traceback (most recent call last):
    ...
    ValueError: the mask m.nii.gz is on another grid than the scan: 4×4×2 voxels of 1×1×1 mm from (0, 0, 0) against \
4×4×4 voxels of 1×1×0.5 mm from (0, 0, 0); resample it onto the scan's grid
    """
    if tuple(shape) == tuple(scan_shape) and same_affine(affine, scan_affine):
        return
    turned = ""
    if tuple(shape) == tuple(scan_shape) and not same_affine(affine[:3, :3], scan_affine[:3, :3]):
        turned = " with other axes"
    raise ValueError(
        f"the mask {path} is on another grid than the scan{turned}: {_described(shape, affine)} against "
        f"{_described(scan_shape, scan_affine)}; resample it onto the scan's grid"
    )


def _described(shape: Sequence[int], affine: np.ndarray) -> str:
    origin = ", ".join(f"{round(float(x), 3) + 0.0:g}" for x in np.asarray(affine, float)[:3, 3])
    return f"{size_text(shape)} voxels of {'×'.join(f'{s:.4g}' for s in spacing_mm(affine))} mm from ({origin})"


def region_box(region: np.ndarray) -> Box | None:
    """First voxel and end, along each axis, of what is True; None where nothing is.

    >>> region_box(np.array([[0, 0, 0], [0, 1, 1]], bool))
    [(1, 2), (1, 3)]
    """
    box = bounding_box(region)
    return None if box is None else [(span.start, span.stop) for span in box]


def model_box(shape: Sequence[int], affine: np.ndarray, native_affine: np.ndarray, box: Box) -> Box | None:
    """The part of the network's grid that decides a box of the scan's grid.

    Args:
        shape: of the network's grid.
        affine: 4×4, network voxel to mm.
        native_affine: 4×4, scan voxel to mm.
        box: first scan voxel and end along each axis.

    Returns:
        First voxel and end along each axis, one voxel to either side of what is interpolated; None where the box misses
        the grid.

    >>> model_box((10, 10, 10), np.eye(4), np.diag([2.0, 1.0, 1.0, 1.0]), [(1, 3), (4, 6), (0, 20)])
    [(2, 5), (4, 6), (0, 10)]
    """
    transform = np.linalg.inv(np.asarray(affine, float)) @ np.asarray(native_affine, float)
    corners = np.stack(np.meshgrid(*[(first, end - 1) for first, end in box], indexing="ij"), -1).reshape(-1, 3)
    placed = corners @ transform[:3, :3].T + transform[:3, 3]
    rounding = 0.05 if find_lattice(affine, native_affine) is not None else TOLERANCE
    found = []
    for low, high, length in zip(placed.min(0), placed.max(0), shape, strict=True):
        if high < -0.5 - TOLERANCE or low > length - 0.5 + TOLERANCE:
            return None
        first = min(max(int(np.floor(low + rounding)), 0), length - 1)
        found.append((first, max(min(int(np.ceil(high - rounding)) + 1, length), first + 1)))
    return found


def shifted(affine: ArrayLike, box: Box) -> np.ndarray:
    """The affine of a box of a grid, whose first voxel becomes voxel 0."""
    begin = np.eye(4)
    begin[:3, 3] = [first for first, _ in box]
    return np.asarray(affine, float) @ begin


def placed_at(image: MetaTensor, box: Box) -> MetaTensor:
    """What stands for a box of an image where only its place counts: one voxel, with the box's affine and the meta."""
    meta = {key: value for key, value in image.meta.items() if key != "affine"}
    return MetaTensor(torch.zeros(1, 1, 1, 1), affine=torch.from_numpy(shifted(image.affine, box)), meta=meta)


class RegionWatch:
    """Shows a :class:`Watch` certain background wherever a scan's voxel is not in the region.

    Args:
        watch: who is interested.
        region: bool (X, Y, Z) on the scan's grid.
    """

    def __init__(self, watch: Watch, region: np.ndarray) -> None:
        self.watch, self.region = watch, torch.from_numpy(region)

    def begin(self, shape: tuple[int, ...]) -> None:
        """A pass begins."""
        self.watch.begin(shape)

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        """Pass a block on."""
        outside = ~self.region[where].to(log_probabilities.device)
        logs = log_probabilities.clone()
        logs[:, outside] = CERTAIN
        logs[0, outside] = 0.0
        self.watch.take(logs, where)
