"""The network of a training step as CUDA graphs: all launches of its pass forward in one call, those back in another.

The loss and the optimiser's directions have graphs of their own (`graphed_loss`, `recording`); clipping, the rest of
the optimiser and whether to take the step are launched as ever, so that what changes from step to step, the learning
rate say, needs no place on the device. One number within the network does change, the momentum of its batch norms: in a
graph it is 1, which leaves the batch's own statistics, and
:meth:`rarevox.pipeline.training.steps.steady_statistics.SteadyStatistics.blend` moves the running ones by them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from rarevox.networks.cuda.norm import in_graph
from rarevox.pipeline.console import console
from rarevox.pipeline.device import Precision, set_aside, unused_bytes
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.steps.recording import WARM_UPS, Held, kind_of, recorded, rejoin, side_stream
from rarevox.pipeline.training.steps.steady_statistics import SteadyStatistics


class Captured:
    """The two graphs for patches of one size, and the memory between which they compute.

    Args:
        network: in training.
        images: a batch like those that will come.
        statistics: of the network's batch norms, kept as they were before this step.
        precision: of the pass.
    """

    def __init__(self, network: nn.Module, images: Tensor, statistics: SteadyStatistics, precision: Precision) -> None:
        self.parameters = [one for one in network.parameters() if one.requires_grad]
        self.inputs = images.detach().clone(memory_format=torch.preserve_format)
        logits: list[Tensor] = []
        kind, half = images.device.type, precision.dtype != torch.float32

        def forward() -> list[Tensor]:
            # No cast of a weight may outlast the capture: the weights change.
            with torch.autocast(kind, precision.dtype, enabled=half, cache_enabled=False):
                logits[:] = [network(self.inputs)]
            return logits

        def backward() -> list[Tensor]:
            # What the pass forward saved must outlast a pass back: there may be several. Unless it is kept, its memory
            # is given to what is computed on the way, and a second pass back reads that.
            keep = {"retain_graph": True, "allow_unused": True}
            found = torch.autograd.grad(logits, self.parameters, [self.gradient], **keep)
            self.used = [one is not None for one in found]
            return [one for one in found if one is not None]

        self.number = 0
        before = {name: buffer.clone() for name, buffer in network.named_buffers()}
        stream = side_stream(images)
        try:
            with statistics.of_the_batch_alone(), in_graph():
                with torch.cuda.stream(stream):
                    for _ in range(WARM_UPS):
                        (y,) = forward()
                        if not isinstance(y, Tensor):
                            raise TypeError(f"the network answers with a {type(y).__name__}, not with a tensor")
                        self.gradient = torch.zeros_like(y)
                        backward()
                        logits.clear()  # or what this pass saved would lie beside the next one's
                        del y
                    require_plain_statistics(network, before)
                self._forward, ((self.logits,), pool) = recorded(forward, None, stream)
                self._backward, (self.gradients, _) = recorded(backward, pool, stream)
            # Of the pass only its memory is used from now on. Its nodes would keep the parameters' own alive, which
            # then run on the stream of the capture in every step, each with a wait for the other stream.
            self.logits = self.logits.detach()
            logits.clear()
        finally:  # what the trials moved
            rejoin(images, stream)
            with torch.no_grad():
                for name, buffer in network.named_buffers():
                    buffer.copy_(before[name])

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of a batch, with the way back."""
        logits: Tensor = _Passes.apply(self, images, *self.parameters)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits, valid until the next batch."""
        self.number += 1
        self.inputs.copy_(images)
        self._forward()
        return self.logits.detach()

    def backward(self, gradient: Tensor) -> list[Tensor | None]:
        """Gradients of the parameters, in memory of their own: of one pass forward there may be several back."""
        self.gradient.copy_(gradient)
        self._backward()
        own = [torch.empty_like(one) for one in self.gradients]
        torch._foreach_copy_(own, self.gradients)
        found = iter(own)
        return [next(found) if used else None for used in self.used]


def require_plain_statistics(network: nn.Module, before: Mapping[str, Tensor]) -> None:
    """Refuse a network whose pass moves more than the statistics of batch norms, each once: only those are blended.

    Args:
        network: after :data:`WARM_UPS` passes.
        before: its buffers before them.

    Raises:
        ValueError: another buffer has moved, or a batch norm more than once in a pass.
    """
    for path, module in network.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            old = before[f"{path}.{name}" if path else name]
            if not isinstance(module, _BatchNorm):
                if not torch.equal(buffer, old):
                    raise ValueError(f"{path}.{name} moves in a pass, and belongs to no batch norm")
            elif name == "num_batches_tracked" and int(buffer - old) != WARM_UPS:
                raise ValueError(f"the batch norm {path} is not passed once in each pass")


class _Passes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, captured: Captured, images: Tensor, *parameters: Tensor) -> Tensor:
        ctx.captured = captured
        logits = captured.forward(images)
        ctx.number = captured.number
        return logits

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Any:
        if ctx.number != ctx.captured.number:
            raise RuntimeError("the graphs hold a later pass: call the network once a step, or leave cuda_graphs out")
        return None, None, *ctx.captured.backward(gradient)


class Leaves:
    """A network's parameters and buffers and where they lie; equal to itself alone.

    To ask a module for its parameters takes 50 µs for each ten of them, and a step asks whether all lie where they lay.
    A module that takes another's place within the network is not seen.

    Args:
        network: whose parameters and buffers are looked up now.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._found: list[tuple[dict[str, Any], str, Tensor, int, bool]] = []
        for module in network.modules():
            for places in (module._parameters, module._buffers):
                for name, one in places.items():
                    if one is not None:
                        self._found.append((places, name, one, one.data_ptr(), one.requires_grad))

    def are_those_of(self, network: nn.Module) -> bool:
        """Whether ``network`` is the same, and each parameter and buffer, its memory and whether it is trained."""
        return network is self.network and all(
            places.get(name) is one and one.data_ptr() == pointer and one.requires_grad == trained
            for places, name, one, pointer, trained in self._found
        )


