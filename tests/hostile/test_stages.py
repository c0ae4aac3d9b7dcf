"""Every kind at once among good inputs, through each stage: good ones are done, each bad one is named with a reason.

:func:`tests.hostile.calls.call` holds every call to the rest: no traceback, no hang, bounded memory, nothing written
outside its output.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.data.formats import is_volume, stem
from tests.hostile.calls import Called, call
from tests.hostile.expected import Expected, as_map, as_scan
from tests.hostile.home import AFFINE, GOOD, SHAPE, Home
from tests.hostile.kinds import KINDS, READ, REFUSED, WARNED, Kind
from tests.hostile.of_entries import ENTRIES

Found = Mapping[str, tuple[str, str]]
"""By case: outcome and sentence."""

ABSENT: Expected = ("not named", "")
"""No case: it is not called like a label map, or is not there."""
CODE = "$__import__('pathlib').Path('canary').touch()"
"""As the name of anything; where it runs, the folder that the call was made in is no longer empty."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("hostile") / "home"
    folder.mkdir()
    made = Home(folder)
    assert len(made.labels) == len(KINDS) >= 120
    return made


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def good(prefix: str = "good_") -> list[str]:
    return [f"{prefix}{number}" for number in range(GOOD)]


def wrong(found: Found, name_of: Callable[[Kind], str], expected: Callable[[Kind], Expected]) -> list[str]:
    """The kinds of which something else became, and what."""
    told = []
    for kind in KINDS.values():
        outcome, says = expected(kind)
        became, sentence = found.get(name_of(kind), ("not named", ""))
        if became != outcome or (outcome != READ and not re.search(says, sentence)):
            told.append(f"{name_of(kind)}: {became} in place of {outcome}: {sentence[:200]}")
    return told


def further(found: Found, expected: Mapping[str, str]) -> list[str]:
    """The same of what one stage alone meets; all are refused."""
    return [
        f"{case}: {found.get(case)}"
        for case, says in expected.items()
        if found.get(case, ("", ""))[0] != REFUSED or not re.search(says, found[case][1])
    ]


def test_prepare(home: Home) -> None:
    sound = home.folder / "good" / "good_0"
    (home.folder / "odd").mkdir()
    for name, labels in {
        "half": np.full(SHAPE, 0.5, np.float32),
        "cut": np.zeros((12, 10, 7), np.uint8),
        "two": np.zeros((*SHAPE, 2), np.uint8),
    }.items():
        nib.Nifti1Image(labels, AFFINE).to_filename(home.folder / "odd" / f"{name}.nii")
    nib.Nifti1Image(np.full(SHAPE, np.nan, np.float32), AFFINE).to_filename(home.folder / "odd" / "nan.nii")
    own = {
        "half": (sound / "image.nii.gz", home.folder / "odd" / "half.nii", "not whole numbers"),
        "cut": (sound / "image.nii.gz", home.folder / "odd" / "cut.nii", "12×10×7 voxels and the image 12×10×8"),
        "two": (sound / "image.nii.gz", home.folder / "odd" / "two.nii", "2 channels"),
        "nan": (home.folder / "odd" / "nan.nii", sound / "label.nii.gz", "NaN or infinite"),
        "passwd": (Path("/etc/passwd"), sound / "label.nii.gz", "a text file"),
        "../up": (sound / "image.nii.gz", sound / "label.nii.gz", "parts folders"),
        CODE: (sound / "image.nii.gz", sound / "label.nii.gz", "begins an expression"),
        "a\x1b[2J": (sound / "image.nii.gz", sound / "label.nii.gz", "control character"),
        "x" * 250: (sound / "image.nii.gz", sound / "label.nii.gz", "longer than"),
    }
    rows = [*home.good_rows(), *home.scan_rows(), *home.label_rows()]
    rows += [home.row(case, image, label) for case, (image, label, _) in own.items()]
    rows += [home.row("twice", sound / "image.nii.gz", sound / "label.nii.gz")] * 2
    rows += [{"case": "empty cell", "image": "", "label": "label.nii"}]
    (home.folder / "cases.json").write_text(json.dumps(rows))
    out = home.folder / "prepared"
    asked = ["prepare", home.folder / "cases.json", "--output", out, "--skip-faulty", "--structure", "thing=1"]
    assert call([*asked, "--workers", "2"], home.folder, out).status == 1
    found = prepared(out)
    assert not [case for case in good() if found[case][0] == REFUSED]
    assert not wrong(found, lambda kind: f"scan_{kind.name}", lambda kind: as_scan(kind, "prepare"))
    assert not wrong(found, lambda kind: f"label_{kind.name}", lambda kind: as_map(kind, "prepare"))
    named = {case: says for case, (_, _, says) in own.items()}
    assert not further(found, {**named, "twice": "2 cases|more than one|several|bear", "empty cell": "names no image"})


