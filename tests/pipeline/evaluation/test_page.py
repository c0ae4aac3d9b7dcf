"""The pages in a real browser: no error, no request, slices that scroll, outlines that switch, tables that sort."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rarevox.pipeline.evaluation.compare import compare
from rarevox.pipeline.evaluation.metrics.aggregate import aggregate, write_results
from rarevox.pipeline.evaluation.metrics.rows import case_rows, failed_rows
from rarevox.pipeline.evaluation.report.page import CaseImages, shown_cases, write_report
from tests.browser import Browser, find_browser

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome on the PATH")

STRUCTURES = {"core": 1, "edge": 2}
AFFINE = np.array([[-1.0, 0, 0, 20], [0, 1, 0, -30], [0, 0, 3, 5], [0, 0, 0, 1]])
WIDTHS = (1280, 360)
at_a_desk = pytest.mark.parametrize("page", WIDTHS[:1], indirect=True)
"""For what no width changes: handlers of events know none."""


def _case(shift: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A scan, a prediction moved by ``shift`` along x, and its reference; slices are three times as thick as wide."""
    reference = np.zeros((40, 44, 14), np.uint8)
    reference[10:20, 12:28, 4:10], reference[20:26, 12:28, 4:10] = 1, 2
    image = np.random.default_rng(shift).normal(100, 20, reference.shape) + 60 * reference
    return image, np.roll(reference, shift, 0), reference


def _result(folder: Path, shifts: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, CaseImages]]:
    rows, images = [], {}
    for shift in shifts:
        name, (image, prediction, reference) = f"case <{shift}>", _case(shift)
        rows += case_rows(name, prediction, reference, (1, 1, 3), STRUCTURES)
        images[name] = CaseImages(name, image, prediction, reference, AFFINE)
    _, _, reference = _case(0)
    rows += failed_rows("lost", STRUCTURES, "no & prediction", reference=reference, spacing_mm=(1, 1, 3))
    images["lost"] = CaseImages("lost", None, None, reference, AFFINE)
    result = aggregate(rows, STRUCTURES)
    write_results(folder, result)
    return result, images


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    result, images = _result(folder, (1, 2, 3, 4, 6, 20, 5))
    curves = {"train": [{"iteration": i, "loss": 1 / i} for i in range(1, 30)]}
    curves["validation"] = [{"iteration": i, "dice": {"core": 0.5, "edge": None}, "mean_dice": 0.5} for i in (10, 20)]
    shown = [images[name] for name in shown_cases(result)]
    return write_report(folder / "report.html", result, title="Evaluation", cases_images=shown, curves=curves)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as one:
        yield one


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest, browser: Browser, report: Path) -> Browser:
    """The report, loaded anew at the width of a desk or of a phone, with its first case drawn."""
    browser.errors.clear(), browser.requests.clear()
    browser.open(report, request.param)
    browser.until("document.querySelector('.viewer').dataset.shown")
    for plane in range(3):
        _pixels(browser, plane)  # a canvas that has been read is drawn by other code from then on, a shade different
    for _ in range(2):
        browser.run("document.querySelector('[data-show=cross]').click()")
        browser.run("new Promise(requestAnimationFrame)")
    return browser


def _clean(browser: Browser, path: Path) -> None:
    assert browser.errors == []
    assert set(browser.requests) == {path.resolve().as_uri()}


def _pixels(browser: Browser, plane: int) -> str:
    return str(browser.run(f"document.querySelectorAll('.plane > canvas:not(.bars)')[{plane}].toDataURL()"))


def _labels(browser: Browser) -> list[str]:
    return list(browser.run("[...document.querySelectorAll('.plane p')].map(p => p.textContent)"))


def _column(browser: Browser, column: int) -> list[str]:
    return list(
        browser.run(f"[...document.querySelectorAll('.sortable tbody tr')].map(r => r.cells[{column}].innerText)")
    )


def test_loads_without_error_request_or_sideways_scroll(page: Browser, report: Path) -> None:
    width = page.run("innerWidth")
    assert page.run("document.documentElement.scrollWidth") <= width
    wide = "e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll') && !e.closest('svg')"
    assert page.run(f"[...document.querySelectorAll('main *')].filter({wide}).map(e => e.outerHTML.slice(0, 80))") == []
    _clean(page, report)


