"""The rules by which the paper's claims on learning rates and patches are judged: pure functions of cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rarevox.pipeline.study.results.outcomes import Outcome
from rarevox.pipeline.study.results.ranking import LEVEL, blocks_of, ranks
from rarevox.pipeline.study.results.trained import MARGIN, TRAINED
from rarevox.pipeline.study.results.verdict import (
    Judgement,
    Undecided,
    decided,
    distinct,
    known,
    listed,
    mean,
    mean_dice,
    patches,
    rates,
)

ALIKE, CHANCE = 0.7, 1 / 3
"""Kendall's W from the first is agreement, up to the second none: four rankings drawn at random have 1/4 in the mean.
The second is also how often one of three rates is the best by chance."""


def patch_matters_more_than_loss(cells: Sequence[Outcome]) -> Judgement:
    """The range of the mean Dice over patches against the range over losses."""
    patch, loss = _range(cells, "patch"), _range(cells, "loss")
    said = f"Mean Dice ranges over {patch:.2f} between patches and over {loss:.2f} between losses."
    return decided(patch >= 2 * loss and patch >= 2 * MARGIN, loss >= patch), said


def middle_rate_is_best(cells: Sequence[Outcome]) -> Judgement:
    """The mean Dice at the middle learning rate against the others."""
    ordered, middle = rates(cells), _middle(cells)
    means = {rate: mean_dice(cells, rate, lr=rate) for rate in ordered}
    lead = means[middle] - max(value for rate, value in means.items() if rate != middle)
    said = f"Mean Dice: {listed(f'{value:.2f} at {rate}' for rate, value in means.items())}."
    return decided(lead >= MARGIN, lead <= -MARGIN), said


def middle_rate_is_mostly_best(cells: Sequence[Outcome]) -> Judgement:
    """In how many settings of network, patch and loss, one of whose rates trains, the middle one is the best."""
    middle = _middle(cells)
    for rate in rates(cells):
        known(cells, rate, lr=rate)
    # A block is a setting of all but the rate here: the rate plays the part of the loss in `blocks_of`.
    turned = [
        Outcome(one.cell, {**one.labels, "loss": one.label("lr"), "lr": one.label("loss")}, dice=one.dice)
        for one in cells
    ]
    blocks = blocks_of(turned, rates(cells), lambda one: one.dice)
    trained = blocks.values[blocks.values.max(axis=1, initial=0) >= TRAINED]
    n, best = len(trained), int((trained[:, blocks.losses.index(middle)] >= trained.max(axis=1, initial=0)).sum())
    said = f"Of {n} settings in which a rate reaches {TRAINED}, {middle} is the best, or one of the best, in {best}."
    return decided(best > n / 2, best <= CHANCE * n) if n else None, said


def smaller_patches_are_better(cells: Sequence[Outcome]) -> Judgement:
    """The smallest patch against the largest at the middle rate, on every network."""
    middle, gains, constants = _middle(cells), {}, {}
    for network in distinct(cells, "network"):
        own = [one for one in cells if one.label("network") == network]
        small, large = patches(own)[0], patches(own)[-1]
        groups = [
            known(own, f"patch {size} on {network} at {middle}", patch=size, lr=middle) for size in (small, large)
        ]
        gains[network] = mean([one.dice for one in groups[0]]) - mean([one.dice for one in groups[1]])
        constants[network] = mean([one.constant for one in groups[0]]) - mean([one.constant for one in groups[1]])
    said = f"At {middle} the smallest patch is ahead of the largest by "
    said += f"{listed(f'{gain:+.2f} on {network}' for network, gain in gains.items())}"
    if all(map(math.isfinite, constants.values())):
        said += f" (marking every voxel: by {listed(f'{gain:+.2f}' for gain in constants.values())})"
    return decided(min(gains.values()) >= MARGIN, max(gains.values()) <= 0), f"{said}."


def losses_order_the_patches_alike(cells: Sequence[Outcome]) -> Judgement:
    """Kendall's W of the losses' rankings of the patches at the middle rate, on every network."""
    middle, found = _middle(cells), {}
    for network in distinct(cells, "network"):
        own = [one for one in cells if one.label("network") == network and one.label("lr") == middle]
        sizes, losses = distinct(own, "patch"), distinct(own, "loss")
        if len(sizes) < 3 or len(losses) < 3:
            raise Undecided("Fewer than three patches or three losses make no pattern.")
        table = [
            [mean_dice(own, f"{loss}, patch {size}, on {network} at {middle}", loss=loss, patch=size) for size in sizes]
            for loss in losses
        ]
        found[network] = concordance(np.array(table))
    said = f"At {middle} Kendall's W of the losses' rankings of the patches is "
    said += f"{listed(f'{w:.2f} on {network}' for network, w in found.items())}."
    return decided(min(found.values()) >= ALIKE, max(found.values()) <= CHANCE), said


def rates_matter_more_for_small_patches(cells: Sequence[Outcome]) -> Judgement:
    """The range of the mean Dice over the rates, at the smallest patch against the largest."""
    gaps, parts = [], []
    for network in distinct(cells, "network"):
        own = [one for one in cells if one.label("network") == network]
        small, large = (_over_rates(own, network, size) for size in (patches(own)[0], patches(own)[-1]))
        gaps.append(small - large)
        parts.append(f"{small:.2f} and {large:.2f} on {network}")
    said = f"Mean Dice ranges over the rates, at the smallest and at the largest patch, by {listed(parts)}."
    return decided(mean(gaps) >= MARGIN and min(gaps) > -MARGIN, max(gaps) <= 0), said


def slowest_rate_has_no_plateau(cells: Sequence[Outcome]) -> Judgement:
    """In how many cells the loss still falls over the last quarter, at the slowest rate against the middle one."""
    shares, parts = [], []
    for rate in (rates(cells)[0], _middle(cells)):
        group = known(cells, rate, lr=rate)
        own = [one.falling < LEVEL for one in group if math.isfinite(one.falling)]
        if 2 * len(own) <= len(group):
            raise Undecided(f"At {rate} {len(own)} of {len(group)} cells have the course of their loss.")
        shares.append(sum(own) / len(own))
        parts.append(f"{sum(own)} of {len(own)} cells at {rate}")
    said = f"Over the last quarter of the iterations the loss still falls in {listed(parts)}."
    return decided(shares[0] > 1 / 2 and shares[0] > shares[1] + MARGIN, shares[0] <= 1 / 4), said


def losses_differ_less_when_less_unbalanced(cells: Sequence[Outcome]) -> Judgement:
    """The range of the mean Dice over the losses, at the patch with the most foreground against that with the least."""
    shares = {
        size: mean([one.share for one in cells if one.label("patch") == size]) for size in distinct(cells, "patch")
    }
    if not all(map(math.isfinite, shares.values())):
        raise Undecided("The foreground share of some patch is not known.")
    least, most = min(shares, key=lambda size: shares[size]), max(shares, key=lambda size: shares[size])
    spans = [
        _range([one for one in cells if one.label("patch") == size], "loss", f" at patch {size}")
        for size in (most, least)
    ]
    said = (
        f"Between losses the mean Dice ranges over {spans[0]:.2f} at patch {most} ({shares[most]:.1%} of foreground) "
        f"and over {spans[1]:.2f} at patch {least} ({shares[least]:.1%})."
    )
    return decided(spans[1] >= 2 * spans[0] and spans[1] - spans[0] >= MARGIN, spans[0] >= spans[1]), said


def concordance(table: np.ndarray) -> float:
    """Kendall's W of the rows' rankings of the columns, corrected for ties: 1 where all rank alike, 0 without any
    agreement, and 0 where every row ties throughout.

    W = 12·S / (m²·(n³ − n) − m·ΣT): S the sum of squares of the columns' rank sums about their mean, T = Σ(t³ − t) over
    the ties of a row. Source: Kendall & Babington Smith, The problem of m rankings, 1939.

    >>> concordance(np.array([[0.7, 0.5, 0.1], [0.9, 0.8, 0.2]])), concordance(np.array([[0.7, 0.1], [0.1, 0.7]]))
    (1.0, 0.0)
    """
    placed = ranks(table)
    m, n = placed.shape
    spread = float(((placed.sum(axis=0) - m * (n + 1) / 2) ** 2).sum())
    ties = sum(float(((t := np.unique(row, return_counts=True)[1].astype(float)) ** 3 - t).sum()) for row in placed)
    most = m * m * (n**3 - n) - m * ties
    return 12 * spread / most if most > 0 else 0.0


def _middle(cells: Sequence[Outcome]) -> str:
    """The middle learning rate.

    Raises:
        Undecided: there are fewer than three.
    """
    ordered = rates(cells)
    if len(ordered) < 3:
        raise Undecided("The study has no middle learning rate.")
    return ordered[len(ordered) // 2]


def _over_rates(cells: Sequence[Outcome], network: str, size: str) -> float:
    """The range of the mean Dice over the rates at one patch."""
    means = [mean_dice(cells, f"patch {size} on {network} at {rate}", patch=size, lr=rate) for rate in rates(cells)]
    return max(means) - min(means)


def _range(cells: Sequence[Outcome], role: str, where: str = "") -> float:
    """Between the largest and the smallest mean Dice over the labels of an axis."""
    means = [mean_dice(cells, f"{label}{where}", **{role: label}) for label in distinct(cells, role)]
    return max(means) - min(means)
