"""Silence on real scans: what cross-validated runs mark where the lesions were erased, or all but a few small ones.

    rarevox crossval DATASET --output STUDY …
    python benchmarks/erased.py DATASET OUT STUDY [OTHER_STUDY …] [--keep 10] [--white T1]

Of every case of DATASET (in a file for each channel) a copy without lesions is made, and one with the --keep smallest
lesions of five voxels or more alone. Lesions and the voxels beside them, but for those dark in every channel (fluid),
are filled with the level of the healthy white matter around, the upper half of the tissue in the channel --white: a
mean with the weights of a Gaussian of 3 voxels, and noise of that tissue's fine texture (its spread 1.4826 times the
median absolute deviation from a mean over a Gaussian of 1 voxel, smoothed by 0.6 voxels); the voxels one further are
half of either. Each copy is labelled by the run that has not seen the case (STUDY/cells/fold_K), and scored by the
lines of `lesions.py`: what is marked in the first kind is all false.

Differences to the first study have the 95 % interval of a bootstrap over patients (what --subject finds in the case's
name), paired.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
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
LEAST_VOXELS = 5
"""Of a lesion that is kept."""


def erased(images: list[np.ndarray], lesions: np.ndarray, gone: np.ndarray, white: int, seed: int) -> list[np.ndarray]:
    """The channels with the voxels of ``gone``, and those beside them, filled from healthy white matter around.

    Args:
        images: channels (X, Y, Z), float.
        lesions: all of them, none of which counts as healthy.
        gone: those that are erased.
        white: the channel in which white matter is the brightest tissue.
        seed: of the noise.
    """
    random = np.random.default_rng(seed)
    tissue = np.logical_and.reduce([image != 0 for image in images])
    # What lies beside a lesion may be its rim; white matter is the upper half of the tissue in this channel.
    healthy = tissue & ~ndimage.binary_dilation(lesions, FULL, iterations=2)
    healthy &= images[white] >= np.median(images[white][healthy])
    # Ventricles and sulci stay what they are: dark in every channel, as no lesion is.
    dark = np.logical_and.reduce([image < np.percentile(image[tissue], 25) for image in images])
    others = lesions & ~gone
    inside = ndimage.binary_dilation(gone, FULL) & tissue & ~dark & ~others
    rim = ndimage.binary_dilation(inside, FULL) & tissue & ~dark & ~others & ~inside
    near, far = _around(np.ones_like(images[0]), healthy, 3.0), _around(np.ones_like(images[0]), healthy, 12.0)
    out = []
    for image in images:
        # Where there is no healthy white matter within some voxels, that farther away counts.
        level = _around(image, healthy, 3.0) + 1e-3 * _around(image, healthy, 12.0)
        level /= np.maximum(near + 1e-3 * far, 1e-9)
        fine = _around(image, healthy, 1.0) / np.maximum(_around(np.ones_like(image), healthy, 1.0), 1e-9)
        texture = (image - fine)[healthy]
        spread = 1.4826 * np.median(np.abs(texture - np.median(texture)))
        noise = ndimage.gaussian_filter(random.standard_normal(image.shape), 0.6)
        fill = level + noise * (spread / noise.std())
        new = image.copy()
        new[inside] = fill[inside]
        new[rim] = (new[rim] + fill[rim]) / 2
        out.append(new.astype(np.float32))
    return out


def _around(image: np.ndarray, where: np.ndarray, sigma: float) -> np.ndarray:
    """Values somewhere, spread over a neighbourhood."""
    return ndimage.gaussian_filter(np.where(where, image, 0).astype(np.float32), sigma, truncate=3)


def smallest(lesions: np.ndarray, count: int) -> np.ndarray:
    """The smallest components of at least five voxels, so many."""
    numbered, _ = ndimage.label(lesions, FULL)
    sizes = np.bincount(numbered.ravel())
    order = [number for number in np.argsort(sizes, kind="stable") if number and sizes[number] >= LEAST_VOXELS]
    return np.isin(numbered, order[:count])


def copies(case: dict[str, Any], root: Path, channels: list[str], options: Any) -> dict[str, tuple[Path, np.ndarray]]:
    """By kind a folder with the erased channels, and the lesions that are left in it."""
    files = [nib.load(root / name) for name in case["image"]]
    images = [np.asarray(file.dataobj, np.float32) for file in files]
    lesions = np.asarray(nib.load(root / case["label"]).dataobj) > 0
    found = {}
    for kind, kept in (("erased", np.zeros_like(lesions)), ("sparse", smallest(lesions, options.keep))):
        folder = options.out / "scans" / kind / case["case"]
        folder.mkdir(parents=True, exist_ok=True)
        filled = erased(images, lesions, lesions & ~kept, channels.index(options.white), seed=0)
        for source, file, image in zip(case["image"], files, filled, strict=True):
            nib.save(nib.Nifti1Image(image, file.affine), folder / Path(source).name)
        found[kind] = folder, kept
    return found


def rows_of(study: Path, scans: dict[int, list[dict[str, Any]]], out: Path) -> dict[str, dict[str, list[Any]]]:
    """By kind and patient the scored label maps of the runs that have not seen the cases.

    Raises:
        SystemExit: a scan could not be labelled.
    """
    found: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for fold, wanted in sorted(scans.items()):
        for kind in sorted({scan["kind"] for scan in wanted}):
            some = [scan for scan in wanted if scan["kind"] == kind]
            place = out / f"{kind}_{fold}"
            run, folders = study / "cells" / f"fold_{fold}", [str(scan["folder"]) for scan in some]
            if subprocess.run(["rarevox", "predict", str(run), *folders, "--output", str(place)]).returncode:
                raise SystemExit(f"{run} did not label {', '.join(folders)}")
            for scan in some:
                labels = nib.load(place / f"{scan['folder'].name}_seg.nii.gz")
                ml = abs(float(np.linalg.det(labels.affine[:3, :3]))) / 1000
                row = scored(np.asarray(labels.dataobj) > 0, scan["kept"], ml)
                found[kind][scan["patient"]].append(row)
    return found


def tell(name: str, kind: str, by: dict[str, list[Any]], first: dict[str, list[Any]] | None) -> None:
    """A row of the table."""
    rows = [row for found in by.values() for row in found]
    total = {key: sum(row[key] for row in rows) for key in ("lesions", "found", "predicted", "right", "wrong_ml")}
    figures = [f"{dice(rows):.3f}", f"{total['found']} of {total['lesions']}", f"{f1(rows):.3f}"]
    false = (total["predicted"] - total["right"]) / len(rows)
    cells = [name, kind, *(figures if total["lesions"] else [""] * 3), f"{false:.1f}"]
    cells += [f"{total['wrong_ml'] / len(rows):.3f}", f"{sum(not row['predicted'] for row in rows)} of {len(rows)}"]

    def wrong(some: list[Any]) -> float:
        return float(np.mean([row["wrong_ml"] for row in some]))

    if first is not None:
        low, high = interval(wrong, by, first)
        cells.append(f"{low:+.3f} to {high:+.3f}")
    print("| " + " | ".join(cells) + " |")


def main() -> None:
    """Erase, label, score and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("studies", type=Path, nargs="+", metavar="STUDY")
    parser.add_argument("--keep", type=int, default=10)
    parser.add_argument("--white", default="T1")
    parser.add_argument("--subject", default="^[a-z]+_[0-9]+")
    options = parser.parse_args()
    content = json.loads((options.dataset / "dataset.json").read_text())
    root = options.dataset / content["root"]
    channels = [str(name) for name in content["channels"]]
    scans: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for case in content["training"]:
        match = re.search(options.subject, case["case"])
        facts = {"patient": match[0] if match else case["case"]}
        for kind, (folder, kept) in copies(case, root, channels, options).items():
            scans[case["fold"]].append({"kind": kind, "folder": folder, "kept": kept, **facts})
    print(f"{len(content['training'])} scans; {platform.machine()}, {time.strftime('%d %B %Y')}\n")
    done = {study: rows_of(study, scans, options.out / f"maps_{n}") for n, study in enumerate(options.studies)}
    print("| study | lesions | Dice | found | F1 | false ones a scan | wrong, ml a scan | silent scans | difference |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind in ("erased", "sparse"):
        for number, (study, found) in enumerate(done.items()):
            tell(study.name, kind, found[kind], done[options.studies[0]][kind] if number else None)


if __name__ == "__main__":
    main()
