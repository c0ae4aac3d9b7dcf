"""Commands that train many networks: study, crossval."""

from __future__ import annotations

from typing import Any

import click

from rarevox.pipeline.commands.beforehand import require_dataset, require_overlays
from rarevox.pipeline.commands.options import (
    FOLDER,
    Command,
    device_option,
    loss_option,
    network_option,
    settings_option,
    trust_option,
)
from rarevox.pipeline.starting import importing


def places_options(command: Command) -> Command:
    """``--workers``, ``--engine`` and what belongs to them."""
    options = (
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            help="Processes of this machine.  [default: cores / threads of a cell; of crossval 1]",
        ),
        click.option(
            "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where cells run."
        ),
        click.option("--address", help="Of a Ray cluster, or auto.  [default: one on this machine]"),
        click.option(
            "--cpus-per-cell",
            type=click.FloatRange(min=0, min_open=True),
            help="CPUs that Ray sets aside for a cell.  [default: its threads]",
        ),
        click.option("--gpus-per-cell", type=click.FloatRange(min=0), default=0.0, help="GPUs likewise.  [default: 0]"),
        click.option("--shard", metavar="I/N", help="Only every N-th cell from the I-th on: a job of an array."),
        click.option(
            "--retry", is_flag=True, help="Try cells again that failed, and train those anew that lacked cases."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _places(options: dict[str, Any]) -> Any:
    """The options that say where cells run, taken out of the others."""
    from rarevox.pipeline.study.places import Places, on_cuda

    keys = ("workers", "engine", "address", "cpus_per_cell", "gpus_per_cell")
    return Places(**{key: options.pop(key) for key in keys}, cuda=on_cuda(options["device"]))


@click.command(short_help="Run a grid of trainings on DATASET.")
@click.argument("file", type=FOLDER, required=False)
@click.argument("dataset", type=FOLDER, required=False)
@click.option("--output", type=FOLDER, help="The folder of the study; the same command goes on in it.")
@click.option("--report", "report_of", metavar="STUDY", type=FOLDER, help="Only write this study's report as it is.")
@click.option("--cells", metavar="REGEX", help="Only cells whose name this is found in.")
@click.option("--list", "list_only", is_flag=True, help="Show the cells with their states; run nothing.")
@click.option("--extend", is_flag=True, help="Add the cells that FILE has now and had not when the study began.")
@click.option("--keep-weights", is_flag=True, help="Leave each cell's model in its folder.")
@places_options
@device_option
@trust_option
def study(**options: Any) -> int:
    """Run the grid of trainings that FILE describes (or the study of that name) on DATASET, and write its report."""
    report_of = options.pop("report_of")
    if report_of is not None:
        from rarevox.pipeline.study.study import tell_report

        return tell_report(report_of)
    missing = [
        name for name, key in (("FILE", "file"), ("DATASET", "dataset"), ("--output", "output")) if not options[key]
    ]
    if missing:
        raise click.UsageError(f"{', '.join(missing)} missing; give FILE DATASET --output STUDY, or --report STUDY")
    with importing():
        from rarevox.pipeline.study.study import study as run

    places = _places(options)
    return run(options.pop("file"), options.pop("dataset"), options.pop("output"), places=places, **options)


@click.command(short_help="Train and score every fold of DATASET.")
@click.argument("dataset", type=FOLDER)
@click.option("--output", type=FOLDER, required=True, help="Folder of the folds; the same command goes on in it.")
@network_option
@loss_option
@click.option("--config", "config_files", metavar="FILE", multiple=True, help="As `train` takes it. Repeatable.")
@settings_option
@click.option("--iterations", type=click.IntRange(min=1), help="Optimiser steps of a fold.  [default: 2000]")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Wall time of a fold instead.")
@places_options
@device_option
@trust_option
def crossval(**options: Any) -> int:
    """Train every fold of DATASET, score each training case by the run that had not seen it, keep the ensemble."""
    require_dataset(options["dataset"])
    require_overlays(options["network"], options["loss"])
    with importing():
        from rarevox.pipeline.study.crossval import crossval as run

    options["workers"] = options["workers"] or (1 if options["engine"] == "local" else None)
    places = _places(options)
    return run(options.pop("dataset"), options.pop("output"), places=places, **options)
