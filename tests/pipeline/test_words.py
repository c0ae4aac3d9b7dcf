"""Words for each medium: nothing that a terminal obeys, texts that come back from tables, no markup left."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarevox.pipeline.words import cell, csv_rows, csv_text, latex, markdown, one_line, uncell, visible
from tests import forked
from tests.hostile.of_nifti import pixdim_of_zero_beside_an_sform

TEXT = st.text(st.one_of(st.characters(), st.sampled_from("=+-@'\t\r\n \x1b\x9b\u202e\u2066\udce4")), max_size=12)
OBEYED = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories: controls, surrogates, separators of lines and paragraphs."""


@given(TEXT)
def test_what_is_visible_has_no_control_character_and_turns_nothing_around(text: str) -> None:
    shown = visible(text)
    assert not {sign for sign in shown if unicodedata.category(sign) in OBEYED} - {"\t", "\n"}
    turning = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    assert not {sign for sign in shown if unicodedata.bidirectional(sign) in turning}
    assert shown.encode("utf-8").decode("utf-8") == shown == visible(shown)


@pytest.mark.parametrize("text", ["Hirn – Läsion", "大脑 病变", "שלום", "naïve 🧠\tx\ny", "[/b] :dog: %s {}"])
def test_what_is_plain_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


@given(TEXT)
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


@given(TEXT)
def test_a_cell_computes_nothing_and_gives_its_text_back(text: str) -> None:
    assert cell(text).lstrip()[:1] not in tuple("=+-@")
    assert uncell(cell(text)) == visible(text)


def test_numbers_stay_numbers() -> None:
    assert [cell(value) for value in (-1, -0.5, 1e-7, None, True)] == [-1, -0.5, 1e-7, None, True]
    assert csv_text(["a", "b"], [{"a": -0.5, "b": "-0.5"}]) == "a,b\n-0.5,'-0.5\n"


@given(st.lists(st.tuples(TEXT, TEXT), max_size=4), TEXT)
def test_a_table_comes_back(rows: list[tuple[str, str]], second: str) -> None:
    columns = ["case", f"x{visible(second)}"]
    texts = [dict(zip(columns, row, strict=True)) for row in rows]
    found = list(csv_rows(io.StringIO(csv_text(columns, texts), newline="")))
    assert [row for _, row in found] == [{key: visible(text) for key, text in row.items()} for row in texts]


@given(TEXT)
def test_any_reader_of_tables_finds_the_cells(text: str) -> None:
    assert list(csv.reader(io.StringIO(csv_text(["case"], [{"case": text}]), newline="")))[1:] == [[cell(text)]]


@given(TEXT)
def test_markdown_has_no_sign_of_markup_that_is_not_escaped(text: str) -> None:
    said = markdown(text)
    assert "<" not in said and ">" not in said
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|#!~$]", said)


@given(TEXT)
def test_latex_has_no_sign_of_its_own_that_is_not_escaped(text: str) -> None:
    said = re.sub(r"\\text(backslash|asciitilde|asciicircum)\{\}|\\[&%$#_{}]", "", latex(text))
    assert not set(said) & set("\\&%$#_{}~^\n")


def test_nibabel_mends_headers_without_a_word_of_its_own(tmp_path: Path) -> None:
    """Its words name no file; those of the reader do, and stand in the scan's row."""
    code = "import sys; from rarevox.pipeline.logs import show_logs_visibly; show_logs_visibly()\n"
    code += "from rarevox.transforms.reader import read_scan; print(read_scan(sys.argv[1]).warnings)"
    path = pixdim_of_zero_beside_an_sform(tmp_path)
    done = forked.run(["-c", code, str(path)])
    assert "those of its sform are used" in done.stdout
    assert "setting 0 dims" not in done.stderr
