"""The GPU kernels compiled for compute capability 9.0, without a device: registers a thread, and none that spill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rarevox.losses.sums.chunks import Volume
from rarevox.losses.sums.table import Columns
from rarevox.losses.sums.triton import kernels, overlap
from tests.assembled import REGISTERS, assembled

triton = pytest.importorskip("triton", reason="needs Triton")
pytestmark = pytest.mark.skipif(not hasattr(kernels.triton, "compile"), reason="needs Triton's compiler")

# Programs of 128 threads: three of the sums at a time, two of the gradient.
MOST_REGISTERS = {"sums_kernel": REGISTERS // (3 * 128), "gradient_kernel": REGISTERS // (2 * 128)}


def used(name: str, volume: Volume, tmp_path: Path) -> tuple[int, int]:
    """Registers a thread and bytes spilled."""
    padded = triton.next_power_of_2(volume.classes)
    elements = overlap.SUMS_ELEMENTS
    if name == "gradient_kernel":
        elements = overlap.GRADIENT_ELEMENTS if padded < overlap.MANY else overlap.GRADIENT_ELEMENTS_OF_MANY
    options: dict[str, Any] = overlap._options(volume, Columns(), padded, overlap._tile(padded, elements))
    types = {"logits": "*bf16", "grad": "*bf16", "labels": "*u8"}
    types |= dict.fromkeys(("weight", "entropy_weight", "partial", "seen", "grad_sums"), "*fp32")
    return assembled(getattr(kernels, name), types, options, tmp_path)


@pytest.mark.parametrize(
    ("classes", "layout"),
    [
        (2, "flat"),
        (2, "sigmoid"),
        (3, "flat"),
        (3, "crop"),
        (8, "weights"),
        (32, "flat"),
        (32, "crop"),
        (32, "weights"),
    ],
)
@pytest.mark.parametrize("name", ["sums_kernel", "gradient_kernel"])
def test_registers_suffice(name, classes, layout, tmp_path):
    channels = 1 if layout == "sigmoid" else classes
    logits = torch.zeros(2, channels, 8, 8, 8, dtype=torch.bfloat16)
    labels = torch.zeros(2, 1, 8, 8, 8, dtype=torch.uint8)
    weight = torch.ones(2, 1, 8, 8, 8) if layout == "weights" else None
    if layout == "crop":
        logits, labels = logits[..., 1:-1], labels[..., 1:-1]
    volume = Volume(logits, labels, weight, weight, sigmoid=layout == "sigmoid")
    registers, spilled = used(name, volume, tmp_path)
    assert spilled == 0 and registers <= MOST_REGISTERS[name], (registers, spilled)