def prepared(out: Path) -> Found:
    """What became of the cases. Warnings about the company of others (copies, outliers) are no outcome of a kind."""
    rejected, written = load(out / "rejected.json"), load(out / "dataset.json")
    company = ("duplicate-content", "near-duplicate", "spacing-outlier", "intensity-outlier", "orientation-outlier")
    company += ("extreme-voxels", "label-outside", "sheared-affine", "form-conflict")
    faults: dict[str, list[str]] = {}
    for one in rejected["faults"]:
        if one["severity"] == "error" or (one["case"] not in rejected["rejected"] and one["check"] not in company):
            faults.setdefault(one["case"], []).append(one["message"])
    found = {case: (REFUSED, "; ".join(faults[case])) for case in rejected["rejected"]}
    for row in [*written["training"], *written["test"]]:
        assert row["case"] not in found
        said = "; ".join(faults.get(row["case"], []))
        # An empty label is told of a scan that has no other fault.
        found[row["case"]] = (WARNED if said else READ, said)
    return found


def dataset(home: Home, name: str, header: Path, **sections: Any) -> Path:
    """A prepared dataset with the header of another one and sections of one's own."""
    content = load(header / "dataset.json") | {"root": str(home.folder), "folds": 2, "training": [], "test": []}
    folder = home.folder / name
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps(content | sections))
    return folder


def test_predict(home: Home, run_dir: Path) -> None:
    """By a list that names each kind, and the folder that holds them all, in one call."""
    rows = [{"case": row["case"], "image": row["image"]} for row in [*home.good_rows(), *home.scan_rows()]]
    listed, out = home.folder / "scans.jsonl", home.folder / "predicted"
    listed.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    folder = home.folder / "kinds"
    asked = ["predict", run_dir, folder, "--manifest", listed, "--output", out, "--device", "cpu", "--workers", "0"]
    called = call(asked, home.folder, out)
    assert called.status == 1
    told = load(out / "predictions.json")["scans"]
    found = segmented([row for row in told if row["case"] in {one["case"] for one in rows}])
    assert not [case for case in good() if found[case][0] != READ]
    assert not wrong(found, lambda kind: f"scan_{kind.name}", lambda kind: as_scan(kind, "predict"))
    maps = {path.name for path in out.glob("*_seg.nii.gz")}
    assert maps == {row["output"] for row in told if row["status"] == "ok"}
    named = {Path(row["image"] if isinstance(row["image"], str) else row["image"][0]) for row in told}
    silent = [path for path in folder.iterdir() if not any(path == one or path in one.parents for one in named)]
    assert not silent


