"""``plan.yaml``: how to train on a dataset, chosen from its fingerprint, with the reason of each choice."""

from __future__ import annotations

import hashlib
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from rarevox.networks import HighResNet
from rarevox.pipeline.compose import CONFIGS, PLAN_FILE, read_yaml
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.spacing import along_ras
from rarevox.pipeline.files import write_text
from rarevox.pipeline.preparation.mirror import sided_cohort
from rarevox.pipeline.preparation.plan import plan_patch
from rarevox.pipeline.words import counted
from rarevox.transforms.intensity.nyul import PERCENTILES

EDITED_FILE = "plan.edited.yaml"
SAME_SPACING = 1.1
"""Voxel edges of a cohort within this factor of one another are one grid: resampling would only blur."""

RARE = 0.01
"""Foreground on a smaller share of the median scan is rare: most of what the network is shown afterwards holds none."""
RARE_BACKGROUND_SHARE = 0.5
MANY = 5
"""Components in the median case from which on a structure counts as lesions rather than as one organ."""
LONG_VOXELS = 3
"""An edge so many times as long as another makes thick slices: nnU-Net's bound for augmentation in the plane."""
LAST_LANDMARK = 90
"""The highest percentile that is a landmark where foreground is rare. Lesions on 1 % of a scan can be 4 % of its
tissue; a landmark among them would squeeze the scans that have many."""
PLANTING_SHARE = 0.5
"""Of the patches that are drawn for foreground."""

CT_WINDOW = "rarevox.transforms.CTWindowd"
_SIGNED = "# as prepare wrote it: "


class Choice(NamedTuple):
    """A configuration key, the value chosen and why, in a sentence or two."""

    key: str
    value: Any
    reason: str


def make_plan(dataset: Dataset, fingerprint: Mapping[str, Any]) -> list[Choice]:
    """The choices for a dataset, from its ``fingerprint.json``; ``docs/prepare.md`` has the rules.

    Patch and batch are for the default network, HighResNet.
    """
    spacing = plan_spacing(fingerprint["per_case"])
    patch = _plan_patch(dataset, spacing.value)
    planting = plan_planting(fingerprint)
    normalisation = plan_normalisation(
        fingerprint["channels"],
        masks=any("mask" in case for case in dataset.training),
        rare=fingerprint["foreground_share"].get("median", 0.0) < RARE,
    )
    ct = normalisation.value["_target_"] == CT_WINDOW
    rotations = plan_rotations(fingerprint["per_case"], spacing.value)
    classes = [dataset.label_values.index(fingerprint["structures"][name]["value"]) for name in _many(fingerprint)]
    planted = Choice("lesion_library#classes", classes, "Structures of few components are organs, and are not planted.")
    return [
        spacing,
        patch,
        _plan_batch(patch.value, len(dataset.training)),
        normalisation,
        _plan_sampler(fingerprint),
        plan_background(fingerprint),
        planting,
        *([planted] if planting.value else []),
        *plan_augmentation(fingerprint, ct=ct),
        plan_statistics(fingerprint, ct=ct),
        *([rotations] if rotations else []),
        _plan_mirror(dataset),
    ]


def plan_spacing(cases: Sequence[Mapping[str, Any]]) -> Choice:
    """The scans' own grids where all voxels are alike, else the median along R, A and S.

    >>> rows = [{"orientation": "RAS", "spacing_mm": [1.0, 1.0, z]} for z in (2.0, 2.0, 5.0)]
    >>> plan_spacing(rows).value, plan_spacing(rows[:2]).value
    ([1.0, 1.0, 2.0], None)
    """
    edges = np.asarray([along_ras(case["orientation"], case["spacing_mm"]) for case in cases])
    ratio = float((edges.max(axis=0) / edges.min(axis=0)).max())
    median = [float(f"{edge:.3g}") for edge in np.median(edges, axis=0)]
    text = " × ".join(f"{edge:g}" for edge in median)
    if ratio <= SAME_SPACING:
        return Choice(
            "spacing", None, f"All voxels are about {text} mm along R, A, S; resampling would only blur the scans."
        )
    reason = (
        f"Voxel edges differ by a factor of up to {ratio:.2g}: scans are resampled to the median, labels come back."
    )
    return Choice("spacing", median, reason)


