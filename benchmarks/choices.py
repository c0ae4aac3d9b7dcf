"""Losses, samplers, planting and augmentation side by side: one cross-validation each, the same steps, the same folds.

    python benchmarks/choices.py DATASET OUT --iterations 400 [--choices planned gdl tversky] [-- WORDS]
    python benchmarks/choices.py DATASET OUT --tell

Each choice is `rarevox crossval DATASET` with the words of CHOICES besides, so that every case is scored once, by the
run that has not seen it. ``planned`` is what `prepare` wrote and the default loss; every other choice changes one thing
of it (``component`` two: its regions do not follow planted lesions, so nothing is planted). WORDS go to all of them
(the network, the patch). What is done is kept in OUT, and the same command goes on.

Dice is the mean over cases; lesions are pooled over all of them, 26-connected: found where the prediction touches them,
right where it touches one. Differences to ``planned`` have the 95 % interval of a bootstrap over patients, paired; the
patient is what --subject finds in the name of a case.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from lesion_figures import dice, f1, interval

CHOICES = {
    "planned": [],
    "gdl": ["--loss", "gdl"],
    "component": ["--loss", "component_dice_ce"],
    "tversky": ["--loss", "tversky"],
    "focal_tversky": ["--loss", "focal_tversky"],
    "topk": ["--loss", "dice_topk"],
    "dice_ce": ["--loss", "dice_ce"],
    "lesion_balanced": ["--set", "sampler#_target_=rarevox.transforms.LesionBalancedSampler"],
    "hard": ["--set", "hard_share=0.5"],
    "mined": ["--set", "hard_share=0.5", "--set", "hard_scans=1"],
    "shapes": ["--set", "augmentation_strength=strong"],
    "z_scores": [
        "--set",
        "normalisation={_target_: rarevox.transforms.ZScored, keys: image, region: nonzero}",
    ],
    "each_channel": ["--set", "normalisation#region=nonzero"],
    "no_statistics": ["--set", "scan_statistics=0"],
    "intensities": ["--set", "intensity_change=0.1"],
    "white_matter": ["--config", "white_matter", "--set", "normalisation#peaks=[largest,last]"],
    "robust": ["--config", "robust"],
    "nyul": ["--config", "nyul"],
    "artefacts": ["--config", "mri_artefacts"],
    "no_planting": ["--set", "planting_share=0"],
    "planting": ["--set", "planting_share=0.5", "--set", "lesion_library#classes=[1]"],
    "all_foreground": ["--set", "background_share=0"],
}


def rows_of(place: Path, structure: str, patients: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """The scored cases of a cross-validation, by patient; of one in which nothing was marked Dice is 0."""
    by = defaultdict(list)
    with (place / "cases.csv").open() as file:
        for row in csv.DictReader(file):
            if row["structure"] != structure:
                continue
            if row["status"] not in ("ok", "empty_prediction"):
                raise SystemExit(f"{place}: {row['case']}: {row['status']}: {row['reason']}")
            counts = {"lesions": "reference", "found": "detected", "predicted": "predicted", "right": "true"}
            figures: dict[str, Any] = {key: int(row[f"lesions_{of}"] or 0) for key, of in counts.items()}
            figures |= {key: float(row[of] or 0) for key, of in (("dice", "dice"), ("wrong_ml", "false_positive_ml"))}
            by[patients[row["case"]]].append(figures)
    return dict(by)


def tell(done: dict[str, dict[str, list[dict[str, Any]]]], words: str) -> None:
    """The table, and the differences to ``planned``."""
    base = done["planned"]
    print(f"{sum(map(len, base.values()))} cases of {len(base)} patients; {words}; {platform.machine()}", end=", ")
    print(time.strftime("%d %B %Y") + "\n")
    print("| choice | Dice | lesions found | right | F1 | wrong, ml a scan | Dice - planned | F1 - planned |")
    print("|---|---|---|---|---|---|---|---|")
    for name, by in done.items():
        rows = [row for found in by.values() for row in found]
        total = {key: sum(row[key] for row in rows) for key in ("lesions", "found", "predicted", "right", "wrong_ml")}
        print(f"| {name} | {dice(rows):.3f} | {total['found']} of {total['lesions']} | {total['right']} of", end=" ")
        print(f"{total['predicted']} | {f1(rows):.3f} | {total['wrong_ml'] / len(rows):.2f}", end=" |")
        for figure in (dice, f1):
            low, high = (0.0, 0.0) if name == "planned" else interval(figure, by, base)
            print(" |" if name == "planned" else f" {low:+.3f} to {high:+.3f} |", end="")
        print()


def main() -> None:
    """Cross-validate each choice and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--choices", nargs="+", choices=list(CHOICES), default=list(CHOICES))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--structure", default="lesion")
    parser.add_argument("--subject", default="^[a-z]+_[0-9]+")
    parser.add_argument("--tell", action="store_true", help="only print what is done")
    asked = sys.argv[1:]
    # What comes after -- is not ours; argparse would look for options in it where one takes several values.
    end = asked.index("--") if "--" in asked else len(asked)
    options = parser.parse_args(asked[:end])
    options.words = asked[end + 1 :]
    cases = json.loads((options.dataset / "dataset.json").read_text())["training"]
    patients = {}
    for case in cases:
        match = re.search(options.subject, case["case"])
        patients[case["case"]] = match[0] if match else case["case"]
    done = {}
    for name in dict.fromkeys(["planned", *options.choices]):
        place = options.out / name
        if not options.tell:
            words = ["--iterations", str(options.iterations), "--workers", str(options.workers), *options.words]
            command = ["rarevox", "crossval", str(options.dataset), "--output", str(place), *words, *CHOICES[name]]
            if subprocess.run(command).returncode:
                raise SystemExit(f"{' '.join(command)} failed")
        if (place / "cases.csv").exists():
            done[name] = rows_of(place, options.structure, patients)
    tell(done, f"{options.iterations} steps, {' '.join(options.words)}")


if __name__ == "__main__":
    main()
