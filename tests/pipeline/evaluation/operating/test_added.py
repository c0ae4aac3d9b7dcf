"""Curves of parts are those of all cases at once, through the files that the parts leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.added import DETECTIONS_FILE, add_curves, read_detections, write_detections
from rarevox.pipeline.evaluation.operating.curves import CaseCurves, Curves
from rarevox.pipeline.files import json_text
from rarevox.pipeline.plain_data import parse_json
from rarevox.transforms.decision import Decision

STRUCTURES = {"a": 1, "b, =1+1": 2}
POINTS = {"a": {"threshold": 0.4, "confidence": 0.55}}


def _counted(names: list[str], options: MetricOptions, points: dict[str, Any] = POINTS) -> Curves:
    """Noise, the same for the same name."""
    decision = Decision(points, list(STRUCTURES))
    curves = Curves(STRUCTURES, decision, options)
    for name in names:
        random = np.random.default_rng(sum(map(ord, name)))
        reference = random.choice(np.arange(3, dtype=np.uint8), (9, 8, 7), p=[0.8, 0.1, 0.1])
        case = CaseCurves(STRUCTURES, decision, reference, (1, 1, 2), case=name)
        logits = torch.from_numpy(random.normal(size=(3, 9, 8, 7))) + torch.tensor([2.0, 0, 0]).reshape(3, 1, 1, 1)
        case.take(logits.log_softmax(0), (slice(0, 9), slice(0, 8), slice(0, 7)))
        curves.add(case)
    return curves


@pytest.mark.parametrize("lesions", [True, False])
def test_parts_give_what_all_cases_at_once_give(lesions: bool, tmp_path: Path) -> None:
    options = MetricOptions(lesions=lesions, resamples=100)
    parts = [["d", "a"], [], ["b"], ["c", "f", "e"]]
    results, found = [], []
    for number, names in enumerate(parts):
        curves = _counted(names, options)
        write_detections(tmp_path / str(number), curves.lesions()) if lesions else None
        results.append(parse_json(json_text(curves.result())))  # as metrics.json holds it
        found.append(read_detections(tmp_path / str(number)) if lesions else {})
    everything = _counted(["a", "b", "c", "d", "e", "f"], options).result()
    assert json_text(add_curves(results, found, options, {})) == json_text(everything)
    assert everything["n_cases"] == 6
    assert ("lesions" in everything["structures"]["a"]) == lesions
    if lesions:
        assert everything["structures"]["a"]["lesions"]["points"] > 10


def test_the_order_of_the_cases_does_not_matter() -> None:
    options = MetricOptions(resamples=100)
    one, other = (_counted(names, options).result() for names in (["a", "b", "c"], ["c", "a", "b"]))
    assert json_text(one) == json_text(other)


def test_what_does_not_add_up_is_refused() -> None:
    options = MetricOptions(resamples=2)
    one, same = _counted(["a"], options), _counted(["a"], options)
    other = _counted(["b"], options, {"a": {"threshold": 0.3}})

    def added(*parts: Curves) -> None:
        add_curves([part.result() for part in parts], [part.lesions() for part in parts], options, {})

    with pytest.raises(ValueError, match="a case is in two folds"):
        added(one, same)
    with pytest.raises(ValueError, match="different operating points of a"):
        added(one, other)
    with pytest.raises(ValueError, match="of 1 cases and lesions of others"):
        add_curves([one.result()], [_counted(["a", "b"], options).lesions()], options, {})
    with pytest.raises(ValueError, match="not counted in every fold"):
        add_curves([one.result(), same.result()], [one.lesions(), {}], options, {})
    fewer = {"n_cases": 1, "structures": {"a": one.result()["structures"]["a"]}}
    with pytest.raises(ValueError, match="different structures"):
        add_curves([one.result(), fewer], [one.lesions(), one.lesions()], options, {})


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"structures": 1}',
        '{"structures": {"a": {"case": {"peaks": [1]}}}}',
        '{"structures": {"a": {"c": {"peaks": [NaN], "sizes": [1], "overlaps": [1], "true": [1], "counted": [1], '
        '"reference_peaks": []}}}}',
        '{"structures": {"a": {"c": {"peaks": [0.5], "sizes": [], "overlaps": [1], "true": [1], "counted": [1], '
        '"reference_peaks": []}}}}',
    ],
)
def test_files_of_another_form_are_refused_in_a_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / DETECTIONS_FILE).write_text(text)
    with pytest.raises(RequestError, match="evaluate again"):
        read_detections(tmp_path)


def test_an_earlier_file_goes_where_no_lesions_are_counted(tmp_path: Path) -> None:
    write_detections(tmp_path, _counted(["a"], MetricOptions()).lesions())
    write_detections(tmp_path, None)
    assert not (tmp_path / DETECTIONS_FILE).exists()
