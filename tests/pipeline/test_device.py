from __future__ import annotations

import contextlib
import mmap
import platform
import subprocess
import sys

import pytest
import torch

from pipeline import device
from pipeline.device import available_memory_gb, place_network, select_device, select_precision
from pipeline.errors import RequestError


def test_devices_by_name() -> None:
    assert select_device("cpu") == torch.device("cpu")
    assert select_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for wrong in ("gpu", "mps:0", "cuda:77", "meta"):
        with pytest.raises(RequestError, match=wrong):
            select_device(wrong)


@pytest.mark.parametrize(("has", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bfloat16_only_where_the_cpu_has_it(has: bool, expected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: has)
    assert select_precision("auto", "cpu").dtype == expected


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone can be told")
@pytest.mark.parametrize(("options", "megabytes"), [("", 16), ("large=True", 64)])
def test_freed_memory_is_kept_for_the_next_tensor(options: str, megabytes: int) -> None:
    """A tensor freed and made again: page faults for the first few, not for all ten."""
    program = (
        "import resource, torch\n"
        "from pipeline.device import keep_freed_memory\n"
        f"assert keep_freed_memory({options})\n"
        f"torch.ones({megabytes} * 2**18)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        f"for _ in range(10): torch.ones({megabytes} * 2**18)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    pages = megabytes * 2**20 // mmap.PAGESIZE
    assert int(done.stdout) < 5 * pages
