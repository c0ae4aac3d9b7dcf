from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.names import LONGEST_NAME, case_flaw, check_names, flaw, plain_name, shown


@pytest.mark.parametrize("name", ["liver", "Läsion 2", "T1 (Gd)", "T2*", "a.b", "=1+1", "肝臓", "_x", "a:b"])
def test_ordinary_names_have_no_flaw(name: str) -> None:
    assert flaw(name) == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("$x", "'$'"),
        ("a$", "'$'"),
        ("@x", "'@'"),
        ("5%", "'%'"),
        ("a#b", "'#'"),
        ("a::b", "'::'"),
        ("../up", "'/'"),
        ("a\\b", r"'\\'"),
        ("..", "means a folder"),
        ("", "is empty"),
        (" ", "is empty"),
        ("a\nb", r"'\n'"),
        ("a\x1b[2J", r"'\x1b'"),
        ("a\x00b", r"'\x00'"),
        ("a\u202eb", r"'\u202e'"),
        ("a\udcffb", r"'\udcff'"),
        ("_target_", "keywords"),
        ("x" * (LONGEST_NAME + 1), "longer"),
        (3, "is no text"),
        (None, "is no text"),
    ],
)
def test_a_flaw_names_the_character(name: object, said: str) -> None:
    assert said in flaw(name)


def test_a_case_may_not_hide() -> None:
    assert case_flaw("case_1.a") == "" and "begins with '.'" in case_flaw(".a")


def test_the_sentence_says_name_character_and_place() -> None:
    with pytest.raises(RequestError, match=r"structure in d/dataset\.json, '\$x', holds '\$'.*give it another one"):
        check_names(["a", "$x"], "structure", "d/dataset.json")


@given(st.text())
def test_what_is_made_of_a_folders_name_has_no_flaw(name: str) -> None:
    assert flaw(plain_name(name)) == ""


@given(st.text(max_size=20))
def test_a_name_without_a_flaw_means_itself_to_monai(name: str) -> None:
    """As a value, in a list, and as a key."""
    if not flaw(name):
        parser = ConfigParser({"one": name, "many": [name], "by": {name: [1, 2]}})
        assert [parser.get_parsed_content(key) for key in ("one", "many", "by")] == [name, [name], {name: [1, 2]}]


@given(st.text())
def test_what_is_shown_is_one_printable_line(value: str) -> None:
    assert shown(value).isprintable() and len(shown(value)) <= 80
