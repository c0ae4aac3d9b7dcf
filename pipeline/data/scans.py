"""What there is to segment at the places that a request names: every entry a scan, or a row that says why not."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rarevox.pipeline.data.formats import SUFFIXES, is_volume_name, stem
from rarevox.pipeline.data.grouping import NamedGroup, Rule, group_names
from rarevox.pipeline.errors import RequestError
from rarevox.transforms.dicom import holds_series
from rarevox.transforms.reading.stand_ins import MISSING

FAILED, IGNORED = "failed", "ignored"
DEEPEST = 64
"""Folders within folders; deeper ones are told and not entered."""
MOST_NAMED = 5
"""Files that a reason names."""


@dataclass
class Survey:
    """What was found.

    Attributes:
        scans: entries of a data list, ``{"case", "image"}``.
        left: rows of what is no scan: ``case``, ``image``, ``status`` (``failed`` for what was named, or is called like
            a scan; ``ignored`` for other entries of folders) and ``reason``.
        named: the places that were named.
    """

    scans: list[dict[str, Any]] = field(default_factory=list)
    left: list[dict[str, Any]] = field(default_factory=list)
    named: tuple[Path, ...] = ()


def survey(
    paths: Iterable[str | Path],
    channels: Sequence[str] = ("image",),
    rule: Rule | None = None,
    optional: Sequence[str] = (),
) -> Survey:
    """The scans at the places named.

    A file is one scan (4D files hold the channels). A folder, and every folder in it, holds the scans that its volume
    files make up (:func:`rarevox.pipeline.data.grouping.group`), and one more where DICOM files lie in it. Hidden
    entries and files of other kinds (texts, tables, pictures) are passed over.

    A scan is called like its file or files without what numbers or names the channels; a DICOM series, and a case that
    is a folder with a file for each channel, like the folder. In folders of a named folder the path from there comes
    first: ``s0000/ct.nii.gz`` is ``s0000_ct``. Scans at several named places that would be called the same have as much
    of their path before the name as tells them apart.

    Args:
        paths: files and folders.
        channels: names of the network's channels.
        rule: how the files of a run's training cases were told apart, its ``channel_files``.
        optional: names of channels that a scan in a file for each may lack; its entry names them as
            ``missing_channels``.
    """
    named = tuple(Path(path) for path in paths)
    walk = _Walk(channels, rule, optional)
    files: dict[str, list[str]] = {}
    for path in named:
        mode, fault = _mode(path)
        if fault:
            walk.leave(stem(path) or str(path), str(path), FAILED, f"{path} {fault}")
        elif stat.S_ISDIR(mode):
            if not walk.enter(str(path), (), ()):
                walk.leave(path.resolve().name, str(path), FAILED, f"no scans in {path}; {_EXPECTED}")
        else:
            folder, name = os.path.split(str(path))
            files.setdefault(folder, []).append(name)
    for folder, several in files.items():
        for name, times in Counter(several).items():
            file = _joined(folder, name)
            for _ in range(times - 1):
                walk.leave(stem(name), file, IGNORED, f"{file} is named twice; it is segmented once")
        walk.add_groups(
            folder, (), group_names(dict.fromkeys(several), channels, rule, by_name=False, optional=optional)
        )
    walk.may_meet = walk.may_meet or len(named) > 1
    return Survey(*_with_names(walk), named)


def require_scans(found: Survey) -> list[dict[str, Any]]:
    """The scans, where there are any.

    Raises:
        RequestError: there are none; of several reasons the first, with its case and where that lies.
    """
    if found.scans:
        return found.scans
    if found.left:
        first = found.left[0]
        place = str(first["image"])
        where = "" if place in first["reason"] else f"{first['case']} ({place}): "
        more = f" (and {len(found.left) - 1} more such)" if len(found.left) > 1 else ""
        within = f" in {found.named[0]}" if len(found.named) == 1 and more else ""
        raise RequestError(f"nothing to segment{within}: {where}{first['reason']}{more}")
    raise RequestError(f"no scans in {', '.join(map(str, found.named))}; {_EXPECTED}")


_EXPECTED = f"expected files ending in {', '.join(SUFFIXES)} or DICOM series"
_KINDS = ((stat.S_ISFIFO, "named pipe"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "device"), (stat.S_ISBLK, "device"))


def unusable(path: Path) -> str:
    """Why there is neither a file nor a folder at a path, to follow its name; else nothing. It is not opened."""
    return _mode(path)[1]


def _mode(path: Path) -> tuple[int, str]:
    """What is at a path, as the system tells, and why that is neither a file nor a folder."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return 0, "is a link to what does not exist" if path.is_symlink() else "does not exist"
    except PermissionError:
        return 0, "may not be read: permission denied"
    except (OSError, ValueError) as error:
        return 0, f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return mode, ""
    return mode, f"is a {next((name for is_kind, name in _KINDS if is_kind(mode)), 'special file')}, no scan"