def segmented(rows: list[dict[str, Any]]) -> Found:
    """What became of the scans, by the rows of ``predictions.json``."""
    found = {}
    for row in rows:
        assert row["case"] not in found
        outcome = REFUSED if row["status"] != "ok" else WARNED if row.get("warning") else READ
        found[row["case"]] = (outcome, row.get("reason" if outcome == REFUSED else "warning", ""))
    return found


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_train(cache: str, home: Home, dataset_dir: Path) -> None:
    rows = [*home.good_rows(), *home.scan_rows(), *home.label_rows()]
    if cache == "disk":  # where what can be read is written and synced, at a tenth of a second each
        bad = {f"scan_{kind.name}" for kind in KINDS.values() if as_scan(kind, "train")[0] == REFUSED}
        rows = [row for row in rows if row["case"] in {*good(), *bad}]
    for number, row in enumerate(rows):
        row["fold"] = int(number >= 2 and number % 9 != 0)  # two good cases and a ninth of the others validate
    data, out = dataset(home, f"training_{cache}", dataset_dir, training=rows), home.folder / f"trained_{cache}"
    settings = ["network_def#width=4", "patch_size=[8,8,8]", "precision#name=float32", "validation_cases=1000"]
    settings += [f"cache={cache}", f"cache_dir={out}/cache"]
    options = [part for setting in settings for part in ("--set", setting)]
    called = call(["train", data, "--output", out, "--device", "cpu", "--iterations", "2", *options], home.folder, out)
    assert called.status == 1
    assert (out / "models" / "model.pt").is_file()
    assert "next: rarevox evaluate" in called.said
    found = {row["case"]: (READ, "") for row in rows} | left_out(called)
    assert not [case for case in good() if found[case][0] == REFUSED]
    if cache == "disk":
        assert set(found) - set(good()) == bad
        assert not further(found, {case: as_scan(KINDS[case.removeprefix("scan_")], "train")[1] for case in bad})
    else:
        assert not wrong(found, lambda kind: f"scan_{kind.name}", lambda kind: as_scan(kind, "train"))
        assert not wrong(found, lambda kind: f"label_{kind.name}", lambda kind: as_map(kind, "train"))


def left_out(called: Called) -> dict[str, tuple[str, str]]:
    lines = (line.removeprefix("left out ") for line in called.said.splitlines() if line.startswith("left out "))
    return {case: (REFUSED, reason) for case, _, reason in (line.partition(": ") for line in lines)}


def test_evaluate(home: Home, run_dir: Path, dataset_dir: Path) -> None:
    rows = [*home.good_rows(), *home.scan_rows(), *home.label_rows()]
    data, out = dataset(home, "evaluating", dataset_dir, test=rows), home.folder / "evaluated"
    run = shutil.copytree(run_dir, home.folder / "run")
    assert call(["evaluate", run, data, "--output", out, "--device", "cpu"], home.folder, out).status == 1
    found = scored(out)
    assert not [case for case in good() if found[case][0] != READ]
    assert not wrong(found, lambda kind: f"scan_{kind.name}", lambda kind: as_scan(kind, "evaluate"))
    assert not wrong(found, lambda kind: f"label_{kind.name}", lambda kind: as_map(kind, "evaluate"))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "slope" in page  # of a warning


def scored(out: Path) -> Found:
    found = {}
    for row in load(out / "metrics.json")["cases"]:
        outcome = REFUSED if row["status"] == "failed" else WARNED if row.get("warning") else READ
        found[row["case"]] = (outcome, row.get("warning", "") if outcome == WARNED else row["reason"])
    return found


def is_map(kind: Kind, path: Path) -> bool:
    """Whether a kind is found where label maps are looked for: its file is there and called like one."""
    return is_volume(path) and os.path.lexists(path)


def folders(home: Home, name: str, *others: str) -> tuple[Path, dict[str, str]]:
    """``NAME/kinds`` with good maps and every kind in a folder of its own, beside folders of good maps of all; the case
    that each kind is."""
    folder, sound = home.folder / name, home.folder / "good" / "good_0" / "label.nii.gz"
    for which in ("kinds", *others):
        (folder / which).mkdir(parents=True)
        for case in good():
            shutil.copy(sound, folder / which / f"{case}.nii.gz")
    cases = {}
    for kind, path in home.kinds.items():
        if is_map(KINDS[kind], path):
            cases[kind] = f"{kind}_{stem(path)}"
            (folder / "kinds" / kind).symlink_to(path.parent)
        for which in others if kind in cases else ():
            (folder / which / kind).mkdir()
            shutil.copy(sound, folder / which / kind / f"{stem(path)}.nii.gz")
    for number, make in enumerate(ENTRIES):
        (folder / "kinds" / f"entry_{number}").mkdir()
        make(folder / "kinds" / f"entry_{number}")
    own = {
        "half_seg": np.full(SHAPE, 0.5, np.float32),
        "cut": np.ones((12, 10, 7), np.uint8),
        "two": np.ones((*SHAPE, 2), np.uint8),
        "doubled_pred": np.ones(SHAPE, np.uint8),
        "doubled_seg": np.ones(SHAPE, np.uint8),
    }
    for file, labels in own.items():
        nib.Nifti1Image(labels, AFFINE).to_filename(folder / "kinds" / f"{file}.nii.gz")
    for which in others:
        for case in ("half", "cut", "two", "doubled"):
            shutil.copy(sound, folder / which / f"{case}.nii.gz")
    return folder, cases


