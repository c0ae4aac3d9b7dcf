"""Modules that need Numba: absent without it, an error where they are broken."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rarevox.compiled import compiled_module, modules, why_plain

NEEDS_NUMBA = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs Numba")
KERNELS = [
    "rarevox.losses.sums.cpu.kernels",
    "rarevox.networks.cpu.norm.kernels",
    "rarevox.networks.cpu.pointwise.kernels",
    "rarevox.networks.cpu.winograd.kernels",
]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was found before is looked for anew, in the test and after it."""
    for function in (compiled_module, why_plain):
        function.cache_clear()
    yield
    for function in (compiled_module, why_plain):
        function.cache_clear()


def test_a_module_that_is_there() -> None:
    assert compiled_module("rarevox.compiled.team") is sys.modules["rarevox.compiled.team"]


def test_without_numba_a_module_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "has_compiler", lambda: False)
    monkeypatch.delitem(sys.modules, "rarevox.compiled.counter", raising=False)
    assert compiled_module("rarevox.compiled.counter") is None
    assert why_plain() == "Numba is not installed"


def test_a_numba_that_does_not_import_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "has_compiler", lambda: True)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.warns(RuntimeWarning, match="does not import"):
        assert compiled_module("rarevox.compiled.counter") is None


@NEEDS_NUMBA
def test_a_module_that_is_missing_is_an_error() -> None:
    with pytest.raises(ImportError, match="renamed_kernels"):
        compiled_module("rarevox.networks.cpu.renamed_kernels")


@NEEDS_NUMBA
@pytest.mark.parametrize("error", [ImportError("no name 'vectors'"), RuntimeError("the kernel is broken")])
def test_a_module_that_is_broken_is_an_error(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_kernels.py").write_text(f"raise {error!r}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(type(error), match=str(error)):
        compiled_module("broken_kernels")


@NEEDS_NUMBA
@pytest.mark.parametrize("name", KERNELS)
def test_the_kernels_are_there(name: str) -> None:
    assert compiled_module(name) is not None
    assert f'"{name}"' in "".join(
        path.read_text(encoding="utf-8")
        for package in ("losses", "networks")
        for path in (Path(modules.__file__).parents[1] / package).rglob("*.py")
    )


@NEEDS_NUMBA
def test_without_a_place_for_compiled_code_the_plain_path_is_taken(tmp_path: Path) -> None:
    """Numba keeps code beside the source, in the user's cache or where NUMBA_CACHE_DIR says."""
    program = (
        "from numba.core import caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from rarevox.compiled import compiled_module, why_plain\n"
        f"print(compiled_module({KERNELS[0]!r}), why_plain())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path, env=os.environ
    )
    assert done.stdout.startswith("None Numba finds no folder")
