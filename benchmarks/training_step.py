"""One training step of HighResNet: this project's against MONAI's, on the same patches in the same run.

A step is forward, loss, backward and Adam. Ours: `rarevox.networks.HighResNet`, channels last,
`rarevox.losses.GeneralizedDiceCELoss`, in the precision asked for. MONAI's: `HighResNet` with `GeneralizedDiceLoss` in
float32 as they come, and, where the device computes in half precision, the same with channels last under autocast. On
CUDA ours is there once more with its passes as CUDA graphs (two more steps before the first that counts). The
contestants take turns, so that a slower minute of the machine meets all of them; printed are the median seconds and the
ratios.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --device cuda --steps 50
    python benchmarks/training_step.py --shapes 4x32x48x32 --precision float32 --steps 3
    python benchmarks/training_step.py --shapes 1x85x85x85 --only-ours --checkpointing --steps 1    (its memory)
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Run as a script, this file's own folder comes first on the path, and ``import losses`` would find losses.py beside it.
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import monai  # noqa: E402
import torch  # noqa: E402
from monai.losses import GeneralizedDiceLoss  # noqa: E402
from monai.networks.nets import HighResNet as MonaiHighResNet  # noqa: E402
from torch import nn  # noqa: E402

from rarevox.losses import GeneralizedDiceCELoss  # noqa: E402
from rarevox.networks import HighResNet  # noqa: E402
from rarevox.pipeline.device import Precision, cpu_has_bfloat16, keep_freed_memory, select_precision  # noqa: E402
from rarevox.pipeline.training.steps.graphed import GraphedPasses  # noqa: E402
from rarevox.pipeline.training.steps.steady_statistics import SteadyStatistics  # noqa: E402

Step = Callable[[torch.Tensor, torch.Tensor], None]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def half_precision(device: str) -> str | None:
    """The half precision that a device computes in; None on a CPU with neither AMX nor AVX512-BF16."""
    if device != "cpu":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if cpu_has_bfloat16() else None


def make_step(
    network: nn.Module, loss: nn.Module, device: str, precision: str, channels_last: bool, graphs: bool = False
) -> Step:
    """A training step; its weights live on ``device``."""
    network.to(device).train()
    if channels_last:
        for parameter in network.parameters():
            if parameter.ndim == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    dtype = PRECISIONS[precision]
    # A learning step in float16 would scale its loss; the time of that is nothing beside the network's.
    context = torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32)
    passes, statistics = GraphedPasses(Precision(torch.device(device), dtype)), SteadyStatistics(network)

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last_3d)
        optimizer.zero_grad(set_to_none=True)
        if graphs:
            statistics.keep()
        with context:
            logits = passes.of(network, statistics, images)(images) if graphs else network(images)
        value = loss(logits if isinstance(loss, GeneralizedDiceCELoss) else logits.float(), labels)
        value.backward()
        optimizer.step()

    return step


def network(args: argparse.Namespace) -> HighResNet:
    """Ours."""
    return HighResNet(in_channels=args.channels, out_channels=args.classes, checkpointing=args.checkpointing)


def contestants(args: argparse.Namespace, precision: str) -> dict[str, Step]:
    """Name to step; the first is ours."""
    peer_loss = GeneralizedDiceLoss(to_onehot_y=True, softmax=True)

    def peer() -> nn.Module:
        return MonaiHighResNet(spatial_dims=3, in_channels=args.channels, out_channels=args.classes)

    ours = network(args)
    own = {f"rarevox {precision}": make_step(ours, GeneralizedDiceCELoss(), args.device, precision, True)}
    if args.device != "cpu":
        graphed = make_step(network(args), GeneralizedDiceCELoss(), args.device, precision, True, graphs=True)
        own[f"rarevox {precision}, graphs"] = graphed
    if args.only_ours:
        return own
    steps = {
        **own,
        "MONAI float32": make_step(peer(), peer_loss, args.device, "float32", False),
    }
    half = half_precision(args.device)
    if half is not None:
        steps[f"MONAI {half} channels-last"] = make_step(peer(), peer_loss, args.device, half, True)
    return steps


def measure(steps: dict[str, Step], shape: tuple[int, ...], args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of ``args.steps`` steps of each contestant, in turns, after one that is not counted."""
    batch, *size = shape
    torch.manual_seed(0)
    images = torch.randn(batch, args.channels, *size, device=args.device)
    labels = torch.randint(0, args.classes, (batch, 1, *size), device=args.device)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    # One that is not counted; on CUDA three, of which the second captures graphs.
    idle = 1 if args.device == "cpu" else 3
    for turn in range(idle + args.steps):
        for name, step in steps.items():
            synchronise(args.device)
            start = time.perf_counter()
            step(images, labels)
            synchronise(args.device)
            if turn >= idle:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def synchronise(device: str) -> None:
    """Wait for the device to finish, where it works ahead."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def peak_gb(device: str) -> float:
    """Highest memory so far, in GB: of the device, or resident in this process, libraries and data included."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def parse_shape(text: str) -> tuple[int, ...]:
    """ "2x48x48x48" as (2, 48, 48, 48)."""
    shape = tuple(int(part) for part in text.split("x"))
    if len(shape) != 4 or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"expected BATCHxDEPTHxHEIGHTxWIDTH such as 2x48x48x48, got {text!r}")
    return shape


def main() -> None:
    """Measure, print and, with --output, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", type=parse_shape, nargs="+", default=[(4, 32, 48, 32), (2, 48, 48, 48)])
    parser.add_argument("--channels", type=int, default=1, help="channels of the input")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="counted steps of each contestant")
    parser.add_argument("--device", default="cpu", help="cpu or cuda[:i]")
    parser.add_argument("--precision", choices=["auto", *PRECISIONS], default="auto")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations in ours")
    parser.add_argument("--only-ours", action="store_true", help="leave the peers out; prints the peak memory")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    chosen = select_precision(args.precision, args.device, network(args))
    precision = str(chosen.dtype).removeprefix("torch.")
    where = args.device if args.device == "cpu" else torch.cuda.get_device_name(args.device)
    threads = f"{torch.get_num_threads()} threads, {platform.machine()}"
    print(f"torch {torch.__version__}, monai {monai.__version__}, {where}, {threads}")
    if args.device == "cpu":
        keep_freed_memory(large=True)  # as in `rarevox train`; the peers, in the same process, gain as well
    rows = []
    for shape in args.shapes:
        seconds = measure(contestants(args, precision), shape, args)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        ours = next(iter(medians.values()))
        print("x".join(map(str, shape)))
        for name, median in medians.items():
            print(f"  {name:<32} {median:8.3f} s   {median / ours:6.2f} x ours")
        if args.only_ours:
            print(f"  peak memory so far {peak_gb(args.device):.2f} GB")
        rows.append({"shape": shape, "seconds": medians, "ratio": {n: m / ours for n, m in medians.items()}})
    if args.output:
        args.output.write_text(json.dumps({"steps": args.steps, "precision": precision, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