class _Found(NamedTuple):
    """A scan: its name as yet, where it lies, the folder and the names of its files (of a series none), the channels
    that it lacks."""

    case: str
    place: str
    folder: str
    names: tuple[str, ...]
    missing: tuple[str, ...] = ()

    @property
    def files(self) -> list[str]:
        """The paths of its files; the folder where it is a series."""
        return [_joined(self.folder, name) for name in self.names] or [self.folder]


class _Walk:
    """Gathers scans and rows from folders, with one look at each entry.

    ``may_meet`` tells whether one file could have been met on two ways: by a link, or below two of the named places.
    """

    def __init__(self, channels: Sequence[str], rule: Rule | None, optional: Sequence[str]) -> None:
        self.channels, self.rule, self.optional = channels, rule, optional
        self.found: list[_Found] = []
        self.left: list[dict[str, Any]] = []
        self.may_meet = False

    def leave(self, case: str, path: str, status: str, reason: str) -> None:
        """A row of what is no scan."""
        self.left.append({"case": case, "image": path, "status": status, "reason": reason})

    def enter(self, folder: str, within: tuple[str, ...], above: tuple[tuple[int, int], ...]) -> bool:
        """Whether the folder, or one in it, held a scan or something to tell.

        Args:
            folder: an existing one.
            within: the path to it from the folder named.
            above: the folders that lead here, by device and number.
        """
        before = len(self.found) + len(self.left)
        case = "_".join(within) or Path(folder).resolve().name
        try:
            with os.scandir(folder) as listed:
                entries = sorted((one for one in listed if not one.name.startswith(".")), key=lambda one: one.name)
            here = os.stat(folder)
        except OSError as error:
            self.leave(case, folder, FAILED, f"{folder} cannot be read: {error.strerror or error}")
            return True
        itself = (here.st_dev, here.st_ino)
        if itself in above or len(above) >= DEEPEST:
            what = "leads back to a folder above it" if itself in above else f"lies more than {DEEPEST} folders deep"
            self.leave(case, folder, IGNORED, f"{folder} {what}; name it itself to have it segmented")
            return True
        folders, volumes, others = self._sorted_out(folder, within, entries)
        found_groups = group_names(volumes, self.channels, self.rule, folder=folder, optional=self.optional)
        self.add_groups(folder, within, found_groups)
        if holds_series(Path(folder) / name for name in others):
            self.found.append(_Found(case, folder, folder, ()))
        for name in folders:
            inner, path = (*within, name), _joined(folder, name)
            if not self.enter(path, inner, (*above, itself)):
                status = FAILED if is_volume_name(name) else IGNORED
                self.leave("_".join(inner), path, status, f"no scans in {path}")
        return len(self.found) + len(self.left) > before

    def _sorted_out(
        self, folder: str, within: tuple[str, ...], entries: Iterable[os.DirEntry[str]]
    ) -> tuple[list[str], list[str], list[str]]:
        """The names of folders, volumes and other files. What a listing tells of an entry is not asked for again."""
        folders: list[str] = []
        volumes: list[str] = []
        others: list[str] = []
        for entry in entries:
            name = entry.name
            if entry.is_file(follow_symlinks=False):
                (volumes if is_volume_name(name) else others).append(name)
                continue
            fault = "" if entry.is_dir(follow_symlinks=False) else unusable(Path(entry.path))
            self.may_meet = self.may_meet or entry.is_symlink()
            if fault:
                status = FAILED if is_volume_name(name) else IGNORED
                path = _joined(folder, name)
                self.leave("_".join((*within, stem(name))), path, status, f"{path} {fault}")
            elif entry.is_dir():
                folders.append(name)
            else:
                (volumes if is_volume_name(name) else others).append(name)
        return folders, volumes, others

    def add_groups(self, folder: str, within: tuple[str, ...], groups: Iterable[NamedGroup]) -> None:
        """The cases of one folder's files."""
        for one in groups:
            case = "_".join((*within, one.name) if one.name else within) or Path(folder).resolve().name
            if one.fault:
                self.leave(case, _joined(folder, one.files[0]), FAILED, one.fault)
            else:
                place = _joined(folder, one.name) if one.name else folder
                self.found.append(_Found(case, place, folder, one.files, one.missing))


