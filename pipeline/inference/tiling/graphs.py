"""Passes of a network as CUDA graphs: all launches of a block in one call, for blocks of a size that has come before.

The first block of a size goes through as ever, by which kernels are compiled and tried out too; the second is captured,
and from then on its graph is started anew. So a scan of one tile whose size comes once costs nothing more.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch

from rarevox.pipeline.console import console
from rarevox.pipeline.device import release_memory
from rarevox.pipeline.errors import reason_of

Pass = Callable[[torch.Tensor], torch.Tensor]

MOST = 4
"""Graphs that are kept. Each holds the memory of a pass over blocks of its size until it goes."""
REMEMBERED = 64
"""Sizes that came once."""


class Captured(NamedTuple):
    """A graph, and the memory from which it reads and into which it writes."""

    graph: Any
    inputs: torch.Tensor
    outputs: torch.Tensor

    def __call__(self, block: torch.Tensor) -> torch.Tensor:
        """What the pass makes of a block; valid until the next one."""
        self.inputs.copy_(block)
        self.graph.replay()
        return self.outputs


def capture(run: Pass, block: torch.Tensor) -> Captured:
    """Record what ``run`` launches for a block; what it computes comes with the first start of the graph.

    Raises:
        RuntimeError: something in the pass waits for the device, or memory is short.
    """
    inputs = torch.empty_like(block)
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(block.device)
    # Other threads read and pin the next scan meanwhile, which must not end the capture.
    with torch.cuda.device(block.device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        outputs = run(inputs)
    return Captured(graph, inputs, outputs)


def usable(network: object, block: torch.Tensor) -> bool:
    """Whether a pass may be captured: on CUDA, in evaluation, with no gradients and within no autocast of others."""
    return (
        block.is_cuda
        and not getattr(network, "training", True)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cuda")  # whose casts of the weights would be the graph's
    )


class Graphs:
    """The graphs of one network, one for each size, layout and kind of block, the last ``most`` that were used.

    A graph reads the weights where they lie, so that training goes on beneath it; another network, or weights that lie
    elsewhere, begin anew. Where a pass cannot be captured that is said once, and all go as they would without.

    Args:
        most: graphs that are kept.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.failed = False
        self._network: Callable[[], object] = lambda: None
        self._places: tuple[int, ...] = ()
        self._captured: OrderedDict[Hashable, Captured] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._captured)

    @property
    def buffer_bytes(self) -> int:
        """What inputs and outputs of all graphs take; the rest that they hold counts as free, as it can be had back."""
        return sum(one.nbytes for found in self._captured.values() for one in (found.inputs, found.outputs))

    def clear(self) -> bool:
        """Give all graphs and their memory back; whether there were any."""
        held = bool(self._captured)
        self._captured.clear()
        self._seen.clear()
        return held

    def of(self, network: object, run: Pass, kind: Hashable) -> Pass:
        """``run``, by graphs where they can be had.

        Args:
            network: which ``run`` calls.
            run: a function of a block alone, the same for the same network and kind.
            kind: what else it depends on, its precision say.
        """
        tensors = [*network.parameters(), *network.buffers()] if isinstance(network, torch.nn.Module) else []
        places = tuple(tensor.data_ptr() for tensor in tensors)
        if self._network() is not network or places != self._places:
            self.clear()
            self._network, self._places = weakref.ref(network), places

        def graphed(block: torch.Tensor) -> torch.Tensor:
            if self.failed or not usable(network, block):
                return run(block)
            return self._passed(run, block, (kind, block.shape, block.stride(), block.dtype, block.device))

        return graphed

    def _passed(self, run: Pass, block: torch.Tensor, key: Hashable) -> torch.Tensor:
        if key in self._captured:
            self._captured.move_to_end(key)
            return self._captured[key](block)
        if key not in self._seen:
            self._seen[key] = None
            while len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
            return run(block)
        while len(self._captured) >= self.most:
            self._captured.popitem(last=False)
        try:
            self._captured[key] = capture(run, block)
        except Exception as error:  # whatever CUDA makes of it, the pass can be had without
            reason = reason_of(error)
        else:
            return self._captured[key](block)
        self.failed = True
        self.clear()
        release_memory(block.device)
        size = "×".join(map(str, block.shape[2:]))
        console.say("[yellow]no CUDA graphs from here on: a pass over {} voxels was not captured: {}[/]", size, reason)
        return run(block)
