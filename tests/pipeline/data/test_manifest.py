"""A manifest's lines are scans or rows that say why not."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from rarevox.pipeline.data.manifest import read_manifest
from rarevox.pipeline.data.scans import Survey
from rarevox.pipeline.errors import RequestError

CHANNELS = ("T1", "FLAIR")


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def test_a_table_with_a_column_for_each_channel(tmp_path: Path) -> None:
    table = "case,T1,FLAIR,mask,roi,site,age\np1,a/t1.nii,/b/flair.nii,m.nii,,Oslo,7\n\np2,t1.nii,f.nii,,r.nii,,\n"
    found = read_manifest(write(tmp_path / "list.csv", table), CHANNELS)
    assert found.left == []
    assert found.scans == [
        {
            "case": "p1",
            "image": [str(tmp_path / "a/t1.nii"), "/b/flair.nii"],
            "mask": str(tmp_path / "m.nii"),
            "manifest": {"site": "Oslo", "age": "7"},
        },
        {
            "case": "p2",
            "image": [str(tmp_path / "t1.nii"), str(tmp_path / "f.nii")],
            "roi": str(tmp_path / "r.nii"),
            "manifest": {"site": "", "age": ""},
        },
    ]


def test_lines_of_json_and_a_name_from_the_file(tmp_path: Path) -> None:
    lines = [{"image": ["t1.nii.gz", "f.nii.gz"], "site": {"id": 3}}, {"case": "b", "image": "4d.nii"}]
    found = read_manifest(write(tmp_path / "list.jsonl", "\n".join(map(json.dumps, lines))), CHANNELS)
    assert [scan["case"] for scan in found.scans] == ["t1", "b"]
    assert found.scans[0]["manifest"] == {"site": {"id": 3}}
    assert found.scans[1] == {"case": "b", "image": str(tmp_path / "4d.nii")}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("list.csv", "case,image\ngood,a.nii\nbad,\n", "names no file"),
        ("list.csv", "case,image\ngood,a.nii\ngood,b.nii\n", "is that of line 2 too"),
        ("list.csv", "case,image\ngood,a.nii\n../x,b.nii\n", "holds '/'"),
        ("list.csv", "case,image\ngood,a.nii\n.x,b.nii\n", "begins with '.'"),
        ("list.csv", "case,image\ngood,a.nii\nx,b.nii,more\n", "3 cells where there are 2 columns"),
        ("list.csv", "case,T1,FLAIR\ngood,a.nii,b.nii\nx,b.nii,\n", "nor as FLAIR"),
        ("list.tsv", "case\timage\ngood\ta.nii\nx\n", "names no file"),
        ("list.jsonl", '{"case": "good", "image": "a.nii"}\n{"case": \n', "no JSON"),
        ("list.jsonl", '{"case": "good", "image": "a.nii"}\n[1]\n', "no JSON object"),
        ("list.jsonl", '{"case": "good", "image": "a.nii"}\n' + "[" * 5000 + "\n", "no JSON"),
        ("list.jsonl", '{"case": "good", "image": "a.nii"}\n{"case": 7, "image": "b.nii"}\n', "is no text"),
        ("list.jsonl", '{"case": "good", "image": "a.nii"}\n{"case": "x", "image": [1]}\n', "names no file"),
        ("list.jsonl", '{"case": "good", "image": "a.nii"}\n{"case": "\\ud800", "image": "b"}\n', "control character"),
    ],
)
def test_a_bad_line_is_one_row_and_the_others_go_on(name: str, text: str, said: str, tmp_path: Path) -> None:
    found = read_manifest(write(tmp_path / name, text), CHANNELS)
    assert [scan["case"] for scan in found.scans] == ["good"]
    (row,) = found.left
    assert row["status"] == "failed"
    assert said in row["reason"]
    assert f"of {tmp_path / name}" in row["reason"]
    assert row["reason"].startswith("line ")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("list.csv", "case,path\na,b\n", "has the columns case, path; expected image"),
        ("list.csv", "", "has the columns none"),
        ("list.csv", "image,image\na,b\n", "several columns image"),
        ("none.csv", None, "cannot be read"),
    ],
)
def test_a_manifest_of_no_use_is_one_sentence(name: str, text: str | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        write(tmp_path / name, text)
    with pytest.raises(RequestError, match=said):
        read_manifest(tmp_path / name, CHANNELS)


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_pipe_or_a_device_is_refused_at_once(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / f"endless_{name}").symlink_to("/dev/zero")
    for file in (name, f"endless_{name}"):
        with pytest.raises(RequestError, match="is a folder, a pipe or a device"):
            read_manifest(tmp_path / file, CHANNELS)


@pytest.mark.parametrize(
    ("name", "text"), [("list.csv", "case,image\ngood,a.nii\n"), ("list.jsonl", '{"case": "good", "image": "a.nii"}\n')]
)
def test_a_line_without_an_end_is_one_row_and_takes_no_memory(name: str, text: str, tmp_path: Path) -> None:
    """64 MB in one line, read in pieces of `LONGEST_LINE`; what is behind it counts."""
    file = write(tmp_path / name, text)
    os.truncate(file, 1 << 26)  # zeros, of holes
    with file.open("a") as handle:
        handle.write("\n" + text.splitlines()[-1].replace("good", "after") + "\n")
    tracemalloc.start()
    try:
        found = read_manifest(file, CHANNELS)
        assert tracemalloc.get_traced_memory()[1] < 1 << 25
    finally:
        tracemalloc.stop()
    assert [scan["case"] for scan in found.scans] == ["good", "after"]
    assert len(found.left) == 1 and "line" in found.left[0]["reason"]


def test_it_adds_to_what_is_named_besides(tmp_path: Path) -> None:
    found = Survey([{"case": "a", "image": "a.nii"}])
    found = read_manifest(write(tmp_path / "list.csv", "case,image\na,x.nii\nb,y.nii\n"), ("image",), found)
    assert [scan["case"] for scan in found.scans] == ["a", "b"]
    assert "a scan that is named besides" in found.left[0]["reason"]
