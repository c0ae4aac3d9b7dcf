"""Jobs as named tuples: Python fills them by keyword, kernels read them by name, and a wrong name is an error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("numba")

from numba import cfunc, njit
from numba.core.errors import TypingError

from rarevox.compiled import share_out
from rarevox.compiled.counter import take_next
from rarevox.networks.cpu.instructions.jobs import KERNEL, job_reader, record_reader


class Entry(NamedTuple):
    weight: int
    value: int


class Sum(NamedTuple):
    result: int
    entries: int
    count: int


read_sum, read_entry = job_reader(Sum), record_reader(Entry)


@njit
def _sum(pointer):
    job, next_piece = read_sum(pointer)
    while True:
        piece = take_next(next_piece)
        if piece >= job.count:
            return
        entry = read_entry(job.entries + 16 * piece)
        # The counter at ``result`` is moved once for each unit, since it is what threads can add to.
        for _ in range(entry.weight * entry.value):
            take_next(job.result)


@cfunc(KERNEL)
def add_up(pointer):
    _sum(pointer)


def test_a_kernel_reads_by_name_what_python_fills_by_keyword() -> None:
    table = np.array([Entry(value=5, weight=2), Entry(weight=3, value=7), Entry(weight=0, value=9)], np.int64)
    result = np.zeros(1, np.int64)
    share_out(add_up.address, Sum(count=3, entries=table.ctypes.data, result=result.ctypes.data))
    assert result[0] == 2 * 5 + 3 * 7


def test_the_pieces_that_are_left_out_are_those_before_the_start() -> None:
    table, result = np.array([Entry(weight=1, value=1)] * 4, np.int64), np.zeros(1, np.int64)
    share_out(add_up.address, Sum(result=result.ctypes.data, entries=table.ctypes.data, count=4), start=3)
    assert result[0] == 1


def test_a_field_that_is_missing_twice_there_or_unknown_is_an_error() -> None:
    with pytest.raises(TypeError, match="entries"):
        Sum(result=0, count=0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="result"):
        Sum(0, 0, 0, result=0)  # type: ignore[misc]
    with pytest.raises(TypeError, match="counts"):
        Sum(result=0, entries=0, counts=0)  # type: ignore[call-arg]


def test_a_name_that_no_job_has_does_not_compile() -> None:
    @njit
    def mistaken(address):
        return read_entry(address).wait

    with pytest.raises(TypingError, match="wait"):
        mistaken(0)
