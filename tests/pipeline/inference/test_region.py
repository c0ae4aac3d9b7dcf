from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, label

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.entropy import EntropyMap
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.inference.region import check_mask_grid, model_box, require_grid
from rarevox.pipeline.inference.segment import Segmenter
from tests.pipeline.inference.test_decided import Whole


@pytest.fixture(scope="module")
def scan(task_dir: Path) -> nib.Nifti1Image:
    return nib.load(task_dir / "imagesTr" / "case_01.nii.gz")


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.mark.parametrize("settings", [(), ("spacing=[1.3, 1.1, 1.7]",)])
def test_inside_are_the_labels_of_the_whole_scan_and_outside_is_background(
    run_dir: Path, task_dir: Path, scan: nib.Nifti1Image, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    """An L-shaped region: its box is computed, its missing corner is background all the same."""
    region = np.zeros(scan.shape, np.uint8)
    region[3:17, 4:16, 5:9] = 1
    region[3:17, 4:8, 5:15] = 1
    item = {"case": "a", "image": str(task_dir / "imagesTr" / "case_01.nii.gz")}
    with_region = item | {"roi": str(save(tmp_path / "roi.nii.gz", region, scan.affine))}
    segmenter = Segmenter(run_dir, device="cpu", settings=settings)
    everywhere = segmenter.segment(segmenter.read(item))
    inside = segmenter.segment(segmenter.read(with_region))
    assert everywhere[region > 0].any()
    assert not inside[region == 0].any()
    assert (inside[region > 0] == everywhere[region > 0]).mean() > 0.999  # to rounding where scores are interpolated
    if not settings:
        assert np.array_equal(inside, everywhere * (region > 0))


@pytest.mark.parametrize("more", [(), ("spacing=[1.3, 1.1, 1.7]",)])
def test_how_sure_a_component_is_says_the_region_alone(
    run_dir: Path, task_dir: Path, scan: nib.Nifti1Image, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """A voxel of a component whose peak lies beside the region, and perhaps within its box: background either way."""
    item = {"case": "a", "image": str(task_dir / "imagesTr" / "case_01.nii.gz")}
    seen, sure = Whole(), Segmenter(run_dir, device="cpu", settings=more)
    ball = sure._both(sure.read(item), seen)[0] == 1
    p = seen.p.numpy()
    components = label(ball, np.ones((3, 3, 3)))[0]
    largest = components == np.bincount(components[ball]).argmax()
    score = np.where(largest, p[1] / (p[1] + np.maximum(p[0], p[2])), 2)
    rim = np.unravel_index(score.argmin(), score.shape)
    peak = score[largest].max()
    assert peak - score[rim] > 1e-3
    low, high = 1e-6, float(peak + score[rim]) / 2
    found = {}
    for name, corners in (("alone", []), ("wide", [(0, 0, 0), tuple(n - 1 for n in scan.shape)])):
        region = np.zeros(scan.shape, np.uint8)
        for place in (rim, *corners):
            region[place] = 1
        asked = item | {"roi": str(save(tmp_path / f"{name}.nii.gz", region, scan.affine))}
        for confidence in (low, high):
            setting = f"operating_points#ball#confidence={confidence}"
            segmenter = Segmenter(run_dir, device="cpu", settings=[*more, setting])
            found[name, confidence] = segmenter.segment(segmenter.read(asked))[rim]
    assert found["alone", low] == found["wide", low] == 1
    assert found["alone", high] == found["wide", high] == 0


def test_holes_are_not_filled_outside_of_the_region(
    run_dir: Path, task_dir: Path, scan: nib.Nifti1Image, tmp_path: Path
) -> None:
    item = {"case": "a", "image": str(task_dir / "imagesTr" / "case_01.nii.gz")}
    segmenter = Segmenter(run_dir, device="cpu", settings=["post_processing={ball: {fill_holes: true}}"])
    whole = segmenter.segment(segmenter.read(item))
    hole = tuple(np.argwhere(binary_erosion(whole == 1))[0])  # its six neighbours are ball, so it would be filled
    region = np.ones(scan.shape, np.uint8)
    region[hole] = 0
    inside = segmenter.segment(segmenter.read(item | {"roi": str(save(tmp_path / "roi.nii.gz", region, scan.affine))}))
    assert np.array_equal(inside, whole * (region > 0))
    assert inside.dtype == whole.dtype


def test_only_the_box_and_its_context_are_computed(
    run_dir: Path, task_dir: Path, scan: nib.Nifti1Image, tmp_path: Path
) -> None:
    region = np.zeros(scan.shape, np.uint8)
    region[10, 10, 10] = 1
    item = {"case": "a", "image": str(task_dir / "imagesTr" / "case_01.nii.gz")}
    item["roi"] = str(save(tmp_path / "roi.nii.gz", region, scan.affine))
    segmenter = Segmenter(run_dir, device="cpu")
    asked = []
    real = segmenter.inferer.inside

    def inside(image: torch.Tensor, network: torch.nn.Module, box: list[tuple[int, int]]) -> torch.Tensor:
        asked.append(box)
        return real(image, network, box)

    segmenter.inferer.inside = inside
    segmenter.segment(segmenter.read(item))
    assert [[end - begin for begin, end in box] for box in asked] == [[1, 1, 1]]


def test_outside_the_region_nothing_is_uncertain(
    run_dir: Path, task_dir: Path, scan: nib.Nifti1Image, tmp_path: Path
) -> None:
    region = np.zeros(scan.shape, np.uint8)
    region[5:12, 5:12, 5:12] = 1
    region[5, 5, 5] = 0
    item = {"case": "a", "image": str(task_dir / "imagesTr" / "case_01.nii.gz")}
    item["roi"] = str(save(tmp_path / "roi.nii.gz", region, scan.affine))
    (found,) = Segmenter(run_dir, device="cpu")([item], lambda _: EntropyMap())
    assert found.watch.values.shape == scan.shape
    assert found.watch.values[region > 0].any()
    assert not found.watch.values[region == 0].any()


def test_an_empty_region_is_background_and_a_warning(
    run_dir: Path, task_dir: Path, scan: nib.Nifti1Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roi = save(tmp_path / "roi.nii.gz", np.zeros(scan.shape, np.uint8), scan.affine)
    image = task_dir / "imagesTr" / "case_01.nii.gz"
    assert predict(run_dir, [image], tmp_path / "out", device="cpu", roi=roi) == 0
    (row,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["scans"]
    assert "region of interest is empty" in row["warning"]
    assert row["volume_ml"] == {"ball": 0, "box": 0}
    labels = nib.load(tmp_path / "out" / "case_01_seg.nii.gz")
    assert labels.shape == scan.shape
    assert not np.asarray(labels.dataobj).any()


def test_masks_on_another_grid_fail_their_case_with_both_grids(
    run_dir: Path, task_dir: Path, scan: nib.Nifti1Image, tmp_path: Path
) -> None:
    images = [task_dir / "imagesTr" / f"case_0{n}.nii.gz" for n in (1, 2)]
    save(tmp_path / "roi" / "case_01.nii.gz", np.ones((4, 4, 4), np.uint8), np.diag([2.0, 2, 2, 1]))
    good = nib.load(images[1])
    save(tmp_path / "roi" / "case_02_mask.nii.gz", np.ones(good.shape, np.uint8), good.affine)
    assert predict(run_dir, images, tmp_path / "out", device="cpu", roi=tmp_path / "roi") == 1
    rows = {row["case"]: row for row in json.loads((tmp_path / "out" / "predictions.json").read_text())["scans"]}
    assert rows["case_02"]["status"] == "ok"
    assert "4×4×4 voxels of 2×2×2 mm" in rows["case_01"]["reason"]
    assert "22×20×18 voxels of 1×1×1.5 mm" in rows["case_01"]["reason"]
    item = {"case": "a", "image": str(images[0]), "mask": str(tmp_path / "roi" / "case_01.nii.gz")}
    (found,) = Segmenter(run_dir, device="cpu")([item])  # a mask for normalisation likewise
    assert "on another grid" in found.reason


def test_a_scan_without_a_region_is_refused_before_anything_runs(run_dir: Path, task_dir: Path, tmp_path: Path) -> None:
    save(tmp_path / "roi" / "other.nii.gz", np.ones((4, 4, 4), np.uint8), np.eye(4))
    with pytest.raises(RequestError, match="holds no mask for case_01"):
        predict(run_dir, [task_dir / "imagesTr" / "case_01.nii.gz"], tmp_path / "out", roi=tmp_path / "roi")
    with pytest.raises(RequestError, match="no masks in"):
        predict(run_dir, [task_dir / "imagesTr" / "case_01.nii.gz"], tmp_path / "out", roi=tmp_path / "nothing")


def test_grids_of_one_size_are_told_apart_by_their_axes() -> None:
    turned = np.eye(4)[[1, 0, 2, 3]]
    with pytest.raises(ValueError, match="with other axes"):
        require_grid("m", (4, 4, 4), turned, (4, 4, 4), np.eye(4))
    moved = np.eye(4)
    moved[0, 3] = 5
    with pytest.raises(ValueError, match=r"from \(5, 0, 0\) against .* from \(0, 0, 0\)"):
        require_grid("m", (4, 4, 4), moved, (4, 4, 4), np.eye(4))
    require_grid("m", (4, 4, 4), np.eye(4), (4, 4, 4), np.eye(4))


def test_the_box_on_the_network_s_grid_by_hand() -> None:
    """Scan voxels 3 and 4 of 1 mm are 1.5 and 2 on a grid of 2 mm: voxels 1 and 2 decide."""
    half = np.diag([2.0, 2.0, 2.0, 1.0])
    assert model_box((9, 9, 9), half, np.eye(4), [(3, 5), (4, 5), (0, 18)]) == [(1, 3), (2, 3), (0, 9)]
    flipped = np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[0, 3] = 8  # scan voxel x is network voxel 8 − x
    assert model_box((9, 9, 9), np.eye(4), flipped, [(2, 4), (0, 9), (0, 9)]) == [(5, 7), (0, 9), (0, 9)]
    assert model_box((9, 9, 9), np.eye(4), flipped, [(20, 22), (0, 9), (0, 9)]) is None


def test_interpolated_scores_are_the_same_slab_by_slab(run_dir: Path, task_dir: Path) -> None:
    """In one piece and plane by plane: labels and entropies of a resampled scan."""
    item = {"case": "a", "image": str(task_dir / "imagesTr" / "case_01.nii.gz")}
    segmenter = Segmenter(run_dir, device="cpu", settings=["spacing=[1.3, 1.1, 1.7]"])
    (whole,) = segmenter([item], lambda _: EntropyMap())
    segmenter.score_gb = 1e-5
    (found,) = segmenter([item], lambda _: EntropyMap())
    assert whole.labels is not None and found.labels is not None
    assert "slabs" not in (whole.notes or {})
    assert (found.notes or {})["slabs"] == 22
    assert (whole.labels == found.labels).mean() > 0.999
    assert np.abs(whole.watch.values.astype(int) - found.watch.values).max() <= 1  # bytes, to the last place


@pytest.mark.parametrize(("code", "unit"), [(1, 0.001), (3, 1000.0)])
def test_a_mask_in_another_unit_lies_where_its_scan_lies(
    code: int, unit: float, task_dir: Path, scan: nib.Nifti1Image, tmp_path: Path
) -> None:
    """The scan is in millimetres; masks in metres and micrometres are on its grid, and one in another unit is not."""
    image = str(task_dir / "imagesTr" / "case_01.nii.gz")
    mask = nib.Nifti1Image(np.ones(scan.shape, np.uint8), np.diag([unit, unit, unit, 1.0]) @ scan.affine)
    mask.header["xyzt_units"] = code
    mask.to_filename(tmp_path / "mask.nii.gz")
    check_mask_grid({"image": image, "mask": tmp_path / "mask.nii.gz"})
    mask = nib.Nifti1Image(np.ones(scan.shape, np.uint8), scan.affine)  # whose millimetres are called micrometres
    mask.header["xyzt_units"] = 3
    mask.to_filename(tmp_path / "other.nii.gz")
    with pytest.raises(ValueError, match="on another grid than the scan"):
        check_mask_grid({"image": image, "mask": tmp_path / "other.nii.gz"})