def test_planes_keep_the_proportions_in_millimetres(page: Browser) -> None:
    data = page.run("JSON.parse(document.querySelector('.viewer article script').textContent)")
    size = [n * s for n, s in zip(data["shape"], data["spacing"], strict=True)]
    assert data["spacing"] == [1.0, 1.0, 3.0]
    boxes = page.run(
        "[...document.querySelectorAll('.plane > canvas:not(.bars)')].map(c => {"
        "const b = c.getBoundingClientRect(); return [b.width, b.height, c.width, c.height]})"
    )
    scales = []
    for (u, v), (width, height, *inner) in zip(((0, 1), (0, 2), (1, 2)), boxes, strict=True):
        assert width / height == pytest.approx(size[u] / size[v], rel=0.02)
        assert inner[0] / inner[1] == pytest.approx(size[u] / size[v], rel=0.02)
        scales.append(width / size[u])
    assert scales == pytest.approx([scales[0]] * 3, rel=0.02)  # one scale for all three


@pytest.mark.parametrize("plane", range(3))
def test_slices_scroll_by_keys_and_slider(page: Browser, plane: int, report: Path) -> None:
    canvas, slider = (f"document.querySelectorAll('.plane > {tag}')[{plane}]" for tag in ("canvas:not(.bars)", "input"))
    page.run(f"{canvas}.focus()")
    before, drawn = _labels(page)[plane], _pixels(page, plane)
    axis, size = 2 - plane, (40, 44, 14)[2 - plane]
    name, at = before.removesuffix(f" of 0 to {size - 1}").rsplit(" = ", 1)
    assert name == ("sagittal, i", "coronal, j", "axial, k")[axis]
    # Slices are those of the file, whose first axis runs to the left: there the right end of what is shown comes first.
    data = page.run("JSON.parse(document.querySelector('.viewer article script').textContent)")
    ends = [data["first"][axis], data["first"][axis] + data["shape"][axis] - 1]
    first, last = [size - 1 - end for end in ends] if axis == 0 else ends
    up = int(at) + (-1 if axis == 0 else 1)

    def shows(slice_: int) -> None:
        page.until(f"document.querySelectorAll('.plane p')[{plane}].textContent.includes(' = {slice_} of')")

    page.press("ArrowUp")
    shows(up)
    assert _pixels(page, plane) != drawn
    page.press("ArrowDown")
    shows(int(at))
    assert _pixels(page, plane) == drawn
    page.press("End")
    shows(last)
    page.run(f"{slider}.focus()")
    page.press("Home")
    shows(first)
    _clean(page, report)


@at_a_desk
@pytest.mark.parametrize("name", ["reference", "prediction", "errors", "cross"])
def test_switches_change_the_picture_and_change_it_back(page: Browser, name: str) -> None:
    button = f"document.querySelector('[data-show={name}]')"
    before, state = _pixels(page, 0), page.run(f"{button}.getAttribute('aria-pressed')")
    page.run(f"{button}.focus()")
    page.press(" ")  # by keyboard, as a press of the button
    other = "false" if state == "true" else "true"
    page.until(f"{button}.getAttribute('aria-pressed') === '{other}'")
    page.run("new Promise(requestAnimationFrame)")
    assert _pixels(page, 0) != before
    page.press(name[0])  # by its letter
    page.until(f"{button}.getAttribute('aria-pressed') === '{state}'")
    page.run("new Promise(requestAnimationFrame)")
    assert _pixels(page, 0) == before


@at_a_desk
def test_the_first_view_and_the_largest_error_are_a_voxel_in_error(page: Browser) -> None:
    where = "document.querySelector('.where').textContent"

    def labels() -> list[str]:
        return [part.split(": ")[1] for part in page.run(where).split(" · ") if ": " in part]

    assert len(set(labels())) == 2, labels()
    page.run("document.querySelectorAll('.plane > input').forEach(i => { i.value = 0; i.oninput(); })")
    page.run("new Promise(requestAnimationFrame)")
    assert labels() == ["none", "none"]
    page.run("document.querySelector('.jump').click()")
    page.run("new Promise(requestAnimationFrame)")
    assert len(set(labels())) == 2, labels()


