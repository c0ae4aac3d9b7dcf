"""Who annotated what: folders, cases, grids, and maps that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.review.annotators import find_annotators, find_cases, read_case

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
MOVED = AFFINE + np.array([[0, 0, 0, 1.0], [0] * 4, [0] * 4, [0] * 4])


def _save(path: Path, affine: np.ndarray = AFFINE, value: int = 1, shape: tuple[int, ...] = (6, 5, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.zeros(shape, np.uint8)
    labels[1:4, 1:4, 1:3] = value
    nib.save(nib.Nifti1Image(labels, affine), path)
    return path


def test_folders_or_one_that_holds_them(tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        _save(tmp_path / "all" / name / "labels" / "x.nii.gz")
        _save(tmp_path / "flat" / name / "x.nii.gz")
    (tmp_path / "flat" / "notes").mkdir()
    given = [tmp_path / "all" / name / "labels" for name in ("bob", "ann")]
    assert list(find_annotators(given)) == ["bob", "ann"]
    assert list(find_annotators([tmp_path / "flat"])) == ["ann", "bob"]
    for wrong, words in (
        ([tmp_path / "flat" / "ann"], "one annotator at most"),
        ([tmp_path / "flat" / "ann" / "x.nii.gz"] * 2, "is not a folder"),
        ([tmp_path / "none", tmp_path / "flat"], "is not a folder"),
        ([tmp_path / "flat" / "ann"] * 2, "given twice"),
    ):
        with pytest.raises(RequestError, match=words):
            find_annotators(wrong)


def test_cases_are_matched_as_in_score(tmp_path: Path) -> None:
    for file in ("a/x_seg.nii.gz", "a/y.nii.gz", "b/x.nii.gz", "b/z.nii.gz", "c/x_gt.nii", "c/y_label.nii.gz"):
        _save(tmp_path / file)
    found = find_cases({name: tmp_path / name for name in "abc"})
    assert {case: list(files) for case, files in found.cases.items()} == {
        "x": ["a", "b", "c"],
        "y": ["a", "c"],
        "z": ["b"],
    }
    with pytest.raises(RequestError, match="no two annotators have a case in common"):
        _save(tmp_path / "d" / "other.nii.gz")
        find_cases({name: tmp_path / name for name in "bd"} | {"b": _save(tmp_path / "e" / "q.nii.gz").parent})


def test_what_is_doubled_nested_or_no_map_is_told(tmp_path: Path) -> None:
    for file in ("a/x_seg.nii.gz", "a/x_pred.nii.gz", "a/day/y.nii.gz", "b/x.nii.gz", "b/day/y_gt.nii.gz", "c/x.nii"):
        _save(tmp_path / file)
    (tmp_path / "a" / "empty").mkdir()
    os.mkfifo(tmp_path / "b" / "pipe")
    found = find_cases({name: tmp_path / name for name in "abc"})
    assert {case: list(files) for case, files in found.cases.items()} == {"day_y": ["a", "b"], "x": ["b", "c"]}
    assert "are both case 'x'" in found.doubled["x"]["a"]
    assert [Path(sentence.split(" ")[0]).name for sentence in found.left] == ["empty", "pipe"]
    read = read_case("x", found.cases["x"], list("abc"), doubled=found.doubled["x"])
    assert "are both case 'x'" in read.missing["a"]
    assert list(read.maps) == ["b", "c"]


def test_consensus_maps_of_an_earlier_call_are_nobody_s(tmp_path: Path) -> None:
    for file in ("ann/x.nii.gz", "bob/x.nii.gz", "out/consensus/x.nii.gz", "bob/out/consensus/x.nii.gz"):
        _save(tmp_path / file)
    for folder in ("out", "bob/out"):
        (tmp_path / folder / "agreement.json").write_text("{}")
    annotators = find_annotators([tmp_path])
    assert list(annotators) == ["ann", "bob"]
    found = find_cases(annotators)
    assert list(found.cases) == ["x"]
    assert found.left == ()


def test_the_grid_of_most_annotators_counts(tmp_path: Path) -> None:
    files = {"a": _save(tmp_path / "a.nii.gz", MOVED), "b": _save(tmp_path / "b.nii.gz")}
    files["c"] = _save(tmp_path / "c.nii.gz")
    maps = read_case("x", files, list("abc"))
    assert list(maps.maps) == ["b", "c"]
    assert maps.grid == files["b"]
    assert "a and b are on different grids: 6×5×4 voxels" in maps.missing["a"]
    brought = read_case("x", files, list("abc"), resample=True)
    assert list(brought.maps) == ["a", "b", "c"]
    assert brought.maps["a"].array.shape == (6, 5, 4)
    # One millimetre along x: the map lies one voxel further on.
    assert np.array_equal(brought.maps["a"].array[1:], brought.maps["b"].array[:-1])
    pair = read_case("x", {name: files[name] for name in "ab"}, list("ab"))
    assert list(pair.maps) == ["a"]


def test_every_fault_is_a_reason(tmp_path: Path) -> None:
    files = {"a": _save(tmp_path / "a.nii.gz"), "b": _save(tmp_path / "b.nii.gz", value=7)}
    files["c"] = tmp_path / "c.nii.gz"
    files["c"].write_bytes(files["a"].read_bytes()[:80])
    maps = read_case("x", files, list("abcd"), with_model=True, known={0, 1})
    assert list(maps.maps) == ["a"]
    assert "undeclared label 7" in maps.missing["b"]
    assert "c.nii.gz" in maps.missing["c"]
    assert maps.missing["d"] == "there is no map of it"
    assert maps.model_reason == "there is no prediction for it"
    other = _save(tmp_path / "m.nii.gz", shape=(6, 5, 5))
    assert "the model and a are on different grids" in read_case("x", files, ["a"], other, with_model=True).model_reason
    assert read_case("x", {"c": files["c"]}, ["c"]).maps == {}
