"""The template and one atlas, for all tests of the phantom."""

from __future__ import annotations

import numpy as np
import pytest

from rarevox.pipeline.phantom.anatomy import Atlas, build_atlas, load_template, template_maps

SPACING_MM = 3.0


@pytest.fixture(scope="session")
def template() -> dict[str, np.ndarray]:
    """The unsmoothed maps of the whole template at 1 mm, and the voxels' MNI positions under "x", "y", "z"."""
    images, origin = load_template()
    maps = template_maps(images["t1"], images["grey"], images["white"], origin)
    axes = np.ogrid[tuple(slice(o, o + n) for o, n in zip(origin, images["t1"].shape, strict=True))]
    return maps | dict(zip("xyz", axes, strict=True))


@pytest.fixture(scope="session")
def atlas() -> Atlas:
    """The atlas at 3 mm, which takes seconds to build."""
    return build_atlas(SPACING_MM)
