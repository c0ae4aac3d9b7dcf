"""Which channels may be missing, and cases of files that lack some."""

from __future__ import annotations

from pathlib import Path

import pytest

from rarevox.pipeline.data.datalist import find_scans
from rarevox.pipeline.data.grouping import group
from rarevox.pipeline.data.missing import optional_channels, refusal, without_channels
from rarevox.pipeline.data.scans import survey
from rarevox.pipeline.errors import RequestError
from rarevox.transforms.reading.stand_ins import MISSING

CONFIG = {"channels": ["FLAIR", "T1"], "channel_dropout": 0.25, "required_channels": []}


def _touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


def test_a_run_says_what_it_can_do_without() -> None:
    assert optional_channels(CONFIG) == ["FLAIR", "T1"]
    assert optional_channels(CONFIG | {"channel_dropout": 0.0}) == []
    assert refusal(["T1"], CONFIG) == ""
    assert "trained without channel_dropout" in refusal(["T1"], {"channels": ["FLAIR", "T1"]})
    assert "required channels are FLAIR" in refusal(["FLAIR"], CONFIG | {"required_channels": ["FLAIR"]})
    assert "none of the channels" in refusal(["FLAIR", "T1"], CONFIG)
    assert refusal([], CONFIG) == ""


def test_numbered_files_lack_a_channel_only_where_they_may(tmp_path: Path) -> None:
    files = _touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b_0001.nii.gz")
    found = {one.name: one for one in group(files, ["FLAIR", "T1"], optional=["FLAIR"])}
    assert (found["a"].missing, found["b"].missing, found["b"].fault) == ((), ("FLAIR",), "")
    assert found["b"].files == (files[2],)
    fault = next(one.fault for one in group(files, ["FLAIR", "T1"], optional=["T1"]) if one.name == "b")
    assert "no file is the channel _0000 (FLAIR)" in fault
    assert "add the file (this run may go without T1 alone)" in fault
    assert next(one.fault for one in group(files, ["FLAIR", "T1"]) if one.name == "b")


def test_named_files_lack_a_channel_and_a_channel_twice_is_a_fault(tmp_path: Path) -> None:
    files = _touch(tmp_path, "p1_FLAIR.nii", "p1_T1.nii", "p2_T1.nii")
    found = {one.name: one for one in group(files, ["FLAIR", "T1"], optional=["FLAIR", "T1"])}
    assert found["p2"].missing == ("FLAIR",)
    twice = _touch(tmp_path, "p3_T1_a.nii", "p3_a_T1.nii")
    assert group(twice, ["FLAIR", "T1"], optional=["FLAIR", "T1"])[0].fault


def test_the_data_list_names_what_is_missing(tmp_path: Path) -> None:
    _touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b_0001.nii.gz")
    scans = {one["case"]: one for one in survey([tmp_path], ["FLAIR", "T1"], optional=["FLAIR"]).scans}
    assert MISSING not in scans["a"]
    assert scans["b"] == {"case": "b", "image": [str(tmp_path / "b_0001.nii.gz")], MISSING: ["FLAIR"]}
    read = {one["case"]: one for one in find_scans(tmp_path, ["FLAIR", "T1"], optional=["FLAIR"])}
    assert read["b"]["image"] == [str(tmp_path / "b_0001.nii.gz")] * 2


def test_left_out_on_purpose() -> None:
    items = [{"image": ["f", "t"]}, {"image": "both.nii"}]
    found = without_channels(items, ["FLAIR"], CONFIG)
    assert [one["image"] for one in found] == [["t"], "both.nii"]
    assert all(one[MISSING] == ["FLAIR"] for one in found)
    assert without_channels(items, [], CONFIG) == items
    for names, said in (
        (["T3"], "T3: the run takes no channel of that name; valid names: FLAIR, T1"),
        (["FLAIR", "T1"], "none of the channels"),
    ):
        with pytest.raises(RequestError, match=said):
            without_channels(items, names, CONFIG)
    with pytest.raises(RequestError, match="trained without"):
        without_channels(items, ["T1"], {"channels": ["FLAIR", "T1"]})
