"""Who follows a computation by PyTorch's operations must meet PyTorch's operations alone."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.flop_counter import FlopCounterMode

from rarevox.compiled import is_eager, is_exported

PLAIN = torch.zeros(3)


class _Asked(torch.nn.Module):
    """Says what the predicates say in the forward pass; 1 for yes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 0 + 2 * int(is_eager(x)) + int(is_exported(x))


EAGER, COMPILED, EXPORTED = 2.0, 0.0, 1.0


def test_plain_tensors_are_eager() -> None:
    assert is_eager(PLAIN, torch.nn.Parameter(PLAIN), None)
    assert not is_exported(PLAIN)
    with torch.inference_mode():
        assert is_eager(torch.zeros(2))
    with torch.device("cpu"):
        assert is_eager(PLAIN)


@pytest.mark.parametrize(
    "x",
    [
        FakeTensorMode().from_tensor(PLAIN),
        TwoTensor(PLAIN, PLAIN),
        torch.nn.Parameter(TwoTensor(PLAIN, PLAIN)),
        torch._to_functional_tensor(PLAIN),
        PLAIN.to_sparse(),
        torch.view_as_complex(torch.zeros(3, 2)).conj().imag,  # negated when it is read
    ],
    ids=["fake", "subclass", "parameter of a subclass", "functional", "sparse", "negated"],
)
def test_what_holds_no_numbers_of_its_own_is_not(x: torch.Tensor) -> None:
    assert not is_eager(x)
    assert not is_eager(PLAIN, x)


def test_modes_and_forward_differentiation_are_not() -> None:
    with FlopCounterMode(display=False):
        assert not is_eager(PLAIN)
    with forward_ad.dual_level():
        assert not is_eager(PLAIN)
    assert is_eager(PLAIN)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx_exports(mode: str) -> None:
    assert make_fx(_Asked(), tracing_mode=mode)(PLAIN)(PLAIN)[0] == EXPORTED


@pytest.mark.parametrize("strict", [True, False])
def test_torch_export_exports(strict: bool) -> None:
    program = torch.export.export(_Asked(), (PLAIN,), strict=strict)
    assert program.module()(PLAIN)[0] == EXPORTED


def test_tracing_exports() -> None:
    assert torch.jit.trace(_Asked(), PLAIN, check_trace=False)(PLAIN)[0] == EXPORTED


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_torch_compile_is_neither(backend: str) -> None:
    torch._dynamo.reset()
    assert torch.compile(_Asked(), backend=backend, fullgraph=True)(PLAIN)[0] == COMPILED


def test_transforms_of_functions_are_not_eager() -> None:
    assert torch.func.vmap(_Asked())(PLAIN)[0] == EXPORTED
    assert torch.func.functional_call(_Asked(), {}, PLAIN)[0] == EAGER
