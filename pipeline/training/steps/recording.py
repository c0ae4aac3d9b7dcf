"""What a device is asked to do in every step, recorded once as a CUDA graph and started in one launch from then on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rarevox.pipeline.console import console
from rarevox.pipeline.device import release_memory
from rarevox.pipeline.errors import reason_of

WARM_UPS = 3
"""Passes on the stream of the capture before it, as PyTorch advises: libraries get their workspaces there."""
CAPTURES = 3
"""Of one thing at most: sizes that change again and again go as they would without."""
Replay = Callable[[], Any]


def recorded(run: Callable[[], Sequence[Tensor]], pool: Any, stream: Any) -> tuple[Replay, Any]:
    """Record what ``run`` launches; what starts it anew, and the memory of its results with the graph's pool.

    `torch.cuda.make_graphed_callables` does the like, but lets no other thread ask the device for memory meanwhile,
    and loaders pin the next batches in theirs.

    Args:
        run: its results are tensors.
        pool: of memory, that of an earlier graph say; None makes one.
        stream: to capture on.

    Raises:
        RuntimeError: something waits for the device, or memory is short.
    """
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(stream.device)
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            found = run()
    except BaseException:  # a capture that something has ended does not leave its stream
        torch.cuda.set_stream(before)
        raise
    return graph.replay, (found, graph.pool())


@contextlib.contextmanager
def waits_refused(tensor: Tensor) -> Iterator[None]:
    """Let what waits for the device raise a RuntimeError: to find it before a capture, which it would break.

    Where there is no CUDA nothing is looked for. What other threads do meanwhile is held to it too.
    """
    if not tensor.is_cuda or not hasattr(torch._C, "_cuda_set_sync_debug_mode"):
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def side_stream(tensor: Tensor) -> Any:
    """A stream to capture on, after all that its device has still to do; None where there are none."""
    if not tensor.is_cuda:
        return None
    stream = torch.cuda.Stream(tensor.device)
    stream.wait_stream(torch.cuda.current_stream(tensor.device))
    return stream


def rejoin(tensor: Tensor, stream: Any) -> None:
    """What is launched from now on comes after all of a :func:`side_stream`."""
    if stream is not None:
        torch.cuda.current_stream(tensor.device).wait_stream(stream)


def graphable(tensor: Tensor) -> bool:
    """Whether work on this tensor may be recorded: on CUDA alone."""
    return tensor.is_cuda


class Repeated:
    """A function of tensors, by a graph once tensors of the same kinds have come twice in a row.

    On small volumes launches take the host longer than the device (docs/gpu.md). Where it cannot be captured, and on a
    CPU, the function is called as ever.

    Args:
        function: of a list of tensors, not an empty one, to a list of tensors; it depends on nothing else, and waits
            for nothing.
        name: in words, for what is said where it cannot be captured.

    Attributes:
        captures: how often graphs were recorded.
        why: the reason for which there is no graph, if it could not be captured.

    >>> twice = Repeated(lambda tensors: [2 * one for one in tensors])
    >>> [one.tolist() for one in twice([torch.tensor([1.0])])]
    [[2.0]]
    """

    def __init__(self, function: Callable[[Sequence[Tensor]], list[Tensor]], name: str = "a function") -> None:
        self.function = function
        self.name = name
        self.why = ""
        self.captures = 0
        self._last: list[Any] | None = None
        self._kinds: list[Any] | None = None
        self._inputs: list[Tensor] = []
        self._results: list[Tensor] = []
        self._replay: Replay = tuple

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What the function gives, in memory that the next call writes anew."""
        if self.why or not graphable(tensors[0]):
            return self.function(tensors)
        kinds = [(one.shape, one.stride(), one.dtype, one.device) for one in tensors]
        if kinds != self._kinds:
            if kinds != self._last or self.captures == CAPTURES:
                self._last = kinds
                return self.function(tensors)
            self._capture(tensors)
            if self.why:
                return self.function(tensors)
            self._kinds = kinds
        torch._foreach_copy_(self._inputs, list(tensors))
        self._replay()
        return self._results

    def _capture(self, tensors: Sequence[Tensor]) -> None:
        self.captures += 1
        self._kinds, self._results = None, []
        stream = None
        try:
            with torch.no_grad():
                self._inputs = [one.clone(memory_format=torch.preserve_format) for one in tensors]
                stream = side_stream(tensors[0])  # after the copies
                with torch.cuda.stream(stream), waits_refused(tensors[0]):
                    self.function(self._inputs)
                self._replay, (self._results, _) = recorded(lambda: self.function(self._inputs), None, stream)
        except Exception as error:  # whatever CUDA makes of it, the function can be called without
            self.why = reason_of(error)
        rejoin(tensors[0], stream)
        if self.why:
            self._inputs, self._replay = [], tuple
            release_memory(tensors[0].device)
            console.say("{} goes without a CUDA graph: {}", self.name, self.why)
