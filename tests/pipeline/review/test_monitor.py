"""The command: folders in, charts, alarms and files out."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rarevox.pipeline.cli import main
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.metrics.aggregate import aggregate, write_results
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.metrics.rows import failed_rows
from rarevox.pipeline.review.monitor import charts, monitor
from rarevox.pipeline.review.monitor_chart import ChartOptions
from rarevox.pipeline.review.monitor_read import iso_date, read_reviewed

STRUCTURES = {"core": 1, "edge": 2}
PLAIN = MetricOptions(distances=False, lesions=False)


def _folder(folder: Path, dice: Sequence[float | None], prefix: str = "case", empty: str = "one") -> Path:
    """An evaluation with these Dice for core and 0.9 for edge; None is a failed case."""
    rows: list[dict[str, Any]] = []
    for index, value in enumerate(dice):
        case = failed_rows(f"{prefix}_{index:03}", STRUCTURES, "no prediction", options=PLAIN)
        for row, figure in zip(case, (value, 0.9), strict=True):
            if value is not None:
                row |= {"dice": figure, "status": "ok", "reason": "", "reference_ml": 1.0}
        rows += case
    write_results(
        folder, aggregate(rows, STRUCTURES, options=MetricOptions(distances=False, lesions=False, empty=empty))
    )
    return folder


def _steady(n: int, seed: int = 0) -> list[float]:
    return np.random.default_rng(seed).uniform(0.8, 0.9, n).tolist()


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Forty steady cases of site A, then twenty of site B that are worse by 0.2."""
    base = tmp_path / "history.db"
    good, bad = _folder(tmp_path / "good", _steady(40)), _folder(tmp_path / "bad", [v - 0.2 for v in _steady(20)], "b")
    assert monitor(base, add=[good], site="A", day="2026-01-01") == 0
    assert monitor(base, add=[bad], site="B", day="2026-02-01", scanner="<i>3T</i>") == 1
    return base


