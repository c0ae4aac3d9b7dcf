"""prepare as a user meets it: what it writes, what it refuses, and that every planted fault is told in one go."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.data import load_decathlon_datalist

from rarevox.pipeline import locks
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import LOCK_FILE
from rarevox.pipeline.preparation.cases import Fault
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.preparation.prepare_report import _kind
from rarevox.transforms.reader import read_scan
from tests.conftest import write_task

SHAPE = (10, 9, 8)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), path)
    return path


def phantom(number: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(number)
    label = np.zeros(SHAPE, np.uint8)
    label[2 : 3 + number % 4, 3, 3] = 1
    label[6, 6, 2:4] = 2
    return rng.normal(0, 1, SHAPE).astype(np.float32), label


def decathlon(root: Path, count: int = 12, **more: Any) -> Path:
    rows = []
    for number in range(count):
        image, label = phantom(number)
        rows.append({"image": f"./imagesTr/c{number:02}.nii.gz", "label": f"./labelsTr/c{number:02}.nii.gz"})
        save(root / rows[-1]["image"], image)
        save(root / rows[-1]["label"], label)
    labels = {"0": "background", "1": "lesion", "2": "ventricle"}
    content = {"name": "Phantom", "labels": labels, "modality": {"0": "MRI"}, "training": rows, **more}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def subjects(root: Path, count: int = 5) -> Path:
    for number in range(count):
        image, label = phantom(number)
        for name, array in (("x_Flair", image), ("x_T1c", image * 2), ("labels", label.astype(np.float32))):
            save(root / f"p{number}" / f"{name}.nii.gz", array)
        save(root / f"p{number}" / "mask.nii.gz", np.ones(SHAPE, np.uint8))
    return root


SUBJECTS: dict[str, Any] = {"channels": {"Flair": "*Flair*", "T1c": "*T1c*"}, "label": "labels*"}


def written(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_a_decathlon_task(tmp_path: Path) -> None:
    source, out = decathlon(tmp_path / "task"), tmp_path / "out"
    assert prepare(source, out, holdout=0.25, folds=3) == 0
    assert {path.name for path in out.iterdir()} == {
        "dataset.json",
        "fingerprint.json",
        "rejected.json",
        "checks.html",
        "plan.yaml",
    }
    dataset = Dataset.load(out)
    assert dataset.name == "Phantom"
    assert dataset.labels == {"background": 0, "lesion": 1, "ventricle": 2}
    assert (len(dataset.section("training")), len(dataset.section("test")), dataset.folds) == (9, 3, 3)
    names = [case["case"] for case in dataset.section("training") + dataset.section("test")]
    assert sorted(names) == [f"c{number:02}" for number in range(12)]
    assert all(read_scan(case[key]).shape == SHAPE for case in dataset.section("test") for key in ("image", "label"))
    fingerprint = written(out, "fingerprint.json")
    assert fingerprint["sha256"] == dataset.fingerprint
    assert fingerprint["cases"] == 12
    # Lesions of 1, 2, 3 and 4 voxels of 2 mm³, thrice each: the median is 2.5 voxels, 0.005 ml.
    assert fingerprint["structures"]["lesion"]["volume_ml"]["median"] == pytest.approx(0.005)
    assert written(out, "rejected.json") == {"cases": 12, "rejected": [], "faults": []}


def test_monai_reads_the_list(tmp_path: Path) -> None:
    prepare(subjects(tmp_path / "source"), tmp_path / "out", **SUBJECTS, mask="mask*")
    dataset = Dataset.load(tmp_path / "out")
    for section in ("training", "test"):
        theirs = load_decathlon_datalist(tmp_path / "out" / "dataset.json", True, section, base_dir=dataset.root)
        ours = dataset.section(section)
        assert [row["image"] for row in theirs] == [row["image"] for row in ours]
        assert [row["label"] for row in theirs] == [row["label"] for row in ours]


def test_subject_folders_with_channels_mask_and_float_labels(tmp_path: Path) -> None:
    assert prepare(subjects(tmp_path / "source"), tmp_path / "out", **SUBJECTS, mask="mask*") == 0
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.channels == ("Flair", "T1c")
    assert dataset.labels == {"background": 0, "label_1": 1, "label_2": 2}
    case = dataset.section("training")[0]
    assert [Path(name).name for name in case["image"]] == ["x_Flair.nii.gz", "x_T1c.nii.gz"]
    assert Path(case["mask"]).name == "mask.nii.gz"


def test_structures_get_names_and_others_are_refused(tmp_path: Path) -> None:
    source = subjects(tmp_path / "source")
    prepare(source, tmp_path / "a", **SUBJECTS, structures={"ventricle": 2, "lesion": 1})
    assert Dataset.load(tmp_path / "a").structures == ("lesion", "ventricle")
    with pytest.raises(RequestError, match="5 of 5 cases have errors"):
        prepare(source, tmp_path / "b", **SUBJECTS, structures={"lesion": 1})
    assert {row["check"] for row in written(tmp_path / "b", "rejected.json")["faults"]} == {"label-undeclared"}


def test_parallel_folders_outside_the_source(tmp_path: Path) -> None:
    task = decathlon(tmp_path / "task", 4)
    (tmp_path / "elsewhere").mkdir()
    images, labels = str(task / "imagesTr"), str(task / "labelsTr")
    assert prepare(tmp_path / "elsewhere", tmp_path / "out", images=images, labels=labels) == 0
    case = Dataset.load(tmp_path / "out").section("training")[0]
    assert Path(case["image"]).parent == task / "imagesTr"
    assert Path(case["image"]).is_file()


def test_four_dimensional_images_are_channels(tmp_path: Path) -> None:
    task = decathlon(tmp_path / "task", 3, modality={"0": "T1", "1": "T2"})
    for path in (task / "imagesTr").iterdir():
        volume = np.array(nib.load(path).dataobj)
        save(path, np.stack([volume, volume + 1], -1))
    assert prepare(task, tmp_path / "out") == 0
    assert set(written(tmp_path / "out", "fingerprint.json")["channels"]) == {"T1", "T2"}


def plant(task: Path) -> dict[str, str]:
    """A fault of each kind in a case of its own, by case; c00 and c01 stay clean."""
    images, labels = task / "imagesTr", task / "labelsTr"
    image, label = phantom(0)
    (images / "c02.nii.gz").unlink()
    (images / "c03.nii.gz").write_bytes((images / "c03.nii.gz").read_bytes()[:300])
    save(labels / "c04.nii.gz", label[1:])
    nib.save(nib.Nifti1Image(label, np.diag([1.0, 1.0, 2.01, 1.0])), labels / "c05.nii.gz")
    save(labels / "c06.nii.gz", label * 3)
    image[0, 0, 0] = np.nan
    save(images / "c07.nii.gz", image)
    save(images / "c08.nii.gz", np.full(SHAPE, 3.0, np.float32))
    save(labels / "c09.nii.gz", label * 0.5)
    save(images / "c10.nii.gz", np.stack([phantom(10)[0]] * 2, -1))
    return {
        "c02": "missing-file",
        "c03": "unreadable",
        "c04": "label-shape",
        "c05": "label-affine",
        "c06": "label-undeclared",
        "c07": "not-finite",
        "c08": "constant-channel",
        "c09": "label-not-whole",
        "c10": "channel-count",
    }


def test_all_faults_of_all_cases_in_one_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, out = decathlon(tmp_path / "task"), tmp_path / "out"
    planted = plant(task)
    with pytest.raises(RequestError, match=r"9 of 12 cases have errors, .* --skip-faulty"):
        prepare(task, out)
    rejected = written(out, "rejected.json")
    assert {row["case"]: row["check"] for row in rejected["faults"]} == planted
    assert rejected["rejected"] == sorted(planted)
    assert not (out / "dataset.json").exists()
    shown = capsys.readouterr().err
    assert all(case in shown for case in planted)


def test_skip_faulty_leaves_them_out_and_says_so(tmp_path: Path) -> None:
    task, out = decathlon(tmp_path / "task"), tmp_path / "out"
    planted = plant(task)
    assert prepare(task, out, skip_faulty=True) == 1
    dataset = Dataset.load(out)
    assert {case["case"] for case in dataset.section("training") + dataset.section("test")} == {"c00", "c01", "c11"}
    assert written(out, "rejected.json")["rejected"] == sorted(planted)


def test_nothing_left(tmp_path: Path) -> None:
    task = decathlon(tmp_path / "task", 2)
    for path in (task / "imagesTr").iterdir():
        path.write_bytes(b"")
    with pytest.raises(RequestError, match="no usable case is left of 2"):
        prepare(task, tmp_path / "out", skip_faulty=True)


def test_a_case_without_foreground_is_kept_and_recorded(tmp_path: Path) -> None:
    task, out = decathlon(tmp_path / "task", 4), tmp_path / "out"
    save(task / "labelsTr" / "c02.nii.gz", np.zeros(SHAPE, np.uint8))
    assert prepare(task, out) == 0
    (fault,) = written(out, "rejected.json")["faults"]
    assert (fault["case"], fault["check"], fault["severity"]) == ("c02", "empty-label", "warning")
    assert written(out, "fingerprint.json")["cases_without_foreground"] == ["c02"]


def test_a_channel_missing_for_one_subject(tmp_path: Path) -> None:
    source = subjects(tmp_path / "source")
    (source / "p3" / "x_T1c.nii.gz").unlink()
    with pytest.raises(RequestError, match="1 of 5 cases have errors"):
        prepare(source, tmp_path / "out", **SUBJECTS)
    (fault,) = written(tmp_path / "out", "rejected.json")["faults"]
    assert (fault["case"], fault["check"]) == ("p3", "missing-channel")
    assert fault["message"].endswith(" for the channel T1c; there are labels.nii.gz, mask.nii.gz, x_Flair.nii.gz")
    assert prepare(source, tmp_path / "out", **SUBJECTS, skip_faulty=True) == 1


def test_a_fault_of_every_case_is_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = subjects(tmp_path / "source")
    with pytest.raises(RequestError, match="5 of 5 cases have errors"):
        prepare(source, tmp_path / "out", **SUBJECTS | {"channels": {"T1": "*T1w*"}})
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("missing-channel") == 1
    assert "5 cases" in told
    assert "labels.nii.gz" in told
    assert "capitals" not in told


def test_with_all_cases_faulty_none_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their labels hold 1 to 4 voxels of the value that was not declared: one row all the same."""
    with pytest.raises(RequestError, match=r"5 of 5 cases have errors, .*; correct them$"):
        prepare(subjects(tmp_path / "source"), tmp_path / "out", **SUBJECTS, structures={"lesion": 3, "ventricle": 2})
    told = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert told.count("label-undeclared") == 1
    assert "5 cases" in told
    assert "in one of them:" in told


