"""The report: whole without a request, true to the figures, small; and the volumes in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from rarevox.pipeline.evaluation.metrics.aggregate import aggregate, write_results
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows, failed_rows
from rarevox.pipeline.evaluation.report.page import CaseImages, failing_cases, shown_cases, write_report
from rarevox.pipeline.evaluation.report.planes import canonical, focus
from rarevox.pipeline.files import read_json

STRUCTURES = {"background": 0, "core": 1, "whole": (1, 2)}
AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])


class _Page(HTMLParser):
    """Collects what a page loads, the words for its charts, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.said: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "action") and value]
        if found.get("role") == "img":
            self.said.append(str(found["aria-label"]))
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = np.zeros((20, 24, 10), np.uint8)
    reference[5:12, 6:14, 3:7], reference[12:15, 6:14, 3:7] = 1, 2
    return rng.normal(size=reference.shape), np.roll(reference, seed % 4, 0), reference


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    rows, images = [], {}
    for seed in range(7):
        image, prediction, reference = _case(seed)
        rows += case_rows(f"case{seed}", prediction, reference, (1, 1, 3), STRUCTURES)
        images[f"case{seed}"] = CaseImages(f"case{seed}", image, prediction, reference, AFFINE)
    image, _, reference = _case(9)
    rows += failed_rows("<b>lost</b>", STRUCTURES, "no & file", reference=reference, spacing_mm=(1, 1, 3))
    images["<b>lost</b>"] = CaseImages("<b>lost</b>", image, None, reference, AFFINE)
    result = aggregate(rows, STRUCTURES)
    folder = tmp_path_factory.mktemp("report")
    curves = {"train": [{"iteration": i, "loss": 1 / i, "lr": 0.1} for i in range(1, 50)]}
    curves["validation"] = [{"iteration": i, "dice": {"core": 0.5, "whole": None}, "mean_dice": 0.5} for i in (10, 20)]
    path = write_report(
        folder / "report.html",
        result,
        title="Evaluation",
        cases_images=[images[case] for case in shown_cases(result)],
        curves=curves,
        context={"network": "HighResNet"},
    )
    return path, result


