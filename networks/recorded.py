"""Sizes in a program that is recorded for inputs of other sizes: checked when it runs, or by the recorder."""

from __future__ import annotations

import torch
from torch import nn

from rarevox.networks.geometry import Geometry


def check_recorded_size(x: torch.Tensor, geometry: Geometry) -> None:
    """Let a program that is recorded now refuse inputs whose sizes the network cannot take.

    `torch.jit` gets a check that runs with the program; exporters and compilers get conditions on the sizes, which they
    hold against what was said of these, and check in the program where they can. ONNX has none of either.

    Args:
        x: (B, C, *spatial), the example.
        geometry: the network's.
    """
    if torch.jit.is_tracing():
        if not torch.onnx.is_in_onnx_export():
            _refuse_sizes(x, list(geometry.minimum), list(geometry.multiple), list(geometry.base))
        return
    figures = zip(x.shape[2:], geometry.minimum, geometry.multiple, geometry.base, strict=True)
    for length, minimum, multiple, base in figures:
        torch._check(length >= minimum)
        if multiple > 1:
            torch._check((length - base) % multiple == 0)


@torch.jit.script
def _refuse_sizes(x: torch.Tensor, minimum: list[int], multiple: list[int], base: list[int]) -> torch.Tensor:
    for axis in range(len(minimum)):
        length = x.size(axis + 2)
        if length < minimum[axis] or (length - base[axis]) % multiple[axis] != 0:
            raise ValueError("an input size does not fit the network, see its geometry: minimum, multiple and base")
    return x  # a tracer records functions of tensors to tensors alone


class Traced(nn.Module):
    """A network that `torch.jit.trace` takes and `torch.jit.script` refuses in one sentence."""

    def __prepare_scriptable__(self) -> nn.Module:
        """What `torch.jit.script` asks for first.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            f"{type(self).__name__} is traced, not scripted: torch.jit.trace gives a program for all sizes (with MONAI "
            "python -m monai.bundle ckpt_export --use_trace True)"
        )
