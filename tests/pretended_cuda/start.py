"""The process in which CUDA is pretended: `python start.py LIBRARY [arguments of pytest]`.

The library (`hooks.cpp`) must be loaded before PyTorch, whose registries it fills, and after what it is linked to.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path


def load(library: str) -> None:
    """Load PyTorch's CPU library for all to see, then the pretended CUDA."""
    assert "torch" not in sys.modules, "PyTorch looks its hooks up once, when it is imported"
    found = importlib.util.find_spec("torch")
    assert found is not None and found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0]) / "lib"
    for needed in (*sorted(folder.glob("libgomp*")), folder / "libtorch_cpu.so", Path(library)):
        ctypes.CDLL(str(needed), ctypes.RTLD_GLOBAL)


if __name__ == "__main__":
    load(sys.argv[1])
    # This folder came first on the path as the script's own; the checks import `tests`.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    import pytest

    from tests.pretended_cuda.inside.device import pretend

    pretend()
    sys.exit(pytest.main(sys.argv[2:]))
