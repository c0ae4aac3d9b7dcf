"""The page of the checks in a browser: no error, no request, filters and order that do what they say, phone width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rarevox.pipeline.preparation.prepare import prepare
from tests.browser import Browser, find_browser
from tests.pipeline.preparation.test_prepare import decathlon, plant

pytestmark = pytest.mark.skipif(find_browser() is None, reason="needs Chromium or Chrome on the PATH")
SHOWN = "[...document.querySelectorAll('.card:not([hidden])')].map(card => card.dataset.name)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    task = decathlon(folder / "task")
    plant(task)  # c02 … c10, an error each
    prepare(task, folder / "out", skip_faulty=True)
    return folder / "out" / "checks.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


def choose(browser: Browser, field: str, value: str) -> None:
    browser.run(
        f"(() => {{ const field = document.getElementById('{field}'); field.value = '{value}'; "
        "field.dispatchEvent(new Event('input')); })()"
    )


def test_it_loads_alone_and_filters_and_sorts(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert len(browser.run(SHOWN)) == 12
    choose(browser, "severity", "clean")
    assert browser.run(SHOWN) == ["c00", "c01", "c11"]
    assert browser.run("document.getElementById('count').textContent") == "3 of 12 cases"
    choose(browser, "severity", "error")
    choose(browser, "text", "not whole")
    assert browser.run(SHOWN) == ["c09"]
    choose(browser, "severity", "")
    choose(browser, "text", "")
    choose(browser, "order", "name")
    assert browser.run(SHOWN) == [f"c{number:02}" for number in range(12)]
    choose(browser, "order", "foreground")
    # 4, 3, 2 and 1 voxels of lesion; c10 was measured before its channels were counted, the other faulty ones were not.
    assert browser.run(SHOWN)[:4] == ["c11", "c10", "c01", "c00"]
    assert browser.errors == []
    assert browser.requests == [page.resolve().as_uri()]


def test_a_press_on_a_check_shows_its_cases_and_another_all(browser: Browser, page: Path) -> None:
    browser.open(page)
    press = "document.querySelector('[data-check=not-finite]').click()"
    browser.run(press)
    assert browser.run(SHOWN) == ["c07"]
    assert browser.run("document.querySelector('[data-check=not-finite]').getAttribute('aria-pressed')") == "true"
    browser.run(press)
    assert len(browser.run(SHOWN)) == 12


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_never_scrolls_sideways(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    assert browser.run("document.documentElement.scrollWidth") <= width
