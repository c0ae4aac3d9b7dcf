"""Nested regions or labels: the same small U-Net, cases and steps learn whole, core and hot tumour in both ways.

A made cohort (SYNTHETIC): smooth brains of two channels in noise, each with one or two irregular tumours whose core and
hot spot lie one in another; the first channel shows the whole of a tumour, the second its hot spot and, faintly, its
core. Each way is trained with each seed and scored on cases held out; the last lines are the Dice of each region and
the ratio of the ways.

    python benchmarks/regions.py --iterations 600 --seeds 3
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT), *(folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent)]

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
from scipy.ndimage import gaussian_filter  # noqa: E402

from rarevox.pipeline.evaluation.evaluate import evaluate  # noqa: E402
from rarevox.pipeline.preparation.prepare import prepare  # noqa: E402
from rarevox.pipeline.training.train import train  # noqa: E402

VALUES = (2, 1, 4)  # oedema, core without the hot spot, hot spot: as BraTS numbers them
REGIONS = {"whole": [1, 2, 4], "core": [1, 4], "hot": 4}
SIZE = 40
NARROW = ("network_def#channels=[8,16,32]", "network_def#strides=[2,2]")


def smooth(random: np.random.Generator, sigma: float) -> np.ndarray:
    """A smooth random field of standard deviation 1."""
    field = gaussian_filter(random.standard_normal((SIZE,) * 3), sigma)
    return field / field.std()


def subject(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two channels (2, X, Y, Z) and the label map of one case."""
    random = np.random.default_rng(seed)
    axes = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"))
    depth = np.zeros((SIZE,) * 3, int)
    for _ in range(random.integers(1, 3)):
        centre = random.integers(12, SIZE - 12, 3)[:, None, None, None]
        radius = random.uniform(3.5, 8.0)
        distance = np.sqrt(((axes - centre) ** 2).sum(0)) / radius + 0.18 * smooth(random, 2.5)
        own = sum((distance < edge).astype(int) for edge in (1.0, random.uniform(0.5, 0.75), random.uniform(0.2, 0.4)))
        depth = np.maximum(depth, own)
    gain = random.uniform(0.8, 1.2, 2)
    tissue = [100 + 12 * smooth(random, 3.0) for _ in range(2)]
    first = tissue[0] + 30 * (depth >= 1) + 4 * (depth >= 2)
    second = tissue[1] - 8 * (depth >= 2) + 35 * (depth >= 3)
    image = np.stack([one * g + random.normal(0, 12, one.shape) for one, g in zip((first, second), gain, strict=True)])
    return image, np.array([0, *VALUES], np.uint8)[depth]


def write_cohort(folder: Path, cases: int) -> None:
    """The cohort as an nnU-Net dataset of regions."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(cases):
        image, labels = subject(number)
        for channel, one in enumerate(image):
            file = folder / "imagesTr" / f"case_{number:02}_{channel:04}.nii.gz"
            nib.save(nib.Nifti1Image(one.astype(np.float32), np.eye(4)), file)
        nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / "labelsTr" / f"case_{number:02}.nii.gz")
    content = {"channel_names": {"0": "flair", "1": "t1c"}, "labels": {"background": 0, **REGIONS}}
    told = {"regions_class_order": list(VALUES), "numTraining": cases, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content | told))


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cases", type=int, default=18)
    parser.add_argument("--loss", default="gdl_ce")
    asked = parser.parse_args()
    found: dict[str, list[list[float]]] = {"labels": [], "regions": []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_cohort(folder / "source", asked.cases)
        prepare(folder / "source", folder / "dataset", holdout=0.34, folds=4)
        for seed in range(asked.seeds):
            for way, dice in found.items():
                run, began = folder / f"{way}_{seed}", time.monotonic()
                settings = [f"seed={seed}", "patch_size=[24,24,24]", "validations=3", *NARROW]
                overlays = ["regions"] if way == "regions" else []
                how = {"network": "unet", "loss": asked.loss, "config_files": overlays, "device": "cpu"}
                if train(folder / "dataset", run, **how, settings=settings, iterations=asked.iterations):
                    raise SystemExit("a training did not end")
                seconds = time.monotonic() - began
                evaluate(run, folder / "dataset", device="cpu", settings=["calibration=false", "curves=false"])
                result = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
                dice.append([result["structures"][name]["dice"]["mean"] for name in REGIONS])
                said = ", ".join(f"{name} {value:.3f}" for name, value in zip(REGIONS, dice[-1], strict=True))
                print(f"seed {seed}, {way}: {said} ({seconds:.0f} s)", flush=True)
    means = {way: np.mean(dice, axis=0) for way, dice in found.items()}
    for number, name in enumerate(REGIONS):
        regions, labels = means["regions"][number], means["labels"][number]
        print(f"{name}: regions {regions:.3f}, labels {labels:.3f}, ratio {regions / labels:.3f}")


if __name__ == "__main__":
    main()
