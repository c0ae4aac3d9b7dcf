"""The GPU kernels against the PyTorch path."""

from __future__ import annotations

import pytest
import torch

from rarevox.losses import Columns, GeneralizedDiceCELoss, NonFiniteLogitsError, overlap_sums
from rarevox.losses.sums.chunks import Volume
from rarevox.losses.sums.triton import overlap
from tests.bounds import assert_within, random_sum_bound, sum_bound, unit_roundoff

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def both_paths(monkeypatch, logits, labels, weight, **options):
    """(table, gradient of a mixture of its columns) with the kernels and without."""
    results = []
    for allowed in (True, False):
        if not allowed:
            monkeypatch.setattr(overlap, "fits", lambda *_: False)
        leaf = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        table = torch.stack(tuple(overlap_sums(leaf, labels, weight, **options)))
        mixture = torch.linspace(0.5, 1.5, table.numel(), device=table.device, dtype=table.dtype).view(table.shape)
        (table * mixture).sum().backward()
        results.append((table.detach(), leaf.grad))
    return results


@pytest.mark.parametrize("classes", [2, 3, 5, 10, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", ["plain", "weight", "ignore", "channels_last", "no squares"])
def test_kernels_agree_with_torch(printed, monkeypatch, classes, dtype, variant):
    pytest.importorskip("triton")
    logits, labels, weight = (tensor.cuda() for tensor in printed.example((2, classes, 9, 17, 31), dtype=dtype))
    options = {"ignore_index": 1} if variant == "ignore" else {}
    if variant == "no squares":
        options["columns"] = Columns(squares=False, entropy=True)
    if variant == "channels_last":
        logits = logits.contiguous(memory_format=torch.channels_last_3d)
    assert overlap.fits(Volume(logits, labels), Columns())
    (table, grad), (expected, expected_grad) = both_paths(
        monkeypatch, logits, labels, weight if variant in ("weight", "ignore") else None, **options
    )
    # All of the voxels in float32 in any order, on both sides, and 14 roundings a term besides those of the classes.
    voxels, a_term = logits[0, 0].numel(), sum_bound(14 + classes, torch.float32)
    assert_within(table, expected, 2 * (random_sum_bound(voxels, torch.float32) + a_term) * expected.abs() + a_term)
    # Over the largest: twice the float32 arithmetic of a term on both sides, and both rounded to the logits' type.
    rounded = 0.0 if dtype == torch.float32 else unit_roundoff(dtype)
    assert_within(grad, expected_grad, 2 * (2 * a_term + rounded) * expected_grad.abs().max())


def test_cpu_and_gpu_agree(printed):
    logits, labels, weight = printed.example((2, 4, 12, 13, 14), dtype=torch.float32)
    loss = GeneralizedDiceCELoss(batch=True)
    on_gpu = loss(logits.cuda(), labels.cuda(), weight.cuda())
    # Ratios of sums over all voxels in any order, on both sides: a few such errors.
    rtol = 4 * random_sum_bound(logits[:, 0].numel(), torch.float32)
    torch.testing.assert_close(on_gpu.cpu(), loss(logits, labels, weight), rtol=rtol, atol=0)


def test_bad_values_are_refused_on_the_gpu(printed):
    logits, labels, _ = (tensor.cuda() for tensor in printed.example(dtype=torch.float32))
    with pytest.raises(ValueError, match="labels reach from 1 to 3"):
        overlap_sums(logits, labels + 1)
    logits[1, 2, 3, 4, 5] = float("nan")
    with pytest.raises(NonFiniteLogitsError):
        overlap_sums(logits, labels)
