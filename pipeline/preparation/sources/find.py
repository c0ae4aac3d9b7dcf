"""Finding the cases of a source, whatever its layout: recognised by looking, or as the options say."""

from __future__ import annotations

import re
from pathlib import Path

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.cases import Source
from rarevox.pipeline.preparation.sources.lists import read_dataset_json, read_table
from rarevox.pipeline.preparation.sources.pairs import pair_folders
from rarevox.pipeline.preparation.sources.subjects import is_bids, read_subjects

_KNOWN_PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"), ("image", "label"), ("Images", "Labels"))


def find_cases(
    source: Path,
    *,
    channels: dict[str, str] | None = None,
    label: str | None = None,
    mask: str | None = None,
    images: str | None = None,
    labels: str | None = None,
    subject: str | None = None,
) -> Source:
    """The cases at ``source``. No voxel is read.

    In this order: ``channels`` and ``label`` ask for a folder per subject (or BIDS); ``images`` and ``labels`` for two
    parallel folders, relative to ``source`` or absolute; else a CSV or JSON file is a table, a ``dataset.json`` makes
    a Decathlon or nnU-Net folder, and two subfolders such as ``images`` and ``labels`` are parallel folders.

    Raises:
        RequestError: nothing there, a layout that is not recognised, options that do not go together, or a pattern of
            subjects that is none, or is found in no case's name.
    """
    try:
        pattern = re.compile(subject or "")
    except re.error as error:
        raise RequestError(f"--subject {subject} is no regular expression: {error}") from error
    found = _found(source, channels, label, mask, images, labels, subject)
    if found.cases and not any(pattern.search(case.case) for case in found.cases):
        raise RequestError(
            f"--subject {subject} is found in no case's name, such as {found.cases[0].case}; capitals count"
        )
    return found


def _found(
    source: Path,
    channels: dict[str, str] | None,
    label: str | None,
    mask: str | None,
    images: str | None,
    labels: str | None,
    subject: str | None,
) -> Source:
    source = Path(source).expanduser()
    if not source.exists():
        raise RequestError(f"{source} does not exist; give the folder (or the CSV or JSON list) that holds the scans")
    source = source.resolve()
    _require_whole_options(channels, label, mask, images, labels)
    if not (source.is_file() or source.is_dir()):
        raise RequestError(
            f"{source} is a pipe or a device; expected a folder of scans, or a .csv or .json list of cases"
        )
    if source.is_file():
        given = {"--channel": channels, "--label": label, "--mask": mask, "--images": images, "--labels": labels}
        if unused := [option for option, value in given.items() if value]:
            raise RequestError(f"{', '.join(unused)}: {source} is a table, whose columns say which file is what")
        return read_table(_require_table(source), subject)
    if channels and label:
        return read_subjects(source, channels, label, mask=mask, subject=subject)
    if images and labels:
        return pair_folders(
            source, source / Path(images).expanduser(), source / Path(labels).expanduser(), subject=subject
        )
    if (source / "dataset.json").is_file():
        return read_dataset_json(source, subject)
    for left, right in _KNOWN_PAIRS:
        if (source / left).is_dir() and (source / right).is_dir():
            return pair_folders(source, source / left, source / right, subject=subject)
    if is_bids(source):
        raise RequestError(
            f"{source} is a BIDS dataset; say which files to use, for example "
            "--channel FLAIR='*_FLAIR.nii.gz' --label '*_dseg.nii.gz'"
        )
    raise RequestError(
        f"cannot tell how {source} is laid out. For a folder per subject add --channel NAME=PATTERN (for each channel) "
        "and --label PATTERN; for two folders --images DIR --labels DIR; a Decathlon or nnU-Net folder has a "
        f"dataset.json. Found: {_contents(source)}"
    )


def _require_whole_options(
    channels: dict[str, str] | None, label: str | None, mask: str | None, images: str | None, labels: str | None
) -> None:
    if bool(channels) != bool(label):
        given, needed = ("--channel", "--label PATTERN") if channels else ("--label", "--channel NAME=PATTERN")
        raise RequestError(f"{given} needs {needed} beside it, so that each subject has an image and a label")
    if bool(images) != bool(labels):
        given, needed = ("--images", "--labels DIR") if images else ("--labels", "--images DIR")
        raise RequestError(f"{given} needs {needed} beside it")
    if channels and images:
        raise RequestError("--channel and --images describe two different layouts; use one of them")
    if mask and not channels:
        raise RequestError("--mask is a pattern for a folder per subject; give --channel and --label as well")


def _require_table(source: Path) -> Path:
    if source.suffix.lower() not in (".csv", ".json"):
        raise RequestError(f"{source} is a file; expected a folder of scans, or a .csv or .json list of cases")
    return source


def _contents(folder: Path) -> str:
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "nothing"
