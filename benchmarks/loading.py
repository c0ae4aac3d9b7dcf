"""What reading data costs training: steps on drawn patches against the same steps on constant tensors, in one run.

A step is forward, loss, backward and AdamW of the default network. The data are synthetic scans in the cache that is
asked for; patches come through the loader of training, without augmentation, with the default's (MONAI's transforms,
patch by patch) and with the same in batches. The contestants take turns, step by step in blocks; printed are the median
seconds of a step and how much slower it is than on constant tensors.

    python benchmarks/loading.py
    python benchmarks/loading.py --device cuda --cache device --steps 200
    python benchmarks/loading.py --size 96 96 64 --patch 24 --width 4 --steps 4
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Run as a script, this file's own folder comes first on the path, and ``import losses`` would find losses.py beside it.
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import numpy as np  # noqa: E402
import torch  # noqa: E402

from rarevox.losses import GeneralizedDiceCELoss  # noqa: E402
from rarevox.networks import HighResNet  # noqa: E402
from rarevox.pipeline.build import build  # noqa: E402
from rarevox.pipeline.compose import compose  # noqa: E402
from rarevox.pipeline.device import channels_last, place_network, select_precision  # noqa: E402
from rarevox.pipeline.storage.cases import training_cases  # noqa: E402
from rarevox.pipeline.training.draws.loader import patch_loader  # noqa: E402
from rarevox.pipeline.training.draws.patch_dataset import PatchDataset  # noqa: E402
from rarevox.transforms import IndexForegroundd, RandForegroundPatchd  # noqa: E402


def scan(case: dict[str, Any]) -> dict[str, Any]:
    """Noise, and three blocks of each of two classes."""
    random, size = np.random.default_rng(case["number"]), case["size"]
    label = torch.zeros((1, *size), dtype=torch.uint8)
    for value in (1, 2, 1, 2, 1, 2):
        corner = [int(random.integers(0, n - 10)) for n in size]
        label[(0, *(slice(c, c + 8) for c in corner))] = value
    image = torch.from_numpy(random.standard_normal((1, *size), dtype=np.float32))
    return {"image": image, "label": label, "case": str(case["number"])}


class Trainer:
    """The default network and its step."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device = torch.device(args.device)
        options = {} if args.width is None else {"width": args.width}
        self.network = place_network(HighResNet(in_channels=1, out_channels=3, **options), self.device).train()
        self.precision = select_precision("auto", self.device, self.network)
        self.loss = GeneralizedDiceCELoss(batch=True)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3)

    def step(self, batch: dict[str, torch.Tensor]) -> None:
        """One step; it ends when the device has."""
        images = batch["image"].to(self.device, non_blocking=True, memory_format=channels_last(3))
        labels = batch["label"].to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision.autocast():
            logits = self.network(images)
        value = self.loss(logits, labels)
        value.backward()
        self.optimizer.step()
        float(value.detach())


def contestants(args: argparse.Namespace, folder: str) -> dict[str, Iterator[dict[str, torch.Tensor]]]:
    """Name to endless batches; the first is of constant tensors."""
    data = [{"number": n, "size": tuple(args.size), "case": str(n)} for n in range(args.cases)]
    cases = training_cases(
        data, scan, IndexForegroundd("label"), cache=args.cache, folder=folder, device=torch.device(args.device)
    )
    patch = RandForegroundPatchd(["image", "label"], (args.patch,) * 3)
    config = compose("train", config_files=["device"], settings=["mirror_axes=[0]"]).config
    augmentations = {
        "drawn, no augmentation": {},
        "drawn, the default augmentation": {"transform": build(compose("train").config, "augmentation")},
        "drawn, the same in batches": {"batch_transform": build(config, "batch_augmentation")},
    }
    loaders = {}
    for name, more in augmentations.items():
        dataset = PatchDataset(cases, patch=patch, **more)
        loaders[name] = iter(patch_loader(dataset, args.batch, workers=args.workers, device=args.device))
    constant = {key: value.to(args.device) for key, value in next(next(iter(loaders.values()))).items()}
    return {"constant tensors": itertools.repeat(constant), **loaders}


def measure(args: argparse.Namespace, folder: str) -> dict[str, list[float]]:
    """Seconds of each step, the time to get its batch included, in turns after three that are not counted."""
    torch.manual_seed(0)
    trainer = Trainer(args)
    batches = contestants(args, folder)
    seconds: dict[str, list[float]] = {name: [] for name in batches}
    for turn in range(3 + args.steps):
        for name, source in batches.items():
            began = time.perf_counter()
            trainer.step(next(source))
            if turn >= 3:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def main() -> None:
    """Measure, print and, with --output, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, nargs=3, default=[240, 240, 155])
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--patch", type=int, default=40)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--width", type=int, help="channels of the first stage; by default the network's own")
    parser.add_argument("--cache", default="disk", help="memory, disk or device")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="cpu", help="cpu or cuda[:i]")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="loading")
    try:
        medians = {name: statistics.median(values) for name, values in measure(args, folder).items()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    first = next(iter(medians.values()))
    where = args.device if args.device == "cpu" else torch.cuda.get_device_name(args.device)
    print(f"torch {torch.__version__}, {where}, cache {args.cache}, batch {args.batch} of {args.patch}³")
    for name, value in medians.items():
        print(f"  {name:<34} {1000 * value:9.2f} ms a step   {100 * (value / first - 1):+6.2f} %")
    if args.output:
        args.output.write_text(json.dumps({"options": vars(args), "seconds": medians}, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
