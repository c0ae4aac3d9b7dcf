"""A journal is whole up to its last line, whatever ends its process or moves its folder."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rarevox.pipeline.cohort import journal as module
from rarevox.pipeline.cohort.journal import FOLDER, Journal
from rarevox.pipeline.cohort.ledger import Ledger


def entry(case: str, t: float = 1.0, status: str = "ok", n: int = 0) -> dict[str, Any]:
    return {"n": n, "t": t, "row": {"case": case, "status": status, "reason": "", "output": f"{case}_seg.nii.gz"}}


def read(folder: Path) -> Ledger:
    ledger = Ledger(folder)
    ledger.refresh()
    return ledger


def lines(folder: Path) -> list[dict[str, Any]]:
    (path,) = (folder / FOLDER).glob("*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lines_are_there_when_their_then_is_called(tmp_path: Path) -> None:
    journal, seen = Journal(tmp_path, {"session": "s"}), []
    told = threading.Event()

    def then() -> None:
        seen.append([line["row"]["case"] for line in lines(tmp_path)[1:]])
        told.set()

    journal.append(entry("a"), then)
    assert told.wait(60)
    assert seen == [["a"]]
    journal.append(entry("b\udcff", float("nan")))
    assert journal.close() == ""
    assert [line["row"]["case"] for line in lines(tmp_path)[1:]] == ["a", "b\udcff"]
    assert lines(tmp_path)[0]["session"] == "s"


def test_a_line_that_a_kill_cut_off_is_no_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {})
    for case in "ab":
        journal.append(entry(case))
    journal.close()
    whole = journal.path.read_bytes()
    last = whole[:-1].rfind(b"\n") + 1
    for cut in (last + 1, len(whole) - 5, len(whole) - 1):
        journal.path.write_bytes(whole[:cut])
        assert list(read(tmp_path).cases()) == ["a"]
    journal.path.write_bytes(whole)
    assert list(read(tmp_path).cases()) == ["a", "b"]


def test_lines_of_another_form_are_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {})
    journal.append(entry("a"))
    journal.close()
    good = json.dumps(entry("b"))
    bad = ["", "[1]", "{", "[" * 5000, '{"n": 1}', '{"n": "x", "t": 1, "row": {"case": "c", "status": "ok"}}']
    bad += ['{"n": 1, "t": 1, "row": {"case": 3, "status": "ok"}}', '{"n": 1, "t": 1, "left": 3}', "\x00\xff"]
    with journal.path.open("a", encoding="latin-1") as file:
        file.write("\n".join([*bad, good]) + "\n")
    ledger = read(tmp_path)
    assert list(ledger.cases()) == ["a", "b"]
    assert ledger.sources[0].torn == len(bad)
    (tmp_path / FOLDER / "other.jsonl").write_text('{"journal": 99}\n' + good.replace("b", "z") + "\n")
    assert list(read(tmp_path).cases()) == ["a", "b"]


def test_a_full_disk_cuts_nothing_in_half_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, real, full = Journal(tmp_path, {}), os.write, [True]

    def write(file: int, content: bytes) -> int:
        if full and b'"row"' in content:
            return real(file, content[:7])
        return real(file, content)

    monkeypatch.setattr(module.os, "write", write)
    told = []
    journal.append(entry("a"), lambda: told.append("a"))
    while not journal.error:
        pass
    assert os.strerror(errno.ENOSPC) in journal.error
    assert told == []
    full.clear()
    journal.append(entry("b"), lambda: told.append("b"))
    assert journal.close() == ""
    assert told == ["a", "b"]
    assert [line["row"]["case"] for line in lines(tmp_path)[1:]] == ["a", "b"]


def test_a_folder_that_is_moved_away_has_its_journal_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    journal = Journal(out, {})
    done = threading.Event()
    journal.append(entry("a"), done.set)
    assert done.wait(60)
    out.rename(tmp_path / "moved")
    journal.append(entry("b"))
    journal.close()
    assert list(read(out).cases()) == ["a", "b"]


def test_a_killed_process_leaves_what_it_was_told_to_be_written(tmp_path: Path) -> None:
    """Every line whose ``then`` was called, which the process prints, is in the journal after SIGKILL."""
    code = (
        "import sys; from pathlib import Path; from rarevox.pipeline.cohort.journal import Journal\n"
        "j = Journal(Path(sys.argv[1]), {})\n"
        "for n in range(10**6):\n"
        "    row = {'case': str(n), 'status': 'ok'}\n"
        "    j.append({'n': n, 't': 1.0, 'row': row}, lambda n=n: print(n, flush=True))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(500)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert set(told) <= set(read(tmp_path).cases())
