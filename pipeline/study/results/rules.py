"""The rules by which the paper's claims are judged: pure functions of cells; their thresholds stand here alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from rarevox.pipeline.study.results.outcomes import Outcome
from rarevox.pipeline.study.results.paper import LOSSES
from rarevox.pipeline.study.results.ranking import LEVEL, blocks_of, robustness
from rarevox.pipeline.study.results.signed_rank import exact_signed_rank
from rarevox.pipeline.study.results.verdict import Judgement, distinct, mean, patches, rates

UNTRAINED, TRAINED = 0.1, 0.3
"""A median Dice under the first is that of a network that has not trained; one that trains reaches the second."""
STRONG, MILD = 0.02, 0.1
"""A foreground share of the patches up to the first is a strong imbalance, from the second on a mild one."""
MARGIN = 0.05
"""Of a difference of Dice, and of shares of cells, that counts."""
SETTINGS = 3
"""Fewer settings decide nothing."""
OVERLAP, OTHERS = ("DL2", "GDLv"), ("WCE", "SS")


def wce_does_not_train(cells: Sequence[Outcome]) -> Judgement:
    """WCE beside the best other loss, in the settings of strong imbalance in which that one trains."""
    strong = [one for one in cells if one.share <= STRONG]
    blocks = blocks_of(strong, distinct(strong, "loss"), _dice)
    if "WCE" not in blocks.losses or len(blocks.losses) < 2:
        return None, f"No setting has {STRONG:.0%} of foreground or less."
    own = blocks.values[:, blocks.losses.index("WCE")]
    best = np.delete(blocks.values, blocks.losses.index("WCE"), axis=1).max(axis=1)
    own, best = own[best >= TRAINED], best[best >= TRAINED]
    n, low, half = len(own), int((own < UNTRAINED).sum()), int((own >= best / 2).sum())
    said = (
        f"Of {n} settings with at most {STRONG:.0%} of foreground in which another loss reaches {TRAINED}, WCE stays "
        f"under {UNTRAINED} in {low} and comes to half of the best in {half}."
    )
    if n < SETTINGS:
        return None, said
    return _decided(low >= 0.9 * n, half > n / 2), said


def gdl_is_most_robust(cells: Sequence[Outcome]) -> Judgement:
    """The share of cells above half of the best, GDLv against every other loss."""
    counts = robustness(cells, distinct(cells, "loss"), _dice)
    shares = {loss: above / n for loss, (above, n) in counts.items() if n}
    lead = shares["GDLv"] - max(share for loss, share in shares.items() if loss != "GDLv")
    ordered = sorted(counts, key=lambda loss: -shares.get(loss, 0.0))
    said = f"Cells above half of the best: {_listed(f'{loss} {_of(counts[loss])}' for loss in ordered)}."
    return _decided(lead > MARGIN, lead < -MARGIN), said


def ss_falls_behind(cells: Sequence[Outcome]) -> Judgement:
    """GDLv minus SS, setting by setting."""
    values = blocks_of([one for one in cells if one.label("loss") in ("GDLv", "SS")], ("GDLv", "SS"), _dice).values
    differences = values[:, 0] - values[:, 1]
    if len(differences) < SETTINGS:
        return None, f"{len(differences)} settings have both losses."
    middle, p = float(np.median(differences)), exact_signed_rank(differences)
    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    said = (
        f"GDLv − SS has the median {middle:+.2f} over {len(differences)} settings, is above 0 in {above} and below in "
        f"{below} (Wilcoxon, p = {p:.3f})."
    )
    return _decided(middle >= MARGIN and p < LEVEL, middle <= 0), said


def dl2_fails_at_fast_rates(cells: Sequence[Outcome]) -> Judgement:
    """DL2 against GDLv: alike below the fastest rate, and more often untrained at it."""
    fastest = rates(cells)[-1]
    slow = [one for one in cells if one.label("lr") != fastest and one.label("loss") in ("GDLv", "DL2")]
    values = blocks_of(slow, ("GDLv", "DL2"), _dice).values
    if not len(values):
        return None, "No setting has both losses."
    middle = float(np.median(values[:, 0] - values[:, 1]))
    dl2, gdl = (_untrained(cells, loss, fastest) for loss in ("DL2", "GDLv"))
    said = (
        f"Below {fastest} GDLv − DL2 has the median {middle:+.2f}; at {fastest} DL2 stays untrained in {_of(dl2)} "
        f"cells, GDLv in {_of(gdl)}."
    )
    alike, more = abs(middle) <= MARGIN, _share(dl2) > _share(gdl)
    return _decided(alike and more, not alike or _share(dl2) < _share(gdl)), said


def wce_and_dl2_fail_at_fast_rates(cells: Sequence[Outcome]) -> Judgement:
    """Untrained cells at the fastest rate: WCE and DL2 against SS and GDLv."""
    fastest = rates(cells)[-1]
    counts = {loss: _untrained(cells, loss, fastest) for loss in LOSSES}
    weak, strong = [[_share(counts[loss]) for loss in some] for some in (("WCE", "DL2"), ("SS", "GDLv"))]
    said = f"Untrained cells at {fastest}: {_listed(f'{loss} {_of(count)}' for loss, count in counts.items())}."
    return _decided(min(weak) > max(strong), max(weak) <= max(strong)), said


def ss_depends_on_the_network(cells: Sequence[Outcome]) -> Judgement:
    """By how much the share of cells above half of the best differs between two networks, SS against the others."""
    spans: dict[str, list[float]] = {}
    for network in distinct(cells, "network"):
        counts = robustness([one for one in cells if one.label("network") == network], LOSSES, _dice)
        for loss, count in counts.items():
            spans.setdefault(loss, []).append(_share(count))
    ranges = {loss: max(shares) - min(shares) for loss, shares in spans.items()}
    others = max(span for loss, span in ranges.items() if loss != "SS")
    said = "The share of cells above half of the best differs between the networks by "
    said += f"{_listed(f'{span:.0%} for {loss}' for loss, span in ranges.items())}."
    return _decided(ranges["SS"] > others + MARGIN, ranges["SS"] < others - MARGIN), said


def patch_matters_more_than_loss(cells: Sequence[Outcome]) -> Judgement:
    """The range of the mean Dice over patches against the range over losses."""
    patch, loss = _range(cells, "patch"), _range(cells, "loss")
    said = f"Mean Dice ranges over {patch:.2f} between patches and over {loss:.2f} between losses."
    return _decided(patch >= 2 * loss and patch >= 2 * MARGIN, loss >= patch), said


def middle_rate_is_best(cells: Sequence[Outcome]) -> Judgement:
    """The mean Dice at the middle learning rate against the others."""
    ordered = rates(cells)
    if len(ordered) < 3:
        return None, "The study has no middle learning rate."
    means = {rate: mean([one.dice for one in cells if one.label("lr") == rate]) for rate in ordered}
    lead = means[ordered[len(ordered) // 2]] - max(m for r, m in means.items() if r != ordered[len(ordered) // 2])
    said = f"Mean Dice: {_listed(f'{value:.2f} at {rate}' for rate, value in means.items())}."
    return _decided(lead >= MARGIN, lead <= -MARGIN), said


def smaller_patches_are_better(cells: Sequence[Outcome]) -> Judgement:
    """The smallest patch against the largest at the middle rate, on every network."""
    ordered, gains = rates(cells), {}
    for network in distinct(cells, "network"):
        own = [c for c in cells if c.label("network") == network and c.label("lr") == ordered[len(ordered) // 2]]
        sizes = patches(own)
        means = [mean([one.dice for one in own if one.label("patch") == size]) for size in (sizes[0], sizes[-1])]
        gains[network] = means[0] - means[1]
    said = f"At {ordered[len(ordered) // 2]} the smallest patch is ahead of the largest by "
    said += f"{_listed(f'{gain:+.2f} on {network}' for network, gain in gains.items())}."
    return _decided(min(gains.values()) >= MARGIN, max(gains.values()) <= 0), said


def mild_imbalance_is_handled(cells: Sequence[Outcome]) -> Judgement:
    """How many losses come above half of the best in three quarters of the cells of mild imbalance."""
    mild = [one for one in cells if one.share >= MILD]
    counts = robustness(mild, distinct(mild, "loss"), _dice)
    if not counts or min(n for _, n in counts.values()) < SETTINGS:
        return None, f"Too few cells have {MILD:.0%} of foreground or more."
    well = sum(_share(count) >= 0.75 for count in counts.values())
    said = f"With {MILD:.0%} of foreground or more, cells above half of the best: "
    said += f"{_listed(f'{loss} {_of(count)}' for loss, count in counts.items())}."
    return _decided(well > len(counts) / 2, well < len(counts) / 2), said


def overlap_is_better_when_strong(cells: Sequence[Outcome]) -> Judgement:
    """The mean Dice of DL2 and GDLv against that of WCE and SS, in the cells of strong imbalance."""
    strong = [one for one in cells if one.share <= STRONG]
    if len(strong) < SETTINGS * len(LOSSES):
        return None, f"{len(strong)} cells have {STRONG:.0%} of foreground or less."
    means = {loss: mean([one.dice for one in strong if one.label("loss") == loss]) for loss in LOSSES}
    lead = min(means[loss] for loss in OVERLAP) - max(means[loss] for loss in OTHERS)
    said = f"With {STRONG:.0%} of foreground or less, mean Dice: {_listed(f'{k} {v:.2f}' for k, v in means.items())}."
    return _decided(lead >= MARGIN, lead <= 0), said


def _dice(one: Outcome) -> float:
    return one.dice


def _decided(holds: bool, fails: bool) -> bool | None:
    """The judgement; undecided between the two thresholds."""
    return True if holds else False if fails else None


def _untrained(cells: Sequence[Outcome], loss: str, rate: str) -> tuple[int, int]:
    """How many cells of a loss at a rate have not trained, of how many."""
    own = [one for one in cells if one.label("loss") == loss and one.label("lr") == rate]
    return sum(one.dice < UNTRAINED for one in own), len(own)


def _range(cells: Sequence[Outcome], role: str) -> float:
    """Between the largest and the smallest mean Dice over the labels of an axis."""
    means = [mean([one.dice for one in cells if one.label(role) == label]) for label in distinct(cells, role)]
    return max(means) - min(means)


def _share(count: tuple[int, int]) -> float:
    return count[0] / count[1] if count[1] else 0.0


def _of(count: tuple[int, int]) -> str:
    return f"{count[0]} of {count[1]}"


def _listed(texts: Iterable[str]) -> str:
    """One, two and three.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last
