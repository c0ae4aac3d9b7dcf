"""What this machine computes with, and what is known to go wrong with it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from rarevox.compiled import why_alone, why_plain
from rarevox.losses.sums.triton import overlap as triton
from rarevox.pipeline.bundle import version
from rarevox.pipeline.console import console
from rarevox.pipeline.data.dataset import DATASET_FILE
from rarevox.pipeline.device import (
    available_memory_gb,
    cpu_has_bfloat16,
    cpu_has_matrix_units,
    select_device,
    select_precision,
)
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.extras import EXTRAS, install, missing
from rarevox.pipeline.storage.prune import describe_cache

PACKAGES = ("rarevox", "torch", "monai", "pytorch-ignite", "numpy", "scipy", "nibabel", "simpleitk", "nilearn")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: the name of the check.
        ok: False is a problem that the advice addresses.
        said: the value found.
        advice: what to do about it.
    """

    what: str
    ok: bool
    said: str
    advice: str = ""


def torch_version() -> Finding:
    """torch 2.9.0 ran bfloat16 and mixed-precision 3D convolutions up to four times slower than its neighbours."""
    bad = version("torch").startswith("2.9.0")
    return Finding(
        "torch",
        not bad,
        torch.__version__,
        "install another torch: 2.9.0 is slow in bf16 3D convolutions" if bad else "",
    )


def cpu_bfloat16() -> Finding:
    """Tells which precision ``auto`` takes on this CPU, and why."""
    if cpu_has_matrix_units():
        said = "in matrix units (AMX): 'auto' takes it"
    elif cpu_has_bfloat16():
        said = "in hardware (AVX512-BF16): 'auto' takes it"
        if why_plain() is None:
            said += ", but float32 for HighResNet and DeepMedic (3D), which compute faster in that"
    else:
        said = "emulated: 'auto' takes float32 on this CPU"
    return Finding("CPU bfloat16", True, said)


def cpu_kernels() -> Finding:
    """Tells whether the compiled convolutions and losses are taken on the CPU, and why not."""
    reason = why_plain()
    if reason is None and (alone := why_alone()) is not None and torch.get_num_threads() > 1:
        advice = "install PyTorch's own wheel for Linux (pip install torch), whose threads are shared"
        return Finding("CPU kernels", False, f"compiled by Numba, on one thread: {alone}", advice)
    if reason is None:
        said = "compiled by Numba: float32 convolutions, 1³ layers, norms and losses"
        return Finding("CPU kernels", True, f"{said}, on {torch.get_num_threads()} threads")
    advice = "install Numba beside rarevox (pip install numba): without it PyTorch's operations are taken, slower"
    return Finding("CPU kernels", False, f"plain PyTorch: {reason}", advice)


def loss_kernels() -> Finding:
    """Tells whether the fused losses are taken on CUDA, and why not."""
    reason = triton.why_none()
    if reason is None:
        return Finding("CUDA losses", True, "fused, by Triton: up to 256 classes")
    advice = "install Triton and a C compiler (gcc): without them losses take more memory and time"
    return Finding("CUDA losses", False, f"plain PyTorch: {reason}", advice)


def float32_on_cuda() -> Finding:
    """Tells what float32 means on CUDA: cuDNN would round the factors of convolutions to TF32 unless told otherwise."""
    said = "float32 throughout; TF32 only where precision#name=tf32 asks for it"
    return Finding("CUDA float32", True, said)


def shared_memory() -> Finding:
    """Loader workers pass batches through /dev/shm; containers often leave it 64 MB."""
    try:
        stat = os.statvfs("/dev/shm")
        size_gb = stat.f_frsize * stat.f_blocks / 1e9
    except OSError:
        return Finding("/dev/shm", True, "absent")
    advice = "give the container more (--shm-size=8g) or keep `workers: 0`" if size_gb < 1 else ""
    return Finding("/dev/shm", size_gb >= 1, f"{size_gb:.1f} GB", advice)


