from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training.budget import Budget, PolynomialDecay, decay_factor


def test_progress_by_iterations() -> None:
    budget = Budget(iterations=4)
    assert [budget.progress(n) for n in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]


def test_minutes_count_from_the_command_and_go_on_after_resuming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 115.0)
    budget = Budget(iterations=10, minutes=1)
    budget.start_at(100.0)
    assert budget.progress(9) == 0.25
    resumed = Budget(minutes=1)
    resumed.load_state_dict(budget.state_dict())
    assert resumed.progress(0) == 0.25
    monkeypatch.setattr(time, "monotonic", lambda: 130.0)
    assert (budget.progress(9), resumed.progress(0)) == (0.5, 0.5)


def test_the_rate_rises_over_the_first_steps_however_long_the_cases_were_read(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [115.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    budget = Budget(minutes=1)
    budget.start_at(100.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    decay = PolynomialDecay(optimizer, budget, warmup=0.1, power=1.0)
    # 45 s are left of the 60: the rise takes 4.5 of them, and half of the other 40.5 are over at 139.75.
    for iteration, now, rate in (
        (1, 115.0, 0.01),
        (2, 117.25, 0.5),
        (3, 119.5, 1.0),
        (4, 139.75, 0.5),
        (5, 160.0, 0.0),
    ):
        clock[0] = now
        decay(SimpleNamespace(state=SimpleNamespace(iteration=iteration)))  # type: ignore[arg-type]
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, abs=1e-9)
    resumed = Budget(minutes=1)
    resumed.load_state_dict(budget.state_dict())
    assert resumed.begun_seconds == budget.begun_seconds == 15.0


@pytest.mark.parametrize(
    ("more", "share"),
    [
        ({"minutes": 1.0}, 0.0),  # as it was: 24 of 60 s were read, and the first step is to come
        ({"minutes": 2.0}, 0.0),
        ({"iterations": 48}, 0.25),  # 12 steps were done
        ({"iterations": 1200}, 0.01),
    ],
)
def test_another_budget_goes_on_where_the_steps_are(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, float], share: float
) -> None:
    """What reading took is a time, no share of whatever budget: the rate neither rises anew nor stands still."""
    clock = [24.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    budget = Budget(minutes=1)
    budget.start_at(0.0)
    decay = PolynomialDecay(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), budget)
    decay(SimpleNamespace(state=SimpleNamespace(iteration=1)))  # type: ignore[arg-type]
    resumed = Budget(**more)
    resumed.load_state_dict(budget.state_dict())
    assert resumed.of_steps(12) == pytest.approx(share)
    clock[0] += 18.0  # half of the 36 s that a minute leaves, 18 of the 96 that two leave
    assert resumed.of_steps(12) == pytest.approx({1.0: 0.5, 2.0: 0.1875}.get(more.get("minutes", 0), share))


@pytest.mark.parametrize("options", [{}, {"iterations": 0}, {"minutes": -1.0}])
def test_an_empty_budget_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(RequestError, match="positive"):
        Budget(**options)


def test_the_rate_rises_then_falls_to_zero() -> None:
    factors = [decay_factor(p / 100, warmup=0.1, power=0.9) for p in range(101)]
    assert factors[0] == 0
    assert factors[10] == 1
    assert factors[100] == 0
    assert all(a < b for a, b in zip(factors[:10], factors[1:11], strict=True))
    assert all(a > b for a, b in zip(factors[10:], factors[11:], strict=False))


def test_each_group_keeps_its_own_base_rate() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [parameters[0]], "lr": 1.0}, {"params": [parameters[1]], "lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    decay = PolynomialDecay(optimizer, Budget(iterations=10), warmup=0.0, power=1.0)
    decay(SimpleNamespace(state=SimpleNamespace(iteration=6)))  # type: ignore[arg-type]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.05])
