"""Calls that share a cohort do each scan once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rarevox.pipeline.cohort.desk import Desk
from rarevox.pipeline.cohort.journal import Journal
from rarevox.pipeline.cohort.ledger import Ledger

ITEMS = [(n, {"case": f"c{n}", "image": f"c{n}.nii.gz"}) for n in range(20)]


def desk(folder: Path, session: str = "s", **options: Any) -> Desk:
    ledger = Ledger(folder)
    ledger.refresh()
    return Desk(folder, ledger, Journal(folder, {"session": session}), ITEMS, session=session, **options)


def row(task: Any) -> dict[str, Any]:
    return {"case": task.work["item"]["case"], "status": "ok", "output": "x"}


def test_two_calls_share_the_scans_and_both_end(tmp_path: Path) -> None:
    desks = [desk(tmp_path), desk(tmp_path)]
    streams = [one.tasks(others) for others, one in enumerate(desks)]
    done: Counter[str] = Counter()
    open_ = [0, 1]
    while open_:
        for n in list(open_):
            task = next(streams[n], "end")
            if task == "end":
                open_.remove(n)
            elif task is not None:
                assert not isinstance(task, str)
                done[task.work["item"]["case"]] += 1
                desks[n].done(task.number, row(task))
    assert done == Counter(item["case"] for _, item in ITEMS)
    for one in desks:
        assert one.close() == ""
    assert list((tmp_path / "journal" / "claims").iterdir()) == []


def test_a_later_session_does_them_again_unless_their_rows_stand(tmp_path: Path) -> None:
    first = desk(tmp_path)
    for task in first.blocking():
        first.done(task.number, row(task))
    first.close()
    again = desk(tmp_path, "t")
    assert len(list(again.tasks())) == len(ITEMS)
    again.close()
    told: list[str] = []
    keeping = desk(tmp_path, "u", stands=lambda item, row: item["case"] != "c3", told=told.append)
    (task,) = keeping.tasks()
    assert task is not None
    assert task.work["item"]["case"] == "c3"
    assert task.work["earlier"]["output"] == "x"
    assert set(told) == {item["case"] for _, item in ITEMS} - {"c3"}
    keeping.close()


def test_what_another_call_has_is_waited_for(tmp_path: Path) -> None:
    one, other = desk(tmp_path), desk(tmp_path)
    stream = one.tasks()
    held = next(stream)
    assert held is not None
    mine = []
    for task in other.tasks():
        if task is None:
            break
        mine.append(task)
        other.done(task.number, row(task))
    assert len(mine) == len(ITEMS) - 1
    one.done(held.number, row(held))
    assert one.close() == ""
    assert other.close() == ""
