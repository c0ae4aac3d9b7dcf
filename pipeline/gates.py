"""Gates: the least Dice that each structure must reach before a model may be used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from rarevox.pipeline.errors import RequestError, nearest

RULES = {
    "mean": "mean Dice",
    "lower": "lower bound of the 95 % interval of the mean Dice",
    "worst": "Dice of the worst case",
}


def read_gates(declared: object, structures: Iterable[str]) -> dict[str, dict[str, float]]:
    """The gates of a configuration, checked: structure → rule → minimum.

    Args:
        declared: the configuration's ``gates``: ``{structure: {rule: minimum}}`` with the rules ``mean``, ``lower`` and
            ``worst``; None and empty mappings are no gates.
        structures: the names that may be used.

    Raises:
        RequestError: an unknown structure or rule (the nearest valid name is given), or a minimum outside 0 to 1.

    >>> read_gates({"lesion": {"mean": 0.75, "worst": 0.3}}, ["lesion"])
    {'lesion': {'mean': 0.75, 'worst': 0.3}}
    """
    if declared is not None and not isinstance(declared, Mapping):
        raise RequestError(f"gates is {declared!r}; expected for example {{lesion: {{mean: 0.75, worst: 0.3}}}}")
    names, gates = list(structures), {}
    for structure, rules in (declared or {}).items():
        if structure not in names:
            raise RequestError(f"gates: no structure is called {structure!r}: {nearest(str(structure), names)}")
        if rules is not None and not isinstance(rules, Mapping):
            raise RequestError(f"gates: {structure} is {rules!r}; expected rules, for example {{mean: 0.75}}")
        for rule, minimum in (rules or {}).items():
            if rule not in RULES:
                raise RequestError(f"gates: {structure} has no rule {rule!r}: {nearest(str(rule), RULES)}")
            number = isinstance(minimum, (int, float)) and not isinstance(minimum, bool)
            if not number or not 0 <= minimum <= 1:
                raise RequestError(f"gates: the {rule} of {structure} is {minimum!r}; expected a Dice from 0 to 1")
        gates[structure] = {rule: float(minimum) for rule, minimum in (rules or {}).items()}
    return gates


def check_gates(gates: Mapping[str, Mapping[str, float]], result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each gate asks and what was reached, in the order of their declaration.

    A gate is passed where value ≥ minimum. What could not be measured has not been shown and does not pass: no case
    with a figure, or no interval (fewer than two cases). Failed cases count as 0, in ``worst`` too.

    Args:
        gates: of :func:`read_gates`.
        result: of :func:`rarevox.pipeline.evaluation.metrics.aggregate.aggregate`.

    Returns:
        Rows ``structure``, ``rule``, ``minimum``, ``value`` (NaN where not measured), ``passed``.

    >>> result = {"structures": {"lesion": {"dice": {"mean": 0.8, "ci95": [0.7, 0.9], "min": 0.2}}}}
    >>> [row["passed"] for row in check_gates({"lesion": {"mean": 0.8, "lower": 0.75, "worst": 0.1}}, result)]
    [True, False, True]
    """
    rows = []
    for structure, rules in gates.items():
        dice = result["structures"][structure]["dice"]
        reached = {"mean": dice["mean"], "lower": dice["ci95"][0], "worst": dice["min"]}
        for rule, minimum in rules.items():
            value = math.nan if reached[rule] is None else float(reached[rule])
            rows.append(
                {
                    "structure": structure,
                    "rule": rule,
                    "minimum": minimum,
                    "value": value,
                    "passed": bool(value >= minimum),
                }
            )
    return rows


def failed_gates(result: Mapping[str, Any]) -> list[str]:
    """A sentence for each gate of a result that is not passed.

    >>> failed_gates({"gates": [{"structure": "a", "rule": "mean", "minimum": 0.7, "value": 0.65, "passed": False}]})
    ['a: mean Dice is 0.650, the gate asks for 0.700']
    """
    said = []
    for row in result.get("gates", []):
        if not row["passed"]:
            measured = row["value"] is not None and math.isfinite(row["value"])
            value = f"is {row['value']:.3f}" if measured else "was not measured (too few cases)"
            said.append(f"{row['structure']}: {RULES[row['rule']]} {value}, the gate asks for {row['minimum']:.3f}")
    return said
