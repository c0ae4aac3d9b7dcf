"""Every kind, one after another through one run: a label map or the reader's sentence, and the next one goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import of_dicom, of_files, of_itk, of_nifti  # noqa: F401, each adds its kinds
from tests.hostile.expected import as_scan
from tests.hostile.kinds import KINDS, REFUSED, WARNED, Kind
from tests.hostile.trial import Told, Trial


@cache
def segmenter_of(run: str) -> Any:
    from rarevox.pipeline.inference.segment import Segmenter

    return Segmenter(run, device="cpu")


def segmenting(run: str, path: Path) -> Told:
    """The stage of prediction: one scan through a run that is loaded once."""
    (found,) = segmenter_of(run)([{"case": "scan", "image": str(path)}])
    if found.labels is None:
        return Told("refused", found.reason)
    warning = dict(found.notes or {}).get("warning", "")
    return Told("warned" if warning else "read", warning, found.labels.shape)


@pytest.fixture(scope="module")
def trial(run_dir: Path) -> Iterator[Trial]:
    with Trial(partial(segmenting, str(run_dir))) as running:
        yield running


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_kind_ends_as_a_map_or_a_reason(kind: Kind, trial: Trial, tmp_path: Path) -> None:
    told = trial(kind.make(tmp_path))
    outcome, says = as_scan(kind, "predict")
    assert told.outcome == outcome, told.sentence
    if outcome in (REFUSED, WARNED):
        assert re.search(says, told.sentence), told.sentence
