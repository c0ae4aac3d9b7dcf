"""The training stage: compose and check the configuration, fit it to data and time, write the bundle."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.build import build
from rarevox.pipeline.bundle import require_run, target_name, write_bundle
from rarevox.pipeline.compose import compose, dataset_facts, plan_of, put, read_yaml, user_config
from rarevox.pipeline.console import console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import claim_folder, read_json
from rarevox.pipeline.gates import read_gates
from rarevox.pipeline.preparation.mirror import sided_cohort
from rarevox.pipeline.preparation.plan import (
    ENOUGH_STEPS,
    fit_batch,
    plan_patch,
    seconds_per_patch,
    shrink_patch,
    slice_orders,
)
from rarevox.pipeline.storage.cases import check_cache
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.failures import one_sentence
from rarevox.pipeline.training.kept.initial_weights import match, weights_of
from rarevox.pipeline.training.kept.run_checkpoint import has_checkpoint
from rarevox.pipeline.training.learn import learn_normalisation
from rarevox.pipeline.training.plain_values import check_values
from rarevox.pipeline.training.running import run_training
from rarevox.transforms.slices import slice_order


def train(
    dataset: str | Path,
    output: str | Path,
    *,
    network: str | None = None,
    loss: str | None = None,
    config_files: Sequence[str | Path] = (),
    settings: Sequence[str] = (),
    iterations: int | None = None,
    minutes: float | None = None,
    fold: int | None = None,
    device: str = "auto",
    resume: bool = False,
    start_from: str | Path | None = None,
) -> int:
    """Train a network on a prepared dataset; the run folder is a MONAI bundle.

    Args:
        dataset: folder that ``rarevox prepare`` wrote.
        output: the run folder: new or empty, or with ``resume`` an earlier run's.
        network: overlay of ``configs/networks``; the default is HighResNet.
        loss: overlay of ``configs/losses``; the default is GDL+CE.
        config_files: configuration files merged in order.
        settings: ``KEY=VALUE`` texts, the last word.
        iterations: optimiser steps.
        minutes: wall time, which then counts instead.
        fold: which fold validates.
        device: auto, cpu, cuda or cuda:i.
        resume: go on from ``models/last.pt``; the configuration is the run's own, only the budget and the device may
            change.
        start_from: another run, or a file of weights, whose layers are taken over where name and shape match.

    Several processes may call this together, each started by ``torchrun``.

    Returns:
        Exit status: 0; 130 or 143 when interrupted by SIGINT or SIGTERM (the run can be used and resumed); 1 when the
        last checkpoint or the best model could not be written, or the budget was over before the first step.

    Raises:
        RequestError: anything wrong with the request, before any data is read.
    """
    began = time.monotonic()
    processes.start(device)
    folder, budget = Path(output), {"minutes": minutes, "iterations": iterations}

    def configure() -> dict[str, Any]:
        data = Dataset.load(dataset)
        if resume:
            config = _resumed(folder, budget, device, (network, loss, start_from, *config_files, *settings))
            _same_request(config, data, folder, fold)
            check(config, data)
        else:
            claim_folder(folder, holds=_abandoned, what="a run")
            options = _options(budget, fold, device)
            if start_from is not None:
                options["initial_weights"] = str(weights_of(start_from))
            with one_sentence("composing the configuration"):
                config = _composed(data, network, loss, config_files, settings, options)
        write_bundle(folder, config, data)
        return config

    config = processes.from_first(configure)
    status = run_training(folder, config, began)
    processes.stop()
    return status


def _composed(
    data: Dataset,
    network: str | None,
    loss: str | None,
    config_files: Sequence[str | Path],
    settings: Sequence[str],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The configuration of a new run, checked, fitted to the data and the time, its normalisation learnt."""
    config = compose(
        "train",
        dataset=data,
        network=network,
        loss=loss,
        config_files=config_files,
        settings=settings,
        options=options,
    )
    check_values(config)
    _check_slices(config)
    plan = plan_of(data)
    if network is not None or not _keeps_patch(plan, config_files, settings):
        _fit_patch(config, data, config_files, settings)
    if "mirror_axes" not in plan:
        _fit_mirror(config, data, config_files, settings)
    _mirror_slices(config, data)
    check(config, data)
    _fit_time(config, config_files, settings)
    return learn_normalisation(config, data)


