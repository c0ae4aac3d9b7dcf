"""What only a GPU can tell, in one call of at most nine minutes: the tests that need one, and all benchmarks.

Writes one JSON file: the device and the versions, how many tests passed and which did not, and of each benchmark its
command, its time, what it printed and the figures that it wrote. A part that fails or takes too long is told in the
file and stops nothing.

    make gpu
    python benchmarks/gpu.py --output docs/results/gpu-2026-11-25.json
    python benchmarks/gpu.py --device cpu --quick --only "training step"     (to see that it runs)

It needs PyTorch, what rarevox needs, and pytest (the tests take less with pytest-xdist); nothing is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BUDGET_SECONDS = 525.0
"""Of all parts together: nine minutes, less what the call itself takes."""
TESTS_SECONDS = 240.0
"""Of the tests, which come first; what they leave is the benchmarks'."""
TEST_PROCESSES = 6


class Part(NamedTuple):
    """A benchmark: its file and options, whether it writes figures, and the seconds after which it is ended."""

    script: str
    options: tuple[str, ...]
    writes: bool = False
    seconds: float = 60.0


SCAN = ("--size", "240", "240", "155", "--channels", "1", "--classes", "3")
PARTS = {
    "training step": Part("training_step.py", ("--steps", "30"), writes=True, seconds=45),
    "scan, HighResNet": Part("inference.py", (*SCAN, "--contenders", "auto", "graphs", "monai-amp"), seconds=85),
    "scan, DeepMedic": Part(
        "inference.py", (*SCAN, "--network", "deepmedic", "--contenders", "auto", "float32"), seconds=45
    ),
    "losses": Part("losses.py", ("--repeats", "5"), seconds=40),
    "norms": Part("norms.py", ("--repeats", "20"), seconds=20),
    "loading, cases in memory": Part("loading.py", ("--workers", "8", "--cache", "memory"), writes=True, seconds=40),
    "loading, cases on the device": Part("loading.py", ("--cache", "device"), writes=True, seconds=40),
}
QUICK = {
    "training step": Part("training_step.py", ("--steps", "1", "--shapes", "1x16x16x16", "--only-ours"), writes=True),
    "losses": Part("losses.py", ("--quick",)),
}


def main() -> int:
    """Run, write, and say in a line each what came of it; status 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda[:i], or cpu to try the script")
    parser.add_argument("--output", type=Path, help="the file  [docs/results/gpu-DATE.json]")
    parser.add_argument("--only", action="append", choices=["tests", *PARTS], help="parts; repeatable  [all]")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    args = parser.parse_args()
    end = time.monotonic() + BUDGET_SECONDS
    found: dict[str, Any] = {"date": str(datetime.date.today()), **machine(args.device)}
    wanted = args.only or ["tests", *PARTS]
    results = {}
    if "tests" in wanted:
        found["tests"] = tested(args.device, TESTS_SECONDS)
        print(f"tests: {found['tests']['outcome']}", flush=True)
    for name, part in (QUICK if args.quick else PARTS).items():
        if name in wanted:
            results[name] = measured(part, args.device, min(part.seconds, end - time.monotonic()))
            print(f"{name}: {results[name]['outcome']} in {results[name]['seconds']} s", flush=True)
    found["benchmarks"] = results
    output = args.output or ROOT / "docs" / "results" / f"gpu-{found['date']}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")
    print(output)
    return int(any(one["outcome"] != "done" for one in [*results.values(), found.get("tests", {"outcome": "done"})]))


def machine(device: str) -> dict[str, Any]:
    """The device and the versions.

    Raises:
        SystemExit: there is no such device.
    """
    import torch

    versions = {"python": platform.python_version()}
    for name in ("torch", "monai", "triton", "numba", "pytorch-ignite"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    if not device.startswith("cuda"):
        return {"device": platform.processor() or platform.machine(), "versions": versions}
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device is seen by PyTorch here; --device cpu tries the script without one")
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": properties.name,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "capability": list(torch.cuda.get_device_capability(device)),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "versions": versions,
    }


def run(command: list[str], seconds: float) -> tuple[str, float, str]:
    """How a command ended (done, failed, too slow, no time left), its seconds, and the end of what it said."""
    if seconds < 5:
        return "no time left", 0.0, ""
    began = time.monotonic()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment(), **pipes) as process:
        try:
            said, wrong = process.communicate(timeout=seconds)
            outcome = "done" if process.returncode == 0 else "failed"
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):  # its own processes would go on beside the next part
                os.killpg(process.pid, signal.SIGKILL)
            said, wrong = process.communicate()
            outcome = "too slow"
    return outcome, round(time.monotonic() - began, 1), (said if outcome == "done" else said + wrong)[-6000:]


def environment() -> dict[str, str]:
    """With a folder on the path that calls this checkout ``rarevox``, where it is not installed."""
    names = Path(tempfile.gettempdir()) / f"rarevox-names-{os.getuid()}"
    names.mkdir(exist_ok=True)
    link = names / "rarevox"
    if not (link.is_symlink() and link.resolve() == ROOT):
        link.unlink(missing_ok=True)
        link.symlink_to(ROOT)
    path = [str(names), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Unbuffered, so that of a part that takes too long what it has said is there.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}


def measured(part: Part, device: str, seconds: float) -> dict[str, Any]:
    """A benchmark's outcome, time, words and figures."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        options = [*part.options, "--device", device, *(["--output", str(figures)] if part.writes else [])]
        outcome, took, said = run([sys.executable, f"benchmarks/{part.script}", *options], seconds)
        command = f"python benchmarks/{part.script} {' '.join([*part.options, '--device', device])}"
        found = {"command": command, "outcome": outcome, "seconds": took, "said": said.splitlines()}
        if figures.is_file():
            found["figures"] = json.loads(figures.read_text())
        return found


def marked_files() -> list[Path]:
    """The files with tests for a GPU: others may ask for libraries that are not there, which would end it all."""
    return sorted(file for file in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in file.read_text())


def tested(device: str, seconds: float) -> dict[str, Any]:
    """The tests that need a GPU: how many passed, failed and were skipped, and the words of those that failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "--tb=short"]
        if importlib.util.find_spec("xdist"):  # a small training leaves most of a device idle
            command += ["-n", str(min(TEST_PROCESSES, os.cpu_count() or 1))]
        command += [f"--on={device}", f"--junitxml={report}", *map(str, marked_files())]
        outcome, took, said = run(command, seconds)
        if not report.is_file():
            return {"outcome": outcome, "seconds": took, "said": said.splitlines()[-40:]}
        suite = ET.parse(report).getroot().find("testsuite")
        assert suite is not None
        counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
        failed = {
            f"{case.get('classname')}::{case.get('name')}": (fault.text or fault.get("message", ""))[-1500:]
            for case in suite.iter("testcase")
            for fault in [*case.iter("failure"), *case.iter("error")]
        }
        passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
        return {"outcome": outcome, "seconds": took, "passed": passed, **counts, "failed": failed}


if __name__ == "__main__":
    sys.exit(main())
