"""Every file with tests that need Triton's interpreter, run under it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.elsewhere import ROOT, Elsewhere, asked_for

HERE = Path(__file__).parent
FILES = [
    path
    for path in sorted(HERE.parent.rglob("test_*.py"))
    if path.parent != HERE and "from tests.interpreted import" in path.read_text(encoding="utf-8")
]


@pytest.fixture(scope="module")
def interpreted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """The files that are asked for, run by one process."""
    command = [sys.executable, "-m", "pytest"]
    environment = {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    folder = tmp_path_factory.mktemp("interpreted")
    return Elsewhere(command, asked_for(request, "file"), folder, environment=environment)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_under_the_interpreter(interpreted, file):
    interpreted.require(file)


def test_none_is_overlooked():
    """Three files of kernels of networks, two of those of losses."""
    assert len(FILES) >= 5
