"""A new run's configuration: composed, checked before any volume is read, fitted to data and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.build import build
from rarevox.pipeline.bundle import target_name
from rarevox.pipeline.compose import Composition, compose
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.gates import read_gates
from rarevox.pipeline.storage.cases import check_cache
from rarevox.pipeline.training.fit import fit_to_data, fit_to_time
from rarevox.pipeline.training.kept.initial_weights import match
from rarevox.pipeline.training.learn import learn_normalisation
from rarevox.pipeline.training.nested import with_regions
from rarevox.pipeline.training.plain_values import check_values
from rarevox.pipeline.training.planting import require_planting


def configured(
    data: Dataset,
    network: str | None,
    loss: str | None,
    config_files: Sequence[str | Path],
    settings: Sequence[str],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The configuration of a new run, checked, fitted to the data and the time, its normalisation learnt.

    Args:
        data: the dataset.
        network, loss, config_files, settings, options: as :func:`rarevox.pipeline.compose.compose` takes them.

    Raises:
        RequestError: as :func:`checked`, and what a normalisation has to say that learns from images.
    """
    composed, config = checked(data, network, loss, config_files, settings, options)
    return learn_normalisation(fit_to_time(composed, config), data)


def checked(
    data: Dataset,
    network: str | None,
    loss: str | None,
    config_files: Sequence[str | Path],
    settings: Sequence[str],
    options: Mapping[str, Any],
) -> tuple[Composition, dict[str, Any]]:
    """What is composed, and the configuration fitted to the data and checked; no volume is read.

    Raises:
        RequestError: see :func:`check`; an unknown overlay or key, a value of a wrong kind.
    """
    composed = compose(
        "train",
        dataset=data,
        network=network,
        loss=loss,
        config_files=config_files,
        settings=settings,
        options=options,
    )
    check_values(composed.config)
    with_regions(composed, data)
    config = fit_to_data(composed, data)
    check(config, data)
    return composed, config


def check(config: Mapping[str, Any], data: Dataset, *, resumed: bool = False) -> None:
    """Refuse what cannot work before any volume is read: patch size, margins, device, precision, an empty section.

    Args:
        config: of the training.
        data: the dataset.
        resumed: the run has begun, perhaps when more was planted than may be now.

    Raises:
        RequestError: names the value, what was expected and the nearest that works.
    """
    geometry = build(config, "geometry")
    patch = config["patch_size"]
    if geometry.spatial_dims != 3:
        raise RequestError(
            f"{target_name(config['network_def'])} works on {geometry.spatial_dims} axes and scans have 3; networks on "
            "slices are wrapped in rarevox.networks.SliceWise, as in --network highresnet2d, deepmedic2d or "
            "unet2d"
        )
    try:
        geometry.check(patch, "patch_size")
    except ValueError as error:
        raise RequestError(str(error)) from error
    loss_margin = config["loss_margin"]
    effective = [n - 2 * m for n, m in zip(patch, geometry.unseen(loss_margin), strict=True)]
    if min(effective) < 1:
        raise RequestError(
            f"patch_size {patch} less the network's margin {geometry.margin} and loss_margin {loss_margin} leaves "
            f"{effective} voxels for the loss; enlarge patch_size or reduce loss_margin"
        )
    if not data.section("train", fold=config["fold"]):
        raise RequestError(f"fold {config['fold']} leaves no training case; prepare with fewer --folds or --holdout")
    read_gates(config["gates"], [*config["structures"], *config["composites"]])
    check_cache(config["cache"], config["cache_type"])
    _require_ignoring(config, data)
    _require_draws_that_go_together(config, resumed=resumed)
    for key in ("precision", "loss", "budget", "cleaner", "loss_schedule", "step", "gradient_log"):
        build(config, key)
    if config["initial_weights"] is not None and not config["resume"]:
        match(build(config, "network_def"), config["initial_weights"])


def _require_draws_that_go_together(config: Mapping[str, Any], *, resumed: bool) -> None:
    """Refuse planting that cannot be, hard patches among none, options of what is off. (Older runs have few keys.)"""
    if not resumed:
        require_planting(config)
        _require_patches_of_ours(config)
        _require_channels_that_go(config)
    build(config, "mixed_sampler" if "mixed_sampler" in config else "sampler")
    if config.get("hard_share") and not config["background_share"]:
        raise RequestError(
            f"hard_share is {config['hard_share']}, a share of the patches without foreground; background_share "
            "is 0; set both, or neither"
        )
    if config.get("hard_scans") and not config["hard_share"]:
        raise RequestError(
            f"hard_scans is {config['hard_scans']}: what whole training scans give are hard patches, of which "
            "hard_share, 0, draws none; set both, or neither"
        )


def _require_patches_of_ours(config: Mapping[str, Any]) -> None:
    """Refuse options of the patches that are drawn where a transform of one's own cuts them."""
    if config["train"]["dataset"].get("patch", "") is not None:
        return
    unread = [key for key in ("planting_share", "background_share", "hard_share") if config.get(key)]
    if unread:
        given = ", ".join(f"{key} ({config[key]})" for key in unread)
        raise RequestError(
            f"train#dataset#patch is null: a transform cuts the patches, and {given} "
            f"{'has' if len(unread) == 1 else 'have'} no effect on it; set {', '.join(f'{key}=0' for key in unread)}"
        )


def _require_channels_that_go(config: Mapping[str, Any]) -> None:
    """Refuse channel dropout that cannot be, and channels that are required where none is dropped."""
    if config.get("channel_dropout"):
        build(config, "channel_drop")
    elif config.get("required_channels"):
        raise RequestError(
            f"required_channels is {config['required_channels']}, those that channel_dropout never takes, and "
            "channel_dropout is 0: no channel may be missing; set both, or neither"
        )


def _require_ignoring(config: Mapping[str, Any], data: Dataset) -> None:
    """Refuse a loss that would learn from voxels which nobody annotated."""
    if data.ignored is not None and getattr(build(config, "loss"), "ignore_index", None) is None:
        raise RequestError(
            f"{target_name(config['loss'])} would learn from voxels that nobody annotated (label {data.ignored}); "
            'give it ignore_index: "@ignore_index", as the losses of configs/losses have it'
        )
