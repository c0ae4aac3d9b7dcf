"""prepare of a source, beside merely reading the same files with nibabel in the same process.

    python benchmarks/prepare.py Task04_Hippocampus [--workers 2]

Prints seconds of each, cases per second, the ratio, and the size of the page of the checks.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

# Run as a script, this file's own folder comes first on the path, and ``import losses`` would find losses.py there.
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402

from rarevox.pipeline.preparation.prepare import prepare  # noqa: E402
from rarevox.pipeline.preparation.sources.find import find_cases  # noqa: E402


def reading(source: Path) -> tuple[int, float]:
    """Cases, and the seconds that nibabel takes to read their images and labels one after the other."""
    cases = find_cases(source).cases
    began = time.perf_counter()
    for case in cases:
        for file in (*case.image, case.label):
            np.asanyarray(nib.load(file).dataobj)
    return len(cases), time.perf_counter() - began


def main() -> None:
    """Read, then prepare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    cases, read = reading(arguments.source)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        prepare(arguments.source, Path(folder) / "dataset", workers=arguments.workers)
        taken = time.perf_counter() - began
        page = (Path(folder) / "dataset" / "checks.html").stat().st_size / 1e6
    print(f"{cases} cases, {arguments.workers} workers: prepare {taken:.1f} s, {cases / taken:.0f} cases a second")
    print(f"reading alone with nibabel {read:.1f} s; prepare takes {taken / read:.1f} times that; page {page:.1f} MB")


if __name__ == "__main__":
    main()
