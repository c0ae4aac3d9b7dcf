"""`benchmarks/gpu.py`, which is what `make gpu` calls: a part that fails or hangs is told and stops nothing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def command() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rarevox_gpu_command", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_how_a_part_ends_is_told(command) -> None:
    assert command.run([sys.executable, "-c", "print('a figure')"], 60)[::2] == ("done", "a figure\n")
    outcome, _, said = command.run([sys.executable, "-c", "raise SystemExit('no memory')"], 60)
    assert outcome == "failed" and "no memory" in said
    hanging = "import time; print('begun', flush=True); time.sleep(60)"
    outcome, seconds, said = command.run([sys.executable, "-c", hanging], 5)
    assert outcome == "too slow" and said == "begun\n" and 5 <= seconds < 50
    assert command.run([sys.executable, "-c", "print()"], 0) == ("no time left", 0.0, "")


def test_all_parts_fit_into_nine_minutes(command) -> None:
    parts = sum(part.seconds for part in command.PARTS.values())
    assert command.TESTS_SECONDS + parts <= command.BUDGET_SECONDS + 30 <= 9 * 60 + 15


def test_every_benchmark_is_there_and_takes_a_device(command) -> None:
    for part in (*command.PARTS.values(), *command.QUICK.values()):
        source = (ROOT / "benchmarks" / part.script).read_text()
        for option in ("--device", *(["--output"] if part.writes else []), *part.options):
            assert not option.startswith("--") or f'"{option}"' in source, (part.script, option)


def test_without_a_device_nothing_is_begun(command) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit, match="no CUDA device"):
        command.machine("cuda")