def test_outlines_are_where_the_labels_are(page: Browser) -> None:
    # With a plain ground, only the outline is coloured: its extent on the axial plane is the structure's, in per cent.
    page.run("document.querySelectorAll('[data-show=prediction], [data-show=cross]').forEach(b => b.click())")
    page.run("new Promise(requestAnimationFrame)")
    data = page.run("JSON.parse(document.querySelector('.viewer article script').textContent)")
    script = """(() => { const c = document.querySelector('.plane canvas'), d = c.getContext('2d')
        .getImageData(0, 0, c.width, c.height).data; let [x0, x1, y0, y1] = [1e9, 0, 1e9, 0];
        for (let y = 0; y < c.height; y++) for (let x = 0; x < c.width; x++) { const i = 4 * (y * c.width + x);
          if (d[i + 2] - d[i] <= 100) continue;
          x0 = Math.min(x0, x); x1 = Math.max(x1, x); y0 = Math.min(y0, y); y1 = Math.max(y1, y); }
        return [x0 / c.width, x1 / c.width, y0 / c.height, y1 / c.height]; })()"""
    found = page.run(script)
    # The file's x runs to the left, as the columns of a radiological view do: voxels 10 to 25 and 12 to 27 in y.
    start_x, start_y = data["first"][0], data["first"][1]
    (nx, ny), turned = data["shape"][:2], (40 - 26, 40 - 10)
    expected_x = sorted(1 - (edge - start_x) / nx for edge in turned)
    expected_y = sorted(1 - (edge - start_y) / ny for edge in (12, 28))
    assert found == pytest.approx([*expected_x, *expected_y], abs=0.02)


@at_a_desk
def test_crosshair_names_the_voxel_of_the_file(page: Browser) -> None:
    text = page.run("document.querySelector('.where').textContent")
    voxel = [int(n) for n in text.split("·")[0].removeprefix("voxel ").split(",")]
    world = AFFINE @ [*voxel, 1]
    said = [f"{abs(mm):.1f} {('LPI' if mm < 0 else 'RAS')[axis]}" for axis, mm in enumerate(world[:3])]
    assert text.split("·")[1].strip() == ", ".join(said) + " mm"
    assert page.run("document.querySelector('.viewer').dataset.shown") == "case <1>"
    _, prediction, reference = _case(1)
    name = {0: "none", 1: "core", 2: "edge"}
    assert f"reference: {name[reference[tuple(voxel)]]}" in text
    assert f"prediction: {name[prediction[tuple(voxel)]]}" in text


def test_hundreds_of_labels_are_named_under_the_crosshair(browser: Browser, tmp_path: Path) -> None:
    reference = np.zeros((10, 10, 30), np.int32)
    count = 324  # more than a byte tells apart
    reference[2:8, 2:8, 5:14] = 20 * np.arange(1, count + 1).reshape(6, 6, 9)
    structures = {f"s{n}": 20 * n for n in range(1, count + 1)}
    prediction = np.where(reference == 20 * 303, 20 * 77, reference)  # the one error, where the crosshair begins
    rows = failed_rows("many", structures, "")
    images = [CaseImages("many", None, prediction, reference, AFFINE)]
    path = write_report(tmp_path / "r.html", aggregate(rows, structures), title="Many", cases_images=images)
    browser.errors.clear(), browser.requests.clear()
    browser.open(path)
    browser.until("document.querySelector('.viewer').dataset.shown")
    text = browser.run("document.querySelector('.where').textContent")
    assert "reference: s303 " in text
    assert text.endswith("prediction: s77")
    _clean(browser, path)


@at_a_desk
def test_every_shown_case_opens(page: Browser, report: Path) -> None:
    cases = page.run("[...document.querySelectorAll('[data-pick]')].map(b => b.dataset.case)")
    assert "lost" in cases
    assert "case <20>" in cases  # missed altogether
    for number, case in enumerate(cases):
        page.run(f"document.querySelectorAll('[data-pick]')[{number}].click()")
        page.until(f"document.querySelector('.viewer').dataset.shown === {json.dumps(case)}")
        assert page.run("[...document.querySelectorAll('.viewer article')].filter(a => !a.hidden).length") == 1
    assert page.run("document.querySelector('[data-show=prediction]').disabled") == (cases[-1] == "lost")
    _clean(page, report)


