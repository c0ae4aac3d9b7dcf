"""The command line. Nothing heavy is imported here, so that help answers at once; each command imports its stage."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from pipeline.errors import RequestError

Command = TypeVar("Command", bound=Callable[..., Any])
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
FOLDER = click.Path(path_type=Path)


@click.group(context_settings=CONTEXT)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="rarevox")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Segment structures that fill a thousandth of a scan: prepare, train, evaluate, predict.

    Exit status: 0 all done; 1 some cases failed, the rest done and listed; 2 the request is wrong; 130 interrupted
    (training that SIGTERM ended: 143).
    """
    context.obj = {"debug": debug}


def _pairs(values: Sequence[str], option: str) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping."""
    found = {}
    for text in values:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            raise RequestError(f"{option} {text} is not NAME=VALUE")
        if name in found:
            raise RequestError(f"{option} names {name} twice")
        found[name] = value
    return found


def _structures(values: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` texts as ``structures``, and ``NAME=1+2`` as ``composites``; None for none."""
    from pipeline.evaluation.score_pairs import parse_structures

    named = parse_structures(values)
    unions = {name: value for name, value in named.items() if isinstance(value, tuple)}
    single = {name: value for name, value in named.items() if name not in unions}
    return {"structures": single or None, "composites": unions or None}


def _device(command: Command) -> Command:
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i.")(command)


def _others(command: Command) -> Command:
    text = "Another run, whose class probabilities are averaged with RUN's. Repeatable."
    return click.option("--with", "others", metavar="RUN", type=FOLDER, multiple=True, help=text)(command)


def _settings(command: Command) -> Command:
    text = "Set any configuration key, for example optimizer#lr=1e-4. Repeatable."
    return click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help=text)(command)


@cli.command()
@click.option("--output", type=FOLDER, default=Path("demo"), show_default=True, help="Folder for everything it makes.")
@click.option("--minutes", type=float, default=7.0, show_default=True, help="Training time.")
@click.option("--subjects", type=int, default=16, show_default=True, help="Phantom subjects.")
@click.option("--lesion-share", type=float, default=1e-3, show_default=True, help="Share of the volume that is lesion.")
@_device
def demo(output: Path, minutes: float, subjects: int, lesion_share: float, device: str) -> int:
    """The whole pipeline on a phantom cohort with white-matter lesions."""
    from pipeline.demo import demo as run

    return run(output, minutes=minutes, subjects=subjects, lesion_share=lesion_share, device=device)


@cli.command()
@click.argument("task")
@click.option("--to", type=FOLDER, required=True, help="Folder that gets the folder TASK.")
@click.option("--url", help="Another address of the archive.  [default: MONAI's]")
@click.option("--md5", help="What the archive's MD5 must be.  [default: as MONAI knows it]")
def download(task: str, to: Path, url: str | None, md5: str | None) -> int:
    """Download TASK of the Medical Segmentation Decathlon, such as Task04_Hippocampus."""
    from pipeline.download import download as run

    return run(task, to, url=url, md5=md5)


@cli.command()
@click.argument("source", type=FOLDER)
@click.option("--output", type=FOLDER, required=True, help="Folder for dataset.json and fingerprint.json.")
@click.option(
    "--channel",
    "channels",
    metavar="NAME=PATTERN",
    multiple=True,
    help="A channel's file in each subject's folder. Repeatable.",
)
@click.option("--label", metavar="PATTERN", help="The label map in each subject's folder.")
@click.option("--mask", metavar="PATTERN", help="A mask for normalisation in each subject's folder.")
@click.option("--images", metavar="DIR", help="Folder of images, beside --labels.")
@click.option("--labels", metavar="DIR", help="Folder of label maps with the same names.")
@click.option(
    "--structure",
    "structures",
    metavar="NAME=VALUE",
    multiple=True,
    help="A structure and its label value; NAME=1+2 is a union, scored and not learnt. Repeatable.",
)
@click.option("--holdout", type=float, default=0.1, show_default=True, help="Share of subjects held out for testing.")
@click.option("--folds", type=int, default=5, show_default=True, help="Folds of the rest.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the split.")
@click.option("--subject", metavar="REGEX", help="Names the subject within a case's name; its cases stay together.")
@click.option("--split", type=FOLDER, help="Follow the split of this dataset.json or nnU-Net splits_final.json.")
@click.option("--n4", is_flag=True, help="Use copies with the bias field divided out (N4), for raw MRI.")
@click.option("--fix", is_flag=True, help="Write corrected copies where the correction is certain.")
@click.option("--workers", type=click.IntRange(min=1), help="Cases checked at once.  [default: up to 4]")
@click.option("--skip-faulty", is_flag=True, help="Leave faulty cases out instead of stopping.")
def prepare(source: Path, output: Path, channels: Sequence[str], structures: Sequence[str], **options: Any) -> int:
    """Check the cases of SOURCE and write the dataset that training reads."""
    from pipeline.preparation.prepare import prepare as run

    return run(source, output, channels=_pairs(channels, "--channel") or None, **_structures(structures), **options)


