"""--fix: what is certain is corrected in copies, what is not is left, and the originals stay as they were."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.cases import Case
from rarevox.pipeline.preparation.checks.case import check_case, load_case
from rarevox.pipeline.preparation.corrected.corrections import correct
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.transforms.reader import read_scan
from tests.pipeline.preparation.checks.test_case import everywhere, put, shifted, voxels, with_label
from tests.pipeline.preparation.conftest import SHAPE, save
from tests.pipeline.preparation.test_prepare import decathlon


def fixed(case: Case, folder: Path) -> tuple[Case, list[str], list[str]]:
    """The case after correction, the checks corrected and the checks that still find something."""
    loaded, faults = load_case(case, {1: "lesion", 2: "ventricle"})
    assert loaded is not None, faults
    again, faults, fixes = correct(loaded, folder)
    assert again is not None, faults
    return again.case, [fix.check for fix in fixes], [fault.check for fault in check_case(again)]


def test_a_clean_case_is_left_alone(case: Case, tmp_path: Path) -> None:
    after, done, left = fixed(case, tmp_path / "fixed")
    assert (after, done, left) == (case, [], [])
    assert not (tmp_path / "fixed").exists()


def test_a_label_stored_in_another_order_is_turned_without_interpolation(case: Case, tmp_path: Path) -> None:
    """The label as (Z, −X, Y): voxel (i, j, k) of it is voxel (X−1−j, k, i) of the image."""
    before = voxels(case.label)
    turned = before[::-1].transpose(2, 0, 1)
    affine = np.array([[0, -1, 0, SHAPE[0] - 1], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(np.ascontiguousarray(turned), affine), case.label)
    after, done, left = fixed(case, tmp_path / "fixed")
    assert (done, left) == (["label-handedness"], [])
    np.testing.assert_array_equal(voxels(after.label), before)
    np.testing.assert_array_equal(read_scan(after.label).affine, np.eye(4))


def test_a_mirror_image_in_another_place_is_not_touched(case: Case, tmp_path: Path) -> None:
    save(case.label, voxels(case.label), np.diag([-1.0, 1, 1, 1]))
    assert fixed(case, tmp_path / "fixed")[1:] == ([], ["label-handedness"])


@pytest.mark.parametrize(("shift", "certain"), [(0.05, True), (0.2, False)])
def test_an_offset_is_removed_below_a_tenth_of_a_voxel(case: Case, tmp_path: Path, shift: float, certain: bool) -> None:
    save(case.label, voxels(case.label), shifted(shift))
    assert fixed(case, tmp_path / "fixed")[1:] == ((["label-affine"], []) if certain else ([], ["label-affine"]))


@pytest.mark.parametrize(("value", "certain"), [(1.005, True), (1.02, False), (np.nan, False)])
def test_values_are_rounded_where_they_are_nearly_whole(
    case: Case, tmp_path: Path, value: float, certain: bool
) -> None:
    with_label(case, put(value), np.float64)
    after, done, left = fixed(case, tmp_path / "fixed")
    assert (done, left) == ((["label-not-whole"], []) if certain else ([], ["label-not-whole"]))
    if certain:
        assert voxels(after.label).dtype == np.uint8
        assert voxels(after.label)[3, 3, 2] == 1


def test_whole_floats_become_whole_numbers(case: Case, tmp_path: Path) -> None:
    before = voxels(with_label(case, lambda label: label, np.float32).label)
    after, _, left = fixed(case, tmp_path / "fixed")
    assert left == []
    assert voxels(after.label).dtype == np.uint8
    np.testing.assert_array_equal(voxels(after.label), before)


def test_nan_around_the_head_becomes_zero(case: Case, tmp_path: Path) -> None:
    before = voxels(case.image[1])
    save(case.image[1], np.where(before == 0, np.nan, before))
    after, done, left = fixed(case, tmp_path / "fixed")
    assert (done, left) == (["not-finite"], [])
    assert after.image[0] == case.image[0]
    np.testing.assert_array_equal(voxels(after.image[1]), before)


@pytest.mark.parametrize("where", ["inside", "foreground", "infinite"])
def test_other_voxels_that_are_not_finite_are_left(case: Case, tmp_path: Path, where: str) -> None:
    array = voxels(case.image[0])
    if where == "inside":
        array[5, 5, 4] = np.nan
    else:
        array[array == 0] = np.nan
        array[(3, 3, 2) if where == "foreground" else (0, 0, 0)] = np.nan if where == "foreground" else np.inf
    save(case.image[0], array)
    assert fixed(case, tmp_path / "fixed")[1:] == ([], ["not-finite"])


def test_the_sform_counts(case: Case, tmp_path: Path) -> None:
    volume = nib.Nifti1Image(voxels(case.image[0]), np.eye(4))
    volume.header.set_sform(np.eye(4), code=1)
    volume.header.set_qform(shifted(4.0), code=1)
    volume.to_filename(case.image[0])
    after, done, left = fixed(case, tmp_path / "fixed")
    assert (done, left) == (["form-conflict"], [])
    np.testing.assert_allclose(nib.load(after.image[0]).get_qform(), np.eye(4))


def test_a_sheared_sform_switches_the_qform_off(case: Case, tmp_path: Path) -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    everywhere(case, sheared)
    volume = nib.load(case.image[0])
    volume.header.set_sform(sheared, code=1)
    volume.header.set_qform(shifted(4.0), code=1)
    nib.Nifti1Image(voxels(case.image[0]), None, volume.header).to_filename(case.image[0])
    after, done, left = fixed(case, tmp_path / "fixed")
    assert (done, left) == (["form-conflict"], ["sheared-affine"])
    assert nib.load(after.image[0]).header["qform_code"] == 0


def test_a_mask_in_another_order(case: Case, tmp_path: Path) -> None:
    assert case.mask is not None
    before, affine = voxels(case.mask), np.diag([-1.0, 1, 1, 1])
    affine[0, 3] = SHAPE[0] - 1
    save(case.mask, before[::-1], affine)
    after, done, left = fixed(case, tmp_path / "fixed")
    assert (done, left) == (["mask-grid"], [])
    np.testing.assert_array_equal(voxels(after.mask), before)


def hashes(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_prepare_uses_the_copies_and_never_writes_to_the_source(tmp_path: Path) -> None:
    task, out = decathlon(tmp_path / "task"), tmp_path / "out"
    path = task / "labelsTr" / "c03.nii.gz"
    volume = nib.load(path)
    nib.save(nib.Nifti1Image(np.array(volume.dataobj) * np.float32(1.001), volume.affine), path)
    before = hashes(task)
    with pytest.raises(RequestError, match="1 of 12 cases have errors"):
        prepare(task, out)
    assert prepare(task, out, fix=True) == 0
    assert hashes(task) == before
    (row,) = json.loads((out / "fixed.json").read_text(encoding="utf-8"))["fixed"]
    assert (row["case"], row["check"], row["file"]) == ("c03", "label-not-whole", str(path))
    dataset = Dataset.load(out)
    labels = {case["case"]: case["label"] for case in dataset.section("training") + dataset.section("test")}
    assert labels["c03"] == str(out / "fixed" / "c03" / "label.nii.gz") == row["copy"]
    assert labels["c04"] == str(task / "labelsTr" / "c04.nii.gz")
    assert prepare(task, out, fix=True) == 0  # again, over what it wrote
    assert "c03" in (out / "checks.html").read_text(encoding="utf-8")
