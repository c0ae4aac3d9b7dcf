"""Many scans: what finding, handing out and writing down cost a scan, and what several workers gain.

    python benchmarks/cohort.py books                    planning and bookkeeping with a stub in place of the network
    python benchmarks/cohort.py share RUN SCANS          processes that are killed, against one process
    python benchmarks/cohort.py one RUN SCAN             what one scan's time goes into

Each figure is taken in a process of its own, so that memory is its own too; ratios are of the same call.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import processor

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does: waiting threads take no CPU

CONFIG = {"channels": ["image"], "structures": ["a", "b"], "label_values": [0, 1, 2], "composites": {}}


def listing(folder: Path, count: int) -> Path:
    """A folder with so many empty files, a thousand in each of its folders."""
    for number in range(count):
        if number % 1000 == 0:
            (folder / f"{number // 1000:04}").mkdir(parents=True)
        os.close(os.open(folder / f"{number // 1000:04}" / f"c{number:07}.nii.gz", os.O_CREAT | os.O_WRONLY))
    return folder


def manifest(path: Path, count: int) -> Path:
    """A table of so many scans with a column that is carried along; no file of it is there."""
    with path.open("w") as file:
        file.write("case,image,site\n")
        file.writelines(f"c{n:07},/data/{n // 1000:04}/c{n:07}.nii.gz,{n % 7}\n" for n in range(count))
    return path


def planned(scans: str | None, table: str | None) -> dict[str, float]:
    """Seconds and scans of a plan."""
    from rarevox.pipeline.inference.calls.planning import plan

    began = time.perf_counter()
    found = plan([scans] if scans else [], CONFIG, manifest=table)
    return {"scans": len(found.items), "seconds": time.perf_counter() - began}


def stubbed(scans: str, output: str) -> dict[str, float]:
    """Seconds from a folder's name to all files in the output, and those of them that the stub took."""
    from rarevox.pipeline.cohort.collect import write_results
    from rarevox.pipeline.cohort.desk import Desk
    from rarevox.pipeline.inference.calls.planning import plan, with_names_that_fit
    from rarevox.pipeline.inference.calls.row import begun_row
    from rarevox.pipeline.inference.calls.session import begin
    from rarevox.pipeline.inference.outputs.labels import LabelMap

    began, stub, cpu = time.perf_counter(), 0.0, time.process_time()
    folder = Path(output)
    folder.mkdir()
    wanted = with_names_that_fit(plan([scans], CONFIG), folder, [LabelMap()])
    session = begin(folder, wanted, {"run": "stub"}, {}, CONFIG, [LabelMap()], keep=False)
    items, _ = wanted.share(None)
    desk = Desk(folder, session.ledger, session.journal, items, session=session.id)
    for task in desk.blocking():
        item = task.work["item"]
        row = begun_row(item, "") | {"status": "ok", "seconds": 0.0, "volume_ml": {"a": 1.0, "b": task.number % 97}}
        writes, spent = time.perf_counter(), time.process_time()
        name = f"{item['case']}_seg.nii.gz"
        os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY))
        stub += time.perf_counter() - writes
        cpu += time.process_time() - spent
        desk.done(task.number, row | {"output": name})
    handed_out = time.perf_counter()
    error = desk.close()
    tally = write_results(folder, session.ledger)
    assert not error
    assert tally.by_status == {"ok": len(items)}
    ended = time.perf_counter()
    used = time.process_time() - cpu
    return {"scans": len(items), "seconds": ended - began, "stub": stub, "collect": ended - handed_out, "cpu": used}


