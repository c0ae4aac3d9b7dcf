"""Which backend makes a table, and that each gives all of its columns."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from rarevox.losses import Columns, SumTable
from rarevox.losses.sums import overlap
from rarevox.losses.sums.chunks import Volume
from rarevox.losses.sums.cpu.overlap import CompiledKernels
from rarevox.losses.sums.pieces import InPieces

NEEDS_NUMBA = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs Numba")


def volume(dtype: torch.dtype = torch.float32, **options) -> Volume:
    return Volume(torch.zeros(1, 2, 8, dtype=dtype), torch.zeros(1, 1, 8, dtype=torch.int64), **options)


@NEEDS_NUMBA
def test_kernels_where_they_fit():
    for differentiable in (False, True):
        chosen = overlap.backend_for(volume(), Columns(), differentiable=differentiable)
        assert isinstance(chosen, CompiledKernels)


@pytest.mark.parametrize(
    ("dtype", "sigmoid", "differentiable", "kept"),
    [
        (torch.float64, False, True, True),
        (torch.float64, False, False, False),  # nobody will ask for the gradient
        (torch.float64, True, True, False),  # one logit, two probabilities
        (torch.float16, False, True, False),  # probabilities are float32, twice the size of the gradient
    ],
)
def test_pieces_keep_the_probabilities_where_these_fit_the_gradient(dtype, sigmoid, differentiable, kept):
    options = {"sigmoid": True} if sigmoid else {}
    logits = torch.zeros(1, 1 if sigmoid else 2, 8, dtype=dtype)
    made = Volume(logits, torch.zeros(1, 1, 8), **options)
    backend = overlap.backend_for(made, Columns(), differentiable=differentiable)
    assert isinstance(backend, InPieces)
    sums, _ = backend.sums(made)
    assert sums.shape == (len(SumTable._fields), 1, 2)
    assert (backend.kept is not None) == kept
    first, second = (backend.gradient(made, torch.ones_like(sums)) for _ in range(2))
    assert backend.kept is None  # used up
    assert first.data_ptr() != second.data_ptr()
    assert torch.equal(first, second)


@NEEDS_NUMBA
def test_columns_that_kernels_do_not_make_are_zeros():
    sums, _ = CompiledKernels(Columns()).sums(volume())
    assert sums.shape == (len(SumTable._fields), 1, 2)
    assert (sums[7:] == 0).all()
