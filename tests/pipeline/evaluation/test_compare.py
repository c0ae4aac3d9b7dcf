"""Comparing folders: pairing, what is refused and why, the files, the page, the exit status."""

from __future__ import annotations

import csv
import json
import math
import re
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rarevox.pipeline.cli import main
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.compare import FILES, compare
from rarevox.pipeline.evaluation.comparison.load import short_names
from rarevox.pipeline.evaluation.metrics.aggregate import aggregate, write_results
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import case_rows, failed_rows

STRUCTURES = {"core": 1, "edge": 2}


def _labels() -> np.ndarray:
    labels = np.zeros((12, 10, 8), np.uint8)
    labels[3:7, 3:7, 2:6], labels[3:7, 7:9, 2:6] = 1, 2
    return labels


def _folder(
    folder: Path,
    shifts: dict[str, int],
    *,
    options: MetricOptions | None = None,
    structures: dict[str, int] = STRUCTURES,
    spacing: tuple[float, float, float] = (1, 2, 3),
    failed: str = "",
) -> Path:
    """An evaluation whose predictions are the reference moved along x by so many of its four voxels."""
    rows: list[dict[str, Any]] = []
    for case, shift in shifts.items():
        moved = np.roll(_labels(), shift, 0)
        rows += case_rows(case, moved, _labels(), spacing, structures, options=options)
    if failed:
        rows += failed_rows(failed, structures, "no file", reference=_labels(), spacing_mm=spacing, options=options)
    write_results(folder, aggregate(rows, structures, options=options))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    a = _folder(tmp_path / "a_&1", {"p": 1, "q": 1, "r": 0, "s<i>": 2})
    b = _folder(tmp_path / "b", {"p": 0, "q": 1, "r": 0, "s<i>": 1})
    return [a, b]


