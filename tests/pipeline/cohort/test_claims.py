"""One scan, one call at it; what a dead call held passes on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from rarevox.pipeline.cohort import claims as module
from rarevox.pipeline.cohort.claims import Claims
from rarevox.pipeline.cohort.journal import FOLDER, Journal, boot_id
from rarevox.pipeline.cohort.owners import lives


def test_a_claimed_scan_is_nobody_else_s_until_it_is_given_back(tmp_path: Path) -> None:
    one, other = (Claims(tmp_path, name, lambda owner: True) for name in ("one", "other"))
    assert one.take("a/b\udcff\ud800") == 0
    assert other.take("a/b\udcff\ud800") is None
    one.give_back("a/b\udcff\ud800")
    assert other.take("a/b\udcff\ud800") == 0


def test_of_many_at_once_one_has_it(tmp_path: Path) -> None:
    """Eight threads, each a call, ask for each of 50 scans that a dead call held: one of them gets each."""
    dead = Claims(tmp_path, "dead", lambda owner: True)
    for n in range(50):
        assert dead.take(str(n)) == 0
    got: list[tuple[str, int]] = []

    def ask(name: str) -> None:
        claims = Claims(tmp_path, name, lambda owner: owner != "dead")
        for n in range(50):
            ended = claims.take(str(n))
            if ended is not None:
                got.append((str(n), ended))

    threads = [threading.Thread(target=ask, args=(f"call {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted((str(n), 1) for n in range(50))


def test_calls_that_ended_at_a_scan_are_counted(tmp_path: Path) -> None:
    for number in range(3):
        assert Claims(tmp_path, f"call {number}", lambda owner: False).take("a") == number


def test_where_there_are_no_links_claims_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(module.os, "link", refused)
    assert Claims(tmp_path, "one", lambda owner: True).take("a") == 0
    assert Claims(tmp_path, "two", lambda owner: True).take("a") is None
    assert Claims(tmp_path, "three", lambda owner: False).take("a") == 1


def test_a_claim_that_is_empty_yet_is_somebody_s(tmp_path: Path) -> None:
    claims = Claims(tmp_path, "one", lambda owner: False)
    claims.take("a")
    (path,) = (tmp_path / FOLDER / "claims").glob("[!.]*")
    path.unlink()
    path.write_bytes(b"")
    assert Claims(tmp_path, "two", lambda owner: False).take("a") is None


def test_a_call_lives_as_long_as_its_journal_is_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {})
    header = {"boot": "another system"}
    assert lives(tmp_path, journal.id, header)
    journal.close()
    assert lives(tmp_path, journal.id, header), "of another machine it may be: its time of change is of just now"
    assert not lives(tmp_path, journal.id, {"boot": boot_id()})
    assert not lives(tmp_path, "no such call", header)