def _plan_patch(dataset: Dataset, spacing: Sequence[float] | None) -> Choice:
    network = HighResNet(in_channels=len(dataset.channels), out_channels=len(dataset.label_values))
    default = read_yaml(CONFIGS / "common.yaml")["patch_size"]
    patch = plan_patch(dataset, default, network.geometry, 0, spacing)
    usual = "×".join(map(str, default))
    if patch == default:
        reason = f"The volumes are larger than HighResNet's patch of {usual}, with which it was tuned."
    else:
        reason = f"HighResNet's patch of {usual} reshaped to the median volume, so that no patch is mostly padding."
    return Choice("patch_size", patch, reason)


def _plan_batch(patch: Sequence[int], cases: int) -> Choice:
    """The voxels of two patches of 48³, in more of smaller ones up to 8, but no more than there are cases."""
    config = read_yaml(CONFIGS / "train.yaml") | read_yaml(CONFIGS / "common.yaml")
    usual, voxels = config["batch_size"], math.prod(config["patch_size"])
    batch = max(usual, min(round(usual * voxels / math.prod(patch)), 8, cases))
    reason = f"About the voxels of {usual} patches of {'×'.join(map(str, config['patch_size']))} a step."
    return Choice("batch_size", batch, reason)


def plan_normalisation(channels: Mapping[str, Mapping[str, Any]], *, masks: bool = False, rare: bool = False) -> Choice:
    """A CT window from the foreground's intensities for Hounsfield units, Nyul's landmarks for rare foreground in
    tissue that zeros surround, else z-scores.

    Hounsfield units are told by ``CT`` in every channel's name, or by intensities from −500 or less to 200 or more.

    Args:
        channels: of the fingerprint.
        masks: whether cases have masks, which the reason then tells of.
        rare: foreground fills less than a hundredth of the median scan.
    """
    figures = [channel["image_median_over_cases"] for channel in channels.values()]
    named = all(re.search(r"(?<![a-z0-9])ct(?![a-z])", name.lower()) for name in channels)
    if named or all(row["p00_5"] <= -500 and row["p99_5"] >= 200 for row in figures):
        return _window(channels, "The channels are CT" if named else "The intensities look like Hounsfield units")
    zero = min(row.get("zero_share", 0.0) for row in figures)
    region = "nonzero" if zero >= 0.25 else "image"
    if rare and region == "nonzero":
        return _landmarks(zero)
    where = "its voxels that are not 0" if region == "nonzero" else "the whole image"
    surround = f"{100 * zero:.0f} % of a scan's voxels are 0" if zero >= 0.005 else "hardly any voxels are 0"
    reason = f"The intensities have no absolute unit: each channel is z-scored over {where}, since {surround}."
    if masks:
        reason += " There are masks: region: mask would take the voxels inside, and predict then needs --masks."
    value = {"_target_": "rarevox.transforms.ZScored", "keys": "image", "region": region}
    return Choice("normalisation", value, reason)


def _landmarks(zero: float) -> Choice:
    reason = (
        f"The intensities have no absolute unit, and {100 * zero:.0f} % of a scan's voxels are 0: deciles of the rest "
        "are brought onto landmarks learnt from the training cases, which keeps tissues of different scanners together "
        f"better than a z-score. None lies above {LAST_LANDMARK} %, where rare lesions may be."
    )
    percentiles = [float(p) for p in PERCENTILES if p <= LAST_LANDMARK]
    value = {"_target_": "rarevox.transforms.NyulNormalised", "keys": "image", "region": "nonzero"}
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


