"""Every kind, pushed through reading: what it is, is told, and nothing dies, hangs or takes the machine's memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.hostile import of_dicom, of_files, of_itk, of_nifti  # noqa: F401, each adds its kinds
from tests.hostile.kinds import KINDS, REFUSED, Kind
from tests.hostile.trial import MEMORY_BYTES, Trial, reading

LEAKS = re.compile(r"\b\w+(Error|Exception|Warning)\b|Traceback|0x[0-9a-f]{6}|\.py\b|\.cxx\b|\.cc\b")
"""What no sentence for a reader holds."""


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    with Trial(reading) as running:
        yield running


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_kind_is_told_for_what_it_is(kind: Kind, trial: Trial, tmp_path: Path) -> None:
    path = kind.make(tmp_path)
    told = trial(path)
    assert told.outcome == kind.outcome, told.sentence
    assert kind.fits(told.sentence), told.sentence
    assert "\n" not in told.sentence
    assert not LEAKS.search(told.sentence.replace(str(path), ""))
    assert told.peak_bytes < MEMORY_BYTES
    if kind.outcome == REFUSED:
        assert path.with_suffix("").stem[:200] in told.sentence
    else:
        assert np.isfinite(told.facts["affine"]).all()
        assert told.facts["same_grid"]


def test_a_sound_scan_is_read_after_all_others(trial: Trial, tmp_path: Path) -> None:
    told = trial(KINDS["plain_called_gz"].make(tmp_path))
    assert told.outcome == "read"
    assert told.facts["spacing_mm"] == pytest.approx((1.0, 1.5, 2.0))


# Written out: 1 × 1 × 2 mm is 0.002 ml; 1 × 1.5 × 2 mm is 0.003 ml; 0.9 × 0.9 × 2 mm is 0.00162 ml.
@pytest.mark.parametrize(
    ("name", "voxel_ml"), [("in_metres", 0.002), ("in_micrometres", 0.003), ("nrrd_in_micrometres", 0.00162)]
)
def test_volumes_are_right_in_every_unit(name: str, voxel_ml: float, trial: Trial, tmp_path: Path) -> None:
    assert trial(KINDS[name].make(tmp_path)).facts["voxel_ml"] == pytest.approx(voxel_ml, rel=1e-6)


def test_a_gz_that_goes_on_takes_no_more_than_its_volume_and_slack(trial: Trial, tmp_path: Path) -> None:
    from rarevox.transforms.reading.files import SLACK_BYTES

    told = trial(KINDS["gz_that_goes_on"].make(tmp_path))
    assert told.outcome == "warned"
    # The inflated bytes once, in a buffer that grows by an eighth, and what Python takes besides.
    assert told.peak_bytes < 2 * SLACK_BYTES + (32 << 20)
