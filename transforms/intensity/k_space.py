"""What a scanner records, line by line, along one axis of k-space: images put together from lines of several.

A line is one frequency along the axis in which phases are encoded, with all frequencies of the other axes. Choosing or
weighing lines commutes with the transform along the others, so that one along this axis is enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F


def moved(image: torch.Tensor, degrees: Sequence[float], shift: Sequence[float]) -> torch.Tensor:
    """A rigidly moved image, linearly interpolated; beyond its faces it goes on as at the faces.

    Voxel x shows what lies at R (x − c) + c + shift, c the centre and R the product of turns in the planes (0, 1),
    (0, 2) and (1, 2), in 2D in (0, 1) alone. Turns are those of the voxel grid.

    Args:
        image: (C, *spatial) of 2 or 3 axes.
        degrees: the angle of each plane, 1 or 3.
        shift: voxels along each axis.

    >>> moved(torch.tensor([[[0.0, 1.0, 2.0]]]), [0.0], [0.0, 1.0])
    tensor([[[1., 2., 2.]]])
    """
    sizes = image.shape[1:]
    matrix = _rotation(np.deg2rad(np.asarray(degrees, float)), len(sizes))
    centre = (np.array(sizes) - 1) / 2
    offset = centre - matrix @ centre + np.asarray(shift, float)
    axes = [torch.arange(n, dtype=torch.float32, device=image.device) for n in sizes]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    index = index @ torch.tensor(matrix.T, dtype=torch.float32, device=image.device)
    index = index + torch.tensor(offset, dtype=torch.float32, device=image.device)
    last = torch.tensor([max(n - 1, 1) for n in sizes], dtype=torch.float32, device=image.device)
    grid = (2 * index / last - 1).flip(-1)  # grid_sample wants the last axis first
    return F.grid_sample(image[None].float(), grid[None], padding_mode="border", align_corners=True)[0]


def _rotation(radians: np.ndarray, dims: int) -> np.ndarray:
    matrix = np.eye(dims)
    for angle, (a, b) in zip(radians, ((0, 1), (0, 2), (1, 2)), strict=False):
        turn = np.eye(dims)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = matrix @ turn
    return matrix


def put_together(images: Sequence[torch.Tensor], bounds: Sequence[int], axis: int) -> torch.Tensor:
    """The complex image whose lines, from the lowest frequency to the highest, are those of one image after the other.

    Args:
        images: each of the same shape, real.
        bounds: the line at which each image but the first begins, rising; line n // 2 of n is that of frequency 0.
        axis: of the lines.

    >>> flat, steep = torch.ones(4), torch.arange(4.0)
    >>> torch.allclose(put_together([steep, flat], [0], 0).real, flat)  # no line is left to the first
    True
    """
    lines = images[0].shape[axis]
    ends = [0, *bounds, lines]
    spectra = [torch.fft.fftshift(torch.fft.fft(image, dim=axis), dim=axis) for image in images]
    parts = [
        spectrum.narrow(axis, first, end - first)
        for spectrum, first, end in zip(spectra, ends[:-1], ends[1:], strict=True)
    ]
    return torch.fft.ifft(torch.fft.ifftshift(torch.cat(parts, axis), dim=axis), dim=axis)


def ghosted(image: torch.Tensor, ghosts: int, intensity: float, axis: int, restore: float = 0.0) -> torch.Tensor:
    """Every n-th line, counted from frequency 0, damped to 1 − intensity; the lines about frequency 0 stay.

    Where n divides the size N, that is the image less intensity / n times the sum of itself moved round by 0, N / n,
    2 N / n … voxels, but for what stays: n − 1 faint copies.

    Args:
        image: real, of any shape.
        ghosts: n, 1 or more.
        intensity: 0 (nothing) to 1 (the lines are gone).
        axis: of the lines.
        restore: share of the lines, those of the lowest frequencies, that stay; frequency 0 always does.

    >>> ghosted(torch.tensor([4.0, 0, 0, 0]), 2, 1.0, 0)
    tensor([ 3.,  1., -1.,  1.])
    """
    lines = image.shape[axis]
    spectrum = torch.fft.rfft(image.float(), dim=axis)
    frequency = torch.arange(spectrum.shape[axis], device=image.device)
    damped = (frequency % ghosts == 0) & (frequency > restore * lines / 2)
    factor = 1 - intensity * damped.float()
    shape = [1] * image.ndim
    shape[axis] = -1
    return torch.fft.irfft(spectrum * factor.reshape(shape), n=lines, dim=axis)
