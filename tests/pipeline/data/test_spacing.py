"""Voxel edges of a dataset, and scans that are unlike them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.spacing import seen_spacing, unlike_spacing
from rarevox.pipeline.inference.predict import predict


def _dataset(folder: Path, *rows: tuple[str, list[float]]) -> Path:
    per_case = [{"orientation": axes, "size": [9, 9, 9], "spacing_mm": edges} for axes, edges in rows]
    (folder / "fingerprint.json").write_text(json.dumps({"per_case": per_case}))
    return folder / "dataset.json"


def test_edges_are_those_along_the_body_s_axes(tmp_path: Path) -> None:
    file = _dataset(tmp_path, ("RAS", [1.0, 1.0, 3.0]), ("SLA", [2.0, 0.9, 1.2]))
    assert seen_spacing(file) == [[0.9, 1.0], [1.0, 1.2], [2.0, 3.0]]
    (tmp_path / "fingerprint.json").unlink()
    assert seen_spacing(file) is None


def test_a_factor_of_two_on_any_axis_is_told_whatever_the_order_of_the_axes() -> None:
    seen = [[1.0, 1.0], [1.0, 1.0], [2.0, 3.0]]
    assert not unlike_spacing(np.diag([0.5, 2.0, 6.0, 1.0]), seen)
    assert "its voxels are 0.49 × 1 × 2 mm" in unlike_spacing(np.diag([0.49, 1.0, 2.0, 1.0]), seen)
    assert unlike_spacing(np.diag([1.0, 1.0, 6.1, 1.0]), seen)
    turned = np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])  # the file's first axis runs up
    assert not unlike_spacing(turned, seen)


def test_across_the_slices_of_a_network_on_slices_it_does_not_count() -> None:
    seen = [[1.0, 1.0]] * 3
    assert not unlike_spacing(np.diag([1.0, 1.0, 9.0, 1.0]), seen, slices=True)
    assert unlike_spacing(np.diag([1.0, 3.0, 9.0, 1.0]), seen, slices=True)


def test_the_row_of_a_prediction_tells_it(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    image = nib.load(Dataset.load(dataset_dir).section("train")[0]["image"])
    nib.save(image, tmp_path / "like.nii.gz")
    nib.save(image.slicer[:, :, 4:5], tmp_path / "slice.nii.gz")
    nib.Nifti1Image(np.asarray(image.dataobj), np.diag([1.0, 1.0, 6.5, 1.0])).to_filename(tmp_path / "unlike.nii.gz")
    scans = [tmp_path / f"{name}.nii.gz" for name in ("like", "unlike", "slice")]
    assert predict(run_dir, scans, tmp_path / "out", device="cpu") == 0
    rows = {row["case"]: row for row in json.loads((tmp_path / "out" / "predictions.json").read_text())["scans"]}
    assert "warning" not in rows["like"]
    assert rows["slice"]["warning"].startswith("the scan has one slice (")
    assert rows["unlike"]["warning"].startswith(
        "its voxels are 1 × 1 × 6.5 mm (R, A, S) and those of the training 1 × 1"
    )
    resampled = predict(
        run_dir,
        [tmp_path / "unlike.nii.gz"],
        tmp_path / "resampled",
        device="cpu",
        settings=["spacing=[1.0, 1.0, 1.5]"],
    )
    assert resampled == 0
    (row,) = json.loads((tmp_path / "resampled" / "predictions.json").read_text())["scans"]
    assert "warning" not in row
