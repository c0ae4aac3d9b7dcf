"""Batch norm in training with ReLU on a GPU: the kernels of `rarevox.networks.cuda.norm` against PyTorch's operations.

    python benchmarks/norms.py --device cuda
    python benchmarks/norms.py --device cuda --shapes 2x48x48x48x64 --precision float32

One step is forward and backward of one norm with its activation, on volumes with the channels innermost. Printed are
the medians of both, in turns, and their ratio; what the memory traffic alone would take (8 passes, at the bandwidth of
a copy in the same run); and what the host takes to launch either, which is what binds small volumes: from which size on
the kernels are taken (`LEAST_BYTES`) was worked out from 20 µs a launch of Triton.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from rarevox.networks.cuda import norm as fused

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHAPES = [(2, 48, 48, 48, 16), (2, 48, 48, 48, 64), (2, 96, 96, 96, 16), (2, 96, 96, 96, 64), (2, 45, 45, 45, 32)]
PASSES = 8
"""Over the volume: x for the statistics, x to y; x and the gradient for its sums, x and the gradient to that of x."""

Step = Callable[[], None]


def parse_shape(text: str) -> tuple[int, ...]:
    """ "2x48x48x48x64" as (2, 48, 48, 48, 64)."""
    shape = tuple(int(part) for part in text.split("x"))
    if len(shape) != 5 or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"expected BATCHxDEPTHxHEIGHTxWIDTHxCHANNELS, got {text!r}")
    return shape


def contestants(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> dict[str, Step]:
    """Name to step; the first is ours."""
    batch, *size, channels = shape
    x = torch.randn(batch, *size, channels, device=device, dtype=dtype).movedim(-1, 1).requires_grad_()
    g = torch.randn(batch, *size, channels, device=device, dtype=dtype).movedim(-1, 1)
    norm, activation = nn.BatchNorm3d(channels).to(device), nn.ReLU(inplace=True)
    leaves = [x, *norm.parameters()]

    def ours() -> None:
        torch.autograd.grad(fused.norm_act(x, norm, activation), leaves, g)

    def peer() -> None:
        torch.autograd.grad(activation(norm(x)), leaves, g)

    return {"rarevox": ours, "PyTorch": peer}


def seconds(step: Step, device: str) -> tuple[float, float]:
    """Until the host has launched a step, and until the device is done."""
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    launched = time.perf_counter() - start
    torch.cuda.synchronize(device)
    return launched, time.perf_counter() - start


def traffic_seconds(shape: tuple[int, ...], dtype: torch.dtype, device: str, repeats: int) -> float:
    """What `PASSES` take at the bandwidth of a copy, of two."""
    source = torch.zeros(shape, dtype=dtype, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)

    times = [seconds(copy, device)[1] for _ in range(repeats)]
    return PASSES / 2 * statistics.median(times)


def measure(shape: tuple[int, ...], dtype: torch.dtype, device: str, repeats: int) -> None:
    """Print one row a contestant."""
    steps = contestants(shape, dtype, device)
    bound = traffic_seconds(shape, dtype, device, repeats)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for turn in range(2 + repeats):
        for name, step in steps.items():
            taken = seconds(step, device)
            if turn > 1:  # the first compiles
                times[name].append(taken)
    megabytes = torch.Size(shape).numel() * dtype.itemsize / 2**20
    print(f"\n{'×'.join(map(str, shape))}, {megabytes:.0f} MiB: memory traffic alone {bound * 1e3:.3f} ms")
    medians = {
        name: [statistics.median(column) for column in zip(*taken, strict=True)] for name, taken in times.items()
    }
    ours = medians["rarevox"][1]
    for name, (launched, done) in medians.items():
        print(
            f"  {name:8} {done * 1e3:8.3f} ms   {done / ours:5.2f} x ours   {done / bound:6.2f} x traffic   "
            f"launched in {launched * 1e6:6.0f} us"
        )


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda or cuda:i")
    parser.add_argument("--shapes", type=parse_shape, nargs="+", default=SHAPES)
    parser.add_argument("--precision", choices=PRECISIONS, default="bfloat16")
    parser.add_argument("--repeats", type=int, default=20, help="steps of each contestant (20)")
    args = parser.parse_args()
    if not args.device.startswith("cuda") or not torch.cuda.is_available():
        raise SystemExit("the kernels run on a CUDA device alone; this machine or --device has none")
    if not fused.knows(nn.BatchNorm3d(2).to(args.device), nn.ReLU()):
        raise SystemExit("Triton's kernels cannot be used here; `rarevox doctor` says why")
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name(args.device)}, {args.precision}")
    for shape in args.shapes:
        measure(shape, PRECISIONS[args.precision], args.device, args.repeats)


if __name__ == "__main__":
    main()
