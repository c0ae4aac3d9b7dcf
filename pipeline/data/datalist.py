"""The data lists that configurations name: a section of a prepared dataset, scans that lie in files and folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rarevox.pipeline.console import console
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.formats import is_volume, stem
from rarevox.pipeline.data.grouping import Rule
from rarevox.pipeline.data.scans import require_scans, survey
from rarevox.pipeline.errors import RequestError
from rarevox.transforms.reading.stand_ins import with_stand_ins


def section(
    dataset: str | Path,
    section: str,
    *,
    fold: int | str = 0,
    reference_key: str | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """The cases of a section, with absolute file names.

    Args:
        dataset: the folder that ``rarevox prepare`` wrote.
        section: ``train``, ``validation``, ``training`` (both) or ``test``.
        fold: which fold validates; ``all``: none does.
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
    rule: Rule | None = None,
    optional: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Scans to segment, each ``{"case", "image"}``, with ``"mask"`` where masks are given; see
    :func:`rarevox.pipeline.data.scans.survey` for what is a scan and what it is called.

    Args:
        paths: a file, a folder or a list of them.
        channels: names of the network's channels.
        masks: a folder, searched with its sub-folders, for the masks for normalisation: a file called CASE, or
            ``CASE_…mask…``, or with ``mask`` in its name in a sub-folder CASE. A scan for which there is no such file,
            or are several, stays without a mask.
        rule: how the files of a run's training cases were told apart, its ``channel_files``.
        optional: names of channels that a scan may lack; see
            :func:`rarevox.transforms.reading.stand_ins.with_stand_ins` for what is read in their place.

    What is no scan is told on screen, and left out.

    Raises:
        RequestError: nothing is found.
    """
    found = survey([paths] if isinstance(paths, (str, Path)) else list(paths), channels, rule, optional)
    for row in found.left:
        console.print(f"{row['status']} {row['case']}: {row['reason']}", markup=False)
    scans = [with_stand_ins(scan, channels) for scan in require_scans(found)]
    return scans if masks is None else with_masks(scans, masks)


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
    by_stem: dict[str, list[Path]] = {}
    below: dict[str, list[Path]] = {}
    begins: dict[str, list[Path]] = {}
    known = {scan["case"] for scan in scans}
    within: dict[str, list[Path]] = {}
    for file in files:
        name = stem(file)
        by_stem.setdefault(name, []).append(file)
        below.setdefault("_".join((*file.relative_to(folder).parent.parts, name)), []).append(file)
        if "mask" in name.lower():
            within.setdefault(file.parent.name, []).append(file)
            # Of scans ms_14 and ms_14_time2 the mask ms_14_time2_mask is the second's alone.
            starts = (name[:at] for at, sign in reversed(list(enumerate(name))) if sign == "_")
            begins.setdefault(next((start for start in starts if start in known), ""), []).append(file)
    scans = [dict(scan) for scan in scans]
    for scan in scans:
        for place in (by_stem, below, begins, within):
            found = place.get(scan["case"], [])
            if len(found) == 1:
                scan[key] = str(found[0])
                break
    return scans
