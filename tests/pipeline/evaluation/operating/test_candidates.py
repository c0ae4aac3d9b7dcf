"""Candidates: every label that a threshold may give, and counts that equal those of the label maps themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows
from rarevox.pipeline.evaluation.operating.candidates import FLOOR, Candidates, StoredCase, case_table
from rarevox.pipeline.evaluation.operating.parts import Parts
from rarevox.transforms.decision import Decision
from rarevox.transforms.nested import depth_log_probabilities, depths

SHAPE = (12, 10, 9)
VALUES = (0, 3, 7)


def logs_of(seed: int, classes: int = 3) -> torch.Tensor:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(classes, *SHAPE)), (0, 0.8, 0.8, 0.8))
    smooth[0] += 0.6
    return torch.log_softmax(torch.from_numpy(6 * smooth).float(), 0)


def stored(folder: Path, seed: int) -> tuple[Path, torch.Tensor, np.ndarray]:
    logs = logs_of(seed)
    found = Candidates(3)
    found.begin(SHAPE)
    for begin in (0, 5):
        span = slice(begin, 5 if begin == 0 else 12)
        found.take(logs[:, span], (span, slice(0, 10), slice(0, 9)))
    noise = np.random.default_rng(seed + 99).normal(size=(3, *SHAPE))
    shaken = logs.numpy() + 1.5 * ndimage.gaussian_filter(noise, (0, 0.8, 0.8, 0.8))
    reference = np.array(VALUES, np.uint8)[shaken.argmax(0)]
    found.save(folder / f"{seed}.npz", f"case {seed}", reference, (1.0, 1.0, 1.0))
    return folder / f"{seed}.npz", logs, reference


@pytest.mark.parametrize("thresholds", [(0.5, 0.5), (FLOOR, 0.5), (0.9, FLOOR), (0.2, 0.8)])
def test_what_is_kept_gives_every_label(tmp_path: Path, thresholds: tuple[float, float]) -> None:
    file, logs, _ = stored(tmp_path, 1)
    case = StoredCase.load(file)
    assert len(case.places) < np.prod(SHAPE)
    decision = Decision({n: {"threshold": t} for n, t in zip("ab", thresholds, strict=True)}, ["a", "b"])
    wanted = np.array(VALUES)[(logs + decision.log_weights.reshape(3, 1, 1, 1)).argmax(0).numpy()]
    assert np.array_equal(case.labels(decision, VALUES), wanted)


def test_the_table_is_that_of_the_label_maps(tmp_path: Path) -> None:
    file, logs, reference = stored(tmp_path, 2)
    case, others = StoredCase.load(file), Decision({"b": {"threshold": 0.3}}, ["a", "b"])
    levels, options = [0.05, 0.5, 0.8], MetricOptions(distances=False)
    table = case_table(case, others, 1, VALUES[1], levels, [0.0], options)
    for row, threshold in enumerate(levels):
        decision = Decision({"a": {"threshold": threshold}, "b": {"threshold": 0.3}}, ["a", "b"])
        labels = np.array(VALUES)[(logs + decision.log_weights.reshape(3, 1, 1, 1)).argmax(0).numpy()]
        wanted = case_rows("x", labels, reference, (1, 1, 1), {"a": VALUES[1]}, options=options)[0]
        counts = {key: int(numbers[row, 0]) for key, numbers in table.counts.items()}
        assert counts["tp"] == wanted["tp"]
        assert counts["predicted"] == wanted["tp"] + wanted["fp"]
        assert counts["detected"] == wanted["lesions_detected"]
        assert counts["true"] == wanted["lesions_true"]
        assert counts["true"] + counts["false"] == wanted["lesions_predicted"]
    assert table.lesions == wanted["lesions_reference"]


def test_a_reference_on_another_grid_is_refused(tmp_path: Path) -> None:
    found = Candidates(2)
    found.begin(SHAPE)
    with pytest.raises(ValueError, match="another grid"):
        found.save(tmp_path / "x.npz", "x", np.zeros((2, 2, 2), np.uint8), (1, 1, 1))


RINGS = (0, 7, 250, 2)
NESTED = Parts({"whole": (2, 7, 250), "core": (2, 250), "hot": (2,)}, nested=True)


def stored_rings(folder: Path, seed: int) -> tuple[Path, torch.Tensor, np.ndarray]:
    """A case of three nested regions; logits that contradict one another among them."""
    noise = np.random.default_rng(seed).normal(size=(3, *SHAPE))
    logits = torch.from_numpy(8 * ndimage.gaussian_filter(noise, (0, 0.9, 0.9, 0.9))).float() - 0.5
    logs = depth_log_probabilities(logits)
    found = Candidates(4, nested=True)
    found.begin(SHAPE)
    found.take(logs, tuple(slice(0, n) for n in SHAPE))
    shaken = logits + torch.from_numpy(np.random.default_rng(seed + 7).normal(size=logits.shape)).float()
    reference = np.array(RINGS, np.uint8)[depths(shaken, 0)[0].numpy()]
    found.save(folder / f"{seed}.npz", f"case {seed}", reference, (1.0, 1.0, 1.0))
    return folder / f"{seed}.npz", logs, reference


def rings(logs: torch.Tensor, thresholds: dict[str, float]) -> np.ndarray:
    """By hand: a voxel is in a region where that and all around it exceed their thresholds."""
    depth, inside = np.zeros(SHAPE, int), np.ones(SHAPE, bool)
    for number, name in enumerate(NESTED.structures, start=1):
        inside &= logs[number:].exp().sum(0).numpy() > thresholds.get(name, 0.5)
        depth += inside
    return np.array(RINGS)[depth]


@pytest.mark.parametrize("thresholds", [{}, {"whole": FLOOR}, {"whole": 0.9, "core": 0.05}, {"core": 0.3, "hot": 0.8}])
def test_what_is_kept_of_nested_regions_gives_every_label(tmp_path: Path, thresholds: dict[str, float]) -> None:
    file, logs, _ = stored_rings(tmp_path, 3)
    case = StoredCase.load(file)
    decision = NESTED.decision({name: {"threshold": t} for name, t in thresholds.items()})
    found = case.labels(decision, NESTED.label_values)
    assert np.array_equal(found, rings(logs, thresholds))
    assert set(np.unique(found)) == set(RINGS)


@pytest.mark.parametrize(
    ("name", "beside"), [("whole", {"core": 0.3}), ("core", {"whole": 0.7}), ("hot", {"core": 0.2})]
)
def test_the_table_of_a_region_is_that_of_the_label_maps(tmp_path: Path, name: str, beside: dict[str, float]) -> None:
    file, logs, reference = stored_rings(tmp_path, 4)
    others = NESTED.decision({other: {"threshold": t} for other, t in beside.items()})
    levels, options = [0.05, 0.4, 0.8], MetricOptions(distances=False)
    number, values = list(NESTED.structures).index(name) + 1, NESTED.structures[name]
    table = case_table(StoredCase.load(file), others, number, values, levels, [0.0], options)
    for row, threshold in enumerate(levels):
        labels = rings(logs, beside | {name: threshold})
        wanted = case_rows("x", labels, reference, (1, 1, 1), {name: values}, options=options)[0]
        counts = {key: int(numbers[row, 0]) for key, numbers in table.counts.items()}
        assert counts["tp"] == wanted["tp"] > 0
        assert counts["predicted"] == wanted["tp"] + wanted["fp"]
        assert counts["detected"] == wanted["lesions_detected"]
        assert counts["true"] + counts["false"] == wanted["lesions_predicted"]
