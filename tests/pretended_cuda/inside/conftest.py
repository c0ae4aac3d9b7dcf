"""A ledger for each check, fake tensors while it lasts, and kernels of Triton that only take notes."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rarevox.losses.sums.triton import kernels, overlap
from rarevox.networks.cuda import affine, channels, norm, norm_gradient_kernels, norm_kernels
from rarevox.pipeline.inference.tiling import windows
from rarevox.pipeline.training.steps import late
from tests.pretended_cuda.inside.device import Current, Event
from tests.pretended_cuda.inside.ledger import Ledger


class NotedKernel:
    """A kernel of Triton: started on the current device, which must be that of all its tensors."""

    def __init__(self, name: str, ledgers: list[Ledger]) -> None:
        self.name = name
        self.ledgers = ledgers

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*args: Any, **_: Any) -> None:
            tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
            devices = {tensor.device for tensor in tensors}
            assert devices == {torch.device("cuda", Current.index)}, f"{self.name} on cuda:{Current.index}: {devices}"
            for ledger in self.ledgers:
                ledger.launched(f"triton {self.name}", *tensors)

        return launch


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """Everything in the check happens to fake tensors and is taken down here."""
    torch.manual_seed(0)
    Current.index = 0
    book = Ledger()
    triton = types.SimpleNamespace(next_power_of_2=lambda n: 1 << (n - 1).bit_length(), cdiv=lambda n, m: -(-n // m))
    for module in (kernels, overlap):
        monkeypatch.setattr(module, "triton", triton)
    monkeypatch.setattr(overlap, "why_none", lambda: None)
    for name in ("sums_kernel", "gradient_kernel"):
        monkeypatch.setattr(kernels, name, NotedKernel(name, [book]), raising=False)
    windows.gaussian.cache_clear()
    late._limits.cache_clear()  # fake tensors are of the check that made them
    monkeypatch.setattr(Event, "launched", staticmethod(lambda: book.launched_in_all))
    monkeypatch.setattr(Event, "waited", staticmethod(book.waited))
    monkeypatch.setattr(affine, "triton", triton)
    monkeypatch.setattr(affine, "why_none", lambda: None)
    monkeypatch.setattr(affine.kernels, "affine_act_kernel", NotedKernel("affine_act_kernel", [book]), raising=False)
    for module in (norm, channels):
        monkeypatch.setattr(module, "why_none", lambda: None)
    passes = {
        norm_kernels: ("moments_kernel", "norm_act_kernel"),
        norm_gradient_kernels: ("gradient_sums_kernel", "gradient_kernel"),
    }
    for module, names in passes.items():
        for name in names:
            noted = NotedKernel(f"norm {name}", [book])
            monkeypatch.setattr(module, name, noted, raising=False)
    # Fake tensors are what a tracer has, for whom plain operations are taken; here they stand for real ones.
    for module in [module for name, module in sys.modules.items() if name.startswith("rarevox.")]:
        for name, answer in (("is_eager", True), ("is_recorded", False), ("is_exported", False)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *_, answer=answer: answer)
    with FakeTensorMode(), book:
        yield book
