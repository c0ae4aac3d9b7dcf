"""The validation cases of a run; of an ensemble those of all its folds, each for the run that has not seen it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rarevox.pipeline.bundle import require_run
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.beginning import told_if_seen
from rarevox.pipeline.evaluation.operating.parts import Parts, parts_of
from rarevox.pipeline.evaluation.run_and_dataset import require_validation, same_structures, tell_correction
from rarevox.pipeline.files import read_json
from rarevox.pipeline.inference.members import with_members
from rarevox.pipeline.inference.segment import Segmenter
from rarevox.pipeline.trust.gate import run_config


@dataclass(frozen=True)
class Fold:
    """A run with the cases that it validates on.

    Attributes:
        segmenter: the run, loaded.
        number: of the fold.
        cases: the validation section of its fold.
    """

    segmenter: Segmenter
    number: int
    cases: list[dict[str, Any]]


@dataclass(frozen=True)
class Folds:
    """The folds of a run, or of a folder that ``rarevox crossval`` wrote.

    Attributes:
        folder: as it was given.
        runs: of each fold.
        numbers: of the folds.
        parts: what they segment.
        config: for evaluation, of the first.
        learnt: names of cases that the run of their fold has learnt from all the same: the dataset was split anew.
    """

    folder: Path
    runs: tuple[Path, ...]
    numbers: tuple[int, ...]
    parts: Parts
    config: Mapping[str, Any]
    learnt: tuple[str, ...] = ()

    @property
    def alone(self) -> bool:
        """Whether a run was given, and no folder of several."""
        return self.runs == (self.folder,)

    @property
    def results(self) -> Path:
        """Where figures of a choice go: ``RUN/evaluation``, or the folder of the ensemble."""
        return self.folder / "evaluation" if self.alone else self.folder

    @property
    def configurations(self) -> str:
        """Where a choice is stored, for a message."""
        if self.alone:
            return "the run's configurations"
        return f"the configurations of all {len(self.runs)} runs, by which their ensemble goes"

    def context(self, data: Dataset) -> dict[str, Any]:
        """What figures say of the cases that they were made with."""
        which = {"fold": self.numbers[0]} if self.alone else {"folds": list(self.numbers)}
        learnt = {"learnt_from": list(self.learnt)} if self.learnt else {}
        return {"section": "validation", **which, "fingerprint": data.fingerprint, **learnt}

    def loaded(self, data: Dataset, settings: Sequence[str], *, device: str, trust: bool) -> Iterator[Fold]:
        """One after the other; a fold is no longer held when the next one is asked for, if its user lets go of it."""
        how: dict[str, Any] = {"device": device, "trust": trust}
        for run, number in zip(self.runs, self.numbers, strict=True):
            yield _loaded(run, number, data, settings, how)


def _loaded(run: Path, number: int, data: Dataset, settings: Sequence[str], how: Mapping[str, Any]) -> Fold:
    segmenter = Segmenter(run, "evaluate", settings=settings, uncorrected=not data.n4, **how)
    tell_correction(segmenter, data)
    return Fold(segmenter, number, data.section("validation", fold=number))


def folds_of(run: str | Path, data: Dataset, *, trust: bool) -> Folds:
    """The folds of a run folder, or of one of ``rarevox crossval``; all that their configurations can tell is checked.

    Raises:
        RequestError: it is neither, a run is of other structures than the dataset or than another run, two runs have
            one fold, whose cases would count twice, or the cases of a fold are not those that its run was
            cross-validated on.
    """
    runs = tuple(require_run(one, "evaluate") for one in with_members([run]))
    configs = [run_config(one, "evaluate", trust=trust) for one in runs]
    numbers = tuple(require_validation(one, config) for one, config in zip(runs, configs, strict=True))
    folds = Folds(Path(run), runs, numbers, parts_of(configs[0], data), configs[0])
    if len(set(numbers)) < len(numbers):
        twice = max(numbers, key=numbers.count)
        said = f"several runs of {run} have fold {twice}, whose cases would count twice"
        raise RequestError(f"{said}; choose for one run")
    for one, number, config in zip(runs, numbers, configs, strict=True):
        same_structures(config, data, one)
        if parts_of(config, data) != folds.parts:
            learnt = ", ".join(config.get("regions") or config["structures"])
            raise RequestError(f"{one} learnt {learnt}, and {runs[0]} {', '.join(folds.parts.structures)}")
        if not 0 <= number < data.folds:
            raise RequestError(f"{one} has fold {number}, and {data.path} has the folds 0 to {data.folds - 1}")
        if not folds.alone:
            _require_own_cases(one, number, data)
    seen: list[str] = []
    for one, number in zip(runs, numbers, strict=True):
        seen += told_if_seen([one], one, data, "validation", data.section("validation", fold=number))
    return replace(folds, learnt=tuple(seen))


def _require_own_cases(run: Path, number: int, data: Dataset) -> None:
    """The cases of a fold are those that its run has not seen: the dataset may have been dealt out anew since.

    Raises:
        RequestError: they are not, or the run was not cross-validated.
    """
    file = run / "evaluation" / "validation" / "metrics.json"
    if not file.is_file():
        raise RequestError(f"{run} has no evaluation/validation/metrics.json, which rarevox crossval writes")
    content = read_json(file)
    rows = content.get("cases") if isinstance(content, dict) else None
    then = {str(row.get("case")) for row in rows if isinstance(row, dict)} if isinstance(rows, list) else set()
    now = {str(case["case"]) for case in data.section("validation", fold=number)}
    if then != now:
        odd = ", ".join(sorted(then ^ now)[:3])
        raise RequestError(
            f"fold {number} of {data.path} holds other cases than {run} was validated on ({odd} …), and it may have "
            "learnt from some; give the dataset as it was"
        )
