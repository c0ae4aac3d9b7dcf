from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarevox.pipeline.training.steps.gradients import (
    cosine,
    inner,
    inners,
    term_gradients,
    trained,
    without_conflict,
)


def norm(gradient: list[torch.Tensor]) -> float:
    return math.sqrt(float(inner(gradient, gradient)))


def cosine_between(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    return cosine(*inners(first, second).tolist())


def flat(gradient: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.flatten() for part in gradient])


def test_projection_by_hand() -> None:
    """a = (3, 0 | 1), b = (−1, 2 | 0): a·b = −3, |a|² = 10, |b|² = 5.

    a' = a + 3/5 b = (2.4, 1.2 | 1), b' = b + 3/10 a = (−0.1, 2 | 0.3).
    """
    a = [torch.tensor([3.0, 0.0]), torch.tensor([1.0])]
    b = [torch.tensor([-1.0, 2.0]), torch.tensor([0.0])]
    first, second = without_conflict(a, b)
    torch.testing.assert_close(flat(first), torch.tensor([2.4, 1.2, 1.0]))
    torch.testing.assert_close(flat(second), torch.tensor([-0.1, 2.0, 0.3]))
    assert inner(first, b) == pytest.approx(0, abs=1e-6)
    assert inner(second, a) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("second", [[1.0, 5.0], [0.0, 1.0], [0.0, 0.0]])
def test_gradients_that_do_not_conflict_are_left_alone(second: list[float]) -> None:
    a, b = [torch.tensor([2.0, 0.0])], [torch.tensor(second)]
    assert without_conflict(a, b) == (a, b)


def test_opposite_gradients_cancel() -> None:
    a, b = without_conflict([torch.tensor([1.0, -2.0])], [torch.tensor([-2.0, 4.0])])
    torch.testing.assert_close(a[0], torch.zeros(2))
    torch.testing.assert_close(b[0], torch.zeros(2))


def test_gradients_that_are_not_finite_stay_so_that_the_step_is_skipped() -> None:
    for bad in (math.inf, math.nan):
        pair = without_conflict([torch.tensor([1.0, bad])], [torch.tensor([-5.0, -1.0])])
        assert not torch.isfinite(torch.cat([flat(g) for g in pair])).all()


numbers = st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3)


@given(numbers, numbers, st.floats(0.01, 100))
def test_projection_never_conflicts_and_follows_the_scale(first, second, scale) -> None:
    a, b = [torch.tensor(first).double()], [torch.tensor(second).double()]
    kept, other = without_conflict(a, b)
    room = 1e-9 * (1 + norm(a) * norm(b))
    assert inner(kept, b) >= -room
    assert inner(other, a) >= -room
    assert norm(kept) <= norm(a) * (1 + 1e-9)
    assert inner(kept, a) >= -room  # still downhill for its own term
    scaled, _ = without_conflict([scale * a[0]], b)
    torch.testing.assert_close(scaled[0], scale * kept[0], atol=1e-9, rtol=1e-6)


def test_tiny_gradients_do_not_vanish() -> None:
    """In float32 the squares of 1e-25 are 0, and the projection would divide by it."""
    a, b = [torch.tensor([1e-25, 0.0])], [torch.tensor([-1.0, 1.0])]
    assert norm(a) == pytest.approx(1e-25)
    assert cosine_between(a, b) == pytest.approx(-math.sqrt(0.5))
    torch.testing.assert_close(without_conflict(a, b)[0][0] * 1e25, torch.tensor([0.5, 0.5]))


def test_cosine() -> None:
    a = [torch.tensor([1.0, 0.0]), torch.tensor([0.0])]
    assert cosine_between(a, a) == pytest.approx(1)
    assert cosine_between(a, [torch.tensor([0.0, 3.0]), torch.tensor([4.0])]) == 0
    assert math.isnan(cosine_between(a, [torch.zeros(2), torch.zeros(1)]))


def test_term_gradients_are_those_of_separate_graphs() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    network[0].bias.requires_grad_(False)
    x = torch.randn(5, 3, dtype=torch.float64)
    parameters = trained(network)
    assert len(parameters) == 3
    y = network(x)
    found = term_gradients({"a": y.square().sum(), "b": y[:, 0].exp().sum()}, parameters)
    expected = {}
    for name in ("a", "b"):
        y = network(x)
        (y.square().sum() if name == "a" else y[:, 0].exp().sum()).backward()
        expected[name] = [p.grad.clone() for p in parameters]
        network.zero_grad()
    for name in ("a", "b"):
        torch.testing.assert_close(flat(found[name]), flat(expected[name]))


def test_a_parameter_that_a_term_does_not_touch_has_gradient_zero() -> None:
    w, v = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    found = term_gradients({"a": w.sum(), "b": (w.sum() * v).sum()}, [w, v], keep_graph=True)
    assert [g.tolist() for g in found["a"]] == [[1, 1], [0, 0, 0]]
    assert [g.tolist() for g in found["b"]] == [[3, 3], [2, 2, 2]]
    assert w.grad is None
