"""Three planes of a volume: true proportions, the right side, outlines where structures are."""

from __future__ import annotations

import numpy as np

from rarevox.pipeline.planes import COLOURS, three_planes, with_legend


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


def _seen(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in picture.reshape(-1, 3).tolist()} & set(COLOURS)


def test_a_structure_has_its_colour_in_every_plane_and_scan() -> None:
    """Value 7 lies in all three planes through the most foreground, value 3 in none but the axial one."""
    image, labels = np.full((20, 20, 20), 5.0), np.zeros((20, 20, 20), np.uint8)
    image[0] = 0.0
    labels[12:16, 12:16, 12:16] = 7
    labels[2, 2, 12] = 3
    picture = np.asarray(three_planes(image, labels, np.eye(4), 100))
    axial, coronal, sagittal = (picture[:, at : at + 100] for at in (2, 106, 210))
    assert _seen(axial) == {COLOURS[0], COLOURS[1]}
    assert _seen(coronal) == _seen(sagittal) == {COLOURS[1]}
    labels[labels == 3] = 0
    assert _seen(np.asarray(three_planes(image, labels, np.eye(4), 100, [3, 7]))) == {COLOURS[1]}


def test_a_legend_names_each_structure_in_its_colour_and_hides_nothing() -> None:
    planes = three_planes(np.zeros((20, 20, 20)), None, np.eye(4), 40)
    names = ["core", "\u8840\u7ba1 \udce4", *(f"structure {n}" for n in range(2, 5))]
    drawn = with_legend(planes, "case \x1b", names)
    assert drawn.width == planes.width
    assert np.array_equal(np.asarray(drawn)[: planes.height], np.asarray(planes))
    legend = np.asarray(drawn)[planes.height :].reshape(-1, 3).astype(int)
    for colour in COLOURS[: len(names)]:
        assert (np.abs(legend - colour).sum(1) < 60).any()
