"""Whole-scan inference, from array to labels: DenseInferer beside MONAI's HighResNet under SlidingWindowInferer.

Each contender runs in a process of its own, so that its peak memory is its own; both get the same random scan. Prints
seconds, peak memory and the ratio.

    python benchmarks/inference.py --size 96 96 80 --precision auto
    python benchmarks/inference.py --size 240 240 155 --only ours        (memory of a whole scan)
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch


def measure(contender: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one contender in this process: seconds of the scan and peak memory in GB."""
    torch.manual_seed(0)
    image = torch.randn(1, arguments.channels, *arguments.size)
    device = torch.device(arguments.device)
    before = peak_gb(device)
    run = ours(arguments, device) if contender == "ours" else peer(arguments, device)
    if arguments.warm_up:
        run(image[..., : image.shape[2] // 2, : image.shape[3] // 2, : image.shape[4] // 2])
    began = time.perf_counter()
    run(image)
    return {"seconds": time.perf_counter() - began, "peak_gb": peak_gb(device), "before_gb": before}


def peak_gb(device: torch.device) -> float:
    """Highest memory so far: of the device, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def ours(arguments: argparse.Namespace, device: torch.device) -> Any:
    """The project's network under DenseInferer, labels out."""
    import networks
    from pipeline.device import place_network, select_precision
    from pipeline.inference.dense import DenseInferer

    kind = {"highresnet": networks.HighResNet, "deepmedic": networks.DeepMedic}[arguments.network]
    network = place_network(kind(in_channels=arguments.channels, out_channels=arguments.classes), device).eval()
    precision = select_precision(arguments.precision, device)
    inferer = DenseInferer(network.geometry, precision=precision, reduce="labels", memory_gb=arguments.memory_gb)
    return lambda image: inferer(image, network)


def peer(arguments: argparse.Namespace, device: torch.device) -> Any:
    """MONAI's HighResNet, 96³ windows at overlap 0.5 in float32, argmax of the class map."""
    from monai.inferers import SlidingWindowInferer
    from monai.networks.nets import HighResNet

    network = HighResNet(3, arguments.channels, arguments.classes).to(device).eval()
    inferer = SlidingWindowInferer(
        (96, 96, 96), sw_batch_size=1, overlap=0.5, mode="gaussian", sw_device=device, device="cpu"
    )

    def run(image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return inferer(image, network).argmax(1)

    return run


def main() -> None:
    """Parse, run both, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(96, 96, 80))
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--network", choices=("highresnet", "deepmedic"), default="highresnet")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--memory-gb", type=float, default=None)
    parser.add_argument("--warm-up", action="store_true", help="run an eighth of the scan first")
    parser.add_argument("--only", choices=("ours", "monai"))
    parser.add_argument("--in-process", choices=("ours", "monai"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        print(json.dumps(measure(arguments.in_process, arguments)))
        return
    rows = {}
    for contender in [arguments.only] if arguments.only else ["ours", "monai"]:
        command = [sys.executable, __file__, *sys.argv[1:], "--in-process", contender]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows[contender] = json.loads(done.stdout.splitlines()[-1])
        found = rows[contender]
        print(
            f"{contender:6} {arguments.network if contender == 'ours' else 'highresnet'} {tuple(arguments.size)}: "
            f"{found['seconds']:.1f} s, peak {found['peak_gb']:.2f} GB ({found['before_gb']:.2f} before the network)"
        )
    if len(rows) == 2:
        print(f"MONAI / ours: {rows['monai']['seconds'] / rows['ours']['seconds']:.1f}× the time")


if __name__ == "__main__":
    main()
