"""Each file format that the documents name, found and read by each stage that takes scans, masks or label maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from rarevox.pipeline.data.datalist import find_scans, section
from rarevox.pipeline.data.formats import SUFFIXES, is_volume, stem, volumes_in
from rarevox.pipeline.evaluation.score import score
from rarevox.pipeline.evaluation.score_pairs import find_pairs
from rarevox.pipeline.inference.saving import save_labels
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.review.annotators import find_annotators, find_cases
from rarevox.pipeline.storage.keys import ContentHashes
from rarevox.transforms.reader import read_scan

AFFINE = np.array([[0.0, -2.0, 0, 10], [1.5, 0, 0, -20], [0, 0, 3.0, 5], [0, 0, 0, 1]])
VOXELS = np.arange(7 * 6 * 5, dtype=np.int16).reshape(7, 6, 5)
LABELS = (np.arange(7 * 6 * 5) % 3).astype(np.uint8).reshape(7, 6, 5)


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """By nibabel for NIfTI and MGH, by SimpleITK for the others: x and y of the affine change sign there."""
    path.parent.mkdir(exist_ok=True, parents=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(array, affine), path)
    elif path.suffix in (".hdr", ".img"):
        nib.save(nib.Nifti1Pair(array, affine), path)
    elif path.suffix in (".mgz", ".mgh"):
        nib.save(nib.MGHImage(array, affine), path)
    else:
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((affine[:3, :3] / spacing * [[-1], [-1], [1]]).reshape(-1).tolist())
        image.SetOrigin([-affine[0, 3], -affine[1, 3], affine[2, 3]])
        SimpleITK.WriteImage(image, str(path))
    return path


def prepared(folder: Path, suffix: str) -> Path:
    """What the data list of training names."""
    write(folder / "source" / "images" / f"a.b{suffix}", VOXELS)
    write(folder / "source" / "labels" / f"a.b_seg{suffix}", LABELS)
    assert prepare(folder / "source", folder / "dataset", holdout=0, folds=1) == 0
    (case,) = section(folder / "dataset", "train")
    assert np.array_equal(read_scan(case["label"]).array[0], LABELS)
    return Path(case["image"])


def predicted(folder: Path, suffix: str) -> Path:
    """What ``predict FOLDER`` takes; its label map lies on the scan's grid."""
    written = write(folder / "scans" / f"a.b{suffix}", VOXELS)
    (scan,) = find_scans(written.parent)
    assert scan["case"] == "a.b"
    saved, _ = save_labels(LABELS, scan["image"], scan["case"], folder / "out")
    assert saved.name == "a.b_seg.nii.gz"
    assert np.allclose(nib.load(saved).affine, AFFINE, rtol=1e-5)  # some headers hold float32
    return Path(scan["image"])


def masked(folder: Path, suffix: str) -> Path:
    """What ``--masks FOLDER`` finds for a scan."""
    write(folder / "masks" / "deep" / f"a.b_mask{suffix}", VOXELS)
    scan = write(folder / "a.b.nii.gz", VOXELS)
    return Path(find_scans(scan, masks=folder / "masks")[0]["mask"])


def scored(folder: Path, suffix: str) -> Path:
    """What ``score`` pairs by name: a label map against itself."""
    write(folder / "predictions" / f"a.b_seg{suffix}", VOXELS)
    write(folder / "references" / f"a.b{suffix}", VOXELS)
    assert score(folder / "predictions", folder / "references", structures={"all": tuple(range(1, VOXELS.size))}) == 0
    ((found, _),) = find_pairs(folder / "predictions", folder / "references").matched.values()
    assert found is not None
    return found


def annotated(folder: Path, suffix: str) -> Path:
    """What ``agreement`` finds in the folders of two annotators."""
    for name in ("one", "two"):
        write(folder / "all" / name / f"a.b{suffix}", VOXELS)
    return find_cases(find_annotators([folder / "all"])).cases["a.b"]["two"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("stage", [prepared, predicted, masked, scored, annotated])
def test_every_stage_finds_every_format(stage: Callable[[Path, str], Path], suffix: str, tmp_path: Path) -> None:
    found = stage(tmp_path, suffix)
    assert found.name.endswith(suffix)
    scan = read_scan(found)
    assert np.array_equal(scan.array[0], VOXELS)
    assert np.allclose(scan.affine, AFFINE, rtol=1e-5)


def test_the_files_of_a_pair_are_one_scan_and_either_names_it(tmp_path: Path) -> None:
    header = write(tmp_path / "case.hdr", VOXELS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case.hdr", "case.img"]
    assert list(volumes_in(tmp_path)) == [header]
    assert find_scans(header.with_suffix(".img"))[0]["case"] == stem(header) == "case"
    assert np.array_equal(read_scan(header.with_suffix(".img")).array[0], VOXELS)


@pytest.mark.parametrize("suffix", [".hdr", ".mhd", ".nhdr"])
def test_voxels_in_a_file_of_their_own_count_in_the_hash(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"case{suffix}", VOXELS)
    before = ContentHashes(tmp_path / "notes").of(path)
    write(path, VOXELS + 1)
    assert ContentHashes(tmp_path / "notes").of(path) != before


def test_names(tmp_path: Path) -> None:
    assert [stem(f"A.1{suffix.upper()}") for suffix in SUFFIXES] == ["A.1"] * len(SUFFIXES)
    assert not any(is_volume(Path(name)) for name in ("._a.nii.gz", "a.txt", "a.gz", "a.img", "nii"))
