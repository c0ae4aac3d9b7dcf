"""Tensors as the jobs of `rarevox.networks.cpu.winograd.job` tell of them."""

from __future__ import annotations

import torch


def extent_table(extents: torch.Tensor | None) -> torch.Tensor | None:
    """``extents`` (B, 3) as the kernels' table of them.

    >>> extent_table(torch.tensor([[3, 4, 5]], dtype=torch.int32)).dtype
    torch.int64
    """
    return None if extents is None else extents.to("cpu", torch.int64).contiguous()


def address_of(tensor: torch.Tensor | None) -> int:
    """Where a tensor begins; 0 for none. The tensor must outlive the job that tells of it.

    >>> address_of(None)
    0
    """
    return 0 if tensor is None else tensor.data_ptr()


def input_fields(
    source: torch.Tensor, stride: int, padding: int, norm: torch.Tensor | None, extents: torch.Tensor | None
) -> dict[str, int]:
    """The fields of the input.

    Args:
        source: (B, D, H, W, C).
        stride: from one voxel to the next.
        padding: zeros at every face.
        norm: scale, shift and slope of each eight of channels, (eights, 3, 8).
        extents: an `extent_table`.
    """
    _, depth, height, width, channels = source.shape
    return {
        "source": address_of(source),
        "depth": depth,
        "height": height,
        "width": width,
        "in_channels": channels,
        "in_stride": stride,
        "padding": padding,
        "norm": address_of(norm),
        "extents": address_of(extents),
    }


def output_fields(target: torch.Tensor) -> dict[str, int]:
    """The fields of the size of the output ``target`` (B, D', H', W', C')."""
    _, depth, height, width, channels = target.shape
    return {"out_depth": depth, "out_height": height, "out_width": width, "out_channels": channels}
