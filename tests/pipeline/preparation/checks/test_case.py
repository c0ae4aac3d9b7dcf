"""Every check finds its fault planted in a file, and nothing in a clean case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.preparation.cases import Case, Fault
from rarevox.pipeline.preparation.checks.case import CHECKS, check_case, count_values, load_case
from rarevox.pipeline.preparation.checks.catalogue import CATALOGUE
from tests.pipeline.preparation.conftest import SHAPE, save

NAMES = {1: "lesion", 2: "ventricle"}


def faults_of(case: Case, declared: dict[int, str] | None = NAMES) -> list[Fault]:
    loaded, faults = load_case(case, declared)
    return faults if loaded is None else check_case(loaded)


def voxels(path: Path) -> np.ndarray:
    return np.array(nib.load(path).dataobj)


def with_label(case: Case, change: Callable[[np.ndarray], np.ndarray], dtype: type = np.uint8) -> Case:
    save(case.label, change(voxels(case.label).astype(dtype)))
    return case


def put(value: float, *index: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[index or (3, 3, 2)] = value
        return array

    return change


def shifted(by: float) -> np.ndarray:
    affine = np.eye(4)
    affine[0, 3] = by
    return affine


def test_a_clean_case_has_no_fault(case: Case) -> None:
    assert faults_of(case) == []
    assert faults_of(case, None) == []
    assert faults_of(replace(case, mask=None)) == []


def test_every_check_has_a_name_of_its_own_that_the_catalogue_lists() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert set(names) <= set(CATALOGUE)


def test_a_missing_file_and_a_truncated_one_are_both_told(case: Case) -> None:
    case.image[1].unlink()
    case.label.write_bytes(case.label.read_bytes()[:60])
    found = {fault.check: fault for fault in faults_of(case)}
    assert set(found) == {"missing-file", "unreadable"}
    assert "t2.nii.gz does not exist" in found["missing-file"].message
    assert found["unreadable"].file == str(case.label)


def test_channels_on_different_grids(case: Case) -> None:
    save(case.image[1], np.ones((8, 7, 5), np.float32))
    assert [fault.check for fault in faults_of(case)] == ["channel-grid"]


def test_label_of_another_shape(case: Case) -> None:
    found = faults_of(with_label(case, lambda label: label[:, :, 1:]))
    assert [(fault.check, fault.severity, fault.file) for fault in found] == [("label-shape", "error", str(case.label))]
    assert "8×7×5" in found[0].message
    assert "8×7×6" in found[0].message


@pytest.mark.parametrize(
    ("shift", "expected"), [(1e-8, []), (9e-4, []), (2e-3, ["label-affine"]), (1.0, ["label-affine"])]
)
def test_label_in_another_place(case: Case, shift: float, expected: list[str]) -> None:
    save(case.label, voxels(case.label), shifted(shift))
    assert [fault.check for fault in faults_of(case)] == expected


def test_a_mirrored_label_says_how_the_axes_run(case: Case) -> None:
    save(case.label, voxels(case.label), np.diag([-1.0, 1.0, 1.0, 1.0]))
    (fault,) = faults_of(case)
    assert fault.check == "label-handedness"
    assert "the image's axes run RAS, the label's LAS" in fault.message


def test_label_with_channels(case: Case) -> None:
    found = faults_of(with_label(case, lambda label: np.stack([label, label], -1)))
    assert [fault.check for fault in found] == ["label-channels"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite(case: Case, bad: float) -> None:
    save(case.image[1], put(bad)(voxels(case.image[1])))
    (fault,) = faults_of(case)
    assert (fault.check, fault.file) == ("not-finite", str(case.image[1]))
    assert fault.message.startswith("1 of 336 voxels")  # 8 × 7 × 6


def test_opposite_infinities_are_found_although_they_could_cancel(case: Case) -> None:
    save(case.image[0], put(-np.inf, 4, 4, 4)(put(np.inf)(voxels(case.image[0]))))
    assert [fault.check for fault in faults_of(case)] == ["not-finite"]


def test_a_voxel_that_outweighs_all_others(case: Case) -> None:
    for path in (*case.image, case.label, *([case.mask] if case.mask else [])):
        save(path, np.tile(voxels(path), (3, 3, 3)))
    save(case.image[1], put(1e30)(voxels(case.image[1]).astype(np.float32)))
    (fault,) = faults_of(case)
    assert (fault.check, fault.severity, fault.file) == ("extreme-voxels", "warning", str(case.image[1]))
    assert fault.message.startswith("1 voxel as extreme as 1e+30 outweighs all others")


def test_the_forms_of_a_file_in_metres_are_compared_in_millimetres(case: Case) -> None:
    """A qform 0.05 mm off is 0.00005 in the file and no conflict; 0.5 mm is 0.0005 there and one."""
    for off_mm, expected in ((0.05, []), (0.5, ["form-conflict"])):
        for path in (*case.image, case.label, *([case.mask] if case.mask else [])):
            old = nib.load(path)
            in_metres = int(old.header["xyzt_units"]) == 1
            affine = old.affine if in_metres else np.diag([0.001, 0.001, 0.001, 1.0]) @ old.affine
            image = nib.Nifti1Image(np.asarray(old.dataobj), affine)
            image.set_sform(affine, 1)
            moved = affine.copy()
            moved[0, 3] += off_mm / 1000
            image.set_qform(moved, 1)
            image.header["xyzt_units"] = 1
            image.to_filename(path)
        assert sorted({fault.check for fault in faults_of(case)}) == expected


def test_a_constant_channel(case: Case) -> None:
    save(case.image[1], np.full(SHAPE, 7, np.float32))
    (fault,) = faults_of(case)
    assert (fault.check, fault.severity, fault.file) == ("constant-channel", "error", str(case.image[1]))


def test_whole_numbers_stored_as_floats_are_labels(case: Case) -> None:
    assert faults_of(with_label(case, lambda label: label, np.float32)) == []


@pytest.mark.parametrize("bad", [0.5, 1.0001, np.nan])
def test_label_values_that_are_not_whole(case: Case, bad: float) -> None:
    (fault,) = faults_of(with_label(case, put(bad), np.float64))
    assert (fault.check, fault.severity) == ("label-not-whole", "error")
    assert fault.message.startswith("not whole numbers in 1 label voxel (")


def test_label_values_outside_the_declared_set(case: Case) -> None:
    (fault,) = faults_of(with_label(case, put(9)))
    assert fault.check == "label-undeclared"
    assert "9 (1 voxel); expected 0, 1, 2; correct it, or name it too: --structure NAME=9" in fault.message
    assert faults_of(case, None) == []  # nothing was declared: 9 is a structure


def test_a_value_in_place_of_a_declared_one_is_asked_about(case: Case) -> None:
    """The map holds 1 and 2; of a declaration of 2 and 3, the third is absent and the first unknown."""
    (fault,) = faults_of(case, {2: "ventricle", 3: "lesion"})
    assert fault.message.endswith("expected 0, 2, 3; is it --structure lesion=1?")


def test_negative_label_values_are_never_declared(case: Case) -> None:
    (fault,) = faults_of(with_label(case, put(-1), np.int16), None)
    assert fault.check == "label-undeclared"
    assert "--structure" not in fault.message  # which would not help


def test_an_image_in_the_labels_place(case: Case) -> None:
    noise = np.random.default_rng(0).permutation(np.prod(SHAPE)).reshape(SHAPE)
    fault = faults_of(with_label(case, lambda label: noise.astype(np.int16)), None)[0]
    assert fault.check == "label-undeclared"
    assert "is it an image?" in fault.message


def test_a_case_without_foreground_is_a_warning(case: Case) -> None:
    (fault,) = faults_of(with_label(case, np.zeros_like))
    assert (fault.check, fault.severity) == ("empty-label", "warning")


def test_a_label_in_the_empty_surround(case: Case) -> None:
    found = faults_of(with_label(case, put(1, 0, slice(None), 0)))  # 7 voxels on a face, 3 within: 7 of 10
    assert [(fault.check, fault.severity) for fault in found] == [("label-outside", "warning")]
    assert found[0].message.startswith("7 of 10")


def test_a_mask_on_another_grid_and_an_empty_one(case: Case) -> None:
    assert case.mask is not None
    save(case.mask, voxels(case.mask), shifted(1.0))
    assert [fault.check for fault in faults_of(case)] == ["mask-grid"]
    save(case.mask, np.zeros(SHAPE, np.uint8))
    assert [fault.check for fault in faults_of(case)] == ["empty-mask"]


def everywhere(case: Case, affine: np.ndarray) -> Case:
    for path in (*case.image, case.label, *([case.mask] if case.mask else [])):
        save(path, voxels(path), affine)
    return case


def test_a_sheared_grid(case: Case) -> None:
    sheared = np.eye(4)
    sheared[0, 1] = np.tan(np.radians(10))
    (fault,) = faults_of(everywhere(case, sheared))
    assert (fault.check, fault.severity) == ("sheared-affine", "warning")
    assert "10.0° off" in fault.message


def test_an_oblique_grid_is_not_sheared(case: Case) -> None:
    turn = np.radians(25)
    oblique = np.eye(4)
    oblique[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    assert faults_of(everywhere(case, oblique @ np.diag([0.5, 2.0, 3.0, 1.0]))) == []


@pytest.mark.parametrize(
    ("codes", "expected"), [((1, 1), ["form-conflict"]), ((1, 0), []), ((2, 1), ["form-conflict"])]
)
def test_sform_and_qform_that_disagree(case: Case, codes: tuple[int, int], expected: list[str]) -> None:
    image = nib.Nifti1Image(voxels(case.image[0]), np.eye(4))
    image.header.set_sform(np.eye(4), code=codes[0])
    image.header.set_qform(shifted(4.0), code=codes[1])
    image.to_filename(case.image[0])
    found = faults_of(case)
    assert [fault.check for fault in found] == expected
    assert all("4 mm apart" in fault.message for fault in found)


@pytest.mark.parametrize("edge", [0.001, 1000.0])
def test_units_that_cannot_be(case: Case, edge: float) -> None:
    found = faults_of(everywhere(case, np.diag([edge] * 3 + [1.0])))
    assert [fault.check for fault in found] == ["implausible-spacing"]


def test_a_singular_affine(case: Case) -> None:
    header = nib.load(case.image[0]).header
    header["srow_x"] = header["srow_y"]
    nib.Nifti1Image(voxels(case.image[0]), None, header).to_filename(case.image[0])
    assert [fault.check for fault in faults_of(case)] == ["singular-affine"]


def test_several_faults_of_one_case_come_together(case: Case) -> None:
    save(case.image[0], np.zeros(SHAPE, np.float32))
    save(case.image[1], put(np.nan)(voxels(case.image[1])))
    found = faults_of(with_label(case, put(9)))
    assert {fault.check for fault in found} == {"constant-channel", "not-finite", "label-undeclared"}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint16, np.float32, np.float64])
def test_counting_agrees_with_numpy(dtype: type) -> None:
    array = np.random.default_rng(0).integers(0, 90, 500).astype(dtype)
    values, counts = np.unique(array, return_counts=True)
    assert count_values(array) == dict(zip(values.astype(int).tolist(), counts.tolist(), strict=True))
    big = np.array([-3, 70000, 70000], np.int32)
    assert count_values(big) == {-3: 1, 70000: 2}
