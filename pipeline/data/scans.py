"""What there is to segment at the places that a request names: every entry a scan, or a row that says why not."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rarevox.pipeline.data.formats import SUFFIXES, is_volume, stem
from rarevox.pipeline.data.grouping import Group, Rule, group
from rarevox.pipeline.errors import RequestError
from rarevox.transforms.dicom import is_dicom_folder
from rarevox.transforms.missing_channels import MISSING

FAILED, IGNORED = "failed", "ignored"
DEEPEST = 64
"""Folders within folders; deeper ones are told and not entered."""


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
    files: dict[Path, list[Path]] = {}
    for path in named:
        fault = unusable(path)
        if fault:
            walk.leave(stem(path) or str(path), path, FAILED, f"{path} {fault}")
        elif path.is_dir():
            if not walk.enter(path, (), ()):
                walk.leave(path.resolve().name, path, FAILED, f"no scans in {path}; {_EXPECTED}")
        else:
            files.setdefault(path.parent, []).append(path)
    for folder, several in files.items():
        unique = list(dict.fromkeys(several))
        for path in unique:
            for _ in range(several.count(path) - 1):
                walk.leave(stem(path), path, IGNORED, f"{path} is named twice; it is segmented once")
        walk.add_groups(folder, (), group(unique, channels, rule, by_name=False, optional=optional))
    return Survey(*_with_names(walk), named)


def require_scans(found: Survey) -> list[dict[str, Any]]:
    """The scans, where there are any.

    Raises:
        RequestError: there are none; of several reasons the first.
    """
    if found.scans:
        return found.scans
    if found.left:
        more = f" (and {len(found.left) - 1} more such)" if len(found.left) > 1 else ""
        raise RequestError(f"nothing to segment: {found.left[0]['reason']}{more}")
    raise RequestError(f"no scans in {', '.join(map(str, found.named))}; {_EXPECTED}")


_EXPECTED = f"expected files ending in {', '.join(SUFFIXES)} or DICOM series"
_KINDS = ((stat.S_ISFIFO, "named pipe"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "device"), (stat.S_ISBLK, "device"))


def unusable(path: Path) -> str:
    """Why there is neither a file nor a folder at a path, to follow its name; else nothing. It is not opened."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to what does not exist" if path.is_symlink() else "does not exist"
    except PermissionError:
        return "may not be read: permission denied"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    return f"is a {next((name for is_kind, name in _KINDS if is_kind(mode)), 'special file')}, no scan"


@dataclass(frozen=True)
class _Found:
    """A scan: its name as yet, where it lies, its files."""

    case: str
    place: Path
    files: tuple[Path, ...]
    missing: tuple[str, ...] = ()


class _Walk:
    """Gathers scans and rows from folders."""

    def __init__(self, channels: Sequence[str], rule: Rule | None, optional: Sequence[str]) -> None:
        self.channels, self.rule, self.optional = channels, rule, optional
        self.found: list[_Found] = []
        self.left: list[dict[str, Any]] = []

    def leave(self, case: str, path: Path, status: str, reason: str) -> None:
        """A row of what is no scan."""
        self.left.append({"case": case, "image": str(path), "status": status, "reason": reason})

    def enter(self, folder: Path, within: tuple[str, ...], above: tuple[tuple[int, int], ...]) -> bool:
        """Whether the folder, or one in it, held a scan or something to tell.

        Args:
            folder: an existing one.
            within: the path to it from the folder named.
            above: the folders that lead here, by device and number.
        """
        before = len(self.found) + len(self.left)
        case = "_".join(within) or folder.resolve().name
        try:
            entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
            here = folder.stat()
        except OSError as error:
            self.leave(case, folder, FAILED, f"{folder} cannot be read: {error.strerror or error}")
            return True
        itself = (here.st_dev, here.st_ino)
        if itself in above or len(above) >= DEEPEST:
            what = "leads back to a folder above it" if itself in above else f"lies more than {DEEPEST} folders deep"
            self.leave(case, folder, IGNORED, f"{folder} {what}; name it itself to have it segmented")
            return True
        folders, volumes = [], []
        for entry in entries:
            fault = unusable(entry)
            if fault:
                status = FAILED if is_volume(entry) else IGNORED
                self.leave("_".join((*within, stem(entry))), entry, status, f"{entry} {fault}")
            elif entry.is_dir():
                folders.append(entry)
            elif is_volume(entry):
                volumes.append(entry)
        self.add_groups(folder, within, group(volumes, self.channels, self.rule, optional=self.optional))
        if is_dicom_folder(folder):
            self.found.append(_Found(case, folder, (folder,)))
        for entry in folders:
            inner = (*within, entry.name)
            if not self.enter(entry, inner, (*above, itself)):
                self.leave("_".join(inner), entry, FAILED if is_volume(entry) else IGNORED, f"no scans in {entry}")
        return len(self.found) + len(self.left) > before

    def add_groups(self, folder: Path, within: tuple[str, ...], groups: Iterable[Group]) -> None:
        """The cases of one folder's files."""
        for one in groups:
            case = "_".join((*within, one.name) if one.name else within) or folder.resolve().name
            if one.fault:
                self.leave(case, one.files[0], FAILED, one.fault)
            else:
                place = folder / one.name if one.name else folder
                self.found.append(_Found(case, place, one.files, one.missing))


def _with_names(walk: _Walk) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Entries with a name each of its own, and the rows; what is there twice, or cannot be told apart, is a row."""
    once: dict[tuple[Path, ...], _Found] = {}
    for one in walk.found:
        key = tuple(_resolved(file) for file in one.files)
        if key in once:
            walk.leave(one.case, one.files[0], IGNORED, f"{one.files[0]} is named twice; it is segmented once")
        once.setdefault(key, one)
    named = [(name, one) for several in _by_case(once.values()).values() for name, one in _told_apart(several)]
    scans = []
    final = _by_case(replace(one, case=name) for name, one in named)
    for name, several in final.items():
        if len(several) > 1:
            files = ", ".join(str(one.files[0]) for one in several)
            for one in several:
                walk.leave(name, one.files[0], FAILED, f"two scans are called {name}: {files}; rename one of them")
            continue
        image = [str(file) for file in several[0].files]
        lacks = {MISSING: list(several[0].missing)} if several[0].missing else {}
        scans.append({"case": name, "image": image if len(image) > 1 or lacks else image[0], **lacks})
    return scans, walk.left


def _by_case(found: Iterable[_Found]) -> dict[str, list[_Found]]:
    cases: dict[str, list[_Found]] = {}
    for one in found:
        cases.setdefault(one.case, []).append(one)
    return cases


def _told_apart(several: list[_Found]) -> list[tuple[str, _Found]]:
    """Their names below the folder that holds all of them, where that tells them apart."""
    places = [one.place.absolute() for one in several]
    if len(set(places)) < len(places) or len(places) == 1:
        return [(one.case, one) for one in several]
    common = Path(os.path.commonpath([place.parent for place in places]))
    return [("_".join(place.relative_to(common).parts), one) for place, one in zip(places, several, strict=True)]


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()
