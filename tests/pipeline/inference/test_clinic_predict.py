"""`predict` for hospitals: series of a study chosen, DICOM objects, tables, BIDS; and nothing that says who it was."""

from __future__ import annotations

import csv
import json
import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

pydicom = pytest.importorskip("pydicom", reason="needs the extra 'dicom'")
pytest.importorskip("highdicom", reason="needs the extra 'dicom'")

from rarevox.pipeline.cli import cli, main  # noqa: E402
from rarevox.pipeline.errors import RequestError  # noqa: E402
from rarevox.pipeline.inference.predict import LINKS, predict  # noqa: E402
from tests.pipeline.dicom.series import NAME, NUMBER, OBLIQUE, write  # noqa: E402

SECRETS = [word.encode() for word in (NUMBER, NAME, *NAME.split("^"), "19500607")]


@pytest.fixture(scope="module")
def tree(task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies: a folder with two series and one slice of the second missing, a folder with an oblique series."""
    folder = tmp_path_factory.mktemp("tree")
    scans = [np.asarray(nib.load(task_dir / "imagesTr" / f"case_0{n}.nii.gz").dataobj) for n in range(3)]
    voxels = [np.clip(scan, -1000, 1000).round() for scan in scans]
    spacing = {"spacing_mm": (1.0, 1.0, 1.5)}
    write(folder / "one" / "all", voxels[0], series=2, SeriesDescription=f"FLAIR {NAME}", **spacing)
    write(folder / "one" / "all", voxels[1], series=3, SeriesDescription="T1", **spacing)
    (folder / "one" / "all" / "IM30007.dcm").unlink()
    oblique: Any = {"orientation": OBLIQUE, "backwards": True}
    write(
        folder / "two", voxels[2], series=4, SeriesDescription="flair", StudyInstanceUID="1.2.3", **oblique, **spacing
    )
    return folder


@pytest.fixture(scope="module")
def results(run_dir: Path, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "predictions"
    codes = tmp_path_factory.mktemp("codes") / "codes.yaml"
    codes.write_text(yaml.safe_dump({"box": {"type": ["78961009", "SCT", "Spleen"]}}))
    status = predict(
        run_dir,
        [tree],
        folder,
        device="cpu",
        series=["modality=MR,min-slices=5"],
        dicom="binary",
        dicom_codes=codes,
        lesions=True,
        previews=True,
        probabilities="uint8",
    )
    assert status == 1  # of one series a slice is missing
    return folder


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["case"]: row for row in json.loads((folder / "predictions.json").read_text())["scans"]}


def test_each_series_is_a_result_or_a_reason(results: Path) -> None:
    rows = rows_of(results)
    assert {case: row["status"] for case, row in rows.items()} == {
        "one_all_s2": "ok",
        "one_all_s3": "failed",
        "two": "ok",
    }
    assert "slices are missing" in rows["one_all_s3"]["reason"]


def test_objects_agree_with_the_label_maps(results: Path) -> None:
    for case, row in rows_of(results).items():
        if row["status"] != "ok":
            continue
        labels = np.asarray(nib.load(results / row["output"]).dataobj)
        segmentation = pydicom.dcmread(results / row["dicom"]["segmentation"])
        numbers = [
            f.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            for f in segmentation.PerFrameFunctionalGroupsSequence
        ]
        frames = segmentation.pixel_array
        for number, value in ((1, 1), (2, 2)):
            voxels = sum(int(frame.sum()) for frame, own in zip(frames, numbers, strict=True) if own == number)
            assert voxels == int((labels == value).sum()), case
        box = segmentation.SegmentSequence[1]
        assert (box.SegmentLabel, box.SegmentedPropertyTypeCodeSequence[0].CodeMeaning) == ("box", "Spleen")
        if shutil.which("dciodvfy"):
            for name in row["dicom"].values():
                told = subprocess.run(["dciodvfy", results / name], capture_output=True, text=True, check=False).stderr
                assert "Error" not in told


def test_tables_are_of_the_whole_cohort(results: Path) -> None:
    lesions = list(csv.DictReader((results / "lesions.csv").open()))
    structures = list(csv.DictReader((results / "structures.csv").open()))
    rows = rows_of(results)
    for case in ("one_all_s2", "two"):
        for name in ("ball", "box"):
            own = [row for row in lesions if (row["case"], row["structure"]) == (case, name)]
            # Volumes are rounded to 0.0001 ml each.
            total = sum(float(row["volume_ml"]) for row in own)
            assert total == pytest.approx(rows[case]["volume_ml"][name], abs=1e-4 * (len(own) + 1))
            assert all(0 < float(row["peak_probability"]) <= 1 for row in own)
        assert [row["channel"] for row in structures if row["case"] == case] == ["noise", "noise"]
        assert (results / f"{case}_preview.jpg").is_file()


def test_nothing_but_dicom_says_who_it_was(results: Path) -> None:
    looked = [path for path in results.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {path.suffix for path in looked} >= {".csv", ".json", ".jsonl", ".html", ".jpg", ".gz", ".dcm"}
    for path in looked:
        assert not any(secret.decode() in str(path) for secret in SECRETS)
        if path.suffix != ".dcm":
            content = path.read_bytes()
            assert not any(secret in content for secret in SECRETS), path
    assert any(SECRETS[0] in path.read_bytes() for path in looked if path.suffix == ".dcm")  # there it belongs


def test_neither_console_nor_logs_say_who_it_was(
    run_dir: Path, tree: Path, tmp_path: Path, capfd: Any, caplog: Any, recwarn: Any
) -> None:
    """Of a series whose header libraries complain about, quoting it."""
    shutil.copytree(tree / "two", tmp_path / "in")
    for path in (tmp_path / "in").iterdir():
        data = pydicom.dcmread(path)
        data.PatientName = f"{NAME}={NAME}={NAME}={NAME}"
        data.PatientBirthDate = "7 June"
        data.save_as(path)
    caplog.clear(), recwarn.clear(), capfd.readouterr()
    caplog.set_level(logging.DEBUG)
    assert predict(run_dir, [tmp_path / "in"], tmp_path / "out", device="cpu", dicom="labelmap") == 0
    said = "".join((*capfd.readouterr(), caplog.text, *(str(one.message) for one in recwarn)))
    assert not any(secret.decode() in said for secret in SECRETS)


def test_what_is_kept_needs_its_objects_too(run_dir: Path, results: Path, tree: Path) -> None:
    before = rows_of(results)
    wanted: Any = {"device": "cpu", "series": ["min-slices=5"], "lesions": True, "previews": True, "dicom": "binary"}
    (results / "two_seg.dcm").unlink()
    predict(run_dir, [tree], results, overwrite=False, probabilities="uint8", **wanted)
    after = rows_of(results)
    assert after["one_all_s2"]["seconds"] == before["one_all_s2"]["seconds"]
    assert (results / "two_seg.dcm").is_file()


def test_a_bids_dataset_of_predict_is_valid(run_dir: Path, task_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "raw" / "sub-07" / "anat" / "sub-07_acq-x_T1w.nii.gz"
    source.parent.mkdir(parents=True)
    shutil.copy(task_dir / "imagesTr" / "case_00.nii.gz", source)
    (tmp_path / "raw" / "dataset_description.json").write_text('{"Name": "raw", "BIDSVersion": "1.10.0"}')
    wanted: Any = {"device": "cpu", "layout": "bids", "lesions": True, "previews": True, "entropy": True}
    scans = [tmp_path / "raw", task_dir / "imagesTr" / "case_01.nii.gz"]
    assert predict(run_dir, scans, tmp_path / "out", probabilities="uint8", **wanted) == 0
    base = tmp_path / "out" / "sub-07" / "anat" / "sub-07_acq-x_space-T1w"
    assert Path(f"{base}_desc-rarevox_dseg.nii.gz").is_file()
    assert Path(f"{base}_label-box_desc-rarevox_probseg.nii.gz").is_file()
    assert predict(run_dir, scans, tmp_path / "out", overwrite=False, probabilities="uint8", **wanted) == 0
    if shutil.which("bids-validator-deno"):
        done = subprocess.run(
            ["bids-validator-deno", tmp_path / "out", "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.stdout.startswith("{"):
            issues = json.loads(done.stdout)["issues"]["issues"]
            assert [one for one in issues if one["severity"] == "error"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dicom": "binary"}, "none of the scans came as a DICOM series"),
        ({"dicom_codes": "codes.yaml"}, "give --dicom too"),
        ({"atlas": "nowhere.nii.gz"}, "--atlas: .*does not exist"),
        ({"series": ["modality=MR", "modality=CT"]}, r"2 --series for 1 channel \(noise\)"),
        ({"series": ["modality=CT"]}, "nothing to segment"),
        ({"series": ["x"]}, "is not KEY=VALUE"),
    ],
)
def test_wrong_requests_are_refused(run_dir: Path, task_dir: Path, tmp_path: Path, options: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        predict(run_dir, [task_dir / "imagesTr"], tmp_path / "out", device="cpu", **options)


def test_a_refused_call_leaves_no_folder(
    run_dir: Path, task_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(run_dir), str(task_dir / "imagesTr"), "--series", "modality=CT", "--output", str(out)])
    assert ended.value.code == 2
    assert "nothing to segment" in capsys.readouterr().err
    assert not out.parent.exists()


def test_a_call_that_is_refused_after_its_series_were_chosen_leaves_no_links(
    run_dir: Path, tree: Path, tmp_path: Path
) -> None:
    out, masks = tmp_path / "out", tmp_path / "masks"
    masks.mkdir()
    (masks / "unknown_mask.nii.gz").write_bytes(b"")
    out.mkdir()
    rules = ["min-slices=5"]
    with pytest.raises(RequestError, match="holds no mask for"):
        predict(run_dir, [tree], out, device="cpu", series=rules, roi=masks)
    assert not any(out.iterdir())
    assert (tree / "two").is_dir() and any((tree / "one" / "all").iterdir())
    # Beside something else they may belong to it.
    (out / "old_seg.nii.gz").write_bytes(b"")
    with pytest.raises(RequestError, match="holds no mask for"):
        predict(run_dir, [tree], out, device="cpu", series=rules, roi=masks)
    assert any((out / LINKS).iterdir())


def test_the_command_knows_the_options() -> None:
    names = {option for parameter in cli.commands["predict"].params for option in parameter.opts}
    wanted = {"--series", "--lesions", "--atlas", "--atlas-names", "--previews", "--dicom", "--dicom-codes", "--layout"}
    assert wanted <= names
    assert "serve" in cli.commands
