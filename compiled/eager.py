"""Whether numbers are at hand and nobody records what is done with them: what every compiled kernel asks first.

A kernel reads and writes memory by its address. Whoever follows a computation by PyTorch's operations (a tracer, an
exporter, a compiler, a transform of `torch.func`, a tensor that is a class of its own) sees nothing of that, and would
take the memory that a result is written to for the result: wrong numbers, without a word.
"""

from __future__ import annotations

import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._device import DeviceContext


def is_eager(*tensors: torch.Tensor | None) -> bool:
    """Whether kernels may work on the memory of ``tensors``; where not, PyTorch's operations are to be taken.

    They may not while something is recorded (`torch.jit`, `torch.export`, `torch.compile`, ``make_fx``, modes of
    dispatch), while a transform of `torch.func` or forward-mode differentiation is at work, and on what is no plain
    strided tensor that holds its own numbers: fake and wrapped tensors, subclasses with operations of their own, lazily
    negated ones. A subclass that only keeps books beside its numbers, as MONAI's MetaTensor does, is taken for plain.

    >>> is_eager(torch.zeros(2), None), is_eager(torch.zeros(2).to_sparse())
    (True, False)
    >>> torch.func.vmap(lambda x: x * is_eager(x))(torch.ones(2)).tolist()
    [0.0, 0.0]
    """
    return not is_recorded() and all(x is None or _holds_numbers(x) for x in tensors)


def is_recorded() -> bool:
    """Whether operations are recorded or transformed rather than only done."""
    # First, so that a compiler that follows this very function goes no further.
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.jit.is_scripting():
        return True
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or any(not isinstance(mode, DeviceContext) for mode in torch.overrides._get_current_function_mode_stack())
    )


def is_exported(x: torch.Tensor) -> bool:
    """Whether a program for inputs of other sizes than that of ``x`` may come of what is done now.

    Sizes must then stay what they are, numbers of the input, and decide nothing. `torch.compile` is none of these: it
    looks at the sizes again in every call.
    """
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    return torch.jit.is_tracing() or any(not isinstance(length, int) for length in x.shape) or is_recorded()


def becomes_program() -> bool:
    """Whether what is done now is kept as a program that will run on other numbers, or transformed as one.

    A compiler is none of these: what it cannot follow it leaves to Python, in every call. Nor is a mode of dispatch
    that only looks on.

    >>> becomes_program(), torch.func.vmap(lambda x: x * becomes_program())(torch.ones(1)).tolist()
    (False, [1.0])
    """
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    return (
        torch.jit.is_tracing()
        or get_proxy_mode() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def _holds_numbers(x: torch.Tensor) -> bool:
    """Whether ``x`` has memory of its own that holds its numbers as they are."""
    return (
        not torch._C._dispatch_keys(x).has(
            torch._C.DispatchKey.Python
        )  # which subclasses with ``__torch_dispatch__`` have
        and x.layout is torch.strided
        and not torch._is_functional_tensor(x)
        and not x.is_neg()
        and not x.is_conj()
    )
