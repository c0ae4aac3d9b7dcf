"""The volumes of the slice viewer: what goes in comes back, small, and in its place."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from rarevox.pipeline.evaluation.report.planes import to_native
from rarevox.pipeline.evaluation.report.viewer import viewer_data

STRUCTURES = {"background": 0, "core": 1, "whole": (1, 2)}


def _grey(address: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))


def _unpack(pixels: np.ndarray, data: dict[str, Any]) -> np.ndarray:
    nx, ny, nz = data["shape"]
    volume = np.zeros((nx, ny, nz))
    for z in range(nz):
        row, column = divmod(z, data["columns"])
        volume[:, :, z] = pixels[row * ny : (row + 1) * ny, column * nx : (column + 1) * nx].T
    return volume


def test_places_in_the_viewer_are_those_of_the_file() -> None:
    # The file's axes are x to the left, z to the front, y upwards, so every place in the viewer is turned.
    affine = np.array([[-2.0, 0, 0, 30], [0, 0, 4, -20], [0, 3, 0, 7], [0, 0, 0, 1]])
    labels = np.zeros((30, 20, 12), np.uint8)
    labels[9:12, 8, 5] = labels[20, 12, 9] = 1
    data = viewer_data(None, None, labels, (2, 3, 4), {"s": 1}, affine=affine)
    volume = np.rint(_unpack(_grey(data["reference"]), data) / data["scale"])
    for place in np.argwhere(volume):
        voxel = np.array(data["voxel"]) @ [*place, 1]
        assert labels[tuple(np.rint(voxel).astype(int))] == 1
        assert_allclose(np.array(data["world"]) @ [*place, 1], (affine @ [*voxel, 1])[:3])
    assert volume.sum() == 4
    turn = to_native((30, 20, 12), affine)
    assert_allclose(turn @ [0, 0, 0, 1], [29, 0, 0, 1])


def test_viewer_volumes_come_back_as_they_went_in() -> None:
    rng = np.random.default_rng(1)
    reference = np.zeros((30, 24, 12), np.uint8)
    reference[8:16, 6:18, 4:9], reference[16:20, 6:18, 4:9] = 1, 2
    image, prediction = rng.normal(size=reference.shape), np.roll(reference, 2, 1)
    data = viewer_data(image, prediction, reference, (1, 1, 3), STRUCTURES)
    for name, labels in (("reference", reference), ("prediction", prediction)):
        pixels = _grey(data[name])
        box = tuple(slice(f, f + n) for f, n in zip(data["first"], data["shape"], strict=True))
        assert_array_equal(np.rint(_unpack(pixels, data) / data["scale"]), labels[box])
    assert data["structures"] == {"core": [1], "whole": [1, 2]}


def test_hundreds_of_labels_come_back_from_three_digits() -> None:
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 401, (16, 16, 16)) * 7  # values up to 2800, 400 of them
    prediction = np.where(rng.random(reference.shape) < 0.5, reference, 0)
    structures = {f"s{n}": 7 * n for n in range(1, 401)} | {"all": tuple(7 * n for n in range(1, 401))}
    data = viewer_data(None, prediction, reference, (1, 1, 1), structures)
    assert (data["digits"], data["scale"]) == (3, 17)
    for name, labels in (("reference", reference), ("prediction", prediction)):
        digits = [_unpack(channel, data) / 17 for channel in np.moveaxis(_grey(data[name]), -1, 0)]
        assert_array_equal(256 * digits[0] + 16 * digits[1] + digits[2], labels / 7)
    assert data["structures"]["s300"] == [300]
    assert data["structures"]["all"] == list(range(1, 401))


@pytest.mark.parametrize(("labels", "digits"), [(255, 1), (256, 3)])
def test_grey_alone_tells_255_labels_apart(labels: int, digits: int) -> None:
    reference = np.arange(8**3).reshape(8, 8, 8) % (labels + 1)
    data = viewer_data(None, None, reference, (1, 1, 1), {f"s{n}": n for n in range(1, labels + 1)})
    assert data["digits"] == digits
    assert _grey(data["reference"]).ndim == (2 if digits == 1 else 3)


def test_what_cannot_be_told_apart_shares_the_last_number() -> None:
    reference = np.arange(18**3).reshape(18, 18, 18)  # 0 ... 5831
    data = viewer_data(None, None, reference, (1, 1, 1), {f"s{n}": n for n in range(1, 18**3)}, max_bytes=10**9)
    assert (data["structures"]["s4094"], data["structures"]["s4096"]) == ([4094], [4095])
    assert_array_equal(_grey(data["reference"]).max(axis=(0, 1)), [255, 255, 255])


def test_thinned_viewer_keeps_a_single_voxel() -> None:
    reference = np.zeros((40, 40, 40), np.uint8)
    reference[17, 23, 31] = 3
    reference[2, 2, 2] = reference[37, 37, 37] = 1
    data = viewer_data(None, None, reference, (1, 1, 1), {"a": 1, "b": 3}, max_voxels=4000)
    assert np.prod(data["shape"]) <= 4000
    pixels = _grey(data["reference"])
    assert sorted(np.unique(pixels)) == [0, data["scale"], 2 * data["scale"]]
    assert data["image"] is None
    json.dumps(data)


def test_volumes_that_do_not_pack_are_thinned_to_the_limit() -> None:
    noise = np.random.default_rng(0).random((60, 60, 60))
    reference = np.zeros(noise.shape, np.uint8)
    reference[::59, ::59, ::59] = 1
    whole = viewer_data(noise, None, reference, (1, 1, 1), {"s": 1})
    assert whole["shape"] == [60, 60, 60]
    small = viewer_data(noise, None, reference, (1, 1, 1), {"s": 1}, max_bytes=20_000)
    assert len(json.dumps(small)) < 22_000
    assert small["spacing"] > [1.0, 1.0, 1.0]