@cli.command()
@click.argument("dataset", type=FOLDER)
@click.option("--output", type=FOLDER, required=True, help="The run folder, a MONAI bundle.")
@click.option("--network", metavar="NAME", help="Overlay of configs/networks.  [default: highresnet]")
@click.option("--loss", metavar="NAME", help="Overlay of configs/losses.  [default: gdl_ce]")
@click.option(
    "--config",
    "config_files",
    metavar="FILE",
    multiple=True,
    help="Configuration merged over the rest; or the name of a configs/tasks overlay. Repeatable.",
)
@_settings
@click.option("--iterations", type=click.IntRange(min=1), help="Optimiser steps.  [default: 2000]")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Wall time instead of iterations.")
@click.option("--fold", type=click.IntRange(min=0), help="Fold that validates.  [default: 0]")
@_device
@click.option("--resume", is_flag=True, help="Go on with the run in --output.")
@click.option("--from", "start_from", metavar="RUN", type=FOLDER, help="Start from RUN's weights, where layers match.")
def train(**options: Any) -> int:
    """Train a network on DATASET (made by `rarevox prepare`)."""
    from pipeline.training.train import train as run

    return run(options.pop("dataset"), options.pop("output"), **options)


@cli.command()
@click.argument("run", type=FOLDER)
@click.argument("dataset", type=FOLDER)
@click.option("--section", default="test", show_default=True, help="test, validation, train or training.")
@click.option("--output", type=FOLDER, help="Results.  [default: RUN/evaluation/SECTION]")
@_others
@_device
@_settings
def evaluate(**options: Any) -> int:
    """Score RUN on whole volumes of DATASET: metrics.json, cases.csv, report.html."""
    from pipeline.evaluation.evaluate import evaluate as run

    return run(options.pop("run"), options.pop("dataset"), **options)


@cli.command()
@click.argument("run", type=FOLDER)
@click.argument("scans", type=FOLDER, nargs=-1, required=True)
@click.option("--output", type=FOLDER, required=True, help="Folder for CASE_seg.nii.gz and predictions.json.")
@_device
@_settings
@_others
@click.option("--keep", is_flag=True, help="Leave out scans that an earlier call segmented.")
@click.option("--masks", type=FOLDER, help="Folder with CASE or CASE_mask, for a run that normalises inside a mask.")
@click.option(
    "--roi",
    type=FOLDER,
    help="Folder with a mask for each scan (CASE or CASE_mask), or one mask: segment only in there.",
)
@click.option("--entropy", is_flag=True, help="Write CASE_entropy.nii.gz too: 0 certain, 1 undecided.")
@click.option(
    "--probabilities",
    type=click.Choice(["uint8", "uint16"]),
    help="Write CASE_prob_STRUCTURE.nii.gz too, scaled to 0 ... 1 in this type.",
)
def predict(keep: bool, **options: Any) -> int:
    """Segment SCANS (files or folders; NIfTI, NRRD, MHA, DICOM series) with RUN."""
    from pipeline.inference.predict import predict as run

    return run(options.pop("run"), options.pop("scans"), options.pop("output"), overwrite=not keep, **options)


