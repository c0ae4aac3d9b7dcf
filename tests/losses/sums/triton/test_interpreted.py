"""The GPU kernels under Triton's interpreter, on the CPU: their arithmetic, not their speed."""

from __future__ import annotations

import pytest

from tests.interpreted import INTERPRETED

if INTERPRETED:
    import torch

    from rarevox.losses import Columns, overlap_sums
    from rarevox.losses.sums.chunks import Volume
    from rarevox.losses.sums.triton.overlap import TritonKernels
    from tests.bounds import assert_within, random_sum_bound, sum_bound, unit_roundoff

    @pytest.mark.parametrize(
        ("classes", "dtype", "weighted", "ignore", "squares"),
        [
            (2, torch.float32, False, None, True),
            (3, torch.bfloat16, True, None, False),
            (5, torch.float32, True, 2, True),
            (10, torch.float16, False, 1, False),
        ],
        ids=str,
    )
    def test_the_kernels_agree_with_torch(classes, dtype, weighted, ignore, squares):
        torch.manual_seed(0)
        logits = (3 * torch.randn(2, classes, 3, 7, 29)).to(dtype).requires_grad_()
        labels = torch.randint(0, classes, (2, 1, 3, 7, 29))
        weight = torch.rand(2, 1, 3, 7, 29) if weighted else None
        columns = Columns(squares=squares, entropy=True)
        table = torch.stack(overlap_sums(logits, labels, weight, ignore_index=ignore, columns=columns))
        kernels = TritonKernels(columns)
        volume = Volume(logits.detach(), labels, weight, ignore_index=ignore)
        sums, extremes = kernels.sums(volume)
        # 609 voxels in float32 in any order, on both sides, and 24 roundings a term.
        a_term = sum_bound(24, torch.float32)
        bound = 2 * (random_sum_bound(609, torch.float32) + a_term) * table.detach().abs() + a_term
        assert_within(sums, table.detach(), bound)
        assert (extremes.label_low, extremes.label_high) == (0, classes - 1), extremes
        pull = torch.linspace(0.5, 1.5, sums.numel(), dtype=sums.dtype).view(sums.shape)
        (table * pull.to(table.dtype)).sum().backward()
        grad = kernels.gradient(volume, pull)
        rounded = 0.0 if dtype == torch.float32 else unit_roundoff(dtype)
        assert_within(grad, logits.grad, 2 * (2 * a_term + rounded) * logits.grad.abs().max())

    def test_a_logit_that_is_no_number_is_seen():
        torch.manual_seed(0)
        logits = (3 * torch.randn(2, 10, 3, 7, 29)).half()
        labels = torch.randint(0, 10, (2, 1, 3, 7, 29))
        logits[1, 2, 1, 2, 3] = float("nan")
        _, extremes = TritonKernels(Columns(squares=False, entropy=True)).sums(Volume(logits, labels))
        assert extremes.logit_sum != extremes.logit_sum
