"""Calls that are ended at any moment: nothing torn, nothing in the way, and called again they end as if undisturbed."""

from __future__ import annotations

import json
import os
import random
import signal
from dataclasses import asdict
from pathlib import Path

import pytest

from tests import forked
from tests.kills import moments
from tests.kills.moments import ILLS, Call, Outcome
from tests.kills.stages import STAGES, Given, Stage
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


@pytest.fixture(scope="module")
def given(task_dir: Path, dataset_dir: Path, run_dir: Path) -> Given:
    return Given(task_dir, dataset_dir, run_dir)


Undisturbed = tuple[Path, list[str]]


@pytest.fixture(scope="module")
def undisturbed(given: Given, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Undisturbed]:
    """Filled as it is asked for: a stage's folder after a call that nothing befell, and the call's operations."""
    return {}


def call(arguments: list[str], place: Path, ill: str = "", moment: int = 0) -> Outcome:
    """Run a command under a watch."""
    asked = json.dumps([asdict(Call(arguments, str(place), ill, moment))])
    done = forked.run([moments.__file__, asked], env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120)
    assert done.returncode == 0, done.stderr
    return Outcome(**json.loads(done.stdout)[0])


def laid(stage: Stage, given: Given, place: Path) -> Path:
    place.mkdir()
    stage.lay(given, place)
    return place


def whole_call(name: str, given: Given, done: dict[str, Undisturbed], folder: Path) -> Undisturbed:
    if name not in done:
        place = laid(STAGES[name], given, folder / name)
        outcome = call(STAGES[name].first(given, place), place)
        assert outcome.status == 0, outcome.said
        done[name] = place, outcome.operations
    return done[name]


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
def test_ended_at_any_moment(
    name: str,
    ill: str,
    number: int,
    given: Given,
    undisturbed: dict[str, Undisturbed],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    expected, operations = whole_call(name, given, undisturbed, tmp_path_factory.getbasetemp())
    moment = moment_of(ill, number, name, operations)
    end_and_go_on(name, given, tmp_path / name, expected, ill, moment)


def end_and_go_on(name: str, given: Given, place: Path, expected: Path, ill: str, moment: int) -> None:
    stage = STAGES[name]
    laid(stage, given, place)
    ended = call(stage.first(given, place), place, ill, moment)
    assert ended.status in ENDS[ill], ended.said
    assert "Traceback" not in ended.said
    for path in files_of(place):
        content(path)
    again = call((stage.again or stage.first)(given, place), place)
    assert again.status == 0, again.said
    assert difference(place, expected) == ""
    left = [path.name for path in place.rglob(".*")]
    assert not left