@cli.command()
@click.argument("predictions", type=FOLDER)
@click.argument("references", type=FOLDER)
@click.option("--output", type=FOLDER, help="Folder for metrics.json, cases.csv and report.html.")
@click.option(
    "--structure",
    "structures",
    metavar="NAME=VALUE",
    multiple=True,
    help="A structure and its label value; NAME=1+2 is a union. Repeatable.",
)
@click.option("--dataset", type=FOLDER, help="Names, values and unions of this prepared dataset.")
@click.option(
    "--empty",
    type=click.Choice(["one", "nan", "zero"]),
    default="one",
    show_default=True,
    help="Dice where both are empty: 1, left out, or 0.",
)
@click.option(
    "--tolerance",
    "tolerances",
    metavar="MM",
    type=float,
    multiple=True,
    help="Tolerance of the surface Dice in mm. Repeatable.  [default: 1]",
)
@click.option(
    "--gates", metavar="FILE", type=FOLDER, help="YAML with the least Dice of structures: {lesion: {mean: 0.75}}."
)
@click.option(
    "--post-processing",
    metavar="FILE",
    type=FOLDER,
    help="YAML with rules by structure, applied to the predictions: {lesion: {min_ml: 0.02}}.",
)
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any other convention of the metrics: surface=area, lesion_dilation=3, … (docs/metrics.md). Repeatable.",
)
@click.option("--resample", is_flag=True, help="Bring predictions on another grid onto the reference's.")
@click.option("--ignore-unknown", is_flag=True, help="Take undeclared label values as background.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Cases at once.")
def score(
    predictions: Path,
    references: Path,
    output: Path | None,
    structures: Sequence[str],
    empty: str,
    tolerances: Sequence[float],
    settings: Sequence[str],
    **options: Any,
) -> int:
    """Score label maps in PREDICTIONS against those in REFERENCES; no model is needed."""
    from pipeline.evaluation.metrics_options import read_options
    from pipeline.evaluation.score import score as run
    from pipeline.evaluation.score_pairs import parse_structures

    conventions = read_options(_pairs(settings, "--set"), empty=empty, tolerances_mm=tuple(tolerances) or (1.0,))
    given = parse_structures(structures) or None
    return run(predictions, references, output, structures=given, options=conventions, **options)


@cli.command("tune-postprocessing")
@click.argument("run", type=FOLDER)
@click.argument("dataset", type=FOLDER)
@_device
def tune_post_processing(run: Path, dataset: Path, device: str) -> int:
    """Choose RUN's post-processing on the validation cases of DATASET, only where no structure gets worse."""
    from pipeline.evaluation.tune import tune_post_processing as tune

    return tune(run, dataset, device=device)


@cli.command()
@click.argument("run", type=FOLDER)
@click.argument("dataset", type=FOLDER)
@_device
def calibrate(run: Path, dataset: Path, device: str) -> int:
    """Fit the temperature of RUN's probabilities on the validation cases of DATASET; labels do not change."""
    from pipeline.evaluation.calibrate import calibrate as fit

    return fit(run, dataset, device=device)


@cli.command()
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
@click.option("--output", type=FOLDER, help="Folder for compare.json, compare.html and the tables (text, CSV, LaTeX).")
@click.option("--metric", default="dice", show_default=True, help="A column of cases.csv.")
@click.option("--name", "names", multiple=True, help="What each evaluation is called, in their order. Repeatable.")
def compare(folders: Sequence[Path], output: Path | None, metric: str, names: Sequence[str]) -> int:
    """Compare evaluations (FOLDERS of `evaluate` or `score`) case by case: intervals, tests, a leaderboard."""
    from pipeline.evaluation.compare import compare as run

    return run(folders, output, metric=metric, names=names)


