"""What every page shares: nothing outside the file, escaped texts, the parts that a page may replace."""

from __future__ import annotations

from pathlib import Path

import pytest

from rarevox import pipeline
from rarevox.pipeline.page import SHARED, write_page

RESULT = {"conventions": {"empty_rule": "both <empty>"}, "versions": {"torch": "2"}}


@pytest.fixture
def template(tmp_path: Path) -> Path:
    (tmp_path / "own.css").write_text("b { color: red }")
    (tmp_path / "own.js").write_text("'own' + '</b>'")
    text = '{% extends "base.html" %}{% block headline %}<p>{{ said | twice }}</p>{% endblock %}'
    (tmp_path / "mine.html").write_text(text + "{% block content %}<i>{{ number | figure }}</i>{% endblock %}")
    return tmp_path / "mine.html"


def _page(template: Path, **options: object) -> str:
    known = {"filters": {"twice": lambda text: text * 2}, "said": "<a&", "number": 0.25, "result": RESULT}
    return write_page(template.with_name("out.html"), template, title="T & <T>", **(known | options)).read_text()


def test_texts_are_escaped_and_blocks_filled(template: Path) -> None:
    page = _page(template)
    assert "<title>T &amp; &lt;T&gt;</title>" in page and "<h1>T &amp; &lt;T&gt;</h1>" in page
    assert "<p>&lt;a&amp;&lt;a&amp;</p>" in page and "<i>0.250</i>" in page
    assert "<dt>empty rule</dt><dd>both &lt;empty&gt;</dd>" in page and "<dt>torch</dt>" in page


def test_style_and_scripts_are_in_the_file_in_their_order(template: Path) -> None:
    page = _page(template, style=("own.css",), script=("page.js", "own.js"))
    css, js = ((SHARED / name).read_text() for name in ("page.css", "page.js"))
    assert css + "b { color: red }</style>" in page and js + "'own' + '</b>'</script>" in page
    assert js not in _page(template, script=("own.js",))


def test_a_page_may_go_without_the_last_section(template: Path) -> None:
    template.write_text(template.read_text() + "{% block how %}{% endblock %}")
    assert "How these figures were made" not in _page(template, result=None)


def test_no_template_repeats_the_frame() -> None:
    pages = [file for file in Path(pipeline.__file__).parent.rglob("templates/*.html") if file.parent != SHARED]
    assert len(pages) >= 5
    assert not [file for file in pages if "<html" in file.read_text(encoding="utf-8")]
