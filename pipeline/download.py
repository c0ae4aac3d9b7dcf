"""``rarevox download``: a task of the Medical Segmentation Decathlon, through MONAI's downloader."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rarevox.pipeline.console import console
from rarevox.pipeline.errors import RequestError, nearest

SUFFIXES = (".tar", ".tar.gz", ".zip")


def download(task: str, to: str | Path, *, url: str | None = None, md5: str | None = None) -> int:
    """Download a task's archive, compare its MD5 and extract it to ``to/TASK``.

    The archive is extracted beside its place and renamed, so that the folder is either whole or absent; a task that is
    there already is left. MONAI's extraction refuses entries that would leave the folder.

    Args:
        task: such as ``Task04_Hippocampus``.
        to: the folder that gets the task's folder.
        url: another address of the archive (.tar, .tar.gz or .zip with the folder TASK in it); the default is MONAI's.
        md5: what the archive's MD5 must be; the default is the one that MONAI knows for the task.

    Returns:
        Exit status 0.

    Raises:
        RequestError: an unknown task, an address that does not answer, an archive with another MD5 or without the task.
    """
    from monai.apps.datasets import DecathlonDataset

    known, sums = DecathlonDataset.resource, DecathlonDataset.md5
    if task not in known and (url is None or md5 is None):
        raise RequestError(f"no task is called {task!r}; {nearest(task, known)} (or give --url and --md5)")
    if Path(task).name != task:
        raise RequestError(f"the task {task!r} is not a plain name; expected such as Task04_Hippocampus")
    address = url or known[task]
    suffix = next((suffix for suffix in SUFFIXES if address.endswith(suffix)), None)
    if suffix is None:
        raise RequestError(f"--url {address} names no archive; expected one that ends in {', '.join(SUFFIXES)}")
    folder = Path(to).expanduser() / task
    if (folder / "dataset.json").is_file():
        console.print(f"{folder} is there already")
        return 0
    if folder.exists():
        raise RequestError(f"{folder} exists and holds no dataset.json; remove it or choose another --to")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{task}.part.", dir=folder.parent) as place:
        _fetch(address, Path(place), f"{task}{suffix}", md5 or sums[task])
        found = Path(place) / "files" / task
        if not (found / "dataset.json").is_file():
            raise RequestError(f"the archive at {address} holds no {task}/dataset.json; is it the right one?")
        found.rename(folder)
    console.print(f"{task} is in {folder}; next: rarevox prepare {folder} --output DATASET")
    return 0


def _fetch(address: str, place: Path, name: str, md5: str) -> None:
    """Download and extract into ``place/files``; every way in which this fails is one sentence."""
    from monai.apps.utils import HashCheckError, download_url, extractall

    archive = place / name
    console.print(f"downloading {address}")
    try:
        with _told_once():
            download_url(address, archive, hash_val=md5, hash_type="md5", progress=True)
    except HashCheckError:
        raise RequestError(
            f"the archive at {address} has another MD5 than {md5}; it is damaged or not the task"
        ) from None
    except (OSError, RuntimeError) as error:  # URLError, HTTPError and broken transfers are OSErrors
        raise RequestError(f"cannot download {address}: {_reason(error)}; try again, or give --url") from error
    if not archive.is_file():
        raise RequestError(f"cannot download {address}: nothing was written to {place}; check the folder's permissions")
    (place / "files").mkdir()
    try:
        extractall(archive, place / "files", has_base=False)
    except Exception as error:  # tarfile, zipfile and MONAI's own refusals differ
        raise RequestError(f"cannot extract the archive from {address}: {_reason(error)}") from error


@contextmanager
def _told_once() -> Iterator[None]:
    """What MONAI logs of a failure is raised too, and told as one sentence; that a bar needs tqdm is no news."""
    logger = logging.getLogger("monai.apps")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="tqdm is not installed")
            yield
    finally:
        logger.setLevel(before)


def _reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "reason", None) or error).split())[:300] or type(error).__name__
