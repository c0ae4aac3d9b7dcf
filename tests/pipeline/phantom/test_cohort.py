"""The phantom cohort: the folder that is written and the volumes in it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from scipy import ndimage

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.phantom import cohort as phantom
from rarevox.pipeline.phantom.anatomy import Atlas
from rarevox.pipeline.phantom.cohort import LESION, VENTRICLES, write_cohort

from .conftest import SPACING_MM


@pytest.fixture(scope="module", autouse=True)
def one_atlas(atlas: Atlas) -> Iterator[None]:
    """Every cohort here has the same spacing: build its atlas once (3 s) instead of once per cohort."""

    def give(spacing_mm: float) -> Atlas:
        assert spacing_mm == SPACING_MM
        return atlas

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "build_atlas", give)
        yield


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort") / "task", subjects=6, spacing_mm=SPACING_MM, seed=3)


def read(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def cases(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images (X, Y, Z, 2) as float and label maps of a cohort."""
    for pair in json.loads((folder / "dataset.json").read_text())["training"]:
        yield read(folder / pair["image"]).astype(np.float64), read(folder / pair["label"])


def test_same_seed_same_arrays_whatever_the_count_and_the_workers(cohort: Path, tmp_path: Path) -> None:
    again = write_cohort(tmp_path / "again", subjects=2, spacing_mm=SPACING_MM, seed=3, workers=1)
    other = write_cohort(tmp_path / "other", subjects=2, spacing_mm=SPACING_MM, seed=4, workers=2)
    for (image, labels), (same_image, same_labels), (other_image, other_labels) in zip(
        cases(cohort), cases(again), cases(other), strict=False
    ):
        np.testing.assert_array_equal(image, same_image)
        np.testing.assert_array_equal(labels, same_labels)
        assert (image != other_image).any() and (labels != other_labels).any()
    first, second = (image for image, _ in cases(again))
    assert (first != second).mean() > 0.1


@pytest.mark.parametrize("index", [0, 3])
def test_without_lesions_the_same_subject_comes_out_healthy(atlas: Atlas, index: int) -> None:
    """Every voxel that no lesion reaches is the same, to the bit; the labels lack the lesions and nothing else."""
    ill = phantom.PhantomSettings(spacing_mm=SPACING_MM, lesion_share=2e-4, seed=5)
    with_lesions = phantom.make_subject(index, ill, atlas)
    without = phantom.make_subject(index, replace(ill, lesion_share=0), atlas)
    lesion = with_lesions.labels == LESION
    assert lesion.any() and not (without.labels == LESION).any()
    np.testing.assert_array_equal(without.labels, np.where(lesion, 0, with_lesions.labels))
    np.testing.assert_array_equal(without.affine, with_lesions.affine)
    changed = (without.image != with_lesions.image).any(0)
    pieces, count = ndimage.label(lesion, np.ones((3, 3, 3)))
    reached = np.zeros_like(lesion)
    for box in ndimage.find_objects(pieces, count):
        # A blob's box has twice the radius of a ball of its volume, and two voxels more, to each side of its seed.
        reach = [2 * (span.stop - span.start) + 4 for span in box]
        reached[tuple(slice(max(s.start - r, 0), s.stop + r) for s, r in zip(box, reach, strict=True))] = True
    assert not changed[~reached].any()
    assert reached.mean() < 0.5 and changed.mean() < 0.1
    brighter = with_lesions.image[1][lesion].astype(int) - without.image[1][lesion]
    assert np.mean(brighter > 0) > 0.9  # on FLAIR lesions outshine the grey matter, and these voxels are white


def test_a_cohort_without_lesions_says_so(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path / "task", subjects=1, spacing_mm=SPACING_MM, lesion_share=0)
    (_, labels), *_ = cases(folder)
    assert set(np.unique(labels)) == {0, VENTRICLES}
    assert "no lesion" in json.loads((folder / "dataset.json").read_text())["description"]


def test_the_folder_is_a_decathlon_task(cohort: Path) -> None:
    content = json.loads((cohort / "dataset.json").read_text())
    assert "SYNTHETIC" in content["description"] and content["synthetic"] is True
    assert content["modality"] == {"0": "T1", "1": "FLAIR"} and content["tensorImageSize"] == "4D"
    assert content["labels"] == {"0": "background", "1": "lesion", "2": "ventricles"}
    assert content["numTraining"] == 6 == len(content["training"]) and content["test"] == []
    assert content["phantom"]["seed"] == 3 and content["phantom"]["lesion_share"] == 1e-3
    listed = load_decathlon_datalist(cohort / "dataset.json", True, "training", base_dir=cohort)
    assert all(Path(item[key]).is_file() for item in listed for key in ("image", "label"))
    assert not [path for path in cohort.rglob("*") if ".part." in path.name]


