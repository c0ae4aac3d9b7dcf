"""What is told before a run is scored: with which decisions of its own, and which earlier figures are replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.console import console
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.figures import figure, moment, rules_text
from rarevox.pipeline.files import read_json
from rarevox.pipeline.words import counted

METRICS = "metrics.json"


def tell_beginning(folder: Path, config: Mapping[str, Any], temperature: float | Sequence[float]) -> None:
    """Say what the figures in ``folder`` will be made with, and of those that are there that they are replaced."""
    console.print(scored_with(config, temperature), soft_wrap=True)
    tell_replaced(folder)


def tell_replaced(folder: Path) -> None:
    """Say of an earlier evaluation in a folder, where there is one, that it is replaced."""
    if (folder / METRICS).is_file():
        console.print(replaced(folder), soft_wrap=True)


def scored_with(config: Mapping[str, Any], temperature: float | Sequence[float] = 1.0) -> str:
    """Operating points, post-processing and temperature of a run, in a line.

    Args:
        config: the run's, for its evaluation.
        temperature: of its probabilities; of an ensemble those of its members.

    >>> scored_with({"operating_points": {"lesion": {"threshold": 0.3}}, "post_processing": None})
    'scored with operating points lesion: threshold 0.3; post-processing none; temperature 1'
    """
    points, cleaning = (rules_text(config.get(key)) for key in ("operating_points", "post_processing"))
    several = [temperature] if isinstance(temperature, (int, float)) else temperature
    degrees = ", ".join(f"{one:g}" for one in several)
    return f"scored with operating points {points}; post-processing {cleaning}; temperature {degrees}"


def replaced(folder: Path) -> str:
    """What an earlier evaluation in a folder found, when, and with which operating points."""
    when = moment((folder / METRICS).stat().st_mtime)
    try:
        content = read_json(folder / METRICS)
        mean, cases = float(content["mean_dice"]), counted(int(content["n_cases"]), "case")
        points = content.get("context", {}).get("operating_points")  # of a run, not of label maps
    except (RequestError, LookupError, TypeError, ValueError, AttributeError):
        return f"{folder} holds an evaluation of {when}, which is replaced"
    found = f"mean Dice {figure(mean)} over {cases}" + (f", operating points {rules_text(points)}" if points else "")
    return f"{folder} holds an evaluation of {when} ({found}), which is replaced"