def convolution(device: torch.device) -> Finding:
    """A 3³ convolution in the precision that ``auto`` takes must agree with float64 on the CPU.

    Some cuDNN versions computed bfloat16 3D convolutions wrongly; the error allowed is that of the number format
    (2⁻⁸ for bfloat16 and 2⁻¹⁰ for float16 and TF32, times 8 for the sum of products).
    """
    precision = select_precision("auto", device)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 16, 20, 20, 20, generator=generator)
    kernel = torch.randn(16, 16, 3, 3, 3, generator=generator) / 432**0.5
    exact = torch.nn.functional.conv3d(image.double(), kernel.double(), padding=1)
    inputs = (
        image.to(device, memory_format=torch.channels_last_3d),
        kernel.to(device, memory_format=torch.channels_last_3d),
    )
    began = time.perf_counter()
    with torch.inference_mode(), precision.autocast():
        found = torch.nn.functional.conv3d(*inputs, padding=1).double().cpu()
    seconds = time.perf_counter() - began
    error = float((found - exact).abs().max())
    limit = 8 * {torch.bfloat16: 2**-8, torch.float16: 2**-10}.get(precision.dtype, 2**-10)
    advice = "" if error < limit else "set precision#name=float32, and install another torch or cuDNN"
    name = str(precision.dtype).removeprefix("torch.")
    return Finding(
        f"3D convolution, {device.type} {name}", error < limit, f"error {error:.1e}, {1000 * seconds:.1f} ms", advice
    )


def extras() -> list[Finding]:
    """Tells which of the packages that further commands take are installed, and how the others are."""
    found = []
    for name, (purpose, _) in EXTRAS.items():
        lacking = missing(name)
        state = f"not installed ({', '.join(lacking)})" if lacking else "installed"
        advice = f"if wanted, {install(name)}" if lacking else ""
        found.append(Finding(f"extra {name}", True, f"for {purpose}: {state}", advice))
    return found


def examine() -> list[Finding]:
    """All findings."""
    device = select_device()
    found = [torch_version(), cpu_bfloat16(), cpu_kernels(), shared_memory(), convolution(torch.device("cpu"))]
    if device.type == "cuda":
        found += [convolution(device), float32_on_cuda(), loss_kernels()]
    return found + extras()


def facts() -> dict[str, Any]:
    """Versions and devices, also for result files."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        **{name: version(name) for name in PACKAGES},
        "cpu": f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, threads: {torch.get_num_threads()}",
        "memory": f"{available_memory_gb(torch.device('cpu')):.1f} GB available",
        "cuda": ", ".join(devices) or "none",
    }


def cache_folder(path: Path) -> Path:
    """The folder of prepared cases of a dataset, or the one that is given.

    Raises:
        RequestError: there is no such folder.
    """
    if not path.is_dir():
        raise RequestError(f"{path} does not exist; give a prepared dataset or a folder of prepared cases (cache_dir)")
    return path / "cache" if (path / DATASET_FILE).is_file() else path


def doctor(datasets: Sequence[Path] = ()) -> int:
    """Print facts and findings, and the size of the datasets' caches; status 1 where something needs attention.

    Raises:
        RequestError: a dataset that is not there.
    """
    folders = [cache_folder(path) for path in datasets]
    table = Table(show_header=False, box=None)
    for name, value in facts().items():
        table.add_row(name, str(value))
    console.print(table)
    for folder in folders:
        console.print(f"cache {folder}: {describe_cache(folder)}")
    findings = examine()
    for finding in findings:
        advice = f" — {finding.advice}" if finding.advice else ""
        said = (finding.what, finding.said, advice)
        if finding.ok:
            console.say("[green]ok[/]   {}: {}{}", *said)
        else:
            console.say("[red]look[/] {}: {}{}", *said)
    return 0 if all(finding.ok for finding in findings) else 1