def test_other_labels_are_other_faults() -> None:
    rows = [Fault(f"c{n}", "label-undeclared", "error", f"the label holds {n} (5 voxels); expected 0") for n in (1, 2)]
    rows += [Fault("c3", "label-undeclared", "error", "the label holds 1 (77 voxels); expected 0")]
    one, other, same = map(_kind, rows)
    assert one == same
    assert one != other


@pytest.mark.parametrize(("pattern", "file"), [("*flair*", "x_Flair.nii.gz"), ("*T1C*", "x_T1c.nii.gz")])
def test_a_pattern_that_capitals_keep_from_matching_is_told(pattern: str, file: str, tmp_path: Path) -> None:
    source, hint = subjects(tmp_path / "source"), f"(capitals count: '{pattern}' is not {file})"
    with pytest.raises(RequestError, match=re.escape(hint)):
        prepare(source, tmp_path / "out", channels={"A": pattern}, label="seg*")
    with pytest.raises(RequestError, match="have errors"):
        prepare(source, tmp_path / "out", **SUBJECTS | {"channels": {"A": pattern}})
    (row, *_) = written(tmp_path / "out", "rejected.json")["faults"]
    assert f"for the channel A {hint}; there are" in row["message"]


def test_copies_of_a_scan_are_one_subject_everywhere(tmp_path: Path) -> None:
    """In one fold, and in the intervals and the choices that are made by subject."""
    task = write_task(tmp_path / "task", cases=6)
    for kind in ("imagesTr", "labelsTr"):
        shutil.copy(task / kind / "case_02.nii.gz", task / kind / "case_04.nii.gz")
    assert prepare(task, tmp_path / "dataset", holdout=0, folds=3) == 0
    data = Dataset.load(tmp_path / "dataset")
    subjects = {case["case"]: case.get("subject") for case in data.training}
    assert subjects["case_02"] == subjects["case_04"] and len(set(subjects.values())) == 5
    assert all(subjects.values())


