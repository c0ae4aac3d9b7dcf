"""A source of two parallel folders: images in one, labels in the other, paired by name."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from pathlib import Path

from rarevox.pipeline.data.formats import stem, volumes_in
from rarevox.pipeline.data.grouping import numbered
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.cases import Case, Fault, Source, named_subject
from rarevox.pipeline.preparation.checks.catalogue import fault

_ROLE_SUFFIX = re.compile(r"[-_.](seg|segmentation|label|labels|gt|img|image|scan)$", re.IGNORECASE)


def pair_folders(
    root: Path, images: Path, labels: Path, *, subject: str | None = None, numbers: Sequence[int] = ()
) -> Source:
    """Pair the volumes of ``images`` with those of ``labels`` that bear the same name.

    Suffixes are ignored (``a.mha`` pairs with ``a.nii.gz``), and so is a last ``_seg``, ``_label``, ``_gt``, ``_image``
    or the like, unless numbered images have it too (``p1_scan`` and ``p1_scan_0000``). Four digits at the end of an
    image's name (``a_0000``, ``a_0001``) number its channel, unless a label has them in its name too (``scan_2019``).

    Args:
        root: the source.
        images: the folder of images.
        labels: the folder of labels.
        subject: a regular expression; see ``named_subject``.
        numbers: of the channels, where the source declares them; else those that at least half of the cases with
            numbers and a label have, so that one odd file breaks up nobody else's case.

    Raises:
        RequestError: a folder that is missing or holds no volumes, or channels that the source does not declare.
    """
    scans, references = _listed(images, "images"), _listed(labels, "labels")
    whole = {name for name, number in (numbered(stem(path)) for path in scans) if number is not None}
    by_label: dict[str, list[Path]] = {}
    for path in references:
        name = stem(path)
        by_label.setdefault(name if name in whole else _plain(name), []).append(path)
    by_case: dict[str, list[tuple[int | None, Path]]] = {}
    for path in scans:
        name, number = _case_and_channel(path, by_label)
        by_case.setdefault(name, []).append((number, path))
    found_numbers = _most([by_case[name] for name in by_label if name in by_case])
    if numbers and set(found_numbers) - set(numbers):
        stated, seen = (", ".join(f"_{n:04d}" for n in some) for some in (sorted(numbers), found_numbers))
        raise RequestError(
            f"{root} declares {len(numbers)} channels ({stated}), and most cases of {images} have {seen}"
        )
    numbers = sorted(numbers) or found_numbers
    cases, faults = [], []
    for name in sorted(by_case.keys() | by_label.keys()):
        found, label = sorted(by_case.get(name, []), key=lambda one: (one[0] or 0, one[1])), by_label.get(name, [])
        image = [path for _, path in found]
        wrong = _pairing_fault(name, found, label, numbers)
        if wrong:
            faults.append(wrong)
        else:
            cases.append(Case(name, tuple(image), label[0], None, named_subject(name, subject)))
    channels = tuple(f"channel_{number}" for number in numbers) if len(numbers) > 1 else None
    rule = tuple(numbers) if found_numbers else None
    kind = "folders of images and labels"
    return Source(root.name, root, channels, None, tuple(cases), tuple(faults), kind, channel_files=rule)


def _listed(folder: Path, what: str) -> list[Path]:
    if not folder.is_dir():
        raise RequestError(f"the folder of {what} {folder} does not exist; name it with --{what} DIR")
    found = list(volumes_in(folder))
    if not found:
        raise RequestError(f"{folder} holds no {what}; expected NIfTI, NRRD, MHA files or DICOM series folders")
    return found


def _most(cases: Sequence[Sequence[tuple[int | None, Path]]]) -> list[int]:
    """The numbers that at least half of the cases with numbers have."""
    each = [{number for number, _ in case if number is not None} for case in cases]
    each = [present for present in each if present]
    return sorted(n for n in set().union(*each) if 2 * sum(n in present for present in each) >= len(each))


def _plain(name: str) -> str:
    """A name without the ending that says what the file is."""
    return _ROLE_SUFFIX.sub("", name)


def _case_and_channel(path: Path, labelled: Container[str]) -> tuple[str, int | None]:
    """The case that an image belongs to, and the number of its channel where its name has one."""
    name, number = numbered(stem(path))
    whole = _plain(stem(path))
    if number is None or (whole in labelled and name not in labelled):
        return whole, None
    return (_plain(name) if name not in labelled and _plain(name) in labelled else name), number


def _pairing_fault(
    name: str, image: Sequence[tuple[int | None, Path]], label: Sequence[Path], numbers: Sequence[int]
) -> Fault | None:
    """What keeps these files from being a case, if anything does."""
    if not label:
        return fault(name, "missing-label", "there is no label of this name", image[0][1])
    if not image:
        return fault(name, "missing-image", "there is no image of this name", label[0])
    present = [number for number, _ in image]
    whole = None in present  # a file that numbers no channel holds all of them
    if len(label) > 1 or (whole and len(image) > 1):
        both = list(label) if len(label) > 1 else [path for _, path in image]
        names = ", ".join(path.name for path in both)
        return fault(name, "duplicate-name", f"several files claim this name: {names}", both[0])
    if len(set(present)) < len(present):
        return fault(name, "duplicate-name", "a channel is there twice", image[0][1])
    known = {number for number in present if number is not None}
    missing = [] if whole else sorted(set(numbers) - known)
    if missing:
        listed = ", ".join(f"_{number:04d}" for number in missing)
        return fault(name, "missing-channel", f"the channel {listed} is missing", image[0][1])
    if known - set(numbers):
        listed = ", ".join(f"_{number:04d}" for number in sorted(known - set(numbers)))
        return fault(name, "channel-count", f"{listed} is no channel of the other cases", image[-1][1])
    return None
