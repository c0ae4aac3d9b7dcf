"""Rules for the grid: spacing, patch and batch, and how patches are turned and mirrored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rarevox.pipeline.compose import CONFIGS, read_yaml
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.spacing import along_ras
from rarevox.pipeline.preparation.mirror import FEWEST, sided_cohort
from rarevox.pipeline.preparation.plan import plan_patch as fitted_patch
from rarevox.pipeline.preparation.rules.choice import Choice
from rarevox.pipeline.preparation.rules.network import geometry_of

SAME_SPACING = 1.1
"""Voxel edges of a cohort within this factor of one another are one grid: resampling would only blur."""
LONG_VOXELS = 3
"""An edge so many times as long as another makes thick slices: nnU-Net's bound for augmentation in the plane."""


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


def plan_patch(dataset: Dataset, spacing: Sequence[float] | None, network: str) -> Choice:
    """The network's patch, fitted to the volumes."""
    geometry, default = geometry_of(network, dataset)
    patch = fitted_patch(dataset, default, geometry, 0, spacing)
    usual = "×".join(map(str, default))
    if patch == default:
        reason = f"The volumes are larger than {network}'s own patch of {usual}."
    else:
        reason = f"The patch of {network}, {usual}, reshaped to the median volume, so that no patch is mostly padding."
    return Choice("patch_size", patch, reason)


def plan_batch(patch: Sequence[int], cases: int) -> Choice:
    """The voxels of two patches of 48³, in more of smaller ones up to 8, but no more than there are cases."""
    config = read_yaml(CONFIGS / "train.yaml") | read_yaml(CONFIGS / "common.yaml")
    usual, voxels = config["batch_size"], math.prod(config["patch_size"])
    batch = max(usual, min(round(usual * voxels / math.prod(patch)), 8, cases))
    reason = f"About the voxels of {usual} patches of {'×'.join(map(str, config['patch_size']))} a step."
    return Choice("batch_size", batch, reason)


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


def plan_mirror(dataset: Dataset) -> Choice:
    """Right and left, but where something lies on one side in nearly all cases."""
    sided = sided_cohort(dataset)
    if sided:
        text = f"{sided[:1].upper()}{sided[1:]}: mirrored patches would teach what never comes."
        return Choice("mirror_axes", [], text)
    few = len(dataset.training) + len(dataset.test) < FEWEST
    told = "Too few cases to tell sides by" if few else "Nothing lies on one side in nearly all cases"
    return Choice("mirror_axes", [0], f"{told}: half of the patches are mirrored.")
