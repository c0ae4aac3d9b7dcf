"""What a study costs beside its steps: planning, the rest of a cell, and many cells of one step.

Three measurements on a synthetic cohort (eight scans of 22×20×18 voxels, two held out), each in its own folder:

- ``plan``: a study of 10 000 cells read, expanded, checked and written down (times of steps are not measured);
- ``cell``: 300 steps of the paper's smallest cell (the valid U-Net on slices, 5 patches of 56×56) in a kept process:
  start, reading and evaluation of two scans as a share of the steps, by the cell's own row; beside it `rarevox train`
  and `rarevox evaluate` as two processes;
- ``cells``: the 72 cells of the paper's 2D study with one step each, two processes, first to last.

    python benchmarks/study.py
    python benchmarks/study.py --only cells --workers 2
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT), *(folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent)]

import yaml  # noqa: E402

from rarevox.pipeline.data.dataset import Dataset  # noqa: E402
from rarevox.pipeline.preparation.prepare import prepare  # noqa: E402
from rarevox.pipeline.study.places import Places  # noqa: E402
from rarevox.pipeline.study.planning import plan_of, settle  # noqa: E402
from rarevox.pipeline.study.rows import read_rows  # noqa: E402
from rarevox.pipeline.study.study import study  # noqa: E402
from rarevox.pipeline.study.study_file import read_study  # noqa: E402
from tests.conftest import write_task  # noqa: E402

NETWORKS = {"UNet": {"network": "unet2d"}, "TwoPathCNN": {"network": "twopathcnn2d"}}
SIZES = {"S": (5, 56, 51), "M": (3, 64, 63), "L": (1, 88, 85)}


def patch(batch: int, *sizes: int) -> dict[str, Any]:
    """A batch with the patch of each network."""
    settings = [{"patch_size": [size, size, 1], "batch_size": batch} for size in sizes]
    return {"by": {"network": dict(zip(NETWORKS, settings, strict=True))}}


def paper(iterations: int, **axes: Any) -> dict[str, Any]:
    """The paper's 2D study, some of its axes replaced."""
    whole = {
        "network": NETWORKS,
        "patch": {name: patch(*sizes) for name, sizes in SIZES.items()},
        "loss": ["gdl", "dl2", "ss", "wce"],
        "lr": {"key": "optimizer#lr", "values": ["1e-5", "1e-4", "1e-3"]},
    }
    return {"name": "paper", "base": {"config": ["paper"], "iterations": iterations}, "axes": {**whole, **axes}}


def plan(dataset: Path, folder: Path) -> dict[str, Any]:
    """Seconds for a plan of 10 080 cells."""
    seeds = {"seed": list(range(140))}
    (folder / "many.yaml").write_text(yaml.safe_dump(paper(1) | {"axes": paper(1)["axes"] | seeds}, sort_keys=False))
    began, computed = time.perf_counter(), time.process_time()
    described = read_study(folder / "many.yaml")
    wanted, datasets = plan_of(described, dataset, device="cpu")
    (folder / "many").mkdir()
    settle(folder / "many", wanted, described.text(), datasets, extend=False, trust=False)
    seconds = time.perf_counter() - began
    computing = time.process_time() - computed
    return {"cells": len(wanted.cells), "seconds": round(seconds, 2), "cpu_seconds": round(computing, 2)}


def cell(dataset: Path, folder: Path, steps: int) -> dict[str, Any]:
    """Of the second cell of a kept process, the share that is not steps; and the same in processes of its own."""
    axes = {"network": {"UNet": NETWORKS["UNet"]}, "patch": {"S": {"patch_size": [56, 56, 1], "batch_size": 5}}}
    axes |= {"loss": ["gdl"], "lr": {"key": "optimizer#lr", "values": ["1e-4", "1e-3"]}}
    (folder / "two.yaml").write_text(yaml.safe_dump(paper(steps, **axes), sort_keys=False))
    study(folder / "two.yaml", dataset, folder / "two", places=Places(workers=1), device="cpu", keep_weights=True)
    seconds = read_rows(folder / "two")[1].seconds
    rest = seconds["start"] + seconds["evaluation"]
    began = time.perf_counter()
    words = ["--network", "unet2d", "--loss", "gdl", "--config", "paper", "--iterations", str(steps), "--device", "cpu"]
    words += ["--set", "patch_size=[56,56,1]", "--set", "batch_size=5", "--set", "optimizer#lr=1e-3"]
    words += ["--set", "validation_cases=0", "--set", "cache=disk"]
    run = [sys.executable, "-m", "rarevox.pipeline.cli"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    train = [*run, "train", str(dataset), "--output", str(folder / "run"), *words]
    subprocess.run(train, check=True, env=environment, capture_output=True)
    evaluate = [*run, "evaluate", str(folder / "run"), str(dataset), "--device", "cpu"]
    subprocess.run(evaluate, check=True, env=environment, capture_output=True)
    alone = time.perf_counter() - began
    return {
        **seconds,
        "share_beside_steps": round(rest / seconds["steps"], 3),
        "train_and_evaluate_seconds": round(alone, 1),
        "ratio": round(alone / sum(seconds.values()), 2),
    }


def cells(dataset: Path, folder: Path, workers: int) -> dict[str, Any]:
    """Seconds for 72 cells of one step, planning and start included."""
    (folder / "one.yaml").write_text(yaml.safe_dump(paper(1), sort_keys=False))
    began = time.perf_counter()
    status = study(folder / "one.yaml", dataset, folder / "one", places=Places(workers=workers), device="cpu")
    seconds = time.perf_counter() - began
    rows = read_rows(folder / "one")
    steps = sum(row.seconds["steps"] for row in rows)
    size = sum(file.stat().st_size for file in (folder / "one" / "cells").rglob("*") if file.is_file())
    beside = sum(row.seconds["start"] + row.seconds["evaluation"] for row in rows) / len(rows)
    return {
        "cells": len(rows),
        "status": status,
        "seconds": round(seconds, 1),
        "steps": round(steps, 1),
        "start_and_evaluation_of_a_cell": round(beside, 2),
        "kb_of_a_cell": round(size / len(rows) / 1e3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["plan", "cell", "cells"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(write_task(folder / "task"), folder / "dataset", holdout=0.25, folds=3, seed=0)
        dataset = Dataset.load(folder / "dataset").path.parent
        todo = {
            "plan": lambda: plan(dataset, folder),
            "cell": lambda: cell(dataset, folder, options.steps),
            "cells": lambda: cells(dataset, folder, options.workers),
        }
        found = {name: work() for name, work in todo.items() if options.only in (None, name)}
    load = round(os.getloadavg()[0], 1)
    print(json.dumps({"machine": platform.machine(), "cores": os.cpu_count(), "load": load, **found}, indent=1))


if __name__ == "__main__":
    main()
