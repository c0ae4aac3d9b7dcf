"""A source of two parallel folders: images in one, labels in the other, paired by name."""

from __future__ import annotations

import re
from pathlib import Path

from rarevox.pipeline.data.formats import stem, volumes_in
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.cases import Case, Fault, Source, named_subject
from rarevox.pipeline.preparation.checks.catalogue import fault

_CHANNEL_SUFFIX = re.compile(r"^(.+)_(\d{4})$")
_ROLE_SUFFIX = re.compile(r"[-_.](seg|segmentation|label|labels|gt|img|image|scan)$", re.IGNORECASE)


def pair_folders(root: Path, images: Path, labels: Path, *, subject: str | None = None) -> Source:
    """Pair the volumes of ``images`` with those of ``labels`` that bear the same name.

    Suffixes are ignored (``a.mha`` pairs with ``a.nii.gz``), and so is a last ``_seg``, ``_label``, ``_gt``, ``_image``
    or the like. Where every image ends in four digits (``a_0000``, ``a_0001``), these number the channels.

    Raises:
        RequestError: a folder that is missing or holds no volumes.
    """
    scans, references = _listed(images, "images"), _listed(labels, "labels")
    numbered = all(_CHANNEL_SUFFIX.match(stem(path)) for path in scans)
    by_case: dict[str, list[Path]] = {}
    for path in scans:
        by_case.setdefault(_case_name(path, numbered), []).append(path)
    by_label: dict[str, list[Path]] = {}
    for path in references:
        by_label.setdefault(_case_name(path, False), []).append(path)
    numbers = sorted({_number(path) for path in scans}) if numbered else [0]
    cases, faults = [], []
    for name in sorted(by_case.keys() | by_label.keys()):
        image, label = by_case.get(name, []), by_label.get(name, [])
        wrong = _pairing_fault(name, image, label, numbers if numbered else None)
        if wrong:
            faults.append(wrong)
        else:
            cases.append(Case(name, tuple(image), label[0], None, named_subject(name, subject)))
    channels = tuple(f"channel_{number}" for number in numbers) if len(numbers) > 1 else None
    return Source(root.name, root, channels, None, tuple(cases), tuple(faults), "folders of images and labels")


def _listed(folder: Path, what: str) -> list[Path]:
    if not folder.is_dir():
        raise RequestError(f"the folder of {what} {folder} does not exist; name it with --{what} DIR")
    found = list(volumes_in(folder))
    if not found:
        raise RequestError(f"{folder} holds no {what}; expected NIfTI, NRRD, MHA files or DICOM series folders")
    return found


def _case_name(path: Path, numbered: bool) -> str:
    name = stem(path)
    found = _CHANNEL_SUFFIX.match(name) if numbered else None
    return found.group(1) if found else _ROLE_SUFFIX.sub("", name)


def _number(path: Path) -> int:
    found = _CHANNEL_SUFFIX.match(stem(path))
    assert found is not None
    return int(found.group(2))


def _pairing_fault(name: str, image: list[Path], label: list[Path], numbers: list[int] | None) -> Fault | None:
    """What keeps these files from being a case, if anything does."""
    if not label:
        return fault(name, "missing-label", "there is no label of this name", image[0])
    if not image:
        return fault(name, "missing-image", "there is no image of this name", label[0])
    if len(label) > 1 or (numbers is None and len(image) > 1):
        both = label if len(label) > 1 else image
        names = ", ".join(path.name for path in both)
        return fault(name, "duplicate-name", f"several files claim this name: {names}", both[0])
    if numbers is not None:
        present = [_number(path) for path in image]
        if len(set(present)) < len(present):
            return fault(name, "duplicate-name", "a channel is there twice", image[0])
        missing = sorted(set(numbers) - set(present))
        if missing:
            listed = ", ".join(f"_{number:04d}" for number in missing)
            return fault(name, "missing-channel", f"the channel {listed} is missing", image[0])
    return None
