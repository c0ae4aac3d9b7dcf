"""Real lesions, this tool beside its peers: leave one patient out, the same minutes, the same cores.

Every method is trained once for each patient, on the scans of the others, for the same wall time (reading, planning and
compiling count, but nnU-Net's planning and preprocessing do not), and labels the scans of that patient:

- ``rarevox``: `rarevox prepare`, `rarevox train` and `rarevox predict` as they are;
- ``resenc``: the same with ``--network resenc_unet``, a U-Net with a residual encoder; if asked for, ``highresnet``,
  ``unet`` and ``deepmedic`` likewise;
- ``monai``: a plain MONAI script (`lesions_monai.py`): UNet, Dice + cross-entropy, half of the patches on lesions;
- ``nnunet``: nnU-Net v2's own plan, network, loader, augmentation, loss and optimiser (`lesions_nnunet.py`); its Python
  is given by ``--nnunet-python``, and without that it is left out.

All label maps are scored by the same lines here: Dice of the voxels, lesions (26-connected) that the map touches, and
predicted ones that touch a lesion, by size. What is done is kept in OUT, and the same command goes on; rows.jsonl with
folds done elsewhere may be put there first. Methods are compared fold by fold: all of a fold belong on one machine.

    python benchmarks/lesions.py SCANS OUT --minutes 30 [--methods rarevox monai] [--folds 0 1] [--nnunet-python PYTHON]
    python benchmarks/lesions.py SCANS OUT --minutes 30 --tell

SCANS holds a folder for each scan, with FLAIR.nii.gz, T1.nii.gz and lesion.nii.gz; the patient is what --subject finds
in the folder's name. The differences to ``rarevox`` are given with the 95 % interval of a bootstrap over patients.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from lesion_figures import dice, f1, interval
from machine import processor
from scipy import ndimage

ROOT = Path(__file__).resolve().parent
CHANNELS = ("FLAIR", "T1")
SIZES_ML = (0.05, 0.5)
"""Bounds between small, middling and large lesions."""
OURS = {
    "rarevox": [],
    "resenc": ["--network", "resenc_unet"],
    "highresnet": ["--network", "highresnet"],
    "unet": ["--network", "unet"],
    "deepmedic": ["--network", "deepmedic"],
}


def command(*words: object, **environment: str) -> None:
    """Run a program, its words into our own output.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run([str(word) for word in words], env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} ended with {done.returncode}")


def ours(name: str, dataset: Path, scans: dict[str, list[Path]], fold: int, place: Path, options: Any) -> None:
    """A run of this tool and its label maps, ``maps/CASE.nii.gz``."""
    run = place / "run"
    # The fold's scans are the test: validation would choose among the weights by them.
    length = ["--iterations", options.iterations] if options.iterations else ["--minutes", options.minutes]
    budget = ["--fold", fold, *length, "--device", options.device, "--set", "validation_cases=0"]
    threads = {"OMP_NUM_THREADS": str(options.threads)}
    command("rarevox", "train", dataset, "--output", run, *budget, *OURS[name], *options.set, **threads)
    predict = ["rarevox", "predict", run, *scans["test"], "--output", place / "labels", "--device", options.device]
    command(*predict, **threads)
    for scan in scans["test"]:
        shutil.copy(place / "labels" / f"{scan.name}_seg.nii.gz", place / "maps" / f"{scan.name}.nii.gz")


