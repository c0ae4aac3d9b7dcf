"""Three planes of a volume: true proportions, the right side, outlines where structures are."""

from __future__ import annotations

import numpy as np

from rarevox.pipeline.planes import COLOURS, three_planes


def test_planes_have_the_volumes_proportions() -> None:
    """40 × 20 × 10 mm at 1, 2 and 5 mm: the longest edge has 80 pixels, so 2 a mm; gaps of 2 to both sides."""
    image = np.random.default_rng(0).random((40, 10, 2))
    picture = three_planes(image, None, np.diag([1.0, 2.0, 5.0, 1.0]), 80)
    assert picture.size == (80 + 80 + 40 + 12, 40)  # axial 80×40, coronal 80×20, sagittal 40×20


def test_a_structure_is_outlined_on_its_side() -> None:
    """It lies at the patient's right (x to the right of RAS+): on the picture's right, for radiology on its left."""
    image, labels = np.full((20, 20, 20), 5.0), np.zeros((20, 20, 20), np.uint8)
    image[0] = 0.0
    labels[15:18, 8:12, 8:12] = 1
    for affine in (np.eye(4), np.diag([-1.0, 1.0, 1.0, 1.0])):
        for radiology in (False, True):
            shown = labels if affine[0, 0] > 0 else labels[::-1]
            axial = np.asarray(three_planes(image, shown, affine, 100, radiology=radiology))[:, 2:102]
            columns = np.flatnonzero((axial == COLOURS[0]).all(-1).any(0))
            assert columns.size
            assert (columns.mean() < 50) == radiology