def _joined(folder: str, name: str) -> str:
    """A path as pathlib would write it."""
    return name if folder in ("", ".") else os.path.join(folder, name)


def _with_names(walk: _Walk) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Entries with a name each of its own, and the rows; what is there twice, or cannot be told apart, is a row."""
    found = _once(walk) if walk.may_meet else walk.found
    walk.found = []
    times = Counter(one.case for one in found)
    again: dict[str, list[_Found]] = {}
    for one in found:
        if times[one.case] > 1:
            again.setdefault(one.case, []).append(one)
    renamed = {id(one): name for several in again.values() for name, one in _told_apart(several)}
    final = Counter(renamed.get(id(one), one.case) for one in found)
    same: dict[str, list[_Found]] = {}
    scans = []
    for one in found:
        name = renamed.get(id(one), one.case)
        if final[name] > 1:
            same.setdefault(name, []).append(one)
            continue
        image = one.files
        lacks = {MISSING: list(one.missing)} if one.missing else {}
        scans.append({"case": name, "image": image if len(image) > 1 or lacks else image[0], **lacks})
    for name, several in same.items():
        files = ", ".join(one.files[0] for one in several[:MOST_NAMED])
        files += f" and {len(several) - MOST_NAMED} more" if len(several) > MOST_NAMED else ""
        for one in several:
            walk.leave(name, one.files[0], FAILED, f"two scans are called {name}: {files}; rename one of them")
    return scans, walk.left


def _once(walk: _Walk) -> list[_Found]:
    """What was found, without what was met before by another way."""
    folders: dict[str, str] = {}
    met: set[tuple[str, ...]] = set()
    found = []
    for one in walk.found:
        if one.folder not in folders:
            folders[one.folder] = _resolved(one.folder or ".")
        real = folders[one.folder]
        paths = [(file, _joined(real, name)) for file, name in zip(one.files, one.names, strict=False)]
        key = tuple(_resolved(file) if os.path.islink(file) else path for file, path in paths) or (real,)
        if key in met:
            walk.leave(one.case, one.files[0], IGNORED, f"{one.files[0]} is named twice; it is segmented once")
            continue
        met.add(key)
        found.append(one)
    return found


def _told_apart(several: list[_Found]) -> list[tuple[str, _Found]]:
    """Their names below the folder that holds all of them, where that tells them apart."""
    places = [Path(one.place).absolute() for one in several]
    if len(set(places)) < len(places) or len(places) == 1:
        return [(one.case, one) for one in several]
    common = Path(os.path.commonpath([place.parent for place in places]))
    return [("_".join(place.relative_to(common).parts), one) for place, one in zip(places, several, strict=True)]


def _resolved(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, RuntimeError, ValueError):
        return os.path.abspath(path)
