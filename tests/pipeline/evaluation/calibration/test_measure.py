"""Calibration: parity with a brute force and with torchmetrics, sums that add up, and figures of a run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.evaluation.calibration.measure import (
    BINS,
    NEAR_MM,
    Calibration,
    CaseCalibration,
    add_calibrations,
)
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.inference.native_watch import CERTAIN

STRUCTURES = {"a": 4, "b": 2, "both": (2, 4)}
VALUES = (0, 2, 4)
SPACING = (3.0, 4.0, 6.0)


def _case(seed: int, shape: tuple[int, int, int] = (11, 9, 7)) -> tuple[torch.Tensor, np.ndarray]:
    """Probabilities (3, X, Y, Z), mostly background, and labels that partly agree with them."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 0, 0, 0, 0, 0, 0, 0, 2, 4], shape).astype(np.int16)
    labels[:, :, 3:] = 0
    logits = rng.normal(0, 2, (3, *shape))
    logits[0] += 4
    for index, value in enumerate(VALUES):
        logits[index] += 3 * (labels == value)
    return torch.log_softmax(torch.from_numpy(logits), 0).float(), labels


def _brute(p: np.ndarray, y: np.ndarray, kept: np.ndarray) -> dict[str, float]:
    """ECE, MCE and Brier by the definition, one bin after the other."""
    p, y = p[kept].astype(float), y[kept].astype(float)
    ece, mce = 0.0, 0.0
    for k in range(BINS):
        inside = (p >= k / BINS) & ((p < (k + 1) / BINS) | (k == BINS - 1))
        if inside.any():
            gap = abs(p[inside].mean() - y[inside].mean())
            ece, mce = ece + gap * inside.sum() / len(p), max(mce, gap)
    return {"ece": ece, "mce": mce, "brier": float(((p - y) ** 2).mean()), "voxels": len(p)}


def _near(labels: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
    """Voxels at most 10 mm along every axis from a voxel of the structure, pair by pair."""
    found = np.argwhere(np.isin(labels, values))
    index = np.stack(np.meshgrid(*map(np.arange, labels.shape), indexing="ij"), -1)
    gaps = np.abs(index[..., None, :] - found) * np.array(SPACING)
    return (gaps <= NEAR_MM).all(-1).any(-1)


def _watched(logs: torch.Tensor, labels: np.ndarray, step: int = 3) -> CaseCalibration:
    case = CaseCalibration(STRUCTURES, VALUES, labels, SPACING)
    case.begin(labels.shape)
    for begin in range(0, labels.shape[0], step):
        where = (slice(begin, min(begin + step, labels.shape[0])), slice(0, labels.shape[1]), slice(0, labels.shape[2]))
        case.take(logs[(slice(None), *where)], where)
    return case


def _result(*cases: CaseCalibration) -> dict[str, Any]:
    calibration = Calibration(STRUCTURES, VALUES)
    for case in cases:
        calibration.add(case)
    return calibration.result()


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), step=st.integers(1, 11))
def test_figures_agree_with_a_brute_force(seed: int, step: int) -> None:
    logs, labels = _case(seed)
    found = _result(_watched(logs, labels, step))
    probabilities = logs.exp().numpy()
    for name, values in (("a", (4,)), ("b", (2,)), ("both", (2, 4))):
        p = probabilities[[VALUES.index(v) for v in values]].sum(0)
        y = np.isin(labels, values)
        for region, kept in (("image", np.ones(p.shape, bool)), ("near", (p >= 1 / BINS) | _near(labels, values))):
            for key, value in _brute(p, y, kept).items():
                assert found["structures"][name][region][key] == pytest.approx(value, abs=2e-6), (name, region, key)
    assert found["structures"]["a"]["near"]["voxels"] < labels.size  # the scan is longer than what is near


def test_figures_agree_with_torchmetrics() -> None:
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    logs, labels = _case(5)
    found = _result(_watched(logs, labels))["structures"]["b"]["image"]
    p, y = logs[1].exp().ravel(), torch.from_numpy((labels == 2).astype(int)).ravel()
    for key, norm in (("ece", "l1"), ("mce", "max")):
        peer = metrics.binary_calibration_error(p, y, n_bins=BINS, norm=norm)
        assert found[key] == pytest.approx(float(peer), abs=1e-5)


