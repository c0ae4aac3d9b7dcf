"""The series in trees of DICOM files, and those among them that are to be segmented."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarevox.pipeline.data.formats import is_volume_name
from rarevox.pipeline.data.scans import FAILED, IGNORED, Survey, unusable
from rarevox.pipeline.dicom.rules import Rule, Series, orientation_of
from rarevox.transforms.dicom import is_dicom_file, series_files
from rarevox.transforms.reading.quiet import quietly

_TAGS = (
    *("SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality", "SeriesDescription", "SeriesNumber"),
    *("ImageOrientationPatient", "NumberOfFrames", "Rows", "SharedFunctionalGroupsSequence"),
)


@dataclass(frozen=True)
class Chosen:
    """A scan: its name as yet, its series, one for each channel."""

    case: str
    series: tuple[Series, ...]


def survey_series(paths: Iterable[str | Path], rules: Sequence[Rule], links: Path) -> Survey:
    """The scans that rules choose of the series at the places named; see :func:`rarevox.pipeline.data.scans.survey`.

    With one rule, each series that fits is a scan. With several, one for each channel, a scan is a study: of each rule
    the one series that fits, which must be one. A series that shares its folder with others is given a folder of its
    own in ``links``, of symbolic links to its files. Volumes of other formats beside the series are ``ignored``.

    A scan is called like its folder, with the path from the place that was named before it, and ``_sNUMBER`` after it
    where the folder holds several series; a study like the folder that holds all its series.

    Args:
        paths: folders, or files of several frames.
        rules: one, or one for each channel.
        links: a folder for links; made when it is needed.
    """
    named = tuple(Path(path) for path in paths)
    survey = Survey(named=named)
    chosen: list[Chosen] = []
    for path in named:
        fault = unusable(path)
        if fault:
            survey.left.append(_left(path.name or str(path), path, FAILED, f"{path} {fault}"))
            continue
        places, volumes = _looked_through(path, links.parent)
        found = [one for place in places for one in series_in(place)]
        if not found:
            survey.left.append(_left(path.resolve().name, path, FAILED, f"{path} holds no DICOM images"))
            continue
        chosen += (_each if len(rules) == 1 else _by_study)(found, path, rules, survey.left)
        survey.left += [_of_another_format(file, path) for file in volumes]
    taken: dict[str, int] = {}
    for one in chosen:
        taken[one.case] = number = taken.get(one.case, 0) + 1
        case = one.case if number == 1 else f"{one.case}_{number}"
        images = [
            str(_place(series, links / (case if len(rules) == 1 else f"{case}_{channel}")))
            for channel, series in enumerate(one.series)
        ]
        survey.scans.append({"case": case, "image": images if len(images) > 1 else images[0]})
    return survey


def series_in(folder: Path) -> list[Series]:
    """The series of images among the files of a folder (or of one file), by number and UID; other objects are none."""
    from pydicom import dcmread

    files = series_files(folder) if folder.is_dir() else [folder]
    found: dict[str, list[tuple[Path, Any]]] = {}
    with quietly():
        for file in files:
            try:
                data = dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
                uid = str(data.get("SeriesInstanceUID", ""))
                image = "Rows" in data and not str(data.get("SOPClassUID", "")).startswith(_OTHERS)
            except Exception:  # damaged: the reader says so of the series that it seems to be of
                continue
            if image and uid:
                found.setdefault(uid, []).append((file, data))
    several = [_series(uid, members) for uid, members in found.items()]
    return sorted(several, key=lambda one: (one.number is None, one.number or 0, one.uid))


_SHOWN = 5
"""Series whose reasons are told."""
_OTHERS = ("1.2.840.10008.5.1.4.1.1.66", "1.2.840.10008.5.1.4.1.1.481", "1.2.840.10008.5.1.4.1.1.11.")
"""SOP classes of what has rows and is no image: segmentations, radiotherapy's objects, presentation states."""


def _series(uid: str, members: Sequence[tuple[Path, Any]]) -> Series:
    first = members[0][1]
    frames = sum(int(data.get("NumberOfFrames") or 1) for _, data in members)
    number = first.get("SeriesNumber")
    return Series(
        tuple(file for file, _ in members),
        uid,
        str(first.get("StudyInstanceUID", "")),
        str(first.get("Modality", "") or ""),
        str(first.get("SeriesDescription", "") or ""),
        None if number is None else int(number),
        _orientation(first),
        frames,
    )


