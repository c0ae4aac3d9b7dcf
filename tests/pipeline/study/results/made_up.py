"""A study as the engine leaves it, with the paper's own figures in it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rarevox.pipeline.files import write_json
from rarevox.pipeline.study.results.outcomes import Outcome
from rarevox.pipeline.study.results.paper import NETWORKS_2D, PATCHES, paper_results

OVERLAYS = {
    "UNet": "unet2d",
    "TwoPathCNN": "twopathcnn2d",
    "DeepMedic": "deepmedic_paper",
    "HighResNet": "highresnet_paper",
}
LOSSES = {"WCE": "wce", "DL2": "dl2", "SS": "ss", "GDLv": "gdl"}


def cell(one: Outcome, labels: dict[str, str], name: str) -> dict[str, Any]:
    """The `cell.json` of a cell that is done; its two held-out cases come out a little below its training Dice."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    dice = [max(0.0, round(one.dice - 0.05 + float(rng.normal(0, 0.05)), 3)) for _ in range(2)]
    edge = int(one.patch)
    return {
        "cell": name,
        "labels": labels,
        "state": "done",
        "iterations": 1000,
        "train_dice": {"median": one.dice, "q1": one.q1, "q3": one.q3, "last": 200},
        "foreground_share": {"median": one.share, "q1": one.share / 2, "q3": one.share * 2},
        "effective_patch": [edge, edge, 1],
        "patch_size": [edge + 36, edge + 36, 1],
        "batch_size": int(one.batch),
        "test": {
            "cases": [{"case": f"case_{k}", "structure": "tumour", "dice": value} for k, value in enumerate(dice)],
            "mean_dice": sum(dice) / 2,
            "median_dice": sum(dice) / 2,
        },
        "seconds": {"start": 1.0, "steps": 60.0, "evaluation": 2.0},
        "versions": {"rarevox": "0.1.0", "torch": "2.12.1"},
    }


def write_study(
    folder: Path,
    networks: Sequence[str] = NETWORKS_2D,
    *,
    dataset: str = "DATASET",
    structures: Sequence[str] = (),
    patches: Sequence[str] = PATCHES,
    change: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda content: content,
) -> Path:
    """Write `plan.json` and `cells/`; `change` may alter the record of a cell, or leave it out by None."""
    results = paper_results(tuple(networks))
    planned = []
    for one in (one for one in results.outcomes if one.label("patch") in patches):
        labels = {
            "network": OVERLAYS[one.label("network")],
            "patch": one.label("patch"),
            "loss": LOSSES[one.label("loss")],
            "lr": one.label("lr"),
        }
        name = "-".join(labels.values())
        planned.append(
            {"cell": name, "labels": labels, "settings": {"network": labels["network"], "loss": labels["loss"]}}
        )
        content = change(cell(one, labels, name))
        if content is not None:
            write_json(folder / "cells" / name / "cell.json", content)
    axes = {axis: list(dict.fromkeys(one["labels"][axis] for one in planned)) for axis in planned[0]["labels"]}
    plan = {"version": 1, "name": "paper_2d", "study": "0" * 64, "dataset": {"folder": dataset, "fingerprint": "0"}}
    plan |= {"structures": list(structures)}
    write_json(folder / "plan.json", {**plan, "axes": axes, "cells": planned, "last": 200, "iterations": 1000})
    return folder
