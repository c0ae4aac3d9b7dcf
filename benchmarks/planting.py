"""What planting lesions costs a loader process, beside one of MONAI's affine augmentations of the same patches.

    python benchmarks/planting.py [--patch 48] [--repeats 200]

Synthetic scans of 96³ voxels, two channels, in which lesions of 10 to 1000 voxels lie; one thread. Every patch is
planted, with one to three lesions tried, by itself and in batches of eight. Processor time, so that other work on the
machine counts little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.transforms import RandAffined
from scipy import ndimage

from rarevox.transforms import (
    AnatomyMaskd,
    BackgroundMixSampler,
    BatchPlantLesions,
    IndexForegroundd,
    LesionLibrary,
    RandForegroundPatchd,
    RandPlantLesionsd,
)

SIZE = 96
BATCH = 8


def scan(seed: int) -> dict[str, torch.Tensor]:
    """A ball of smooth tissue with bright, uneven lesions, in empty space."""
    random = np.random.default_rng(seed)
    axes = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"))
    brain = ((axes - SIZE / 2) ** 2).sum(0) < (0.45 * SIZE) ** 2
    tissue = ndimage.gaussian_filter(random.standard_normal((2, SIZE, SIZE, SIZE)), (0, 1, 1, 1))
    labels = np.zeros((SIZE,) * 3, bool)
    for _ in range(40):
        centre, radius = random.integers(SIZE // 5, 4 * SIZE // 5, 3), random.uniform(1.3, 6)
        labels |= ((axes - centre[:, None, None, None]) ** 2).sum(0) < radius**2
    image = np.where(brain, tissue + 1.5 * labels, 0).astype(np.float32)
    return {"image": torch.from_numpy(image), "label": torch.from_numpy((labels & brain).astype(np.uint8))[None]}


def milliseconds(transform: Callable[[Any], Any], patches: list[Any]) -> np.ndarray:
    """Processor time of each patch."""
    taken = []
    for patch in patches:
        began = time.process_time()
        transform(patch)
        taken.append(1e3 * (time.process_time() - began))
    return np.array(taken)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = (options.patch,) * 3
    cases = [scan(seed) for seed in range(3)]
    began = time.process_time()
    library = LesionLibrary(cases, extent=[n // 2 for n in size])
    print(f"library of {len(library.donors)} lesions from 3 scans of {SIZE}³: {time.process_time() - began:.2f} s")
    sampler = BackgroundMixSampler(share=0.5)
    index = IndexForegroundd(sampler=sampler, patch_size=size)
    cut = RandForegroundPatchd(["image", "label", "mask"], size, sampler=sampler).set_random_state(seed=0)
    indexed = [index(AnatomyMaskd()(case)) for case in cases]
    patches = [cut(indexed[number % 3]) for number in range(options.repeats)]
    plant = RandPlantLesionsd("image", library, prob=1.0).set_random_state(seed=0)
    affine = RandAffined(
        ["image", "label"], prob=1.0, rotate_range=[0.35] * 3, scale_range=[0.15] * 3, mode=["bilinear", "nearest"]
    ).set_random_state(seed=0)
    plant(patches[0]), affine(patches[0])
    ours, peer = milliseconds(plant, patches), milliseconds(affine, patches)
    keys = ("image", "label", "mask")
    batches = [
        {key: torch.stack([patch[key] for patch in patches[first : first + BATCH]]) for key in keys}
        for first in range(0, len(patches) - BATCH + 1, BATCH)
    ]
    whole, generators = BatchPlantLesions(plant), [np.random.default_rng(number) for number in range(BATCH)]
    batched = milliseconds(lambda batch: whole(batch, generators), batches) / BATCH
    lesions = sum(int(plant(patch)["planted"][0]) for patch in patches) / len(patches)
    for name, taken in (("planting", ours), (f"in batches of {BATCH}", batched), ("MONAI RandAffined", peer)):
        print(
            f"{name:18} {np.median(taken):6.1f} ms a patch of {options.patch}³ (95 %: {np.percentile(taken, 95):.1f})"
        )
    print(
        f"{lesions:.1f} lesions a patch; planting takes {np.median(ours) / np.median(peer):.2f} of RandAffined's time"
    )


if __name__ == "__main__":
    main()
