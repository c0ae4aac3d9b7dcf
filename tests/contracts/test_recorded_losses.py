"""Losses that are traced, exported or compiled take PyTorch's operations, and give the numbers that they give."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from rarevox import losses
from tests.contracts.test_losses import every_loss, every_variant, example, with_regions

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
EPS = torch.finfo(torch.float32).eps
SUMMANDS = 2 * 3 * 3 * 4 * 5
"""Of a table's largest sum. Its two orders of summation differ by at most this often the roundoff, of each of the few
sums, products and quotients of a loss, which are of the size of 1 here."""

REFUSED = (losses.ComponentDiceCELoss, losses.DiceTopKLoss)
"""What they compute depends on the values in more than the values."""


def inputs(loss: nn.Module, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and weight of a loss, in float32, which the kernels take."""
    logits, labels, weight = example(loss, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    labels = labels[:, :1].flatten()[torch.randperm(labels[:, :1].numel(), generator=generator)].view_as(labels[:, :1])
    logits = torch.randn(logits.shape, generator=generator)
    classes = 2 if loss.sigmoid else logits.shape[1]
    return logits, with_regions(loss, labels, classes), weight


def traced(loss: nn.Module, *example: Tensor) -> Loss:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return torch.jit.trace(loss, example, check_trace=False)


def exported(loss: nn.Module, *example: Tensor) -> Loss:
    return torch.export.export(loss, example).module()


def graph(loss: nn.Module, *example: Tensor) -> Loss:
    return make_fx(loss)(*example)


@every_loss
@pytest.mark.parametrize("record", [traced, exported])
def test_recorded_on_one_sample_a_loss_is_right_on_another(
    record: Callable[..., Loss], loss_class: type[nn.Module]
) -> None:
    check(record, loss_class())


@every_variant
def test_the_graph_of_every_option_is_right_on_another_sample(
    loss_class: type[nn.Module], options: dict[str, bool]
) -> None:
    check(graph, loss_class(**options))


def check(record: Callable[..., Loss], loss: nn.Module) -> None:
    """Value and gradient, with the bound above."""
    if isinstance(loss, REFUSED):
        with pytest.raises(RuntimeError, match=r"cannot follow; call it outside of what is traced"):
            record(loss, *inputs(loss, 0))
        return
    program = record(loss, *inputs(loss, 0))
    there = inputs(loss, 1)
    value, logits = loss(*there), there[0].clone().requires_grad_()
    found = program(logits, *there[1:])
    assert float((found.detach() - value).abs()) <= 8 * SUMMANDS * EPS * max(1.0, float(value.abs()))
    own = there[0].clone().requires_grad_()
    torch.testing.assert_close(
        torch.autograd.grad(found, logits)[0],
        torch.autograd.grad(loss(own, *there[1:]), own)[0],
        rtol=8 * SUMMANDS * EPS,
        atol=8 * SUMMANDS * EPS,
    )
