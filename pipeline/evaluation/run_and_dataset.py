"""What a run and a dataset must have in common before the run is measured on it, and what is told of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rarevox.pipeline.console import console
from rarevox.pipeline.data.dataset import ALL_FOLDS, Dataset
from rarevox.pipeline.data.nested import by_value
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.inference.ensemble import members_of
from rarevox.pipeline.inference.segment import Segmenter, corrects
from rarevox.pipeline.words import listed


def same_structures(config: dict[str, Any], data: Dataset, run: Path, *, optional: Sequence[str] = ()) -> list[str]:
    """A run answers only for the structures and channels that it learnt.

    Args:
        config: of the run.
        data: what it is to be measured on.
        run: its folder.
        optional: channels that the dataset may lack.

    Returns:
        the channels that it lacks.

    Raises:
        RequestError: other structures, label values or channels.
    """
    lacking = [name for name in config["channels"] if name not in data.channels]
    fewer = bool(lacking) and set(data.channels) <= set(config["channels"])
    # Of fewer channels the order does not matter: their files are told apart by name.
    own_channels = list(data.channels) if fewer and set(lacking) <= set(optional) else list(config["channels"])
    # Those of a run that learnt nested regions are in the order of depth.
    structures, values = by_value(config["structures"], config["label_values"])
    for what, own, theirs in (
        ("structures", structures, list(data.structures)),
        ("label values", values, list(data.label_values)),
        ("channels", own_channels, list(data.channels)),
    ):
        if list(own) != theirs:
            may = f", or a run that may go without {listed(lacking)} (channel_dropout)" if fewer else ""
            said = f"{run} was trained for {what} {own}, and {data.path} has {theirs}; use its own dataset"
            raise RequestError(said + (may if what == "channels" else ""))
    return lacking


def with_ignored(options: MetricOptions, data: Dataset) -> MetricOptions:
    """The conventions with the label that marks what nobody annotated in a dataset; a run may not know it."""
    return options if data.ignored is None else replace(options, ignored_value=data.ignored)


def tell_correction(segmenter: Segmenter, data: Dataset) -> None:
    """Say where the bias field of scans is not as a run learnt it, and where correcting it (N4) takes its time."""
    for member in members_of(segmenter):
        learnt, here = corrects(member.run), bool(member.config["n4"])
        if learnt and not (data.n4 or here):
            console.say("[yellow]no N4[/yellow]: {} learnt from corrected scans, and n4 is off here", member.run)
        elif data.n4 and not learnt:
            text = f"{data.name} holds scans corrected by N4, and {member.run} learnt from scans as they are"
            console.say("[yellow]other scans[/yellow]: {}; for its figures on such scans prepare without --n4", text)
        elif here and not data.n4:
            console.print(f"{member.run} learnt from scans corrected by N4; those of {data.name} are corrected first")


def as_items(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cases whose label stands as ``reference``, which the preprocessing leaves alone."""
    return [{("reference" if key == "label" else key): value for key, value in case.items()} for case in cases]


def temperature_of(segmenter: Segmenter) -> float | list[float]:
    """The temperature of a run's probabilities; of an ensemble those of its members."""
    found = [float(getattr(member.inferer, "temperature", 1.0)) for member in members_of(segmenter)]
    return found[0] if len(found) == 1 else found


def require_validation(run: Path, config: Mapping[str, Any]) -> int:
    """The fold on whose cases a run may be judged or tuned.

    Raises:
        RequestError: none was set aside, it learnt from all of them.
    """
    if config["fold"] == ALL_FOLDS:
        raise RequestError(
            f"{run} learnt from every training case (fold: {ALL_FOLDS}), so that no validation cases are left; "
            "train with --fold 0, or cross-validate with rarevox crossval, and choose there"
        )
    return int(config["fold"])
