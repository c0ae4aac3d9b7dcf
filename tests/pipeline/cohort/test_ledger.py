"""Of each scan the newest row, however many journals and processes wrote."""

from __future__ import annotations

from pathlib import Path

from rarevox.pipeline.cohort.journal import FOLDER, Journal
from rarevox.pipeline.cohort.ledger import Ledger
from tests.pipeline.cohort.test_journal import entry


def test_it_reads_on_where_journals_have_grown_and_new_ones_began(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.refresh()
    assert len(ledger) == 0
    first = Journal(tmp_path, {"session": "1"}, "one")
    first.append(entry("a"))
    first.close()
    ledger.refresh()
    assert list(ledger.cases()) == ["a"]
    second = Journal(tmp_path, {"session": "2"}, "two")
    second.append(entry("b"))
    second.close()
    with (tmp_path / FOLDER / "one.jsonl").open("ab") as file:
        file.write(b'{"n":1,"t":2.0,"row":{"case":"c","sta')
        file.flush()
        ledger.refresh()
        assert sorted(ledger.cases()) == ["a", "b"]
        file.write(b'tus":"ok"}}\n')
    ledger.refresh()
    assert sorted(ledger.cases()) == ["a", "b", "c"]
    assert ledger.row("c") == {"case": "c", "status": "ok"}
    assert ledger.source_of("b").header["session"] == "2"


def test_the_newest_row_counts_in_whatever_journal(tmp_path: Path) -> None:
    for name, t, status in (("b", 3.0, "failed"), ("a", 5.0, "ok"), ("c", 4.0, "failed")):
        journal = Journal(tmp_path, {}, name)
        journal.append(entry("x", t, status))
        journal.close()
    ledger = Ledger(tmp_path)
    ledger.refresh()
    assert ledger.is_ok("x")
    journal = Journal(tmp_path, {}, "d")
    journal.append({"t": 6.0, "gone": ["x"]})
    journal.append(entry("y"))
    journal.close()
    ledger.refresh()
    assert "x" not in ledger
    assert list(ledger.cases()) == ["y"]


def test_rows_come_in_the_order_of_the_list(tmp_path: Path) -> None:
    for name, cases in (("1", "ca"), ("2", "db")):
        journal = Journal(tmp_path, {}, name)
        for case in cases:
            journal.append(entry(case, n="abcd".index(case)))
        journal.close()
    ledger = Ledger(tmp_path)
    ledger.refresh()
    assert [row["case"] for _, _, row in ledger.lines()] == list("abcd")
