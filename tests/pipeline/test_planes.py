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
    """It lies at the patient's right and front (high x and y of RAS+): on the left of axial and sagittal planes."""
    image, labels = np.full((20, 20, 20), 5.0), np.zeros((20, 20, 20), np.uint8)
    image[0] = 0.0
    labels[15:18, 14:18, 8:12] = 1
    for affine in (np.eye(4), np.diag([-1.0, 1.0, 1.0, 1.0])):
        shown = labels if affine[0, 0] > 0 else labels[::-1]
        picture = np.asarray(three_planes(image, shown, affine, 100))
        for plane in (picture[:, 2:102], picture[:, 106:206], picture[:, 210:310]):
            columns = np.flatnonzero((plane == COLOURS[0]).all(-1).any(0))
            assert columns.size
            assert columns.max() < 50
            assert (plane[40:70, :12] > 200).all(-1).any()  # the letter that says so
