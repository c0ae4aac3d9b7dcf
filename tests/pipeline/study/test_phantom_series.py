"""Cohorts of one imbalance each, the lesions their one structure."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.study.phantom_series import write_phantom_series

pytest.importorskip("nilearn")


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    return write_phantom_series(folder, shares=(1e-2, 1e-3), subjects=4, spacing_mm=5.0)


def test_each_share_is_a_prepared_dataset_with_lesions_alone(series: Path) -> None:
    for name in ("share_1e-2", "share_1e-3"):
        data = Dataset.load(series / name)
        assert data.scored == {"lesion": 1}
        assert (len(data.training), len(data.test)) == (3, 1)
        for case in data.section("training"):
            assert set(np.unique(np.asarray(nib.load(case["label"]).dataobj))) <= {0, 1}


def test_the_shares_are_those_asked_for(series: Path) -> None:
    """A subject's load varies about the share by a factor of some two, the two shares differ by ten."""

    def share(name: str) -> float:
        data = Dataset.load(series / name)
        cases = data.section("training") + data.section("test")
        return float(np.mean([np.asarray(nib.load(case["label"]).dataobj).mean() for case in cases]))

    assert share("share_1e-3") < 3e-3 < share("share_1e-2")


def test_what_is_there_stays(series: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in series.rglob("*") if path.is_file()}
    write_phantom_series(series, shares=(1e-2, 1e-3), subjects=4, spacing_mm=5.0)
    assert {path: path.stat().st_mtime_ns for path in series.rglob("*") if path.is_file()} == before


def test_a_series_without_lesions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nothing to learn"):
        write_phantom_series(tmp_path / "series", shares=(1e-3, 0))
    assert not (tmp_path / "series").exists()
