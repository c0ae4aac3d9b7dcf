"""Every entry that a request names is a scan or a row that says why not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rarevox.pipeline.data.scans import FAILED, IGNORED, require_scans, survey
from rarevox.pipeline.errors import RequestError
from tests.hostile.of_entries import ENTRIES, link_to_the_folder_above


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def names(*paths: Path, channels: tuple[str, ...] = ("image",)) -> list[str]:
    return [scan["case"] for scan in survey(paths, channels).scans]


@pytest.mark.parametrize("make", ENTRIES, ids=lambda make: make.__name__)
def test_an_entry_that_is_no_scan_is_one_row(make: Callable[[Path], None], tmp_path: Path) -> None:
    folder = touch(tmp_path / "scans", "a.nii.gz", "b.nii.gz")
    make(folder)
    found = survey([folder])
    assert [scan["case"] for scan in found.scans] == ["a", "b"]
    (row,) = found.left
    status, reason = ENTRIES[make]
    assert row["status"] == status
    assert row["case"].startswith("odd")
    assert reason in row["reason"]


@pytest.mark.parametrize("make", ENTRIES, ids=lambda make: make.__name__)
def test_an_argument_that_is_no_scan_is_one_failed_row(make: Callable[[Path], None], tmp_path: Path) -> None:
    touch(tmp_path / "good", "a.nii.gz")
    (tmp_path / "bad").mkdir()
    make(tmp_path / "bad")
    if make is link_to_the_folder_above:
        return
    found = survey([tmp_path / "good", next((tmp_path / "bad").glob("odd*"))])
    assert [scan["case"] for scan in found.scans] == ["a"]
    (row,) = found.left
    assert row["status"] == FAILED


def test_missing_arguments_and_impossible_names(tmp_path: Path) -> None:
    good = touch(tmp_path, "a.nii.gz") / "a.nii.gz"
    found = survey([tmp_path / "none.nii.gz", good, tmp_path / f"{'x' * 300}.nii.gz", "null\0byte.nii"])
    assert [scan["case"] for scan in found.scans] == ["a"]
    assert [row["status"] for row in found.left] == [FAILED] * 3
    assert "does not exist" in found.left[0]["reason"]


def test_a_scan_that_is_named_twice_is_segmented_once(tmp_path: Path) -> None:
    folder = touch(tmp_path, "a.nii.gz", "b.nii.gz")
    (folder / "c.nii.gz").symlink_to(folder / "a.nii.gz")
    for paths in ([folder / "a.nii.gz"] * 2, [folder / "a.nii.gz", folder / "c.nii.gz"]):
        found = survey(paths)
        assert len(found.scans) == 1
        assert [(row["status"], "named twice" in row["reason"]) for row in found.left] == [(IGNORED, True)]
    assert len(survey([folder, folder]).scans) == 2


def test_names_are_qualified_by_folder(tmp_path: Path) -> None:
    touch(tmp_path / "x", "s0000/ct.nii.gz", "s0001/ct.nii.gz")
    assert names(tmp_path / "x") == ["s0000_ct", "s0001_ct"]
    assert names(*sorted((tmp_path / "x").glob("*/ct.nii.gz"))) == ["s0000_ct", "s0001_ct"]
    assert names(*sorted((tmp_path / "x").iterdir())) == ["s0000_ct", "s0001_ct"]
    touch(tmp_path / "y", "sub-01/T1.nii.gz", "sub-01/FLAIR.nii.gz", "sub-02/T1.nii.gz", "sub-02/FLAIR.nii.gz")
    assert names(tmp_path / "y", channels=("T1", "FLAIR")) == ["sub-01", "sub-02"]
    assert names(tmp_path / "y") == ["sub-01_FLAIR", "sub-01_T1", "sub-02_FLAIR", "sub-02_T1"]


def test_series_are_called_like_the_path_to_them(tmp_path: Path) -> None:
    for series in ("PAT1/ST0/SE0", "PAT1/ST0/SE1", "PAT2/ST0/SE0"):
        folder = touch(tmp_path / series)
        folder.mkdir(parents=True)
        (folder / "IM0001").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64)
    assert names(tmp_path) == ["PAT1_ST0_SE0", "PAT1_ST0_SE1", "PAT2_ST0_SE0"]
    assert names(tmp_path / "PAT1" / "ST0" / "SE0") == ["SE0"]


def test_files_and_folders_side_by_side_are_both_found(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "deeper/b.nii.gz", "deeper/still/c.nii.gz")
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64)
    assert names(tmp_path) == ["a", tmp_path.name, "deeper_b", "deeper_still_c"]


def test_scans_that_cannot_be_told_apart_fail_by_name(tmp_path: Path) -> None:
    found = survey([touch(tmp_path, "a.nii.gz", "a.mha", "b_c.nii", "b/c.nii", "d.nii")])
    assert [scan["case"] for scan in found.scans] == ["d"]
    assert {(row["case"], row["status"]) for row in found.left} == {("a", FAILED), ("b_c", FAILED)}
    assert len(found.left) == 4
    assert all("two scans are called" in row["reason"] for row in found.left)


def test_a_deep_folder_is_told(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(70):
        folder = folder / "d"
    folder.mkdir(parents=True)
    touch(folder, "a.nii.gz")
    (row,) = survey([tmp_path]).left
    assert "folders deep" in row["reason"]


def test_the_work_grows_with_the_number_of_names_and_not_with_its_square(tmp_path: Path) -> None:
    """Counted, not timed: lines of Python run for 200 and for 800 files, by folder and by name, with two channels.

    Linear work is four times as much, sorting adds under a fifth (log 800 / log 200 = 1.26 on part of it), quadratic
    work would be sixteen times as much.
    """
    counts: dict[tuple[str, int], int] = {}
    for number in (200, 800):
        files = [f"p{n:04}_{channel}.nii.gz" for n in range(number // 2) for channel in ("T1", "FLAIR", "mask")]
        folder = touch(tmp_path / str(number), *files)
        for way, paths in (("folder", [folder]), ("named", sorted(folder.iterdir()))):
            counts[way, number] = _lines(lambda paths=paths: survey(paths, ("T1", "FLAIR")))
    for way in ("folder", "named"):
        assert counts[way, 800] < 6 * counts[way, 200]


def _lines(call: Callable[[], object]) -> int:
    count = 0

    def trace(frame: object, event: str, argument: object) -> object:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_of_nothing_to_segment_the_first_case_is_told_with_its_place(tmp_path: Path) -> None:
    """A reason that names the place itself does so once."""
    part = touch(tmp_path / "part", "FLAIR.nii.gz")
    with pytest.raises(RequestError) as refused:
        require_scans(survey([part], ("FLAIR", "T1")))
    said = str(refused.value)
    assert said.startswith(f"nothing to segment: part ({part / 'FLAIR.nii.gz'}): no file is the channel T1; ")
    assert "add the file" in said
    assert "channel_dropout" in said
    touch(tmp_path / "other", "FLAIR.nii.gz")
    with pytest.raises(RequestError, match=f"nothing to segment in {tmp_path}: other .*and 1 more such"):
        require_scans(survey([tmp_path], ("FLAIR", "T1")))
    with pytest.raises(RequestError) as refused:
        require_scans(survey([tmp_path / "none.nii.gz"]))
    assert str(refused.value) == f"nothing to segment: {tmp_path / 'none.nii.gz'} does not exist"
