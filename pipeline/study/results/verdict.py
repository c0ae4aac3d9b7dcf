"""What becomes of a claim: it holds, it does not, or the study leaves it undecided; with the figures and the rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rarevox.pipeline.study.results.outcomes import Outcome, Results, value_of
from rarevox.pipeline.study.results.paper import loss_name, network_name

HOLDS, FAILS, UNDECIDED, UNTESTED = "holds", "does not hold", "undecided", "not tested"
ENOUGH = 0.9
"""Of the cells that a claim is about, so many must have figures."""

Judgement = tuple[bool | None, str]
"""Whether a claim holds (None: undecided), and the figures in a sentence."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and the rule by which a study judges it.

    Attributes:
        text: the claim.
        source: where the paper makes it.
        rule: thresholds, in words.
        judge: the rule; takes the cells with a figure, named as in the paper.
        networks: which it is about; any of them, or all where ``every_network``.
        losses: which it needs.
        varied: roles that must be axes of two labels or more.
        every_network: whether it compares the networks.
        on_test: whether it is about the held-out cases and not the training Dice.
        figure: anchor on the page where it can be seen.
    """

    text: str
    source: str
    rule: str
    judge: Callable[[Sequence[Outcome]], Judgement]
    networks: tuple[str, ...]
    losses: tuple[str, ...]
    varied: tuple[str, ...] = ("patch", "lr")
    every_network: bool = False
    on_test: bool = False
    figure: str = "isolines"


@dataclass(frozen=True)
class Verdict:
    """What a study says of a claim: ``verdict`` is one of ``HOLDS``, ``FAILS``, ``UNDECIDED``, ``UNTESTED``."""

    claim: str
    source: str
    verdict: str
    said: str
    rule: str
    figure: str


def verdict_on(claim: Claim, results: Results) -> Verdict:
    """Judge one claim.

    A study without the networks, losses or axes of the claim does not test it; one in which more than a tenth of the
    cells have no figure yet, or failed for another reason than a diverging loss, leaves it undecided.
    """

    def verdict(word: str, said: str) -> Verdict:
        return Verdict(claim.text, claim.source, word, said, claim.rule, claim.figure)

    cells = paper_cells(results, claim)
    lacking = _lacking(claim, cells)
    if lacking:
        return verdict(UNTESTED, lacking)
    known = [one for one in cells if math.isfinite(one.dice)]
    if len(known) < ENOUGH * len(cells):
        return verdict(UNDECIDED, f"{len(known)} of the {len(cells)} cells have figures so far.")
    holds, said = claim.judge(known)
    return verdict(UNDECIDED if holds is None else HOLDS if holds else FAILS, said)


def paper_cells(results: Results, claim: Claim) -> list[Outcome]:
    """The cells on a claim's networks with the paper's losses, all named as in the paper.

    Where the claim is about held-out cases, ``dice`` is their mean Dice. The foreground share of a cell without one is
    that of the others with the same network, patch and imbalance.
    """
    found = []
    for one in results.outcomes:
        network, loss = network_name(one.label("network")), loss_name(one.label("loss"))
        if network in claim.networks and loss:
            labels = {**one.labels, "network": network, "loss": loss}
            found.append(replace(one, labels=labels, dice=one.test if claim.on_test else one.dice))
    shares: dict[tuple[str, ...], list[float]] = {}
    for one in found:
        if math.isfinite(one.share):
            shares.setdefault(_place(one), []).append(one.share)
    return [one if math.isfinite(one.share) else replace(one, share=mean(shares.get(_place(one), []))) for one in found]


def _place(one: Outcome) -> tuple[str, ...]:
    return one.label("network"), one.label("patch"), one.label("imbalance")


def _lacking(claim: Claim, cells: Sequence[Outcome]) -> str:
    """What the study lacks for the claim, in a sentence; empty where it has all."""
    networks, losses = distinct(cells, "network"), distinct(cells, "loss")
    if not networks or (claim.every_network and len(networks) < len(claim.networks)):
        return f"The study has no {(' and ' if claim.every_network else ' or ').join(claim.networks)}."
    missing = [loss for loss in claim.losses if loss not in losses]
    if missing:
        return f"The study has no {' or '.join(missing)} on {' or '.join(networks)}."
    single = [role for role in claim.varied if len(distinct(cells, role)) < 2]
    said = {"patch": "patches", "lr": "learning rates"}
    return f"The study does not vary {' or '.join(said[role] for role in single)}." if single else ""


def distinct(cells: Sequence[Outcome], role: str) -> list[str]:
    """The labels of a role that occur, in the order of the cells; without those that are empty."""
    return [label for label in dict.fromkeys(one.label(role) for one in cells) if label]


def rates(cells: Sequence[Outcome]) -> list[str]:
    """The labels of the learning rates, the slowest first."""
    return sorted(distinct(cells, "lr"), key=value_of)


def patches(cells: Sequence[Outcome]) -> list[str]:
    """The labels of the patches, the smallest effective one first."""
    sizes = {
        label: mean([one.patch for one in cells if one.label("patch") == label]) for label in distinct(cells, "patch")
    }
    return sorted(sizes, key=lambda label: sizes[label])


def mean(values: Sequence[float]) -> float:
    """The mean of the finite values; NaN without any.

    >>> mean([0.25, float("nan"), 0.75])
    0.5
    """
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
