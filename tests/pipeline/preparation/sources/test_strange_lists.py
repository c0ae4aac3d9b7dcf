"""``dataset.json`` and tables from elsewhere, malformed: one sentence, or the cases that are in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.preparation.sources.find import find_cases

CASE = {"image": "i.nii.gz", "label": "l.nii.gz"}
DECATHLON: dict[str, Any] = {"name": "x", "modality": {"0": "T1"}, "labels": {"1": "a"}, "training": [CASE]}
NNUNET: dict[str, Any] = {
    "channel_names": {"0": "T1"},
    "labels": {"background": 0, "a": 1},
    "dataset": {"c": {"images": ["i.nii.gz"], "label": "l.nii.gz"}},
}


def write(folder: Path, content: object) -> Path:
    (folder / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1], "labels"),
        (3, "labels"),
        ("[" * 5000, "nested deeper"),
        (DECATHLON | {"name": 3}, '"name"'),
        (DECATHLON | {"modality": ["T1"]}, '"modality"'),
        (DECATHLON | {"modality": {"0": 3}}, '"modality"'),
        (DECATHLON | {"modality": {"a": "T1"}}, '"modality"'),
        (DECATHLON | {"labels": ["a"]}, "labels"),
        (DECATHLON | {"labels": {"1": 3}}, "the name 3"),
        (DECATHLON | {"labels": {"a": {"b": 1}}}, "whole number"),
        (DECATHLON | {"labels": {"a": [[1]]}}, "whole number"),
        (DECATHLON | {"labels": {"1": "$x"}}, r"'\$'"),
        (DECATHLON | {"labels": {"1": "a/b"}}, "'/'"),
        (DECATHLON | {"modality": {"0": "T1#2"}}, "'#'"),
        (DECATHLON | {"training": {"a": 1}}, '"training"'),
        (DECATHLON | {"training": [3]}, "must list"),
        (DECATHLON | {"training": [CASE | {"image": 3}]}, '"image"'),
        (DECATHLON | {"training": [CASE | {"image": [3]}]}, '"image"'),
        (DECATHLON | {"training": [CASE | {"label": 3}]}, '"label"'),
        (DECATHLON | {"training": [CASE | {"label": "a\0b"}]}, '"label"'),
        (NNUNET | {"channel_names": {"0": 1}}, '"channel_names"'),
        (NNUNET | {"labels": {"background": 0, "a": "b"}}, "whole number"),
        (NNUNET | {"dataset": {"c": 3}}, "must give"),
        (NNUNET | {"dataset": {"c": {"images": [3], "label": "l"}}}, '"images"'),
        (NNUNET | {"dataset": {"c": {"images": ["i"], "label": 3}}}, '"label"'),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_malformed_list_is_one_sentence(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        prepare(write(tmp_path, content), tmp_path / "out")
    assert "dataset.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row",
    [{"case": ["a"], "image": "i", "label": "l"}, {"image": {"a": 1}, "label": "l"}, {"image": "i", "label": 1.5}],
)
def test_cells_of_a_table_are_texts(tmp_path: Path, row: dict[str, Any]) -> None:
    file = tmp_path / "cases.json"
    file.write_text(json.dumps([row]))
    with pytest.raises(RequestError, match=r"row 1 of .*cases\.json"):
        find_cases(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case,image,label\na," + "x" * 200_000 + ",l\n", "no table that can be read: field larger"),
        ("\0" * 1000, "lists no cases|has the columns"),
        ("x" * 100_000 + "\na\n", "has the columns x{200}; expected"),
    ],
    ids=["a cell without end", "zeros", "a heading without end"],
)
def test_a_table_of_no_use_is_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(RequestError, match=said) as caught:
        find_cases(tmp_path / "cases.csv")
    assert len(str(caught.value)) < 1000


def test_a_row_of_too_many_cells_is_a_fault_of_its_case(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case,image,label\na,b.nii,c.nii,d,e\ng,h.nii,i.nii\n")
    source = find_cases(tmp_path / "cases.csv")
    assert [case.case for case in source.cases] == ["g"]
    assert [(one.case, one.message) for one in source.faults] == [("a", "row 1 has more cells than there are columns")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([DECATHLON, NNUNET]), st.sampled_from([*DECATHLON, *NNUNET]), JSON, st.booleans())
def test_whatever_stands_in_the_list_is_read_or_one_sentence(
    tmp_path: Path, content: dict[str, Any], key: str, value: Any, case: bool
) -> None:
    try:
        find_cases(write(tmp_path, content | {key: [value] if case else value}))
    except RequestError as error:
        assert "\n" not in str(error)
