"""What a run paints where there is nothing to find: the volume of each structure in phantoms without any lesion.

    python benchmarks/silence.py RUN [--scans 8] [--seed 1000] [--spacing-mm 2] [--out FOLDER]

RUN learnt from phantoms (`rarevox demo`, or a cohort of `write_cohort` or `write_phantom_series`), of which it takes
the two channels. The scans are the first subjects of the seeds SEED, SEED + 1, …, heads and scanners that no cohort of
another seed holds, with `lesion_share=0`: whatever is painted as a lesion is false. They are kept in FOLDER, where it
is given, with the label maps. With a second run the same scans are labelled by both, and the difference has a 95 %
interval of a bootstrap over scans:

    python benchmarks/silence.py RUN OTHER_RUN

A run of real scans cannot read phantoms. For it there is one healthy scan that everyone has, the T1 template of the
ICBM 152 (2009a, the mean of 152 heads, 1 mm, brain alone; `nilearn` has it):

    python benchmarks/silence.py RUN --template [--channel T1]

RUN is one of T1 alone, or one that takes T1 alone since it was trained with `channel_dropout`.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from rarevox.pipeline.phantom.anatomy import load_template
from rarevox.pipeline.phantom.cohort import write_cohort


def silent_scans(folder: Path, count: int, seed: int, spacing_mm: float) -> list[Path]:
    """A scan without lesions of each seed."""
    scans = []
    for number in range(seed, seed + count):
        cohort = write_cohort(folder / f"seed_{number}", subjects=1, spacing_mm=spacing_mm, lesion_share=0, seed=number)
        scan = folder / f"silent_{number}.nii.gz"
        scan.unlink(missing_ok=True)
        scan.symlink_to((cohort / "imagesTr" / "phantom_000.nii.gz").resolve())
        scans.append(scan)
    return scans


def template_scan(folder: Path, channel: str) -> list[Path]:
    """The T1 template as a folder with one channel's file."""
    images, origin = load_template()
    affine = np.eye(4)
    affine[:3, 3] = origin
    scan = folder / "icbm152"
    scan.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(images["t1"], affine), scan / f"{channel}.nii.gz")
    return [scan]


def painted(run: Path, scans: list[Path], out: Path, structure: str) -> tuple[np.ndarray, np.ndarray]:
    """The volume of a structure in each scan, in ml, and the number of its components (26-connected).

    Raises:
        SystemExit: a scan could not be labelled, or the run has no such structure.
    """
    command = ["rarevox", "predict", str(run), *map(str, scans), "--output", str(out)]
    if subprocess.run(command).returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    content = json.loads((out / "predictions.json").read_text())
    rows = {row["case"]: row for row in content["scans"]}
    found = [rows[scan.name.removesuffix(".nii.gz")] for scan in scans]
    if structure not in found[0]["volume_ml"]:
        raise SystemExit(f"{run} learnt {', '.join(found[0]['volume_ml'])}, not {structure}; give --structure")
    maps = [np.asarray(nib.load(out / row["output"]).dataobj) == content["structures"][structure] for row in found]
    counts = [ndimage.label(labels, np.ones((3, 3, 3)))[1] for labels in maps]
    return np.array([row["volume_ml"][structure] for row in found]), np.array(counts)


def main() -> None:
    """Make the scans, label them and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--scans", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--spacing-mm", type=float, default=2.0)
    parser.add_argument("--structure", default="lesion")
    parser.add_argument("--template", action="store_true", help="the T1 template in place of phantoms")
    parser.add_argument("--channel", default="T1", help="the template's channel in RUN")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        if options.template:
            scans = template_scan(out / "scans", options.channel)
        else:
            scans = silent_scans(out / "scans", options.scans, options.seed, options.spacing_mm)
        told = []
        for number, run in enumerate(options.runs):
            told.append(painted(run, scans, out / f"run_{number}", options.structure))
    seeds = f"seeds {options.seed} to {options.seed + options.scans - 1}"
    phantoms = f"{options.scans} phantoms of {options.spacing_mm:g} mm without a lesion, {seeds}"
    print(f"\n{'the T1 template of the ICBM 152' if options.template else phantoms};", end=" ")
    print(f"{platform.machine()}, {time.strftime('%d %B %Y')}\n")
    print(f"| run | {options.structure} painted, ml a scan: mean | worst | components a scan | scans without any |")
    print("|---|---|---|---|---|")
    for run, (ml, count) in zip(options.runs, told, strict=True):
        none = f"{int((ml == 0).sum())} of {len(ml)}"
        print(f"| {run} | {ml.mean():.4f} | {ml.max():.4f} | {count.mean():.3g} | {none} |")
    for run, (ml, _) in zip(options.runs[1:], told[1:], strict=True):
        if len(ml) < 2:
            break
        gaps = ml - told[0][0]
        drawn = np.random.default_rng(0).integers(len(gaps), size=(2000, len(gaps)))
        low, high = np.percentile(gaps[drawn].mean(1), [2.5, 97.5])
        print(f"\n{run} - {options.runs[0]}: {gaps.mean():+.4f} ml a scan ({low:+.4f} to {high:+.4f})")


if __name__ == "__main__":
    main()
