"""The image's recipe, read: a user without rights, all that it copies is there, all packages are copied."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def steps() -> list[tuple[str, str]]:
    """Instructions with their arguments, lines joined and comments left out."""
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = lines.replace("\\\n", " ").splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined if line.strip()]


def test_it_runs_as_a_user_without_rights() -> None:
    last = max(n for n, (word, _) in enumerate(steps()) if word == "FROM")
    final = steps()[last:]
    users = [value for word, value in final if word == "USER"]
    assert users
    assert all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", value) for value in users)
    entry = next(value for word, value in final if word == "ENTRYPOINT")
    assert json.loads(entry) == ["rarevox"]  # no shell between
    after = [word for word, _ in final[[word for word, _ in final].index("USER") :]]
    assert "RUN" not in after


def test_all_that_it_copies_is_there_and_all_packages_are_copied() -> None:
    copied: set[str] = set()
    for word, value in steps():
        assert word != "ADD"
        if word == "COPY" and "--from" not in value:
            copied |= set(value.split()[:-1])
    assert all((ROOT / name).exists() for name in copied)
    packages = project()["tool"]["setuptools"]["packages"]
    assert {name.split(".")[1] for name in packages} <= copied


def test_all_that_is_written_besides_results_goes_to_tmp_and_no_hub_is_asked() -> None:
    last = max(n for n, (word, _) in enumerate(steps()) if word == "FROM")
    said = dict(pair.split("=", 1) for word, value in steps()[last:] if word == "ENV" for pair in value.split())
    places = ("HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "TORCH_HOME")
    assert all(said[name] == "/tmp" or said[name].startswith("/tmp/") for name in places)
    assert said["HF_HUB_OFFLINE"] == "1"
    assert said["PATH"].startswith("/opt/rarevox/bin:")


def test_the_command_that_it_enters_by_is_installed() -> None:
    entry = next(value for word, value in steps() if word == "ENTRYPOINT")
    assert set(json.loads(entry)) <= set(project()["project"]["scripts"])


def test_its_extras_are_declared() -> None:
    extras = project()["project"]["optional-dependencies"]
    install = next(value for word, value in steps() if word == "RUN" and "'.[" in value)
    named = re.search(r"'\.\[([a-z,]+)\]'", install)
    assert named
    assert set(named[1].split(",")) <= set(extras)


def test_nothing_that_is_left_out_is_copied() -> None:
    ignored = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    copied = {
        name for word, value in steps() if word == "COPY" and "--from" not in value for name in value.split()[:-1]
    }
    assert not copied & set(ignored)
