"""A configuration fitted to the volumes of its dataset and to the time there is, but for what the user set."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rarevox.losses.distributed import apart
from rarevox.networks import Geometry
from rarevox.pipeline.build import build
from rarevox.pipeline.compose import Composition, Source
from rarevox.pipeline.console import console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.device import Precision, channels_last, place_network
from rarevox.pipeline.entries import regions_of
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.mirror import sided_cohort
from rarevox.pipeline.preparation.plan import plan_patch, require_useful_patch, slice_orders
from rarevox.pipeline.training.heads import heads_of, weighted_sum
from rarevox.pipeline.training.planting import hindrance
from rarevox.pipeline.words import counted
from rarevox.transforms.slices import slice_order


def fit_to_data(composed: Composition, data: Dataset) -> dict[str, Any]:
    """The configuration with patch and mirrored axes fitted to the dataset's volumes, unless its plan or the user did,
    and without the plan's planting where the loss or the scans do not take it, nor its tissue that all channels share
    where channels may be missing.

    Raises:
        RequestError: an unknown ``slice_axis``, a network that cannot be built, a patch that is mostly padding in
            every case, or tissue that all channels share asked for where channels may be missing.
    """
    config = dict(composed.config)
    for file, keys in composed.replaced.items():
        console.say("--config {} replaces what the dataset's plan says of {}", file, ", ".join(keys))
    if config["slice_axis"] is not None:
        config |= _slices(config)
    if composed.set_by_user("patch_size"):
        geometry = build(config, "geometry")
        require_useful_patch(data, config["patch_size"], geometry, config["spacing"], config["slice_axis"])
    if not (composed.set_by_user("patch_size") or _keeps_patch(composed)):
        geometry = build(config, "geometry")
        config["patch_size"] = plan_patch(
            data, config["patch_size"], geometry, config["loss_margin"], config["spacing"], config["slice_axis"]
        )
        if composed.origin["batch_size"] is Source.NETWORK:
            config["batch_size"] = _as_many_voxels(composed.config, config["patch_size"], len(data.training))
    if not (composed.set_by_user("mirror_axes") or composed.origin["mirror_axes"] is Source.PLAN):
        config["mirror_axes"] = _unsided_axes(config["mirror_axes"], data)
    if config["slice_axis"] is not None:
        config["mirror_axes"] = _axes_of_slices(config, data)
    chained = _lacks_tissue(composed) and config["normalisation"].get("region") != "common"
    if chained or (_lacks_tissue(composed) and composed.set_by_user("normalisation")):
        how = "let each step have region: nonzero" if chained else "add --set normalisation#region=nonzero"
        raise RequestError(
            "channel_dropout with normalisation#region common: a scan that lacks a channel would show tissue that no "
            f"training scan showed; {how}"
        )
    if _lacks_tissue(composed):
        console.print("scans may lack channels (channel_dropout): each channel is normalised over its own tissue")
        config["normalisation"] = {**config["normalisation"], "region": "nonzero"}
    why = hindrance(config) if config["planting_share"] and not composed.set_by_user("planting_share") else ""
    if why:
        console.print(f"{why}: nothing is planted")
        config["planting_share"] = 0.0
    return config


def _as_many_voxels(before: Mapping[str, Any], patch: Sequence[int], cases: int) -> int:
    """The batch of a network's overlay where its patch became smaller: as many voxels in more patches, up to 8, but no
    more than there are cases; the same rule as :func:`rarevox.pipeline.preparation.rules.grid.plan_batch`.

    >>> _as_many_voxels({"batch_size": 2, "patch_size": [48, 48, 48]}, [32, 48, 32], 20)
    4
    """
    usual = before["batch_size"]
    return int(max(usual, min(round(usual * math.prod(before["patch_size"]) / math.prod(patch)), 8, cases)))


def _lacks_tissue(composed: Composition) -> bool:
    """Whether channels are cut to the tissue that all share, and scans may come without some, which then cut nothing:
    what is left of them would not be as the network has seen it."""
    return "common" in regions_of(composed.config["normalisation"]) and bool(composed.config["channel_dropout"])


def _keeps_patch(composed: Composition) -> bool:
    """Whether the plan's patch stands as it is: nothing that it was fitted to was set otherwise."""
    fitted_to = ("spacing", "slice_axis", "loss_margin", "network_def", "geometry")
    before = (Source.TEMPLATE, Source.DATASET, Source.PLAN)
    return composed.origin["patch_size"] is Source.PLAN and all(composed.origin[key] in before for key in fitted_to)


