"""The scores of labelled voxels, and components without confidence: block by block as at once, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from rarevox.transforms.decision import Decision
from rarevox.transforms.label_scores import LabelScores, without_unsure
from tests.bounds import unit_roundoff

EPS32 = unit_roundoff(torch.float32)

SHAPE = (9, 8, 7)


def _logs(classes: int, seed: int) -> torch.Tensor:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(classes, *SHAPE)), (0, 0.7, 0.7, 0.7))
    smooth[0] += 0.6  # a background that keeps components apart
    return torch.log_softmax(torch.from_numpy(6 * smooth).float(), 0)


def _gathered(decision: Decision, logs: torch.Tensor, step: int) -> LabelScores:
    found = LabelScores(decision)
    found.begin(SHAPE)
    for begin in range(0, SHAPE[0], step):
        span = slice(begin, min(begin + step, SHAPE[0]))
        found.take(logs[:, span], (span, slice(0, SHAPE[1]), slice(0, SHAPE[2])))
    return found


@pytest.mark.parametrize("classes", [2, 4])
def test_blocks_give_the_labels_and_scores_of_the_whole(classes: int) -> None:
    names = [f"s{n}" for n in range(1, classes)]
    decision, logs = Decision({names[0]: {"threshold": 0.3}}, names), _logs(classes, 1)
    labels = decision.weighted(logs.exp()).argmax(0).numpy()
    for step in (2, SHAPE[0]):
        found = _gathered(decision, logs, step)
        own = np.zeros(SHAPE, int)
        own.ravel()[found.places] = found.classes
        assert np.array_equal(own, labels)
        for number in range(1, classes):
            here = found.classes == number
            wanted = decision.scores(logs, number).numpy().ravel()[found.places[here]]
            assert np.allclose(found.scores[here], wanted, rtol=0, atol=4 * EPS32)
            assert (found.scores[here] > decision.thresholds[number - 1] - 4 * EPS32).all()


def test_a_new_pass_forgets_the_one_before() -> None:
    found = _gathered(Decision({}, ["a"]), _logs(2, 3), 9)
    found.begin(SHAPE)
    assert len(found.places) == len(found.scores) == len(found.classes) == 0


@pytest.mark.parametrize("least", [0.0, 0.9, 0.99, 1.0])
def test_components_under_the_confidence_go_as_by_brute_force(least: float) -> None:
    decision, logs, values = Decision({}, ["a", "b"]), _logs(3, 5), [0, 4, 9]
    found = _gathered(decision, logs, 4)
    labels = np.array(values)[logs.argmax(0).numpy()]
    wanted = labels.copy()
    components, count = ndimage.label(labels == 9, np.ones((3, 3, 3)))
    score = decision.scores(logs, 2).numpy()
    assert count > 2
    for number in range(1, count + 1):
        if score[components == number].max() < least:
            wanted[components == number] = 0
    assert np.array_equal(without_unsure(labels, found, {2: least}, values), wanted)
    assert (labels == 4).sum() == (wanted == 4).sum()


def test_without_the_structure_nothing_changes() -> None:
    found = LabelScores(Decision({}, ["a"]))
    found.begin(SHAPE)
    empty = np.zeros(SHAPE, np.uint8)
    assert np.array_equal(without_unsure(empty, found, {1: 0.9}, [0, 1]), empty)
