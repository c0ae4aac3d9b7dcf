"""What this installation is: doctor."""

from __future__ import annotations

import click


@click.command()
def doctor() -> int:
    """Versions, devices and known-bad combinations."""
    from pipeline.doctor import doctor as run

    return run()
