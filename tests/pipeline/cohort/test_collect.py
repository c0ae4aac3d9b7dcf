"""What is made of the journals, at any time."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from rarevox.pipeline.cohort.collect import collect, write_results
from rarevox.pipeline.cohort.journal import Journal
from rarevox.pipeline.cohort.statistics import LEAST_SCANS, MOST_PICTURED, distribution, kind_of_reason, robust_z
from rarevox.pipeline.errors import RequestError

HEADER = {"run": "run", "models": ["m"], "settings": [], "structures": {"a": 1}, "composites": {}, "session": "s"}
HEADER |= {"plan": "p", "versions": {"rarevox": "1"}}


def write(folder: Path, rows: list[dict[str, Any]], left: Sequence[dict[str, Any]] = (), **header: Any) -> Journal:
    journal = Journal(folder, HEADER | header)
    for number, row in enumerate(rows):
        for name in [row.get("output"), *row.get("files", [])]:
            if name:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(b"")
        journal.append({"n": number, "t": 1.0 + number, "row": row})
    for number, row in enumerate(left):
        journal.append({"n": len(rows) + number, "t": 0, "left": row})
    return journal


def ok(case: str, volume: float = 1.0, **more: Any) -> dict[str, Any]:
    row = {"case": case, "image": f"{case}.nii", "status": "ok", "reason": "", "seconds": 1.0}
    return row | {"output": f"{case}_seg.nii.gz", "volume_ml": {"a": volume}} | more


def listed(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "predictions.json").read_text(encoding="utf-8"))["scans"]


def test_rows_table_and_page_while_the_call_is_at_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = {"case": "=b", "image": "b", "status": "failed", "reason": "b is <b>bad</b>"}
    left = {"case": "c", "image": "c", "status": "ignored", "reason": "no scan"}
    tables = {"lesions": [{"n": 1, "ml": 0.5}, {"n": 2, "ml": 0.25, "region": "-x"}]}
    journal = write(tmp_path, [ok("a", files=["sub/a.png"], tables=tables, manifest={"site": "@x"}), failed], [left])
    collect(tmp_path)
    while len(listed(tmp_path)) < 3:  # the journal's thread may be behind by a moment
        collect(tmp_path)
    assert [row["case"] for row in listed(tmp_path)] == ["a", "=b", "c"]
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert {key: content[key] for key in ("run", "models", "settings", "structures", "versions")} == {
        key: HEADER[key] for key in ("run", "models", "settings", "structures", "versions")
    }
    assert (
        "1 of 2 scans segmented (besides, 1 entry is no scan); label maps, predictions.json, predictions.csv, "
        "summary.html and lesions.csv are in" in " ".join(capsys.readouterr().err.split())
    )
    table = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [row["case"] for row in table] == ["a", "'=b", "c"]
    assert (table[0]["a (ml)"], table[0]["site"]) == ("1.0", "'@x")
    lesions = list(csv.DictReader((tmp_path / "lesions.csv").open()))
    assert [(row["case"], row["n"], row["region"]) for row in lesions] == [("a", "1", ""), ("a", "2", "'-x")]
    page = (tmp_path / "summary.html").read_text()
    assert "&lt;b&gt;bad" in page
    assert "<b>bad" not in page
    journal.close()


def test_no_journal_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="holds no folder journal"):
        collect(tmp_path)
    (tmp_path / "journal").mkdir()
    with pytest.raises(RequestError, match="predict first"):
        collect(tmp_path)


def test_rows_of_earlier_calls_stand_where_they_still_say_something(tmp_path: Path) -> None:
    failed = {"case": "x", "image": "x", "status": "failed", "reason": "torn"}
    left = [{"case": "y", "image": "y", "status": "ignored", "reason": "no scan"}]
    write(tmp_path, [ok("a"), ok("gone"), failed], left, plan="before", session="before").close()
    (tmp_path / "gone_seg.nii.gz").unlink()
    write(tmp_path, [ok("b")], left).close()
    assert [row["case"] for row in listed_after(tmp_path)] == ["a", "b", "y"]
    write(tmp_path, [ok("c")], models=["other"]).close()
    assert [row["case"] for row in listed_after(tmp_path)] == ["c"]


def test_a_table_of_which_no_row_stands_is_taken_away(tmp_path: Path) -> None:
    tables = {"lesions": [{"n": 1}]}
    write(tmp_path, [ok("a", tables=tables), ok("b", tables=tables)], session="before").close()
    write(tmp_path, [ok("a")]).close()
    write_results(tmp_path)
    assert (tmp_path / "lesions.csv").read_text().splitlines() == ["case,n", "b,1"]
    write(tmp_path, [ok("a"), ok("c"), ok("b")]).close()  # of a scan the row with the latest time counts
    write_results(tmp_path)
    assert not (tmp_path / "lesions.csv").exists()


def listed_after(folder: Path) -> list[dict[str, Any]]:
    write_results(folder)
    return listed(folder)


def test_shares_of_one_list_keep_one_another_s_failures(tmp_path: Path) -> None:
    failed = {"case": "x", "image": "x", "status": "failed", "reason": "torn"}
    left = [{"case": "y", "image": "y", "status": "failed", "reason": "no scan"}]
    write(tmp_path, [ok("a"), failed], left, session="one").close()
    write(tmp_path, [ok("b")], left, session="two").close()
    assert sorted(row["case"] for row in listed_after(tmp_path)) == ["a", "b", "x", "y"]
    tally = write_results(tmp_path, counts=lambda case: case == "b")
    assert (tally.by_status, tally.rows) == ({"ok": 1, "failed": 1}, 2)


def test_the_page_tells_warnings_and_whole_reasons_and_links_what_is_there(tmp_path: Path) -> None:
    odd = [ok(f"odd{n}", warning=f"{n} of its slices are torn", preview=f"odd{n} #_preview.jpg") for n in range(10)]
    torn = [{"case": f"t{n}", "image": "x", "status": "failed", "reason": f"{n} bytes are missing"} for n in (31, 32)]
    alone = {"case": "u", "image": "x", "status": "failed", "reason": "the scan has 2 channels and not 1"}
    write(tmp_path, [*odd, ok("plain", tables={"lesions": [{"n": 1}]}), *torn, alone]).close()
    (tmp_path / "odd3 #_preview.jpg").touch()
    write_results(tmp_path)
    page = (tmp_path / "summary.html").read_text()
    warnings = page.split('id="warnings"')[1].split("</section>")[0]
    assert "# of its slices are torn" in warnings
    assert "odd0: 0 of its slices are torn" in warnings
    assert '<a href="odd3%20%23_preview.jpg">odd3</a>, odd4' in warnings, "a link where the preview is there"
    assert "odd7 and 2 more" in warnings
    assert "plain" not in warnings
    failures = page.split('id="failures"')[1].split("</section>")[0]
    assert "# bytes are missing" in failures
    assert "t31: 31 bytes are missing" in failures
    assert "the scan has 2 channels and not 1" in failures, "of one scan as it is"
    assert '<a href="lesions.csv">' in page
    assert "structures.csv" not in page


@pytest.mark.parametrize(("scans", "said"), [(LEAST_SCANS - 1, "Not looked for"), (LEAST_SCANS, "None: no volume is")])
def test_the_page_says_why_no_scan_is_unlike_the_others(tmp_path: Path, scans: int, said: str) -> None:
    write(tmp_path, [ok(f"c{n}", 1.0 + n) for n in range(scans)]).close()
    write_results(tmp_path)
    outliers = (tmp_path / "summary.html").read_text().split('id="outliers"')[1].split("</section>")[0]
    assert said in outliers
    assert outliers.count("<p>") == 1


def test_the_page_shows_previews_and_round_volumes(tmp_path: Path) -> None:
    """From 10.5 to 249.4 ml the round ones are the fifties; 100 ml is (100 - 10.5) / 238.9 of the way."""
    rows = [ok(f"c{n:02}", 10.5 + n * 238.9 / 29, preview=f"c{n:02}_preview.jpg") for n in range(30)]
    write(tmp_path, rows).close()
    for row in rows[:-1]:
        Image.new("RGB", (900, 320), "white").save(tmp_path / row["preview"])
    (tmp_path / "c03_preview.jpg").write_bytes(b"no picture")
    write_results(tmp_path)
    page = (tmp_path / "summary.html").read_text()
    previews = page.split('id="previews"')[1].split("</section>")[0]
    shown = re.findall(
        r'<a href="(c\d\d_preview.jpg)"><img alt="[^"]*" src="data:image/jpeg;base64,([^"]+)">', previews
    )
    assert [name for name, _ in shown] == [f"c{n:02}_preview.jpg" for n in range(MOST_PICTURED) if n != 3]
    assert "Of 23 of 30 scans" in previews
    with Image.open(io.BytesIO(base64.b64decode(shown[0][1]))) as picture:
        assert picture.size == (420, 149)  # 320 · 420 / 900
    ticks = dict(re.findall(r'<span style="left:([\d.]+)%">(\d+)</span>', page))
    assert list(ticks.values()) == ["50", "100", "150", "200"]
    assert float(list(ticks)[1]) == pytest.approx(100 * (100 - 10.5) / 238.9, abs=0.01)


def test_one_volume_is_no_histogram(tmp_path: Path) -> None:
    write(tmp_path, [ok("a", 2.5)]).close()
    write_results(tmp_path)
    page = (tmp_path / "summary.html").read_text()
    assert "2.500 ml in the one scan" in page
    assert "<rect" not in page


def test_a_map_that_has_gone_is_a_failed_row(tmp_path: Path) -> None:
    write(tmp_path, [ok("a"), ok("b")]).close()
    (tmp_path / "a_seg.nii.gz").unlink()
    found = {row["case"]: row for row in listed_after(tmp_path)}
    assert found["a"]["status"] == "failed"
    assert "volume_ml" not in found["a"]
    assert found["b"]["status"] == "ok"


def test_a_row_from_elsewhere_names_no_file_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"")
    write(tmp_path / "out", [ok("a")]).close()
    journal = Journal(tmp_path / "out", HEADER)
    journal.append({"n": 1, "t": 9.0, "row": ok("b") | {"output": "../secret"}})
    journal.close()
    assert {row["case"]: row["status"] for row in listed_after(tmp_path / "out")} == {"a": "ok", "b": "failed"}


def test_scans_unlike_the_others() -> None:
    """Cube roots 1 to 9 and 40: median 5.5, deviations' median 2.5, so (40 − 5.5) / (1.4826 · 2.5) = 9.31."""
    volumes = np.array([*range(1, 10), 40.0]) ** 3
    z = robust_z(volumes)
    assert z[-1] == pytest.approx(34.5 / (1.4826 * 2.5), rel=1e-9)
    assert np.abs(z[:-1]).max() < 3.5
    assert not robust_z(volumes[-LEAST_SCANS + 1 :]).any(), "too few scans have no outliers"
    assert not robust_z(np.ones(50)).any()
    with_unknown = robust_z(np.append(volumes, np.nan))
    assert with_unknown[:-1].tolist() == z.tolist()
    assert with_unknown[-1] == 0