def _abandoned(folder: Path) -> bool:
    """Whether a run folder holds a run that never began (no step was logged), which may be written over."""
    known = {"configs", "docs", "LICENSE", "logs", "models"}
    begun = (folder / "logs" / "train.jsonl").exists() or (folder / "models").exists()
    return (
        {entry.name for entry in folder.iterdir()} <= known
        and (folder / "configs" / "train.yaml").exists()
        and not begun
    )


def _options(budget: Mapping[str, Any], fold: int | None, device: str) -> dict[str, Any]:
    """Command-line options as configuration keys."""
    options = {key: value for key, value in budget.items() if value is not None}
    if budget["iterations"] is not None and budget["minutes"] is None:
        options["minutes"] = None  # those of a configuration file would win
    if fold is not None:
        options["fold"] = fold
    return options | {"device#name": device}


def _resumed(folder: Path, budget: Mapping[str, Any], device: str, others: Sequence[Any]) -> dict[str, Any]:
    """The configuration of an earlier run, with what may change on resuming."""
    require_run(folder, "train")
    if not has_checkpoint(folder) and (folder / "models" / "model.pt").exists():
        raise RequestError(f"{folder} has no models/last.pt to resume from; train anew into another folder")
    if any(other is not None for other in others):
        raise RequestError(
            "--resume keeps the run's own configuration; leave out --network, --loss, --config, --set and --from"
        )
    config = read_yaml(folder / "configs" / "train.yaml")
    for key, value in _options(budget, None, device).items():
        put(config, key, value)
    return config | {"resume": True}


def _same_request(config: dict[str, Any], data: Dataset, folder: Path, fold: int | None) -> None:
    """A resumed run goes on with its own data: the same dataset, perhaps in another place, and the same fold."""
    if fold is not None and fold != config["fold"]:
        raise RequestError(f"{folder} is a run of fold {config['fold']}, not {fold}; leave out --fold, or train anew")
    place = str(data.path.parent.resolve())
    if place == config["dataset_dir"]:
        return
    stated = read_json(folder / "configs" / "metadata.json").get("data_source", "")
    facts = {key: value for key, value in dataset_facts(data).items() if key != "dataset_dir"}
    other = any(config.get(key, value) != value for key, value in facts.items())
    if other or not data.fingerprint or data.fingerprint not in stated:
        raise RequestError(
            f"{folder} was trained on {config['dataset_dir']}, and {place} holds other data; give its own"
        )
    config["dataset_dir"] = place


def _fit_patch(config: dict[str, Any], data: Dataset, files: Sequence[str | Path], settings: Sequence[str]) -> None:
    """Fit the patch of the overlay to the dataset's volumes, unless the user set one."""
    if _is_set("patch_size", files, settings):
        return
    geometry = build(config, "geometry")
    config["patch_size"] = plan_patch(
        data, config["patch_size"], geometry, config["loss_margin"], config["spacing"], config["slice_axis"]
    )


def _keeps_patch(plan: Mapping[str, Any], files: Sequence[str | Path], settings: Sequence[str]) -> bool:
    """Whether the plan's patch stands as it is: nothing that it was fitted to was set otherwise."""
    fitted_to = ("spacing", "slice_axis", "loss_margin", "network_def", "geometry")
    return "patch_size" in plan and not any(_is_set(key, files, settings) for key in fitted_to)


def _check_slices(config: dict[str, Any]) -> None:
    """Refuse an unknown ``slice_axis``; with one, a patch of two numbers is one slice."""
    if config["slice_axis"] is None:
        return
    try:
        slice_order((1.0, 1.0, 1.0), config["slice_axis"])
    except ValueError as error:
        raise RequestError(str(error)) from error
    if len(config["patch_size"]) == 2:
        config["patch_size"] = [*config["patch_size"], 1]


