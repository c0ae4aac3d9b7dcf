"""Which prediction belongs to which reference, and what their values are called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rarevox.pipeline.cohort.journal import FOLDER
from rarevox.pipeline.data.composites import read_composites
from rarevox.pipeline.data.form import CASE_KEYS, check_keys, is_text
from rarevox.pipeline.data.formats import SUFFIXES, is_volume, stem
from rarevox.pipeline.data.scans import unusable
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import read_json

_SUFFIX = re.compile(r"[_-](seg|segmentation|pred|prediction|label|labels|mask|gt|0000)$", re.IGNORECASE)
MATCHING = (
    "by file name without its format; endings such as _seg, _pred, _label, _mask, _gt and _0000 do not count "
    "where the plain names do not match; in sub-folders the path to a file belongs to its name"
)


@dataclass(frozen=True)
class Pairs:
    """The cases found.

    Attributes:
        matched: case → (prediction, reference); each is None if there is none, or if several files claim to be it.
        extra: predictions without a reference.
        doubled: case → which files claim to be it.
        left: what else lies in the folders and cannot be used, a sentence each.
    """

    matched: dict[str, tuple[Path | None, Path | None]]
    extra: list[Path]
    doubled: dict[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()


def case_name(path: Path) -> str:
    """The stem without the endings by which tools mark label maps and channels.

    >>> case_name(Path("case_1_0000_seg.nii.gz")), case_name(Path("case_1.nrrd"))
    ('case_1', 'case_1')
    """
    return _plain(stem(path))


def _plain(name: str) -> str:
    while (shorter := _SUFFIX.sub("", name)) != name and shorter:
        name = shorter
    return name


def find_pairs(predictions: Path, references: Path) -> Pairs:
    """Match two files, or the label maps of two folders and what is in them by name (the rule is ``MATCHING``).

    ``s0000/ct.nii.gz`` is the case ``s0000_ct``, as `rarevox predict` calls it: its reference lies at the same path, or
    is called so. A case that two files of one folder claim to be (``a_seg`` and ``a_pred``, ``a.nii`` and ``a.nii.gz``)
    has neither.

    Raises:
        RequestError: a path that does not exist, a folder without label maps, a file against a folder, or no name in
            common.
    """
    for path, what in ((predictions, "predictions"), (references, "references")):
        if fault := unusable(path):
            raise RequestError(f"{path} {fault}; give the {what}: a label map or a folder of label maps")
    if predictions.is_file() and references.is_file():
        return Pairs({case_name(references): (predictions, references)}, [])
    if predictions.is_file() != references.is_file():
        raise RequestError(
            f"{predictions} and {references} are a file and a folder; give two files or two folders of label maps"
        )
    found, wanted = label_maps(predictions, deep=True), label_maps(references, deep=True)
    called, of_case = _called(found, predictions), _cases(found, predictions)
    known, faults = by_case(wanted, references)
    claimed = {path for case in faults for path in of_case.get(case, ())}
    matched: dict[str, tuple[Path | None, Path | None]] = {}
    for case, path in known.items():
        same = called.get(qualified(path, references, stem(path)), [])
        own = of_case.get(case, [])
        # Of files of that very name those that are no other case: s1/seg and s1_seg are called alike, and are two.
        same = [one for one in same if one in own] or [one for one in same if case_of(one, predictions) not in known]
        several = same or own
        matched[case] = (several[0] if len(several) == 1 else None, path)
        if len(several) > 1:
            faults[case] = f"prediction: {_both(case, several, predictions)}"
            claimed |= {*several, *own}
    for case, fault in faults.items():
        if case not in matched:
            matched[case], faults[case] = (None, None), f"reference: {fault}"
    used = {prediction for prediction, _ in matched.values()} | claimed
    if used == {None}:
        raise RequestError(
            f"no file of {predictions} has the name of a file of {references} (for example {found[0].name} and "
            f"{wanted[0].name}); names are matched {MATCHING}"
        )
    left = (*passed_over(predictions), *passed_over(references))
    return Pairs(matched, [path for path in found if path not in used], faults, left)


def declared_structures(references: Path) -> dict[str, Any] | None:
    """Names and values from a ``dataset.json`` in the references' folder or the one above, or None.

    Raises:
        RequestError: as :func:`dataset_structures`.
    """
    path = dataset_beside(references)
    return None if path is None else dataset_structures(path)


def dataset_beside(references: Path) -> Path | None:
    """A ``dataset.json`` with labels in the references' folder or the one above, or None."""
    folder = references if references.is_dir() else references.parent
    for path in (folder / "dataset.json", folder.parent / "dataset.json"):
        content = read_json(path) if path.is_file() else None
        if isinstance(content, Mapping) and isinstance(content.get("labels"), Mapping):
            return path
    return None