def _orientation(data: Any) -> str:
    directions = data.get("ImageOrientationPatient")
    if directions is None:
        try:
            shared = data.SharedFunctionalGroupsSequence[0]
            directions = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        except (AttributeError, IndexError):
            return ""
    return orientation_of(directions) if len(directions) == 6 else ""


def _looked_through(path: Path, output: Path) -> tuple[list[Path], list[Path]]:
    """The folder and all in it that hold DICOM, and files that are called like scans of other formats.

    Hidden ones and the folder of results are passed over, links to folders not followed. A file is taken as it is.
    """
    if not path.is_dir():
        return [path], []
    places, volumes, results = [], [], output.resolve()  # either may be named from the working directory
    for place, inner, files in os.walk(path):
        kept = (name for name in inner if not name.startswith("."))
        inner[:] = sorted(name for name in kept if (Path(place) / name).resolve() != results)
        if any(is_dicom_file(Path(place) / name) for name in files if not name.startswith(".")):
            places.append(Path(place))
        volumes += [Path(place) / name for name in sorted(files) if is_volume_name(name)]
    return places, volumes


def _of_another_format(file: Path, named: Path) -> dict[str, Any]:
    reason = f"{file} is no DICOM, and --series looks for series alone; name it in a call without --series"
    # With its suffix: the series in a folder of that name is another scan.
    return _left("_".join(file.relative_to(named).parts), file, IGNORED, reason)


def _each(found: Sequence[Series], path: Path, rules: Sequence[Rule], left: list[dict[str, Any]]) -> Iterator[Chosen]:
    """Each series that fits the one rule. Others were not asked for; where none fits, a row tells why."""
    inside = Counter(one.files[0].parent for one in found)
    against = {series.uid: rules[0].against(series) for series in found}
    if all(against.values()):
        told = "; ".join(f"series {_number(one)}: {against[one.uid]}" for one in found[:_SHOWN])
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        reason = f"none of the {len(found)} series in {path} fits --series ({told}{more})"
        left.append(_left(path.resolve().name, path, FAILED, reason))
    for series in found:
        alone = inside[series.files[0].parent] == 1
        case = _name(series.files[0].parent if path.is_dir() else series.files[0], path)
        case = case if alone else f"{case}_s{series.number if series.number is not None else series.uid[-6:]}"
        if not against[series.uid]:
            yield Chosen(case, (series,))


def _by_study(
    found: Sequence[Series], path: Path, rules: Sequence[Rule], left: list[dict[str, Any]]
) -> Iterator[Chosen]:
    """Each study with its series for the rules."""
    studies: dict[str, list[Series]] = {}
    for series in found:
        studies.setdefault(series.study, []).append(series)
    for several in studies.values():
        place = Path(os.path.commonpath([one.files[0].parent for one in several]))
        case = _name(place, path)
        fitting = [[one for one in several if not rule.against(one)] for rule in rules]
        faults = [
            f"{len(fits) or 'no'} series fit{'' if len(fits) != 1 else 's'} --series number {n}{_numbers(fits)}"
            for n, fits in enumerate(fitting, start=1)
            if len(fits) != 1
        ]
        if faults:
            told = f"of the {len(several)} series of a study in {place}, {'; '.join(faults)}"
            left.append(_left(case, place, FAILED, f"{told}; make the rules narrower or wider"))
        else:
            yield Chosen(case, tuple(fits[0] for fits in fitting))


def _numbers(several: Sequence[Series]) -> str:
    return f" (series {', '.join(map(_number, several))})" if several else ""


def _number(series: Series) -> str:
    return "without a number" if series.number is None else str(series.number)


def _name(place: Path, named: Path) -> str:
    parts = place.relative_to(named).parts
    return "_".join(parts) or (place.resolve().name if place.is_dir() else place.stem)


def _place(series: Series, own: Path) -> Path:
    """A folder that holds this series alone, or its one file of frames."""
    folder = series.files[0].parent
    if len(series.files) == 1 and series.slices > 1:
        return series.files[0]
    if set(series.files) == set(series_files(folder)):
        return folder
    own.mkdir(parents=True, exist_ok=True)
    wanted = {f"{number:06}.dcm": file.resolve() for number, file in enumerate(series.files, start=1)}
    for link in own.iterdir():
        if link.name not in wanted or link.resolve() != wanted[link.name]:
            link.unlink()
    for name, file in wanted.items():
        if not (own / name).is_symlink():
            with suppress(FileExistsError):  # another call chooses at the same time
                (own / name).symlink_to(file)
    return own


def _left(case: str, path: Path, status: str, reason: str) -> dict[str, Any]:
    return {"case": case, "image": str(path), "status": status, "reason": reason}
