"""Pieces worked on by several threads: the same results, errors that come through, forked processes."""

from __future__ import annotations

import multiprocessing
import sys

import pytest
import torch

from rarevox.losses import GeneralizedDiceCELoss, overlap_sums
from rarevox.losses.sums import chunks
from rarevox.losses.sums.workers import each_piece, scratch


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_whatever_the_threads():
    assert each_piece(lambda value: value * value, range(100), threads=3) == [value * value for value in range(100)]


def test_no_gradients_inside():
    assert each_piece(lambda _: torch.is_grad_enabled(), range(4), threads=2) == [False] * 4
    assert each_piece(lambda _: torch.is_grad_enabled(), range(4), threads=1) == [False] * 4


def test_workers_run_operations_alone_and_leave_the_setting_as_it_was(two_threads):
    assert each_piece(lambda _: torch.get_num_threads(), range(8), threads=2) == [1] * 8
    assert torch.get_num_threads() == 2


def test_an_error_in_a_worker_is_raised_here():
    def fail(value):
        if value == 3:
            raise ValueError("piece 3")
        return value

    with pytest.raises(ValueError, match="piece 3"):
        each_piece(fail, range(6), threads=2)


def test_scratch_is_kept_for_its_thread_and_grows():
    cpu = torch.device("cpu")
    first = scratch("test", (2, 3), torch.float32, cpu)
    assert scratch("test", (6,), torch.float32, cpu).data_ptr() == first.data_ptr()
    assert scratch("another", (6,), torch.float32, cpu).data_ptr() != first.data_ptr()
    assert scratch("test", (6,), torch.float64, cpu).dtype == torch.float64
    assert scratch("test", (100,), torch.float32, cpu).shape == (100,)


def test_two_threads_give_the_loss_and_the_gradient_of_one(printed, monkeypatch, two_threads):
    monkeypatch.setattr(chunks, "CPU_PIECE_ELEMENTS", 60)
    logits, labels, weight = printed.example()
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        leaf = logits.clone().requires_grad_()
        value = GeneralizedDiceCELoss(batch=True)(leaf, labels, weight)
        value.backward()
        results.append((value.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def in_a_fork(queue):
    logits = torch.zeros(1, 2, 1000)
    torch.set_num_threads(2)
    queue.put(overlap_sums(logits, torch.zeros(1, 1, 1000)).probability.tolist())


@pytest.mark.skipif(sys.platform != "linux", reason="fork is the default on Linux alone")
def test_a_forked_process_makes_its_own_threads(monkeypatch, two_threads):
    monkeypatch.setattr(chunks, "CPU_PIECE_ELEMENTS", 60)
    overlap_sums(torch.zeros(1, 2, 1000), torch.zeros(1, 1, 1000))  # this process has its threads by now
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=in_a_fork, args=(queue,))
    child.start()
    child.join(30)
    if child.is_alive():
        child.kill()
        pytest.fail("the forked process waits for threads that it does not have")
    assert queue.get() == [[500.0, 500.0]]
