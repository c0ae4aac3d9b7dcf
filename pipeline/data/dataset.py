"""A prepared dataset as the later stages see it: ``dataset.json``, read and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rarevox.pipeline.data.composites import Composites, read_composites
from rarevox.pipeline.data.form import check_case, check_form
from rarevox.pipeline.errors import RequestError, nearest
from rarevox.pipeline.files import read_json
from rarevox.pipeline.names import case_flaw, check_names, plain_name, shown

DATASET_FILE = "dataset.json"
SECTIONS = ("training", "train", "validation", "test")
ALL_FOLDS = "all"
"""Named as the fold that validates: none is set aside, every training case is learnt from."""
_FILE_KEYS = ("image", "label", "mask")


@dataclass(frozen=True)
class Dataset:
    """What ``rarevox prepare`` wrote: which files are which case, which channel and which fold.

    Attributes:
        name: what the data is called in reports.
        root: the folder that the file names in the list are relative to.
        channels: the channels' names, in the order in which they are read.
        labels: name to value, the background (0) first, in order of value.
        training: the cases to train and validate on, each with its ``fold``.
        test: the held-out cases.
        folds: how many folds the training cases are dealt into.
        seed: the seed of the split.
        holdout: the share that was held out.
        fingerprint: the SHA-256 over the content of all cases, written into every result file.
        composites: structures that are unions of labels, name to values; they are scored and not learnt.
        ignored: the label value of voxels that nobody annotated, which is no structure; None for none.
        n4: whether the images are copies corrected for their bias field, as ``prepare --n4`` makes them.
        channel_files: what tells the files of the channels apart, an entry for each: a pattern of names, or the number
            at their end; None where a file holds all channels or a list names the files. See
            :mod:`rarevox.pipeline.data.grouping`.
        fixed: the checks whose faults ``prepare --fix`` mended in files of the dataset.
        structure_codes: codes of structures for DICOM, which somebody added to the file; see
            :func:`rarevox.pipeline.dicom.codes.given_codes`.
        path: the ``dataset.json`` itself.
    """

    name: str
    root: Path
    channels: tuple[str, ...]
    labels: dict[str, int]
    training: tuple[dict[str, Any], ...]
    test: tuple[dict[str, Any], ...]
    folds: int
    seed: int
    holdout: float
    fingerprint: str
    composites: Composites = field(default_factory=dict)
    ignored: int | None = None
    n4: bool = False
    channel_files: tuple[str | int, ...] | None = None
    fixed: tuple[str, ...] = ()
    structure_codes: dict[str, Any] = field(default_factory=dict)
    path: Path = field(default=Path(DATASET_FILE))

    @classmethod
    def load(cls, path: str | Path) -> Dataset:
        """Read a dataset from the folder that prepare wrote, or from the ``dataset.json`` in it.

        Raises:
            RequestError: nothing there, not written by prepare, a case without its files' names, a label value used
                twice, a composite of what is no label, or a root folder that has gone.
        """
        path = Path(path)
        file = path / DATASET_FILE if path.is_dir() else path
        if not file.is_file():
            raise RequestError(f"{path} is not a prepared dataset (no {DATASET_FILE}); make one with: rarevox prepare")
        content = read_json(file)
        check_form(content, file)
        root = (file.parent / content["root"]).resolve()
        if not root.is_dir():
            raise RequestError(f'the data of {file} has moved: {root} does not exist; correct "root" in that file')
        labels = _checked_labels(content["labels"], file)
        return cls(
            name=_checked_name(content.get("name"), root, file),
            root=root,
            channels=_checked_channels(content["channels"], file),
            labels=labels,
            training=_checked_cases(content["training"], "training", file),
            test=_checked_cases(content["test"], "test", file),
            folds=content["folds"],
            seed=content.get("seed") or 0,
            holdout=float(content.get("holdout") or 0.0),
            fingerprint=content.get("fingerprint") or "",
            composites=_checked_composites(content.get("composites"), labels, file),
            ignored=_checked_ignored(content.get("ignored"), labels, file),
            n4=bool(content.get("n4")),
            channel_files=_checked_channel_files(content.get("channel_files"), content["channels"], file),
            fixed=_checked_fixed(content.get("fixed"), file),
            structure_codes=dict(content.get("structure_codes") or {}),
            path=file,
        )

    @property
    def structures(self) -> tuple[str, ...]:
        """The labels' names without the background, in order of value."""
        return tuple(name for name, value in self.labels.items() if value != 0)

    @property
    def subjects(self) -> dict[str, str]:
        """Case to subject, of the cases for which the list names one."""
        return {case["case"]: case["subject"] for case in (*self.training, *self.test) if case.get("subject")}

    @property
    def scored(self) -> dict[str, int | tuple[int, ...]]:
        """What evaluation gives figures for: the structures with their value, then the composites with theirs."""
        return {name: value for name, value in self.labels.items() if value != 0} | self.composites

    @property
    def label_values(self) -> tuple[int, ...]:
        """The values as they stand in the label files, the background's 0 first, ascending."""
        return tuple(self.labels.values())

    def section(self, name: str, *, fold: int | str = 0) -> list[dict[str, Any]]:
        """The cases of a section, with absolute file names, ready for MONAI's dictionary transforms.

        Args:
            name: ``training`` (every case that is not held out), ``train`` (those outside ``fold``), ``validation``
                (those in ``fold``) or ``test`` (held out).
            fold: which fold validates, from 0, or ``all``: every case is for training, none for validation. Used by
                ``train`` and ``validation`` only.

        Returns:
            A dictionary for each case: ``case``, ``image`` (a string, or a list of them, one per channel file),
            ``label``, perhaps ``mask``, and for training cases ``fold``.

        Raises:
            RequestError: no such section or fold.
        """
        if name not in SECTIONS:
            raise RequestError(f"no section {name!r} in {self.path}: {nearest(name, SECTIONS)}")
        if name in ("train", "validation") and fold not in (ALL_FOLDS, *range(self.folds)):
            raise RequestError(
                f"fold {fold} does not exist; {self.path} has folds 0 to {self.folds - 1}, and {ALL_FOLDS} stands for "
                "training on all cases"
            )
        cases = self.test if name == "test" else self.training
        if name == "train" and fold != ALL_FOLDS:
            # With a single fold nothing can be set aside: the same cases train and validate.
            cases = tuple(case for case in cases if case["fold"] != fold) if self.folds > 1 else cases
        elif name == "validation":
            cases = tuple(case for case in cases if case["fold"] == fold)
        return [self._absolute(case) for case in cases]

    def _absolute(self, case: dict[str, Any]) -> dict[str, Any]:
        def place(files: str | list[str]) -> Any:
            return [place(file) for file in files] if isinstance(files, list) else str(self.root / files)

        return {key: place(value) if key in _FILE_KEYS else value for key, value in case.items()}


