"""How strong planted lesions are beside the lesions they come from, on real scans, by size.

    python benchmarks/planted_contrast.py SCANS [--library NAME NAME] [--patches 600]

SCANS holds a folder for each scan: FLAIR.nii.gz, T1.nii.gz, lesion.nii.gz, skull-stripped. The lesions of the scans
named by --library are planted into patches of 48³ of those scans, half of them without lesions, one lesion a patch.
The contrast of a lesion is its mean less the median of the healthy tissue 2 to 4 voxels around, computed here apart
from the transform where it was planted, over the donor's own. The table has this ratio by size and channel: the median
over donors of each donor's median, its standard error, in brackets the quartiles, and of how many donors: those that
stand out in the channel, by a standard deviation of their tissue or more.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

from rarevox.transforms import (
    AnatomyMaskd,
    BackgroundMixSampler,
    IndexForegroundd,
    LesionLibrary,
    RandForegroundPatchd,
    RandPlantLesionsd,
    ZScored,
)
from rarevox.transforms.planting.donors import Donor

CHANNELS = ("FLAIR", "T1")
BINS = (3, 10, 30, 100, 10**9)
FULL = np.ones((3, 3, 3), bool)


def load(folder: Path) -> dict[str, Any]:
    """A scan, z-scored over what is not 0."""

    def volume(name: str) -> np.ndarray:
        return np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj, np.float32)  # type: ignore[attr-defined]

    image = torch.from_numpy(np.stack([volume(name) for name in CHANNELS]))
    label = torch.from_numpy((volume("lesion") > 0).astype(np.uint8))[None]
    case = ZScored("image", region="nonzero")({"image": image, "label": label})
    return AnatomyMaskd()({"image": torch.as_tensor(case["image"]).float(), "label": label})


def contrast(image: np.ndarray, labels: np.ndarray, mask: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """(C,), of a lesion (*spatial) bool."""
    shell = ndimage.binary_dilation(lesion, FULL, iterations=4) & (mask > 0)
    shell &= ~ndimage.binary_dilation(labels > 0, FULL)
    return np.asarray(image[:, lesion].mean(1) - np.median(image[:, shell], axis=1))


class Noted(LesionLibrary):
    """A library that knows what it gave last."""

    def draw(self, random: np.random.RandomState) -> Donor:
        """As the library does."""
        self.last = super().draw(random)
        return self.last


def told(ratios: np.ndarray) -> str:
    """Median, its standard error, quartiles, and of how many."""
    ratios = ratios[np.isfinite(ratios)]
    if len(ratios) < 3:
        return f"of {len(ratios)}"
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    error = 1.2533 * (high - low) / 1.349 / np.sqrt(len(ratios))
    return f"{middle:.2f} ± {error:.2f} ({low:.2f}-{high:.2f}) {len(ratios)}"


def main() -> None:
    """Plant and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path)
    parser.add_argument("--library", nargs="+", default=["lesjak_26", "mslesseg_39"])
    parser.add_argument("--patches", type=int, default=600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = (48, 48, 48)
    cases = [load(options.scans / name) for name in options.library]
    library = Noted(cases, extent=[n // 2 for n in size], draw="log_size")
    sampler = BackgroundMixSampler(share=0.5)
    index = IndexForegroundd(sampler=sampler, patch_size=size)
    cut = RandForegroundPatchd(["image", "label", "mask"], size, sampler=sampler).set_random_state(seed=0)
    indexed = [index(case) for case in cases]
    plant = RandPlantLesionsd("image", library, prob=1.0, count=(1, 1)).set_random_state(seed=0)
    every, within = (defaultdict(lambda: defaultdict(list)) for _ in range(2))
    for draw in range(options.patches):
        before = cut(indexed[draw % len(cases)])
        mask, known = before["mask"][0].numpy(), before["label"][0].numpy() > 0
        after = plant(before)
        if not after["planted"][0]:
            continue
        labels, donor = after["label"][0].numpy(), library.last
        own = contrast(after["image"].numpy(), labels, mask, (labels > 0) & ~known)
        theirs = donor.change[:, donor.classes > 0].mean(1)
        ratio = np.where(np.abs(theirs) >= donor.spread, own / theirs, np.nan)
        place = int(np.searchsorted(BINS, donor.voxels, "right")) - 1
        for logs in (every, within) if donor.case == draw % len(cases) else (every,):
            logs[place][id(donor.classes)].append(ratio)
    print(f"{len(library.donors)} donors")
    table("into all scans", every)
    table("into the scan that they come from", within)


def table(title: str, logs: dict[int, dict[int, list[np.ndarray]]]) -> None:
    """Print ratios by size and channel."""
    print(f"\n{title}\nvoxels   donors  planted  " + "".join(f"{name:28}" for name in CHANNELS))
    for number in sorted(logs):
        rows = np.stack([np.median(np.stack(one), 0) for one in logs[number].values()])
        count = sum(map(len, logs[number].values()))
        print(f"{BINS[number]:4} …  {len(rows):6}  {count:7}  " + "".join(f"{told(one):28}" for one in rows.T))


if __name__ == "__main__":
    main()