OWN = {
    "half": "not whole numbers",
    "cut": "12×10×7 voxels of",
    "two": "2 channels",
    "doubled": "are both case 'doubled'; keep one of them",
}
"""What a folder of label maps alone may hold."""


def entries_told(said: str) -> list[str]:
    """The odd entries of the folder that nothing was said of."""
    return [make.__name__ for number, make in enumerate(ENTRIES) if f"entry_{number}" not in said]


@pytest.mark.parametrize("kinds_are", ["predictions", "references"])
def test_score(kinds_are: str, home: Home) -> None:
    folder, cases = folders(home, f"scoring_{kinds_are}", "others")
    pair = [folder / "kinds", folder / "others"]
    pair = pair if kinds_are == "predictions" else pair[::-1]
    out = folder / "scored"
    called = call(["score", *pair, "--output", out, "--structure", "thing=1"], home.folder, out)
    assert called.status == 1
    found = scored(out)
    assert not [case for case in good() if found[case][0] != READ]
    expected = {name: as_map(kind, "score") if name in cases else ABSENT for name, kind in KINDS.items()}
    assert not wrong(found, lambda kind: cases.get(kind.name, kind.name), lambda kind: expected[kind.name])
    assert not further(found, OWN)
    assert not entries_told(called.said)


def test_agreement(home: Home) -> None:
    folder, cases = folders(home, "agreeing", "ann", "bob")
    out = folder / "agreed"
    three = [folder / "ann", folder / "bob", folder / "kinds"]
    called = call(["agreement", *three, "--output", out, "--structure", "thing=1"], home.folder, out)
    assert called.status == 1
    content = load(out / "agreement.json")
    done = {row["case"] for row in content["cases"]}
    found = dict.fromkeys(done, (READ, ""))
    found |= {one["case"]: (REFUSED, one["reason"]) for one in content["missing"] if one["annotator"] == "kinds"}
    assert set(good()) <= done
    assert not [one for one in content["missing"] if one["case"] in good()]
    expected = {name: as_map(kind, "agreement") if name in cases else ABSENT for name, kind in KINDS.items()}
    assert not wrong(found, lambda kind: cases.get(kind.name, kind.name), lambda kind: expected[kind.name])
    assert not further(found, OWN)
    assert not entries_told(called.said)
    assert set(cases.values()) <= done  # of the two others


HEADING = "case,structure,status,dice,date\n"
TABLES: dict[str, tuple[bytes, str]] = {
    "no number": (f"{HEADING}a,s,ok,much,\n".encode(), "the Dice is 'much'"),
    "above one": (f"{HEADING}a,s,ok,1e400,\n".encode(), "expected a number from 0 to 1"),
    "nan": (f"{HEADING}a,s,ok,nan,\n".encode(), "expected a number from 0 to 1"),
    "formula": (f'{HEADING}a,s,ok,"=1+1",\n'.encode(), "the Dice is '=1\\+1'"),
    "no day": (f"{HEADING}a,s,ok,0.5,yesterday\n".encode(), "is not an ISO date"),
    "twice": (f"{HEADING}a,s,ok,0.5,\na,s,ok,0.6,\n".encode(), "has a structure twice"),
    "no name": (f"{HEADING},s,ok,0.5,\n".encode(), "without a name"),
    "short row": (f"{HEADING}a,s\n".encode(), "has no column dice, status"),
    "other columns": (b"x,y\n1,2\n", "has no column case"),
    "heading alone": (HEADING.encode(), "holds no case"),
    "nothing": (b"", "holds no case"),
    "not UTF-8": (b"\xff\xfe\x00", "is not UTF-8 text"),
    "a page": (b"<!DOCTYPE html><html></html>", "has no column|holds no case"),
    "an endless cell": (HEADING.encode() + b"x" * 200_000 + b",s,ok,0.5,\n", "is not a table of cases"),
    "an open quote": (HEADING.encode() + b'"a,s,ok,0.5,\n' * 3, "has no column"),
    "zeros": (bytes(10_000), "has no column|holds no case|is not a table"),
}
"""Malformed ``cases.csv`` by name, and what is said."""


