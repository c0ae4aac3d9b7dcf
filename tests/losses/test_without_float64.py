"""Devices without float64 (Apple's): no loss makes a float64 tensor there, forward or backward."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rarevox import losses
from rarevox.losses.sums import chunks
from rarevox.losses.sums.cpu import overlap as cpu

CONCRETE = [
    loss
    for name in losses.__all__
    if inspect.isclass(loss := getattr(losses, name)) and issubclass(loss, losses.Loss) and not inspect.isabstract(loss)
]


class _NoFloat64(TorchDispatchMode):
    """As such a device does: an error where an operation gives a float64 tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                raise TypeError(f"{func} makes a float64 tensor")
        return result


@pytest.fixture
def poor_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU in the part of such a device: PyTorch's operations, on the thread that the mode above sees."""
    monkeypatch.setattr(chunks, "WITHOUT_FLOAT64", {"cpu"})
    monkeypatch.setattr(cpu, "fits", lambda *_: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


def example(loss: losses.Loss) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    classes = 2 if loss.sigmoid else 3
    logits = torch.randn((2, 1 if loss.sigmoid else classes, 3, 4, 5), generator=generator)
    channels = classes if loss.needs_regions else 1  # any whole numbers are regions
    labels = torch.randint(0, classes, (2, channels, 3, 4, 5), generator=generator)
    return logits.requires_grad_(), labels, torch.rand(2, 1, 3, 4, 5, generator=generator)


@pytest.mark.parametrize("options", [{}, {"batch": True}, {"sigmoid": True}, {"ignore_index": 1}], ids=str)
@pytest.mark.parametrize("loss_class", CONCRETE)
def test_no_float64_tensor_is_made(poor_cpu, loss_class, options):
    loss = loss_class(**options)
    logits, labels, weight = example(loss)
    with _NoFloat64():
        loss(logits, labels, weight).backward()
    assert logits.grad is not None


@pytest.mark.parametrize("loss_class", CONCRETE)
def test_the_loss_is_that_of_other_devices_to_float32(monkeypatch, poor_cpu, loss_class):
    loss = loss_class()
    logits, labels, weight = example(loss)
    narrow = loss(logits, labels, weight)
    monkeypatch.setattr(chunks, "WITHOUT_FLOAT64", frozenset())
    # 120 summands of the same sign: their float32 sum is within 120 roundings of 2^-24 of the float64 sum. A formula
    # divides two of them, of which either may be a difference, here of no less than a quarter of its parts: 2 · 4.
    torch.testing.assert_close(narrow, loss(logits, labels, weight), rtol=8 * 120 * 2**-24, atol=0)


def test_the_mode_sees_what_it_must(poor_cpu, monkeypatch):
    monkeypatch.setattr(chunks, "WITHOUT_FLOAT64", frozenset())
    for loss in (losses.DiceLoss(), losses.ComponentDiceCELoss()):
        with pytest.raises(TypeError, match="makes a float64 tensor"), _NoFloat64():
            loss(*example(loss))
