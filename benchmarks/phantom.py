"""Seconds that a phantom subject takes, beside MONAI's elastic deformation of the same maps in the same run.

Run: python benchmarks/phantom.py [--subjects 16] [--spacing-mm 2.0] [--workers N]

MONAI's Rand3DElastic does one part of the work, the warp of the eight template maps onto the subject's grid; the ratio
compares it with a whole subject: warp, lesions, contrast, bias field, noise.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from monai.transforms import Rand3DElastic

from rarevox.pipeline.phantom.anatomy import Atlas, build_atlas, subject_shape
from rarevox.pipeline.phantom.cohort import PhantomSettings, make_subject, write_cohort


def seconds_of_monai(atlas: Atlas, spacing_mm: float, repeats: int) -> float:
    """Median seconds of one elastic and affine deformation of the maps onto a subject's grid."""
    deform = Rand3DElastic(
        sigma_range=(8, 8),  # voxels of Gaussian smoothing, comparable to knots 24 mm apart
        magnitude_range=(60, 60),
        prob=1.0,
        rotate_range=(0.14,) * 3,
        scale_range=(0.08,) * 3,
        spatial_size=subject_shape(spacing_mm),
        padding_mode="zeros",
    )
    deform.set_random_state(0)
    return median_seconds(lambda _: deform(atlas.maps), repeats)


def median_seconds(call: Callable[[int], object], repeats: int) -> float:
    """Median wall time of ``call(k)`` for k = 0 … repeats − 1, after one call to warm up."""
    call(0)
    seconds = []
    for k in range(repeats):
        start = time.perf_counter()
        call(k)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def main() -> None:
    """Print the times and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=16)
    parser.add_argument("--spacing-mm", type=float, default=2.0)
    parser.add_argument("--workers", type=int, default=None)
    options = parser.parse_args()
    settings = PhantomSettings(spacing_mm=options.spacing_mm)

    start = time.perf_counter()
    atlas = build_atlas(settings.spacing_mm)
    print(f"template maps, once per cohort      {time.perf_counter() - start:8.2f} s")
    repeats = min(options.subjects, 5)
    ours = median_seconds(lambda k: make_subject(k, settings, atlas), repeats)
    print(f"one subject in memory               {ours:8.2f} s")
    monai = seconds_of_monai(atlas, settings.spacing_mm, repeats)
    print(f"MONAI Rand3DElastic, warp alone     {monai:8.2f} s")
    print(f"ratio MONAI's warp / whole subject  {monai / ours:8.2f}")

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        written = write_cohort(
            Path(folder) / "cohort", subjects=options.subjects, spacing_mm=options.spacing_mm, workers=options.workers
        )
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in written.rglob("*.nii.gz")) / 1e6
    print(f"cohort of {options.subjects:3d} written, all in       {seconds:8.2f} s")
    print(f"a subject of it                     {seconds / options.subjects:8.2f} s")
    print(f"on disk                             {size:8.1f} MB")


if __name__ == "__main__":
    main()