def test_probabilities_that_are_frequencies_have_no_error() -> None:
    """Labels drawn with the probabilities themselves: the error is that of the draw, 0.4/√n a bin at most."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, (60, 60, 60))
    labels = np.where(rng.uniform(size=p.shape) < p, 2, 0).astype(np.uint8)
    logs = torch.from_numpy(np.stack([1 - p, p, np.zeros_like(p)])).float().log().clamp_min(CERTAIN)
    good = _result(_watched(logs, labels))["structures"]["b"]["image"]
    assert good["ece"] < 0.01
    assert good["brier"] == pytest.approx(1 / 6, abs=0.003)  # ∫ p(1 − p) dp
    sharp = torch.log_softmax(3 * logs, 0)  # over-confident
    assert _result(_watched(sharp, labels))["structures"]["b"]["image"]["ece"] > 0.1


def test_voxels_that_are_not_shown_are_certain_background() -> None:
    logs, labels = _case(1)
    part = CaseCalibration(STRUCTURES, VALUES, labels, SPACING)
    part.begin(labels.shape)
    where = (slice(2, 7), slice(0, 9), slice(1, 5))
    part.take(logs[(slice(None), *where)], where)
    full = torch.full_like(logs, CERTAIN)
    full[0] = 0
    full[(slice(None), *where)] = logs[(slice(None), *where)]
    np.testing.assert_allclose(part.sums, _watched(full, labels).sums, atol=1e-9)


def test_a_pass_begun_anew_forgets_the_first() -> None:
    logs, labels = _case(2)
    case = _watched(logs, labels)
    once = case.sums.copy()
    case.begin(labels.shape)
    case.take(logs, tuple(slice(0, n) for n in labels.shape))
    np.testing.assert_allclose(case.sums, once, atol=1e-9)
    with pytest.raises(ValueError, match="the reference has"):
        case.begin((1, 2, 3))


def test_results_of_parts_add_up_to_the_whole() -> None:
    cases = [_watched(*_case(seed)) for seed in range(4)]
    whole = _result(*cases)
    parts = [json.loads(json.dumps(part)) for part in (_result(*cases[:1]), _result(*cases[1:]))]
    pooled = add_calibrations(parts)
    assert pooled["n_cases"] == whole["n_cases"] == 4
    for name in STRUCTURES:
        for region in ("image", "near"):
            one, other = (result["structures"][name][region] for result in (pooled, whole))
            assert {k: pytest.approx(v) for k, v in other.items()} == one
    with pytest.raises(ValueError, match="do not add up"):
        add_calibrations([whole, whole | {"temperature": 2.0}])


def test_a_structure_that_no_case_has() -> None:
    logs, labels = _case(3)
    found = _result(_watched(logs, np.zeros_like(labels)))["structures"]["a"]
    assert found["image"]["voxels"] == labels.size
    assert 0 < found["near"]["voxels"] < labels.size  # what is beyond the first bin
    assert found["near"]["ece"] > found["image"]["ece"] > 0
    assert math.isnan(_result()["structures"]["a"]["image"]["ece"])


def test_an_evaluation_gives_the_calibration_of_its_probabilities(
    run_dir: Path, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against the class maps of the same run, gathered whole."""
    from rarevox.pipeline.inference.segment import Segmenter

    class Keep:
        def begin(self, shape: tuple[int, ...]) -> None:
            self.p = np.zeros((3, *shape))

        def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
            self.p[(slice(None), *where)] = log_probabilities.exp().double().numpy()

    assert evaluate(run_dir, dataset_dir, output=tmp_path / "out", device="cpu") == 0
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())["calibration"]
    assert result["n_cases"] == 2
    assert result["temperature"] == 1.0
    cases = Dataset.load(dataset_dir).section("test")
    shown = [found.watch.p for found in Segmenter(run_dir, device="cpu")(cases, lambda _: Keep())]
    references = [np.asarray(nib.load(case["label"]).dataobj) for case in cases]
    p = np.concatenate([one[1].ravel() for one in shown])
    y = np.concatenate([one.ravel() == 1 for one in references])
    found = result["structures"]["ball"]["image"]
    assert found["voxels"] == p.size
    for key, value in _brute(p, y, np.ones(p.shape, bool)).items():
        assert found[key] == pytest.approx(value, abs=1e-5)
    assert "calibration" in capsys.readouterr().out
    assert 'id="calibration"' in (tmp_path / "out" / "report.html").read_text()
    settings = ["calibration=false"]
    assert evaluate(run_dir, dataset_dir, output=tmp_path / "off", device="cpu", settings=settings) == 0
    off = json.loads((tmp_path / "off" / "metrics.json").read_text())
    assert "calibration" not in off
    assert 'id="calibration"' not in (tmp_path / "off" / "report.html").read_text()


def test_a_case_that_fails_is_not_in_the_calibration(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    data = json.loads((dataset_dir / "dataset.json").read_text())
    other = Path(data["root"]) / data["test"][0]["label"]
    small = nib.load(other)
    nib.save(nib.Nifti1Image(np.asarray(small.dataobj)[1:], small.affine), tmp_path / "cut.nii.gz")
    data["test"][0]["label"] = str(tmp_path / "cut.nii.gz")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "dataset.json").write_text(json.dumps(data))
    assert evaluate(run_dir, tmp_path / "dataset", output=tmp_path / "out", device="cpu") == 1
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (len(result["failed"]), result["calibration"]["n_cases"]) == (1, 1)


def test_an_ignored_part_is_not_counted() -> None:
    """Parity with the definition over the annotated voxels; what the probabilities are elsewhere does not matter."""
    logs, labels = _case(3)
    ignored = np.random.default_rng(0).random(labels.shape) < 0.3
    painted = np.where(ignored, 7, labels)
    changed = torch.where(torch.from_numpy(ignored), logs.roll(1, 0), logs)
    results = []
    for shown in (logs, changed):
        case = CaseCalibration(STRUCTURES, VALUES, painted, SPACING, ignored=7)
        case.begin(labels.shape)
        case.take(shown, tuple(slice(0, n) for n in labels.shape))
        results.append(_result(case))
    assert results[0] == results[1]
    p = logs.exp().numpy()
    for name, values in (("a", (4,)), ("b", (2,)), ("both", (2, 4))):
        share, has = sum(p[VALUES.index(value)] for value in values), np.isin(painted, values)
        near = ~ignored & (_near(painted, values) | (share >= 1 / BINS))
        for region, kept in (("image", ~ignored), ("near", near)):
            found = results[0]["structures"][name][region]
            for key, wanted in _brute(share, has, kept).items():
                assert found[key] == pytest.approx(wanted, rel=1e-4, abs=1e-6), (name, region, key)
