"""What a request names, looked at before its stage is imported, which takes seconds: is it there, is it what is meant.

The stages look again, and say the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rarevox.pipeline.errors import RequestError


def require_dataset(folder: Path) -> None:
    """DATASET is one that `prepare` wrote.

    Raises:
        RequestError: it is not.
    """
    from rarevox.pipeline.data.dataset import Dataset

    Dataset.load(folder)


def require_runs(folders: Iterable[Path], stage: str) -> None:
    """Every RUN is a run, or an ensemble of `crossval`, whose members its own stage looks at.

    Raises:
        RequestError: one is neither.
    """
    from rarevox.pipeline.bundle import require_run

    for folder in folders:
        if not (folder / "ensemble.json").is_file():
            require_run(folder, stage)


def require_begun(folder: Path) -> None:
    """A training began in a folder, so that it can go on.

    Raises:
        RequestError: none did, or it is no run.
    """
    if not (folder / "configs" / "train.yaml").is_file() and not (folder / "plan.json").is_file():
        raise RequestError(f"--resume: no training has begun in {folder}; leave out --resume to begin one there")
    require_runs([folder], "train")


def require_overlays(network: str | None, loss: str | None) -> None:
    """``--network`` and ``--loss`` are names that there are.

    Raises:
        RequestError: one is not; the nearest name is given.
    """
    from rarevox.pipeline.compose import overlay

    for kind, name in (("networks", network), ("losses", loss)):
        if name is not None:
            overlay(kind, name)


def require_there(paths: Iterable[Path], what: str) -> None:
    """Something stands at each path.

    Raises:
        RequestError: nothing does at one of them.
    """
    for path in paths:
        if not path.expanduser().exists():
            raise RequestError(f"{path} does not exist; give {what}")
