"""Sources with a folder for each subject: plain ones and BIDS; patterns say which file is which."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from rarevox.pipeline.data.formats import volumes_in
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.cases import THERE, Case, Fault, Source, named_subject
from rarevox.pipeline.preparation.checks.catalogue import fault
from rarevox.pipeline.words import listed

_ENTITY = re.compile(r"(?<![^/_])(sub|ses)-([^/_]+)")  # at the beginning of a part: no derivatives/metastases-manual


def read_subjects(
    root: Path,
    channels: dict[str, str],
    label: str,
    *,
    mask: str | None = None,
    subject: str | None = None,
) -> Source:
    """One folder per subject under ``root``; each pattern must match exactly one volume of each subject.

    Patterns are shell patterns (``*``, ``?``, ``[…]``; case counts) on the file's name, or on its path within the
    subject's folder where they hold a ``/``. A folder without any volume in it is no subject. In a BIDS dataset
    (``dataset_description.json``), the cases are the sessions of the subjects; channels are looked for in the raw data,
    then in ``derivatives``, and label and mask in ``derivatives`` first.

    Args:
        root: the folder of the subjects' folders.
        channels: channel name to pattern, in the order in which the network will see them.
        label: the label's pattern.
        mask: the pattern of a region-of-interest mask, if there is one.
        subject: a regular expression that finds the subject in the case's name (for splits); see ``named_subject``.

    Raises:
        RequestError: no subject's files match any pattern.
    """
    bids = is_bids(root)
    groups = _bids_groups(root) if bids else _folder_groups(root)
    wanted = {**channels, "label": label, **({"mask": mask} if mask else {})}
    if not any(_matches(files, pattern) for files in groups.values() for pattern in wanted.values()):
        example = next((files for files in groups.values() if files), [])
        seen = ", ".join(within for within, _ in example[:6])
        hint = next((hint for pattern in wanted.values() if (hint := _in_other_case(example, pattern))), "")
        if not any(groups.values()):
            raise RequestError(f"{root} has no folder with volumes in it; give that which holds one for each subject")
        raise RequestError(f"no file under {root} matches the patterns{hint}; the first subject holds: {seen}")
    cases, faults = [], []
    for name, files in groups.items():
        if not files:
            continue
        chosen, found_faults = _choose(name, files, channels, wanted, bids)
        faults.extend(found_faults)
        if not found_faults:
            image = tuple(chosen[channel] for channel in channels)
            cases.append(Case(name, image, chosen["label"], chosen.get("mask"), named_subject(name, subject)))
    patterns = tuple(channels.values())
    kind = "BIDS dataset" if bids else "folder per subject"
    return Source(root.name, root, tuple(channels), None, tuple(cases), tuple(faults), kind, channel_files=patterns)


def is_bids(root: Path) -> bool:
    """Whether the folder declares itself a BIDS dataset."""
    return (root / "dataset_description.json").is_file()


_Files = list[tuple[str, Path]]  # a path within the subject's folder, and the file


def _folder_groups(root: Path) -> dict[str, _Files]:
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return {
        folder.name: [(path.relative_to(folder).as_posix(), path) for path in volumes_in(folder, deep=True)]
        for folder in folders
    }


def _bids_groups(root: Path) -> dict[str, _Files]:
    """Volumes by subject and session: ``sub-01`` or ``sub-01_ses-2``, from wherever in the dataset they lie."""
    groups: dict[str, _Files] = {}
    for path in volumes_in(root, deep=True):
        within = path.relative_to(root).as_posix()
        entities = dict(_ENTITY.findall(within))
        if "sub" in entities:
            session = f"_ses-{entities['ses']}" if "ses" in entities else ""
            groups.setdefault(f"sub-{entities['sub']}{session}", []).append((within, path))
    return dict(sorted(groups.items()))


def _matches(files: Iterable[tuple[str, Path]], pattern: str) -> list[Path]:
    return [path for within, path in files if fnmatchcase(within if "/" in pattern else path.name, pattern)]


def _in_other_case(files: Iterable[tuple[str, Path]], pattern: str) -> str:
    """The file that a pattern would match if capitals did not count, to follow a message; nothing without one."""
    found = _matches([(within.lower(), path.with_name(path.name.lower())) for within, path in files], pattern.lower())
    names = {path.name.lower(): path.name for _, path in files}
    return f" (capitals count: {pattern!r} is not {names[found[0].name]})" if found else ""


def _choose(
    name: str, files: _Files, channels: dict[str, str], wanted: dict[str, str], bids: bool
) -> tuple[dict[str, Path], list[Fault]]:
    """The one file for each role, or the faults that say why there is none."""
    chosen: dict[str, Path] = {}
    faults = []
    for role, pattern in wanted.items():
        found = _matches(files, pattern)
        if bids and len(found) > 1:
            derived = {path for within, path in files if within.startswith("derivatives/")}
            found = [path for path in found if (path in derived) == (role not in channels)] or found
        if len(found) == 1:
            chosen[role] = found[0]
            continue
        what = f"channel {role}" if role in channels else role
        if found:
            several = ", ".join(path.name for path in found)
            message = f"{len(found)} files match {pattern!r} for the {what}: {several}; make the pattern narrower"
            faults.append(fault(name, "ambiguous-file", message, found[0]))
        else:
            check = "missing-channel" if role in channels else f"missing-{role}"
            there = f"{THERE}{listed([path.name for _, path in files], 5)}" if files else "; there is no volume"
            hint = _in_other_case(files, pattern)
            faults.append(fault(name, check, f"no file matches {pattern!r} for the {what}{hint}{there}"))
    return chosen, faults
