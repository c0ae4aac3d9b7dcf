"""Calls that are ended at any moment: nothing torn, nothing in the way, and called again they end as if undisturbed."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kills.moments import ILLS, Call, Nursery
from tests.kills.stages import STAGES, Given
from tests.kills.whole import content, difference, files_of

DRAWN = {"killed": 3, "torn": 1, "terminated": 1, "disk full": 2, "no memory": 1}
"""So many moments of each ill, for each stage."""
ENDS = {
    "killed": {-signal.SIGKILL},
    "terminated": {-signal.SIGTERM, 128 + signal.SIGTERM},
    "torn": {-signal.SIGXFSZ},
    "disk full": {0, 1, 2},
    "no memory": {0, 1, 2},
}
"""With which status a call may end; with 0 only where it could do all the same."""
NOBODY = 1 << 22
"""No process has this number: above Linux's greatest."""


@pytest.fixture(scope="module")
def given(task_dir: Path, dataset_dir: Path, run_dir: Path) -> Given:
    return Given(task_dir, dataset_dir, run_dir)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


class Trials:
    """A stage's calls, all in one folder, so that they differ in nothing but what befalls them."""

    def __init__(self, name: str, given: Given, nursery: Nursery, folder: Path) -> None:
        self.name, self.stage, self.given, self.nursery = name, STAGES[name], given, nursery
        self.place, self.expected = folder / name, folder / f"{name}_undisturbed"
        self.operations: list[str] = []

    def undisturbed(self) -> None:
        """What nothing befalls: its files are put aside, its operations counted. Once."""
        if self.operations:
            return
        self.lay()
        done = self.nursery(Call(self.stage.first(self.given, self.place), str(self.place)))
        assert done.status == 0, done.said
        self.place.rename(self.expected)
        self.operations = done.operations

    def lay(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        self.stage.lay(self.given, self.place)

    def end_and_go_on(self, ill: str, moment: int) -> None:
        """End a call there; nothing that stands is torn; the call after it ends as the undisturbed one."""
        self.lay()
        ended = self.nursery(Call(self.stage.first(self.given, self.place), str(self.place), ill, moment))
        assert ended.status in ENDS[ill], ended.said
        assert "Traceback" not in ended.said and "escaped" not in ended.said, ended.said
        for path in files_of(self.place):
            content(path)
        if ended.status == 0:
            assert not (unlike := difference(self.place, self.expected)), f"{unlike}, and status 0: {ended.said}"
        self.leave_parts()
        arguments = (self.stage.again or self.stage.first)(self.given, self.place)
        again = self.nursery(Call(arguments, str(self.place)))
        assert again.status == 0, again.said
        assert not (unlike := difference(self.place, self.expected)), unlike
        assert not (left := [path for path in self.place.rglob(".*") if path.parent.name != "journal"]), (
            f"{left} is left"
        )

    def leave_parts(self) -> None:
        """Half a file in each folder that the stage writes into: of which of them a kill leaves one is chance."""
        for folder in (found for pattern in self.stage.writes for found in self.place.glob(pattern) if found.is_dir()):
            (folder / f".{NOBODY}.part.0.json").write_text("{")


@pytest.fixture(scope="module")
def trials(given: Given, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trials]:
    folder = tmp_path_factory.mktemp("kills")
    return {name: Trials(name, given, nursery, folder) for name in STAGES}


def moment_of(ill: str, number: int, name: str, operations: list[str]) -> int:
    """Drawn among the operations, one in each of as many equal parts as there are draws; a tear where a file is
    written."""
    rng = random.Random(f"{name} {ill} {number}")
    possible = [n for n, what in enumerate(operations, start=1) if ill != "torn" or _is_result(what)]
    part = len(possible) / DRAWN[ill]
    return possible[int((number + rng.random()) * part)]


def _is_result(operation: str) -> bool:
    return operation.startswith("write") and not operation.endswith((".lock", ".probe"))


TRIALS = [(name, ill, number) for name in STAGES for ill in ILLS for number in range(DRAWN[ill])]


@pytest.mark.parametrize(("name", "ill", "number"), TRIALS)
def test_ended_at_any_moment(name: str, ill: str, number: int, trials: dict[str, Trials]) -> None:
    trials[name].undisturbed()
    trials[name].end_and_go_on(ill, moment_of(ill, number, name, trials[name].operations))


def test_a_training_that_was_killed_when_it_had_made_a_folder(trials: dict[str, Trials]) -> None:
    """Before anything stands in it: the first of them is made before what tells that the run is one."""
    train = trials["train"]
    train.undisturbed()
    made = [what for what in train.operations if what.startswith("os.mkdir")]
    for what in dict.fromkeys(made):
        train.end_and_go_on("killed", train.operations.index(what) + 2)
