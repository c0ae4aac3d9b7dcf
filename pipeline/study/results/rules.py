"""The rules by which the paper's claims on losses are judged: pure functions of cells; their thresholds stand here and
in `rarevox.pipeline.study.results.trained`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rarevox.pipeline.study.results.outcomes import Outcome
from rarevox.pipeline.study.results.paper import LOSSES
from rarevox.pipeline.study.results.ranking import LEVEL, blocks_of, robustness
from rarevox.pipeline.study.results.signed_rank import exact_signed_rank
from rarevox.pipeline.study.results.trained import MARGIN, TRAINED, UNTRAINED, earned
from rarevox.pipeline.study.results.verdict import (
    Judgement,
    Undecided,
    decided,
    distinct,
    known,
    listed,
    mean_dice,
    of,
    rates,
)

STRONG, MILD = 0.02, 0.1
"""A foreground share of the patches up to the first is a strong imbalance, from the second on a mild one."""
SETTINGS = 3
"""Fewer settings decide nothing."""
OVERLAP, OTHERS = ("DL2", "GDLv"), ("WCE", "SS")


def wce_does_not_train(cells: Sequence[Outcome]) -> Judgement:
    """WCE beside the best other loss, in the settings of strong imbalance in which that one trains."""
    strong = [one for one in cells if one.share <= STRONG]
    blocks = blocks_of(strong, distinct(strong, "loss"), earned)
    if "WCE" not in blocks.losses or len(blocks.losses) < 2:
        raise Undecided(f"No setting has {STRONG:.0%} of foreground or less.")
    own = blocks.values[:, blocks.losses.index("WCE")]
    best = np.delete(blocks.values, blocks.losses.index("WCE"), axis=1).max(axis=1)
    own, best = own[best >= TRAINED], best[best >= TRAINED]
    n, low, half = len(own), int((own < UNTRAINED).sum()), int((own >= best / 2).sum())
    said = (
        f"Of {n} settings with at most {STRONG:.0%} of foreground in which another loss reaches {TRAINED}, WCE stays "
        f"untrained in {low} and comes to half of the best in {half}."
    )
    if n < SETTINGS:
        return None, said
    return decided(low >= 0.9 * n, half > n / 2), said


def gdl_is_most_robust(cells: Sequence[Outcome]) -> Judgement:
    """The share of cells above half of the best, GDLv against every other loss."""
    counts = robust_counts(cells)
    shares = {loss: _share(count) for loss, count in counts.items()}
    lead = shares["GDLv"] - max(share for loss, share in shares.items() if loss != "GDLv")
    ordered = sorted(counts, key=lambda loss: -shares[loss])
    said = f"Cells above half of the best: {listed(f'{loss} {of(counts[loss])}' for loss in ordered)}."
    return decided(lead > MARGIN, lead < -MARGIN), said


def ss_falls_behind(cells: Sequence[Outcome]) -> Judgement:
    """GDLv minus SS, setting by setting."""
    differences = _differences(cells, "GDLv", "SS")
    middle, p = float(np.median(differences)), exact_signed_rank(differences)
    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    said = (
        f"GDLv − SS has the median {middle:+.2f} over {len(differences)} settings, is above 0 in {above} and below in "
        f"{below} (Wilcoxon, p = {p:.3f})."
    )
    return decided(middle >= MARGIN and p < LEVEL, middle <= 0), said


def dl2_fails_at_fast_rates(cells: Sequence[Outcome]) -> Judgement:
    """DL2 against GDLv: alike below the fastest rate, and more often untrained at it."""
    fastest = rates(cells)[-1]
    middle = float(np.median(_differences([one for one in cells if one.label("lr") != fastest], "GDLv", "DL2")))
    dl2, gdl = (_untrained(cells, loss, fastest) for loss in ("DL2", "GDLv"))
    said = (
        f"Below {fastest} GDLv − DL2 has the median {middle:+.2f}; at {fastest} DL2 stays untrained in {of(dl2)} "
        f"cells, GDLv in {of(gdl)}."
    )
    alike, more = abs(middle) <= MARGIN, _share(dl2) > _share(gdl)
    return decided(alike and more, not alike or _share(dl2) < _share(gdl)), said


def wce_and_dl2_fail_at_fast_rates(cells: Sequence[Outcome]) -> Judgement:
    """Untrained cells at the fastest rate: WCE and DL2 against SS and GDLv."""
    fastest = rates(cells)[-1]
    counts = {loss: _untrained(cells, loss, fastest) for loss in LOSSES}
    weak, strong = [[_share(counts[loss]) for loss in some] for some in (("WCE", "DL2"), ("SS", "GDLv"))]
    said = f"Untrained cells at {fastest}: {listed(f'{loss} {of(count)}' for loss, count in counts.items())}."
    return decided(min(weak) > max(strong), max(weak) <= max(strong)), said


def ss_depends_on_the_network(cells: Sequence[Outcome]) -> Judgement:
    """By how much the share of cells above half of the best differs between two networks, SS against the others."""
    spans: dict[str, list[float]] = {}
    for network in distinct(cells, "network"):
        counts = robust_counts([one for one in cells if one.label("network") == network], f" on {network}")
        for loss, count in counts.items():
            spans.setdefault(loss, []).append(_share(count))
    ranges = {loss: max(shares) - min(shares) for loss, shares in spans.items()}
    others = max(span for loss, span in ranges.items() if loss != "SS")
    said = "The share of cells above half of the best differs between the networks by "
    said += f"{listed(f'{span:.0%} for {loss}' for loss, span in ranges.items())}."
    return decided(ranges["SS"] > others + MARGIN, ranges["SS"] < others - MARGIN), said


def mild_imbalance_is_handled(cells: Sequence[Outcome]) -> Judgement:
    """How many losses come above half of the best in three quarters of the cells of mild imbalance."""
    mild = [one for one in cells if one.share >= MILD]
    few = f"Too few cells have {MILD:.0%} of foreground or more."
    if set(distinct(mild, "loss")) < set(distinct(cells, "loss")):
        raise Undecided(few)
    counts = robust_counts(mild)
    if min(n for _, n in counts.values()) < SETTINGS:
        raise Undecided(few)
    well = sum(_share(count) >= 0.75 for count in counts.values())
    said = f"With {MILD:.0%} of foreground or more, cells above half of the best: "
    said += f"{listed(f'{loss} {of(count)}' for loss, count in counts.items())}."
    return decided(well > len(counts) / 2, well < len(counts) / 2), said


def overlap_is_better_when_strong(cells: Sequence[Outcome]) -> Judgement:
    """The mean Dice of DL2 and GDLv against that of WCE and SS, in the cells of strong imbalance."""
    strong = [one for one in cells if one.share <= STRONG]
    if sum(math.isfinite(one.dice) for one in strong) < SETTINGS * len(LOSSES):
        raise Undecided(f"{len(strong)} cells have {STRONG:.0%} of foreground or less.")
    means = {loss: mean_dice(strong, f"{loss} there", loss=loss) for loss in LOSSES}
    lead = min(means[loss] for loss in OVERLAP) - max(means[loss] for loss in OTHERS)
    said = f"With {STRONG:.0%} of foreground or less, mean Dice: {listed(f'{k} {v:.2f}' for k, v in means.items())}."
    return decided(lead >= MARGIN, lead <= 0), said


def robust_counts(cells: Sequence[Outcome], where: str = "") -> dict[str, tuple[int, int]]:
    """Of each loss of the cells: how many come above half of the best, of how many.

    Raises:
        Undecided: a loss has figures in half of its cells or fewer.
    """
    for loss in distinct(cells, "loss"):
        known(cells, f"{loss}{where}", loss=loss)
    return robustness(cells, distinct(cells, "loss"))


def _differences(cells: Sequence[Outcome], first: str, second: str) -> np.ndarray:
    """One loss minus another in every setting that has both.

    Raises:
        Undecided: fewer than ``SETTINGS`` have.
    """
    own = [one for one in cells if one.label("loss") in (first, second)]
    values = blocks_of(own, (first, second), lambda one: one.dice).values
    if len(values) < SETTINGS:
        raise Undecided(f"{len(values)} settings have a figure of both {first} and {second}.")
    return np.asarray(values[:, 0] - values[:, 1])


def _untrained(cells: Sequence[Outcome], loss: str, rate: str) -> tuple[int, int]:
    """How many cells of a loss at a rate have not trained, of how many; see ``known``."""
    own = known(cells, f"{loss} at {rate}", loss=loss, lr=rate)
    return sum(earned(one) < UNTRAINED for one in own), len(own)


def _share(count: tuple[int, int]) -> float:
    """Of a group that is not empty."""
    return count[0] / count[1]
