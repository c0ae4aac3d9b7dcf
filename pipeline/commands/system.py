"""What this installation is: doctor."""

from __future__ import annotations

from pathlib import Path

import click

from rarevox.pipeline.commands.options import FOLDER
from rarevox.pipeline.starting import importing


@click.command(short_help="Versions, devices, known-bad combinations.")
@click.argument("datasets", type=FOLDER, nargs=-1)
def doctor(datasets: tuple[Path, ...]) -> int:
    """Versions, devices and known-bad combinations; of DATASETS (or cache folders) the size of the prepared cases."""
    with importing():
        from rarevox.pipeline.doctor import doctor as run

    return run(datasets)
