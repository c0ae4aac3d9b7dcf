"""One small float32 patch on the CPU: our convolution in two slabs against PyTorch's own, forward and backward.

    python benchmarks/convolution.py

Prints the median seconds of each and their ratio, for layers of HighResNet and DeepMedic at batch 1; both take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from networks.convolution import conv3d

LAYERS = {
    "HighResNet, first stage, 32³": (16, 16, 32, 1),
    "HighResNet narrow, first stage, 40³": (8, 8, 40, 1),
    "DeepMedic, second layer, 23³": (30, 30, 23, 0),
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
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, batch 1, channels last")
    for name, (channels_in, channels, size, padding) in LAYERS.items():
        x = torch.randn(1, channels_in, *(size,) * 3).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
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