def test_distributions_count_every_scan_once() -> None:
    values = [0.0, 0.0, 1.0, 2.0, 3.0, float("nan")]
    found = distribution("x", values)
    assert (found.n, found.absent, sum(found.counts)) == (5, 2, 5)
    assert (found.quantiles[0], found.quantiles[3], found.quantiles[6]) == (0.0, 1.0, 3.0)
    assert distribution("x", [float("nan")]).n == 0


def test_reasons_are_alike_whatever_scan_they_speak_of() -> None:
    a = kind_of_reason("/data/sub 1/a_1.nii.gz is truncated: it inflates to 7 bytes", "a_1")
    b = kind_of_reason("/other/b.nii.gz is truncated: it inflates to 19.5 bytes", "b")
    assert a == b
    assert kind_of_reason("the scan is empty", "s") != kind_of_reason("memory ran out", "s")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIRST = HEADER | {"journal": 1, "id": "a", "boot": "b", "pid": 1, "time": 1.0, "asked": {}}
ROW = {"case": "x", "image": "x.nii", "state": {}, "status": "ok", "reason": "", "seconds": 1.0, "output": "x.nii.gz"}
ROW |= {
    "volume_ml": {"a": 1.0},
    "warning": "odd",
    "manifest": {"site": "a"},
    "tables": {"lesions": [{"volume_ml": 1.0}]},
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["header", "row", "line", "tables"]), st.integers(0, 20), JSON),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(["ok", "failed"]),
)
@example([("header", 9, 3)], "ok")
@example([("row", 7, 10**400)], "ok")
@example([("tables", 0, 3)], "ok")
@example([("tables", 0, [3])], "ok")
def test_journals_of_any_form_are_gathered_or_one_sentence(
    tmp_path: Path, changes: list[tuple[str, int, Any]], status: str
) -> None:
    """Values replaced in the first line, in a scan's row, around it; another scan's row stands."""
    parts: dict[str, dict[str, Any]] = {"header": deepcopy(FIRST), "row": deepcopy(ROW) | {"status": status}}
    parts["tables"] = parts["row"]["tables"]
    parts["line"] = {"n": 1, "t": 2.0, "row": parts["row"]}
    for part, number, value in changes:
        parts[part][sorted(parts[part])[number % len(parts[part])]] = value
    sound = {"n": 2, "t": 2.0, "row": ROW | {"case": "y", "output": "y.nii.gz"}}
    (tmp_path / "journal").mkdir(exist_ok=True)
    for name in "xy":
        (tmp_path / f"{name}.nii.gz").touch()
    lines = [parts["header"], parts["line"], sound]
    (tmp_path / "journal" / "a.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    try:
        assert collect(tmp_path) in (0, 1)
    except RequestError as error:
        assert "\n" not in str(error)
    else:
        json.loads((tmp_path / "predictions.json").read_text())
