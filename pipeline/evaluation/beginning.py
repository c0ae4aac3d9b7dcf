"""What is told first: with which decisions of its own a run is scored, and which earlier figures or choices go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.compose import read_yaml
from rarevox.pipeline.console import console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.learnt import seen_cases
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.figures import figure, moment, rules_text
from rarevox.pipeline.files import read_json
from rarevox.pipeline.words import counted, listed

METRICS = "metrics.json"
_CHOSEN = {"operating_points": "operating points", "post_processing": "post-processing", "temperature": "temperature"}


def tell_beginning(folder: Path, config: Mapping[str, Any], temperature: float | Sequence[float]) -> None:
    """Say what the figures in ``folder`` will be made with, and of those that are there that they are replaced."""
    console.print(scored_with(config, temperature), soft_wrap=True)
    tell_replaced(folder)


def tell_replaced(folder: Path) -> None:
    """Say of an earlier evaluation in a folder, where there is one, that it is replaced."""
    if (folder / METRICS).is_file():
        console.print(replaced(folder), soft_wrap=True)


def tell_choice_replaced(runs: Sequence[Path], key: str) -> None:
    """Say of runs that have had something chosen that it is replaced, as long as that can be stopped.

    Args:
        runs: their folders.
        key: of their configurations: ``operating_points``, ``post_processing`` or ``temperature``.
    """
    alike: dict[str, list[Path]] = {}
    for run in runs:
        had = read_yaml(run / "configs" / "inference.yaml").get(key)
        if had and had != 1:  # a temperature of 1 is none
            alike.setdefault(rules_text(had), []).append(run)
    for rules, those in alike.items():
        more = f" (and {counted(len(those) - 1, 'run')} more)" if len(those) > 1 else ""
        console.say("{}{} has {} {}, replaced by what is chosen now", those[0], more, _CHOSEN[key], rules)


def told_if_seen(
    runs: Iterable[Path], given: Path, data: Dataset, section: str, cases: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Cases of a section of held-out ones that a run has learnt from; it is said that there are.

    Args:
        runs: whose cases these must not be.
        given: what the caller named, for the message.
        data: the dataset.
        section: ``test`` or ``validation``, for the message.
        cases: of that section.
    """
    seen = seen_cases(runs, data, cases)
    if seen:
        which = f"{len(seen)} of {counted(len(cases), 'case')} in section {section} of {data.path}"
        console.say(
            "[yellow]{} {} learnt from by {}[/yellow] ({}): figures of such cases are not held-out ones",
            which,
            "was" if len(seen) == 1 else "were",
            given,
            listed(seen),
        )
    return seen


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