@pytest.mark.parametrize("way", ["click", "key"])
def test_table_sorts_both_ways(page: Browser, way: str) -> None:
    button = "document.querySelectorAll('.sortable thead button')[2]"

    def press() -> None:
        page.run(f"{button}.{'click' if way == 'click' else 'focus'}()")
        if way == "key":
            page.press("Enter")

    press()
    page.until("document.querySelector('[aria-sort=ascending]')")
    dice = [float(text) for text in _column(page, 2)]
    assert dice == sorted(dice)
    press()
    page.until("document.querySelector('[aria-sort=descending]')")
    assert [float(text) for text in _column(page, 2)] == sorted(dice, reverse=True)


@at_a_desk
def test_missing_figures_come_last_and_the_search_narrows(page: Browser) -> None:
    heads = page.run("[...document.querySelectorAll('.sortable thead th')].map(h => h.innerText)")
    column = heads.index("HD95 mm")
    page.run(f"document.querySelectorAll('.sortable thead button')[{column}].click()")
    assert _column(page, column)[-2:] == ["–", "–"]  # the failed case
    page.run(
        "(() => { const f = document.querySelector('input[type=search]'); f.value = 'LOST edge'; "
        "f.dispatchEvent(new Event('input')); })()"
    )
    shown = "[...document.querySelectorAll('.sortable tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].innerText)"
    assert page.run(shown) == ["lost"]


@at_a_desk
def test_a_mark_of_a_chart_shows_its_case(page: Browser) -> None:
    mark = "[...document.querySelectorAll('.strips .dot')].find(d => d.dataset.case === '{}')"
    page.run(f"{mark.format('case <20>')}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    page.until("document.querySelector('.viewer').dataset.shown === 'case <20>'")
    page.run(f"{mark.format('case <2>')}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    marked = "[...document.querySelectorAll('tr.marked')].map(r => r.dataset.case)"
    assert page.run(marked) == ["case <2>"] * 2


def test_everything_that_acts_can_be_reached_and_has_a_name(page: Browser) -> None:
    nameless = page.run(
        "[...document.querySelectorAll('button, input, select, canvas[tabindex], [role=region]')].filter(e => "
        "!(e.innerText || e.ariaLabel || e.closest('label')?.innerText || '').trim()).map(e => e.outerHTML)"
    )
    assert nameless == []
    page.run("document.querySelector('[data-pick]').focus()")
    page.press("Tab")  # a focus by key must be seen
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert page.run("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2


@pytest.mark.parametrize("width", WIDTHS)
def test_comparison_page(browser: Browser, tmp_path: Path, width: int) -> None:
    for name, shifts in (("one", (1, 2, 3)), ("two", (0, 2, 5))):
        rows = []
        for case, shift in zip("abc", shifts, strict=True):
            _, prediction, reference = _case(shift)
            rows += case_rows(case, prediction, reference, (1, 1, 3), STRUCTURES)
        (tmp_path / name).mkdir()
        write_results(tmp_path / name, aggregate(rows, STRUCTURES))
    assert compare([tmp_path / "one", tmp_path / "two"], tmp_path / "out") == 0
    browser.errors.clear(), browser.requests.clear()
    browser.open(tmp_path / "out" / "compare.html", width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.run("document.querySelectorAll('.sortable thead button')[2].click()")
    dice = [float(text) for text in _column(browser, 2)]
    assert dice == sorted(dice)
    assert browser.run("document.querySelectorAll('.dot').length") == 3 * 2
    _clean(browser, tmp_path / "out" / "compare.html")


def test_twenty_cases_are_under_25_megabytes(tmp_path: Path) -> None:
    # The hardest there is: noise, which no encoder shortens; without thinning, 32 MB (1.58 MB a case).
    rng = np.random.default_rng(0)
    images, rows = [], []
    for number in range(20):
        reference = np.zeros((128, 144, 112), np.uint8)
        reference[5:120, 5:135, 5:105:40] = 1
        image = rng.random(reference.shape, np.float32)
        images.append(CaseImages(f"c{number}", image, reference, reference, np.eye(4)))
        rows += failed_rows(f"c{number}", {"core": 1}, "")
    path = write_report(tmp_path / "r.html", aggregate(rows, {"core": 1}), title="Large", cases_images=images)
    assert path.stat().st_size < 25e6