def dataset_ignored(dataset: Path) -> int | None:
    """The label of what nobody annotated in a ``dataset.json`` (or the folder that holds it): nnU-Net's ``ignore``, or
    what ``rarevox prepare`` noted; None for none.

    Raises:
        RequestError: no such file, not JSON, or without labels.
    """
    _, content = _read_dataset(dataset)
    value = content["labels"].get("ignore") if "channel_names" in content else content.get("ignored")
    return value if type(value) is int else None


def dataset_structures(dataset: Path) -> dict[str, Any]:
    """Names and values from a ``dataset.json`` (or the folder that holds it), whether its scans are there or not.

    The Medical Segmentation Decathlon's ``{"1": "liver"}`` and nnU-Net's and rarevox's ``{"liver": 1}`` are understood,
    with a list of values for a union, and rarevox's ``composites``. nnU-Net's ``ignore`` is no structure; see
    :func:`dataset_ignored`.

    Raises:
        RequestError: no such file, not JSON, labels of neither form, or a composite that holds what is no label.
    """
    path, content = _read_dataset(dataset)
    labels = content["labels"]
    nnunet = "channel_names" in content
    named = {k: v for k, v in read_labels(labels, str(path)).items() if not (nnunet and k == "ignore")}
    single = {name: value for name, value in named.items() if isinstance(value, int)}
    return named | read_composites(content.get("composites"), single, f'"composites" in {path}')


def dataset_subjects(dataset: Path, references: Mapping[str, Path | None]) -> dict[str, str]:
    """Case → whose it is by a ``dataset.json`` (or the folder that holds it) of ``rarevox prepare``.

    A case is the dataset's whose label file its reference is, else the one of its name; endings such as ``_seg`` do
    not count where the plain names do not match.

    Args:
        dataset: whether its scans are there or not.
        references: case → its file, or None where that is not known.

    Returns:
        For every case of ``references``, with an empty text where the dataset has no such case; nothing where it names
        no subject.

    Raises:
        RequestError: no such file, not JSON, without labels, or a case or a subject that is no text.
    """
    path, content = _read_dataset(dataset)
    rows = [row for section in ("training", "test") for row in _cases_of(content, section, path)]
    if not any(row.get("subject") for row in rows):
        return {}
    by_file, by_name, by_plain = dict[Path, str](), dict[str, str](), dict[str, set[str]]()
    root = path.parent / content["root"] if is_text(content.get("root")) else None
    for row in rows:
        subject = row.get("subject") or row["case"]
        by_name[row["case"]] = subject
        by_plain.setdefault(_plain(row["case"]), set()).add(subject)
        if root is not None and is_text(row.get("label")):
            by_file[(root / row["label"]).resolve()] = subject
    told = by_name | {name: whose.pop() for name, whose in by_plain.items() if name not in by_name and len(whose) == 1}
    return {
        case: (by_file.get(file.resolve()) if file is not None else None) or told.get(case, "")
        for case, file in references.items()
    }


def _cases_of(content: Mapping[str, Any], section: str, path: Path) -> list[dict[str, Any]]:
    """The cases of a section that have names; other tools' lists are of files alone."""
    rows = content.get(section)
    named = [row for row in rows if isinstance(row, dict) and "case" in row] if isinstance(rows, list) else []
    for number, row in enumerate(named):
        check_keys(row, {key: CASE_KEYS[key] for key in ("case", "subject")}, f'"{section}"[{number}] of {path}')
    return named


def _read_dataset(dataset: Path) -> tuple[Path, dict[str, Any]]:
    """A ``dataset.json`` with labels, given itself or by its folder, and what it holds.

    Raises:
        RequestError: no such file, not JSON, or without labels.
    """
    path = dataset / "dataset.json" if dataset.is_dir() else dataset
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise RequestError(f'{path} has no "labels"; give a dataset.json, or the folder that holds one')
    return path, content


