"""Names by the rules of BIDS: read, taken over, and made for scans that have none."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from rarevox.pipeline.bids.names import ENTITIES, derived, parse, source_of, subject


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_T1w.nii.gz",
        "sub-A1b_ses-pre_acq-highres_ce-gd_rec-2_run-01_FLAIR.nii",
        "sub-1_part-mag_chunk-2_T2w.nii.gz",
    ],
)
def test_what_is_read_is_written_again(name: str) -> None:
    found = parse(name)
    assert found is not None
    words = [f"{key}-{value}" for key, value in found.entities.items()]
    assert "_".join([*words, found.suffix]) == re.sub(r"\.nii(\.gz)?$", "", name)
    made = derived(found, "dseg", ".nii.gz", desc="rarevox").rsplit("/", 1)[1]
    again = parse(made)
    assert again is not None
    assert {**again.entities} == {**found.entities, "space": found.suffix, "desc": "rarevox"}


@pytest.mark.parametrize(
    "name",
    [
        "sub-01.nii.gz",
        "T1w.nii.gz",
        "ses-1_sub-2_T1w.nii.gz",
        "sub-01_run-1_acq-2_T1w.nii.gz",
        "sub-01_run-1_run-2_T1w.nii.gz",
        "sub-0_1_T1w.nii.gz",
        "sub-01_colour-red_T1w.nii.gz",
        "sub-01_T1w.mha",
        "sub-_T1w.nii.gz",
        "sub-01_T-1w.nii.gz",
    ],
)
def test_other_names_are_not_taken_for_such(name: str) -> None:
    assert parse(name) is None


def test_the_dataset_is_where_its_description_is(tmp_path: Path) -> None:
    file = tmp_path / "ds" / "sub-1" / "anat" / "sub-1_T1w.nii.gz"
    file.parent.mkdir(parents=True)
    assert source_of(file, "x").root == tmp_path / "ds"  # above the subject's folder, without any
    other = tmp_path / "more" / "deep" / "sub-2" / "sub-2_T1w.nii.gz"
    (tmp_path / "more" / "deep").mkdir(parents=True)
    (tmp_path / "more" / "dataset_description.json").write_text("{}")
    found = source_of([other, "other"], "x")
    assert (found.root, found.within) == (tmp_path / "more", "deep/sub-2/sub-2_T1w.nii.gz")


def test_names_of_others_are_labels_that_stay_apart() -> None:
    cases = ["a1", "a_1", "a-1", "a 1", "A1", "é1", "1", "_1", "日本", "a.1"]
    made = [subject(case) for case in cases]
    assert all(re.fullmatch(r"[A-Za-z0-9]+", one) for one in made)
    assert all(a != b for a, b in itertools.combinations(made, 2))


def test_entities_have_one_order() -> None:
    assert len(set(ENTITIES)) == len(ENTITIES)
