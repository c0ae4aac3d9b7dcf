"""Commands about a run on reference data: evaluate, tune-threshold, tune-postprocessing, calibrate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from rarevox.pipeline.commands.beforehand import require_dataset, require_runs
from rarevox.pipeline.commands.options import (
    FOLDER,
    device_option,
    others_option,
    pairs,
    settings_option,
    threshold_option,
    trust_option,
)
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.starting import importing

dice_cost_option = click.option(
    "--dice-cost",
    metavar="D",
    type=click.FloatRange(min=0),
    default=0.05,
    show_default=True,
    help="Of aims other than dice: what the choice may cost of the mean Dice.",
)


@click.command(short_help="Score RUN on the held-out cases of DATASET.")
@click.argument("run", type=FOLDER)
@click.argument("dataset", type=FOLDER)
@click.option("--section", default="test", show_default=True, help="test, validation, train or training.")
@click.option("--output", type=FOLDER, help="Results.  [default: in RUN/evaluation]")
@others_option
@click.option("--without", metavar="CHANNEL", multiple=True, help="Leave a channel out of every scan. Repeatable.")
@device_option
@threshold_option
@settings_option
@trust_option
def evaluate(thresholds: Sequence[str], **options: Any) -> int:
    """Score RUN on whole volumes of DATASET: metrics.json, cases.csv, report.html."""
    require_runs([options["run"], *options["others"]], "evaluate")
    require_dataset(options["dataset"])
    with importing():
        from rarevox.pipeline.evaluation.evaluate import evaluate as run

    options["thresholds"] = pairs(thresholds, "--threshold")
    return run(options.pop("run"), options.pop("dataset"), **options)


@click.command("tune-postprocessing", short_help="Choose RUN's post-processing on validation.")
@click.argument("run", type=FOLDER)
@click.argument("dataset", type=FOLDER)
@click.option(
    "--aim",
    type=click.Choice(["dice", "lesion_f1"]),
    default="dice",
    show_default=True,
    help="Best mean Dice, or best mean lesion F1.",
)
@dice_cost_option
@device_option
@trust_option
def tune_post_processing(run: Path, dataset: Path, **options: Any) -> int:
    """Choose RUN's post-processing on the validation cases of DATASET for an aim.

    What gains nothing there is not taken, nor what makes the aim's figure of a structure, or the Dice of another one,
    worse; --aim lesion_f1 may cost Dice.

    RUN may be the folder of a cross-validation: all its folds then choose together.
    """
    require_runs([run], "evaluate")
    require_dataset(dataset)
    with importing():
        from rarevox.pipeline.evaluation.tune import tune_post_processing as tune

    return tune(run, dataset, **options)


@click.command("tune-threshold", short_help="Choose where RUN's labels begin, on validation.")
@click.argument("run", type=FOLDER)
@click.argument("dataset", type=FOLDER)
@click.option(
    "--aim",
    type=click.Choice(["dice", "lesion_f1", "recall"]),
    default="dice",
    show_default=True,
    help="Best mean Dice, best mean lesion F1, or most lesions found within --false-lesions.",
)
@click.option(
    "--false-lesions",
    metavar="K",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Of --aim recall: the most a scan, on average.",
)
@dice_cost_option
@device_option
@trust_option
def tune_threshold(run: Path, dataset: Path, **options: Any) -> int:
    """Choose RUN's thresholds and the confidence of its lesions on the validation cases of DATASET, for an aim.

    RUN may be the folder of a cross-validation: all its folds then choose together.
    """
    given = click.get_current_context().get_parameter_source("false_lesions")
    if options["aim"] != "recall" and given is ParameterSource.COMMANDLINE:
        raise RequestError(
            f"--false-lesions {options['false_lesions']:g} is what --aim recall allows, and --aim is {options['aim']}; "
            "add --aim recall, or leave it out"
        )
    require_runs([run], "evaluate")
    require_dataset(dataset)
    with importing():
        from rarevox.pipeline.evaluation.tune_threshold import tune_threshold as tune

    return tune(run, dataset, **options)


@click.command(short_help="Make RUN's probabilities frequencies.")
@click.argument("run", type=FOLDER)
@click.argument("dataset", type=FOLDER)
@device_option
@trust_option
def calibrate(run: Path, dataset: Path, device: str, trust: bool) -> int:
    """Fit the temperature of RUN's probabilities on the validation cases of DATASET; labels do not change."""
    require_runs([run], "evaluate")
    require_dataset(dataset)
    with importing():
        from rarevox.pipeline.evaluation.calibrate import calibrate as fit

    return fit(run, dataset, device=device, trust=trust)
