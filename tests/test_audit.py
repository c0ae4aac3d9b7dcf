"""Dependencies: what is asked about their holes, bounds above the holes that are known, pins within the bounds."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests import audit

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
MENDED = {
    "click": "8.3.3",  # CVE-2026-7246
    "jinja2": "3.1.6",  # CVE-2025-27516
    "mlflow-skinny": "3.13",  # CVE-2026-2635, CVE-2026-8147
    "monai": "1.6.1",
    "pillow": "12.3",  # PYSEC-2026-2253 to 2257 and 3451 to 3453
    "pytest": "9.0.3",  # CVE-2025-71176
    "setuptools": "78.1.1",  # CVE-2025-47273
    "torch": "2.12.1",  # CVE-2025-3000
}
"""The first versions without the holes that advisories knew when the bounds were last looked at."""


def test_the_examples() -> None:
    assert doctest.testmod(audit).failed == 0


@pytest.mark.parametrize("name", MENDED)
def test_no_bound_admits_a_version_with_a_known_hole(name: str) -> None:
    bounds = [pin.partition("==")[2] for pin in audit.lowest(PYPROJECT) if pin.startswith(f"{name}==")]
    assert bounds and all(Version(bound) >= Version(MENDED[name]) for bound in bounds)


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_each_python_has_one_pin_of_each_package_within_the_bounds(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    pins = [pin for pin in PINS if pin.marker is None or pin.marker.evaluate(environment)]
    versions = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    assert len(versions) == len(pins)
    for bound in audit.lowest(PYPROJECT):
        name, _, low = bound.partition("==")
        if name == "triton":  # each CUDA build of PyTorch asks for one version, and CPU builds for none
            continue
        assert Version(versions[canonicalize_name(name)]) >= Version(low), name


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (None, 2),
        ({"dependencies": [{"name": "a", "skip_reason": "not found"}]}, 2),
        ({"dependencies": [{"name": "a", "skip_reason": "not found"}, {"name": "b", "version": "1", "vulns": []}]}, 2),
        ({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}, 0),
        (
            {
                "dependencies": [
                    {"name": "a", "version": "1", "vulns": [{"id": "X", "aliases": [], "fix_versions": []}]}
                ]
            },
            1,
        ),
    ],
    ids=["no answer", "no package known", "some not known", "clean", "a hole"],
)
def test_silence_is_no_clean_bill(
    answer: dict[str, Any] | None, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "ask", lambda _: answer)
    assert audit.main() == status
    said = capsys.readouterr()
    # A line for each of the two lists, and one sentence where there is no answer.
    nothing = answer is None or all("skip_reason" in one for one in answer["dependencies"])
    assert len((said.err if status == 2 else said.out).splitlines()) == (1 if nothing else 2)
    assert said.err.startswith("make audit: the service of advisories (PyPI) gave no answer") is nothing