def _status(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_a_comparison_by_hand(folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A shift of k of four voxels gives Dice 1 − k/4. a: 0.75, 0.75, 1, 0.5 (mean 0.75); b: 1, 0.75, 1, 0.75 (0.875).
    out = tmp_path / "out"
    assert compare(folders, out) == 0
    result = json.loads((out / "compare.json").read_text())
    assert {entry.name for entry in out.iterdir()} == set(FILES)
    assert [(b["name"], b["rank"], b["mean"]) for b in result["evaluations"]] == [("b", 1, 0.875), ("a_&1", 2, 0.75)]
    for row in result["pairs"]:
        assert (row["difference"], row["second_better"], row["equal"], row["first_better"]) == (0.125, 2, 2, 0)
        assert row["p"] == 0.5  # two differences of one sign: 2 of the 4 signings are as extreme
        assert row["p_holm"] == 1.0
    assert result["overall"][0]["difference"] == 0.125
    shown, said = capsys.readouterr()
    assert "0.875" in shown
    assert "+0.125" in shown
    assert "replaced" not in said
    assert compare(folders, out) == 0
    said = capsys.readouterr().err
    assert f"{out} holds a comparison of " in said and "which is replaced" in said


def test_intervals_are_those_of_the_results(folders: list[Path], tmp_path: Path) -> None:
    compare(folders, tmp_path / "out")
    for board in json.loads((tmp_path / "out" / "compare.json").read_text())["evaluations"]:
        own = json.loads((Path(board["folder"]) / "metrics.json").read_text())
        assert board["ci95"] == pytest.approx(own["mean_dice_ci95"])
        for name, one in board["structures"].items():
            assert one["ci95"] == pytest.approx(own["structures"][name]["dice"]["ci95"])


def test_the_tables_hold_the_same_figures(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    compare(folders, out)
    board = list(csv.DictReader((out / "leaderboard.csv").open()))
    assert [(r["rank"], r["evaluation"], r["structure"], r["mean"]) for r in board[:3]] == [
        ("1", "b", "core", "0.875"),
        ("1", "b", "edge", "0.875"),
        ("1", "b", "mean", "0.875"),
    ]
    pairs = list(csv.DictReader((out / "differences.csv").open()))
    assert [(row["structure"], row["difference"], row["n"]) for row in pairs] == [
        ("core", "0.125", "4"),
        ("edge", "0.125", "4"),
    ]
    tex = (out / "leaderboard.tex").read_text()
    assert r"b & \textbf{0.875} & \textbf{0.875} & \textbf{0.875} \\" in tex
    assert r"a\_\&1 & 0.750 & 0.750 & 0.750 \\" in tex
    assert tex.count("{") == tex.count("}")
    assert "0.875 (" in (out / "leaderboard.txt").read_text()


def test_a_dagger_marks_what_differs_from_the_best(tmp_path: Path) -> None:
    # Eight differences of one sign: p = 2/2⁸ for each structure, 0.0156 with Holm for two; of five, 0.125: no mark.
    for cases, marked in ((8, 2), (5, 0)):
        shifts = {f"case{i}": 0 for i in range(cases)}
        good = _folder(tmp_path / f"good{cases}", shifts)
        bad = _folder(tmp_path / f"bad{cases}", dict.fromkeys(shifts, 1))
        compare([bad, good], tmp_path / str(cases))
        lines = (tmp_path / str(cases) / "leaderboard.tex").read_text().splitlines()
        row = next(line for line in lines if line.startswith("bad"))
        assert row.count(r"0.750$^\dagger$") == marked
        assert not any("dagger" in line for line in lines if line.startswith("good"))


def test_the_page_is_whole_and_requests_nothing(folders: list[Path], tmp_path: Path) -> None:
    compare(folders, tmp_path / "out")
    html = (tmp_path / "out" / "compare.html").read_text()
    loads: list[str] = []
    open_tags: list[str] = []
    texts: list[str] = []

    class Page(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            loads.extend(value for name, value in attrs if name in ("src", "href") and value)
            assert tag != "img" or dict(attrs)["alt"]
            if tag not in ("meta", "link", "img", "input"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

        def handle_data(self, data: str) -> None:
            texts.append(data)

    Page().feed(html)
    assert open_tags == []
    assert html.count('class="dot"') == 2 * 4  # a mark for each structure and case
    assert all(load.startswith("data:") for load in loads)
    assert not re.search(r"@import|url\(|https?://|fetch\(|XMLHttpRequest", html)
    assert "s<i>" in texts
    assert "<i>" not in html
    assert "+0.125" in html


def test_cases_that_some_folder_lacks_are_listed_and_left_out(folders: list[Path], tmp_path: Path) -> None:
    more = _folder(tmp_path / "c", {"p": 3, "q": 1, "extra": 0})
    out = tmp_path / "out"
    assert compare([*folders, more], out) == 1
    result = json.loads((out / "compare.json").read_text())
    assert result["left_out"] == [
        {"case": "extra", "missing_from": ["a_&1", "b"]},
        {"case": "r", "missing_from": ["c"]},
        {"case": "s<i>", "missing_from": ["c"]},
    ]
    assert result["n_cases"] == 2
    assert len(result["pairs"]) == 3 * 2
    # p and q alone: a 0.75, 0.75; b 1, 0.75; c 0.25, 0.75.
    assert {b["name"]: b["mean"] for b in result["evaluations"]} == {"a_&1": 0.75, "b": 0.875, "c": 0.5}
    assert "missing from c" in (out / "compare.html").read_text()


def test_a_failed_case_counts_as_0_in_dice_and_has_no_distance(folders: list[Path], tmp_path: Path) -> None:
    lost = _folder(tmp_path / "lost", {"p": 0, "q": 0, "r": 0}, failed="s<i>")
    compare([folders[1], lost], tmp_path / "dice")
    result = json.loads((tmp_path / "dice" / "compare.json").read_text())
    assert {b["name"]: b["mean"] for b in result["evaluations"]} == {"b": 0.875, "lost": 0.75}
    compare([folders[1], lost], tmp_path / "hd", metric="hd95_mm")
    result = json.loads((tmp_path / "hd" / "compare.json").read_text())
    assert result["better"] == "lower"
    assert result["pairs"][0]["n"] == 3
    assert [one["undefined_in"] for one in result["undefined"]] == [["lost"], ["lost"]]
    assert {b["name"]: b["rank"] for b in result["evaluations"]} == {"lost": 1, "b": 2}


def test_what_cannot_be_compared_is_refused_in_one_sentence(folders: list[Path], tmp_path: Path) -> None:
    def refused(words: str, *given: Path, **options: Any) -> None:
        with pytest.raises(RequestError, match=words):
            compare([folders[0], *given], **options)

    cases = {"p": 0, "q": 0}
    refused("two evaluation folders or more")
    refused("given twice", folders[0] / ".")
    refused("has no metrics.json; give the folder", tmp_path / "nothing")
    refused("treat empty masks differently", _folder(tmp_path / "e", cases, options=MetricOptions(empty="nan")))
    refused("has the structures core, edge and", _folder(tmp_path / "s", cases, structures={"core": 1, "rim": 2}))
    refused("no case in common", _folder(tmp_path / "n", {"z": 0}))
    refused("against the same references", _folder(tmp_path / "r", cases, spacing=(1, 2, 4)))
    refused("did you mean 'dice'", folders[1], metric="dise")
    refused("no column 'status'", folders[1], metric="status")
    refused("3 names for 2 folders", folders[1], names=("x", "y", "z"))
    refused("a name of its own", folders[1], names=("x", "x"))
    area = _folder(tmp_path / "area", cases, options=MetricOptions(surface="area"))
    refused("treat surfaces differently", area, metric="hd95_mm")
    assert compare([folders[0], area]) == 1  # Dice does not depend on the surface; two cases are left out
    sizes = _folder(tmp_path / "sizes", cases, options=MetricOptions(lesion_sizes_ml=(0.01, 0.1)))
    refused("treat small and large lesions differently", sizes, metric="lesions_detected_small")
    assert compare([folders[0], sizes], metric="lesion_f1") == 1  # which does not depend on the classes
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "metrics.json").write_text('{"cases": 3}')
    refused("is no result of rarevox", broken)
    refused("already holds other files", folders[1], output=tmp_path)


def test_a_killed_calls_folder_is_written_into(tmp_path: Path) -> None:
    folders = [_folder(tmp_path / name, {"p": 0, "q": 0}) for name in ("a", "b")]
    (tmp_path / "out").mkdir()
    for name in ("compare.json", ".4194305.part.0.html"):
        (tmp_path / "out" / name).write_text("{}")
    assert compare(folders, output=tmp_path / "out") == 0
    assert "leaderboard.csv" in {path.name for path in (tmp_path / "out").iterdir()}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ROW = {"case": "c", "structure": "a", "dice": 0.5, "status": "ok", "reference_ml": 1.0}
RESULT: dict[str, Any] = {
    "structures": {"a": {}},
    "conventions": {"empty": "one", "mean_over": ["a"]},
    "cases": [ROW, ROW | {"case": "d"}],
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([*RESULT, "mean_over", "empty", *ROW]), JSON)
@example("structures", [["a"]])
@example("mean_over", 3)
@example("mean_over", ["other"])
@example("dice", [1])
def test_results_of_another_form_are_compared_or_one_sentence(tmp_path: Path, key: str, value: Any) -> None:
    """Values replaced in the file, in its conventions, in a row."""
    changed = deepcopy(RESULT)
    for place in (changed, changed["conventions"], changed["cases"][0]):
        if key in place:
            place[key] = value
    for name, content in (("a", RESULT), ("b", changed)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "metrics.json").write_text(json.dumps(content))
    try:
        assert compare([tmp_path / "a", tmp_path / "b"], tmp_path / "out") in (0, 1)
    except RequestError as error:
        assert "\n" not in str(error)


def test_names_are_the_parts_that_differ() -> None:
    assert short_names([Path("x/a/evaluation/test"), Path("y/a/evaluation/test")]) == ["x", "y"]
    assert short_names([Path("x/a"), Path("y/a"), Path("x/b")]) == ["x/a", "y/a", "x/b"]


def test_command_line(folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(folder) for folder in folders]
    assert _status(["compare", *given, "--metric", "hd95_mm", "--name", "old", "--name", "new"]) == 0
    shown = capsys.readouterr().out
    assert "new − old" in shown
    assert "hd95_mm" in shown
    assert _status(["compare", given[0]]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    _folder(tmp_path / "c", {"p": 0})
    assert _status(["compare", given[0], str(tmp_path / "c"), "--output", str(tmp_path / "o")]) == 1
    assert "missing from c" in capsys.readouterr().err
    row = json.loads((tmp_path / "o" / "compare.json").read_text())["pairs"][0]  # one case has no interval
    assert row["ci95"] == [None, None]
    assert not math.isnan(row["difference"])


@pytest.mark.parametrize(
    ("metric", "other", "said"),
    [
        ("pq", {"panoptic_iou": 0.3}, "pairs of components"),
        ("sq", {"connectivity": 6}, "components"),
        ("dice", {"ignored_value": 9}, "voxels that nobody annotated"),
    ],
)
def test_other_conventions_of_a_metric_are_refused(
    tmp_path: Path, metric: str, other: dict[str, Any], said: str
) -> None:
    shifts = {"p": 1, "q": 0}
    mine = _folder(tmp_path / "a", shifts, options=MetricOptions(panoptic=True))
    theirs = _folder(tmp_path / "b", shifts, options=MetricOptions(panoptic=True, **other))
    with pytest.raises(RequestError, match=f"treat {said} differently"):
        compare([mine, theirs], tmp_path / "out", metric=metric)
    if metric != "dice":
        assert compare([mine, theirs], tmp_path / "out", metric="dice") == 0
