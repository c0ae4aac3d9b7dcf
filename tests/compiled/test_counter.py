"""The counter of the pieces of work: each number to one thread."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip("numba")

from numba import njit

from rarevox.compiled.counter import take_next

COUNT = 20000


@njit(nogil=True)
def take_all(address: int, marks: np.ndarray) -> None:
    while True:
        number = take_next(address)
        if number >= len(marks):
            return
        marks[number] += 1


def test_every_number_is_taken_once():
    counter, marks = np.zeros(1, np.int64), np.zeros(COUNT, np.int64)
    take_all(counter.ctypes.data, marks[:0])  # compiled before the threads begin
    counter[0] = 0
    threads = [threading.Thread(target=take_all, args=(counter.ctypes.data, marks)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (marks == 1).all()
    assert counter[0] == COUNT + 3