def apart(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """A figure taken in a process of its own, with the most memory that it held (GB)."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, arguments))


def _measured(work: Callable[..., dict[str, float]], arguments: tuple[Any, ...]) -> dict[str, float]:
    import rarevox.pipeline.inference.calls.session  # the libraries' time is not the bookkeeping's

    assert rarevox
    found = work(*arguments)
    return {**found, "GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def books(base: Path, counts: list[int], planning: int) -> None:
    """Planning and bookkeeping; what a call costs by itself is that of ten scans."""
    table = apart(planned, None, str(manifest(base / "list.csv", planning)))
    print(f"plan of a manifest: {table['scans']:.0f} scans, {table['seconds']:.1f} s, {table['GB']:.2f} GB", flush=True)
    fixed, first = 0.0, 0.0
    for count in (10, *counts):
        scans = listing(base / f"scans{count}", count)
        if count == counts[-1]:
            found = apart(planned, str(scans), None)
            print(f"plan of a listing: {count} scans, {found['seconds']:.1f} s, {found['GB']:.2f} GB")
        found = apart(stubbed, str(scans), str(base / f"out{count}"))
        shutil.rmtree(base / f"out{count}")
        shutil.rmtree(scans)
        if count == 10:
            fixed = found["cpu"]
            continue
        each = (found["cpu"] - fixed) / count
        first = first or each
        print(
            f"{count} scans with a stub: {found['seconds']:.1f} s, of which the stub {found['stub']:.1f} s and "
            f"collecting {found['collect']:.1f} s; {1e6 * each:.0f} µs of CPU a scan beside {fixed:.2f} s a call; "
            f"{found['GB']:.2f} GB; a scan's CPU over that of {counts[0]}: {each / first:.2f}",
            flush=True,
        )


def command(run: Path, scans: Path, output: Path, *options: str) -> list[str]:
    """The command line of a prediction."""
    said = [sys.executable, "-m", "rarevox.pipeline.cli", "predict", str(run), str(scans), "--output", str(output)]
    return [*said, "--device", "cpu", *options]


def timed(said: list[str], path: str | None = None) -> float:
    """Seconds of a call; ``path`` is the PYTHONPATH of another state of rarevox."""
    environment = os.environ if path is None else {**os.environ, "PYTHONPATH": path}
    began = time.perf_counter()
    subprocess.run(said, check=True, capture_output=True, env=environment)
    return time.perf_counter() - began


def killed_twice(said: list[str], output: Path, scans: int) -> float:
    """Seconds of a call of which a worker is killed after a tenth of the maps, and another after three tenths."""
    began = time.perf_counter()
    call = subprocess.Popen(said, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for least in (scans // 10, 3 * scans // 10):
        while call.poll() is None and len(list(output.glob("*_seg.nii.gz"))) < least:
            time.sleep(0.05)
        os.kill(_descendants(call.pid)[-1], signal.SIGKILL)
    assert call.wait() == 0
    return time.perf_counter() - began


def compared(one: Path, many: Path) -> tuple[bool, bool]:
    """Whether every case of a folder is there once and ok, and whether its maps are those of another to the byte."""
    rows = json.loads((many / "predictions.json").read_text())["scans"]
    cases = sorted(row["case"] for row in rows)
    files = [f"{case}_seg.nii.gz" for case in cases]
    every = files == sorted(path.name for path in one.glob("*_seg.nii.gz"))
    every = every and all(row["status"] == "ok" for row in rows)
    return every, all((one / name).read_bytes() == (many / name).read_bytes() for name in files)


def share(run: Path, scans: Path, base: Path, workers: int, peer: str | None, repeats: int) -> None:
    """Workers of which two are killed, and the call once more, against one process and another state, in turns."""
    print(about(), flush=True)
    took: dict[str, list[float]] = {}
    for turn in range(repeats):
        out = {name: base / f"{name}{turn}" for name in ("peer", "one", "many")}
        if peer is not None:
            took.setdefault("peer", []).append(timed(command(run, scans, out["peer"]), peer))
        took.setdefault("one", []).append(timed(command(run, scans, out["one"])))
        count = len(list(out["one"].glob("*_seg.nii.gz")))
        shared = command(run, scans, out["many"], "--workers", str(workers))
        took.setdefault("many", []).append(killed_twice(shared, out["many"], count))
        took.setdefault("again", []).append(timed([*shared, "--keep"]))
        every, alike = compared(out["one"], out["many"])
        shown = ", ".join(f"{name} {times[-1]:.1f} s" for name, times in took.items())
        print(f"turn {turn + 1}: {shown}; every case once: {every}; maps equal to the byte: {alike}", flush=True)
        if peer is not None:
            print(f"  maps of {peer} equal to the byte: {compared(out['peer'], out['many'])[1]}")
        print(f"  load {os.getloadavg()[0]:.1f}", flush=True)
    median = {name: statistics.median(times) for name, times in took.items()}
    told = {"peer": str(peer), "one": "one process", "many": f"{workers} workers, two of them killed", "again": "again"}
    for name, seconds in median.items():
        print(f"{told[name]}: median {seconds:.1f} s, {count / seconds:.2f} scans a second")
    for name in ("peer", "one"):
        if name in median:
            print(f"{workers} workers are {median[name] / median['many']:.2f} times as fast as {told[name]}")


def about() -> str:
    """Machine, cores, load and date."""
    moment = time.strftime("%d %B %Y")
    return f"{processor()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, {moment}"


def _descendants(process: int) -> list[int]:
    """The processes below one, those that were started last at the end."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, upcoming = [], [process]
    while upcoming:
        children = parents.get(upcoming.pop(), [])
        found += children
        upcoming += children
    return sorted(found)


def one(run: Path, scan: Path, base: Path, repeats: int) -> None:
    """The parts of one scan's time, on the clock and of the CPU: medians, and their share of the network's.

    Bookkeeping is the claim, the row in the journal, synced, and the claim given back. A first trial, which loads
    kernels, is left out.
    """
    from rarevox.pipeline.cohort.claims import Claims
    from rarevox.pipeline.cohort.journal import Journal
    from rarevox.pipeline.inference.calls.networks import Networks
    from rarevox.pipeline.inference.calls.prediction import Prediction
    from rarevox.pipeline.inference.outputs.asked import Asked
    from rarevox.pipeline.inference.segment import Segmentation

    print(about(), flush=True)
    station = Prediction(Networks((str(run),), "cpu"), Asked(), str(base)).open()
    journal, item = Journal(base, {"session": "one"}), {"case": "scan", "image": str(scan)}
    claims = Claims(base, journal.id, lambda owner: False)
    parts: dict[str, dict[str, list[float]]] = {"clock": {}, "CPU": {}}
    for trial in range(repeats + 1):
        written, moments = threading.Event(), [(time.perf_counter(), time.process_time())]
        data = station.segmenter.read(item)
        moments.append((time.perf_counter(), time.process_time()))
        labels = station.segmenter.segment(data)
        moments.append((time.perf_counter(), time.process_time()))
        row = station.store(Segmentation(item, labels), {})
        moments.append((time.perf_counter(), time.process_time()))
        claims.take("scan")
        journal.append({"n": trial, "t": time.time(), "row": row}, written.set)
        written.wait()
        claims.give_back("scan")
        moments.append((time.perf_counter(), time.process_time()))
        assert row["status"] == "ok"
        for number, clock in enumerate(parts):
            spent = [later[number] - earlier[number] for earlier, later in itertools.pairwise(moments)]
            for name, seconds in zip(("reading", "network", "writing", "bookkeeping"), spent, strict=True):
                parts[clock].setdefault(name, []).extend([seconds] * (trial > 0))
    journal.close()
    for clock, found in parts.items():
        median = {name: statistics.median(seconds) for name, seconds in found.items()}
        beside = sum(median.values()) - median["network"]
        shown = ", ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in median.items())
        print(f"{clock}: {shown}; all but the network {100 * beside / median['network']:.1f} % of it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["books", "share", "one"])
    parser.add_argument("places", nargs="*", type=Path, help="RUN and SCANS")
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--planning", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=1, help="turns of share; trials of one")
    parser.add_argument("--peer", help="a PYTHONPATH with another state of rarevox, measured too")
    parser.add_argument("--scratch", type=Path, help="where files are made; a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        if options.part == "books":
            books(Path(folder), options.counts, options.planning)
        elif options.part == "share":
            share(*options.places, Path(folder), options.workers, options.peer, options.repeats)
        else:
            one(*options.places, Path(folder), options.repeats)


if __name__ == "__main__":
    main()
