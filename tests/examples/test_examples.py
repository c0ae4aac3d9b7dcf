"""The examples run and show what they say, on what they make and on files."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import pytest

from tests import forked

FOLDER = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(file.name for file in FOLDER.glob("*.py"))


def said(script: str, *files: Path, cwd: Path) -> str:
    """What an example prints."""
    done = forked.run([str(FOLDER / script), *map(str, files)], cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_of_a_case(task_dir: Path) -> tuple[Path, Path]:
    """An image and its label map."""
    return task_dir / "imagesTr/case_00.nii.gz", task_dir / "labelsTr/case_00.nii.gz"


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_fits_on_a_page(script: str) -> None:
    assert len((FOLDER / script).read_text(encoding="utf-8").splitlines()) <= 60


def test_generalised_dice_finds_what_cross_entropy_leaves_out(tmp_path: Path) -> None:
    dice = dict(re.findall(r"(\w+Loss): ([\d.]+)", said("loss_in_your_loop.py", cwd=tmp_path)))
    assert float(dice["GeneralizedDiceLoss"]) > 0.5 > float(dice["CrossEntropyLoss"])


def test_a_loss_on_a_scan_from_disk(task_dir: Path, tmp_path: Path) -> None:
    assert said("loss_in_your_loop.py", *files_of_a_case(task_dir), cwd=tmp_path).count("Loss: ") == 2


def test_tiles_give_what_one_pass_gives(tmp_path: Path) -> None:
    text = said("dense_inference.py", cwd=tmp_path)
    assert "in 1 tile\n" in text
    tiles, difference = re.findall(r"in (\d+) tiles: differs by ([\d.e-]+)", text)[0]
    assert int(tiles) > 1
    assert float(difference) < 1e-3  # rounding of float32, 2⁻²⁴, through 20 layers of sums over some hundred products


def test_the_labels_of_a_scan_from_disk_lie_on_its_grid(task_dir: Path, tmp_path: Path) -> None:
    scan, _ = files_of_a_case(task_dir)
    said("dense_inference.py", scan, cwd=tmp_path)
    written, given = nib.load(tmp_path / "labels.nii.gz"), nib.load(scan)
    assert written.shape == given.shape
    assert (written.affine == given.affine).all()


def test_every_patch_holds_foreground(task_dir: Path, tmp_path: Path) -> None:
    text = said("patches_in_monai.py", cwd=tmp_path)
    shares = {name: int(share) for name, share in re.findall(r"(\w+): (\d+)%", text)}
    assert shares["RandForegroundPatchd"] == 100 > shares["RandSpatialCropd"]


def test_patches_of_a_scan_from_disk(task_dir: Path, tmp_path: Path) -> None:
    text = said("patches_in_monai.py", *files_of_a_case(task_dir), cwd=tmp_path)
    assert "RandForegroundPatchd: 100%" in text
