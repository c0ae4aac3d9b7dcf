"""Codes of structures: those of the standard's own dictionary, found by names as people write them."""

from __future__ import annotations

import pytest

from rarevox.pipeline.dicom import codes
from rarevox.pipeline.dicom.codes import ANATOMY, MORPHOLOGY, coded, given_codes
from rarevox.pipeline.errors import RequestError


@pytest.mark.parametrize(
    ("name", "value", "side"),
    [
        ("lesion", "52988006", None),
        ("MS lesions", "52988006", None),
        ("WMH", "110702", None),
        ("Right-Kidney", "64033007", "Right"),
        ("L Thalamus", "42695009", "Left"),
        ("enhancing_tumour", "108369006", None),
        ("edema", "79654002", None),
        ("Ventricles", "35764002", None),
        ("ball", MORPHOLOGY.value, None),
    ],
)
def test_names_are_found_as_people_write_them(name: str, value: str, side: str | None) -> None:
    found = coded(name)
    assert (found.type.value, found.side and found.side.meaning) == (value, side)


def test_the_table_says_what_the_standard_says() -> None:
    concepts = pytest.importorskip("pydicom.sr._concepts_dict", reason="needs the extra 'dicom'").concepts
    known = {(scheme, code) for scheme in concepts for by in concepts[scheme].values() for code in by}
    for name, (category, kind) in codes._TABLE.items():
        assert (category.scheme, category.value) in known
        if name != "infarct":  # SNOMED's code of the morphology, which the dictionary lacks
            assert (kind.scheme, kind.value) in known
    assert set(codes._SAME.values()) <= set(codes._TABLE)


def test_what_somebody_states_counts() -> None:
    given = given_codes({"ball": {"type": ["1", "99ME", "Ball"], "category": list(ANATOMY), "side": "left"}}, "f")
    assert coded("ball", given).type.meaning == "Ball"
    assert coded("ball", given).side == coded("left x").side
    assert coded("lesion", given).type.value == "52988006"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1], "must name structures"),
        ({"a": 3}, "must be a mapping"),
        ({"a": {"type": ["1", "2"]}}, "value, scheme, meaning"),
        ({"a": {"type": ["1", "2", "x\\y"]}}, "value, scheme, meaning"),
        ({"a": {"type": ["1", "2", "3"], "sort": 1}}, "has the key 'sort'"),
        ({"a": {"type": ["1", "2", "3"], "side": "up"}}, "left, right"),
    ],
)
def test_other_forms_are_refused(content: object, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        given_codes(content, "codes.yaml")
