"""What a least size of predicted lesions does to cross-validated label maps: Dice, lesions, F1, by patients.

    python benchmarks/least_size.py DATASET STUDY [OTHER_STUDY …] [--sizes 1 3 8 15]

Each STUDY is one of `rarevox crossval DATASET`, whose label maps of the held-out cases are on its disk. Of each map the
components (26-connected) of fewer voxels than a size are left out, and what stays is scored by the lines of
`lesions.py`. F1 is told of all lesions pooled, in which a scan of many small lesions weighs most, and as the mean over
scans. Differences are to the first study with its first size, with the 95 % interval of a bootstrap over patients,
paired.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from lesion_figures import dice, f1, interval
from lesions import scored
from scipy import ndimage

FULL = np.ones((3, 3, 3), bool)


def mean_f1(rows: list[dict[str, Any]]) -> float:
    """The mean of the scans' own F1."""
    return float(np.mean([f1([row]) for row in rows]))


def left(mask: np.ndarray, least: int) -> np.ndarray:
    """A mask without the components of fewer voxels."""
    components, _ = ndimage.label(mask, FULL)
    stays = np.bincount(components.ravel()) >= least
    stays[0] = False
    return stays[components]


def rows_of(dataset: Path, study: Path, least: int, subject: str) -> dict[str, list[dict[str, Any]]]:
    """The scored cases of a study, by patient."""
    content = json.loads((dataset / "dataset.json").read_text())
    found = defaultdict(list)
    for case in content["training"]:
        name = case["case"]
        (file,) = study.glob(f"cells/fold_*/evaluation/validation/predictions/{name}_seg.nii.gz")
        reference: Any = nib.load(Path(content["root"]) / case["label"])
        ml = abs(float(np.linalg.det(reference.affine[:3, :3]))) / 1000
        labels: Any = nib.load(file)
        mask = left(np.asarray(labels.dataobj) > 0, least)
        match = re.search(subject, name)
        found[match[0] if match else name].append(scored(mask, np.asarray(reference.dataobj) > 0, ml))
    return dict(found)


def main() -> None:
    """Score and tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("studies", type=Path, nargs="+", metavar="STUDY")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 3, 8, 15])
    parser.add_argument("--subject", default="^[a-z]+_[0-9]+")
    options = parser.parse_args()
    base = rows_of(options.dataset, options.studies[0], options.sizes[0], options.subject)
    print(f"{sum(map(len, base.values()))} cases of {len(base)} patients; {platform.machine()}", end=", ")
    print(time.strftime("%d %B %Y") + "\n")
    print("| study | least voxels | Dice | lesions found | right | F1 | mean F1 | Dice - | F1 - | mean F1 - |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for study in options.studies:
        for least in options.sizes:
            by = rows_of(options.dataset, study, least, options.subject)
            rows = [row for found in by.values() for row in found]
            total = {key: sum(row[key] for row in rows) for key in ("lesions", "found", "predicted", "right")}
            print(f"| {study.name} | {least} | {dice(rows):.3f} | {total['found']} of {total['lesions']}", end=" | ")
            print(f"{total['right']} of {total['predicted']} | {f1(rows):.3f} | {mean_f1(rows):.3f}", end=" |")
            for figure in (dice, f1, mean_f1):
                low, high = interval(figure, by, base)
                print(f" {low:+.3f} to {high:+.3f} |", end="")
            print(flush=True)


if __name__ == "__main__":
    main()
