"""An independent reference for the losses: one-hot tensors and the printed formulas, in float64, voxel by voxel."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from rarevox.losses.sums.cpu import overlap


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(B, 1, *spatial) class indices to (B, classes, *spatial) zeros and ones."""
    return torch.stack([(labels[:, 0] == index).double() for index in range(classes)], 1)


def sums(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> SimpleNamespace:
    """Every column of the table, (B, C), from full-size tensors."""
    p = torch.softmax(logits.double(), 1)
    r = one_hot(labels, logits.shape[1])
    w = torch.ones_like(p[:, :1]) if weight is None else weight.double()
    log_p = torch.log_softmax(logits.double(), 1)
    axes = tuple(range(2, logits.ndim))

    def total(values: Tensor) -> Tensor:
        return (w * values).sum(axes)

    return SimpleNamespace(
        p=p,
        r=r,
        voxels=total(torch.ones_like(p)),
        probability=total(p),
        reference=total(r),
        intersection=total(p * r),
        probability_squared=total(p * p),
        intersection_squared=total(p * p * r),
        cross_entropy=total(-r * log_p),
        uniform_cross_entropy=total(-log_p),
        focal=total(-r * (1 - p) ** 2 * log_p),
    )


def example(
    shape: tuple[int, ...] = (2, 3, 4, 5, 6), seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels in which every class occurs in every sample, and weights between 0.1 and 1.1."""
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
    labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]), generator=generator)
    labels.view(shape[0], -1)[:, : shape[1]] = torch.arange(shape[1])
    weight = torch.rand(shape[0], 1, *shape[2:], generator=generator, dtype=torch.float64) + 0.1
    return logits, labels, weight.to(dtype)


def certain(prediction: Tensor, classes: int, sharpness: float = 100.0) -> Tensor:
    """Float64 logits whose softmax is 1 (to exp(−2·100)) at the class indices (B, 1, *spatial) given."""
    return sharpness * (2 * one_hot(prediction, classes) - 1)


@pytest.fixture
def printed() -> SimpleNamespace:
    """The functions above, for tests."""
    return SimpleNamespace(one_hot=one_hot, sums=sums, example=example, certain=certain)


@pytest.fixture(params=["compiled", "in pieces"])
def either_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernels of the CPU, where Numba is there, and by PyTorch alone."""
    if request.param == "in pieces":
        monkeypatch.setattr(overlap, "fits", lambda *_: False)
