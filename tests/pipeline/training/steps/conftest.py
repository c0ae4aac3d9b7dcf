"""Graphs of Python's calls take the place of a device's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rarevox.pipeline.training.steps import graphed, graphed_loss, muon, recording
from tests.pipeline.training.steps.python_graphs import Again, Recorder


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> Again:
    """Losses and functions of tensors are captured on the CPU too."""
    found = Again()
    for module in (recording, graphed_loss):
        monkeypatch.setattr(module, "recorded", found)
        monkeypatch.setattr(module, "graphable", lambda tensor: True)
    monkeypatch.setattr(muon, "is_on_gpu", lambda tensor: tensor.ndim > 2)  # of the kernels, not of the counters
    return found


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    monkeypatch.setattr(graphed, "recorded", found)

    def usable(network: nn.Module, images: torch.Tensor) -> bool:
        found.network = network
        return True

    monkeypatch.setattr(graphed, "usable", usable)
    return found
