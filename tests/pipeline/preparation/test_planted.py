"""The proof of the checks: none finds anything in 195 real cases; each finds its fault planted in one of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.cohort import intensity_outliers, orientation_outliers, spacing_outliers
from rarevox.pipeline.preparation.examine import examine
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.preparation.sources.find import find_cases
from tests.pipeline.preparation.planted import ALSO, PLANTS, Task


@pytest.mark.data
@pytest.mark.slow
def test_every_fault_planted_in_real_cases_is_found_and_no_other(tmp_path: Path, data_dir: Path) -> None:
    root = Path(shutil.copytree(data_dir / "Task04_Hippocampus", tmp_path / "task"))
    task = Task(root)
    names = [Path(row["label"]).name.removesuffix(".nii.gz") for row in task.content["training"]]
    victims = dict(zip(PLANTS, names[10::5], strict=False))
    assert len(victims) == len(PLANTS)
    for check, case in victims.items():
        PLANTS[check](task, case)
    with pytest.raises(RequestError, match="of 195 cases have errors"):
        prepare(root, tmp_path / "out")
    faults = json.loads((tmp_path / "out" / "rejected.json").read_text(encoding="utf-8"))["faults"]
    found: dict[str, set[str]] = {}
    for fault in faults:
        found.setdefault(fault["case"], set()).add(fault["check"])
    expected = {case: {check} | ALSO.get(check, set()) for check, case in victims.items()}
    assert found == expected


def spread_out(task: Path, root: Path, count: int) -> list[str]:
    """Real cases as a folder for each subject: two channels, a label and a mask; returns the subjects' names."""
    listed = json.loads((task / "dataset.json").read_text(encoding="utf-8"))["training"][:count]
    names = []
    for row in listed:
        name = Path(row["label"]).name.removesuffix(".nii.gz")
        folder = root / name
        folder.mkdir(parents=True)
        for channel in ("T1", "T2"):
            shutil.copy(task / row["image"], folder / f"{channel}.nii.gz")
        shutil.copy(task / row["label"], folder / "label.nii.gz")
        volume = nib.load(folder / "T1.nii.gz")
        nib.save(nib.Nifti1Image(np.ones(volume.shape, np.uint8), volume.affine), folder / "mask.nii.gz")
        names.append(name)
    return names


def changed(path: Path, of: Callable[[np.ndarray], np.ndarray], shift: float = 0.0) -> None:
    volume = nib.load(path)
    affine = volume.affine + np.array([[0, 0, 0, shift], *[[0] * 4] * 3])
    nib.save(nib.Nifti1Image(of(np.array(volume.dataobj)), affine), path)


@pytest.mark.data
def test_faults_of_subject_folders_planted_in_real_cases(tmp_path: Path, data_dir: Path) -> None:
    root = tmp_path / "source"
    names = spread_out(data_dir / "Task04_Hippocampus", root, 20)
    options = {"channels": {"T1": "T1*", "T2": "T2*"}, "label": "label*", "mask": "mask*"}
    assert prepare(root, tmp_path / "clean", **options) == 0
    clean = json.loads((tmp_path / "clean" / "rejected.json").read_text(encoding="utf-8"))["faults"]
    assert clean == []
    victims = dict(zip(names, SUBJECT_PLANTS, strict=False))
    for name, check in victims.items():
        SUBJECT_PLANTS[check](root / name)
    with pytest.raises(RequestError, match="have errors"):
        prepare(root, tmp_path / "out", **options)
    faults = json.loads((tmp_path / "out" / "rejected.json").read_text(encoding="utf-8"))["faults"]
    found = {(row["case"], row["check"]) for row in faults}
    assert found == set(victims.items())


SUBJECT_PLANTS: dict[str, Callable[[Path], object]] = {
    "missing-label": lambda folder: (folder / "label.nii.gz").unlink(),
    "missing-mask": lambda folder: (folder / "mask.nii.gz").unlink(),
    "missing-channel": lambda folder: (folder / "T2.nii.gz").unlink(),
    "ambiguous-file": lambda folder: shutil.copy(folder / "T1.nii.gz", folder / "T1_again.nii.gz"),
    "channel-grid": lambda folder: changed(folder / "T2.nii.gz", lambda array: array, 0.5),
    "mask-grid": lambda folder: changed(folder / "mask.nii.gz", lambda array: array, 0.5),
    "empty-mask": lambda folder: changed(folder / "mask.nii.gz", np.zeros_like),
    "rare-label": lambda folder: changed(folder / "label.nii.gz", lambda array: np.where(array == 2, 9, array)),
}


@pytest.mark.data
def test_leaks_of_a_stated_split_planted_in_real_cases(tmp_path: Path, data_dir: Path) -> None:
    task = data_dir / "Task04_Hippocampus"
    listed = json.loads((task / "dataset.json").read_text(encoding="utf-8"))["training"][:12]
    rows = [["image", "label", "case", "subject", "split"]]
    for number, row in enumerate(listed):
        files = [str(task / row[key]) for key in ("image", "label")]
        rows.append([*files, f"c{number}", f"s{number}", "test" if number < 2 else str(number % 2)])
    rows[5][3] = "s0"  # c4 trains, and is of the subject of c0
    rows[6][0], rows[6][1] = rows[2][0], rows[2][1]  # c5 trains on the scan of c1
    rows[7][2] = rows[8][2] = "twice"
    rows[9][2] = "../up"
    (tmp_path / "list.csv").write_text("\n".join(map(",".join, rows)))
    with pytest.raises(RequestError, match="have errors"):
        prepare(tmp_path / "list.csv", tmp_path / "out", fix=True)
    faults = json.loads((tmp_path / "out" / "rejected.json").read_text(encoding="utf-8"))["faults"]
    found = {(row["case"], row["check"]) for row in faults if row["severity"] == "error"}
    assert found == {
        ("c4", "subject-across-split"),
        ("c5", "duplicate-across-split"),
        ("twice", "duplicate-name"),
        ("../up", "case-name"),
    }
    assert not (tmp_path / "out" / "up").exists()


@pytest.mark.data
def test_no_handful_of_the_real_cases_has_an_outlier(data_dir: Path) -> None:
    """The cohort is of scanners whose scales differ by three orders of magnitude; any part of it is clean as well."""
    facts = examine(find_cases(data_dir / "Task04_Hippocampus"), {"Anterior": 1, "Posterior": 2}).facts
    rng = np.random.default_rng(0)
    for size in (5, 8, 12, 20, 40, 80):
        for _ in range(50):
            part = [facts[n] for n in rng.choice(len(facts), size, replace=False)]
            assert intensity_outliers(part) == spacing_outliers(part) == orientation_outliers(part) == []
