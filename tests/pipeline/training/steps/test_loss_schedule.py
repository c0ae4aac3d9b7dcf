from __future__ import annotations

import math
import time
from types import SimpleNamespace

import pytest
import torch

from rarevox.losses import CombinedLoss, CrossEntropyLoss, DiceCELoss, TverskyLoss
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training.budget import Budget
from rarevox.pipeline.training.steps.loss_schedule import LossSchedule


def shares(loss: CombinedLoss, schedule: LossSchedule, steps: int) -> list[float]:
    """The share of the loss in each of the steps 1, 2, … of a run."""
    found = []
    for iteration in range(1, steps + 1):
        schedule(SimpleNamespace(state=SimpleNamespace(iteration=iteration)))
        found.append(loss.alpha)
    return found


def squared(progress: float) -> float:
    return progress**2


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [0.9, 0.7, 0.5, 0.3]),  # 0.9 − 0.8 t at t = 0, 1/4, 1/2, 3/4
        ("cosine", [0.9, 0.9 - 0.4 * (1 - math.sqrt(0.5)), 0.5, 0.9 - 0.4 * (1 + math.sqrt(0.5))]),
        ("math.sqrt", [0.9, 0.5, 0.9 - 0.8 * math.sqrt(0.5), 0.9 - 0.8 * math.sqrt(0.75)]),
        (squared, [0.9, 0.85, 0.7, 0.45]),
    ],
)
def test_the_share_moves_with_the_progress(shape, expected) -> None:
    loss = DiceCELoss()
    schedule = LossSchedule(loss, Budget(iterations=4), shape=shape, start=0.9, end=0.1)
    assert shares(loss, schedule, 4) == pytest.approx(expected)
    assert schedule.share(1.0) == pytest.approx(0.1)


def test_the_loss_follows_the_share() -> None:
    logits, labels = torch.randn(1, 2, 4, 4), torch.tensor([[0, 1, 0, 1]] * 4).view(1, 1, 4, 4)
    loss = DiceCELoss()
    dice, entropy = loss.terms(logits, labels).values()
    schedule = LossSchedule(loss, Budget(iterations=2), shape="linear")
    shares(loss, schedule, 1)
    torch.testing.assert_close(loss(logits, labels), 2 * dice)
    shares(loss, schedule, 3)  # the third would be the step after the end
    torch.testing.assert_close(loss(logits, labels), 2 * entropy)


def test_with_a_budget_in_minutes_the_minutes_move_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 145.0)
    loss, budget = DiceCELoss(), Budget(minutes=1)
    budget.start_at(100.0)
    assert shares(loss, LossSchedule(loss, budget, shape="linear"), 1) == [0.25]


def test_without_a_shape_the_share_is_left_alone_and_a_loss_of_one_term_is_no_error() -> None:
    attached: list[object] = []
    engine = SimpleNamespace(add_event_handler=lambda *arguments: attached.append(arguments))
    for loss in (DiceCELoss(alpha=0.3), CrossEntropyLoss(), TverskyLoss(alpha=0.3)):
        schedule = LossSchedule(loss, Budget(iterations=2))
        schedule.attach(engine)
        schedule.load_state_dict(schedule.state_dict())
    assert attached == []
    assert TverskyLoss(alpha=0.3).alpha == loss.alpha  # Tversky's α is the price of a false voxel, not a share


def test_the_share_is_saved_and_restored() -> None:
    loss, other = DiceCELoss(), DiceCELoss()
    schedule = LossSchedule(loss, Budget(iterations=4), shape="linear")
    shares(loss, schedule, 2)
    LossSchedule(other, Budget(iterations=4)).load_state_dict(schedule.state_dict())
    assert other.alpha == 0.75


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (CrossEntropyLoss(), {"shape": "linear"}, "needs a loss of two terms, and CrossEntropyLoss has one"),
        (TverskyLoss(), {"shape": "linear"}, "TverskyLoss has one"),
        (DiceCELoss(), {"shape": "lineer"}, "did you mean 'linear'"),
        (DiceCELoss(), {"shape": "math.nothing"}, "is no function"),
        (DiceCELoss(), {"shape": "math.pi"}, "is no function"),
        (DiceCELoss(), {"shape": "linear", "end": -0.5}, "the share -0.5 at progress 1 "),
        (DiceCELoss(), {"shape": "linear", "start": 2}, "the share 2 at progress 0 "),
        (DiceCELoss(), {"shape": lambda t: math.nan}, "the share nan"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(loss, options, message) -> None:
    with pytest.raises(RequestError, match=message):
        LossSchedule(loss, Budget(iterations=2), **options)


def test_a_share_out_of_range_on_the_way_is_refused_when_it_comes() -> None:
    loss = DiceCELoss()
    bump = LossSchedule(loss, Budget(iterations=2), shape=lambda t: 0.0 if t in (0, 1) else 3.0)
    with pytest.raises(RequestError, match=r"the share -2 at progress 0\.5"):
        shares(loss, bump, 2)