def _slices(config: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse an unknown ``slice_axis``; a patch of two numbers is one slice."""
    try:
        slice_order((1.0, 1.0, 1.0), config["slice_axis"])
    except ValueError as error:
        raise RequestError(str(error)) from error
    patch = list(config["patch_size"])
    return {"patch_size": [*patch, 1] if len(patch) == 2 else patch}


def _unsided_axes(axes: Sequence[int], data: Dataset) -> list[int]:
    """The axes without left-right for a cohort that always shows the same side, which is said."""
    reason = sided_cohort(data) if 0 in axes else ""
    if not reason:
        return list(axes)
    console.print(f"{reason}: patches are not mirrored left to right (--set mirror_axes=[0] mirrors them)")
    return [axis for axis in axes if axis != 0]


def _axes_of_slices(config: Mapping[str, Any], data: Dataset) -> list[int]:
    """``mirror_axes`` (right, anterior, superior) as axes of the permuted volumes; what differs by case is left out."""
    orders = slice_orders(data, config["spacing"], config["slice_axis"])
    places = [{order.index(axis) for order in orders} for axis in config["mirror_axes"]]
    return [place.pop() for place in places if len(place) == 1]


def fit_to_time(composed: Composition, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with batch and patch reduced, unless the user set them, so that enough steps fit its minutes.

    Args:
        composed: tells what the user set.
        config: fitted to the data.
    """
    fitted, minutes = dict(config), config["minutes"]
    free = [key for key in ("batch_size", "patch_size") if not composed.set_by_user(key)]
    if minutes is None or not free:
        return fitted
    batch, patch = config["batch_size"], list(config["patch_size"])
    seconds, geometry = timed(config)
    if "batch_size" in free:
        # Patches without foreground teach through the others of their batch: both kinds stay in one.
        kinds = 2 if 0 < config["background_share"] < 1 else 1
        fitted["batch_size"] = fit_batch(batch, seconds, 60 * minutes, least=kinds)
    if "patch_size" in free and not config["loss_margin"]:
        steps = 60 * minutes / (fitted["batch_size"] * seconds)
        fitted["patch_size"] = shrink_patch(patch, geometry, steps / ENOUGH_STEPS)
    if said := _changes(fitted, {"batch_size": batch, "patch_size": patch}):
        took = f"a patch of {patch} takes {seconds:.2f} s here"
        console.print(f"{took}: {said}, so that enough steps fit into {counted(minutes, 'minute')}")
    return fitted


def _changes(fitted: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """What became other than it was, and how to keep it; empty where nothing did.

    >>> _changes({"batch_size": 2, "patch_size": [24, 24]}, {"batch_size": 2, "patch_size": [32, 32]})
    'patches of [24, 24] instead of [32, 32] (--set patch_size=[32,32] keeps them)'
    """
    names = {"batch_size": "batches of {}", "patch_size": "patches of {}"}
    changed = [key for key in names if fitted[key] != before[key]]
    said = " and ".join(f"{names[key].format(fitted[key])} instead of {before[key]}" for key in changed)
    keep = " ".join(f"--set {key}={before[key]}".replace(", ", ",") for key in changed)
    return f"{said} ({keep} keeps them)" if changed else ""


def timed(config: Mapping[str, Any], **how: Any) -> tuple[float, Geometry]:
    """Seconds that a patch of a configuration takes, and the geometry of its network.

    Args:
        config: of a training, fitted to the data.
        how: as :func:`seconds_per_patch` takes it.
    """
    parts = {key: f"@{key}" for key in ("network_def", "geometry", "loss", "precision", "in_channels", "out_channels")}
    built = build({**config, "_timed": parts}, "_timed")
    channels = built["in_channels"], built["out_channels"]
    seconds = seconds_per_patch(
        built["network_def"], built["loss"], config["patch_size"], *channels, built["precision"], **how
    )
    return seconds, built["geometry"]


ENOUGH_STEPS = 600
"""Fewer optimiser steps than this leave a network far from trained, whatever the batch."""


def fit_batch(batch_size: int, seconds_per_patch: float, budget_seconds: float, *, least: int = 1) -> int:
    """The largest of batch_size, batch_size / 2, …, ``least`` with which ``ENOUGH_STEPS`` steps fit into the budget.

    >>> fit_batch(4, 0.1, 720), fit_batch(4, 0.5, 720), fit_batch(4, 2.2, 720), fit_batch(4, 2.2, 720, least=2)
    (4, 2, 1, 2)
    """
    while batch_size // 2 >= least and budget_seconds / (batch_size * seconds_per_patch) < ENOUGH_STEPS:
        batch_size //= 2
    return batch_size


def shrink_patch(patch_size: Sequence[int], geometry: Geometry, share: float) -> list[int]:
    """A patch of about ``share`` of the voxels, in proportion, at sizes that run fast, no axis under 24 voxels.

    For networks that keep the size; valid convolutions would spend more of a smaller patch on their margin.

    >>> shrink_patch([36, 48, 36], Geometry(receptive_field=(87, 87, 87), preferred_multiple=4), 0.5)
    [28, 36, 28]
    """
    if share >= 1 or any(geometry.margin):
        return list(patch_size)
    step = [math.lcm(m, p) for m, p in zip(geometry.multiple, geometry.preferred_multiple, strict=True)]
    factor = share ** (1 / len(patch_size))
    return [min(n, max(int(n * factor) // s * s, math.ceil(24 / s) * s)) for n, s in zip(patch_size, step, strict=True)]


def seconds_per_patch(
    network: torch.nn.Module,
    loss: torch.nn.Module,
    patch_size: Sequence[int],
    in_channels: int,
    out_channels: int,
    precision: Precision,
    *,
    enough_seconds: float = 1.0,
) -> float:
    """Wall time of one forward and backward pass over one patch of noise, the fastest of two to eight.

    The first one may compile kernels, and others may be held up by what else the machine does; short ones are repeated
    for ``enough_seconds``. The network is unchanged: running statistics of normalisation layers are put back, gradients
    are dropped. Of several processes, the one that asks takes the time alone.
    """
    device = precision.device
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network = place_network(network, device).train()
    image = torch.randn(2, in_channels, *patch_size, device=device)
    image = image.contiguous(memory_format=channels_last(len(patch_size)))
    taken: list[float] = []
    while len(taken) < 2 or (len(taken) < 8 and sum(taken[1:]) < enough_seconds):
        began = time.perf_counter()
        with precision.autocast():
            heads = heads_of(network(image), len(patch_size))
        labels = torch.randint(0, out_channels, (2, 1, *heads[0].shape[2:]), device=device, dtype=torch.uint8)
        if getattr(loss, "needs_regions", False):  # one component of each class
            structures = out_channels if getattr(loss, "sigmoid", False) else out_channels - 1
            labels = torch.cat([labels, *[torch.ones_like(labels)] * structures], dim=1)
        with apart():
            weighted_sum([loss(head, labels) for head in heads]).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append((time.perf_counter() - began) / 2)
    network.zero_grad(set_to_none=True)
    network.load_state_dict(state)
    return min(taken)