def test_the_files_are_plain_ras_nifti(cohort: Path) -> None:
    affines = []
    for pair in json.loads((cohort / "dataset.json").read_text())["training"]:
        image, label = nibabel.load(cohort / pair["image"]), nibabel.load(cohort / pair["label"])
        assert image.shape == (56, 69, 60, 2) and label.shape == (56, 69, 60)  # 168, 208 and 180 mm over 3 mm
        assert image.get_data_dtype() == np.int16 and label.get_data_dtype() == np.uint8
        assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
        np.testing.assert_allclose(image.affine, label.affine, atol=1e-4)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
        for part in (image, label):
            assert int(part.header["sform_code"]) == 1 == int(part.header["qform_code"])
            assert part.header.get_xyzt_units()[0] == "mm"
            np.testing.assert_allclose(part.header.get_zooms()[:3], SPACING_MM)
        affines.append(image.affine)
    assert len({tuple(affine[:3, 3]) for affine in affines}) == len(affines)


def test_the_volumes_hold_a_stripped_head_and_two_structures(cohort: Path) -> None:
    for image, labels in cases(cohort):
        assert set(np.unique(labels)) == {0, LESION, VENTRICLES}
        inside = image[..., 0] > 0
        np.testing.assert_array_equal(inside, image[..., 1] > 0)
        assert inside[labels > 0].mean() == 1
        assert 1.1e6 < inside.sum() * SPACING_MM**3 < 2.6e6  # mm³
        assert 8e3 < (labels == VENTRICLES).sum() * SPACING_MM**3 < 35e3
        assert image.max() < 32767  # nothing is cut off


def test_the_same_cohort_is_left_alone_and_an_interrupted_one_is_finished(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path / "task", subjects=2, spacing_mm=SPACING_MM, seed=1)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        os.utime(path, (1, 1))
    write_cohort(folder, subjects=2, spacing_mm=SPACING_MM, seed=1)
    assert {path.stat().st_mtime for path in paths} == {1}
    (folder / "dataset.json").unlink()
    (folder / "labelsTr" / "phantom_001.nii.gz").unlink()
    write_cohort(folder, subjects=2, spacing_mm=SPACING_MM, seed=1)
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == paths
    with pytest.raises(RequestError, match="already holds"):
        write_cohort(folder, subjects=2, spacing_mm=SPACING_MM, seed=2)


def test_other_files_are_never_mixed_with(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match="already holds"):
        write_cohort(tmp_path, subjects=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(RequestError, match="is a file"):
        write_cohort(tmp_path / "notes.txt", subjects=1)


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(nibabel, "save", full)
    with pytest.raises(RequestError, match="No space left"):
        write_cohort(tmp_path / "task", subjects=1, spacing_mm=SPACING_MM)
    assert not (tmp_path / "task" / "dataset.json").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("subjects", 0),
        ("workers", 0),
        ("spacing_mm", 0.5),
        ("spacing_mm", float("nan")),
        ("lesion_share", -1e-9),
        ("lesion_share", float("nan")),
        ("lesion_share", 0.1),
        ("contrast", (0.5, 0.1)),
        ("contrast", (0.5,)),
        ("noise", -0.1),
        ("seed", -1),
        ("seed", 1.5),
    ],
)
def test_values_out_of_range_are_refused_by_name(tmp_path: Path, option: str, value: object) -> None:
    with pytest.raises(RequestError, match=f"{option} is .*give"):
        write_cohort(tmp_path / "task", **{option: value})
    assert not (tmp_path / "task").exists()


def test_no_threshold_on_flair_solves_the_task(cohort: Path) -> None:
    scores = []
    for image, labels in cases(cohort):
        flair, lesion = image[..., 1], labels == LESION
        inside = flair > 0
        z = (flair - flair[inside].mean()) / flair[inside].std()
        predicted = [(z > threshold) & inside for threshold in np.arange(0.5, 6, 0.1)]
        scores.append([2 * (p & lesion).sum() / (p.sum() + lesion.sum()) for p in predicted])
        # … though lesions are bright: brighter than most of the white and grey matter.
        assert np.median(z[lesion]) > np.quantile(z[inside], 0.9)
    assert np.mean(scores, axis=0).max() < 0.65  # the best single threshold, chosen on the answers
