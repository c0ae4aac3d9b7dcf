"""Real scans in which a few small lesions are left: a dataset for what is planned where a scan has few of them.

    rarevox prepare SCANS --output DATASET …
    python benchmarks/few_lesions.py DATASET OUT [--keep 4] [--largest 1000] [--seed 0] [--white T1]
    rarevox prepare OUT --output FEW --structure lesion=1 …
    python benchmarks/choices.py FEW STUDIES --choices planned all_foreground …

Of every case of DATASET (in a file for each channel) OUT holds a folder with its channels and `lesion.nii.gz`. So many
lesions stay (--keep), drawn by --seed among those of 50 voxels to --largest; all others are erased as `erased.py` says,
so that healthy tissue stands in their place and nothing unlabelled is a lesion.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import nibabel as nib
import numpy as np
from erased import FULL, erased
from scipy import ndimage

LEAST_VOXELS = 50
"""Of a lesion that may be kept."""


def drawn(lesions: np.ndarray, count: int, largest: int, seed: int) -> np.ndarray:
    """The voxels of so many lesions of 50 to ``largest`` voxels."""
    numbered, _ = ndimage.label(lesions, FULL)
    sizes = np.bincount(numbered.ravel())
    fitting = [number for number in range(1, len(sizes)) if LEAST_VOXELS <= sizes[number] <= largest]
    kept = np.random.default_rng(seed).permutation(fitting)[:count]
    return np.isin(numbered, kept)


def main() -> None:
    """Write the scans."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--keep", type=int, default=4)
    parser.add_argument("--largest", type=int, default=1000, help="voxels of a lesion that is kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--white", default="T1", help="the channel in which white matter is brightest")
    options = parser.parse_args()
    content = json.loads((options.dataset / "dataset.json").read_text())
    root, names = options.dataset / content["root"], [str(name) for name in content["channels"]]
    for number, case in enumerate(sorted(content["training"], key=lambda case: str(case["case"]))):
        files = [nib.load(root / name) for name in case["image"]]
        label = nib.load(root / case["label"])
        lesions = np.asarray(label.dataobj) > 0
        kept = drawn(lesions, options.keep, options.largest, options.seed + number)
        images = [np.asarray(file.dataobj, np.float32) for file in files]
        filled = erased(images, lesions, lesions & ~kept, names.index(options.white), seed=number)
        folder = options.out / case["case"]
        folder.mkdir(parents=True, exist_ok=True)
        for name, file, image in zip(names, files, filled, strict=True):
            nib.save(nib.Nifti1Image(image, file.affine), folder / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(kept.astype(np.uint8), label.affine), folder / "lesion.nii.gz")
        _, count = ndimage.label(kept, FULL)
        print(f"{case['case']}: {count} lesions, 1 : {kept.size / max(kept.sum(), 1):,.0f}")


if __name__ == "__main__":
    main()
