"""Commands about a run on reference data: evaluate, tune-postprocessing, calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rarevox.pipeline.commands.options import FOLDER, device_option, others_option, settings_option, trust_option


@click.command(short_help="Score RUN on the held-out cases of DATASET.")
@click.argument("run", type=FOLDER)
@click.argument("dataset", type=FOLDER)
@click.option("--section", default="test", show_default=True, help="test, validation, train or training.")
@click.option("--output", type=FOLDER, help="Results.  [default: RUN/evaluation/SECTION]")
@others_option
@device_option
@settings_option
@trust_option
def evaluate(**options: Any) -> int:
    """Score RUN on whole volumes of DATASET: metrics.json, cases.csv, report.html."""
    from rarevox.pipeline.evaluation.evaluate import evaluate as run

    return run(options.pop("run"), options.pop("dataset"), **options)


@click.command("tune-postprocessing", short_help="Choose RUN's post-processing on validation.")
@click.argument("run", type=FOLDER)
@click.argument("dataset", type=FOLDER)
@device_option
@trust_option
def tune_post_processing(run: Path, dataset: Path, device: str, trust: bool) -> int:
    """Choose RUN's post-processing on the validation cases of DATASET, only where no structure gets worse."""
    from rarevox.pipeline.evaluation.tune import tune_post_processing as tune

    return tune(run, dataset, device=device, trust=trust)


@click.command(short_help="Make RUN's probabilities frequencies.")
@click.argument("run", type=FOLDER)
@click.argument("dataset", type=FOLDER)
@device_option
@trust_option
def calibrate(run: Path, dataset: Path, device: str, trust: bool) -> int:
    """Fit the temperature of RUN's probabilities on the validation cases of DATASET; labels do not change."""
    from rarevox.pipeline.evaluation.calibrate import calibrate as fit

    return fit(run, dataset, device=device, trust=trust)
