"""Modules that need Numba: absent without it, an error where they are broken."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rarevox.compiled import compiled_module, modules, why_plain

NEEDS_NUMBA = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs Numba")
ROOT = Path(modules.__file__).parents[1]


def named_modules() -> list[str]:
    """What `losses` and `networks` name by string: modules that are imported when first used."""
    names = set()
    for path in [*(ROOT / "losses").rglob("*.py"), *(ROOT / "networks").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names |= {node.value} if node.value.startswith("rarevox.") and " " not in node.value else set()
    return sorted(names)


def run(program: str, **environment: str) -> str:
    """What a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was found before is looked for anew, in the test and after it."""
    for function in (compiled_module, why_plain):
        function.cache_clear()
    yield
    for function in (compiled_module, why_plain):
        function.cache_clear()


@NEEDS_NUMBA
def test_a_module_that_is_there() -> None:
    assert compiled_module("rarevox.compiled.team") is sys.modules["rarevox.compiled.team"]


def test_without_numba_a_module_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "has_compiler", lambda: False)
    monkeypatch.delitem(sys.modules, "rarevox.compiled.counter", raising=False)
    assert compiled_module("rarevox.compiled.counter") is None
    assert why_plain() == "Numba is not installed"


@pytest.mark.parametrize("error", [ImportError("Numba needs NumPy 9"), OSError("no library llvmlite")])
def test_a_numba_that_does_not_import_is_told(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numba.py").write_text(f"raise {error!r}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    with pytest.warns(RuntimeWarning, match=str(error)):
        assert compiled_module("rarevox.compiled.counter") is None
    assert str(error) in str(why_plain())


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
@pytest.mark.parametrize("name", named_modules())
def test_a_module_that_is_named_is_there(name: str) -> None:
    assert compiled_module(name) is not None


def test_all_kernels_are_named() -> None:
    """Kernels that nothing names are never taken."""
    kernels = {
        "rarevox." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("losses", "networks")
        for path in (ROOT / package).rglob("cpu/**/kernels.py")
    }
    assert kernels
    assert kernels <= set(named_modules())


@NEEDS_NUMBA
def test_without_a_place_for_compiled_code_the_plain_path_is_taken() -> None:
    """Numba keeps code beside the source, in the user's cache or where NUMBA_CACHE_DIR says."""
    said = run(
        "from numba.core import caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from rarevox.compiled import compiled_module, why_plain\n"
        f"print([compiled_module(name) for name in {named_modules()}], why_plain())"
    )
    assert said.startswith(str([None] * len(named_modules())))
    assert "Numba finds no folder" in said


@NEEDS_NUMBA
def test_a_numba_that_is_told_not_to_compile() -> None:
    assert "NUMBA_DISABLE_JIT" in run(
        "from rarevox.compiled import why_plain; print(why_plain())", NUMBA_DISABLE_JIT="1"
    )


PLAIN = """
import sys
for name in ("numba", "llvmlite"):
    sys.modules[name] = None  # importing it is an error, as where it is not installed
import torch
from rarevox.compiled import why_plain
from rarevox.losses import GeneralizedDiceCELoss
from rarevox.networks import HighResNet
logits = HighResNet(in_channels=1, out_channels=2, spatial_dims=3)(torch.zeros(1, 1, 8, 8, 8))
GeneralizedDiceCELoss()(logits, torch.zeros(1, 1, 8, 8, 8)).backward()
print(why_plain())
"""


def test_without_numba_networks_and_losses_work() -> None:
    assert run(PLAIN) == "Numba is not installed"
