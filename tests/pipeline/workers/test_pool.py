"""Tasks end as results or reasons, whatever becomes of the workers; the engine is a script here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.workers.pool import AHEAD, Death, Event, Pool, Task

Verdict = Callable[[Any, list[Any]], str]
"""Of a task and what its worker had besides: ``done``, ``dies`` or ``hangs``."""


class Scripted:
    """Workers that do one task each between two questions, as a verdict says."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.tasks: dict[int, deque[tuple[int, Any]]] = {}
        self.new: list[Event] = []
        self.together: list[list[Any]] = []
        self.starts = 0
        self.time = 0.0

    def start(self, worker: int) -> None:
        self.starts += 1
        self.tasks[worker] = deque()
        self.new.append(Event(worker, "ready"))

    def send(self, worker: int, number: int, work: Any) -> None:
        self.tasks[worker].append((number, work))
        assert len(self.tasks[worker]) <= AHEAD + 1

    def wait(self, seconds: float) -> Sequence[Event]:
        self.time += 1.0
        events, self.new = self.new, []
        for worker, tasks in self.tasks.items():
            if not tasks:
                continue
            number, work = tasks[0]
            self.together.append([one for _, one in tasks])
            verdict = self.verdict(work, [one for _, one in tasks])
            if verdict == "done":
                tasks.popleft()
                events.append(Event(worker, "done", f"result of {work}", number))
            elif verdict == "dies":
                tasks.clear()
                events.append(Event(worker, "died", "was killed"))
        return events

    def end(self, worker: int) -> None:
        self.tasks[worker].clear()

    def close(self) -> None:
        self.tasks.clear()


def run(engine: Scripted, tasks: Sequence[Any], workers: int = 2, **options: Any) -> dict[Any, Any]:
    pool = Pool(engine, workers, clock=lambda: engine.time, **options)
    found = [(task.work, result) for task, result in pool.run(Task(n, work) for n, work in enumerate(tasks))]
    assert len(found) == len(tasks), "each task ends once"
    return dict(found)


def test_every_task_has_its_result() -> None:
    found = run(Scripted(lambda work, _: "done"), range(20))
    assert found == {n: f"result of {n}" for n in range(20)}


def test_who_ends_its_worker_twice_is_a_death_and_the_others_are_done() -> None:
    engine = Scripted(lambda work, _: "dies" if work == 5 else "done")
    found = run(engine, range(12))
    assert [work for work, result in found.items() if isinstance(result, Death)] == [5]
    assert "was killed" in found[5].reason
    assert engine.together.count([5]) == 1, "its second trial stands alone, and there is no third"


def test_a_task_that_is_killed_beside_the_cause_is_done() -> None:
    """The second of the tasks that a worker has ends it: its neighbours are innocent."""
    found = run(Scripted(lambda work, together: "dies" if 7 in together else "done"), range(12), workers=1)
    assert [work for work, result in found.items() if isinstance(result, Death)] == [7]


def test_one_death_is_no_failure() -> None:
    died: list[Any] = []

    def once(work: Any, together: list[Any]) -> str:
        if work == 3 and not died:
            died.append(work)
            return "dies"
        return "done"

    found = run(Scripted(once), range(6))
    assert not [result for result in found.values() if isinstance(result, Death)]


def test_what_hangs_is_ended_and_the_others_go_on() -> None:
    engine = Scripted(lambda work, _: "hangs" if work == 2 else "done")
    found = run(engine, range(9), seconds=5.0)
    assert [work for work, result in found.items() if isinstance(result, Death)] == [2]
    assert "--scan-minutes" in found[2].reason
    assert engine.starts == 3, "two workers, and one in the place of the one that hung"


def test_a_task_at_which_a_call_ended_before_stands_alone_and_has_one_trial() -> None:
    engine = Scripted(lambda work, _: "dies" if work == "bad" else "done")
    pool = Pool(engine, 2, clock=lambda: engine.time)
    tasks = [Task(0, "bad", ended=1), Task(1, "good", ended=1), *(Task(n, n) for n in range(2, 8))]
    found = {task.work: result for task, result in pool.run(iter(tasks))}
    assert isinstance(found["bad"], Death)
    assert found["good"] == "result of good"
    assert all(together in (["bad"], ["good"]) for together in engine.together if {"bad", "good"} & set(together))


def test_none_is_asked_again() -> None:
    def tasks() -> Iterator[Task | None]:
        yield Task(0, 0)
        for _ in range(3):
            yield None
        yield Task(1, 1)

    engine = Scripted(lambda work, _: "done")
    assert len(list(Pool(engine, 2, clock=lambda: engine.time).run(tasks()))) == 2


class Dying(Scripted):
    def start(self, worker: int) -> None:
        self.starts += 1
        self.tasks[worker] = deque()
        self.new.append(Event(worker, "died", "was killed"))


def test_workers_that_never_begin_are_one_sentence() -> None:
    engine = Dying(lambda work, _: "done")
    with pytest.raises(RequestError, match="workers end before they begin: was killed"):
        run(engine, range(3))
    assert engine.starts < 10


class Refusing(Scripted):
    """The workers started after the first ``good`` ones refuse the work, as where the run's folder has gone."""

    def __init__(self, verdict: Verdict, good: int) -> None:
        super().__init__(verdict)
        self.good, self.ended = good, 0

    def start(self, worker: int) -> None:
        if self.starts < self.good:
            super().start(worker)
        else:
            self.starts += 1
            self.new.append(Event(worker, "refused", "the run has gone"))

    def end(self, worker: int) -> None:
        self.ended += 1
        self.tasks.pop(worker, None)


def test_a_worker_that_cannot_be_replaced_leaves_its_share_to_the_others() -> None:
    engine = Refusing(lambda work, _: "dies" if work == 1 and engine.starts == 2 else "done", good=2)
    pool = Pool(engine, 2, clock=lambda: engine.time)
    found = {task.work: result for task, result in pool.run(Task(n, n) for n in range(12))}
    assert found == {n: f"result of {n}" for n in range(12)}
    assert pool.lost == "the run has gone"
    assert (engine.starts, engine.ended) == (3, 1)


def test_where_none_is_left_it_is_one_sentence_after_what_was_done() -> None:
    engine = Refusing(lambda work, _: "dies" if work == 4 else "done", good=1)
    given: list[Any] = []
    with pytest.raises(RequestError, match="the run has gone"):
        for task, _ in Pool(engine, 1, clock=lambda: engine.time).run(Task(n, n) for n in range(12)):
            given.append(task.work)
    assert given == [0, 1, 2, 3]


def test_one_task_after_another_by_workers_that_stay() -> None:
    engine = Scripted(lambda work, _: {"crash": "dies", "hang": "hangs"}.get(work, "done"))
    pool = Pool(engine, 1, seconds=5.0, clock=lambda: engine.time)
    found = [pool.do(Task(number, work)) for number, work in enumerate(["a", "crash", "b", "hang", "c"])]
    assert [found[0], found[2], found[4]] == ["result of a", "result of b", "result of c"]
    assert [isinstance(found[n], Death) and found[n].late for n in (1, 3)] == [False, True]
    assert engine.starts == 4, "two in the place of those that died, one of that which hung"
