"""Commands that make data: download, prepare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rarevox.pipeline.commands.beforehand import require_there
from rarevox.pipeline.commands.options import FOLDER, named_structures, pairs
from rarevox.pipeline.starting import importing


@click.command(short_help="Download a task of the Decathlon.")
@click.argument("task")
@click.option("--to", type=FOLDER, required=True, help="Folder that gets the folder TASK.")
@click.option("--url", help="Another address of the archive.  [default: MONAI's]")
@click.option("--md5", help="What the archive's MD5 must be.  [default: as MONAI knows it]")
def download(task: str, to: Path, url: str | None, md5: str | None) -> int:
    """Download TASK of the Medical Segmentation Decathlon, such as Task04_Hippocampus."""
    from rarevox.pipeline.download import download as run

    return run(task, to, url=url, md5=md5)


@click.command(short_help="Check the cases of SOURCE, write the dataset.")
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
@click.option(
    "--ignore", metavar="VALUE", type=int, help="Label of voxels that nobody annotated; they count for nothing."
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
    require_there([source], "the folder (or the CSV or JSON list) that holds the scans")
    with importing():
        from rarevox.pipeline.preparation.prepare import prepare as run

    return run(source, output, channels=pairs(channels, "--channel") or None, **named_structures(structures), **options)
