"""A rule that chooses series: what is misspelt in it is told, and not taken as part of a value."""

from __future__ import annotations

import pytest

from rarevox.pipeline.dicom.rules import parse_rule
from rarevox.pipeline.errors import RequestError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modality=MR,orientatin=axial", "'orientatin': did you mean 'orientation'"),
        ("description=flair,orientatin=axial", "'orientatin': did you mean 'orientation'"),
        ("modality=MR,CT", "no key is called 'CT'"),
        ("modalty=MR", "^--series 'modalty=MR': no key is called 'modalty': did you mean 'modality'"),
        ("MR", "^--series 'MR': this is not KEY=VALUE with KEY of modality, description"),
        ("number=2,number=3", "names number twice"),
    ],
)
def test_what_is_misspelt_is_told(text: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        parse_rule(text)


@pytest.mark.parametrize("pattern", ["t1,t2", "a{1,3}", "x,echo=2", ","])
def test_a_description_may_hold_commas(pattern: str) -> None:
    rule = parse_rule(f"description={pattern},min-slices=4")
    assert rule.description is not None
    assert (rule.description.pattern, rule.min_slices) == (pattern, 4)
