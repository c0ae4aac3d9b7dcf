"""Work shared out to PyTorch's threads: every piece once, with the team and without it, in forked processes too."""

from __future__ import annotations

import ctypes
import multiprocessing
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch

from rarevox.compiled import run_on_team, share_out, team

SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_int64))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def callers() -> list[int]:
    """The threads that `run_on_team` calls a function on."""
    seen: list[int] = []
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: seen.append(threading.get_native_id()))
    run_on_team(ctypes.cast(function, ctypes.c_void_p).value or 0, 0)
    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch's wheels bring GNU's OpenMP on Linux alone")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_each_thread_of_the_team_is_called_once(threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        seen = callers()
    finally:
        torch.set_num_threads(before)
    assert len(seen) == len(set(seen)) == threads
    assert threading.get_native_id() in seen


def test_without_the_team_the_calling_thread_does_it_all(monkeypatch):
    monkeypatch.setattr(team, "_team", lambda: None)
    assert callers() == [threading.get_native_id()]


def test_the_job_is_the_values_and_the_address_of_the_first_number(monkeypatch):
    monkeypatch.setattr(team, "_team", lambda: None)
    seen: list[int] = []

    @SIGNATURE
    def function(job):
        seen.extend(job[:2])
        counter = ctypes.cast(job[2], ctypes.POINTER(ctypes.c_int64))
        seen.append(counter[0])

    share_out(ctypes.cast(function, ctypes.c_void_p).value or 0, (11, -22), 33)
    assert seen == [11, -22, 33]


def in_a_fork(queue):
    torch.set_num_threads(2)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = [len(callers()) for _ in range(2)]
    queue.put((found, [str(one.message) for one in told]))


@pytest.mark.skipif(sys.platform != "linux", reason="fork is the default on Linux alone")
def test_a_forked_process_does_not_wait_for_threads_that_it_has_not(two_threads):
    callers()  # this process has its team by now
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=in_a_fork, args=(queue,))
    child.start()
    child.join(30)
    if child.is_alive():
        child.kill()
        pytest.fail("the forked process waits for the team of its parent")
    found, told = queue.get()
    assert found == [1, 1]
    assert len(told) == 1 and told[0].startswith("compiled work runs on one thread: this process is a fork")


def _in_a_worker(pipe) -> None:
    team.take_own_team()
    torch.set_num_threads(2)
    seen = callers()
    torch.zeros(1 << 20).add_(1)  # PyTorch's own kernels are on the same team
    pipe.send((len(set(seen)), len(set(callers()) & set(seen))))


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch's wheels bring GNU's OpenMP on Linux alone")
def test_the_library_is_found_where_pytorch_lies_behind_a_link(tmp_path, monkeypatch):
    link = tmp_path / "packages"
    link.symlink_to(Path(torch.__file__).parents[1])
    monkeypatch.setattr(torch, "__file__", str(link / "torch" / "__init__.py"))
    assert team._team.__wrapped__() is not None and team.why_alone() is None


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch's wheels bring GNU's OpenMP on Linux alone")
def test_a_fork_of_a_process_that_computed_nothing_has_a_team_of_its_own():
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_in_a_worker, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    assert ours.poll(120), "it waits for threads that are not there"
    assert ours.recv() == (2, 2)
    process.join()
