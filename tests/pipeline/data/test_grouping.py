"""Files as people have them: each case by itself, whatever is wrong with its neighbour."""

from __future__ import annotations

from pathlib import Path

import pytest

from rarevox.pipeline.data.grouping import Rule, group

MR = ("T1", "T1ce", "FLAIR")


def grouped(names: str, channels: tuple[str, ...], rule: Rule | None = None) -> dict[str, list[str]]:
    """Case → its files without their suffix."""
    found = group([Path(f"{name}.nii.gz") for name in names.split()], channels, rule)
    return {one.name: [file.name[:-7] for file in one.files] for one in found if not one.fault}


def faults(names: str, channels: tuple[str, ...], rule: Rule | None = None) -> dict[str, str]:
    found = group([Path(f"{name}.nii.gz") for name in names.split()], channels, rule)
    return {one.name: one.fault for one in found if one.fault}


def test_the_number_counts_and_not_how_many_there_are() -> None:
    files = "A_0000 A_0001 B_0000 B_0002"
    assert grouped(files, ("T1", "FLAIR")) == {"A": ["A_0000", "A_0001"]}
    (fault,) = faults(files, ("T1", "FLAIR")).items()
    assert fault[0] == "B"
    assert fault[1].startswith(
        "no file is the channel _0001 (FLAIR); there is B_0000.nii.gz; add the file (a run trained"
    )


def test_a_case_without_a_channel_breaks_up_no_other() -> None:
    files = " ".join(f"s{case}_000{channel}" for case in range(8) for channel in (0, 1) if (case, channel) != (3, 1))
    assert len(grouped(files, ("T1", "FLAIR"))) == 7
    assert list(faults(files, ("T1", "FLAIR"))) == ["s3"]


def test_digits_that_number_no_channel_stay_in_the_name() -> None:
    assert grouped("scan_2019 scan_2020", ("CT",)) == {"scan_2019": ["scan_2019"], "scan_2020": ["scan_2020"]}
    assert grouped("scan_2019", ("T1", "FLAIR")) == {"scan_2019": ["scan_2019"]}
    assert grouped("a_0000 b_0000", ("CT",)) == {"a": ["a_0000"], "b": ["b_0000"]}
    times = {f"dyn_000{n}": [f"dyn_000{n}"] for n in range(3)}
    assert grouped("dyn_0000 dyn_0001 dyn_0002", ("CT",)) == times


def test_numbers_that_the_run_learnt() -> None:
    assert grouped("a_0001 a_0003 a_0002", ("T1", "FLAIR"), [1, 3]) == {"a": ["a_0001", "a_0003"]}
    assert grouped("a_0000 a_0001", ("CT",), [0]) == {"a": ["a_0000"]}


def test_names_within_names() -> None:
    files = "p1_T1 p1_T1ce p1_FLAIR p2_t1 p2_t1ce p2_flair"
    assert grouped(files, MR) == {
        "p1": ["p1_T1", "p1_T1ce", "p1_FLAIR"],
        "p2": ["p2_t1", "p2_t1ce", "p2_flair"],
    }


@pytest.mark.parametrize("files", ["T1 T1ce FLAIR", "x_T1 x_T1ce x_FLAIR x_seg", "T1_x T1ce_x_brain FLAIR_x mask"])
def test_a_folder_with_a_file_for_each_channel_is_one_case(files: str) -> None:
    assert grouped(files, MR) == {"": files.split()[:3]}


def test_files_of_two_subjects_are_never_one_case() -> None:
    assert grouped("p1_T1 p2_FLAIR", ("T1", "FLAIR")) == {}
    assert set(faults("p1_T1 p2_FLAIR", ("T1", "FLAIR"))) == {"p1", "p2"}


def test_a_case_that_lacks_a_channel_is_named_and_one_with_a_channel_twice() -> None:
    files = "p1_T1 p1_FLAIR p2_T1 p3_T1 p3_FLAIR p3.T1"
    assert list(grouped(files, ("T1", "FLAIR"))) == ["p1"]
    said = faults(files, ("T1", "FLAIR"))
    assert "FLAIR; there is p2_T1.nii.gz" in said["p2"]
    assert "several files are the channel T1" in next(text for name, text in said.items() if name.startswith("p3"))


def test_other_files_of_a_case_are_no_scans_and_other_scans_are() -> None:
    files = "p1_T1 p1_FLAIR p1_seg p2_T1 p2_FLAIR whole"
    assert set(grouped(files, ("T1", "FLAIR"))) == {"p1", "p2", "whole"}


def test_patterns_with_folders_count_the_folders() -> None:
    """Two patterns that end alike tell nothing without their folders; one that ends as no other does, enough."""
    rule = ["anat/*.nii.gz", "dwi/*.nii.gz"]
    (found,) = group([Path("p1/dwi/a.nii.gz")], ["T1", "DWI"], rule)
    assert "no file is the channel T1" in found.fault
    flat = [Path("a_T1.nii.gz"), Path("a_FLAIR.nii.gz")]
    (both,) = group(flat, ["one", "two"], ["anat/*_T1.nii.gz", "anat/*_FLAIR.nii.gz"])
    assert both.files == tuple(flat)
    (unknown,) = group([Path("p1/other/a.nii.gz")], ["T1", "DWI"], rule)
    assert not unknown.fault  # no pattern tells of it: a file for itself


def test_patterns_that_the_run_learnt() -> None:
    rule = ["*_T1w.nii.gz", "*_T1w_ce.nii.gz"]
    assert grouped("sub-1_T1w sub-1_T1w_ce sub-1_dseg", ("T1", "Gd"), rule) == {"": ["sub-1_T1w", "sub-1_T1w_ce"]}
    both = "sub-1_T1w sub-1_T1w_ce sub-2_T1w_ce sub-2_T1w sub-3_T1w"
    assert grouped(both, ("T1", "Gd"), rule) == {
        "sub-1": ["sub-1_T1w", "sub-1_T1w_ce"],
        "sub-2": ["sub-2_T1w", "sub-2_T1w_ce"],
    }
    assert list(faults(both, ("T1", "Gd"), rule)) == ["sub-3"]
    assert grouped("x_T1w x_FLAIR", ("T1",), ["*_T1w.nii.gz"]) == {"": ["x_T1w"]}
    assert grouped("elsewhere", ("T1",), ["*_T1w.nii.gz"]) == {"elsewhere": ["elsewhere"]}