def _parse(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_page_is_whole_and_requests_nothing(report: tuple[Path, dict]) -> None:
    page = _parse(report[0])
    assert page.open == []
    assert page.loads
    assert all(load.startswith(("data:", "#")) for load in page.loads)
    text = report[0].read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(|https?://|fetch\(|XMLHttpRequest", text)
    assert "default-src 'none'" in text
    assert report[0].stat().st_size < 5_000_000


def test_page_states_the_figures_and_the_conventions(report: tuple[Path, dict]) -> None:
    path, result = report
    text = _parse(path).text
    for summary in result["structures"].values():
        assert f"{summary['dice']['mean']:.3f}" in text
    assert f"{result['mean_dice']:.3f}" in text
    assert "95 % interval" in text
    assert result["conventions"]["empty_rule"][1:] in text
    assert "no & file" in text
    assert "HighResNet" in text


def test_names_are_escaped(report: tuple[Path, dict]) -> None:
    assert "<b>lost" not in report[0].read_text(encoding="utf-8")
    assert "<b>lost</b>" in _parse(report[0]).text


def test_every_chart_has_words_with_its_figures(report: tuple[Path, dict]) -> None:
    path, result = report
    said = _parse(path).said
    for name, summary in result["structures"].items():
        assert any(one.startswith(f"Dice, {name}: median {summary['dice']['median']:.3g}") for one in said)
        assert any(one.startswith(f"Dice over reference volume, {name}.") for one in said)
    assert any(one.startswith("Training loss over iterations") for one in said)


def test_report_from_the_written_file_is_the_same(report: tuple[Path, dict], tmp_path: Path) -> None:
    result = report[1]
    again = read_json(write_results(tmp_path, result))
    plain, reread = (write_report(tmp_path / n, r, title="t") for n, r in (("a.html", result), ("b.html", again)))
    assert plain.read_text() == reread.read_text()


def test_shown_cases_are_best_median_and_worst() -> None:
    rows = [
        {"case": c, "dice": d, "status": "ok"} for c, d in zip("abcdef", (0.1, 0.9, 0.5, 0.6, 0.4, 0.7), strict=True)
    ]
    rows += [{"case": "x", "dice": 0.0, "status": "failed"}]
    shown = shown_cases({"cases": rows, "failed": [{"case": "x", "reason": ""}]})
    assert shown == {"b": "best", "d": "median", "a": "worst", "x": "failed"}
    assert shown_cases({"cases": rows[:2], "failed": []}) == {"b": "best", "a": "worst"}
    assert shown_cases({"cases": rows[:1], "failed": []}) == {"a": ""}
    assert shown_cases({"cases": [], "failed": []}) == {}


def test_sections_are_named_in_the_order_of_the_page(report: tuple[Path, dict]) -> None:
    text = report[0].read_text(encoding="utf-8")
    named = re.findall(r'<a href="#([a-z]+)"', text)
    headings = re.findall(r'<h2 id="([a-z]+)"', text)
    assert len(named) > 5
    assert named == headings


def test_one_case_has_no_spread_and_is_not_the_best(tmp_path: Path) -> None:
    """Nor is there an interval: figures stand alone, and the one validation is a mark."""
    image, prediction, reference = _case(1)
    result = aggregate(case_rows("alone", prediction, reference, (1, 1, 3), STRUCTURES), STRUCTURES)
    voxels = {"threshold": [0.5], "recall": [0.5], "precision": [0.5], "average_precision": 0.5}
    lesions = {"false_per_scan": [0.0], "sensitivity": [0.5], "confidence": [0.0], "reference": 2}
    lesions |= {"froc_score": 0.452, "froc_score_ci95": [None, None], "sensitivity_at": {"1": 0.5}}
    one = {"threshold": 0.5, "confidence": 0.0, "voxels": voxels, "lesions": lesions}
    result["curves"] = {"structures": {"core": one}}
    path = write_report(
        tmp_path / "r.html",
        result,
        title="t",
        cases_images=[CaseImages("alone", image, prediction, reference, AFFINE)],
        curves={"validation": [{"iteration": 90, "dice": {"core": 0.25}, "mean_dice": 0.25}]},
    )
    page = _parse(path)
    assert "alone, mean Dice" in page.text
    assert not re.search(r"\bbest\b", page.text)
    assert "0.452" in page.text
    assert not re.search(r"\((\d\.\d+|–) to (\1)\)", page.text)
    assert path.read_text(encoding="utf-8").count('<circle class="point"') == 2


def test_a_result_without_figures_still_makes_a_page(tmp_path: Path) -> None:
    path = write_report(tmp_path / "r.html", aggregate([], {"s": 1}), title="Nothing")
    assert _parse(path).open == []


def test_the_page_tells_rules_in_words_and_what_the_mean_is_over(tmp_path: Path) -> None:
    labels, structures = np.zeros((6, 6, 6), np.uint8), {"background": 0, "s": 1}
    labels[2:4, 2:4, 2:4] = 1
    rules = {"s": {"min_ml": 0.05, "largest": True}, "t": {"fill_holes": True}}
    text = {}
    for include in (False, True):
        options = MetricOptions(include_background=include, distances=False)
        rows = case_rows("a", labels, np.zeros_like(labels), (1, 1, 1), structures, options=options)
        result = aggregate(rows, structures, options=options)
        page = write_report(tmp_path / "r.html", result, title="t", context={"post_processing": rules})
        text[include] = _parse(page).text
    assert "s: min_ml 0.05, largest True; t: fill_holes True" in text[False]
    assert "s: the reference is empty in 1 case, with 0.008 ml of false positives on average" in text[False]
    assert "Background is not in the mean" in text[False] and "Background is not in the mean" not in text[True]
    assert "The background is in the mean" in text[True]


def test_failing_cases_are_those_that_failed_missed_or_fell_under_a_gate() -> None:
    rows = [
        {"case": c, "structure": "s", "dice": d, "status": status}
        for c, d, status in (
            ("good", 0.9, "ok"),
            ("low", 0.5, "ok"),
            ("none", 0.0, "empty_prediction"),
            ("false", 0.0, "empty_reference"),  # nothing was there to be missed
            ("undefined", None, "empty_both"),
            ("lost", 0.0, "failed"),
        )
    ]
    result = {"cases": rows, "failed": [{"case": "lost", "reason": ""}]}
    assert failing_cases(result) == {"lost": "failed", "none": "s missed"}
    result["gates"] = [
        {"structure": "s", "rule": "worst", "minimum": 0.6},
        {"structure": "s", "rule": "mean", "minimum": 1},
    ]
    assert failing_cases(result)["low"] == "s under the gate"
    assert shown_cases(result)["low"] == "median, s under the gate"


def test_focus_takes_the_structures_and_15_mm() -> None:
    # The box of a structure in a 40×40×40 volume of 1×1×4 mm: 15 mm are 15, 15 and 4 voxels.
    reference = np.zeros((40, 40, 40), np.uint8)
    reference[18:22, 19:21, 20] = 1
    box, centre = focus(None, reference, (1, 1, 4), {"s": 1})
    assert box == (slice(3, 37), slice(4, 36), slice(16, 25))
    assert centre == (18, 19, 20)


def test_focus_is_where_the_maps_disagree() -> None:
    reference = np.zeros((20, 20, 20), np.uint8)
    reference[2:8, 2:8, 2:8] = 1
    prediction = reference.copy()
    prediction[15:18, 15, 15] = 1
    assert focus(prediction, reference, (1, 1, 1), {"s": 1})[1] == (15, 15, 15)


def test_focus_is_a_voxel_in_error_where_the_slices_with_most_errors_meet_in_none() -> None:
    # Three sheets, each the most of one axis, which do not meet: sagittal 2, coronal 4 and axial 9.
    reference, prediction = np.zeros((20, 20, 20), np.uint8), np.zeros((20, 20, 20), np.uint8)
    prediction[2, 10:14, 12:16] = prediction[10:14, 4, 14:18] = prediction[14:18, 12:15, 9] = 1
    assert prediction[2, 4, 9] == 0
    centre = focus(prediction, reference, (1, 1, 1), {"s": 1})[1]
    assert prediction[centre] == 1
    errors = np.argwhere(prediction)
    seen = [sum((prediction.take(place, axis) == 1).sum() for axis, place in enumerate(error)) for error in errors]
    assert centre == tuple(errors[int(np.argmax(seen))])


def test_canonical_turns_to_ras() -> None:
    volume = np.arange(24).reshape(2, 3, 4)
    affine = np.zeros((4, 4))  # x of the file runs to the left, y upwards, z to the front
    affine[0, 0], affine[2, 1], affine[1, 2], affine[3, 3] = -2, 3, 4, 1
    _, _, turned, spacing = canonical(None, None, volume, (2, 3, 4), affine)
    assert spacing == (2.0, 4.0, 3.0)
    assert_array_equal(turned, volume[::-1].transpose(0, 2, 1))
