"""Patches per second: this project's loader against MONAI's and TorchIO's, on the same scans in the same run.

Synthetic scans (noise; two structures in six blocks), no augmentation, one patch size, batch size and number of loader
processes for all. Ours: the cache in memory-mapped files (``cache: disk``) and in memory, class-balanced patches.
MONAI's: ``CacheDataset`` with ``RandCropByPosNegLabeld``, as it comes and with the indices of its foreground cached.
TorchIO's: ``Queue`` with ``LabelSampler``, the subjects held in memory. The contestants take turns; printed are medians
and ratios. Then our rate on volumes of growing size (equal amounts of voxels in all), and the memory of a process that
samples the largest of them: what it holds for itself, and the pages of the cache's files that it has mapped, which the
system shares among processes and takes back when memory is short.

    python benchmarks/patches.py
    python benchmarks/patches.py --seconds 10 --turns 5 --output patches.json
    python benchmarks/patches.py --size 96 96 64 --sides 64 96 --seconds 1 --turns 1
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Run as a script, this file's own folder comes first on the path, and ``import losses`` would find losses.py beside it.
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import monai  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from monai.data import CacheDataset, DataLoader  # noqa: E402
from monai.transforms import Compose, FgBgToIndicesd, RandCropByPosNegLabeld, SelectItemsd  # noqa: E402
from torch.utils.data import RandomSampler  # noqa: E402

from rarevox.pipeline.storage.disk_cases import DiskCases  # noqa: E402
from rarevox.pipeline.training.draws.loader import patch_loader  # noqa: E402
from rarevox.pipeline.training.draws.patch_dataset import PatchDataset  # noqa: E402
from rarevox.transforms import IndexForegroundd, RandForegroundPatchd  # noqa: E402

try:
    import torchio
except ImportError:
    torchio = None

KEYS = ["image", "label"]
Batches = Callable[[], Iterator[Any]]


def scan(number: int, size: tuple[int, ...], channels: int) -> dict[str, Any]:
    """Noise, and three blocks of each of two classes."""
    random = np.random.default_rng(number)
    image = torch.from_numpy(random.standard_normal((channels, *size), dtype=np.float32))
    label = torch.zeros((1, *size), dtype=torch.uint8)
    for value in (1, 2, 1, 2, 1, 2):
        corner = [int(random.integers(0, n - 10)) for n in size]
        label[(0, *(slice(c, c + 8) for c in corner))] = value
    return {"image": image, "label": label, "case": str(number)}


def made(case: dict[str, Any]) -> dict[str, Any]:
    """The scan that a case names, for the cache on disk."""
    return scan(case["number"], tuple(case["size"]), case["channels"])


def on_disk(size: tuple[int, ...], count: int, args: argparse.Namespace) -> DiskCases:
    """The cache of ``count`` scans, filled on the first call."""
    data = [{"number": n, "size": list(size), "channels": args.channels, "case": str(n)} for n in range(count)]
    return DiskCases(data, made, IndexForegroundd("label"), folder=Path(args.folder) / "cache", workers=1)


def ours(cases: Any, args: argparse.Namespace, workers: int) -> Batches:
    """The loader of training."""
    dataset = PatchDataset(cases, patch=RandForegroundPatchd(KEYS, (args.patch,) * 3))
    return lambda: iter(patch_loader(dataset, args.batch, workers=workers))


def of_monai(scans: list[dict[str, Any]], args: argparse.Namespace, indexed: bool) -> Batches:
    """CacheDataset and RandCropByPosNegLabeld; every patch around foreground."""
    found = {"fg_indices_key": "label_fg_indices", "bg_indices_key": "label_bg_indices"} if indexed else {}
    crop = RandCropByPosNegLabeld(KEYS, "label", (args.patch,) * 3, pos=1, neg=0, num_samples=1, **found)
    steps = [FgBgToIndicesd("label"), crop, SelectItemsd(KEYS)] if indexed else [crop, SelectItemsd(KEYS)]

    def batches() -> Iterator[Any]:
        dataset = CacheDataset(scans, Compose(steps), progress=False, copy_cache=False)
        endless = RandomSampler(dataset, replacement=True, num_samples=10**7)
        return iter(DataLoader(dataset, batch_size=args.batch, sampler=endless, num_workers=args.workers))

    return batches


def of_torchio(scans: list[dict[str, Any]], args: argparse.Namespace) -> Batches:
    """Queue and LabelSampler, 8 patches a volume; the queue holds 64."""

    def batches() -> Iterator[Any]:
        subjects = [
            torchio.Subject(image=torchio.ScalarImage(tensor=s["image"]), label=torchio.LabelMap(tensor=s["label"]))
            for s in scans
        ]
        queue = torchio.Queue(
            torchio.SubjectsDataset(subjects * (1 + 2000 // len(subjects))),
            max_length=64,
            samples_per_volume=8,
            sampler=torchio.LabelSampler(args.patch, "label"),
            num_workers=args.workers,
        )
        return iter(torchio.SubjectsLoader(queue, batch_size=args.batch, num_workers=0))

    return batches


def rate(batches: Iterator[Any], args: argparse.Namespace) -> float:
    """Patches per second over ``args.seconds``, after 4 batches that are not counted."""
    for _ in range(4):
        next(batches)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < args.seconds:
        next(batches)
        count += 1
    return count * args.batch / (time.perf_counter() - began)


def contest(contestants: dict[str, Batches], args: argparse.Namespace) -> dict[str, list[float]]:
    """The rates of each, in turns; worker processes live as long as a turn."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(args.turns):
        for name, start in contestants.items():
            batches = start()
            rates[name].append(rate(batches, args))
            del batches
    return rates


