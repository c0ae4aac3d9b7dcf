"""Millimetres and millilitres from every unit, by every way in: the scan, its grid, its header's two forms."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.data.volumes import write_labels
from rarevox.transforms.reader import ScanError, forms_mm, odd_spacing, read_grid, read_scan
from rarevox.transforms.reading.geometry import require_affine
from tests.hostile.kinds import nifti, voxels
from tests.hostile.of_itk import nrrd

# A turned grid of 1 × 2 × 3 mm.
AFFINE_MM = np.array([[0.0, -2.0, 0.0, 10.0], [1.0, 0.0, 0.0, 20.0], [0.0, 0.0, 3.0, -5.0], [0.0, 0.0, 0.0, 1.0]])
UNITS = [(1, 0.001), (2, 1.0), (3, 1000.0), (0, 1.0)]
"""Codes of ``xyzt_units`` and what a millimetre is in them; an unknown unit is the millimetre."""


def in_unit(path: Path, code: int, unit: float) -> Path:
    image = nib.Nifti1Image(voxels(), np.diag([unit, unit, unit, 1.0]) @ AFFINE_MM)
    image.set_sform(image.affine, 2)
    image.set_qform(image.affine, 1)
    image.header["xyzt_units"] = code
    image.to_filename(path)
    return path


@pytest.mark.parametrize(("code", "unit"), UNITS)
def test_a_grid_is_the_same_in_every_unit(code: int, unit: float, tmp_path: Path) -> None:
    path = in_unit(tmp_path / "scan.nii.gz", code, unit)
    scan, grid = read_scan(path), read_grid(path)
    assert np.array_equal(scan.affine, grid.affine)
    assert scan.shape == grid.shape
    np.testing.assert_allclose(grid.affine, AFFINE_MM, rtol=1e-6)  # an affine in a file is float32
    assert grid.spacing_mm == pytest.approx((1.0, 2.0, 3.0), rel=1e-6)
    assert grid.voxel_ml == pytest.approx(0.006, rel=1e-6)  # 6 mm³
    for form in forms_mm(grid.header):
        np.testing.assert_allclose(form, AFFINE_MM, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("code", "unit"), UNITS)
def test_a_label_map_keeps_the_units_codes_and_numbers_of_its_scan(code: int, unit: float, tmp_path: Path) -> None:
    path = in_unit(tmp_path / "scan.nii.gz", code, unit)
    grid = read_grid(path)
    written = nib.load(write_labels(tmp_path / "labels.nii.gz", np.ones(grid.shape, np.uint8), grid)).header
    header = nib.load(path).header
    for name in ("xyzt_units", "sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "pixdim", "quatern_b"):
        assert np.array_equal(written[name], header[name])


@pytest.mark.parametrize(("name", "unit"), [("mm", 1.0), ("um", 1000.0), ("m", 0.001), ("cm", 0.1), ("", 1.0)])
def test_nrrd_says_its_units_in_words(name: str, unit: float, tmp_path: Path) -> None:
    axes = " ".join(f"({','.join(str(unit * length) for length in axis)})" for axis in np.diag([1, 2, 3]))
    scan = read_scan(nrrd(tmp_path, f'space units: "{name}" "{name}" "{name}"', **{"space directions": axes}))
    assert scan.spacing_mm == pytest.approx((1.0, 2.0, 3.0))
    assert scan.warnings == ()


def test_odd_is_what_is_below_or_above() -> None:
    assert [bool(odd_spacing(np.diag([1, 1, length, 1]))) for length in (0.009, 0.01, 30, 31)] == [
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("scale", [1e-5, 1.0, 900.0])
def test_small_and_large_voxels_are_no_reason_to_call_an_affine_singular(scale: float) -> None:
    require_affine(np.diag([scale, scale, scale, 1.0]), Path("scan"))


@pytest.mark.parametrize(
    ("affine", "said"),
    [
        (np.diag([1.0, 1.0, 0.0, 1.0]), "singular"),
        (np.array([[1, 1, 0, 0], [1, 1.0001, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        (np.diag([1.0, np.nan, 1.0, 1.0]), "NaN"),
        (np.diag([1.0, 1.0, 2000.0, 1.0]), r"1 × 1 × 2000 mm, which no scan's are \(expected 1e-06 to 1000 mm\)"),
        (np.diag([1e-7, 1.0, 1.0, 1.0]), "which no scan's are"),
        (np.array([[1, 0, 0, 2e7], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "correct its origin"),
    ],
)
def test_an_affine_with_which_nothing_is_right_is_refused(affine: np.ndarray, said: str) -> None:
    with pytest.raises(ScanError, match=said) as caught:
        require_affine(affine, Path("scan"))
    assert caught.value.check == "singular-affine"


def test_a_grid_is_refused_where_its_scan_is(tmp_path: Path) -> None:
    path = nifti(tmp_path / "scan.nii", srow_x=[np.nan, 0, 0, 0])
    for read in (read_scan, read_grid):
        with pytest.raises(ScanError, match="NaN"):
            read(path)


@pytest.mark.parametrize("name", ["scan.nrrd", "scan.mha", "scan.mgz", "scan.img"])
def test_the_grid_of_other_formats_is_their_scans(name: str, tmp_path: Path) -> None:
    import SimpleITK

    path = tmp_path / name
    if name.endswith((".nrrd", ".mha")):
        image = SimpleITK.GetImageFromArray(voxels((4, 5, 6, 2)), isVector=True)
        image.SetSpacing((0.7, 0.9, 1.1))
        image.SetOrigin((3.0, -4.0, 5.0))
        SimpleITK.WriteImage(image, str(path))
    else:
        kind = nib.MGHImage if name.endswith(".mgz") else nib.Nifti1Pair
        kind(voxels().astype(np.int32), AFFINE_MM).to_filename(path)
    scan, grid = read_scan(path), read_grid(path)
    assert np.array_equal(scan.affine, grid.affine)
    assert scan.array.shape == grid.array.shape
    assert scan.paths == grid.paths == (path,)
