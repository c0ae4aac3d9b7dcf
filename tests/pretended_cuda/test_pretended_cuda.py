"""The discipline of the CUDA path: the groups of checks in `inside/` run in a process in which CUDA is pretended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

from tests.elsewhere import Elsewhere, asked_for

HERE = Path(__file__).parent
CHECKS = sorted((HERE / "inside").glob("check_*.py"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`hooks.cpp`, compiled against the installed PyTorch."""
    if torch.version.cuda is not None or torch.version.hip is not None:
        pytest.skip("this PyTorch has a CUDA of its own: `pytest -m gpu` is the test")
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C++ compiler")
    built = tmp_path_factory.mktemp("pretended") / "libpretended.so"
    folders = [f"-I{folder}" for folder in cpp_extension.include_paths()]
    linked = [f"-L{folder}" for folder in cpp_extension.library_paths()]
    command = [compiler, "-O0", "-shared", "-fPIC", "-std=c++20", *folders, str(HERE / "hooks.cpp")]
    done = subprocess.run(
        [*command, *linked, "-ltorch_cpu", "-lc10", "-o", str(built)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return built


@pytest.fixture(scope="module")
def pretended(library: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """The checks that are asked for, done."""
    command = [sys.executable, str(HERE / "start.py"), str(library), "-o", "python_files=check_*.py"]
    folder = tmp_path_factory.mktemp("pretended")
    return Elsewhere(command, asked_for(request, "checks"), folder, without=("TRITON_",))


@pytest.mark.parametrize("checks", CHECKS, ids=lambda path: path.stem)
def test_on_a_pretended_device(pretended, checks):
    pretended.require(checks)
