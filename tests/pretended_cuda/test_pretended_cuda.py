"""The discipline of the CUDA path: each group of checks in `inside/` runs in a process in which CUDA is pretended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

HERE = Path(__file__).parent
CHECKS = sorted(path.stem for path in (HERE / "inside").glob("check_*.py"))


@pytest.fixture(scope="session")
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


@pytest.mark.parametrize("checks", CHECKS)
def test_on_a_pretended_device(library, checks):
    options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "python_files=check_*.py"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TRITON_"))}
    done = subprocess.run(
        [sys.executable, str(HERE / "start.py"), str(library), *options, str(HERE / "inside" / f"{checks}.py")],
        cwd=HERE.parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-3000:]