def _fit_mirror(config: dict[str, Any], data: Dataset, files: Sequence[str | Path], settings: Sequence[str]) -> None:
    """Leave out the left-right mirror for a cohort that always shows the same side, unless the user set it."""
    if 0 not in config["mirror_axes"] or _is_set("mirror_axes", files, settings):
        return
    reason = sided_cohort(data)
    if reason:
        config["mirror_axes"] = [axis for axis in config["mirror_axes"] if axis != 0]
        console.print(f"{reason}: patches are not mirrored left to right (--set mirror_axes=[0] mirrors them)")


def _mirror_slices(config: dict[str, Any], data: Dataset) -> None:
    """``mirror_axes`` (right, anterior, superior) as axes of the permuted volumes; what differs by case is left out."""
    if config["slice_axis"] is None:
        return
    orders = slice_orders(data, config["spacing"], config["slice_axis"])
    places = [{order.index(axis) for order in orders} for axis in config["mirror_axes"]]
    config["mirror_axes"] = [place.pop() for place in places if len(place) == 1]


def _is_set(key: str, files: Sequence[str | Path], settings: Sequence[str]) -> bool:
    """Whether the user set a top-level key, in a file, a task overlay or with --set."""
    contents = [user_config(file) for file in files]
    named = [*(text.partition("=")[0] for text in settings), *(name for content in contents for name in content)]
    return any(str(name).replace("::", "#").partition("#")[0].strip() == key for name in named)


def _fit_time(config: dict[str, Any], files: Sequence[str | Path], settings: Sequence[str]) -> None:
    """With a budget in minutes on a slow device, reduce batch and patch so that enough steps fit, unless set."""
    fixed = [_is_set(key, files, settings) for key in ("batch_size", "patch_size")]
    if config["minutes"] is None or all(fixed):
        return
    parts = {key: f"@{key}" for key in ("network_def", "geometry", "loss", "precision", "in_channels", "out_channels")}
    built = build(config | {"_timed": parts}, "_timed")
    seconds = seconds_per_patch(
        built["network_def"],
        built["loss"],
        config["patch_size"],
        built["in_channels"],
        built["out_channels"],
        built["precision"],
    )
    budget_seconds = 60 * config["minutes"]
    batch, patch = config["batch_size"], list(config["patch_size"])
    if not fixed[0]:
        config["batch_size"] = fit_batch(batch, seconds, budget_seconds)
    steps = budget_seconds / (config["batch_size"] * seconds)
    if not fixed[1] and not config["loss_margin"]:
        config["patch_size"] = shrink_patch(patch, built["geometry"], steps / ENOUGH_STEPS)
    if (config["batch_size"], config["patch_size"]) != (batch, patch):
        console.print(
            f"a patch of {patch} takes {seconds:.2f} s here: batch {config['batch_size']} of {config['patch_size']} "
            f"instead of {batch}, so that {config['minutes']:g} minutes hold enough steps "
            "(--set batch_size and patch_size keep them)"
        )


def check(config: Mapping[str, Any], data: Dataset) -> None:
    """Refuse what cannot work before any volume is read: patch size, margins, device, precision, an empty section.

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
    read_gates(config.get("gates"), [*config["structures"], *config.get("composites", {})])
    if "cache" in config:
        check_cache(config["cache"], config["cache_type"])
    _require_ignoring(config, data)
    for key in ("precision", "loss", "budget", "cleaner", "loss_schedule", "step", "gradient_log"):
        if key in config:  # a run of an earlier version that is resumed may lack the later ones
            build(config, key)
    if config.get("initial_weights") is not None and not config["resume"]:
        match(build(config, "network_def"), config["initial_weights"])


def _require_ignoring(config: Mapping[str, Any], data: Dataset) -> None:
    """Refuse a loss that would learn from voxels which nobody annotated."""
    if data.ignored is not None and getattr(build(config, "loss"), "ignore_index", None) is None:
        raise RequestError(
            f"{target_name(config['loss'])} would learn from voxels that nobody annotated (label {data.ignored}); "
            'give it ignore_index: "@ignore_index", as the losses of configs/losses have it'
        )
