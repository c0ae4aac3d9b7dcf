"""What float32 and bfloat16 take on this CPU, for every network that is shipped, and what `precision: auto` takes.

For each network (an overlay of ``configs/networks``) two things are timed, in turns, so that a slower minute of the
machine meets both formats:

- a training step as `rarevox train` does it: forward, generalised Dice + cross-entropy, backward and Muon, with the
  network's own patch and batch;
- an evaluation pass of `DenseInferer` over a scan, in one piece.

Printed are the medians, and bfloat16's time as a share of float32's (the median of the turns' ratios, and their range):
above 1 float32 is the faster one. `auto` is what rarevox takes here; the last line counts where it is the slower one.

    python benchmarks/precision.py
    python benchmarks/precision.py --networks highresnet deepmedic --size 96 96 80 --turns 7
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Run as a script, this file's own folder comes first on the path, and ``import losses`` would find losses.py beside it.
HERE = Path(__file__).resolve().parent
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != HERE]

import torch  # noqa: E402

from rarevox.losses import GeneralizedDiceCELoss  # noqa: E402
from rarevox.networks.cpu.ops import load_kernels  # noqa: E402
from rarevox.pipeline.build import build  # noqa: E402
from rarevox.pipeline.compose import compose  # noqa: E402
from rarevox.pipeline.device import place_network, select_precision  # noqa: E402
from rarevox.pipeline.inference.dense import DenseInferer  # noqa: E402
from rarevox.pipeline.training.heads import heads_of, weighted_sum  # noqa: E402
from rarevox.pipeline.training.steps.muon import Muon  # noqa: E402

sys.path.append(str(HERE))
from machine import processor  # noqa: E402

FORMATS = ("float32", "bfloat16")
Timed = Callable[[], None]


def network_of(config: dict[str, Any]) -> torch.nn.Module:
    """A network of its overlay, on the CPU; the same weights each time."""
    torch.manual_seed(0)
    return place_network(build(config, "network_def"), torch.device("cpu"))


def training_step(config: dict[str, Any], name: str, size: list[int]) -> Timed:
    """One step on the same patches each time."""
    network = network_of(config).train()
    precision, loss = select_precision(name), GeneralizedDiceCELoss()
    optimizer = Muon(network.parameters(), lr=1e-3)
    batch = config["batch_size"]
    images = torch.randn(batch, config["in_channels"], *size).contiguous(memory_format=torch.channels_last_3d)

    def heads() -> list[torch.Tensor]:
        with precision.autocast():
            return heads_of(network(images), len(size))

    labels = torch.randint(0, config["out_channels"], (batch, 1, *heads()[0].shape[2:]), dtype=torch.uint8)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        weighted_sum([loss(head, labels) for head in heads()]).backward()
        optimizer.step()

    return step


def evaluation_pass(config: dict[str, Any], name: str, size: list[int]) -> Timed:
    """Labels of a whole scan."""
    network = network_of(config).eval()
    inferer = DenseInferer(build(config, "geometry"), precision=select_precision(name), mode="exact", reduce="labels")
    image = torch.randn(1, config["in_channels"], *size)

    def scan() -> None:
        inferer(image, network)

    return scan


def in_turns(contestants: dict[str, Timed], turns: int) -> dict[str, list[float]]:
    """Seconds of each, after one that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(turns + 1):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            if turn:
                found[name].append(time.perf_counter() - began)
    return found


def told(seconds: dict[str, list[float]]) -> tuple[str, float]:
    """Medians and the share as cells of a table, and the share alone."""
    shares = [half / full for full, half in zip(seconds["float32"], seconds["bfloat16"], strict=True)]
    share = statistics.median(shares)
    full, half = (statistics.median(seconds[name]) for name in FORMATS)
    return f"{full:.3f} s | {half:.3f} s | {share:.2f} ({min(shares):.2f} to {max(shares):.2f})", share


def main() -> None:
    """Measure and print."""
    shipped = sorted(path.stem for path in (HERE.parent / "configs" / "networks").glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=shipped, choices=shipped)
    parser.add_argument("--size", type=int, nargs=3, default=(96, 96, 80), help="of the scan")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    load_kernels()
    print(f"{torch.get_num_threads()} threads, {processor()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}\n")
    print("| network | auto | step, float32 | bfloat16 | share | scan, float32 | bfloat16 | share |")
    print("|---|---|---|---|---|---|---|---|")
    slower = []
    for name in arguments.networks:
        config = compose("train", network=name, options={"in_channels": 2, "out_channels": 5}).config
        taken = str(select_precision("auto", "cpu", network_of(config)).dtype).removeprefix("torch.")
        cells = []
        for make, size in ((training_step, list(config["patch_size"])), (evaluation_pass, list(arguments.size))):
            seconds = in_turns({each: make(config, each, size) for each in FORMATS}, arguments.turns)
            cell, share = told(seconds)
            cells.append(cell)
            if (share > 1) == (taken == "bfloat16"):
                slower.append(f"{name} ({make.__name__.replace('_', ' ')}, {share:.2f})")
        print(f"| {name} | {taken} | {' | '.join(cells)} |", flush=True)
    print(f"\nslower in what auto takes: {', '.join(slower) or 'none'}")


if __name__ == "__main__":
    main()