def results_in(folder: Path, history: Path) -> tuple[list[Path], dict[str, str]]:
    """Folders for ``monitor --add``: good ones and bad ones, and what is said of the bad."""
    metrics = json.dumps({"conventions": {"empty": "one"}})

    def made(name: str, table: bytes, content: str = metrics) -> Path:
        place = folder / name
        place.mkdir(parents=True)
        (place / "cases.csv").write_bytes(table)
        (place / "metrics.json").write_text(content)
        return place

    places = [
        made(f"good_{number}", f"{HEADING}case_{number},s,ok,0.{number + 3},\n'=cmd|{number},s,ok,0.5,\n".encode())
        for number in range(GOOD)
    ]
    says = {name: words for name, (_, words) in TABLES.items()}
    places += [made(name, table) for name, (table, _) in TABLES.items()]
    for name, content, words in (
        ("deep", "[" * 5000 + "]" * 5000, "deeper than 64 levels"),
        ("list", "[1]", "does not state the empty rule"),
        ("broken", "{", "is not valid JSON"),
        ("other rule", json.dumps({"conventions": {"empty": "zero"}}), "cannot stand in one chart"),
        (CODE.replace("/", "_"), json.dumps({"conventions": {"empty": CODE}}), "does not state the empty rule"),
    ):
        places.append(made(name, f"{HEADING}b,s,ok,0.5,\n".encode(), content))
        says[name] = words
    for name, change, words in (
        ("pipe", lambda file: os.mkfifo(file), "has no cases.csv"),
        ("dangling", lambda file: file.symlink_to("gone"), "has no cases.csv"),
        ("device", lambda file: file.symlink_to("/dev/zero"), "has no cases.csv"),
        ("folder", lambda file: file.mkdir(), "has no cases.csv"),
        ("huge", lambda file: os.truncate(os.open(file, os.O_CREAT | os.O_WRONLY), 1 << 33), "holds 8589934592 bytes"),
    ):
        places.append(made(name, b""))
        (places[-1] / "cases.csv").unlink()
        change(places[-1] / "cases.csv")
        says[name] = words
    nested = made("good_6", f"{HEADING}case_6,s,ok,0.9,\n".encode())
    made("good_6/inner", f"{HEADING}c,s,ok,0.5,\n".encode())
    return [*places, nested, folder / "missing", history.parent], {**says, "missing": "has no metrics.json"}


def test_monitor(home: Home, tmp_path: Path) -> None:
    history, out = tmp_path / "history.db", tmp_path / "monitored"
    places, says = results_in(home.folder / "reviewed", history)
    options = [part for place in places for part in ("--add", place)]
    called = call(["monitor", history, *options, "--output", out], home.folder, None)
    assert called.status == 1
    assert called.said.count("2 cases added") == GOOD
    assert "1 case added" in called.said  # of the folder that holds another
    refused = [line for line in called.said.splitlines() if line.startswith("not added ")]
    for name, expected in says.items():
        assert any(f"{name}" in line and re.search(expected, line) for line in refused), (name, refused)
    assert len(refused) == len(says) + 1  # and the folder of the history
    assert re.search("passed over .*inner: it holds a result of its own", called.said)
    assert load(out / "monitor.json")["n_cases"] == 2 * GOOD + 1
