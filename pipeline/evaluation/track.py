"""The figures of an evaluation where the training's numbers went: TensorBoard, MLflow."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rarevox.pipeline.compose import read_yaml
from rarevox.pipeline.console import console
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.files import read_json
from rarevox.pipeline.training.record.run_log import read_rows

COLUMNS = ("dice", "iou", "precision", "recall", "hd95_mm", "assd_mm", "lesion_f1")
MLFLOW_FILE = "mlflow.json"


def track_evaluation(run: Path, section: str, result: Mapping[str, Any]) -> None:
    """Give the means of an evaluation to the trackers that the run's training used.

    Scalars ``evaluation/SECTION/STRUCTURE/COLUMN`` (and ``evaluation/SECTION/mean_dice``), at the iteration of the
    model that was kept, go to the event files in ``logs/tensorboard`` unless training had TensorBoard off, and to the
    MLflow run that ``logs/mlflow.json`` names, if it is there. A tracker that cannot be reached is told in a line and
    changes nothing else.

    Args:
        run: the run folder.
        section: that was evaluated.
        result: the content of ``metrics.json``.
    """
    figures, step = scalars(section, result), kept_iteration(run)
    log = read_yaml(run / "configs" / "train.yaml").get("log")
    trackers = {"MLflow": _to_mlflow} if (run / "logs" / MLFLOW_FILE).is_file() else {}
    if not isinstance(log, Mapping) or log.get("tensorboard", True):
        trackers["TensorBoard"] = _to_tensorboard
    for name, send in trackers.items():
        try:
            send(run / "logs", figures, step)
        except Exception as error:  # a server that is gone must not take the evaluation with it
            console.say("[yellow]not tracked[/yellow] by {}: {}", name, reason_of(error))


def scalars(section: str, result: Mapping[str, Any]) -> dict[str, float]:
    """The means that are defined, by tag.

    >>> scalars("test", {"mean_dice": 0.5, "structures": {"a b": {"dice": {"mean": 0.5}, "iou": {"mean": None}}}})
    {'evaluation/test/mean_dice': 0.5, 'evaluation/test/a b/dice': 0.5}
    """
    found: dict[str, Any] = {f"evaluation/{section}/mean_dice": result["mean_dice"]}
    errors = result.get("calibration", {}).get("structures", {})
    for name, summary in result["structures"].items():
        plain = re.sub(r"[^\w\-. ]", "_", name, flags=re.ASCII)  # what MLflow takes
        columns = [*COLUMNS, *(column for column in summary if column.startswith("surface_dice"))]
        for column in columns:
            if column in summary:
                found[f"evaluation/{section}/{plain}/{column}"] = summary[column]["mean"]
        if name in errors:
            found[f"evaluation/{section}/{plain}/ece_near"] = errors[name]["near"]["ece"]
    return {tag: float(value) for tag, value in found.items() if value is not None and math.isfinite(value)}


def kept_iteration(run: Path) -> int:
    """The iteration of the last validation that was the best; 0 where none is recorded."""
    best = [row["iteration"] for row in read_rows(run / "logs" / "validation.jsonl") if row.get("best")]
    return int(best[-1]) if best else 0


def _to_tensorboard(logs: Path, figures: Mapping[str, float], step: int) -> None:
    from torch.utils.tensorboard import SummaryWriter  # seconds to import, so only where it is used

    writer: Any = SummaryWriter(str(logs / "tensorboard"))  # type: ignore[no-untyped-call]
    for tag, value in figures.items():
        writer.add_scalar(tag, value, step)
    writer.close()


def _to_mlflow(logs: Path, figures: Mapping[str, float], step: int) -> None:
    """To the run of ``mlflow.json``: ``{"tracking_uri", "run_id", …}``."""
    stated = read_json(logs / MLFLOW_FILE)
    try:
        from mlflow import MlflowClient  # type: ignore[import-not-found]
    except ImportError:
        raise RequestError("the package mlflow is not installed; pip install mlflow-skinny") from None
    client = MlflowClient(tracking_uri=stated["tracking_uri"])
    for tag, value in figures.items():
        client.log_metric(stated["run_id"], tag, value, step=step)
