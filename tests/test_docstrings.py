"""The examples in the docstrings of every module run, under the name that users import it by."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("compiled", "losses", "networks", "pipeline", "transforms")
FILES = sorted(file.relative_to(ROOT) for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
WITH_EXAMPLES = [file for file in FILES if ">>> " in (ROOT / file).read_text(encoding="utf-8")]


def test_there_are_examples() -> None:
    assert len(WITH_EXAMPLES) > 50


@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=str)
def test_examples_run(file: Path) -> None:
    parts = file.with_suffix("").parts
    name = ".".join(("rarevox", *(parts[:-1] if parts[-1] == "__init__" else parts)))
    try:
        module = importlib.import_module(name)
    except ImportError as error:  # kernels need Numba or Triton
        pytest.skip(str(error))
    done = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert done.attempted
    assert not done.failed, f"{done.failed} of {done.attempted} examples; see the captured output"
