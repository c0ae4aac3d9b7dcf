"""3³ convolutions in float32 on the CPU: ours against PyTorch's own, forward and backward.

    python benchmarks/convolution.py

Prints the median seconds of each and their ratio, for layers of HighResNet (its dilated ones on their sub-lattices) and
DeepMedic; both take turns. Ours goes through Winograd's algorithm where it pays, and through two slabs for a small
patch alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from rarevox.networks.cpu.convolution import conv3d
from rarevox.networks.cpu.winograd import convolution as winograd

# (batch, channels in, channels out, size), padding
LAYERS = {
    "HighResNet, 16 channels, one patch of 32³": ((1, 16, 16, 32), 1),
    "HighResNet, 32 channels, dilation 2": ((8, 32, 32, 16), 1),
    "HighResNet, 64 channels, dilation 4": ((64, 64, 64, 8), 1),
    "HighResNet, 64 channels, dilation 4, patches of 96³": ((64, 64, 64, 24), 1),
    "HighResNet narrow, 8 channels, one patch of 40³": ((1, 8, 8, 40), 1),
    "DeepMedic, 30 channels, 23³": ((1, 30, 30, 23), 0),
    "DeepMedic, 40 channels, 4 × 17³": ((4, 40, 40, 17), 0),
}


def timed(convolve: Callable[..., torch.Tensor], x: torch.Tensor, weight: torch.Tensor, padding: int) -> float:
    """Seconds of one forward and backward pass."""
    began = time.perf_counter()
    y = convolve(x, weight, None, padding=(padding,) * 3)
    torch.autograd.grad(y.sum(), (x, weight))
    return time.perf_counter() - began


def main() -> None:
    """Time every layer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    compiled = "with" if winograd.kernels() else "without"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, channels last, {compiled} Numba")
    for name, ((batch, channels_in, channels, size), padding) in LAYERS.items():
        x = torch.randn(batch, channels_in, *(size,) * 3).contiguous(memory_format=torch.channels_last_3d)
        x.requires_grad_()
        weight = torch.randn(channels, channels_in, 3, 3, 3, requires_grad=True)
        seconds: dict[str, list[float]] = {"ours": [], "torch": []}
        for round_ in range(rounds + 1):
            for who, convolve in (("ours", conv3d), ("torch", F.conv3d)):
                taken = timed(convolve, x, weight, padding)
                if round_:
                    seconds[who].append(taken)
        ours, theirs = (statistics.median(seconds[who]) for who in ("ours", "torch"))
        print(f"{name}: ours {1e3 * ours:.1f} ms, torch {1e3 * theirs:.1f} ms, {theirs / ours:.1f} times as fast")


if __name__ == "__main__":
    main()
