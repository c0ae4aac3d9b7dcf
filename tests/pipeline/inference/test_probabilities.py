from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.inference.probabilities import ProbabilityMaps
from rarevox.pipeline.inference.segment import Segmenter


@pytest.mark.parametrize(("dtype", "step"), [("uint8", 1 / 255), ("uint16", 1 / 65535)])
def test_files_hold_the_softmax_on_the_scan_s_grid(
    run_dir: Path, task_dir: Path, tmp_path: Path, dtype: str, step: float
) -> None:
    image = task_dir / "imagesTr" / "case_01.nii.gz"  # its file runs to the left, the network's grid to the right
    out = tmp_path / "out"
    assert predict(run_dir, [image], out, device="cpu", probabilities=dtype, entropy=True) == 0
    (row,) = json.loads((out / "predictions.json").read_text())["scans"]
    assert row["probabilities"] == {"ball": "case_01_prob_ball.nii.gz", "box": "case_01_prob_box.nii.gz"}
    assert sorted(path.name for path in out.glob("*.nii.gz")) == [
        "case_01_entropy.nii.gz",
        "case_01_prob_ball.nii.gz",
        "case_01_prob_box.nii.gz",
        "case_01_seg.nii.gz",
    ]
    segmenter = Segmenter(run_dir, device="cpu")
    scan = segmenter.read({"case": "a", "image": str(image)})["image"]
    with torch.no_grad(), segmenter.inferer.precision.autocast():
        expected = segmenter.network(scan.as_tensor()[None])[0].float().softmax(0).flip(1)
    for number, name in enumerate(("ball", "box"), start=1):
        written = nib.load(out / row["probabilities"][name])
        assert written.get_data_dtype() == np.dtype(dtype)
        assert np.array_equal(written.affine, nib.load(image).affine)
        assert np.abs(written.get_fdata() - expected[number].numpy()).max() <= step / 2 + 1e-6
    before = (out / "case_01_prob_ball.nii.gz").stat().st_mtime_ns
    assert predict(run_dir, [image], out, device="cpu", probabilities=dtype, overwrite=False) == 0  # kept
    assert (out / "case_01_prob_ball.nii.gz").stat().st_mtime_ns == before
    (out / "case_01_prob_box.nii.gz").unlink()
    assert predict(run_dir, [image], out, device="cpu", probabilities=dtype, overwrite=False) == 0  # made again
    assert (out / "case_01_prob_box.nii.gz").is_file()


def test_an_ensemble_and_a_region_have_probabilities_too(run_dir: Path, task_dir: Path, tmp_path: Path) -> None:
    image = task_dir / "imagesTr" / "case_01.nii.gz"
    scan = nib.load(image)
    region = np.zeros(scan.shape, np.uint8)
    region[5:15, 5:15, 5:15] = 1
    nib.save(nib.Nifti1Image(region, scan.affine), tmp_path / "roi.nii.gz")
    for name, others in (("one", []), ("two", [run_dir])):
        options = {"probabilities": "uint16", "roi": tmp_path / "roi.nii.gz", "others": others}
        assert predict(run_dir, [image], tmp_path / name, device="cpu", **options) == 0
    one, two = (nib.load(tmp_path / n / "case_01_prob_ball.nii.gz").get_fdata() for n in ("one", "two"))
    assert one.max() > 0.1
    assert not one[region == 0].any()
    assert np.abs(one - two).max() < 1e-3


def test_scratch_is_removed_and_a_pass_begins_at_nothing(tmp_path: Path) -> None:
    maps = ProbabilityMaps(["a", "b"], "uint8", tmp_path)
    whole = (slice(0, 2), slice(0, 1), slice(0, 1))
    maps.begin((2, 1, 1))
    maps.take(torch.tensor([[0.2, 0.2], [0.6, 0.0], [0.2, 0.8]]).reshape(3, 2, 1, 1).log(), whole)
    assert [stored.ravel().tolist() for stored in maps.maps] == [[153, 0], [51, 204]]  # 255 · 0.6, 255 · 0.2, 255 · 0.8
    maps.begin((2, 1, 1))
    assert not any(stored.any() for stored in maps.maps)
    assert any(tmp_path.iterdir())
    del maps
    assert not any(tmp_path.iterdir())
    with pytest.raises(ValueError, match="uint8 or uint16, not as float32"):
        ProbabilityMaps(["a"], "float32", tmp_path)
