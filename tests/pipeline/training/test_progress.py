from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from rarevox.pipeline.training.budget import Budget
from rarevox.pipeline.training.progress import ProgressLine

NONE_YET = SimpleNamespace(best=-1.0)


def line(budget: Budget) -> ProgressLine:
    return ProgressLine(budget=budget, validation=NONE_YET)  # type: ignore[arg-type]


def test_the_time_left_is_told_at_the_pace_of_the_steps_without_what_came_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown = line(Budget(iterations=10))
    now[0] = 1000.0  # reading, and the first step with the compiling that it starts
    assert shown.describe(1) == " 10%  step 1"
    now[0] = 1020.0  # two steps of 10 s
    assert shown.describe(3) == " 30%  step 3  left 1:10"
    now[0] = 1090.0
    assert shown.describe(10) == "100%  step 10  left 0:00"


def test_a_run_that_goes_on_takes_the_pace_of_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    budget = Budget(iterations=100)
    budget.load_state_dict({"seconds": 7777.0})
    shown = line(budget)
    assert "left" not in shown.describe(51)
    now[0] = 2.0
    assert shown.describe(52) == " 52%  step 52  left 1:36"


def test_of_minutes_the_rest_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    budget = Budget(minutes=2)
    monkeypatch.setattr(time, "monotonic", lambda: 45.0)
    assert line(budget).describe(1) == " 38%  step 1  left 1:15"
