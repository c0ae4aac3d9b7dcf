"""The training and the scores of a cell, through the code of ``rarevox train`` and ``rarevox evaluate``."""

from __future__ import annotations

import math
import shutil
import time
from typing import Any

import torch

from rarevox.pipeline.bundle import version
from rarevox.pipeline.compose import read_yaml
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import read_json
from rarevox.pipeline.study.cell.score import score_fully, score_light
from rarevox.pipeline.study.cells import settings_texts
from rarevox.pipeline.study.checks import OWN_SETTINGS
from rarevox.pipeline.study.datasets import place_of
from rarevox.pipeline.study.job import LOGS, Job, last_words
from rarevox.pipeline.study.rows import HeldOut, Row
from rarevox.pipeline.study.summary import constant_dice, held_out, quartiles, step_seconds, train_dice
from rarevox.pipeline.training.kept.run_checkpoint import has_checkpoint
from rarevox.pipeline.training.record.batch_record import read_record
from rarevox.pipeline.training.train import train

PACKAGES = ("rarevox", "torch", "monai", "numpy")


class Interrupted(Exception):
    """A signal ended the training; the words are the exit status."""


class Unwritten(Exception):
    """What the training made could not be written."""


def trained_row(job: Job, began: float) -> Row:
    """Train the cell, or go on with it, and score it.

    Args:
        job: the cell.
        began: when it began, of ``time.monotonic``.

    Raises:
        Interrupted, Unwritten: the cell is as good as it was, and goes on in another call.
        RequestError: and others that a training ends with; they are reasons.
    """
    torch.set_num_threads(job.threads)
    place = place_of(job.cell.settings, job.dataset)
    data = Dataset.load(place)
    left = _train(job, place)
    trained = time.monotonic()
    test = _scored(job, data)
    ended = time.monotonic()
    record = read_record(job.folder)
    if record is None:
        raise Unwritten(f"{job.folder} has no iterations.npz")
    config = read_yaml(job.folder / "configs" / "train.yaml")
    steps = min(step_seconds(job.folder), math.inf)
    seconds = {"start": max(trained - began - steps, 0.0), "steps": steps, "evaluation": ended - trained}
    return Row(
        cell=job.cell.name,
        labels=job.cell.labels,
        state="done",
        iterations=len(record["iteration"]),
        train_dice=train_dice(record, job.last),
        last=job.last,
        constant_dice=constant_dice(record, job.last),
        foreground_share=quartiles(record["foreground_share"]),
        effective_patch=tuple(read_json(job.folder / "logs" / "patches.json")["effective_size"]),
        patch_size=tuple(config["patch_size"]),
        batch_size=int(config["batch_size"]),
        test=test,
        left_out=left,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        versions={name: version(name) for name in PACKAGES},
    )


def _train(job: Job, place: str) -> tuple[str, ...]:
    """Train the cell; the cases that could not be read, without which it was trained."""
    cell, folder = job.cell, job.folder
    budget: dict[str, Any] = {key: cell.settings[key] for key in ("iterations", "minutes") if key in cell.settings}
    how: dict[str, Any] = {"device": job.device, "trust": job.trust}
    if has_checkpoint(folder):
        status = train(place, folder, resume=True, **budget, **how)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        status = train(
            place,
            folder,
            network=cell.settings.get("network"),
            loss=cell.settings.get("loss"),
            config_files=cell.settings.get("config", ()),
            settings=settings_texts(OWN_SETTINGS | cell.settings.get("settings", {})),
            fold=cell.settings.get("fold"),
            **budget,
            **how,
        )
    if status >= 128:
        raise Interrupted(int(status))
    if status.untrained:
        shutil.rmtree(folder / "models", ignore_errors=True)  # its time is over: to go on from it would be no attempt
        raise RequestError("the time was over before the first step, since reading the cases counts; give more minutes")
    if status and not status.left:
        raise Unwritten(
            last_words(folder.parents[1] / LOGS / f"{cell.name}.log") or f"the training ended with {int(status)}"
        )
    return status.left


def _scored(job: Job, data: Dataset) -> HeldOut | None:
    if not job.section:
        return None
    score = score_fully if job.full else score_light
    try:
        result = score(job.folder, data, section=job.section, device=job.device, trust=job.trust)
    except RequestError as error:
        raise RequestError(f"trained, and not scored: {error}") from error
    return held_out(result["cases"], job.structures, mean_over=result["conventions"]["mean_over"])
