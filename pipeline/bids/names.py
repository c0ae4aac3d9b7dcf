"""The entities in a file's name by the rules of BIDS, and the names of what is derived from it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from rarevox.pipeline.data.formats import stem, suffix_of

ENTITIES = (
    *("sub", "ses", "sample", "task", "tracksys", "acq", "ce", "trc", "stain", "rec", "dir", "run", "mod", "echo"),
    *("flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "recording", "chunk", "atlas", "seg", "scale"),
    *("res", "den", "label", "desc"),
)
"""In the order in which BIDS 1.10 writes them."""
_CARRIED = frozenset(
    ("sub", "ses", "acq", "ce", "rec", "dir", "run", "mod", "echo", "flip", "inv", "mt", "part", "chunk")
)
"""Those that a segmentation takes over from its source: what says which image of a subject it is."""
_PAIR = re.compile(r"([a-z]+)-([A-Za-z0-9+]+)")


@dataclass(frozen=True)
class Source:
    """What a derived file is named after.

    Attributes:
        entities: by key, ``sub`` among them.
        suffix: of a BIDS file, such as T1w; empty for others.
        root: of the BIDS dataset that the file is in; None for others.
        within: the file's place in that dataset.
    """

    entities: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""
    root: Path | None = None
    within: str = ""


def parse(path: str | Path) -> Source | None:
    """The entities of a file that is named by the rules of BIDS; None where it is not.

    The name is ``sub-LABEL[_ses-LABEL]_KEY-LABEL…_SUFFIX.nii[.gz]``, labels are letters and digits, keys are those of
    BIDS, each once and in its order.

    >>> found = parse("ds/sub-01/ses-b/anat/sub-01_ses-b_acq-3d_T1w.nii.gz")
    >>> dict(found.entities), found.suffix
    ({'sub': '01', 'ses': 'b', 'acq': '3d'}, 'T1w')
    >>> parse("sub-01_b_T1w.nii.gz"), parse("scan_T1w.nii.gz"), parse("acq-1_sub-2_T1w.nii.gz")
    (None, None, None)
    """
    path = Path(path)
    if not suffix_of(path).startswith(".nii"):
        return None
    *parts, suffix = stem(path).split("_")
    pairs = [_PAIR.fullmatch(part) for part in parts]
    if not parts or not re.fullmatch(r"[A-Za-z0-9]+", suffix) or not all(pairs):
        return None
    keys = [pair[1] for pair in pairs if pair]
    if keys[0] != "sub" or any(key not in ENTITIES for key in keys):
        return None
    places = [ENTITIES.index(key) for key in keys]
    if places != sorted(set(places)):
        return None
    return Source({pair[1]: pair[2] for pair in pairs if pair}, suffix)


def source_of(image: str | Path | Sequence[str | Path], case: str) -> Source:
    """What the results of a scan are named after.

    A scan that is not named by BIDS becomes a subject of its own, ``sub-CASE`` with the letters and digits of its name;
    where others were left out, ``x`` and four digits of the name's SHA-256 follow: ``a_1`` and ``a1`` stay apart.

    Args:
        image: its file, or one for each channel, of which the first counts.
        case: its name.
    """
    path = Path(image) if isinstance(image, (str, Path)) else Path(image[0])
    found = parse(path)
    if found is None:
        return Source({"sub": subject(case)})
    absolute = path.absolute()
    subject_folder = next((at for at in absolute.parents if at.name == f"sub-{found.entities['sub']}"), absolute)
    root = _dataset(subject_folder.parent)
    return Source(found.entities, found.suffix, root, absolute.relative_to(root).as_posix())


@lru_cache(maxsize=1024)
def _dataset(folder: Path) -> Path:
    """The folder of the dataset: the nearest with a description, from the subjects' folder upwards; else that one."""
    marked = (at for at in (folder, *folder.parents) if (at / "dataset_description.json").is_file())
    return next(marked, folder)


def subject(case: str) -> str:
    """A label of BIDS for any name.

    >>> subject("case01"), subject("case_01"), subject("é")
    ('case01', 'case01x26fd', 'x4a99')
    """
    plain = re.sub(r"[^A-Za-z0-9]", "", case)
    return plain if plain == case else f"{plain}x{hashlib.sha256(case.encode(errors='replace')).hexdigest()[:4]}"


def derived(source: Source, suffix: str, extension: str, **more: str) -> str:
    """The name of a file derived from a source, relative to the dataset's folder.

    >>> source = Source({"sub": "1", "ses": "2", "run": "3", "task": "x"}, "FLAIR")
    >>> derived(source, "probseg", ".nii.gz", label="lesion", desc="rarevox")
    'sub-1/ses-2/anat/sub-1_ses-2_run-3_space-FLAIR_label-lesion_desc-rarevox_probseg.nii.gz'
    """
    entities = {key: value for key, value in source.entities.items() if key in _CARRIED}
    entities |= ({"space": source.suffix} if source.suffix else {}) | more
    ordered = sorted(entities, key=ENTITIES.index)
    folders = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    name = "_".join([*(f"{key}-{entities[key]}" for key in ordered), f"{suffix}{extension}"])
    return "/".join([*folders, "anat", name])


def labels_of(names: Sequence[str]) -> list[str]:
    """The names as labels of entities, each another one.

    >>> labels_of(["lesion", "left kidney", "leftkidney", "?"])
    ['lesion', 'leftkidney', 'leftkidney3', 'structure4']
    """
    found: list[str] = []
    for number, name in enumerate(names, start=1):
        label = re.sub(r"[^A-Za-z0-9]", "", name) or f"structure{number}"
        found.append(f"{label}{number}" if label.lower() in map(str.lower, found) else label)
    return found