def _checked_name(name: str | None, root: Path, file: Path) -> str:
    if name is None:
        return plain_name(root.name)
    check_names([name], "dataset", file)
    return name


def _checked_channels(channels: list[str], file: Path) -> tuple[str, ...]:
    check_names(channels, "channel", file)
    return tuple(channels)


def _checked_labels(labels: dict[str, Any], file: Path) -> dict[str, int]:
    try:
        values = {str(name): int(value) for name, value in labels.items()}
    except (TypeError, ValueError) as error:
        raise RequestError(f'"labels" in {file} must give each name a whole number: {error}') from error
    if len(set(values.values())) != len(values) or values.get("background") != 0:
        raise RequestError(f'"labels" in {file} must hold "background": 0 and every value once; it holds {values}')
    check_names(values, "structure", file)
    return dict(sorted(values.items(), key=lambda item: item[1]))


def _checked_composites(declared: object, labels: dict[str, int], file: Path) -> Composites:
    composites = read_composites(declared, labels, f'"composites" in {file}')
    check_names(composites, "structure", file)
    return composites


def _checked_ignored(value: object, labels: dict[str, int], file: Path) -> int | None:
    if value is not None and (type(value) is not int or value in labels.values()):
        raise RequestError(f'"ignored" in {file} is {value!r}; expected a label value that is no structure, or null')
    return value


def is_channel_rule(rule: object, channels: int) -> bool:
    """Whether this tells the files of so many channels apart, and a configuration would take it for plain values."""
    if not isinstance(rule, (list, tuple)) or len(rule) != channels or len(set(map(str, rule))) != channels:
        return False
    numbers = all(type(one) is int and 0 <= one <= 9999 for one in rule)
    return numbers or all(isinstance(one, str) and re.fullmatch(r"[^$@%#\x00-\x1f]{1,200}", one) for one in rule)


def _checked_channel_files(rule: object, channels: Any, file: Path) -> tuple[str | int, ...] | None:
    if rule is None:
        return None
    if not is_channel_rule(rule, len(channels)):
        raise RequestError(
            f'"channel_files" in {file} is {rule!r}; expected a pattern of file names (without $ @ % #) for each '
            "channel, or a number from 0 to 9999 for each, or null"
        )
    return tuple(rule)  # type: ignore[arg-type]


def _checked_fixed(fixed: object, file: Path) -> tuple[str, ...]:
    if fixed is None:
        return ()
    if not isinstance(fixed, list) or not all(isinstance(one, str) and re.fullmatch(r"[a-z-]+", one) for one in fixed):
        raise RequestError(f'"fixed" in {file} is {fixed!r}; expected a list of names of checks')
    return tuple(fixed)


def _checked_cases(cases: list[dict[str, Any]], section: str, file: Path) -> tuple[dict[str, Any], ...]:
    """Cases with the names of their files; a case's name begins those of files that are written."""
    seen: set[str] = set()
    for number, case in enumerate(cases):
        check_case(case, f'"{section}"[{number}] in {file}', fold=section == "training")
        wrong = case_flaw(case["case"])
        if wrong or case["case"] in seen:
            said = wrong or "is that of an earlier case too"
            raise RequestError(
                f'the name of "{section}"[{number}] in {file}, {shown(case["case"])}, {said}; run rarevox prepare again'
            )
        seen.add(case["case"])
    return tuple({key: value for key, value in case.items() if value is not None} for case in cases)
