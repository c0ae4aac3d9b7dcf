"""Scans of the same content, to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from rarevox.pipeline.data import duplicates as module
from rarevox.pipeline.data.duplicates import without_duplicates
from rarevox.pipeline.errors import RequestError

LONG = bytes(range(256)) * 1024


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, object]]:
    """a = c = series; b differs in the middle, d in length, e is not there; two files are none of them."""
    middle = len(LONG) // 2
    content = {"a": LONG, "b": LONG[:middle] + b"!" + LONG[middle + 1 :], "c": LONG, "d": LONG + b"x"}
    for name, written in content.items():
        (tmp_path / name).write_bytes(written)
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "IM1").write_bytes(LONG)
    found: list[dict[str, object]] = [{"case": name, "image": str(tmp_path / name)} for name in "abcde"]
    found.append({"case": "series", "image": str(tmp_path / "series")})
    found.append({"case": "two", "image": [str(tmp_path / "a"), str(tmp_path / "b")]})
    return found


def test_copies_are_told_or_left_out(items: list[dict[str, object]]) -> None:
    kept, left = without_duplicates(items, [], "tell")
    assert left == []
    assert {item["case"]: item["duplicate_of"] for item in kept if "duplicate_of" in item} == {"c": "a", "series": "a"}
    kept, left = without_duplicates(items, [], "skip")
    assert [item["case"] for item in kept] == ["a", "b", "d", "e", "two"]
    assert [(row["case"], row["status"]) for row in left] == [("c", "ignored"), ("series", "ignored")]
    assert "the same content as a" in left[0]["reason"]


def test_files_are_read_whole_only_where_size_and_ends_agree(
    items: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = module._whole
    monkeypatch.setattr(module, "_whole", lambda files: read.append(files[0].name) or real(files))
    without_duplicates(items, [], "tell")
    assert sorted(read) == ["IM1", "a", "b", "c"], "b differs in the middle only"


def test_another_mode_is_one_sentence() -> None:
    with pytest.raises(RequestError, match="neither tell nor skip"):
        without_duplicates([], [], "delete")