def memory_of_sampling(size: tuple[int, ...], args: argparse.Namespace, results: Any) -> None:
    """In a process of its own: what sampling adds to its memory, in bytes: its own, and mapped pages of files."""
    torch.set_num_threads(1)
    cases = on_disk(size, 1, args)
    dataset = PatchDataset(cases, patch=RandForegroundPatchd(KEYS, (args.patch,) * 3))
    before = status()
    for start in range(0, 2000, args.batch):
        dataset.__getitems__(list(range(start, start + args.batch)))
    after = status()
    results.put({key: after[key] - before[key] for key in after})


def status() -> dict[str, int]:
    """Resident bytes of this process: anonymous ones and pages of files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[key].split()[0]) * 1024 for name, key in (("own", "RssAnon"), ("mapped", "RssFile"))}


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Ours and the peers' on scans of one size."""
    size = tuple(args.size)
    stored = on_disk(size, args.cases, args)
    scans = [{key: case[key].clone() for key in KEYS} for case in stored]
    held = [IndexForegroundd("label")(s) for s in scans]
    contestants = {
        "rarevox, cache on disk": ours(stored, args, args.workers),
        "rarevox, cache in memory": ours(held, args, args.workers),
        "rarevox, cache on disk, no loader process": ours(stored, args, 0),
        "MONAI CacheDataset + RandCropByPosNegLabeld": of_monai(scans, args, False),
        "MONAI, indices of the foreground cached": of_monai(scans, args, True),
    }
    if torchio is None:
        print("TorchIO is not installed and is left out: pip install torchio")
    else:
        contestants[f"TorchIO {torchio.__version__} Queue + LabelSampler"] = of_torchio(scans, args)
    medians = {name: statistics.median(values) for name, values in contest(contestants, args).items()}
    first = next(iter(medians.values()))
    print(f"{'x'.join(map(str, size))}, {args.cases} scans, {args.workers} loader processes, patches {args.patch}³")
    for name, value in medians.items():
        print(f"  {name:<44} {value:9.1f} patches/s   ours is {first / value:7.2f} x")
    return {"patches_per_second": medians, "ratio": {name: first / value for name, value in medians.items()}}


def growth(args: argparse.Namespace) -> dict[str, Any]:
    """Our rate on cubes of growing side, as many voxels in all of each, and the memory of sampling the largest."""
    voxels = max(args.sides) ** 3
    cubes = {side: on_disk((side,) * 3, max(voxels // side**3, 1), args) for side in args.sides}
    contestants = {str(side): ours(cases, args, args.workers) for side, cases in cubes.items()}
    medians = {name: statistics.median(values) for name, values in contest(contestants, args).items()}
    first = next(iter(medians.values()))
    print("cache on disk, the same number of voxels in each set")
    for name, value in medians.items():
        print(f"  {name:>4}³ {value:9.1f} patches/s   {value / first:5.2f} of the first")
    size = (max(args.sides),) * 3
    results: Any = multiprocessing.get_context("fork").Queue()
    process = multiprocessing.get_context("fork").Process(target=memory_of_sampling, args=(size, args, results))
    process.start()
    memory = results.get(timeout=600)
    process.join()
    volume = voxels * (4 * args.channels + 1)
    print(
        f"memory of sampling one volume of {size[0]}³ ({volume / 1e6:.0f} MB): own {memory['own'] / 1e6:.1f} MB, "
        f"mapped {memory['mapped'] / 1e6:.1f} MB; {(memory['own'] + memory['mapped']) / volume:.2f} of the volume"
    )
    return {"patches_per_second": medians, "memory": memory, "volume_bytes": volume}


def main() -> None:
    """Measure, print and, with --output, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, nargs=3, default=[240, 240, 155])
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 256, 512], help="cubes for the growth")
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--patch", type=int, default=40, help="side in voxels; 40 is the default network's")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each contestant in each turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", help="for the cache; a temporary one by default")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    temporary = None if args.folder else tempfile.mkdtemp(prefix="patches")
    args.folder = args.folder or temporary
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, monai {monai.__version__}, {torch.get_num_threads()} threads")
    try:
        figures = {"peers": compare(args), "growth": growth(args)}
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
    if args.output:
        args.output.write_text(json.dumps({"options": vars(args), **figures}, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
