"""A run evaluated on a dataset: what is written, and what reaches the model card."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline import locks
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.evaluation.own_figures import update_bundle
from rarevox.pipeline.inference.segment import Segmenter


def test_evaluation_writes_what_the_contract_says(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evaluation"
    assert evaluate(run_dir, dataset_dir, output=folder, device="cpu") == 0
    result = json.loads((folder / "metrics.json").read_text())
    assert set(result["structures"]) == {"ball", "box"}
    for figures in result["structures"].values():
        assert {"mean", "std", "median", "iqr", "ci95", "n"} <= set(figures["dice"])
        assert figures["dice"]["n"] == 2
    assert result["mean_dice"] == pytest.approx(np.mean([f["dice"]["mean"] for f in result["structures"].values()]))
    assert result["context"]["fingerprint"] == Dataset.load(dataset_dir).fingerprint
    assert len(list((folder / "predictions").glob("*_seg.nii.gz"))) == 2
    html = (folder / "report.html").read_text()
    for case in Dataset.load(dataset_dir).section("test"):
        assert case["case"] in html
        labels = np.asarray(nib.load(folder / "predictions" / f"{case['case']}_seg.nii.gz").dataobj)
        reference = np.asarray(nib.load(case["label"]).dataobj)
        row = next(r for r in result["cases"] if r["case"] == case["case"] and r["structure"] == "ball")
        both = ((labels == 1) & (reference == 1)).sum()
        assert row["dice"] == pytest.approx(2 * both / ((labels == 1).sum() + (reference == 1).sum()))


def test_the_model_card_and_metadata_tell_the_scores(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    assert evaluate(run, dataset_dir, device="cpu") == 0
    means = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())["structures"]
    metadata = json.loads((run / "configs" / "metadata.json").read_text())
    assert metadata["eval_metrics"]["dice_ball"] == pytest.approx(means["ball"]["dice"]["mean"])
    card = (run / "docs" / "README.md").read_text()
    assert f"| ball | {means['ball']['dice']['mean']:.3f} |" in card
    assert f"Section `test` of {Dataset.load(dataset_dir).name}, held out of training (2 cases):" in card


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("train.yaml", "[1, 2"),
        ("train.yaml", "network_def: 3"),
        ("train.yaml", "{patch_size: 4, network_def: {}, loss: {}}"),
        ("metadata.json", "[]"),
        ("metadata.json", '{"data_source": 3}'),
    ],
)
def test_what_the_model_card_is_made_from_may_be_wrong(
    file: str, text: str, run_dir: Path, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told, and the evaluation stands."""
    (run := tmp_path / "run").mkdir()
    (run / "configs").mkdir()
    (run / "configs" / "metadata.json").write_text((run_dir / "configs" / "metadata.json").read_text())
    (run / "configs" / file).write_text(text)
    update_bundle(run, Dataset.load(dataset_dir), {"structures": {}, "conventions": {}})
    said = " ".join(capsys.readouterr().err.split())
    assert "the model card is left as it is" in said and "is not what rarevox train wrote" in said
    assert not (run / "docs").exists()


