"""Convolutions in float32 on the CPU: ours against PyTorch's own, forward and backward.

    python benchmarks/convolution.py

Prints the median seconds of each and their ratio, for layers of HighResNet (its dilated ones on their sub-lattices),
DeepMedic and TwoPathCNN; both take turns. Ours goes through Winograd's algorithm where it pays, through two slabs for
a small patch alone, and through spectra for a wide kernel.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from rarevox.networks.cpu import fourier
from rarevox.networks.cpu.convolution import conv3d
from rarevox.networks.cpu.winograd import convolution as winograd

# (batch, channels in, channels out, size), padding; of wide kernels on slices the kernel
WIDE = {"TwoPathCNN's joint layer, 5 × 51²": ((5, 224, 2, 39), 21), "the same, 1 × 85²": ((1, 224, 2, 73), 21)}
LAYERS = {
    "HighResNet, 16 channels, one patch of 32³": ((1, 16, 16, 32), 1),
    "HighResNet, 32 channels, dilation 2": ((8, 32, 32, 16), 1),
    "HighResNet, 64 channels, dilation 4": ((64, 64, 64, 8), 1),
    "HighResNet, 64 channels, dilation 4, patches of 96³": ((64, 64, 64, 24), 1),
    "HighResNet narrow, 8 channels, one patch of 40³": ((1, 8, 8, 40), 1),
    "DeepMedic, 30 channels, 23³": ((1, 30, 30, 23), 0),
    "DeepMedic, 40 channels, 4 × 17³": ((4, 40, 40, 17), 0),
}


Convolve = Callable[..., torch.Tensor]


def timed(convolve: Convolve, x: torch.Tensor, weight: torch.Tensor, padding: tuple[int, ...]) -> float:
    """Seconds of one forward and backward pass."""
    began = time.perf_counter()
    y = convolve(x, weight, None, padding=padding)
    torch.autograd.grad(y.sum(), (x, weight))
    return time.perf_counter() - began


def wide(x: torch.Tensor, weight: torch.Tensor, bias: None, padding: tuple[int, ...]) -> torch.Tensor:
    """Products of spectra, which take no padding."""
    return fourier.convolve(x, weight, bias)


def layers() -> Iterator[tuple[str, torch.Tensor, torch.Tensor, tuple[int, ...], Convolve, Convolve]]:
    """Name, input in channels last, weight and padding of every layer, with ours and PyTorch's function."""
    for name, ((batch, channels_in, channels, size), padding) in LAYERS.items():
        x = torch.randn(batch, channels_in, *(size,) * 3).contiguous(memory_format=torch.channels_last_3d)
        weight = torch.randn(channels, channels_in, 3, 3, 3)
        yield name, x, weight, (padding,) * 3, conv3d, F.conv3d
    for name, ((batch, channels_in, channels, size), kernel) in WIDE.items():
        for format in (torch.channels_last, torch.contiguous_format):
            x = torch.randn(batch, channels_in, size, size).contiguous(memory_format=format)
            weight = torch.randn(channels, channels_in, kernel, kernel)
            yield f"{name}, {str(format)[6:].replace('_', ' ')}", x, weight, (0, 0), wide, F.conv2d


def main() -> None:
    """Time every layer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="layers whose name holds this")
    options = parser.parse_args()
    compiled = "with" if winograd.kernels() else "without"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, {compiled} Numba")
    for name, x, weight, padding, ours_, theirs_ in layers():
        if options.only not in name:
            continue
        x.requires_grad_()
        weight.requires_grad_()
        seconds: dict[str, list[float]] = {"ours": [], "torch": []}
        for round_ in range(options.rounds + 1):
            for who, convolve in (("ours", ours_), ("torch", theirs_)):
                taken = timed(convolve, x, weight, padding)
                if round_:
                    seconds[who].append(taken)
        ours, theirs = (statistics.median(seconds[who]) for who in ("ours", "torch"))
        print(f"{name}: ours {1e3 * ours:.1f} ms, torch {1e3 * theirs:.1f} ms, {theirs / ours:.1f} times as fast")


if __name__ == "__main__":
    main()
