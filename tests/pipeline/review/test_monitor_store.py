"""The history's file: idempotent, all or nothing, and clear about every file that is none."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.review import monitor_store
from rarevox.pipeline.review.monitor_read import Reviewed
from rarevox.pipeline.review.monitor_store import add_cases, content_digest, read_history


def _case(name: str, dice: float | None = 0.8, date: str = "2026-01-01", site: str = "", **other: Any) -> Reviewed:
    status = other.pop("status", "ok")
    content = ({"structure": "core", "status": status, "dice": dice, "reference_ml": other.pop("ml", "1.5")},)
    figures = (("core", dice, status),)
    return Reviewed(name, date, site, other.pop("scanner", ""), True, figures, content)


def _add(path: Path, *cases: Reviewed, rule: str = "one") -> monitor_store.Added:
    return add_cases(path, cases, rule, "folder")


def _names(path: Path, since: str = "") -> list[str]:
    return [figure.case for figure in read_history(path, since)[0]]


def test_by_date_then_by_order_of_adding(tmp_path: Path) -> None:
    base = tmp_path / "new" / "h.db"
    _add(base, _case("d", date="2026-01-02"), _case("e", date="2026-01-02T08:00:00Z"), _case("b"))
    _add(base, _case("a", date="2025-12-31"), _case("c"))
    assert _names(base) == ["a", "b", "c", "d", "e"]
    assert _names(base, "2026-01-02") == ["d", "e"]
    figure = read_history(base)[0][0]
    assert (figure.structure, figure.dice, figure.status, read_history(base)[1]) == ("core", 0.8, "ok", "one")


def test_a_case_is_added_once_by_content(tmp_path: Path) -> None:
    base = tmp_path / "h.db"
    assert _add(base, _case("a"), _case("b")).new == ("a", "b")
    again = _add(base, _case("b"), _case("c"), _case("a", dice=0.7))
    assert (again.new, again.known, again.elsewhere, again.again) == (("c", "a"), 1, (), ("a",))
    assert _names(base) == ["a", "b", "c", "a"]
    moved = _add(base, _case("b", site="elsewhere"), _case("c", date="2026-03-03"), replace(_case("a"), dated=False))
    assert (moved.new, moved.elsewhere) == ((), ("b", "c"))


def test_failures_without_a_known_reference_are_told_apart_by_site(tmp_path: Path) -> None:
    lost = [_case("case_1", 0.0, site=site, status="failed", ml="") for site in ("A", "B", "A")]
    added = _add(tmp_path / "h.db", *lost)
    assert (added.new, added.known) == (("case_1", "case_1"), 1)


def test_adding_is_all_or_nothing(tmp_path: Path) -> None:
    base = tmp_path / "h.db"
    _add(base, _case("a"))
    broken = replace(_case("c"), figures=(("core", 0.5, "ok"), ("core", 0.5, "ok")))  # breaks the primary key
    with pytest.raises(RequestError, match="cannot be used"):
        _add(base, _case("b"), broken)
    assert _names(base) == ["a"]


def test_two_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    base = tmp_path / "h.db"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: _add(base, _case(f"case_{i}"), _case("shared")), range(12)))
    assert sorted(_names(base)) == sorted([f"case_{i}" for i in range(12)] + ["shared"])


def test_one_empty_rule_for_a_history(tmp_path: Path) -> None:
    base = tmp_path / "h.db"
    _add(base, _case("a"))
    with pytest.raises(RequestError, match=r"empty rule 'nan' and .* holds Dice by 'one'"):
        _add(base, _case("b", None), rule="nan")


def test_files_that_are_no_history_are_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, words: str, *, write: bool) -> None:
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(RequestError, match=words):
            _add(path, _case("x")) if write else read_history(path)
        assert (path.read_bytes() if path.is_file() else None) == before

    refused(tmp_path / "none.db", "does not exist; begin a history", write=False)
    refused(tmp_path, "is a folder", write=True)
    text = tmp_path / "notes.txt"
    text.write_text("not a database at all, but long enough to look into\n" * 20)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as base:
        base.execute("CREATE TABLE songs (name TEXT)")
    newer = tmp_path / "newer.db"
    _add(newer, _case("a"))
    with sqlite3.connect(newer) as base:
        base.execute("PRAGMA user_version = 9")
    damaged = tmp_path / "damaged.db"
    _add(damaged, *[_case(f"case_{i}") for i in range(200)])
    content = damaged.read_bytes()
    damaged.write_bytes(content[:8192] + b"\xff" * 4096 + content[12288:])
    for write in (True, False):
        refused(text, r"is not a history of rarevox monitor \(no SQLite file\)", write=write)
        refused(foreign, "is a database of something else", write=write)
        refused(newer, "has the format 9 and this rarevox knows 1", write=write)
        refused(damaged, "is damaged .*; restore it from a copy", write=write)
    empty = tmp_path / "empty.db"
    empty.touch()
    refused(empty, "is empty; begin a history", write=False)
    busy = tmp_path / "busy.db"
    _add(busy, _case("a"))
    monkeypatch.setattr(monitor_store, "WAIT_S", 0.05)
    other = sqlite3.connect(busy, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    refused(busy, "in use by another process", write=True)
    other.close()


def test_the_digest_is_of_the_content_alone() -> None:
    case = _case("a")
    assert content_digest(case) == content_digest(replace(case, date="2030-01-01", site="B", scanner="C"))
    assert content_digest(case) != content_digest(_case("a", dice=0.81))
    assert content_digest(case) != content_digest(_case("b"))
