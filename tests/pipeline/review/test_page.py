"""Both pages in a headless browser: no error, no outside request, pictures, sorting, no overflow on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.evaluation.metrics.aggregate import aggregate, write_results
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows
from rarevox.pipeline.review.agreement import agreement
from rarevox.pipeline.review.monitor import monitor
from rarevox.pipeline.review.monitor_chart import ChartOptions
from tests.browser import Browser, find_browser

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome on the PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as one:
        yield one


def _cube(shift: int) -> np.ndarray:
    labels = np.zeros((24, 8, 8), np.uint8)
    labels[2 + shift : 12 + shift, 2:6, 2:6] = 1
    return labels


@pytest.fixture(scope="module")
def monitor_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty cases moved by 0 to 2 of ten voxels, then fifteen moved by 6."""
    folder, options = tmp_path_factory.mktemp("monitor"), MetricOptions(distances=False, lesions=False)
    rows = []
    for case in range(35):
        moved = _cube(case % 3 if case < 20 else 6)
        rows += case_rows(f"case_{case:02}", moved, _cube(0), (1, 1, 1), {"core": 1}, options=options)
    write_results(folder / "results", aggregate(rows, {"core": 1}, options=options))
    add = [folder / "results"]
    assert monitor(folder / "h.db", folder / "out", add=add, options=ChartOptions(baseline=15)) == 1
    return folder / "out" / "monitor.html"


@pytest.fixture(scope="module")
def agreement_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three annotators and a model of three cases."""
    folder = tmp_path_factory.mktemp("agreement")
    for place, shift in (
        ("people/ann", 0),
        ("people/bob", 1),
        ("people/a very long name of an annotator", 5),
        ("m", 2),
    ):
        (folder / place).mkdir(parents=True)
        for case in range(3):
            nib.save(nib.Nifti1Image(_cube(shift + case % 2), np.eye(4)), folder / place / f"case_{case}.nii.gz")
    assert agreement([folder / "people"], folder / "out", model=folder / "m") == 0
    return folder / "out" / "agreement.html"


@pytest.mark.parametrize("name", ["monitor_page", "agreement_page"])
def test_loads_draws_sorts_and_fits(name: str, browser: Browser, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(name)
    browser.errors.clear(), browser.requests.clear()
    browser.open(page)
    browser.until("[...document.images].length && [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    table = "[...document.querySelectorAll('table.sortable')].at(-1)"
    column = f"[...{table}.tHead.rows[0].cells].findIndex(c => c.textContent == 'Dice')"
    for direction in ("ascending", "descending"):
        browser.run(f"{table}.tHead.rows[0].cells[{column}].querySelector('button').click()")
        shown = browser.run(f"[...{table}.tBodies[0].rows].map(row => Number(row.cells[{column}].textContent))")
        assert len(set(shown)) > 2
        assert shown == sorted(shown, reverse=direction == "descending")
    browser.resize(390, 800)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.errors == []
    assert browser.requests == [page.resolve().as_uri()]
