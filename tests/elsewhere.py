"""Test files run by one process of another kind and judged file by file: to start such a process costs seconds."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
OPTIONS = ("-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist")


class Elsewhere:
    """What came of test files in a process of their own.

    Args:
        command: what starts pytest there, without options.
        files: to run.
        folder: for the report.
        without: beginnings of environment variables that the process does not get.
        environment: further variables that it gets.
    """

    def __init__(
        self,
        command: Sequence[str],
        files: Sequence[Path],
        folder: Path,
        *,
        without: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        left_out = ("PYTEST_", *without)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        report = folder / "report.xml"
        done = subprocess.run(
            [*command, *OPTIONS, f"--junitxml={report}", *map(str, files)],
            cwd=ROOT,
            env={**inherited, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        self._said = f"status {done.returncode}\n{done.stdout[-8000:]}\n{done.stderr[-6000:]}"
        self._cases: dict[Path, list[str | None]] = defaultdict(list)
        for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
            for file in files:
                if f"{case.get('classname')}.".startswith(f"{_dotted(file)}."):
                    self._cases[file].append(_outcome(case))
        failed = any(outcome for outcomes in self._cases.values() for outcome in outcomes)
        # Status 1 is of failed tests, of which there must be one to blame; any other means that not all has run.
        self._whole = done.returncode == (1 if failed else 0)

    def require(self, file: Path) -> None:
        """Hold one of the files to account.

        Raises:
            AssertionError: a test of it failed or none of it ran, or the process did not come to its end.
        """
        assert self._whole, self._said
        failures = [outcome for outcome in self._cases[file] if outcome]
        assert not failures, "\n\n".join(failures)[-12000:]
        assert "" in self._cases[file], f"nothing of {file} ran; {self._said}"


def asked_for(request: pytest.FixtureRequest, parameter: str) -> list[Any]:
    """The values of a parameter with which tests of this file are to run: all of them, or those that were chosen."""
    chosen = [item for item in request.session.items if item.path == request.path and parameter in item.fixturenames]
    return [item.callspec.params[parameter] for item in chosen]


def _dotted(file: Path) -> str:
    """A file as a report names it."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


def _outcome(case: ElementTree.Element) -> str | None:
    """How a test failed; nothing where it passed, None where it was skipped."""
    for one in case:
        if one.tag in ("failure", "error"):
            return f"{case.get('name')}: {one.text or one.get('message')}"
    return None if case.find("skipped") is not None else ""
