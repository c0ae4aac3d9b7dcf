"""Studies that are killed: whatever dies at whatever moment, the rows are those of an untouched one."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rarevox.pipeline.study.collect import rows_of
from rarevox.pipeline.study.engines.workers import work
from rarevox.pipeline.study.places import Places
from rarevox.pipeline.study.plan import read_plan
from rarevox.pipeline.study.study import study
from tests import forked
from tests.compiled.test_team import callers
from tests.pipeline.study.test_study import figures

MAIN = "from rarevox.pipeline.cli import main; import sys; main(sys.argv[1:])"


def begun(file: Path, dataset: Path, output: Path, workers: int = 2) -> forked.Forked:
    """The command in a process group of its own."""
    words = ["study", str(file), str(dataset), "--output", str(output), "--workers", str(workers), "--device", "cpu"]
    return forked.Forked(["-c", MAIN, *words, "--keep-weights"], new_session=True)


def until_work(process: forked.Forked, output: Path) -> None:
    """Wait until some cell has begun."""
    for _ in range(6000):  # five minutes against a hang
        if any(output.glob("cells/*/logs/train.jsonl")) or not process.is_alive():
            return
        time.sleep(0.05)


def workers_of(parent: int) -> list[int]:
    """The processes that hold the study's log of workers open as their standard error."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("fd", "2").readlink().name == "workers.log":
                stat = process.joinpath("stat").read_text().rsplit(")", 1)[1].split()
                if stat[0] != "Z":
                    found.append(int(process.name))
        except OSError:
            continue
    return [one for one in found if one != parent]


@pytest.mark.slow
def test_killed_at_random_moments_the_rows_are_the_same(
    tiny_study: tuple[Path, Path], dataset_dir: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The whole group by SIGKILL, the command alone, a worker alone, SIGTERM and SIGINT, in turn (``--kills 20``)."""
    file, whole = tiny_study
    draw, output = random.Random(0), tmp_path / "out"
    for number in range(request.config.getoption("--kills")):
        process = begun(file, dataset_dir, output)
        until_work(process, output)
        time.sleep(draw.uniform(0, 2))
        if not process.is_alive():
            break
        kind = ("group", "command", "worker", signal.SIGTERM, signal.SIGINT)[number % 5]
        if kind == "group":
            os.killpg(process.pid, signal.SIGKILL)
        elif kind == "command":
            os.kill(process.pid, signal.SIGKILL)
        elif kind == "worker":
            for worker in workers_of(process.pid)[:1]:
                os.kill(worker, signal.SIGKILL)
        else:
            os.kill(process.pid, kind)
        done = process.wait(timeout=300)
        assert done.returncode in {"group": (-9, 0), "command": (-9, 0), "worker": (0,)}.get(
            str(kind), (130, 143, 0)
        ), done.stderr
        assert "Traceback" not in done.stderr
        if done.returncode in (130, 143):
            assert "the same command goes on" in done.stderr and (output / "rows.jsonl").is_file()
    assert study(file, dataset_dir, output, places=Places(workers=2), keep_weights=True, device="cpu") == 0
    assert figures(output) == figures(whole)
    kept = [sorted(path.name for path in folder.glob("cells/*/models/*")) for folder in (output, whole)]
    assert kept[0] == kept[1] == ["model.pt"] * 4


@pytest.mark.parametrize(("limit", "there"), [(9000, False), (2000, True)])
def test_where_the_disk_is_full_what_is_done_is_kept_and_the_command_goes_on(
    tiny_study: tuple[Path, Path], dataset_dir: Path, tmp_path: Path, limit: int, there: bool
) -> None:
    """A limit on the size of files, from the first cell to the end of the call, stands for the disk.

    Under 9000 bytes neither cell nor report can be kept, under 2000 the rows of three cells cannot either.
    """
    file, whole = tiny_study
    output = tmp_path / "out"
    if there:
        shutil.copytree(whole, output, ignore=shutil.ignore_patterns("report", "models"))
        shutil.rmtree(output / "cells" / "ss_1e-2")
    before = {name: (output / name).read_bytes() for name in ("rows.jsonl", "cells.csv") if there}
    words = ["study", str(file), str(dataset_dir), "--output", str(output), "--workers", "1", "--device", "cpu"]
    done = forked.run(["-c", LIMITED.format(code=MAIN, limit=limit), *words])
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stderr.split())
    assert "not written" in said and "the same command goes on" in said and "Traceback" not in said
    assert ("not brought together: File too large" in said) == there
    assert f"{3 if there else 0} of 4 cells done, 0 failed, {1 if there else 4} waiting" in said
    assert "no report: File too large" in said and not (output / "report" / "study.html").exists()
    assert len(rows_of(output, read_plan(output))) == (3 if there else 0)
    assert {name: (output / name).read_bytes() for name in before} == before
    assert not list(output.glob("**/.*.part.*"))
    assert study(file, dataset_dir, output, places=Places(workers=1), device="cpu") == 0
    assert figures(output) == figures(whole)


LIMITED = """
import resource
from rarevox.pipeline.study import study as stage
from rarevox.pipeline.study.cell.run import run_cell
from rarevox.pipeline.study.engines.queue import Queue
def run(jobs, *_):
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
    queue = Queue(jobs)
    while (job := queue.take()) is not None:
        yield queue.settle(job, run_cell(job))
stage.run_jobs = run
{code}
"""


def _worker(line: Any, alive: Any, log: str) -> None:
    """One whose cells are the number of threads that compiled work is shared out to."""
    from rarevox.pipeline.study.cell import run

    def counted(threads: int) -> int:
        torch.set_num_threads(threads)
        return len(set(callers()))

    run.run_cell = counted  # type: ignore[assignment]
    work(line, alive, log)


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch's wheels bring GNU's OpenMP on Linux alone")
def test_compiled_work_of_a_cell_goes_to_all_of_its_threads(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    (line, theirs), (alive, ours) = context.Pipe(), context.Pipe(duplex=False)
    process = context.Process(target=_worker, args=(theirs, alive, str(tmp_path / "workers.log")), daemon=True)
    process.start()
    for threads in (2, 3):
        line.send(threads)
        assert line.poll(120) and line.recv() == threads
    line.send(None)
    process.join(60)
    ours.close()
    assert process.exitcode == 0
