"""What becomes of a claim: it holds, it does not, or the study leaves it undecided; with the figures and the rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from rarevox.pipeline.study.results.outcomes import Outcome, Results, value_of
from rarevox.pipeline.study.results.paper import loss_name, network_name

HOLDS, FAILS, UNDECIDED, UNTESTED = "holds", "does not hold", "undecided", "not tested"
ENOUGH = 0.9
"""Of the cells that a claim is about, so many must have figures; of each group that is compared, more than half."""


class Undecided(Exception):
    """A rule has too little to judge by; the words say what there is."""


Judgement = tuple[bool | None, str]
"""Whether a claim holds (None: undecided), and the figures in a sentence."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and the rule by which a study judges it.

    Attributes:
        text: the claim.
        source: where the paper makes it.
        rule: thresholds, in words.
        judge: the rule; takes the cells of the claim, named as in the paper, those without a figure too: they say
            which networks, losses, patches and rates there are. Raises :class:`Undecided` where it has too little.
        networks: which it is about; any of them, or all where ``every_network``.
        losses: which it needs.
        varied: roles that must be axes of two labels or more.
        every_network: whether it compares the networks.
        only_losses: whether it is about ``losses`` and no others; else it takes whichever of the paper's there are.
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
    only_losses: bool = False
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
    cells, or half of those that a rule compares with others, have no figure yet, or failed for another reason than a
    diverging loss, leaves it undecided.
    """

    def verdict(word: str, said: str) -> Verdict:
        return Verdict(claim.text, claim.source, word, said, claim.rule, claim.figure)

    cells = paper_cells(results, claim)
    lacking = _lacking(claim, cells)
    if lacking:
        return verdict(UNTESTED, lacking)
    count = sum(math.isfinite(one.dice) for one in cells)
    if count < ENOUGH * len(cells):
        return verdict(UNDECIDED, f"{count} of the {len(cells)} cells have figures so far.")
    try:
        holds, said = claim.judge(cells)
    except Undecided as little:
        return verdict(UNDECIDED, str(little))
    return verdict(UNDECIDED if holds is None else HOLDS if holds else FAILS, said)


def paper_cells(results: Results, claim: Claim) -> list[Outcome]:
    """The cells on a claim's networks with the paper's losses, all named as in the paper.

    Where the claim is about held-out cases, ``dice`` is their mean Dice, ``constant`` that of marking every voxel. The
    foreground share of a cell without one is that of the others with the same network, patch and imbalance.
    """
    found = []
    for one in results.outcomes:
        network, loss = network_name(one.label("network")), loss_name(one.label("loss"))
        if network in claim.networks and loss and (loss in claim.losses or not claim.only_losses):
            labels = {**one.labels, "network": network, "loss": loss}
            figures = (one.test, one.test_constant) if claim.on_test else (one.dice, one.constant)
            found.append(replace(one, labels=labels, dice=figures[0], constant=figures[1]))
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
    """The labels of the patches, the smallest effective one first.

    Raises:
        Undecided: no cell says how large one of them is.
    """
    sizes = {
        label: mean([one.patch for one in cells if one.label("patch") == label]) for label in distinct(cells, "patch")
    }
    for label, size in sizes.items():
        if not math.isfinite(size):
            raise Undecided(f"No cell of patch {label} is done.")
    return sorted(sizes, key=lambda label: sizes[label])


def known(cells: Iterable[Outcome], what: str, **labels: str) -> list[Outcome]:
    """The cells of a group that have a Dice: every group that a rule compares comes from here.

    Args:
        cells: of the claim.
        what: the cells are of, in words.
        labels: role to label, of the group.

    Raises:
        Undecided: half of the group or more has none, or the group is empty.

    >>> cells = [Outcome("a", {"loss": "SS"}), Outcome("b", {"loss": "SS"}, dice=0.5)]
    >>> try:
    ...     known(cells, "SS", loss="SS")
    ... except Undecided as little:
    ...     print(little)
    Of SS 1 of 2 cells have figures.
    """
    group = [one for one in cells if all(one.label(role) == label for role, label in labels.items())]
    found = [one for one in group if math.isfinite(one.dice)]
    if 2 * len(found) <= len(group):
        raise Undecided(f"Of {what} {len(found)} of {len(group)} cells have figures.")
    return found


def mean_dice(cells: Iterable[Outcome], what: str, **labels: str) -> float:
    """The mean Dice of a group; see :func:`known`."""
    return mean([one.dice for one in known(cells, what, **labels)])


def decided(holds: bool, fails: bool) -> bool | None:
    """A judgement; undecided between the two thresholds."""
    return True if holds else False if fails else None


def listed(texts: Iterable[str]) -> str:
    """One, two and three.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last


def of(count: tuple[int, int]) -> str:
    """A count in words.

    >>> of((2, 3))
    '2 of 3'
    """
    return f"{count[0]} of {count[1]}"


def mean(values: Sequence[float]) -> float:
    """The mean of the finite values; NaN without any.

    >>> mean([0.25, float("nan"), 0.75])
    0.5
    """
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