def peer(name: str, scans: dict[str, list[Path]], place: Path, options: Any) -> None:
    """A peer's label maps, ``maps/CASE.nii.gz``."""
    python = options.nnunet_python if name == "nnunet" else sys.executable
    asked = {part: [str(scan) for scan in found] for part, found in scans.items()}
    (place / "scans.json").write_text(json.dumps({**asked, "channels": CHANNELS}))
    threads = {
        "OMP_NUM_THREADS": str(options.threads),
        "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command(python, ROOT / f"lesions_{name}.py", place / "scans.json", options.minutes, place, **threads)


def scored(predicted: np.ndarray, reference: np.ndarray, ml: float) -> dict[str, Any]:
    """Figures of one scan: of its voxels, and of its lesions by size."""
    found, n_found = ndimage.label(predicted, np.ones((3, 3, 3)))
    true, n_true = ndimage.label(reference, np.ones((3, 3, 3)))
    both = predicted & reference
    hit, right = np.unique(true[both]), np.unique(found[both])
    size, size_found = (np.digitize(np.bincount(each.ravel())[1:] * ml, SIZES_ML) for each in (true, found))
    return {
        "dice": float(2 * both.sum() / max(int(predicted.sum()) + int(reference.sum()), 1)),
        "lesions": n_true,
        "found": len(hit),
        "predicted": n_found,
        "right": len(right),
        "by_size": _by_size(size, hit),
        "predicted_by_size": _by_size(size_found, right),
        "wrong_ml": float((predicted & ~reference).sum() * ml),
    }


def _by_size(size: np.ndarray, hit: np.ndarray) -> list[list[int]]:
    """Of each size how many lesions there are, and how many of them were hit."""
    return [[int((size == k).sum()), int((size[hit - 1] == k).sum())] for k in range(len(SIZES_ML) + 1)]


def row_of(name: str, fold: int, scan: Path, place: Path, seconds: float) -> dict[str, Any]:
    """The scored label map of a scan, on the reference's grid."""
    reference = nib.load(scan / "lesion.nii.gz")
    labels = nib.load(place / "maps" / f"{scan.name}.nii.gz")
    if labels.shape != reference.shape or not np.allclose(labels.affine, reference.affine, atol=1e-3):
        raise SystemExit(f"{place}: the label map of {scan.name} is on another grid than its reference")
    ml = abs(float(np.linalg.det(reference.affine[:3, :3]))) / 1000
    figures = scored(np.asarray(labels.dataobj) > 0, np.asarray(reference.dataobj) > 0, ml)
    where, date = f"{os.cpu_count()} cores of {processor()}", time.strftime("%Y-%m-%d")
    made = {"seconds": round(seconds), "machine": where, "date": date}
    return {"method": name, "fold": fold, "case": scan.name, **made, **figures}


def tell(rows: list[dict[str, Any]], minutes: float) -> None:
    """The table: each method over the patients that it and ``rarevox`` have done, with the difference over these."""
    by: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by[row["method"]][row["fold"]].append(row)
    where = {row["machine"]: row["date"] for row in rows if row.get("machine")}
    places = "; ".join(f"{name}, {date}" for name, date in where.items())
    print(f"{minutes:g} minutes each; {places}\n")
    small, middling = SIZES_ML
    bins = (f"under {small} ml", f"to {middling} ml", "larger")
    print("| method | patients | Dice | lesions found | right | F1 | " + " | ".join(bins) + " | wrong, ml a scan |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, found in by.items():
        folds = sorted(found.keys() & by["rarevox"].keys()) or sorted(found)
        some = [row for fold in folds for row in found[fold]]
        total = {key: sum(row[key] for row in some) for key in ("lesions", "found", "predicted", "right", "wrong_ml")}
        sizes = np.sum([row["by_size"] for row in some], axis=0)
        print(
            f"| {name} | {len(folds)} | {dice(some):.3f} | {total['found']} of {total['lesions']} | "
            f"{total['right']} of {total['predicted']} | {f1(some):.3f} | "
            + " | ".join(f"{hit} of {n}" for n, hit in sizes)
            + f" | {total['wrong_ml'] / len(some):.2f} |"
        )
    for name in by.keys() - {"rarevox"}:
        folds = sorted(by[name].keys() & by["rarevox"].keys())
        if len(folds) < 2:  # of one patient there is nothing to draw from
            continue
        mine, other = ({fold: by[one][fold] for fold in folds} for one in ("rarevox", name))
        for what, figure in (("Dice", dice), ("lesion F1", f1)):
            low, high = interval(figure, mine, other)
            print(f"rarevox - {name}, {len(folds)} patients, {what}: {low:+.3f} to {high:+.3f}")


def main() -> None:
    """Train, label, score and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument(
        "--iterations", type=int, help="of rarevox's runs, in place of minutes: what these hold elsewhere"
    )
    parser.add_argument("--methods", nargs="+", default=["rarevox", "resenc", "monai", "nnunet"])
    parser.add_argument("--folds", nargs="+", type=int)
    parser.add_argument("--subject", default="^([a-z]+_[0-9]+)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", nargs="+", default=[], help="more words for `rarevox train`", metavar="WORD")
    parser.add_argument("--nnunet-python")
    parser.add_argument("--tell", action="store_true", help="only print what is done")
    options = parser.parse_args()
    record = options.out / "rows.jsonl"
    rows = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    if options.tell:
        tell(rows, options.minutes)
        return
    dataset = options.out / "dataset"
    if not dataset.exists():
        files = [word for name in CHANNELS for word in ("--channel", f"{name}={name}.nii.gz")]
        files += ["--label", "lesion.nii.gz", "--structure", "lesion=1", "--subject", options.subject]
        split = ["--holdout", "0", "--folds", len(patients(options.scans, options.subject))]
        command("rarevox", "prepare", options.scans, "--output", dataset, *files, *split)
    cases = json.loads((dataset / "dataset.json").read_text())["training"]
    for fold in options.folds or sorted({case["fold"] for case in cases}):
        scans: dict[str, list[Path]] = {"train": [], "test": []}
        for case in cases:
            scans["test" if case["fold"] == fold else "train"].append(options.scans.resolve() / case["case"])
        for name in options.methods:
            if (name == "nnunet" and not options.nnunet_python) or any(
                row["method"] == name and row["fold"] == fold for row in rows
            ):
                continue
            place = options.out / f"{name}_{fold}"
            shutil.rmtree(place, ignore_errors=True)
            (place / "maps").mkdir(parents=True)
            began = time.monotonic()
            if name in OURS:
                ours(name, dataset, scans, fold, place, options)
            else:
                peer(name, scans, place, options)
            new = [row_of(name, fold, scan, place, time.monotonic() - began) for scan in scans["test"]]
            rows += new
            with record.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in new)
    tell(rows, options.minutes)


def patients(scans: Path, pattern: str) -> set[str]:
    """Of the folders' names."""
    found = (re.search(pattern, path.name) for path in scans.iterdir() if (path / "lesion.nii.gz").exists())
    return {match[1] for match in found if match}


if __name__ == "__main__":
    main()
