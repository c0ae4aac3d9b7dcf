"""Atlases on other grids, and their names as several programs write them."""

from __future__ import annotations

import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.atlas import read_atlas


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    """2 mm voxels, each with a number of its own."""
    numbers = np.arange(1, 4 * 3 * 2 + 1, dtype=np.int16).reshape(4, 3, 2)
    nib.save(nib.Nifti1Image(numbers, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / "atlas.nii.gz")
    return tmp_path / "atlas.nii.gz"


def test_the_same_grid_is_taken_as_it_is(atlas: Path) -> None:
    found = read_atlas(atlas).on_grid((4, 3, 2), np.diag([2.0, 2.0, 2.0, 1.0]))
    np.testing.assert_array_equal(found, np.arange(1, 25).reshape(4, 3, 2))


def test_each_voxel_takes_the_nearest_number(atlas: Path) -> None:
    """A grid of 1 mm, mirrored along x, from 6.6 mm down: voxel i lies at 6.6 − i."""
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = [6.6, 0.3, -0.7]
    found = read_atlas(atlas).on_grid((9, 8, 3), affine)
    numbers = np.arange(1, 25).reshape(4, 3, 2)
    for index in np.ndindex(found.shape):
        place = [(6.6 - index[0]) / 2, (index[1] + 0.3) / 2, (index[2] - 0.7) / 2]
        nearest = [int(np.floor(value + 0.5)) for value in place]
        inside = all(0 <= n < size for n, size in zip(nearest, (4, 3, 2), strict=True))
        assert found[index] == (numbers[tuple(nearest)] if inside else 0)


def test_an_atlas_travels_without_its_voxels(atlas: Path) -> None:
    read = read_atlas(atlas)
    read.on_grid((1, 1, 1), np.eye(4))
    assert "scan" not in pickle.loads(pickle.dumps(read)).__dict__


@pytest.mark.parametrize(
    "text",
    [
        '{"1": "left horn", "2": "pons"}',
        "index\tname\n1\tleft horn\n2\tpons\n",
        "# a table\n1, left horn\n2, pons\n",
        '1 255 0 0 1 1 1 "left horn"\n2 0 0 0 1 1 1 "pons"\n',
        "1 left horn 255 0 0 0\n\n2 pons 0 0 0 0\n",
    ],
)
def test_names_are_read_as_programs_write_them(atlas: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "names").write_text(text)
    assert read_atlas(atlas, tmp_path / "names").names == {1: "left horn", 2: "pons"}


def test_what_is_no_atlas_is_refused(tmp_path: Path, atlas: Path) -> None:
    with pytest.raises(RequestError, match="--atlas: .*does not exist"):
        read_atlas(tmp_path / "none.nii.gz")
    (tmp_path / "names").write_text("nothing\n")
    with pytest.raises(RequestError, match="names nothing"):
        read_atlas(atlas, tmp_path / "names")
    (tmp_path / "names").write_text('{"a": "b"}')
    with pytest.raises(RequestError, match="is no JSON of"):
        read_atlas(atlas, tmp_path / "names")
    with pytest.raises(RequestError, match="does not exist"):
        read_atlas(atlas, tmp_path / "away")