def read_labels(labels: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A ``labels`` section as name → value or tuple of values, the background first as it came.

    >>> read_labels({"0": "background", "1": "liver"}, "dataset.json")
    {'background': 0, 'liver': 1}
    >>> read_labels({"whole": [1, 2]}, "dataset.json")
    {'whole': (1, 2)}
    """
    try:
        if all(isinstance(value, str) for value in labels.values()):
            return {name: int(value) for value, name in labels.items()}
        return {n: tuple(int(v) for v in x) if isinstance(x, (list, tuple)) else int(x) for n, x in labels.items()}
    except (TypeError, ValueError) as error:
        raise RequestError(
            f'the labels of {source} are {dict(labels)}; expected {{"liver": 1}} or {{"1": "liver"}}'
        ) from error


def qualified(path: Path, root: Path, name: str) -> str:
    """A name with the folders that lead to it.

    >>> qualified(Path("r/s0000/ct.nii.gz"), Path("r"), "ct")
    's0000_ct'
    """
    return "_".join((*path.relative_to(root).parent.parts, name))


def label_maps(folder: Path, *, deep: bool = False) -> list[Path]:
    """The label maps of a folder, sorted; hidden files are none, nor are the maps of probabilities and entropy that
    `rarevox predict` writes beside ``CASE_seg``.

    Args:
        folder: an existing one.
        deep: those in its folders too.

    Raises:
        RequestError: there are none.
    """
    maps = list(_volumes(folder, deep))
    names = {path.with_name(stem(path)) for path in maps}
    maps = [path for path in maps if not _goes_with_labels(path.with_name(stem(path)), names)]
    if not maps:
        raise RequestError(f"{folder} holds no label maps; expected files ending in {', '.join(SUFFIXES)}")
    return maps


def _volumes(folder: Path, deep: bool, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """What is called like a volume, and with ``deep`` also what is so in the folders of the folder, each once."""
    itself = folder.resolve()
    for path in sorted(folder.iterdir()) if itself not in above else ():
        inner = []
        if deep and not path.name.startswith(".") and path.is_dir() and not is_agreement(path):
            inner = list(_volumes(path, deep, (*above, itself)))
        yield from inner or ([path] if is_volume(path) else [])


def _goes_with_labels(name: Path, names: set[Path]) -> bool:
    """Whether ``CASE_entropy`` or ``CASE_prob_STRUCTURE`` lies beside ``CASE_seg``."""
    parts = () if name.name.endswith("_seg") else re.finditer(r"_entropy$|_prob_", name.name)
    return any(name.with_name(f"{name.name[: part.start()]}_seg") in names for part in parts)


def case_of(path: Path, root: Path) -> str:
    """The case that a file below a folder is; the path to it belongs to the name."""
    return qualified(path, root, case_name(path))


def by_case(paths: Iterable[Path], root: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Case → file below ``root``; and of cases that several files claim to be, a sentence that says so."""
    cases = _cases(paths, root)
    doubled = {case: _both(case, files, root) for case, files in cases.items() if len(files) > 1}
    return {case: files[0] for case, files in cases.items() if case not in doubled}, doubled


def _cases(paths: Iterable[Path], root: Path) -> dict[str, list[Path]]:
    """Case → the files below ``root`` that claim to be it."""
    cases: dict[str, list[Path]] = {}
    for path in paths:
        cases.setdefault(case_of(path, root), []).append(path)
    return cases


def _called(paths: Iterable[Path], root: Path) -> dict[str, list[Path]]:
    """Name with its endings and the folders that lead to it → the files below ``root`` that are called so."""
    names: dict[str, list[Path]] = {}
    for path in paths:
        names.setdefault(qualified(path, root, stem(path)), []).append(path)
    return names


def _both(case: str, files: Sequence[Path], root: Path) -> str:
    """The sentence that says which files below ``root`` claim to be one case."""
    here = files[0].parent if len({file.parent for file in files}) == 1 else root
    names = " and ".join(str(file.relative_to(here)) for file in files)
    return f"{names} in {here} are both case {case!r}; keep one of them"


def passed_over(folder: Path) -> list[str]:
    """Entries below a folder of label maps that are none and cannot hold any, or that are folders without any, a
    sentence each. Hidden entries and files of other kinds (texts, tables, pages) are not told of."""
    if not folder.is_dir():
        return []
    told: list[str] = []
    _look(folder, told, ())
    return told


def is_agreement(folder: Path) -> bool:
    """Whether this is what ``rarevox agreement`` wrote, whose consensus maps are nobody's."""
    return (folder / "agreement.json").is_file()


def _is_result(folder: Path) -> bool:
    return is_agreement(folder) or (folder / "metrics.json").is_file()


def _look(folder: Path, told: list[str], above: tuple[Path, ...]) -> bool:
    """Whether a folder holds label maps, or something was told of it."""
    before, found, itself = len(told), False, folder.resolve()
    for entry in sorted(folder.iterdir()) if itself not in above else ():
        if entry.name.startswith("."):
            continue
        fault = unusable(entry)
        if is_volume(entry) and not entry.is_dir():
            found = True  # a row tells what is wrong with it
        elif fault:
            told.append(f"{entry} {fault}")
        elif entry.is_dir():
            found = True
            if entry.name == FOLDER and (folder / "predictions.json").is_file():
                continue  # of rarevox predict
            if not _is_result(entry) and not _look(entry, told, (*above, itself)):
                told.append(f"{entry} holds no label maps")
    return found or len(told) > before
