"""What a normalisation learns from the training cases before training, written into the run's configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from rarevox.pipeline.build import build
from rarevox.pipeline.console import console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.entries import locate
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.shortage import is_out_of_memory
from rarevox.pipeline.words import counted

CASES = 50
"""Landmarks of more cases than this hardly move; they are picked evenly from the training cases."""


def learn_normalisation(config: Mapping[str, Any], data: Dataset) -> dict[str, Any]:
    """Fill in what ``normalisation`` has yet to learn: the arguments that its class names in ``learns``.

    ``normalisation`` is one transform or a ``Compose`` of several; each learns from images as they reach it, that is
    after the preprocessing and the transforms before it. Nothing is read where nothing is to be learnt.

    Args:
        config: a training configuration.
        data: the dataset; the training cases of the configuration's fold are used, at most 50.

    Returns:
        The configuration with the numbers in it; ``config`` is not changed.

    Raises:
        RequestError: the preprocessing never comes to ``@normalisation``, or there is nothing to learn from.
    """
    whole: dict[str, Any] = deepcopy(dict(config))
    entry: Any = whole.get("normalisation")
    steps: list[Any] = entry["transforms"] if isinstance(entry, dict) and "transforms" in entry else [entry]
    for number, step in enumerate(steps):
        target = str(step.get("_target_")) if isinstance(step, dict) else ""
        argument = getattr(locate(target), "learns", None) if target else None
        if argument is None or step.get(argument) is not None:
            continue
        before = [*_until_normalisation(whole), *steps[:number]]
        parts = {"before": {"_target_": "Compose", "transforms": before}, "step": step}
        built = build(whole | {"_learning": parts}, "_learning")
        cases = data.section("train", fold=whole["fold"])
        cases = [cases[(i * len(cases)) // CASES] for i in range(CASES)] if len(cases) > CASES else cases
        console.print(f"learning {argument} of {target.rsplit('.', 1)[-1]} from {counted(len(cases), 'training case')}")
        try:
            step[argument] = built["step"].learn(_images(cases, built["before"], built["step"]))
        except ValueError as error:
            raise RequestError(f"normalisation: {error}") from error
    return whole


def _until_normalisation(config: Mapping[str, Any]) -> list[Any]:
    """The preprocessing's transforms that come before the normalisation."""
    transforms = config["preprocessing"]["transforms"]
    if "@normalisation" not in transforms:
        raise RequestError('the normalisation learns from images, but preprocessing does not list "@normalisation"')
    return list(transforms[: transforms.index("@normalisation")])


def _images(cases: list[dict[str, Any]], before: Any, step: Any) -> Iterator[tuple[Any, Any]]:
    """Each case's image and the mask of its voxels that count, one at a time, labels left unread."""
    for case in cases:
        try:
            loaded = before({key: value for key, value in case.items() if key != "label"})
        except Exception as error:
            if is_out_of_memory(error):
                raise
            continue  # it is left out of the training too, and told there
        for key in step.key_iterator(loaded):
            yield loaded[key], step.inside(loaded, loaded[key])
