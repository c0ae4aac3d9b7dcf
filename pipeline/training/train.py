"""The training stage: compose and check the configuration, fit it to data and time, write the bundle."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rarevox.pipeline.bundle import require_run, write_bundle
from rarevox.pipeline.compose import dataset_facts
from rarevox.pipeline.console import console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.learnt import learnt_cases, note_learnt, noted_cases
from rarevox.pipeline.data.nested import by_value
from rarevox.pipeline.entries import put
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import claim_folder, clear_parts, entries_of, read_json
from rarevox.pipeline.locks import held
from rarevox.pipeline.training import processes
from rarevox.pipeline.training.configured import check, configured
from rarevox.pipeline.training.failures import one_sentence
from rarevox.pipeline.training.kept.initial_weights import run_of, weights_of
from rarevox.pipeline.training.kept.run_checkpoint import has_checkpoint
from rarevox.pipeline.training.planting import as_it_began
from rarevox.pipeline.training.running import Ending, run_training
from rarevox.pipeline.trust.gate import Refusal, run_config
from rarevox.pipeline.trust.sums import forget_sums, write_sums
from rarevox.pipeline.words import counted, listed

FOLDERS = ("configs", "docs", "logs", "models")
"""Of a run that is trained: what a killed call left half-written in them is cleared away by the next."""


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
    fold: int | str | None = None,
    device: str = "auto",
    resume: bool = False,
    start_from: str | Path | None = None,
    trust: bool = False,
) -> Ending:
    """Train a network on a prepared dataset; the run folder is a MONAI bundle.

    Args:
        dataset: folder that ``rarevox prepare`` wrote.
        output: the run folder: new or empty, or with ``resume`` an earlier run's.
        network: overlay of ``configs/networks``; None is the plan's, without one HighResNet.
        loss: overlay of ``configs/losses``; the default is GDL+CE.
        config_files: configuration files merged in order.
        settings: ``KEY=VALUE`` texts, the last word.
        iterations: optimiser steps.
        minutes: wall time, which then counts instead.
        fold: which fold validates; ``all``: none does, and every training case is learnt from.
        device: auto (the configuration's ``device#name``, where it says one), cpu, cuda or cuda:i.
        resume: go on from ``models/last.pt``; the configuration is the run's own, only the budget and the device may
            change.
        start_from: another run, or a file of weights, whose layers are taken over where name and shape match.
        trust: with ``resume``, take the run's configuration whatever it builds; see
            :mod:`rarevox.pipeline.trust.gate`. What ``config_files`` and ``settings`` say is the caller's own word.

    Several processes may call this together, each started by ``torchrun``.

    Returns:
        Exit status: 0; 130 or 143 when interrupted by SIGINT or SIGTERM (the run can be used and resumed); 1 when the
        last checkpoint or the best model could not be written, the budget was over before the first step, or cases
        could not be read and were left out (``left``).

    Raises:
        RequestError: anything wrong with the request, before any data is read, or another call trains into the folder.
    """
    began = time.monotonic()
    processes.start(device)
    folder, budget = Path(output), {"minutes": minutes, "iterations": iterations}
    if minutes is not None and iterations is not None:
        console.print(f"--minutes {minutes:g} counts, and --iterations {iterations} does not")

    def configure() -> dict[str, Any]:
        data = Dataset.load(dataset)
        if resume:
            others = (network, loss, start_from, *config_files, *settings)
            config = _resumed(folder, budget, device, others, trust=trust)
            holding.enter_context(held(folder))
            _same_request(config, data, folder, fold)
            as_it_began(config)
            check(config, data, resumed=True)
        else:
            _refuse_a_run(folder)
            holding.enter_context(held(claim_folder(folder, holds=_abandoned, what="a run")))
            options = _options(budget, fold, device)
            if start_from is not None:
                options["initial_weights"] = str(weights_of(start_from))
            with one_sentence("composing the configuration"):
                config = configured(data, network, loss, config_files, settings, options)
        clear_parts(folder, *(folder / name for name in FOLDERS))
        forget_sums(folder)
        write_bundle(folder, config, data)
        if not resume or noted_cases(folder) is None:
            given = start_from or config["initial_weights"]  # weights that are a link lie elsewhere
            note_learnt(folder, data, config["fold"], run_of(given))
        return config

    with ExitStack() as holding:  # of the first process, for all
        config = processes.from_first(configure)
        status = run_training(folder, config, began)
        if processes.is_first() and (folder / "models" / "model.pt").is_file():
            write_sums(folder)
            _tell_what_needs_trust(folder)
        processes.stop()
        return status


def _tell_what_needs_trust(folder: Path) -> None:
    """Say which of the user's own words the other commands will take with ``--trust`` only."""
    for stage in ("inference", "evaluate", "train"):
        try:
            run_config(folder, stage)
        except Refusal as error:
            needed = "train --resume" if stage == "train" else "predict, evaluate and train --resume"
            console.print(f"{needed} will need --trust for this run: {error}", markup=False, highlight=False)
            return


def _refuse_a_run(folder: Path) -> None:
    """A run that began is gone on with, never written over.

    Raises:
        RequestError: there is one.
    """
    if (folder / "configs" / "train.yaml").is_file() and not _abandoned(folder):
        raise RequestError(
            f"--output {folder} is a run already, which is never written over; go on with it by --resume (and a larger "
            "budget where it is finished), or give a new folder"
        )


def _abandoned(folder: Path) -> bool:
    """Whether a run folder holds a run that never began (no step was logged), which may be written over."""
    begun = (folder / "logs" / "train.jsonl").exists() or (folder / "models").exists()
    return entries_of(folder) <= {*FOLDERS, "LICENSE"} and (folder / "configs" / "train.yaml").exists() and not begun


def _options(budget: Mapping[str, Any], fold: int | str | None, device: str) -> dict[str, Any]:
    """Command-line options as configuration keys."""
    options = {key: value for key, value in budget.items() if value is not None}
    if budget["iterations"] is not None and budget["minutes"] is None:
        options["minutes"] = None  # those of a configuration file would win
    if fold is not None:
        options["fold"] = fold
    # Left to itself the device is the configuration's, of a resumed run the one that it trained on.
    return options | ({} if device == "auto" else {"device#name": device})


def _resumed(
    folder: Path, budget: Mapping[str, Any], device: str, others: Sequence[Any], *, trust: bool
) -> dict[str, Any]:
    """The configuration of an earlier run, with what may change on resuming."""
    require_run(folder, "train")
    if not has_checkpoint(folder) and (folder / "models" / "model.pt").exists():
        raise RequestError(f"{folder} has no models/last.pt to resume from; train anew into another folder")
    if any(other is not None for other in others):
        raise RequestError(
            "--resume keeps the run's own configuration; leave out --network, --loss, --config, --set and --from"
        )
    config = run_config(folder, "train", trust=trust)
    for key, value in _options(budget, None, device).items():
        put(config, key, value)
    return config | {"resume": True}


def _same_request(config: dict[str, Any], data: Dataset, folder: Path, fold: int | str | None) -> None:
    """A resumed run goes on with its own data: the same dataset, perhaps in another place, and the same fold."""
    if fold is not None and fold != config["fold"]:
        raise RequestError(f"{folder} is a run of fold {config['fold']}, not {fold}; leave out --fold, or train anew")
    place = str(data.path.parent.resolve())
    facts = {key: value for key, value in dataset_facts(data).items() if key != "dataset_dir"}
    structures, values = by_value(config["structures"], config["label_values"])
    own = {**config, "structures": structures, "label_values": values}
    before, stays = noted_cases(folder), place == config["dataset_dir"]
    if before is None and stays:
        return  # a run of an earlier version, or one that was ended before its cases were noted
    stated = read_json(folder / "configs" / "metadata.json").get("data_source", "")
    # Facts that an earlier version stated otherwise do not count where the dataset is where it was.
    other = not stays and any(own[key] != value for key, value in facts.items() if key in config)
    if other or not data.fingerprint or data.fingerprint not in stated:
        same = "which holds other data now" if stays else f"and {place} holds other data"
        raise RequestError(f"{folder} was trained on {config['dataset_dir']}, {same}; give its own")
    now = learnt_cases(data, config["fold"])
    odd = sorted({row["case"] for row in before or now} ^ {row["case"] for row in now})
    if before is not None and odd:  # their content is the fingerprint's
        raise RequestError(
            f"{folder} has learnt from {counted(len(before), 'case')}, and {place} has "
            f"{counted(len(now), 'case')} for training in that fold ({listed(odd)} differ): it was split anew; give "
            "the dataset as it was, or train anew into another folder"
        )
    config["dataset_dir"] = place