def test_duplicate_case_names(tmp_path: Path) -> None:
    task = decathlon(tmp_path / "task", 3)
    content = json.loads((task / "dataset.json").read_text())
    content["training"].append(content["training"][0])
    (task / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(RequestError, match="1 of 3 cases have errors"):
        prepare(task, tmp_path / "out")
    checks = [
        row["check"] for row in written(tmp_path / "out", "rejected.json")["faults"] if row["severity"] == "error"
    ]
    assert checks == ["duplicate-name", "duplicate-name"]


def test_identical_scans_stay_on_one_side(tmp_path: Path) -> None:
    task = decathlon(tmp_path / "task", 8)
    twin = (task / "imagesTr" / "c00.nii.gz").read_bytes()
    (task / "imagesTr" / "c07.nii.gz").write_bytes(twin)
    for seed in range(6):
        out = tmp_path / f"out{seed}"
        assert prepare(task, out, holdout=0.3, folds=3, seed=seed) == 0
        dataset = Dataset.load(out)
        side = {case["case"]: "test" for case in dataset.section("test")}
        side |= {case["case"]: str(case["fold"]) for case in dataset.section("training")}
        assert side["c00"] == side["c07"]


def test_visits_of_a_subject_stay_together(tmp_path: Path) -> None:
    for subject in range(5):
        for visit in range(2):
            image, label = phantom(10 * subject + visit)
            for folder, array in (("images", image), ("labels", label)):
                save(tmp_path / "source" / folder / f"P{subject}_v{visit}.nii.gz", array)
    prepare(tmp_path / "source", tmp_path / "out", subject=r"^(P\d)_", holdout=0.2, folds=2)
    sides: dict[str, set[str]] = {}
    content = written(tmp_path / "out", "dataset.json")
    for case in content["test"] + content["training"]:
        sides.setdefault(case["case"][:2], set()).add(str(case.get("fold", "test")))
    assert all(len(found) == 1 for found in sides.values())
    assert len(content["test"]) == 2  # both visits of one subject of five
    assert all(case["subject"] == case["case"][:2] for case in content["test"] + content["training"])
    assert Dataset.load(tmp_path / "out").section("training")[0]["subject"] in sides


def test_the_same_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = decathlon(tmp_path / "task")
    for name, workers in (("a", 1), ("b", 3)):
        prepare(task, tmp_path / name, seed=4, workers=workers)
    for name in ("dataset.json", "fingerprint.json", "rejected.json", "plan.yaml", "checks.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert "is replaced" not in capsys.readouterr().err
    prepare(task, tmp_path / "a", seed=5)  # an earlier prepare may be written over, which is told
    assert Dataset.load(tmp_path / "a").seed == 5
    held = r"\(11 cases for training and 1 held out, seed 4, of the same scans and labels\) is replaced"
    assert re.search(rf"a/dataset.json of [\d: -]{{16}} {held}", capsys.readouterr().err.replace("\n", " "))
    prepare(decathlon(tmp_path / "fewer", 6), tmp_path / "a")
    assert "seed 5, of other scans and labels) is replaced" in capsys.readouterr().err


def test_two_calls_do_not_interleave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = decathlon(tmp_path / "source", 3), tmp_path / "out"
    assert prepare(source, out) == 0
    (out / LOCK_FILE).touch()  # as a killed call leaves it
    assert prepare(source, out) == 0
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.0)
    with locks.held(out), pytest.raises(RequestError, match="another call is writing into"):
        prepare(source, out)


def test_what_reading_finds_odd_is_a_warning(tmp_path: Path) -> None:
    source = decathlon(tmp_path / "source", 3)
    scan = source / "imagesTr" / "c00.nii.gz"
    with gzip.open(scan) as handle:
        content = handle.read()
    scan.write_bytes(gzip.compress(content + bytes(17 << 20)))
    assert prepare(source, tmp_path / "out") == 0
    faults = json.loads((tmp_path / "out" / "rejected.json").read_text())["faults"]
    odd = [one for one in faults if one["check"] == "odd-file"]
    assert [(one["case"], one["severity"]) for one in odd] == [("c00", "warning")]
    assert "follow its volume" in odd[0]["message"]


def test_an_output_folder_that_holds_something_else(tmp_path: Path) -> None:
    task = decathlon(tmp_path / "task", 3)
    with pytest.raises(RequestError, match="already holds other files"):
        prepare(task, task)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "dataset.json").write_text("{}")  # a dataset.json that prepare did not write
    with pytest.raises(RequestError, match="already holds other files"):
        prepare(task, tmp_path / "other")
    assert (tmp_path / "other" / "dataset.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"holdout": 1.5}, "--holdout is 1.5"),
        ({"folds": 0}, "--folds is 0"),
        ({"structures": {"a": 0}}, "--structure says"),
        ({"structures": {"a": 1, "b": 1}}, "each number once"),
        ({"workers": 0}, "--workers is 0"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(tmp_path: Path, options: dict, message: str) -> None:
    task = decathlon(tmp_path / "task", 2)
    with pytest.raises(RequestError, match=message):
        prepare(task, tmp_path / "out", **options)
    assert not list((tmp_path / "out").glob("*"))


def test_no_space_left_for_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: Any) -> None:
        raise OSError(28, "No space left on device")

    task = decathlon(tmp_path / "task", 2)
    monkeypatch.setattr("rarevox.pipeline.preparation.prepare.write_json", full)
    with pytest.raises(RequestError, match=r"cannot write .*rejected\.json: No space left on device; free some space"):
        prepare(task, tmp_path / "out")


@pytest.mark.data
def test_real_cases_are_clean(tmp_path: Path, data_dir: Path) -> None:
    assert prepare(data_dir / "Task04_Hippocampus", tmp_path / "out") == 0
    assert written(tmp_path / "out", "rejected.json")["faults"] == []
    dataset = Dataset.load(tmp_path / "out")
    assert (len(dataset.section("training")), len(dataset.section("test"))) == (175, 20)


@pytest.mark.data
def test_real_subject_folders(tmp_path: Path, data_dir: Path) -> None:
    patterns = {"channels": {"Flair": "*Flair*", "T1c": "*T1c*"}, "label": "*OTMultiClass*", "mask": "*brainmask*"}
    assert prepare(data_dir / "brats2015_sample", tmp_path / "out", **patterns) == 0
    assert written(tmp_path / "out", "rejected.json")["faults"] == []
    assert Dataset.load(tmp_path / "out").label_values == (0, 1, 2, 3, 4)
