"""The post-processing that a file declares: as a run with that configuration does it, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.testing import assert_array_equal

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.operating.cleaning import read_cleaning

STRUCTURES = {"rim": 1, "hot": 2, "whole": (1, 2)}


def _read(path: Path, content: dict[str, Any], structures: dict[str, Any]) -> Any:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return read_cleaning(content.get("post_processing", content), path, structures)


def test_regions_and_labels_by_hand(tmp_path: Path) -> None:
    labels = np.array([2, 2, 1, 2, 0], np.uint8).reshape(5, 1, 1)
    rules = {"post_processing": {"hot": {"largest": True}}}
    regions = {"regions": {"whole": [1, 2], "hot": [2]}}
    of_regions = _read(tmp_path / "train.yaml", rules | regions, STRUCTURES)
    of_labels = _read(tmp_path / "rules.yaml", rules, STRUCTURES)
    assert of_regions(labels, 1.0).ravel().tolist() == [2, 2, 1, 1, 0]
    assert of_labels(labels, 1.0).ravel().tolist() == [2, 2, 1, 0, 0]
    assert of_regions.named == of_labels.named == {"hot": {"largest": True}}


def test_a_label_that_the_maps_type_does_not_hold(tmp_path: Path) -> None:
    """A file of bytes whose every voxel is hot: what hot loses is a label of two bytes."""
    content = {"post_processing": {"hot": {"largest": True}}, "regions": {"whole": [2, 300], "hot": [2]}}
    cleaning = _read(tmp_path / "train.yaml", content, {"hot": 2, "rim": 300})
    labels = np.array([2, 2, 0, 2], np.uint8).reshape(4, 1, 1)
    assert_array_equal(cleaning(labels, 1.0).ravel(), [2, 2, 0, 300])


def test_a_structure_may_be_called_regions(tmp_path: Path) -> None:
    cleaning = _read(tmp_path / "rules.yaml", {"regions": {"largest": True}}, {"regions": 1})
    assert (cleaning.rules, cleaning.values) == ({1: {"largest": True}}, ())


def test_without_rules_there_is_none(tmp_path: Path) -> None:
    assert read_cleaning({}, None, STRUCTURES) is None
    assert _read(tmp_path / "off.yaml", {"hot": {"min_ml": 0.0}}, STRUCTURES) is None


@pytest.mark.parametrize(
    ("regions", "structures", "message"),
    [
        ({"whole": [1, 2], "hot": [3]}, STRUCTURES, "expected nested regions, the outermost first"),
        ({"hot": [2], "whole": [1, 2]}, STRUCTURES, "expected nested regions"),
        ({"whole": [1, 2, 3], "hot": [3]}, STRUCTURES, "expected nested regions"),
        ({"whole": [1, 2]}, STRUCTURES, "expected nested regions"),
        ({"whole": [1, 0], "hot": [1]}, STRUCTURES, "expected nested regions"),
        (["whole", "hot"], STRUCTURES, "expected nested regions"),
        ("@more", STRUCTURES, "expected nested regions"),
        ({"whole": [1, 2], "hot": [2]}, {"rim": 2, "hot": 1}, r"whole=1\+2, hot=2, and .* have hot=1; score those"),
        ({"whole": [1, 2], "hot": [2]}, {**STRUCTURES, "organ": 3}, "have organ=3"),
        ({"all": [1, 2], "core": [2]}, STRUCTURES, "no structure is called 'hot'"),
    ],
)
def test_regions_that_do_not_fit_are_refused(
    regions: Any, structures: dict[str, Any], message: str, tmp_path: Path
) -> None:
    content = {"post_processing": {"hot": {"largest": True}}, "regions": regions}
    with pytest.raises(RequestError, match=message):
        _read(tmp_path / "train.yaml", content, structures)
