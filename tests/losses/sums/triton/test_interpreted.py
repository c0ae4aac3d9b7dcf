"""The GPU kernels under Triton's interpreter, on the CPU: their arithmetic, not their speed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rarevox import losses

SCRIPT = """
import torch
from rarevox.losses import Columns, overlap_sums
from rarevox.losses.sums.chunks import Volume
from rarevox.losses.sums.triton.overlap import TritonKernels
from tests.bounds import assert_within, random_sum_bound, sum_bound, unit_roundoff

torch.manual_seed(0)
for classes, dtype, weighted, ignore, squares in (
    (2, torch.float32, False, None, True),
    (3, torch.bfloat16, True, None, False),
    (5, torch.float32, True, 2, True),
    (10, torch.float16, False, 1, False),
):
    logits = (3 * torch.randn(2, classes, 3, 7, 29)).to(dtype).requires_grad_()
    labels = torch.randint(0, classes, (2, 1, 3, 7, 29))
    weight = torch.rand(2, 1, 3, 7, 29) if weighted else None
    columns = Columns(squares=squares, entropy=True)
    table = torch.stack(overlap_sums(logits, labels, weight, ignore_index=ignore, columns=columns))
    kernels = TritonKernels(columns)
    sums, extremes = kernels.sums(Volume(logits.detach(), labels, weight, ignore_index=ignore))
    # 609 voxels in float32 in any order, on both sides, and 24 roundings a term.
    a_term = sum_bound(24, torch.float32)
    bound = 2 * (random_sum_bound(609, torch.float32) + a_term) * table.detach().abs() + a_term
    assert_within(sums, table.detach(), bound)
    assert (extremes.label_low, extremes.label_high) == (0, classes - 1), extremes
    pull = torch.linspace(0.5, 1.5, sums.numel(), dtype=sums.dtype).view(sums.shape)
    (table * pull.to(table.dtype)).sum().backward()
    grad = kernels.gradient(Volume(logits.detach(), labels, weight, ignore_index=ignore), pull)
    rounded = 0.0 if dtype == torch.float32 else unit_roundoff(dtype)
    assert_within(grad, logits.grad, 2 * (2 * a_term + rounded) * logits.grad.abs().max())
broken = logits.detach().clone()
broken[1, 2, 1, 2, 3] = float("nan")
_, extremes = kernels.sums(Volume(broken, labels))
assert extremes.logit_sum != extremes.logit_sum
print("agrees")
"""


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton, which comes with CUDA builds of torch"
)
def test_the_kernels_agree_with_torch() -> None:
    root = Path(losses.__file__).parents[1]
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=root, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "agrees", done.stderr
