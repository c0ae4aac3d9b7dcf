"""What a device is asked to do in every step, recorded once as a CUDA graph and started in one launch from then on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

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
Recorded = TypeVar("Recorded")


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


class Held(Generic[Recorded]):
    """What is recorded for calls of one kind, once they have come twice in a row.

    One kind is held; another that comes twice in a row takes its place, at most :data:`CAPTURES` times in all. What
    cannot be captured is said once, and not tried again.

    Args:
        tell: is given the reason for which a capture failed, and what was to be captured.

    Attributes:
        recorded: for the last kind that was captured; None where there is none.
        captures: how often something was recorded.
        why: the reason for which there is nothing, if it could not be captured.

    >>> held = Held(print)
    >>> [held.of("a kind", lambda: "a graph", torch.device("cpu")) for _ in range(3)]
    [None, 'a graph', 'a graph']
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.recorded: Recorded | None = None
        self.captures = 0
        self.why = ""
        self._tell = tell
        self._last: Any = None
        self._kind: Any = None

    def of(self, kind: Any, capture: Callable[[], Recorded], device: torch.device) -> Recorded | None:
        """What is held for calls of this kind, and None where they go as they would without.

        Args:
            kind: equal to another where one recording is good for both.
            capture: makes the recording; it may raise anything.
            device: whose memory is given back where that fails.
        """
        if self.why:
            return None
        if kind == self._kind:
            return self.recorded
        if kind != self._last or self.captures == CAPTURES:
            self._last = kind
            return None
        self._kind, self.recorded = None, None
        self.captures += 1
        try:
            self.recorded = capture()
            self._kind = kind
        except Exception as error:  # whatever CUDA makes of it, it can be done without
            self.why = reason_of(error)
        if self.why:
            release_memory(device)  # the traceback, which held some of it, is gone
            self._tell(self.why)
        return self.recorded


def kind_of(tensor: Tensor) -> tuple[Any, ...]:
    """What tensors have in common that one recording is good for: shape, strides, type and device."""
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


class Repeated:
    """A function of tensors, by a graph once tensors of the same kinds have come twice in a row.

    On small volumes launches take the host longer than the device (docs/gpu.md). Where it cannot be captured, and on a
    CPU, the function is called as ever.

    Args:
        function: of a list of tensors, not an empty one, to a list of tensors; it depends on nothing else, and waits
            for nothing.
        name: in words, for what is said where it cannot be captured.

    Attributes:
        held: its graph (:class:`Held`).

    >>> twice = Repeated(lambda tensors: [2 * one for one in tensors])
    >>> [one.tolist() for one in twice([torch.tensor([1.0])])]
    [[2.0]]
    """

    def __init__(self, function: Callable[[Sequence[Tensor]], list[Tensor]], name: str = "a function") -> None:
        self.function = function
        self.held: Held[_Call] = Held(lambda why: console.say("{} goes without a CUDA graph: {}", name, why))

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What the function gives, in memory that the next call writes anew."""
        if not graphable(tensors[0]):
            return self.function(tensors)
        kinds = [kind_of(one) for one in tensors]
        call = self.held.of(kinds, lambda: _Call(self.function, tensors), tensors[0].device)
        return self.function(tensors) if call is None else call(tensors)


class _Call:
    """A call of a function as a graph, and the memory that it reads and writes."""

    def __init__(self, function: Callable[[Sequence[Tensor]], list[Tensor]], tensors: Sequence[Tensor]) -> None:
        with torch.no_grad():
            self.inputs = [one.clone(memory_format=torch.preserve_format) for one in tensors]
            stream = side_stream(tensors[0])
            try:
                with torch.cuda.stream(stream), waits_refused(tensors[0]):
                    function(self.inputs)
                self.replay, (self.results, _) = recorded(lambda: function(self.inputs), None, stream)
            finally:
                rejoin(tensors[0], stream)

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        torch._foreach_copy_(self.inputs, list(tensors))
        self.replay()
        return list(self.results)