class GraphedPasses:
    """Passes of a step's network, by graphs once batches of one size have come twice in a row.

    One size has graphs, which hold the memory of a pass as long as they live; others go as they would without. Where a
    pass cannot be captured that is said once, and all go as they would without.

    Args:
        precision: of the passes.

    Attributes:
        held: the graphs (:class:`rarevox.pipeline.training.steps.recording.Held`).
        active: whether the last pass went by graphs, so that its logits lie where those of the next will.
    """

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        self.held: Held[Captured] = Held(
            lambda why: console.say("[yellow]no CUDA graphs of training steps: no pass was captured: {}[/]", why)
        )
        self._leaves: Leaves | None = None
        self.active = False

    def of(
        self, network: nn.Module, statistics: SteadyStatistics, images: Tensor
    ) -> nn.Module | Callable[[Tensor], Tensor]:
        """``network``, by graphs where they can be had; running statistics are those of its own pass in any case.

        Args:
            network: in training.
            statistics: of its batch norms, kept as they were.
            images: a batch of the step; where nothing is captured for its like, on a CPU say, the network comes back.
        """
        self.active = False
        if not usable(network, images):
            return network

        def passed(images: Tensor) -> Tensor:
            captured = self._for(network, images, statistics)
            self.active = captured is not None
            if captured is None:
                return network(images)  # type: ignore[no-any-return]
            logits = captured(images)
            statistics.blend()
            return logits

        return passed

    def _for(self, network: nn.Module, images: Tensor, statistics: SteadyStatistics) -> Captured | None:
        if self._leaves is None or not self._leaves.are_those_of(network):
            self._leaves = Leaves(network)
        kind = (kind_of(images), self._leaves)
        return self.held.of(kind, lambda: self._capture(network, images, statistics), images.device)

    def _capture(self, network: nn.Module, images: Tensor, statistics: SteadyStatistics) -> Captured:
        if images.is_cuda:
            torch.cuda.empty_cache()  # graphs have memory of their own: what the steps before held is no use to them
        unused = unused_bytes(images.device)
        captured = Captured(network, images, statistics, self.precision)
        # Between its passes nothing of this memory is in use, and yet nobody else can have it.
        set_aside(captured, images.device, unused_bytes(images.device) - unused)
        return captured


def usable(network: nn.Module, images: Tensor) -> bool:
    """Whether to try to capture a pass: on CUDA, in training, in one process."""
    return images.is_cuda and processes.count() == 1 and network.training
