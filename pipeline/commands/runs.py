"""Commands that train a run or use one: train, predict, collect, serve, export, verify, demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rarevox.pipeline.commands.beforehand import require_begun, require_dataset, require_overlays, require_runs
from rarevox.pipeline.commands.options import (
    FOLDER,
    FoldType,
    device_option,
    loss_option,
    network_option,
    others_option,
    pairs,
    results_options,
    settings_option,
    threshold_option,
    trust_option,
)
from rarevox.pipeline.starting import importing


@click.command(short_help="Train a network on DATASET.")
@click.argument("dataset", type=FOLDER)
@click.option("--output", type=FOLDER, required=True, help="The run folder, a MONAI bundle.")
@network_option
@loss_option
@click.option(
    "--config",
    "config_files",
    metavar="FILE",
    multiple=True,
    help="Configuration merged over the rest; or the name of a configs/tasks overlay. Repeatable.",
)
@settings_option
@click.option("--iterations", type=click.IntRange(min=1), help="Optimiser steps.  [default: 2000]")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Wall time instead of iterations.")
@click.option("--fold", type=FoldType(), metavar="N|all", help="Fold that validates, or all: none.  [default: 0]")
@device_option
@click.option("--resume", is_flag=True, help="Go on with the run in --output.")
@trust_option
@click.option("--from", "start_from", metavar="RUN", type=FOLDER, help="Start from RUN's weights, where layers match.")
def train(**options: Any) -> int:
    """Train a network on DATASET (made by `rarevox prepare`)."""
    require_dataset(options["dataset"])
    require_overlays(options["network"], options["loss"])
    if options["resume"]:
        require_begun(options["output"])
    with importing():
        from rarevox.pipeline.training.train import train as run

    return run(options.pop("dataset"), options.pop("output"), **options)


@click.command(short_help="Segment SCANS with RUN.")
@click.argument("run", type=FOLDER)
@click.argument("scans", type=FOLDER, nargs=-1)
@click.option("--output", type=FOLDER, required=True, help="Folder for CASE_seg.nii.gz and predictions.json.")
@click.option(
    "--manifest",
    metavar="FILE",
    type=FOLDER,
    help="A table of scans, CSV or JSON lines: case, image or a column a channel, mask, roi; the rest goes along.",
)
@device_option
@threshold_option
@settings_option
@others_option
@trust_option
@click.option("--keep", is_flag=True, help="Leave out scans of which an earlier call wrote all that is asked for.")
@click.option("--masks", type=FOLDER, help="Folder with CASE or CASE_mask, for a run that normalises inside a mask.")
@click.option(
    "--roi",
    type=FOLDER,
    help="Folder with a mask for each scan (CASE or CASE_mask), or one mask: segment only in there.",
)
@click.option(
    "--duplicates",
    type=click.Choice(["tell", "skip"]),
    help="Compare the scans' content: tell copies in their rows, or segment it once.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Processes that share the scans; what ends one costs a scan, not the call. 0: none but this one.",
)
@click.option("--scan-minutes", type=click.FloatRange(min=0, min_open=True), help="End a scan that takes longer.")
@click.option("--shard", metavar="I/N", help="Only every N-th scan from the I-th; auto, auto/N: of the job array.")
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", help="Where workers stand.  [default: local]"
)
@click.option("--address", metavar="ADDRESS", help="Of a Ray cluster.  [default: one on this machine]")
@click.option(
    "--worker-cpus", type=click.FloatRange(min=0), help="CPUs that Ray sets aside for a worker.  [default: 1]"
)
@click.option("--worker-gpus", type=click.FloatRange(min=0), help="GPUs likewise.  [default: 0]")
@click.option("--entropy", is_flag=True, help="Write CASE_entropy.nii.gz too: 0 certain, 1 undecided.")
@click.option(
    "--probabilities",
    type=click.Choice(["uint8", "uint16"]),
    help="Write CASE_prob_STRUCTURE.nii.gz too, scaled to 0 ... 1 in this type.",
)
@results_options
def predict(keep: bool, thresholds: Sequence[str], **options: Any) -> int:
    """Segment SCANS (files or folders; NIfTI, NRRD, MHA, DICOM series) with RUN.

    Several calls with the same --output, on one machine or many, share the scans.
    """
    if not options["scans"] and options["manifest"] is None:
        raise click.UsageError("Missing argument 'SCANS...' (or --manifest).")
    require_runs([options["run"], *options["others"]], "inference")
    # With --keep nothing may be left to do, which is found out first.
    if options["engine"] == "local" and (options["workers"] or options["scan_minutes"]) and not keep:
        _import_for_workers()
    with importing():
        from rarevox.pipeline.inference.predict import predict as run

    options["thresholds"] = pairs(thresholds, "--threshold")
    return run(options.pop("run"), options.pop("scans"), options.pop("output"), overwrite=not keep, **options)


def _import_for_workers() -> None:
    """Let the process of which workers are forked import the libraries beside this one."""
    from rarevox.pipeline.inference.calls.preloaded import PRELOADED
    from rarevox.pipeline.workers.processes import start_server

    start_server(PRELOADED)


@click.command(short_help="Gather the results in OUT.")
@click.argument("output", metavar="OUT", type=FOLDER)
def collect(output: Path) -> int:
    """Write predictions.json, predictions.csv, tables and summary.html of what `predict` has done in OUT by now."""
    from rarevox.pipeline.cohort.collect import collect as run

    return run(output)


@click.command(short_help="Segment what is sent over HTTP with RUN.")
@click.argument("run", type=FOLDER)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address; this one is this machine's own.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--queue", type=click.IntRange(min=1), default=8, show_default=True, help="Scans there may be at once.")
@click.option("--max-mb", type=click.IntRange(min=1), default=1024, show_default=True, help="The largest upload.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds that a request may take.",
)
@click.option("--dicom-codes", "codes", metavar="FILE", type=FOLDER, help="Codes of structures in DICOM objects, YAML.")
@device_option
@settings_option
@others_option
@trust_option
def serve(run: Path, **options: Any) -> int:
    """Answer POST /segment (a NIfTI file, or a ZIP of a DICOM series) with labels, volumes or a DICOM segmentation."""
    require_runs([run, *options["others"]], "inference")
    _import_for_workers()
    with importing():
        from rarevox.pipeline.service.serve import serve as run_service

    return run_service(run, **options)


@click.command(short_help="Check RUN against its sums and signature.")
@click.argument("run", type=FOLDER)
@click.option("--signers", metavar="FILE", type=FOLDER, help="OpenSSH's allowed signers; one of them must have signed.")
def verify(run: Path, signers: Path | None) -> int:
    """Check RUN against its SHA-256 sums, and its signature where it has one; status 1 where it differs."""
    from rarevox.pipeline.trust.verify import verify as check

    return check(run, signers=signers)


@click.command(short_help="Write RUN's network as ONNX and other programs.")
@click.argument("run", type=FOLDER)
@click.option("--output", type=FOLDER, required=True, help="A folder, or one file: .onnx, .pt2 or .ts.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(["onnx", "pt2", "torchscript"]),
    multiple=True,
    help="What to write. Repeatable.  [default: all]",
)
@trust_option
def export(run: Path, output: Path, formats: tuple[str, ...], trust: bool) -> int:
    """Write RUN's network as ONNX, torch.export program and TorchScript, each checked against the network."""
    require_runs([run], "inference")
    with importing():
        from rarevox.pipeline.export.export import export as run_export

    return run_export(run, output, formats, trust=trust)


@click.command(short_help="The whole pipeline on a phantom cohort.")
@click.option("--output", type=FOLDER, default=Path("demo"), show_default=True, help="Folder for everything it makes.")
@click.option("--minutes", type=float, default=7.0, show_default=True, help="Training time.")
@click.option("--subjects", type=int, default=16, show_default=True, help="Phantom subjects.")
@click.option("--lesion-share", type=float, default=1e-3, show_default=True, help="Share of the volume that is lesion.")
@device_option
def demo(output: Path, minutes: float, subjects: int, lesion_share: float, device: str) -> int:
    """The whole pipeline on a phantom cohort with white-matter lesions."""
    with importing():
        from rarevox.pipeline.demo import demo as run

    return run(output, minutes=minutes, subjects=subjects, lesion_share=lesion_share, device=device)