def _plan_sampler(fingerprint: Mapping[str, Any]) -> Choice:
    held = {name: row for name, row in fingerprint["structures"].items() if row["cases"]}
    share = fingerprint["foreground_share"].get("median", 0.0)
    reason = f"Foreground fills {100 * share:.2g} % of a scan (median)"
    if len(held) > 1:
        sizes = {name: row["voxels"]["median"] for name, row in held.items()}
        small, large = min(sizes, key=lambda name: sizes[name]), max(sizes, key=lambda name: sizes[name])
        if sizes[large] > sizes[small]:
            reason += f" and {large} is {sizes[large] / sizes[small]:.2g} times as large as {small}"
    each = ", and every structure comes equally often" if len(held) > 1 else ""
    reason += f": every patch that the sampler draws holds some{each}."
    many = _many(fingerprint)
    if many:
        reason += (
            f" {', '.join(many)} {_verb(many)} {MANY} components a case or more: "
            "rarevox.transforms.LesionBalancedSampler would draw small ones as often as large ones."
        )
    return Choice("sampler", {"_target_": "rarevox.transforms.ClassBalancedSampler"}, reason)


def plan_background(fingerprint: Mapping[str, Any]) -> Choice:
    """Half of the patches without foreground where it fills less than a hundredth of the median scan, or some case has
    none.

    >>> [plan_background({"foreground_share": {"median": m}, "cases_without_foreground": n}).value
    ...     for m, n in ((0.0038, []), (0.05, []), (0.05, ["a"]))]
    [0.5, 0.0, 0.5]
    """
    share = fingerprint["foreground_share"].get("median", 0.0)
    empty = len(fingerprint["cases_without_foreground"])
    if share >= RARE and not empty:
        return Choice(
            "background_share", 0.0, f"Foreground fills {100 * share:.2g} % of a scan: patches with it suffice."
        )
    fills = f"Foreground fills {100 * share:.2g} % of a scan"
    none = counted(empty, "case holds no foreground", "cases hold no foreground") if empty else fills
    reason = (
        f"{none}: half of the patches hold none, from which the network learns to mark nothing where there is nothing. "
        "They stay so: nothing is planted into them. 0 is the GDL paper's rule: every patch holds foreground."
    )
    return Choice("background_share", RARE_BACKGROUND_SHARE, reason)


