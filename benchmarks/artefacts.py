"""What artefacts of motion cost a loader process, beside MONAI's affine augmentation and Gibbs ringing of a patch.

    python benchmarks/artefacts.py [--patch 48] [--channels 2] [--repeats 200]

One thread; every patch gets the artefact. Processor time, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from monai.transforms import RandAffined, RandGibbsNoised

from rarevox.transforms import RandGhostingd, RandMotiond


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    image = torch.randn(options.channels, *[options.patch] * 3, generator=torch.Generator().manual_seed(0))
    ways = {
        "RandMotiond": RandMotiond("image", prob=1.0),
        "RandGhostingd": RandGhostingd("image", prob=1.0),
        "MONAI RandGibbsNoised": RandGibbsNoised("image", prob=1.0, alpha=(0.0, 0.4)),
        "MONAI RandAffined": RandAffined("image", prob=1.0, rotate_range=[0.35] * 3, scale_range=[0.15] * 3),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way.set_random_state(seed=0)
        way({"image": image})
    for _ in range(options.repeats):
        for name, way in ways.items():
            began = time.process_time()
            way({"image": image})
            taken[name].append(1e3 * (time.process_time() - began))
    peer = np.median(taken["MONAI RandAffined"])
    print(f"{options.channels} channels of {options.patch}³, one thread, ms of processor time")
    for name, each in taken.items():
        print(f"{name:22} {np.median(each):6.1f} (95 %: {np.percentile(each, 95):.1f}), {np.median(each) / peer:.2f}")
    print("the last column: of RandAffined's time")


if __name__ == "__main__":
    main()
