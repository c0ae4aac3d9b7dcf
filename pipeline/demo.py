"""The whole pipeline on a phantom cohort, as a person would call it stage by stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rarevox.pipeline.console import console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.files import claim_folder
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.phantom.cohort import write_cohort
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.training.train import train

STAGES = ("phantom", "dataset", "run", "predictions")


def demo(
    output: str | Path,
    *,
    minutes: float = 7.0,
    subjects: int = 16,
    lesion_share: float = 1e-3,
    spacing_mm: float = 2.0,
    settings: Sequence[str] = (),
    device: str = "auto",
    seed: int = 0,
) -> int:
    """Make a cohort, prepare it, train HighResNet with GDL+CE, evaluate it and segment the held-out scans.

    Args:
        output: gets ``phantom/``, ``dataset/``, ``run/`` and ``predictions/``.
        minutes: training time.
        subjects: phantom subjects; a quarter is held out.
        lesion_share: lesion voxels ÷ voxels of the volume, above 0.
        spacing_mm: of the phantoms.
        settings: ``KEY=VALUE`` texts for the training configuration.
        device: auto, cpu, cuda or cuda:i.
        seed: of the cohort and the split.

    Returns:
        Exit status; the report's path is printed last, on standard output.

    Raises:
        RequestError: a value out of its range.
    """
    if lesion_share == 0:
        raise RequestError("--lesion-share is 0, and the demo learns lesions; give a share above 0, at most 0.02")
    if not 0 < minutes < math.inf:
        raise RequestError(f"--minutes is {minutes:g}; give the training a time above 0")
    if subjects < 2:
        raise RequestError(f"--subjects is {subjects}; give 2 or more: one is held out, and one trains")
    folder = claim_folder(output, holds=lambda path: False, what="a demo")
    _say("1/5 phantom cohort", f"{subjects} synthetic subjects with white-matter lesions")
    write_cohort(folder / "phantom", subjects=subjects, lesion_share=lesion_share, spacing_mm=spacing_mm, seed=seed)
    _say("2/5 prepare", f"rarevox prepare {folder}/phantom --output {folder}/dataset --holdout 0.25")
    status = prepare(folder / "phantom", folder / "dataset", holdout=0.25, folds=4, seed=seed)
    if status == 0:
        words = f"--network highresnet --config demo --minutes {minutes:g}"
        _say("3/5 train", f"rarevox train {folder}/dataset --output {folder}/run {words}")
        status = train(
            folder / "dataset",
            folder / "run",
            network="highresnet",
            config_files=["demo"],
            minutes=minutes,
            device=device,
            settings=[f"seed={seed}", *settings],
        )
    if status == 0:
        _say("4/5 evaluate", f"rarevox evaluate {folder}/run {folder}/dataset")
        status = evaluate(folder / "run", folder / "dataset", device=device)
    if status == 0:
        scans = [case["image"] for case in Dataset.load(folder / "dataset").section("test")]
        _say("5/5 predict", f"rarevox predict {folder}/run SCANS --output {folder}/predictions")
        status = predict(folder / "run", scans, folder / "predictions", device=device)
    if status == 0:
        print(folder / "run" / "evaluation" / "test" / "report.html")
    return status


def _say(stage: str, what: str) -> None:
    console.say("[bold]{}[/]  {}", stage, what)
