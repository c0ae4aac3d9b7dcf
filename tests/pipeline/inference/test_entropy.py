"""Entropy maps by hand, and as files on the scan's grid."""

from __future__ import annotations

import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from click.testing import CliRunner
from scipy.stats import entropy as scipy_entropy

from rarevox.pipeline.cli import cli
from rarevox.pipeline.inference.entropy import EntropyMap
from rarevox.pipeline.inference.segment import Segmenter


def test_entropy_agrees_with_scipy() -> None:
    p = torch.softmax(3 * torch.randn(5, 6, 7, 4, dtype=torch.float64), 0)
    found = EntropyMap()
    found.begin((8, 7, 4))
    found.take(p.float().log(), (slice(1, 7), slice(0, 7), slice(0, 4)))
    expected = scipy_entropy(p.numpy(), axis=0) / math.log(5)
    assert np.abs(found.values[1:7] / 255 - expected).max() <= 0.5 / 255 + 1e-6
    assert not found.values[0].any()  # never shown: background by rule


def test_impossible_classes_do_not_break_it() -> None:
    found = EntropyMap()
    found.begin((1, 1, 1))
    found.take(torch.tensor([0.0, -math.inf, -1e4]).reshape(3, 1, 1, 1), (slice(0, 1),) * 3)
    assert found.values.item() == 0


def test_predict_writes_entropy_maps_on_the_grid_of_the_scan(run_dir: Path, task_dir: Path, tmp_path: Path) -> None:
    scan, out = task_dir / "imagesTr" / "case_01.nii.gz", tmp_path / "out"
    arguments = ["predict", str(run_dir), str(scan), "--output", str(out), "--device", "cpu"]
    assert CliRunner().invoke(cli, arguments, standalone_mode=False).exception is None
    plain = np.asarray(nib.load(out / "case_01_seg.nii.gz").dataobj)
    assert not (out / "case_01_entropy.nii.gz").exists()
    done = CliRunner().invoke(cli, [*arguments, "--keep", "--entropy"], standalone_mode=False)  # not there: done anew
    assert done.exception is None
    row = json.loads((out / "predictions.json").read_text())["scans"][0]
    volume, source = nib.load(out / row["entropy"]), nib.load(scan)
    assert volume.get_data_dtype() == np.uint8
    assert np.array_equal(volume.affine, source.affine)
    assert volume.shape == source.shape
    assert np.array_equal(np.asarray(nib.load(out / "case_01_seg.nii.gz").dataobj), plain)
    item = {"case": "1", "image": str(scan)}

    class Keep(EntropyMap):
        def begin(self, shape: tuple[int, ...]) -> None:
            self.p = np.zeros((3, *shape))

        def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
            self.p[(slice(None), *where)] = log_probabilities.double().exp().numpy()

    watched = next(iter(Segmenter(run_dir, device="cpu")([item], lambda _: Keep()))).watch
    expected = scipy_entropy(watched.p, axis=0) / math.log(3)
    assert np.abs(volume.get_fdata() - expected).max() <= 0.5 / 255 + 1e-5
    before = (out / row["entropy"]).stat().st_mtime_ns
    CliRunner().invoke(cli, [*arguments, "--keep", "--entropy"], standalone_mode=False)
    assert (out / row["entropy"]).stat().st_mtime_ns == before
