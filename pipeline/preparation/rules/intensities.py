"""Rules for intensities: normalisation, augmentation, and statistics of scans in batch norms."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from rarevox.pipeline.preparation.fingerprint import INSIDE, SURROUND
from rarevox.pipeline.preparation.rules.choice import RARE, Choice, filled, foreground_share
from rarevox.transforms.intensity.nyul import PERCENTILES

LAST_LANDMARK = 90
"""The highest percentile that is a landmark where foreground is rare. Lesions on 1 % of a scan can be 4 % of its
tissue; a landmark among them would squeeze the scans that have many."""
CT_WINDOW = "rarevox.transforms.CTWindowd"
LEAST_COMMON = 0.5
"""Of a case's tissue at least so much is shared by all channels, else some channel is no picture of the whole (a map of
perfusion, of vessels), and nothing is cut to it."""


def plan_normalisation(
    channels: Mapping[str, Mapping[str, Any]],
    *,
    masks: bool = False,
    rare: bool = False,
    common: Mapping[str, Mapping[str, float]] | None = None,
) -> Choice:
    """A CT window from the foreground's intensities for Hounsfield units, Nyul's landmarks for rare foreground in
    tissue that zeros surround, else z-scores; of several channels that zeros surround, over the tissue that all share.

    Hounsfield units are told by ``CT`` in every channel's name, or by intensities from −500 or less to 200 or more.

    Args:
        channels: of the fingerprint.
        masks: whether cases have masks, which the reason then tells of.
        rare: foreground fills less than a hundredth of the median scan.
        common: of the fingerprint (``common_tissue``); empty of one channel, None of earlier versions.
    """
    figures = [channel["image_median_over_cases"] for channel in channels.values()]
    named = all(re.search(r"(?<![a-z0-9])ct(?![a-z0-9])", name.lower()) for name in channels)
    if named or all(row["p00_5"] <= -500 and row["p99_5"] >= 200 for row in figures):
        return _window(channels, "The channels are CT" if named else "The intensities look like Hounsfield units")
    zero = min(row.get("zero_share", 0.0) for row in figures)
    region = ("common" if _shared(common) else "nonzero") if zero >= SURROUND else "image"
    cut = f" {_cut(common)}" if region == "common" and common else ""
    if rare and region != "image":
        return _landmarks(zero, region, cut)
    kept = "the tissue that all share" if region == "common" else "its voxels that are not 0"
    where = "the whole image" if region == "image" else kept
    surround = f"{100 * zero:.0f} % of a scan's voxels are 0" if zero >= 0.005 else "hardly any voxels are 0"
    reason = f"The intensities have no absolute unit: each channel is z-scored over {where}, since {surround}.{cut}"
    if masks:
        reason += " There are masks: region: mask would take the voxels inside, and predict then needs --masks."
    value = {"_target_": "rarevox.transforms.ZScored", "keys": "image", "region": region}
    return Choice("normalisation", value, reason)


def _shared(common: Mapping[str, Mapping[str, float]] | None) -> bool:
    """Whether there are several channels that share most of their tissue, and the foreground lies there."""
    tissue, inside = ((common or {}).get(key) or {} for key in ("tissue", "foreground"))
    return tissue.get("min", 0.0) >= LEAST_COMMON and inside.get("min", 0.0) >= INSIDE


def _cut(common: Mapping[str, Mapping[str, float]]) -> str:
    """What becomes of tissue that some channel lacks, and how much that is."""
    most = 100 * (1 - common["tissue"]["min"])
    how = f"up to {most:.0f} % of a case's" if most >= 0.5 else "here next to nothing"
    return (
        f"Tissue that some channel lacks ({how}) is 0 in all: where one channel alone is stripped of the skull, what "
        "the others show of it moves no intensities, and no network sees it."
    )


def _landmarks(zero: float, region: str, cut: str) -> Choice:
    reason = (
        f"The intensities have no absolute unit, and {100 * zero:.0f} % of a scan's voxels are 0: deciles of the rest "
        "are brought onto landmarks learnt from the training cases, which keeps tissues of different scanners together "
        f"better than a z-score. None lies above {LAST_LANDMARK} %, where rare lesions may be.{cut}"
    )
    percentiles = [float(p) for p in PERCENTILES if p <= LAST_LANDMARK]
    value = {"_target_": "rarevox.transforms.NyulNormalised", "keys": "image", "region": region}
    return Choice("normalisation", {**value, "landmarks": None, "percentiles": percentiles}, reason)


def _window(channels: Mapping[str, Mapping[str, Any]], why: str) -> Choice:
    inside = [channel["foreground_pooled"] for channel in channels.values() if channel["foreground_pooled"]]
    low = min((10 * math.floor(row["p00_5"] / 10) for row in inside), default=-160)
    high = max((10 * math.ceil(row["p99_5"] / 10) for row in inside), default=240)
    value = {
        "_target_": CT_WINDOW,
        "keys": "image",
        "windows": [float(low), float(max(high, low + 10))],
    }
    reason = f"{why}; the window holds 99 % of the foreground's intensities (0.5th to 99.5th percentile)."
    return Choice("normalisation", value, reason)


def plan_augmentation(fingerprint: Mapping[str, Any], *, ct: bool) -> list[Choice]:
    """Shapes changed but where foreground fills less than a hundredth of the median scan; intensities but of CT, and
    more where foreground is rare.

    >>> [[choice.value for choice in plan_augmentation({"foreground_share": {"median": m}}, ct=c)]
    ...     for m, c in ((0.004, False), (0.05, False), (0.004, True), (0.05, True))]
    [['light', 0.3], ['strong', 0.2], ['light', 0.1], ['strong', 0.1]]
    """
    rare, fills = foreground_share(fingerprint) < RARE, filled(fingerprint)
    if rare:
        shapes = (
            f"{fills}: turning and scaling patches did no good for lesions, in short trainings nor in longer ones "
            "(Dice 0.713 against 0.723, F1 0.50 either way)."
        )
    else:
        shapes = (
            f"{fills}, and patches of such structures are soon known by heart: they are turned, scaled and sheared. "
            "For very short trainings take light."
        )
    if ct:
        change, intensities = 0.1, "CT has intensities with a unit, which are changed little."
    else:
        change = 0.3 if rare else 0.2
        intensities = (
            "The intensities have no absolute unit and differ between scanners by more than a normalisation takes out: "
            "those of each channel are scaled and shifted by so much at most, and their contrast is changed."
        )
    return [
        Choice("augmentation_strength", "light" if rare else "strong", shapes),
        Choice("intensity_change", change, intensities),
    ]


def plan_statistics(fingerprint: Mapping[str, Any], *, ct: bool) -> Choice:
    """Batch norms moved for each scan where foreground fills less than a hundredth of the median one, but for CT.

    >>> [plan_statistics({"foreground_share": {"median": m}}, ct=c).value
    ...     for m, c in ((0.004, False), (0.004, True), (0.05, False))]
    [0.5, 0.0, 0.0]
    """
    fills = filled(fingerprint)
    if ct or foreground_share(fingerprint) >= RARE:
        why = "CT has intensities with a unit" if ct else fills
        return Choice("scan_statistics", 0.0, f"{why}: batch norms are those of training, for every scan.")
    reason = (
        f"{fills}, too little to change its statistics: batch norms bring those of every scan that is predicted half "
        "of the way onto those of the training scans, which takes out part of what another scanner does."
    )
    return Choice("scan_statistics", 0.5, reason)
