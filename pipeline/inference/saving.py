"""Predicted label maps on disk, as the last transform of an inference bundle."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from rarevox.pipeline.data.formats import stem
from rarevox.pipeline.data.volumes import write_labels
from rarevox.transforms.reader import Scan, read_grid


def save_labels(labels: np.ndarray, image: str | Path, case: str, output: str | Path) -> tuple[Path, Scan]:
    """Write ``OUTPUT/CASE_seg.nii.gz`` on the grid of the scan; returns the path and the scan's grid (no voxels)."""
    grid = read_grid(image)
    return write_labels(Path(output) / f"{case}_seg.nii.gz", labels, grid), grid


class SaveLabelsd(MapTransform):
    """Write each predicted label map (1, X, Y, Z), already on the native grid, as ``CASE_seg.nii.gz``.

    Args:
        keys: predictions.
        output: the folder.
        image_key: the preprocessed image, whose meta names the file it came from; ``case`` in the data names the
            output, else the file's name does.
    """

    def __init__(self, keys: KeysCollection, output: str, *, image_key: str = "image") -> None:
        super().__init__(keys)
        self.output = output
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write; the data is passed on unchanged."""
        source = data[self.image_key].meta["filename_or_obj"]
        source = source[0] if isinstance(source, (list, tuple)) else source
        for key in self.key_iterator(dict(data)):
            save_labels(np.asarray(data[key])[0], source, str(data.get("case") or stem(source)), self.output)
        return dict(data)