def plan_augmentation(fingerprint: Mapping[str, Any], *, ct: bool) -> list[Choice]:
    """Shapes changed but where foreground fills less than a hundredth of the median scan; intensities but of CT, and
    more where foreground is rare.

    >>> [[choice.value for choice in plan_augmentation({"foreground_share": {"median": m}}, ct=c)]
    ...     for m, c in ((0.004, False), (0.05, False), (0.004, True), (0.05, True))]
    [['light', 0.3], ['strong', 0.2], ['light', 0.1], ['strong', 0.1]]
    """
    share = fingerprint["foreground_share"].get("median", 0.0)
    rare, fills = share < RARE, f"Foreground fills {100 * share:.2g} % of a scan"
    if rare:
        shapes = (
            f"{fills}: turning and scaling patches did no good for lesions in short trainings; for long ones on few "
            "cases try strong."
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
    share = fingerprint["foreground_share"].get("median", 0.0)
    fills = f"Foreground fills {100 * share:.2g} % of a scan"
    if ct or share >= RARE:
        why = "CT has intensities with a unit" if ct else fills
        return Choice("scan_statistics", 0.0, f"{why}: batch norms are those of training, for every scan.")
    reason = (
        f"{fills}, too little to change its statistics: batch norms bring those of every scan that is predicted half "
        "of the way onto those of the training scans, which takes out part of what another scanner does."
    )
    return Choice("scan_statistics", 0.5, reason)


def plan_rotations(cases: Sequence[Mapping[str, Any]], spacing: Sequence[float] | None) -> Choice | None:
    """Angles about the long axis of the voxels alone, where one is three times as long as another (as nnU-Net has it).

    >>> rows = [{"orientation": "RAS", "spacing_mm": [0.9, 0.9, 5.0]}]
    >>> plan_rotations(rows, None).value, plan_rotations(rows, [1.0, 1.0, 2.0])
    ([0.0, 0.0, 0.35], None)
    """
    edges = median_edges(cases) if spacing is None else np.asarray(spacing)
    longest = int(edges.argmax())
    if edges[longest] < LONG_VOXELS * edges.min():
        return None
    angle = max(read_yaml(CONFIGS / "train.yaml")["rotations"])
    axis = ("right-left", "anterior-posterior", "superior-inferior")[longest]
    reason = (
        f"The voxels are {edges[longest] / edges.min():.2g} times as long along the {axis} axis: patches are turned "
        "about that one alone, since another turn would mix near with far."
    )
    return Choice("rotations", [angle if a == longest else 0.0 for a in range(3)], reason)


def median_edges(cases: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Median voxel edges along R, A and S, mm."""
    return np.median(np.asarray([along_ras(case["orientation"], case["spacing_mm"]) for case in cases]), axis=0)


def plan_planting(fingerprint: Mapping[str, Any]) -> Choice:
    """Lesions planted into half of the patches drawn for foreground, a quarter of all, where they are rare and many,
    five components a case or more.

    >>> rows = {"lesion": {"cases": 6, "components": {"median": 23.0}}}
    >>> [plan_planting({"foreground_share": {"median": m}, "structures": rows}).value for m in (0.004, 0.05)]
    [0.5, 0.0]
    """
    share = fingerprint["foreground_share"].get("median", 0.0)
    many = _many(fingerprint)
    if share >= RARE or not many:
        return Choice("planting_share", 0.0, "Planting is for rare structures that come as many lesions.")
    of_all = PLANTING_SHARE * (1 - RARE_BACKGROUND_SHARE)
    reason = (
        f"{', '.join(many)} {_verb(many)} {MANY} components a case or more: into the healthy tissue of half of the "
        f"patches drawn for foreground, {100 * of_all:.0f} % of all, some lesions "
        "of the training cases are planted, so that more of them are seen, at more places."
    )
    return Choice("planting_share", PLANTING_SHARE, reason)


def _many(fingerprint: Mapping[str, Any]) -> list[str]:
    """The structures that come as many components."""
    held = {name: row for name, row in fingerprint["structures"].items() if row["cases"]}
    return [name for name, row in held.items() if row["components"]["median"] >= MANY]


def _verb(names: Sequence[str]) -> str:
    return "have" if len(names) > 1 else "has"


def _plan_mirror(dataset: Dataset) -> Choice:
    sided = sided_cohort(dataset)
    if sided:
        text = f"{sided[:1].upper()}{sided[1:]}: mirrored patches would teach what never comes."
        return Choice("mirror_axes", [], text)
    return Choice("mirror_axes", [0], "Nothing lies on one side in nearly all cases: half of the patches are mirrored.")


def plan_text(name: str, choices: Sequence[Choice]) -> str:
    """The choices as YAML with their reasons as comments, and a last line that tells an edited plan."""
    head = (
        f"How to train on {name}, chosen by rarevox prepare from fingerprint.json. Edit what you like: rarevox train "
        "reads this file after the facts of the dataset; --network (with its own patch_size and batch_size), --config "
        "and --set win over it."
    )
    lines = _comment(head)
    for choice in choices:
        value = yaml.dump(choice.value, default_flow_style=True, sort_keys=False, width=1000)
        lines += ["", *_comment(choice.reason), f"{choice.key}: {value.removesuffix('...' + chr(10)).strip()}"]
    text = "\n".join(lines) + "\n\n"
    return f"{text}{_SIGNED}{_digest(text)}\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 118, initial_indent="# ", subsequent_indent="# ")


def write_plan(folder: Path, name: str, choices: Sequence[Choice]) -> bool:
    """Write ``plan.yaml``; one that was edited is kept beside it as ``plan.edited.yaml``. Returns whether it was."""
    path = folder / PLAN_FILE
    edited = path.is_file() and is_edited(path.read_bytes().decode(errors="replace"))
    if edited:
        path.replace(folder / EDITED_FILE)
    write_text(path, plan_text(name, choices))
    return edited


def is_edited(text: str) -> bool:
    """Whether a plan's text is no longer what prepare wrote."""
    body, sign, digest = text.partition(_SIGNED)
    return not sign or digest.strip() != _digest(body)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
