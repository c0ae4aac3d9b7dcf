"""That the runs of the numerics for other machines (`make numerics`) are what they say, and not the first run again.

`ONEDNN_MAX_CPU_ISA`, `ATEN_CPU_CAPABILITY` and `NUMBA_CPU_NAME` are read by oneDNN, PyTorch and Numba when they start;
a new version that reads them no more, or another library that takes a kernel's place, would go unseen.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys

import pytest
import torch

from rarevox.compiled import compiled_module, has_compiler

X86 = platform.machine().lower() in ("x86_64", "amd64")


@pytest.fixture
def older(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--older-cpu"):
        pytest.skip("for the run with --older-cpu")


@pytest.mark.usefixtures("older")
@pytest.mark.skipif(not X86, reason="the settings are for CPUs of Intel and AMD")
def test_pytorch_takes_the_kernels_of_avx2_at_most() -> None:
    assert torch.backends.cpu.get_cpu_capability() in ("AVX2", "DEFAULT")


@pytest.mark.usefixtures("older")
@pytest.mark.skipif(not X86, reason="the settings are for CPUs of Intel and AMD")
def test_onednn_takes_the_kernels_of_avx2_at_most() -> None:
    """What it says about itself, and the kernels that it says it ran."""
    program = (
        "import torch\n"
        "for dtype in (torch.float32, torch.bfloat16):\n"
        "    x, weight = torch.randn(2, 16, 8, 8, 8, dtype=dtype), torch.randn(16, 16, 3, 3, 3, dtype=dtype)\n"
        "    torch.nn.functional.conv3d(x, weight)\n"
    )
    environment = os.environ | {"ONEDNN_VERBOSE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.lower().splitlines()
    assert any("info,cpu,isa:" in line for line in lines), done.stdout
    assert any(",exec,cpu,convolution," in line for line in lines), done.stdout
    assert not any("avx512" in line.replace("-", "") or "amx" in line or "avx10" in line for line in lines), done.stdout


@pytest.mark.usefixtures("older")
@pytest.mark.skipif(not has_compiler(), reason="needs Numba")
def test_numba_compiles_for_a_cpu_without_extensions() -> None:
    from numba.core.registry import cpu_target

    codegen = cpu_target.target_context.codegen()
    assert codegen._get_host_cpu_name() == "generic"
    assert codegen.magic_tuple()[1] == "generic", "the index of kept code"
    if X86:
        assert not re.search(r"\b[yz]mm\d", assembly_of_a_sum()), "registers of AVX and AVX-512"


def assembly_of_a_sum() -> str:
    """The instructions of a loop that LLVM turns into vectors as wide as it may."""
    import numba

    @numba.njit(fastmath=True)
    def total(values):
        found = numba.float32(0)
        for i in range(len(values)):
            found += values[i] * values[i]
        return found

    total.compile("(float32[::1],)")
    (text,) = total.inspect_asm().values()
    assert re.search(r"\b[xyz]mm\d", text) or not X86
    return str(text)


def test_without_numba_is_without_numba(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--without-numba"):
        pytest.skip("for the run with --without-numba")
    assert not has_compiler()
    assert compiled_module("rarevox.networks.cpu.winograd.kernels") is None
