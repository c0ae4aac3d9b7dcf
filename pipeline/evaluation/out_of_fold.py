"""The validation cases of a run; of an ensemble those of all its folds, each for the run that has not seen it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarevox.pipeline.bundle import require_run
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.operating.parts import Parts, parts_of
from rarevox.pipeline.evaluation.run_and_dataset import same_structures, tell_correction
from rarevox.pipeline.inference.members import with_members
from rarevox.pipeline.inference.segment import Segmenter
from rarevox.pipeline.trust.gate import run_config


@dataclass(frozen=True)
class Fold:
    """A run with the cases that it validates on.

    Attributes:
        run: the run folder.
        number: of the fold.
        segmenter: the run, loaded.
        cases: the validation section of its fold.
        parts: what it segments.
    """

    run: Path
    number: int
    segmenter: Segmenter
    cases: list[dict[str, Any]]
    parts: Parts


@dataclass(frozen=True)
class Folds:
    """The folds of a run, or of a folder that ``rarevox crossval`` wrote.

    Attributes:
        folder: as it was given.
        runs: of each fold.
        numbers: of the folds.
    """

    folder: Path
    runs: tuple[Path, ...]
    numbers: tuple[int, ...]

    @property
    def results(self) -> Path:
        """Where figures of a choice go: ``RUN/evaluation``, or the folder of the ensemble."""
        return self.folder / "evaluation" if self.runs == (self.folder,) else self.folder

    @property
    def configurations(self) -> str:
        """Where a choice is stored, for a message."""
        if len(self.runs) == 1:
            return "the run's configurations"
        return f"the configurations of all {len(self.runs)} runs, by which their ensemble goes"

    def context(self, data: Dataset) -> dict[str, Any]:
        """What figures say of the cases that they were made with."""
        which = {"fold": self.numbers[0]} if len(self.numbers) == 1 else {"folds": list(self.numbers)}
        return {"section": "validation", **which, "fingerprint": data.fingerprint}

    def loaded(self, data: Dataset, settings: Sequence[str], *, device: str, trust: bool) -> Iterator[Fold]:
        """One after the other, each loaded when its turn comes.

        Raises:
            RequestError: a run is of other structures than the dataset, or than the run before it.
        """
        before: Parts | None = None
        for run, number in zip(self.runs, self.numbers, strict=True):
            how: dict[str, Any] = {"device": device, "trust": trust}
            segmenter = Segmenter(run, "evaluate", settings=settings, uncorrected=not data.n4, **how)
            same_structures(segmenter.config, data, run)
            tell_correction(segmenter, data)
            parts = parts_of(segmenter.config, data)
            if before not in (None, parts):
                raise RequestError(
                    f"{run} learnt {', '.join(parts.structures)}, and another run of {self.folder} did not"
                )
            before = parts
            yield Fold(run, number, segmenter, data.section("validation", fold=number), parts)


def folds_of(run: str | Path, *, trust: bool) -> Folds:
    """The folds of a run folder, or of one of ``rarevox crossval``.

    Raises:
        RequestError: it is neither, or two runs of an ensemble have one fold, whose cases would count twice.
    """
    runs = tuple(require_run(one, "evaluate") for one in with_members([run]))
    numbers = tuple(int(run_config(one, "evaluate", trust=trust)["fold"]) for one in runs)
    if len(set(numbers)) < len(numbers):
        twice = max(numbers, key=numbers.count)
        raise RequestError(
            f"several runs of {run} have fold {twice}, whose cases would count twice; choose for one run"
        )
    return Folds(Path(run), runs, numbers)
