"""The result of an evaluation or a score: figures with and without post-processing, and the gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.console import console
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.metrics.aggregate import Row, aggregate
from rarevox.pipeline.evaluation.metrics.options import MetricOptions, Structures
from rarevox.pipeline.gates import check_gates

_RAW = ("mean_dice", "mean_dice_ci95", "structures")


def outcome(
    rows: Sequence[Row],
    structures: Structures,
    *,
    options: MetricOptions,
    raw_rows: Sequence[Row] | None = None,
    gates: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """The aggregate of the rows with what the gates ask and reach.

    Args:
        rows: of all cases.
        structures: name → value or values.
        options: the conventions.
        raw_rows: the rows without post-processing, whose figures go to ``without_post_processing``; None where there is
            no post-processing.
        gates: of :func:`rarevox.pipeline.gates.read_gates`.
    """
    result = aggregate(rows, structures, options=options)
    if raw_rows is not None:
        raw = aggregate(raw_rows, structures, options=options)
        result["without_post_processing"] = {key: raw[key] for key in _RAW}
    return result | {"gates": check_gates(gates or {}, result)}


def read_declared(file: str | Path | None, key: str) -> Any:
    """What a YAML file (a run's configuration serves) declares under ``key``, or all of it where it has no such key.

    Raises:
        RequestError: no such file, no YAML, or a configuration that does not have the key.
    """
    if file is None:
        return {}
    from rarevox.pipeline.compose import read_yaml

    content = read_yaml(file)
    if key not in content and "_target_" in str(content):
        raise RequestError(f"{file} is a configuration without {key!r}; give a file that declares {key}")
    declared = content.get(key, content)
    if not declared:
        console.say("[yellow]no {}[/yellow]: {} declares none", key, file)
    return declared
