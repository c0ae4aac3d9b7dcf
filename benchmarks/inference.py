r"""Whole-scan inference, from array to labels: DenseInferer beside MONAI's HighResNet under SlidingWindowInferer.

Each contender runs in a process of its own, so that its peak memory is its own; all get the same scan. Printed are,
for each: seconds, peak memory, effective TFLOP/s (the multiplications and additions of the network's convolutions in
one pass over the scan, whatever was computed twice, by the seconds), the share of voxels whose label is that of this
project's float32 pass, and the ratio of the times to ours.

    python benchmarks/inference.py --size 96 96 80
    python benchmarks/inference.py --size 240 240 155 --contenders auto float32 monai
    python benchmarks/inference.py --size 240 240 155 --network deepmedic --contenders auto float32
    python benchmarks/inference.py --size 240 240 155 --classes 50 --memory-gb 0.8 --contenders auto
    python benchmarks/inference.py --size 240 240 155 --device cuda \
        --contenders auto graphs float32 bfloat16 float16 monai monai-amp
    python benchmarks/inference.py --run RUN --scan SCAN --contenders auto float32

``graphs`` is ``auto`` with a CUDA graph, which is captured before the pass that counts.

Labels of random weights lie close to their borders everywhere, so that rounding shows more than in a trained network:
the agreement that counts is that of a trained run on a scan (``--run``, ``--scan``).
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Run as a script, this file's own folder comes first on the path, and ``import losses`` would find losses.py beside it.
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import numpy as np  # noqa: E402
import torch  # noqa: E402

OURS = ("auto", "float32", "bfloat16", "float16", "graphs")
PEERS = ("monai", "monai-amp")
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "highresnet": ("HighResNet", {}),
    "deepmedic": ("DeepMedic", {}),
    "deepmedic-residual": ("DeepMedic", {"residual": True}),
    "deepmedic-wide": ("DeepMedic", {"residual": True, "wide": True, "low_resolution_factors": (3, 5)}),
}
Run = Callable[[torch.Tensor], torch.Tensor]


def measure(contender: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one contender in this process; its labels go to ``arguments.labels``."""
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    image, network = subject(arguments, device)
    before = peak_gb(device)
    notes: dict[str, Any] = {}
    if contender in PEERS:
        run = peer(image, classes_of(network, image), contender == "monai-amp", device)
    else:
        run = ours(network, contender, arguments, device, notes)
    if arguments.warm_up or device.type == "cuda":
        for _ in range(2 if contender == "graphs" else 1):  # the second pass is captured
            run(image if device.type == "cuda" else image[..., : image.shape[2] // 2, : image.shape[3] // 2, :])
    began = time.perf_counter()
    labels = run(image)
    seconds = time.perf_counter() - began
    np.save(arguments.labels, labels.numpy().astype(np.uint8))
    flops = pass_flops(network, image.shape)
    return {"seconds": seconds, "peak_gb": peak_gb(device), "before_gb": before, "tflop": flops / 1e12, "notes": notes}


def subject(arguments: argparse.Namespace, device: torch.device) -> tuple[torch.Tensor, torch.nn.Module]:
    """The scan (1, C, *size) on the CPU and the network on its device: a trained run's, or random ones."""
    from rarevox.networks.cpu.ops import load_kernels
    from rarevox.pipeline.device import place_network

    if device.type == "cpu":
        load_kernels()  # as `rarevox predict` does while it reads the first scan
    if arguments.run:
        from rarevox.pipeline.data.datalist import find_scans
        from rarevox.pipeline.inference.segment import Segmenter

        segmenter = Segmenter(arguments.run, device=str(device))
        (item, *_) = find_scans(arguments.scan, segmenter.config["channels"])
        return segmenter.read(item)["image"].as_tensor()[None], segmenter.network
    from rarevox import networks

    name, options = NETWORKS[arguments.network]
    network = getattr(networks, name)(in_channels=arguments.channels, out_channels=arguments.classes, **options)
    network = place_network(network, device).eval()
    return torch.randn(1, arguments.channels, *arguments.size), network


def classes_of(network: torch.nn.Module, image: torch.Tensor) -> int:
    """Classes that a network tells apart."""
    from rarevox.networks import geometry_of

    block = torch.zeros(1, image.shape[1], *geometry_of(network).minimum, device=next(network.parameters()).device)
    with torch.no_grad():
        return int(network(block).shape[1])


def pass_flops(network: torch.nn.Module, shape: torch.Size) -> float:
    """Operations of the convolutions in one pass over the scan, counted from shapes alone."""
    from torch.utils.flop_counter import FlopCounterMode

    from rarevox.networks import geometry_of

    geometry = geometry_of(network)
    size = geometry.input_size(list(shape[2:]))
    counted = geometry.output_size(size)
    shadow = network.to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(torch.zeros(1, shape[1], *size, device="meta"))
    return float(counter.get_total_flops()) * math.prod(shape[2:]) / math.prod(counted)


def peak_gb(device: torch.device) -> float:
    """Highest memory so far: of the device, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def ours(
    network: torch.nn.Module, precision: str, arguments: argparse.Namespace, device: torch.device, notes: dict[str, Any]
) -> Run:
    """The network under DenseInferer, labels out; ``notes`` gets what the inferer decided."""
    from rarevox.networks import geometry_of
    from rarevox.pipeline.device import select_precision
    from rarevox.pipeline.inference.dense import DenseInferer

    graphs = precision == "graphs"
    chosen = select_precision("auto" if graphs else precision, device, network)
    options: dict[str, Any] = {"mode": "exact", "reduce": "labels", "memory_gb": arguments.memory_gb}
    inferer = DenseInferer(geometry_of(network), precision=chosen, cuda_graphs=graphs, **options)

    def run(image: torch.Tensor) -> torch.Tensor:
        labels = inferer(image, network)[0, 0]
        notes.update(inferer.notes, precision=str(chosen.dtype).removeprefix("torch."))
        return labels

    return run


def peer(image: torch.Tensor, classes: int, amp: bool, device: torch.device) -> Run:
    """MONAI's HighResNet, 96³ windows at overlap 0.5, argmax of the class map; float32 or under autocast."""
    from monai.inferers import SlidingWindowInferer
    from monai.networks.nets import HighResNet

    network = HighResNet(3, image.shape[1], classes).to(device).eval()
    inferer = SlidingWindowInferer(
        (96, 96, 96), sw_batch_size=1, overlap=0.5, mode="gaussian", sw_device=device, device="cpu"
    )
    context = torch.autocast(device.type, torch.float16 if device.type == "cuda" else torch.bfloat16, enabled=amp)

    def run(image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), context:
            return inferer(image, network)[0].argmax(0)

    return run


def spawn(contender: str, folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Measure a contender in a process of its own: its figures and labels."""
    path = folder / f"{contender}.npy"
    command = [sys.executable, __file__, *sys.argv[1:], "--in-process", contender, "--labels", str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]), np.load(path)


def main() -> None:
    """Parse, run the contenders, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(96, 96, 80))
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--network", choices=tuple(NETWORKS), default="highresnet")
    parser.add_argument("--run", type=Path, help="a trained run, in place of random weights")
    parser.add_argument("--scan", type=Path, help="a scan for --run")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--memory-gb", type=float, default=None, help="of activations; decides the tiling")
    parser.add_argument("--warm-up", action="store_true", help="run a quarter of the scan first (CUDA: always, whole)")
    parser.add_argument("--contenders", nargs="+", choices=(*OURS, *PEERS), default=["auto", "float32", "monai"])
    parser.add_argument("--in-process", choices=(*OURS, *PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--labels", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run and not arguments.scan:
        parser.error("--run needs --scan")
    if arguments.in_process:
        print(json.dumps(measure(arguments.in_process, arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = {}
        for contender in arguments.contenders:
            rows[contender] = spawn(contender, Path(folder))
            print(f"{contender}: {rows[contender][0]['seconds']:.3f} s", flush=True)
    show(rows)


def show(rows: dict[str, tuple[dict[str, Any], np.ndarray]]) -> None:
    """A line for each contender; ratios are to the first of ours."""
    base = next((rows[name][0]["seconds"] for name in rows if name in OURS), None)
    for name, (found, labels) in rows.items():
        who = f"rarevox {name}" if name in OURS else name
        rate = f", {found['tflop'] / found['seconds']:.2f} TFLOP/s" if name in OURS else ""
        agreed = ""
        if "float32" in rows and name in OURS and name != "float32":
            agreed = f", labels of float32 in {100 * np.mean(labels == rows['float32'][1]):.3f} % of voxels"
        ratio = f", {found['seconds'] / base:.1f} x ours" if base and name in PEERS else ""
        print(
            f"{who:16} {'x'.join(map(str, labels.shape))}: {found['seconds']:.2f} s, peak {found['peak_gb']:.2f} GB "
            f"({found['before_gb']:.2f} before the pass){rate}{agreed}{ratio} {found['notes'] or ''}"
        )


if __name__ == "__main__":
    main()
