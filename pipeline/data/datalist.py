"""The data lists that configurations name: a section of a prepared dataset, scans that lie in files and folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.formats import SUFFIXES, is_volume, stem
from rarevox.pipeline.errors import RequestError
from rarevox.transforms.dicom import is_dicom_folder


def section(
    dataset: str | Path, section: str, *, fold: int = 0, reference_key: str | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """The cases of a section, with absolute file names.

    Args:
        dataset: the folder that ``rarevox prepare`` wrote.
        section: ``train``, ``validation``, ``training`` (both) or ``test``.
        fold: which fold validates.
        reference_key: moves the label's file name to this key, where the preprocessing leaves it alone; for evaluation
            against the file as it is.
        limit: at most so many cases, evenly picked from the list.
    """
    cases = Dataset.load(dataset).section(section, fold=fold)
    if limit is not None and len(cases) > limit:
        cases = [cases[(i * len(cases)) // limit] for i in range(limit)]
    if reference_key is None:
        return cases
    return [{(reference_key if key == "label" else key): value for key, value in case.items()} for case in cases]


def is_uncorrected(dataset: str | Path) -> bool:
    """Whether a dataset's scans have their bias field still, as all have that were prepared without ``--n4``."""
    return not Dataset.load(dataset).n4


def find_scans(
    paths: str | Path | Sequence[str | Path],
    channels: Sequence[str] = ("image",),
    masks: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Scans to segment, each ``{"case", "image"}``, with ``"mask"`` where masks are given.

    A file is one scan (4D files hold the channels). A folder holds, in this order of recognition: one scan for each
    file with a known suffix; where the network has several channels, files ``CASE_0000``, ``CASE_0001`` … are grouped;
    one scan for each sub-folder with a file for each channel (its name holds the channel's name); a DICOM series in
    the folder itself or in each sub-folder.

    Args:
        paths: a file, a folder or a list of them; a list counts each element by itself.
        channels: names of the network's channels.
        masks: a folder, searched with its sub-folders, for the masks for normalisation: a file called CASE, or
            ``CASE_…mask…``, or with ``mask`` in its name in a sub-folder CASE. A scan for which there is no such file,
            or are several, stays without a mask.

    Raises:
        RequestError: a path does not exist, nothing is found, or two scans have the same name.
    """
    listed = [paths] if isinstance(paths, (str, Path)) else list(paths)
    found: list[dict[str, Any]] = []
    for path in map(Path, listed):
        if not path.exists():
            raise RequestError(f"{path} does not exist; give scans or folders of scans")
        found.extend(_in_folder(path, list(channels)) if path.is_dir() else [{"case": stem(path), "image": str(path)}])
    if not found:
        raise RequestError(
            f"no scans in {', '.join(map(str, listed))}; expected files ending in {', '.join(SUFFIXES)} or DICOM series"
        )
    names = [scan["case"] for scan in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(
            f"two scans are called {', '.join(twice[:5])}; rename them, since outputs are named after scans"
        )
    return found if masks is None else with_masks(found, masks)


def with_masks(scans: list[dict[str, Any]], masks: str | Path, key: str = "mask") -> list[dict[str, Any]]:
    """The scans, each with the one file of a folder that is called like it; see :func:`find_scans`.

    Args:
        scans: entries with ``case``.
        masks: the folder; or one file, which then is that of every scan.
        key: where its name goes.

    Raises:
        RequestError: no such folder or file, or no masks in it.
    """
    folder = Path(masks)
    if folder.is_file():
        return [{**scan, key: str(folder)} for scan in scans]
    files = [file for file in sorted(folder.rglob("*")) if is_volume(file)]
    if not files:
        raise RequestError(f"no masks in {folder}; expected files called CASE or CASE_mask (.nii.gz …)")
    scans = [dict(scan) for scan in scans]
    for scan in scans:
        case = scan["case"]
        marked = [file for file in files if "mask" in stem(file).lower()]
        for found in (
            [file for file in files if stem(file) == case],
            [file for file in marked if stem(file).startswith(f"{case}_")],
            [file for file in marked if file.parent.name == case],
        ):
            if len(found) == 1:
                scan[key] = str(found[0])
                break
    return scans


def _in_folder(folder: Path, channels: list[str]) -> list[dict[str, Any]]:
    """The scans of one folder; the rule is :func:`find_scans`'s."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    files = [entry for entry in entries if entry.is_file() and is_volume(entry)]
    if files and len(channels) > 1:
        by_channel = _channel_files(files, channels)
        if by_channel:
            return [{"case": folder.name, "image": by_channel}]
    if files:
        return _grouped(files, len(channels))
    if is_dicom_folder(folder):
        return [{"case": folder.name, "image": str(folder)}]
    return [scan for entry in entries if entry.is_dir() for scan in _in_folder(entry, channels)]


def _grouped(files: list[Path], channels: int) -> list[dict[str, Any]]:
    """One scan a file, or one for each CASE of files CASE_0000 … CASE_000n."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        name = stem(file)
        numbered = len(name) > 5 and name[-5] == "_" and name[-4:].isdigit()
        groups.setdefault(name[:-5] if numbered else name, []).append(file)
    if any(len(group) not in (1, channels) for group in groups.values()):
        return [{"case": stem(file), "image": str(file)} for file in files]
    return [
        {"case": case, "image": [str(f) for f in group] if len(group) > 1 else str(group[0])}
        for case, group in groups.items()
    ]


def _channel_files(files: list[Path], channels: list[str]) -> list[str] | None:
    """One file for each channel, in their order, if each channel's name is in exactly one file name."""
    chosen = [[file for file in files if channel.lower() in stem(file).lower()] for channel in channels]
    exact = all(len(candidates) == 1 for candidates in chosen)
    return [str(candidates[0]) for candidates in chosen] if exact else None