@cli.command()
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
@click.option("--model", type=FOLDER, metavar="PREDICTIONS", help="The model's label maps of the same cases.")
@click.option("--output", type=FOLDER, help="Folder for agreement.json, .csv, .html and the consensus maps.")
@click.option(
    "--structure",
    "structures",
    metavar="NAME=VALUE",
    multiple=True,
    help="A structure and its label value; NAME=1+2 is a union. Repeatable.",
)
@click.option(
    "--flag-below", type=click.FloatRange(0, 1), default=0.75, show_default=True, help="Dice to list cases by."
)
@click.option(
    "--tolerance", "tolerances", metavar="MM", type=float, multiple=True, help="Of the surface Dice.  [default: 1]"
)
@click.option("--empty", type=click.Choice(["one", "nan"]), default="one", show_default=True, help="Both maps empty.")
@click.option("--resample", is_flag=True, help="Bring maps on another grid onto that of most annotators.")
@click.option("--ignore-unknown", is_flag=True, help="Take undeclared label values as background.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Cases at once.")
def agreement(
    folders: Sequence[Path],
    output: Path | None,
    structures: Sequence[str],
    tolerances: Sequence[float],
    empty: str,
    **options: Any,
) -> int:
    """Compare annotators (FOLDERS, one each, or one that holds theirs) and a model: Dice, STAPLE consensus."""
    from pipeline.evaluation.metrics_options import MetricOptions
    from pipeline.evaluation.score_pairs import parse_structures
    from pipeline.review.agreement import agreement as run

    try:
        conventions = MetricOptions(empty=empty, tolerances_mm=tuple(tolerances) or (1.0,), lesions=False)
    except ValueError as error:
        raise RequestError(str(error)) from error
    return run(folders, output, structures=parse_structures(structures) or None, options=conventions, **options)


@cli.command()
@click.argument("history", type=FOLDER, metavar="DB")
@click.option("--add", type=FOLDER, multiple=True, help="Folder of `evaluate` or `score` to add. Repeatable.")
@click.option("--site", default="", help="Where the added cases come from.")
@click.option("--scanner", default="", help="What the added cases were made with.")
@click.option("--date", "day", metavar="ISO", help="When they were reviewed.  [default: today, UTC]")
@click.option("--by", type=click.Choice(["site", "scanner"]), help="A chart for each of them too.")
@click.option("--baseline", type=FOLDER, help="Evaluation to compare with, instead of the first cases.")
@click.option(
    "--baseline-cases", metavar="N", type=int, default=30, show_default=True, help="First cases, to learn from."
)
@click.option(
    "--false-alarm-every",
    metavar="N",
    type=float,
    default=1000,
    show_default=True,
    help="Cases from one false alarm to the next, on average.",
)
@click.option("--since", metavar="ISO", help="Leave out cases before this date.")
@click.option("--output", type=FOLDER, help="Folder for monitor.json and monitor.html.")
def monitor(history: Path, baseline_cases: int, false_alarm_every: float, **options: Any) -> int:
    """Keep the Dice of reviewed cases in DB (SQLite) and look for a sustained drop; status 1 on an alarm."""
    from pipeline.review.monitor import monitor as run
    from pipeline.review.monitor_chart import ChartOptions

    try:
        design = ChartOptions(baseline=baseline_cases, run_length=false_alarm_every)
    except ValueError as error:
        raise RequestError(str(error)) from error
    return run(history, options.pop("output"), options=design, **options)


@cli.command()
def doctor() -> int:
    """Versions, devices and known-bad combinations."""
    from pipeline.doctor import doctor as run

    return run()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status; a wrong request is one line on standard error and status 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Threads that wait for one another asleep instead of spinning: the same speed on a quiet machine, and with one
    # other busy process on two cores a convolution takes 21 ms instead of 50 ms. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        status = cli.main(args=arguments, prog_name="rarevox", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (RequestError, OSError, FloatingPointError, KeyboardInterrupt) as error:
        if "--debug" in arguments:
            raise
        sys.exit(_explain(error))
    sys.exit(status if isinstance(status, int) else 0)


def _explain(error: BaseException) -> int:
    """Say what went wrong in one line; returns the exit status."""
    if isinstance(error, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    text = " ".join(str(error).split())
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        text = f"{error.strerror or text}{where}; free space, correct the permission or choose another place"
    click.echo(f"rarevox: {text}", err=True)
    return 2


if __name__ == "__main__":
    main()
