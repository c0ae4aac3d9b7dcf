from __future__ import annotations

import contextlib
import mmap
import platform
import subprocess
import sys

import pytest
import torch

from rarevox.networks import DeepMedic, HighResNet
from rarevox.networks.cpu import convolution
from rarevox.networks.cpu.convolution import prefers_float32
from rarevox.pipeline import device
from rarevox.pipeline.device import (
    available_memory_gb,
    cpu_has_bfloat16,
    cpu_has_matrix_units,
    place_network,
    select_device,
    select_precision,
    set_tf32,
)
from rarevox.pipeline.errors import RequestError


def test_devices_by_name() -> None:
    assert select_device("cpu") == torch.device("cpu")
    assert select_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for wrong in ("gpu", "mps:0", "cuda:77", "meta"):
        with pytest.raises(RequestError, match=wrong):
            select_device(wrong)


@pytest.mark.parametrize(
    ("units", "vectors", "kernels", "expected"),
    [
        (True, True, True, "bbbb"),
        (True, False, True, "bbbb"),
        (False, True, True, "bfbb"),
        (False, True, False, "bbbb"),
        (False, False, True, "ffff"),
        (False, False, False, "ffff"),
    ],
)
def test_auto_takes_the_format_in_which_the_cpu_is_fastest(units, vectors, kernels, expected, monkeypatch) -> None:
    """For no network in particular, HighResNet, a HighResNet of few channels and one of two axes: b(float16) or f."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vectors, raising=False)
    monkeypatch.setattr(convolution, "why_plain", lambda: None if kernels else "a reason")
    networks = [None, *(HighResNet(in_channels=1, out_channels=2, **more) for more in ({}, {"width": 4}))]
    networks.append(HighResNet(in_channels=1, out_channels=2, spatial_dims=2))
    found = [select_precision("auto", "cpu", network).dtype for network in networks]
    assert found == [{"b": torch.bfloat16, "f": torch.float32}[letter] for letter in expected]


@pytest.mark.parametrize(
    ("options", "prefers"), [({}, True), ({"channels": (8,) * 8}, False), ({"spatial_dims": 2}, False)]
)
def test_deepmedic_says_whether_float32_kernels_do_its_work(options, prefers, monkeypatch) -> None:
    monkeypatch.setattr(convolution, "why_plain", lambda: None)
    assert prefers_float32(DeepMedic(in_channels=1, out_channels=2, **options)) is prefers
    assert not prefers_float32(torch.nn.Conv3d(1, 1, 3))


def test_a_torch_without_the_probes_has_neither(monkeypatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not cpu_has_bfloat16()
    assert not cpu_has_matrix_units()


@pytest.mark.parametrize("emulated", [True, False])
def test_emulated_bfloat16_is_told_of_once(emulated: bool, monkeypatch, capsys) -> None:
    device._tell_that_it_is_emulated.cache_clear()
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: not emulated)
    for _ in range(2):
        assert select_precision("bfloat16").dtype == torch.bfloat16
        select_precision("auto")
    assert capsys.readouterr().err.count("emulated") == int(emulated)


def test_precisions_by_name() -> None:
    assert isinstance(select_precision("float32").autocast(), contextlib.nullcontext)
    assert isinstance(select_precision("bfloat16").autocast(), torch.autocast)
    assert select_precision("float16", "cuda").needs_scaling
    with pytest.raises(RequestError, match="float8"):
        select_precision("float8")
    with pytest.raises(RequestError, match="CUDA only"):
        select_precision("float16", "cpu")


def test_weights_are_channels_last() -> None:
    network = place_network(torch.nn.Conv3d(4, 5, 3), torch.device("cpu"))
    assert network.weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_available_memory_is_a_plausible_figure() -> None:
    assert 0.05 < available_memory_gb(torch.device("cpu")) < 10_000


def test_available_memory_is_what_the_reader_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rarevox.pipeline.device.available_bytes", lambda: 3e9)
    assert available_memory_gb(torch.device("cpu")) == 3.0
    monkeypatch.setattr("rarevox.pipeline.device.available_bytes", lambda: float("inf"))
    assert available_memory_gb(torch.device("cpu")) == 4.0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone can be told")
@pytest.mark.parametrize(("options", "megabytes"), [("", 16), ("large=True", 64)])
def test_freed_memory_is_kept_for_the_next_tensor(options: str, megabytes: int) -> None:
    """A tensor freed and made again: page faults for the first few, not for all ten."""
    program = (
        "import resource, torch\n"
        "from rarevox.pipeline.device import keep_freed_memory\n"
        f"assert keep_freed_memory({options})\n"
        f"torch.ones({megabytes} * 2**18)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        f"for _ in range(10): torch.ones({megabytes} * 2**18)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    pages = megabytes * 2**20 // mmap.PAGESIZE
    assert int(done.stdout) < 5 * pages


def test_float32_on_cuda_is_float32_unless_tf32_is_asked_for() -> None:
    """The network is called in `autocast`, which says what cuDNN and cuBLAS may do; cuDNN would round by default."""
    torch.backends.cudnn.allow_tf32 = True
    for name, allowed in (("float32", False), ("tf32", True), ("float32", False)):
        with select_precision(name, "cuda").autocast():
            assert torch.backends.cudnn.allow_tf32 is allowed
            assert torch.backends.cuda.matmul.allow_tf32 is allowed
    set_tf32(True)
    assert torch.backends.cudnn.allow_tf32
    set_tf32(False)
    with pytest.raises(RequestError, match="tf32 is of CUDA"):
        select_precision("tf32", "cpu")
