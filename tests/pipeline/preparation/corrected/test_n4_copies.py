"""prepare --n4: corrected copies are used, recorded, and made again for every scan that is predicted."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from rarevox.pipeline.bundle import write_bundle
from rarevox.pipeline.compose import compose
from rarevox.pipeline.data.datalist import is_uncorrected
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.transforms.intensity.n4 import n4_corrected
from rarevox.transforms.reader import read_scan
from tests.pipeline.preparation.corrected.test_corrections import hashes
from tests.pipeline.preparation.test_prepare import SUBJECTS, save, subjects, written


def raw(root: Path) -> Path:
    """Two subjects of two channels, intensities of 0 and more."""
    for path in subjects(root, 2).rglob("*_*.nii.gz"):
        save(path, np.abs(np.array(nib.load(path).dataobj)) + 10)
    return root


def test_the_dataset_names_corrected_copies(tmp_path: Path) -> None:
    source, out = raw(tmp_path / "source"), tmp_path / "out"
    before = hashes(source)
    assert prepare(source, out, **SUBJECTS, mask="mask*", n4=True, folds=1) == 0
    assert hashes(source) == before
    dataset = Dataset.load(out)
    assert dataset.n4
    cases = dataset.section("training") + dataset.section("test")
    assert {Path(name).parent.parent for case in cases for name in case["image"]} == {out / "n4"}
    for case in cases:
        first = read_scan(source / case["case"] / "x_Flair.nii.gz")
        copy = read_scan(case["image"][0])
        np.testing.assert_array_equal(copy.affine, first.affine)
        wanted = n4_corrected(first.array[0], first.spacing_mm, np.ones(first.shape))
        np.testing.assert_allclose(copy.array[0], wanted, rtol=1e-5)
        assert case["label"].startswith(str(source))


def test_negative_intensities_are_an_error_of_the_case(tmp_path: Path) -> None:
    source = raw(tmp_path / "source")
    path = source / "p1" / "x_T1c.nii.gz"
    save(path, np.array(nib.load(path).dataobj) - 100)
    with pytest.raises(RequestError, match="1 of 2 cases have errors"):
        prepare(source, tmp_path / "out", **SUBJECTS, n4=True)
    (row,) = written(tmp_path / "out", "rejected.json")["faults"]
    assert (row["case"], row["check"]) == ("p1", "n4-negative")


@pytest.mark.parametrize("n4", [True, False])
def test_a_run_corrects_what_it_predicts_and_nothing_twice(tmp_path: Path, n4: bool) -> None:
    prepare(raw(tmp_path / "source"), tmp_path / "out", **SUBJECTS, n4=n4, folds=1)
    data = Dataset.load(tmp_path / "out")
    write_bundle(tmp_path / "run", compose("train", dataset=data).config, data)
    stages = {
        stage: yaml.safe_load((tmp_path / "run" / "configs" / f"{stage}.yaml").read_text())["n4"]
        for stage in ("train", "evaluate", "inference")
    }
    uncorrected = {"_target_": "rarevox.pipeline.data.is_uncorrected", "dataset": "@dataset_dir"}
    assert stages == {"train": False, "evaluate": uncorrected if n4 else False, "inference": n4}
    assert is_uncorrected(tmp_path / "out") is not n4