def test_another_dataset_does_not_reach_the_model_card(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    """The card says on what the run was trained."""
    run, other = tmp_path / "run", tmp_path / "dataset"
    shutil.copytree(run_dir, run)
    shutil.copytree(dataset_dir, other)
    data = json.loads((dataset_dir / "dataset.json").read_text())
    data |= {"name": "Elsewhere", "fingerprint": "0" * len(data["fingerprint"])}
    data["root"] = os.path.relpath((dataset_dir / data["root"]).resolve(), other)
    (other / "dataset.json").write_text(json.dumps(data))
    before = [(run / name).read_text() for name in ("docs/README.md", "configs/metadata.json")]
    assert evaluate(run, other, device="cpu") == 0
    assert (run / "evaluation" / "test_Elsewhere" / "metrics.json").is_file()
    assert [(run / name).read_text() for name in ("docs/README.md", "configs/metadata.json")] == before


def test_a_held_out_case_that_cannot_be_read_counts_as_a_failure(
    run_dir: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    data = json.loads((dataset_dir / "dataset.json").read_text())
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"not a scan")
    data["test"][0]["image"] = os.path.relpath(broken, data["root"])
    other = tmp_path / "dataset"
    other.mkdir()
    (other / "dataset.json").write_text(json.dumps(data))
    assert evaluate(run_dir, other, output=tmp_path / "out", device="cpu") == 1
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert result["structures"]["ball"]["n_failed"] == 1
    assert result["structures"]["ball"]["dice"]["n"] == 2


def _with_test_case(dataset_dir: Path, folder: Path, **changes: str) -> Path:
    """The dataset with files of its first held-out case changed."""
    data = json.loads((dataset_dir / "dataset.json").read_text())
    data["test"][0] |= {key: os.path.relpath(value, data["root"]) for key, value in changes.items()}
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize(
    ("shift_mm", "value", "dtype", "says"),
    [
        (0.0, 7, np.uint8, "holds the undeclared label 7"),
        (0.0, 0.5, np.float32, "not whole numbers"),
        (5.0, 1, np.uint8, "scan and reference are on different grids"),
    ],
)
def test_a_reference_that_is_no_label_map_of_the_scan_fails(
    shift_mm: float, value: float, dtype: type, says: str, run_dir: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    """It may have changed since `prepare`; taken as it is, each would be a figure that means nothing."""
    label = nib.load(Dataset.load(dataset_dir).section("test")[0]["label"])
    labels, affine = np.zeros(label.shape, dtype), label.affine.copy()
    labels[4:8, 4:8, 4:8] = value
    affine[0, 3] += shift_mm
    nib.Nifti1Image(labels, affine).to_filename(tmp_path / "changed.nii.gz")
    other = _with_test_case(dataset_dir, tmp_path / "dataset", label=str(tmp_path / "changed.nii.gz"))
    assert evaluate(run_dir, other, output=tmp_path / "out", device="cpu") == 1
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [says in one["reason"] for one in result["failed"]] == [True]


def test_what_is_odd_about_a_scan_stands_in_its_rows(
    run_dir: Path, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = nib.load(Dataset.load(dataset_dir).section("test")[0]["image"])
    nib.Nifti1Image(np.full(scan.shape, 7.0, np.float32), scan.affine).to_filename(tmp_path / "constant.nii.gz")
    other = _with_test_case(dataset_dir, tmp_path / "dataset", image=str(tmp_path / "constant.nii.gz"))
    evaluate(run_dir, other, output=tmp_path / "out", device="cpu")
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    ((case, warning),) = [(one["case"], one["warning"]) for one in result["warnings"]]
    assert "every voxel is 7" in warning
    assert {row["case"] for row in result["cases"] if row.get("warning") == warning} == {case}
    assert "every voxel is 7" in (tmp_path / "out" / "cases.csv").read_text()
    assert "every voxel is 7" in (tmp_path / "out" / "report.html").read_text()
    assert "every voxel is 7" in " ".join(capsys.readouterr().err.split())


def test_a_run_answers_only_for_its_own_structures(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    data = json.loads((dataset_dir / "dataset.json").read_text())
    data["labels"] = {"background": 0, "ball": 1, "cube": 2}
    (tmp_path / "dataset.json").write_text(json.dumps(data))
    with pytest.raises(RequestError, match="was trained for structures"):
        evaluate(run_dir, tmp_path, output=tmp_path / "out", device="cpu")
    with pytest.raises(RequestError, match="no section 'tset'"):
        evaluate(run_dir, dataset_dir, section="tset", output=tmp_path / "out", device="cpu")


def test_an_evaluation_keeps_no_label_map_of_a_case_that_now_fails(
    run_dir: Path,
    dataset_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(run_dir, dataset_dir, output=tmp_path / "out", device="cpu") == 0
    said = capsys.readouterr().err
    assert "scored with operating points none; post-processing none; temperature 1" in said
    assert "replaced" not in said
    kept = sorted(path.name for path in (tmp_path / "out" / "predictions").iterdir())
    first, read = Dataset.load(dataset_dir).section("test")[0]["case"], Segmenter.read

    def torn(self: Segmenter, item: dict) -> dict:
        if item["case"] == first:
            raise ValueError("torn")
        return read(self, item)

    monkeypatch.setattr(Segmenter, "read", torn)
    assert evaluate(run_dir, dataset_dir, output=tmp_path / "out", device="cpu") == 1
    left = sorted(path.name for path in (tmp_path / "out" / "predictions").iterdir())
    assert left == [name for name in kept if not name.startswith(first)]
    told = r"out holds an evaluation of .* \(mean Dice 0\.\d{3} over 2 cases, .*\), which is replaced"
    assert re.search(told, capsys.readouterr().err)


def test_an_inferer_without_probabilities_is_evaluated_without_calibration(
    run_dir: Path, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    windows = "inferer={_target_: SlidingWindowInferer, roi_size: [16, 16, 16], sw_batch_size: 2}"
    assert evaluate(run_dir, dataset_dir, output=tmp_path / "out", device="cpu", settings=[windows]) == 0
    assert "no calibration" in capsys.readouterr().err
    assert "calibration" not in json.loads((tmp_path / "out" / "metrics.json").read_text())


def test_the_background_is_evaluated_where_it_is_asked_for(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    asked = ["metric_options#include_background=true", "calibration=false"]
    assert evaluate(run_dir, dataset_dir, output=tmp_path / "out", device="cpu", settings=asked) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(found["structures"]) == found["conventions"]["mean_over"] == ["background", "ball", "box"]


def test_a_folder_that_another_call_writes_into_is_refused(
    run_dir: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.0)
    with locks.held(tmp_path), pytest.raises(RequestError, match="another call is writing into"):
        evaluate(run_dir, dataset_dir, output=tmp_path, device="cpu")


def test_a_map_that_cannot_be_written_is_a_failed_case(
    run_dir: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, first = nib.save, [True]

    def save(volume: nib.Nifti1Image, path: Path) -> None:
        if first and first.pop():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(volume, path)

    monkeypatch.setattr(nib, "save", save)
    assert evaluate(run_dir, dataset_dir, output=tmp_path / "out", device="cpu") == 1
    rows = json.loads((tmp_path / "out" / "metrics.json").read_text())["cases"]
    assert sorted(row["status"] for row in rows) == ["failed", "failed", "ok", "ok"]  # two structures a case
    assert any("No space left" in str(row) for row in rows)
