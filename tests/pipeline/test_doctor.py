"""What `doctor` says about the kernels of the CPU: that they are compiled, or why they are not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rarevox.compiled import compiled_module, modules, why_plain
from rarevox.pipeline import doctor as module
from rarevox.pipeline.doctor import Finding, cpu_bfloat16, cpu_kernels, doctor, extras
from rarevox.pipeline.extras import EXTRAS


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was found before is looked for anew, in the test and after it."""
    for function in (compiled_module, why_plain):
        function.cache_clear()
    yield
    for function in (compiled_module, why_plain):
        function.cache_clear()


def test_compiled_kernels_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "why_plain", lambda: None)
    found = cpu_kernels()
    assert found.ok
    assert "compiled by Numba" in found.said
    assert not found.advice


def test_extras_are_told_with_what_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing", lambda name: ["highdicom"] if name == "dicom" else [])
    told = {finding.what: finding for finding in extras()}
    assert set(told) == {f"extra {name}" for name in EXTRAS}
    assert "not installed (highdicom)" in told["extra dicom"].said
    assert "'.[dicom]' in the checkout" in told["extra dicom"].advice
    assert told["extra serve"].said == "for rarevox serve: installed"
    assert not told["extra serve"].advice
    assert all(finding.ok for finding in told.values()), "what is not wanted need not be there"


def test_extras_are_those_of_the_package() -> None:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(declared["optional-dependencies"]) - {"docs", "test"}


def test_without_numba_the_reason_is_told_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "has_compiler", lambda: False)
    found = cpu_kernels()
    assert not found.ok
    assert found.said == "plain PyTorch: Numba is not installed"
    assert "pip install numba" in found.advice


def test_that_kernels_run_on_one_thread_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "why_plain", lambda: None)
    monkeypatch.setattr(module, "why_alone", lambda: "a reason")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    found = cpu_kernels()
    assert not found.ok and found.said == "compiled by Numba, on one thread: a reason"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert cpu_kernels().ok


def test_a_numba_that_does_not_import_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "has_compiler", lambda: True)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.warns(RuntimeWarning, match="does not import"):
        found = cpu_kernels()
    assert not found.ok
    assert found.said.startswith("plain PyTorch: Numba is installed and does not import")


def test_no_place_for_compiled_code_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")

    original = importlib.import_module

    def absent(name: str) -> ModuleType:
        if name == "rarevox.compiled.probe":
            raise RuntimeError("cannot cache function 'nothing': no locator available for file 'probe.py'")
        return original(name)

    monkeypatch.setattr(modules.importlib, "import_module", absent)
    found = cpu_kernels()
    assert not found.ok
    assert "no folder that it can keep compiled code in (set NUMBA_CACHE_DIR" in found.said


@pytest.mark.parametrize("reason", [None, "Numba is not installed"])
def test_the_path_of_the_kernels_is_printed_and_decides_the_status(
    reason: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "why_plain", lambda: reason)
    for check in ("torch_version", "shared_memory"):
        monkeypatch.setattr(module, check, lambda: Finding("checked", True, "well"))
    monkeypatch.setattr(module, "convolution", lambda device: Finding("checked", True, "well"))
    assert doctor() == (0 if reason is None else 1)
    printed = " ".join("".join(capsys.readouterr()).split())
    assert f"CPU kernels: {'compiled by Numba' if reason is None else 'plain PyTorch: ' + reason}" in printed


def test_this_machine_s_path_is_the_one_that_the_kernels_take() -> None:
    compiled = compiled_module("rarevox.networks.cpu.winograd.kernels")
    assert cpu_kernels().ok == (compiled is not None)


@pytest.mark.parametrize("reason", [None, "Numba is not installed"])
def test_bfloat16_in_hardware_yields_to_compiled_float32(reason: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "why_plain", lambda: reason)
    monkeypatch.setattr(module, "cpu_has_matrix_units", lambda: False)
    monkeypatch.setattr(module, "cpu_has_bfloat16", lambda: True)
    assert ("but float32 for HighResNet" in cpu_bfloat16().said) == (reason is None)
