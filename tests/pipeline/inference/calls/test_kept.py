"""Label maps of an earlier call: kept only where this call would write the same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.predict import predict


@pytest.fixture(scope="module")
def scans(task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for number, name in enumerate("ab"):
        shutil.copy(task_dir / "imagesTr" / f"case_{number:02}.nii.gz", folder / f"{name}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def predictions(run_dir: Path, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "predictions"
    assert predict(run_dir, [scans], folder, device="cpu") == 0
    return folder


def _times(folder: Path) -> dict[str, int]:
    return {path.name[0]: path.stat().st_mtime_ns for path in folder.glob("*_seg.nii.gz")}


def _again(run: Path, scans: Path, folder: Path, **options: object) -> set[str]:
    """The cases whose maps a call that keeps what is there wrote anew."""
    before = _times(folder)
    assert predict(run, [scans], folder, device="cpu", overwrite=False, **options) == 0
    after = _times(folder)
    return {case for case in after if after[case] != before.get(case)}


def test_maps_that_are_written_anew_are_told_with_the_run_that_made_them(
    run_dir: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, other = tmp_path / "out", Path(shutil.copytree(run_dir, tmp_path / "other"))
    said = []
    for run in (other, run_dir):
        assert predict(run, [scans], folder, device="cpu") == 0
        said.append(" ".join(capsys.readouterr().err.split()))
    assert "replaced" not in said[0]
    assert f"2 label maps of {other} in {folder} and what was written with them are replaced" in said[1]


@pytest.mark.parametrize("change", ["place", "content"])
def test_another_file_of_the_same_name_is_segmented(change: str, run_dir: Path, scans: Path, tmp_path: Path) -> None:
    first, folder = tmp_path / "first", tmp_path / "out"
    shutil.copytree(scans, first)
    assert predict(run_dir, [first], folder, device="cpu") == 0
    assert _again(run_dir, first, folder) == set()
    if change == "place":
        shutil.copytree(first, tmp_path / "second")
        assert _again(run_dir, tmp_path / "second", folder) == {"a", "b"}
        return
    shutil.copy(scans / "b.nii.gz", first / "a.nii.gz")
    assert _again(run_dir, first, folder) == {"a"}
    assert _again(run_dir, first, folder) == set()
    maps = [nib.load(folder / f"{case}_seg.nii.gz").dataobj for case in "ab"]
    assert np.array_equal(*maps)


def test_other_settings_and_a_run_that_has_changed_are_refused(
    run_dir: Path, scans: Path, predictions: Path, tmp_path: Path
) -> None:
    folder, run = tmp_path / "again", tmp_path / "run"
    shutil.copytree(predictions, folder)
    with pytest.raises(
        RequestError, match=r"were made with --set none, now post_processing=\{ball: \{largest: true\}\}"
    ):
        predict(
            run_dir,
            [scans],
            folder,
            device="cpu",
            overwrite=False,
            settings=["post_processing={ball: {largest: true}}"],
        )
    shutil.copytree(run_dir, run)
    assert predict(run, [scans], folder, device="cpu", settings=["inferer#flips=[0]"]) == 0
    assert _again(run, scans, folder, settings=["inferer#flips=[0]"]) == set()
    with (run / "configs" / "inference.yaml").open("a") as file:
        file.write("# chosen anew\n")
    with pytest.raises(RequestError, match=r"configs/inference.yaml or models/model.pt or .* of the run has changed"):
        predict(run, [scans], folder, device="cpu", overwrite=False, settings=["inferer#flips=[0]"])


def test_other_outputs_are_written_anew_and_what_is_not_asked_for_stands(
    run_dir: Path, scans: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(predictions, folder)
    assert _again(run_dir, scans, folder, previews=True) == {"a", "b"}
    assert "2 of 2 scans segmented; label maps, previews, predictions.json" in _said(capsys)
    assert _again(run_dir, scans, folder) == set()
    assert "2 of 2 scans segmented: 0 by this call, 2 by earlier calls; " in _said(capsys)
    assert (folder / "a_preview.jpg").is_file(), "what stands keeps its files"
    assert _again(run_dir, scans, folder, lesions=True) == {"a", "b"}, "tables are outputs, though no file of a scan"
    assert "lesions.csv and structures.csv are in" in _said(capsys)
    assert not (folder / "a_preview.jpg").exists(), "what is done anew is what is asked for"
    assert _again(run_dir, scans, folder, lesions=True) == set()
    assert _again(run_dir, scans, folder, probabilities="uint8") == {"a", "b"}
    (folder / "a_prob_ball.nii.gz").unlink()
    assert _again(run_dir, scans, folder, probabilities="uint8") == {"a"}
    assert "2 of 2 scans segmented: 1 by this call, 1 by earlier calls; " in _said(capsys)
    assert _again(run_dir, scans, folder, probabilities="uint16") == {"a", "b"}, "in files of the same names"


def _said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_another_mask_is_another_scan(run_dir: Path, scans: Path, tmp_path: Path) -> None:
    masks, folder = tmp_path / "masks", tmp_path / "out"
    masks.mkdir()
    scan = nib.load(scans / "a.nii.gz")
    for fill in (1, 2):
        nib.save(nib.Nifti1Image(np.full(scan.shape, fill, np.uint8), scan.affine), masks / "a_mask.nii.gz")
        os.utime(masks / "a_mask.nii.gz", ns=(fill, fill))
        expected = {"a", "b"} if fill == 1 else {"a"}
        assert _again(run_dir, scans, folder, masks=masks) == expected
    assert _again(run_dir, scans, folder) == {"a"}  # now without


def test_maps_of_other_runs_or_regions_are_not_kept(
    run_dir: Path, scans: Path, predictions: Path, tmp_path: Path
) -> None:
    folder, other = tmp_path / "again", tmp_path / "other"
    shutil.copytree(predictions, folder)
    shutil.copytree(run_dir, other)
    with pytest.raises(RequestError, match=r"--keep: the label maps in .* are of .*run; give another --output"):
        predict(other, [scans], folder, device="cpu", overwrite=False)
    with pytest.raises(RequestError, match="--keep"):
        predict(run_dir, [scans], folder, device="cpu", overwrite=False, others=[other])
    scan = nib.load(scans / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(scan.shape, np.uint8), scan.affine), tmp_path / "nowhere.nii.gz")
    assert np.asarray(nib.load(folder / "a_seg.nii.gz").dataobj).any()
    for _ in range(2):  # the whole scan's map is written anew, the region's is kept
        options = {"device": "cpu", "overwrite": False, "roi": tmp_path / "nowhere.nii.gz"}
        assert predict(run_dir, [scans / "a.nii.gz"], folder, **options) == 0
        assert not np.asarray(nib.load(folder / "a_seg.nii.gz").dataobj).any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "is not what rarevox predict wrote"),
        ("{}", '"scans"'),
        ('{"scans": {"a": 1}}', '"scans"'),
        ('{"scans": [3]}', '"scans"'),
        ('{"scans": [{"status": "ok"}]}', '"case"'),
        ('{"scans": [{"case": 3, "status": "ok"}]}', '"case"'),
        ('{"scans": [{"case": "a", "status": "ok", "image": 3}]}', '"image"'),
        ('{"scans": [{"case": "a", "status": "ok", "output": [3]}]}', '"output"'),
        ('{"scans": [], "settings": 3}', '"settings"'),
        ("[" * 5000, "nested deeper"),
        ("{", "not valid JSON"),
    ],
)
@pytest.mark.parametrize("overwrite", [True, False])
def test_an_earlier_result_of_another_form_is_one_sentence(
    content: str, said: str, overwrite: bool, run_dir: Path, scans: Path, tmp_path: Path
) -> None:
    (tmp_path / "predictions.json").write_text(content)
    with pytest.raises(RequestError, match=rf"predictions\.json.*{said}|{said}.*predictions\.json"):
        predict(run_dir, [scans], tmp_path, device="cpu", overwrite=overwrite)