def _status(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_an_alarm_names_structure_beginning_and_size(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert monitor(history, tmp_path / "out") == 1
    result = json.loads((tmp_path / "out" / "monitor.json").read_text())
    core, edge = result["charts"]
    assert (core["structure"], core["group"], core["state"], edge["state"]) == ("core", "all", "alarm", "in control")
    (alarm,) = core["alarms"]
    assert (alarm["began"]["case"], alarm["began"]["date"], alarm["n_cases"]) == ("b_000", "2026-02-01", 20)
    # The first twenty steady figures less 0.2 against all forty.
    assert alarm["drop"] == pytest.approx(np.mean(_steady(40)) - (np.mean(_steady(20)) - 0.2))
    shown = " ".join(capsys.readouterr().err.split())
    assert re.search(r"alarm core: Dice lower by 0\.\d+ from b_000 \(2026-02-01\) to b_019", shown)
    assert len(core["cases"]) == 60
    assert result["n_cases"] == 60


def test_by_site_each_has_its_own_chart(history: Path, tmp_path: Path) -> None:
    result = charts(history, by="site", options=ChartOptions(baseline=10))
    found = {(chart["structure"], chart["group"]): chart["state"] for chart in result["charts"]}
    assert found == {
        ("core", "all"): "alarm",
        ("core", "A"): "in control",
        ("core", "B"): "in control",  # it was never better
        ("edge", "all"): "in control",
        ("edge", "A"): "in control",
        ("edge", "B"): "in control",
    }
    short = charts(history, by="scanner")["charts"]
    assert [(c["group"], c["state"]) for c in short[:3]] == [
        ("all", "alarm"),
        ("<i>3T</i>", "too few cases"),
        ("not stated", "in control"),
    ]


def test_the_rate_of_false_alarms_is_shared_by_all_charts(history: Path) -> None:
    from rarevox.pipeline.review.monitor_chart import limit_for

    for by, n in ((None, 2), ("site", 4)):
        result = charts(history, by=by, options=ChartOptions(baseline=20, run_length=500))
        assert result["charts"][0]["limit"] == limit_for(500 * n, 0.25)
        assert result["conventions"]["charts_a_case"] == n


def test_a_reference_evaluation_shows_a_site_that_was_never_good(history: Path, tmp_path: Path) -> None:
    # Its own forty cases are in the history as well; they are left out of the charts.
    result = charts(history, by="site", baseline=tmp_path / "good")
    core = {chart["group"]: chart for chart in result["charts"] if chart["structure"] == "core"}
    assert set(core) == {"all", "B"}
    assert core["B"]["state"] == "alarm"
    assert core["B"]["alarms"][0]["began"]["case"] == "b_000"
    assert core["B"]["baseline"]["n"] == 40
    with pytest.raises(RequestError, match="empty rule"):
        charts(history, baseline=_folder(tmp_path / "other", _steady(20), empty="zero"))


def test_where_no_chart_watches_yet_the_page_says_so(history: Path, tmp_path: Path) -> None:
    assert monitor(history, tmp_path / "few", since="2026-02-01") == 0
    assert monitor(history, tmp_path / "all") == 1
    few, whole = ((tmp_path / name / "monitor.html").read_text(encoding="utf-8") for name in ("few", "all"))
    assert "Too few cases yet" in few and "No alarm stands" not in few
    assert "Too few cases yet" not in whole


def test_since_begins_anew(history: Path) -> None:
    result = charts(history, since="2026-02-01")
    assert result["n_cases"] == 20
    assert {chart["state"] for chart in result["charts"]} == {"too few cases"}
    with pytest.raises(RequestError, match="no case since 2027"):
        charts(history, since="2027-01-01")


def test_failed_cases_count_as_0_and_undefined_ones_are_counted(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "f", [*_steady(30), *[None] * 15], empty="nan")
    table = (folder / "cases.csv").read_text().replace("case_003,core,ok,,", "case_003,core,empty_reference,,")
    lines = [re.sub(r"^(case_003,core,\w+,,)[^,]*", r"\1", line) for line in table.splitlines()]
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    assert monitor(tmp_path / "h.db", add=[folder], options=ChartOptions(baseline=20)) == 1
    result = charts(tmp_path / "h.db", options=ChartOptions(baseline=20))
    core = result["charts"][0]
    assert (core["n"], core["n_failed"], core["n_undefined"], core["state"]) == (44, 15, 1, "alarm")
    assert result["n_failed"] == 15
    assert [case["dice"] for case in core["cases"]][-1] == 0.0


def test_the_same_folder_twice_changes_nothing(history: Path, tmp_path: Path, capsys: Any) -> None:
    before = charts(history)
    assert monitor(history, add=[tmp_path / "good"]) == 1  # the alarm
    assert charts(history) == before
    assert "0 cases added, 40 were there already" in capsys.readouterr().err
    calm = tmp_path / "calm.db"
    assert monitor(calm, add=[tmp_path / "good"], site="A") == 0
    assert monitor(calm, add=[tmp_path / "good"], site="B") == 1
    assert "left as they were" in capsys.readouterr().err


def test_columns_of_the_table_go_before_what_is_given(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "f", [0.8, 0.7])
    rows = list(csv.DictReader((folder / "cases.csv").open()))
    with (folder / "cases.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, [*rows[0], "date", "site"])
        writer.writeheader()
        for row in rows:
            first = row["case"] == "case_000"
            writer.writerow(row | {"date": "2026-05-04T10:00:00+02:00" if first else "", "site": "C" if first else ""})
    cases, rule = read_reviewed(folder, day="2026-01-01", site="A", scanner="S")
    assert rule == "one"
    assert [(c.name, c.date, c.site, c.scanner) for c in cases] == [
        ("case_000", "2026-05-04T08:00:00Z", "C", "S"),
        ("case_001", "2026-01-01", "A", "S"),
    ]


def test_a_folder_that_cannot_be_added_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = _folder(tmp_path / "good", [0.8]), _folder(tmp_path / "bad", [0.7], "b")
    (bad / "cases.csv").write_text("case,structure,dice,status\nx,core,much,ok\n")
    _folder(good / "inner", [0.6], "c")
    assert monitor(tmp_path / "history.db", add=[bad, good]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "not added line 2 of" in said
    assert "1 case added" in said
    assert f"passed over {good / 'inner'}: it holds a result of its own" in said
    with pytest.raises(RequestError, match="the Dice is 'much'"):
        monitor(tmp_path / "other.db", add=[bad])


def test_a_history_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "history.db")
    with pytest.raises(RequestError, match="is a pipe or a device"):
        monitor(tmp_path / "history.db")


def test_folders_that_are_no_results_are_refused(tmp_path: Path) -> None:
    def refused(words: str, change: Any) -> None:
        folder = _folder(tmp_path / f"f{abs(hash(words))}", [0.8, 0.7])
        change(folder)
        with pytest.raises(RequestError, match=words):
            monitor(tmp_path / "h.db", add=[folder])
        assert not (tmp_path / "h.db").exists()

    def edit(old: str, new: str, name: str = "cases.csv") -> Any:
        def change(folder: Path) -> None:
            content = (folder / name).read_text()
            assert old in content
            (folder / name).write_text(content.replace(old, new))

        return change

    refused("has no metrics.json; give the folder", lambda f: (f / "metrics.json").unlink())
    refused("has no cases.csv; give the folder", lambda f: (f / "cases.csv").unlink())
    refused("does not state the empty rule", edit('"empty"', '"void"', "metrics.json"))
    refused("has no column dice", edit("dice,", "dise,"))
    refused("line 2 of .*: the Dice is '1.8'", edit("case_000,core,ok,,0.8", "case_000,core,ok,,1.8"))
    refused("case 'case_000' has a structure twice", edit("case_000,edge", "case_000,core"))
    refused("holds no case", lambda f: (f / "cases.csv").write_text("case,structure,dice,status\n"))
    refused("is not UTF-8 text", lambda f: (f / "cases.csv").write_bytes(b"\xff\xfe\x00"))


def test_dates() -> None:
    assert iso_date("2026-11-21T09:30:00Z", "x") == iso_date("2026-11-21 09:30", "x") == "2026-11-21T09:30:00Z"
    for text in ("21.11.2026", "2026-13-01", "yesterday", "2026-11-21T99:00"):
        with pytest.raises(RequestError, match=r"--date .* is not an ISO date; write 2026-11-21"):
            iso_date(text, "--date")


@pytest.mark.parametrize("given", [{"site": "north"}, {"scanner": "3T"}, {"day": "2026-11-21"}])
def test_a_site_of_nothing_that_is_added_is_refused(history: Path, given: dict[str, str]) -> None:
    with pytest.raises(RequestError, match="hold for the cases that are added; give their folder with --add"):
        monitor(history, **given)


def test_the_page_is_whole_and_requests_nothing(history: Path, tmp_path: Path) -> None:
    monitor(history, tmp_path / "out", by="scanner")
    html = (tmp_path / "out" / "monitor.html").read_text()
    open_tags: list[str] = []
    loads: list[str] = []

    class Page(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            loads.extend(value for name, value in attrs if name in ("src", "href") and value)
            assert tag != "img" or dict(attrs)["alt"]
            if tag not in ("meta", "link", "img"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Page().feed(html)
    assert open_tags == []
    assert len([load for load in loads if load.startswith("data:image/svg+xml")]) == 6
    assert all(load.startswith("data:") for load in loads)
    assert not re.search(r"@import|url\(|https?://|fetch\(|XMLHttpRequest", html)
    assert "<i>3T</i>" not in html
    assert "1 alarm<" in html


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, folder = str(tmp_path / "h.db"), str(_folder(tmp_path / "f", _steady(40)))
    assert _status(["monitor", base]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert _status(["monitor", base, "--add", folder, "--date", "2026-01-01", "--output", str(tmp_path / "o")]) == 0
    assert {entry.name for entry in (tmp_path / "o").iterdir()} == {"monitor.json", "monitor.html"}
    assert "in control" in capsys.readouterr().out
    for wrong in (["--baseline-cases", "3"], ["--date", "x", "--add", folder], ["--since", "x"], ["--by", "colour"]):
        assert _status(["monitor", base, *wrong]) == 2
    assert _status(["monitor", base, "--output", str(tmp_path)]) == 2
    low = str(_folder(tmp_path / "low", [0.3] * 15, "low"))
    assert _status(["monitor", base, "--add", low, "--site", "B"]) == 1
