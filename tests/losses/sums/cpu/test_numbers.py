"""Exponential, logarithm and bfloat16 of compiled loops, against float64 and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from numba import njit

from rarevox.losses.sums.cpu.numbers import exponential, floats, from_bfloat16, logarithm, to_bfloat16, uint16s


@njit
def exponentials(source: int, target: int, count: int) -> None:
    x, y = floats(source), floats(target)
    for i in range(count):
        y[i] = exponential(x[i])


@njit
def logarithms(source: int, target: int, count: int) -> None:
    x, y = floats(source), floats(target)
    for i in range(count):
        y[i] = logarithm(x[i])


@njit
def widen(source: int, target: int, count: int) -> None:
    x, y = uint16s(source), floats(target)
    for i in range(count):
        y[i] = from_bfloat16(x[i])


@njit
def narrow(source: int, target: int, count: int) -> None:
    x, y = floats(source), uint16s(target)
    for i in range(count):
        y[i] = to_bfloat16(x[i])


def applied(function, x: np.ndarray) -> np.ndarray:
    x = np.ascontiguousarray(x, np.float32)
    y = np.empty_like(x)
    function(x.ctypes.data, y.ctypes.data, len(x))
    return y


def units_in_the_last_place(y: np.ndarray, exact: np.ndarray) -> float:
    return float((np.abs(y - exact) / np.spacing(np.abs(exact).astype(np.float32))).max())


def test_the_exponential_is_right_to_two_units_in_the_last_place():
    x = np.concatenate((np.linspace(-87.3, 0, 1_000_001), -np.logspace(-30, 1, 100_001))).astype(np.float32)
    assert units_in_the_last_place(applied(exponentials, x), np.exp(x.astype(np.float64))) < 2


def test_the_exponential_of_nothing_and_of_far_below():
    assert applied(exponentials, np.array([0, -0.0, -88, -1e30, -np.inf])).tolist() == [1, 1, 0, 0, 0]


def test_the_logarithm_is_right_to_two_units_in_the_last_place():
    x = np.concatenate((np.linspace(1, 64, 1_000_001), np.logspace(-37, 38, 1_000_001))).astype(np.float32)
    assert units_in_the_last_place(applied(logarithms, x), np.log(x.astype(np.float64))) < 2


def test_the_logarithm_of_one_is_nought():
    assert applied(logarithms, np.ones(9)).tolist() == [0] * 9


def test_bfloat16_is_that_of_torch():
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-30, 30, 100_000)
    ties = (torch.arange(1, 2000) << 15 | 0x3F800000).to(torch.int32).view(torch.float32)
    values = torch.cat((values, ties, -ties, torch.zeros(3)))
    half = torch.empty(len(values), dtype=torch.bfloat16)
    narrow(values.data_ptr(), half.data_ptr(), len(values))
    assert torch.equal(half, values.bfloat16())
    wide = torch.empty(len(values))
    widen(half.data_ptr(), wide.data_ptr(), len(values))
    assert torch.equal(wide, half.float())
