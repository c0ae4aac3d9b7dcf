"""Figures of a dataset, by hand on small volumes; and a hash that follows the content and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.preparation.cases import Case
from rarevox.pipeline.preparation.checks.case import load_case
from rarevox.pipeline.preparation.cohort import (
    channel_count,
    duplicate_content,
    duplicate_names,
    orientation_outliers,
    rare_labels,
    spacing_outliers,
    tissue_apart,
)
from rarevox.pipeline.preparation.fingerprint import CaseFacts, data_sha256, measure, structures, summarise


def facts_of(
    folder: Path,
    image: np.ndarray,
    label: np.ndarray,
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    name: str = "c",
    suffix: str = ".nii.gz",
) -> CaseFacts:
    affine = np.diag([*spacing_mm, 1.0])
    nib.save(nib.Nifti1Image(image, affine), folder / f"{name}{suffix}")
    nib.save(nib.Nifti1Image(label, affine), folder / f"{name}_label{suffix}")
    case = Case(name, (folder / f"{name}{suffix}",), folder / f"{name}_label{suffix}")
    loaded, faults = load_case(case)
    assert loaded is not None, faults
    return measure(loaded)


@pytest.fixture
def image() -> np.ndarray:
    return np.arange(24, dtype=np.float32).reshape(4, 3, 2)


@pytest.fixture
def label() -> np.ndarray:
    label = np.zeros((4, 3, 2), np.uint8)
    label[0, 0, 0] = 1  # intensity 0
    label[3, 2, 1] = 1  # intensity 23, far from the first: two components
    label[1, 0, 0] = 4  # intensity 6
    return label


def test_the_tissue_that_all_channels_share(tmp_path: Path) -> None:
    """A head of 64 voxels in one channel, 96 in the other; a voxel of three of the label lies in the second alone."""
    images = [np.zeros((6, 6, 6), np.float32) for _ in range(2)]
    images[0][1:5, 1:5, 1:5], images[1][:, 1:5, 1:5] = 1, 2
    label = np.zeros((6, 6, 6), np.uint8)
    label[2:5, 2, 2] = 1
    label[3, 2, 2], label[5, 2, 2] = 0, 1
    paths = [tmp_path / f"{n}.nii.gz" for n in range(3)]
    for path, array in zip(paths, (*images, label), strict=True):
        nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    loaded, faults = load_case(Case("c", (paths[0], paths[1]), paths[2]))
    assert loaded is not None, faults
    facts = measure(loaded)
    assert facts.common == {"tissue": pytest.approx(64 / 96), "foreground": pytest.approx(2 / 3)}
    content = summarise([facts], ["FLAIR", "T1"], {"background": 0, "lesion": 1})
    assert content["common_tissue"]["foreground"]["min"] == pytest.approx(2 / 3)
    assert content["per_case"][0]["common"] == facts.common
    noisy = tuple({**row, "image": {**row["image"], "zero_share": 0.0}} for row in facts.channels[1:])
    others = [{"common": {"tissue": 0.86}}, {"common": {}}, {"channels": (facts.channels[0], *noisy)}]
    found = tissue_apart([facts, *(replace(facts, **other) for other in others)])
    assert [(one.check, one.severity) for one in found] == [("channel-tissue", "warning")]
    assert "33 % of the tissue in its channels is 0 in one of them; so is 33 % of the foreground" in found[0].message


def test_figures_of_a_case(tmp_path: Path, image: np.ndarray, label: np.ndarray) -> None:
    facts = facts_of(tmp_path, image, label, spacing_mm=(1.0, 2.0, 5.0))
    assert facts.size == (4, 3, 2)
    assert facts.spacing_mm == pytest.approx((1.0, 2.0, 5.0))
    assert facts.orientation == "RAS"
    # A voxel is 1 × 2 × 5 = 10 mm³ = 0.01 ml.
    assert facts.structures == {
        1: {"voxels": 2, "volume_ml": pytest.approx(0.02), "components": 2},
        4: {"voxels": 1, "volume_ml": pytest.approx(0.01), "components": 1},
    }
    assert facts.foreground_voxels == 3
    whole, inside = facts.channels[0]["image"], facts.channels[0]["foreground"]
    assert (whole["mean"], whole["min"], whole["max"], whole["p50"]) == (11.5, 0.0, 23.0, 11.5)
    assert whole["std"] == pytest.approx(np.sqrt((24**2 - 1) / 12))  # of 0 … n − 1
    assert inside["mean"] == pytest.approx((0 + 6 + 23) / 3)
    assert inside["p50"] == 6.0


def test_a_case_without_foreground_has_no_foreground_figures(tmp_path: Path, image: np.ndarray) -> None:
    facts = facts_of(tmp_path, image, np.zeros((4, 3, 2), np.uint8))
    assert facts.structures == {}
    assert "foreground" not in facts.channels[0]
    found = summarise([facts], ["T1"], {"lesion": 1})
    assert found["cases_without_foreground"] == ["c"]
    assert found["structures"]["lesion"]["cases"] == 0
    assert found["structures"]["lesion"]["imbalance"] is None


def test_diagonal_neighbours_are_one_component() -> None:
    labels = np.zeros((3, 3, 3), int)
    labels[0, 0, 0] = labels[1, 1, 1] = 2
    assert structures(labels, 1.0)[2]["components"] == 1


def test_figures_of_a_cohort(tmp_path: Path, image: np.ndarray) -> None:
    facts = []
    for name, count in (("a", 1), ("b", 2), ("c", 6)):
        label = np.zeros(24, np.uint8)
        label[:count] = 1
        facts.append(facts_of(tmp_path, image, label.reshape(4, 3, 2), name=name))
    found = summarise(facts, ["T1"], {"lesion": 1, "never": 2})
    lesion = found["structures"]["lesion"]
    assert lesion["voxels"] == {"median": 2.0, "min": 1.0, "max": 6.0}
    assert lesion["share"] == pytest.approx({"median": 2 / 24, "min": 1 / 24, "max": 6 / 24})
    assert lesion["imbalance"] == pytest.approx(12.0)  # one voxel in 12
    assert found["structures"]["never"]["cases"] == 0
    # Foreground intensities: 0; 0, 1; 0 … 5, pooled: nine values that sum to 16.
    assert found["channels"]["T1"]["foreground_pooled"]["mean"] == pytest.approx(16 / 9)
    assert found["orientations"] == {"RAS": 3}


class TestHash:
    def test_storage_does_not_matter(self, tmp_path: Path, image: np.ndarray, label: np.ndarray) -> None:
        plain = facts_of(tmp_path, image, label)
        other = facts_of(tmp_path, image.astype(np.int16), label.astype(np.float64), name="d", suffix=".nii")
        assert (plain.sha256, plain.image_sha256) == (other.sha256, other.image_sha256)

    @pytest.mark.parametrize("change", ["voxel", "label", "spacing", "shape"])
    def test_content_does(self, tmp_path: Path, image: np.ndarray, label: np.ndarray, change: str) -> None:
        before = facts_of(tmp_path, image, label)
        spacing = (1.0, 1.0, 1.0)
        if change == "voxel":
            image = image + (np.arange(24).reshape(4, 3, 2) == 7)
        elif change == "label":
            label = np.where(label == 4, 1, label).astype(np.uint8)
        elif change == "spacing":
            spacing = (1.0, 1.0, 1.01)
        else:
            image, label = image.reshape(2, 6, 2), label.reshape(2, 6, 2)
        after = facts_of(tmp_path, image.astype(np.float32), label, spacing_mm=spacing, name="d")
        assert before.sha256 != after.sha256
        assert (before.image_sha256 == after.image_sha256) == (change in ("label", "spacing"))

    def test_of_a_dataset(self, tmp_path: Path, image: np.ndarray, label: np.ndarray) -> None:
        a, b = facts_of(tmp_path, image, label, name="a"), facts_of(tmp_path, image + 1, label, name="b")
        base = data_sha256([a, b], ["T1"], {"x": 1})
        assert data_sha256([b, a], ["T1"], {"x": 1}) == base
        assert data_sha256([a], ["T1"], {"x": 1}) != base
        assert data_sha256([a, b], ["T2"], {"x": 1}) != base
        assert data_sha256([a, b], ["T1"], {"x": 2}) != base


class TestCohortChecks:
    """One fault planted among equals, and none without it."""

    @pytest.fixture
    def cohort(self, tmp_path: Path, image: np.ndarray, label: np.ndarray) -> list[CaseFacts]:
        return [facts_of(tmp_path, image + number, label, name=f"c{number:02}") for number in range(24)]

    def test_clean(self, cohort: list[CaseFacts]) -> None:
        for check in (duplicate_content, spacing_outliers, orientation_outliers, rare_labels):
            assert check(cohort) == []
        assert channel_count(cohort, 1) == channel_count(cohort, None) == []

    def test_empty_and_single(self, cohort: list[CaseFacts]) -> None:
        for facts in ([], cohort[:1]):
            for check in (duplicate_content, spacing_outliers, orientation_outliers, rare_labels):
                assert check(facts) == []
            assert channel_count(facts, None) == []

    def test_the_same_image_twice(self, cohort: list[CaseFacts], tmp_path: Path, image: np.ndarray) -> None:
        twin = facts_of(tmp_path, image + 3, np.ones((4, 3, 2), np.uint8), name="twin")
        (fault,) = duplicate_content([*cohort, twin])
        assert (fault.case, fault.check) == ("twin", "duplicate-content")
        assert "c03" in fault.message

    def test_another_spacing(
        self, cohort: list[CaseFacts], tmp_path: Path, image: np.ndarray, label: np.ndarray
    ) -> None:
        odd = facts_of(tmp_path, image, label, spacing_mm=(1.0, 1.0, 3.5), name="odd")
        assert [fault.case for fault in spacing_outliers([*cohort, odd])] == ["odd"]

    def test_another_orientation(
        self, cohort: list[CaseFacts], tmp_path: Path, image: np.ndarray, label: np.ndarray
    ) -> None:
        odd = facts_of(tmp_path, image, label, spacing_mm=(-1.0, 1.0, 1.0), name="odd")
        (fault,) = orientation_outliers([*cohort, odd])
        assert (fault.case, fault.message) == ("odd", "axes run LAS; most cases run RAS")

    def test_a_label_value_of_one_case(self, cohort: list[CaseFacts], tmp_path: Path, image: np.ndarray) -> None:
        odd = facts_of(tmp_path, image, np.full((4, 3, 2), 9, np.uint8), name="odd")
        assert [(fault.case, fault.check) for fault in rare_labels([*cohort, odd])] == [("odd", "rare-label")]

    def test_another_number_of_channels(self, cohort: list[CaseFacts], tmp_path: Path, image: np.ndarray) -> None:
        odd = facts_of(tmp_path, np.stack([image, image], -1), np.ones((4, 3, 2), np.uint8), name="odd")
        assert [fault.case for fault in channel_count([*cohort, odd], None)] == ["odd"]
        assert len(channel_count([*cohort, odd], 2)) == 24

    def test_the_same_name_twice(self) -> None:
        cases = [Case(name, (Path("i"),), Path("l")) for name in ("a", "b", "a")]
        assert [fault.case for fault in duplicate_names(cases)] == ["a", "a"]
