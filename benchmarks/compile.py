"""Whether torch.compile pays for whole-scan inference: HighResNet in evaluation, compiled and not, in turns.

Prints the best time of a call of either, the ratio, and what compiling cost: the first call at one size, and the first
at another (scans differ in size, so a tile is of a size not seen before more often than not).

    python benchmarks/compile.py
    python benchmarks/compile.py --size 96 96 96 --device cuda --precision bfloat16
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Run as a script, this file's own folder comes first on the path, and ``import losses`` would find losses.py beside it.
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import torch  # noqa: E402

from rarevox.networks import HighResNet  # noqa: E402
from rarevox.pipeline.device import place_network, select_precision  # noqa: E402

Call = Callable[[torch.Tensor], torch.Tensor]


def seconds(call: Call, image: torch.Tensor) -> float:
    """Wall time of one call, the device's work included."""
    began = time.perf_counter()
    call(image)
    if image.device.type == "cuda":
        torch.cuda.synchronize(image.device)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(48, 48, 48))
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    network = place_network(HighResNet(in_channels=2, out_channels=5, width=arguments.width), device).eval()
    precision = select_precision(arguments.precision, device, network)
    compiled = torch.compile(network)
    x, y, z = arguments.size
    images = [torch.randn(1, 2, x, y, n, device=device) for n in (z, z - 8)]
    images = [image.contiguous(memory_format=torch.channels_last_3d) for image in images]
    with torch.no_grad(), precision.autocast():
        seconds(network, images[0])
        first = [seconds(compiled, image) for image in images]
        plain = min(seconds(network, images[0]) for _ in range(arguments.calls))
        fused = min(seconds(compiled, images[0]) for _ in range(arguments.calls))
    print(
        f"{x}x{y}x{z}, {precision.device} {precision.dtype}: {plain:.3f} s, compiled {fused:.3f} s "
        f"({plain / fused:.2f} x as fast); first call {first[0]:.0f} s, at another size {first[1]:.0f} s"
    )


if __name__ == "__main__":
    main()
