"""2D networks from training to label maps through the ordinary commands."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.training.train import train
from tests import forked

QUICK = ["epoch_length=5", "batch_size=4", "validation_cases=1"]


@pytest.fixture(scope="module")
def slice_run(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HighResNet on slices of the ball and box, trained for a few steps."""
    folder = tmp_path_factory.mktemp("slices") / "run"
    settings = [*QUICK, "network_def#network#width=4", "patch_size=[16,16]", "batch_size=16", "optimizer#lr=0.01"]
    assert train(dataset_dir, folder, network="highresnet2d", settings=settings, iterations=60, device="cpu") == 0
    return folder


def test_it_learns_and_is_scored_on_volumes(slice_run: Path, dataset_dir: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((slice_run / "configs" / "train.yaml").read_text())
    assert config["patch_size"] == [16, 16, 1]
    assert evaluate(slice_run, dataset_dir, output=tmp_path / "out", device="cpu") == 0
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert result["structures"]["ball"]["dice"]["mean"] > 0.6  # the ball is 8 standard deviations brighter


def test_labels_lie_on_the_scan_s_grid_and_the_bundle_gives_the_same(
    slice_run: Path, task_dir: Path, tmp_path: Path
) -> None:
    """Spacing is 1.5 mm along z, so slices are axial; with the axes permuted in the file they are the same slices."""
    volume = nib.load(task_dir / "imagesTr" / "case_00.nii.gz")
    scans = tmp_path / "scans"
    scans.mkdir()
    nib.save(volume, scans / "plain.nii.gz")
    turned = nib.Nifti1Image(np.asarray(volume.dataobj).transpose(2, 0, 1), volume.affine[:, [2, 0, 1, 3]])
    nib.save(turned, scans / "turned.nii.gz")
    assert predict(slice_run, [scans], tmp_path / "out", device="cpu") == 0
    plain, permuted = (np.asarray(nib.load(tmp_path / "out" / f"{n}_seg.nii.gz").dataobj) for n in ("plain", "turned"))
    assert plain.shape == volume.shape
    assert plain.any()
    assert np.array_equal(plain.transpose(2, 0, 1), permuted)
    command = ["-m", "monai.bundle", "run", "--config_file", "configs/inference.yaml"]
    command += ["--dataset_dir", str(scans), "--output_dir", str(tmp_path / "bundle"), "--device#name", "cpu"]
    done = forked.run(command, cwd=slice_run)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(plain, nib.load(tmp_path / "bundle" / "plain_seg.nii.gz").dataobj)


@pytest.mark.parametrize(
    ("network", "patch", "small", "effective"),
    [
        ("unet2d", 56, ["network_def#network#width=4"], 16),
        ("twopathcnn2d", 51, ["network_def#network#local_features=2", "network_def#network#global_features=2"], 19),
        ("deepmedic2d", 51, ["network_def#network#channels=[4,4,4,4,4,4,4,4]", "network_def#network#joint=[8,8]"], 3),
        ("highresnet2d", 51, ["network_def#network#width=4", "loss_margin=18"], 15),
    ],
)
def test_the_paper_s_smallest_patches_train(
    dataset_dir: Path, tmp_path: Path, network: str, patch: int, small: list[str], effective: int
) -> None:
    settings = [*QUICK, *small, f"patch_size=[{patch},{patch},1]", "slice_axis=coronal"]
    assert train(dataset_dir, tmp_path / "run", network=network, settings=settings, iterations=2, device="cpu") == 0
    drawn = json.loads((tmp_path / "run" / "logs" / "patches.json").read_text())
    assert drawn["effective_size"] == [effective, effective, 1]
    assert drawn["without_foreground"] == 0


@pytest.mark.usefixtures("counted_clock")
def test_the_patch_is_fitted_and_timed_like_any_other(dataset_dir: Path, tmp_path: Path) -> None:
    """Volumes of 22×20×18: no slice is larger than 24×20."""
    settings = ["network_def#network#width=4", "validation_cases=1", "epoch_length=5"]
    assert train(dataset_dir, tmp_path / "run", network="highresnet2d", settings=settings, minutes=0.05) == 0
    config = yaml.safe_load((tmp_path / "run" / "configs" / "train.yaml").read_text())
    assert config["patch_size"][2] == 1
    assert all(n <= 24 for n in config["patch_size"])


@pytest.mark.parametrize(("plane", "expected"), [("axial", [0]), ("coronal", [0]), ("sagittal", [2])])
def test_left_and_right_are_mirrored_wherever_they_lie(
    dataset_dir: Path, tmp_path: Path, plane: str, expected: list[int]
) -> None:
    """Sagittal slices have left and right across them, where the mirror of one slice is the slice."""
    settings = [*QUICK, "network_def#network#width=4", "patch_size=[16,16]", f"slice_axis={plane}", "mirror_axes=[0]"]
    assert train(dataset_dir, tmp_path / "run", network="highresnet2d", settings=settings, iterations=1) == 0
    assert yaml.safe_load((tmp_path / "run" / "configs" / "train.yaml").read_text())["mirror_axes"] == expected


def test_a_bare_2d_network_is_refused_with_the_way_to_go(dataset_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="HighResNet works on 2 axes and scans have 3.*highresnet2d"):
        settings = ["network_def#spatial_dims=2", "patch_size=[16,16]"]
        train(dataset_dir, tmp_path / "run", settings=settings, iterations=1)
    with pytest.raises(RequestError, match="slice_axis is 'oblique'"):
        train(dataset_dir, tmp_path / "run", network="unet2d", settings=["slice_axis=oblique"], iterations=1)
