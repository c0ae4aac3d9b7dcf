"""The command: figures by hand, flags, faults that are listed, files, exit status."""

from __future__ import annotations

import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.cli import main
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.score import score
from rarevox.pipeline.review.agreement import FILES, agreement

STRUCTURES = {"core": 1, "edge": 2, "whole": (1, 2)}
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
AFFINE[:3, 3] = 5, -3, 2


def _save(path: Path, shift: int | None, affine: np.ndarray = AFFINE) -> None:
    """Two boxes of four voxels along x, moved by so many voxels; None leaves them out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.zeros((14, 10, 8), np.uint8)
    if shift is not None:
        labels[3 + shift : 7 + shift, 3:7, 2:6], labels[3 + shift : 7 + shift, 7:9, 2:6] = 1, 2
    nib.save(nib.Nifti1Image(labels, affine), path)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Four annotators of p and q: a, b and d agree; c is moved by one voxel in p (Dice 0.75), by two in q (0.5)."""
    for case, shift in (("p", 1), ("q", 2)):
        for name in "abd":
            _save(tmp_path / "people" / name / f"{case}{'_seg' if name == 'b' else ''}.nii.gz", 0)
        _save(tmp_path / "people" / "c" / f"{case}.nii.gz", shift)
        _save(tmp_path / "model" / f"{case}.nii.gz", 2)
    return tmp_path / "people"


def _run(people: Path, *folders: Path, **options: Any) -> tuple[int, dict[str, Any]]:
    output = people.parent / "out"
    options = {"structures": STRUCTURES, "model": people.parent / "model"} | options
    status = agreement(folders or [people], output, **options)
    return status, json.loads((output / "agreement.json").read_text())


def _status(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_figures_by_hand(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, result = _run(people)
    assert status == 0
    # Pairs of a case: three of agreeing annotators (Dice 1), three with c: (3 + 3·0.75)/6 = 0.875, (3 + 1.5)/6 = 0.75.
    for name in STRUCTURES:
        one = result["structures"][name]
        assert one["pairs"]["dice"]["mean"] == pytest.approx((0.875 + 0.75) / 2)
        assert (one["lowest"], one["n_flagged"]) == (0.5, 1)  # 0.75 itself is not below 0.75
    assert result["matrix"] == [
        [None, 1, 0.625, 1],
        [1, None, 0.625, 1],
        [0.625, 0.625, None, 0.625],
        [1, 1, 0.625, None],
    ]
    assert [one["name"] for one in result["annotators"]] == list("abcd")
    # The consensus of the others is the map of those that agree.
    assert [one["mean_dice"] for one in result["annotators"]] == pytest.approx([1, 1, 0.625, 1])
    assert [one["with_others"]["mean"] for one in result["annotators"]] == pytest.approx([0.875, 0.875, 0.625, 0.875])
    for one, expected in zip(result["annotators"], (1, 1, 0.625, 1), strict=True):
        assert set(one["staple"]) == {"core", "edge"}
        assert one["staple"]["core"]["sensitivity"] == pytest.approx(expected, abs=1e-3)
    assert [(flag["case"], flag["structure"]) for flag in result["flagged"]] == [("q", name) for name in STRUCTURES]
    worst = {"case": "q", "structure": "core", "first": "a", "second": "c", "dice": 0.5, "mean": 0.75}
    assert result["flagged"][0] == worst
    assert "0.625" in capsys.readouterr().out


def test_the_model_among_the_annotators(people: Path) -> None:
    # The model is moved by two in both cases: Dice 0.5 with the consensus; with c 0.75 in p and 1 in q.
    model = _run(people)[1]["model_results"]
    assert model["mean_dice"] == pytest.approx(0.5)
    assert model["with_each"]["c"]["mean"] == pytest.approx(0.875)
    assert model["with_annotators"]["mean"] == pytest.approx((3 * 0.5 + 0.875) / 4)
    beside = {one["annotator"]: one for one in model["beside"]}
    assert (beside["a"]["annotator_dice"], beside["a"]["model"], beside["a"]["difference"]) == (1, 0.5, -0.5)
    assert beside["c"]["difference"] == pytest.approx((0.5 - 0.75 + 0.5 - 0.5) / 2)
    assert beside["c"]["ci95"] == pytest.approx([-0.25, 0])


def test_consensus_maps_lie_on_the_grid_and_can_be_scored(people: Path) -> None:
    _run(people)
    folder = people.parent / "out" / "consensus"
    assert sorted(path.name for path in folder.iterdir()) == ["p.nii.gz", "q.nii.gz"]
    found, given = nib.load(folder / "q.nii.gz"), nib.load(people / "a" / "q.nii.gz")
    assert np.array_equal(found.affine, given.affine)
    assert np.array_equal(np.asarray(found.dataobj), np.asarray(given.dataobj))
    assert score(people / "a", folder, structures=STRUCTURES, report=False) == 0


def test_the_table_has_every_comparison(people: Path) -> None:
    _run(people)
    rows = list(csv.DictReader((people.parent / "out" / "agreement.csv").open()))
    counts = {name: sum(row["relation"] == name for row in rows) for name in {row["relation"] for row in rows}}
    # 2 cases × 3 structures × 6 pairs, 4 annotators, 4 with the model, 4 consensus maps without one, 1 of all.
    assert counts == {"pair": 36, "consensus": 24, "model_pair": 24, "model_without": 24, "model_consensus": 6}
    row = next(r for r in rows if (r["relation"], r["case"], r["structure"], r["second"]) == ("pair", "p", "core", "c"))
    assert (row["first"], row["dice"], row["status"]) == ("a", "0.75", "ok")
    # Moved by 1 mm along x: no surface is further than that.
    assert (row["surface_dice_1mm"], row["hd95_mm"]) == ("1.0", "1.0")
    assert float(row["first_ml"]) == pytest.approx(4 * 4 * 4 * 6 / 1000)


def test_missing_maps_are_listed_and_the_rest_is_done(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (people / "d" / "p.nii.gz").unlink()
    _save(people / "a" / "alone.nii.gz", 0)
    (people.parent / "model" / "q.nii.gz").unlink()
    _save(people.parent / "model" / "unasked.nii.gz", 0)
    status, result = _run(people)
    assert status == 1
    assert [(one["case"], one["annotator"], one["left_out"]) for one in result["missing"]] == [
        ("alone", "b", True),
        ("alone", "c", True),
        ("alone", "d", True),
        ("p", "d", False),
    ]
    assert result["n_cases"] == 2
    assert [one["n_cases"] for one in result["annotators"]] == [2, 2, 2, 1]
    assert result["model_failed"] == [{"case": "q", "reason": "there is no prediction for it"}]
    assert result["model_results"]["mean_dice"] == pytest.approx(0.25)  # 0.5 and a failure
    assert result["model_results"]["structures"]["core"]["n_failed"] == 1
    assert result["unmatched_predictions"] == ["unasked"]
    told = " ".join(capsys.readouterr().err.split())
    assert "no map alone, b: there is no map of it; the case is left out" in told
    assert "failed q, model: there is no prediction" in told


def test_another_grid_is_left_out_or_resampled(people: Path) -> None:
    _save(people / "c" / "q.nii.gz", 2, AFFINE * 1.0 + np.diag([0, 0, 0.5, 0]))
    status, result = _run(people)
    assert status == 1
    assert "c and a are on different grids" in result["missing"][0]["reason"]
    assert [one["n_cases"] for one in result["annotators"]] == [2, 2, 1, 2]
    assert _run(people, resample=True)[0] == 0


def test_unknown_labels_are_told_or_ignored(people: Path) -> None:
    path = people / "c" / "q.nii.gz"
    labels = np.asarray(nib.load(path).dataobj).copy()
    labels[0, 0, 0] = 7
    nib.save(nib.Nifti1Image(labels, AFFINE), path)
    status, result = _run(people)
    assert status == 1
    assert [(one["case"], one["annotator"]) for one in result["missing"]] == [("q", "c")]
    assert "undeclared label 7" in result["missing"][0]["reason"]
    status, result = _run(people, ignore_unknown=True)
    assert (status, result["missing"]) == (0, [])


def test_unions_of_structures_do_not_count_again_in_the_means(people: Path) -> None:
    for case in "pq":  # c takes core for edge: Dice 0 for both, 1 for their union
        path = people / "c" / f"{case}.nii.gz"
        labels = np.asarray(nib.load(people / "a" / f"{case}.nii.gz").dataobj)
        nib.save(nib.Nifti1Image((labels > 0) * (3 - labels), AFFINE), path)
    _, result = _run(people)
    assert result["structures"]["whole"]["pairs"]["dice"]["mean"] == 1
    assert result["matrix"][0] == [None, 1, 0, 1]
    assert result["annotators"][2]["mean_dice"] == result["annotators"][2]["with_others"]["mean"] == 0
    assert result["annotators"][2]["structures"]["whole"]["dice"]["mean"] == 1


def test_empty_rule(people: Path) -> None:
    for name in "abcd":
        _save(people / name / "r.nii.gz", None)
    _save(people.parent / "model" / "r.nii.gz", None)
    dice = _run(people)[1]["structures"]["core"]["pairs"]["dice"]
    assert (dice["mean"], dice["n"]) == (pytest.approx((0.875 + 0.75 + 1) / 3), 3)
    _, left_out = _run(people, options=MetricOptions(empty="nan", lesions=False))
    dice = left_out["structures"]["core"]["pairs"]["dice"]
    assert (dice["mean"], dice["n"]) == (pytest.approx((0.875 + 0.75) / 2), 2)
    _save(people / "c" / "r.nii.gz", 0)  # only one has the structure: 0 by either rule
    _, result = _run(people, options=MetricOptions(empty="nan", lesions=False))
    pairs = [r["dice"] for r in result["cases"] if (r["case"], r["relation"], r["structure"]) == ("r", "pair", "core")]
    assert sorted(pairs, key=lambda v: (v is None, v)) == [0, 0, 0, None, None, None]


def test_two_annotators_without_a_model(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, result = _run(people, people / "a", people / "c", model=None, flag_below=0.8)
    assert status == 0
    assert result["model_results"] is None
    # The consensus of the others is the other one.
    assert [one["mean_dice"] for one in result["annotators"]] == [0.625, 0.625]
    assert [flag["case"] for flag in result["flagged"]] == ["q"] * 3 + ["p"] * 3
    assert "with two annotators" in capsys.readouterr().err


def test_what_cannot_be_done_is_refused(people: Path, tmp_path: Path) -> None:
    for folders, options, words in (
        ([people / "a"], {}, "one annotator at most"),
        ([people], {"model": tmp_path / "none"}, "--model .* is not a folder"),
        ([people], {"structures": {"other": 9}}, "no case has usable maps of two annotators; p, a: .*undeclared"),
        ([people], {"output": people}, "already holds other files"),
    ):
        with pytest.raises(RequestError, match=words):
            agreement(folders, **({"structures": STRUCTURES} | options))


def test_a_killed_calls_folder_is_written_into(people: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "consensus").mkdir(parents=True)
    (tmp_path / "out" / "consensus" / "p.nii.gz").write_bytes(b"")  # of a case that was compared before the kill
    (tmp_path / "out" / ".4194305.part.0.json").write_text("half")
    agreement([people], structures=STRUCTURES, output=tmp_path / "out")
    assert (tmp_path / "out" / "agreement.json").is_file()


def test_structures_from_dataset_json_or_the_values(people: Path) -> None:
    _, result = _run(people, structures=None, model=None)
    assert list(result["structures"]) == ["label_1", "label_2"]
    (people / "dataset.json").write_text('{"labels": {"background": 0, "whole": [1, 2]}}')
    _, result = _run(people, structures=None, model=None)
    assert list(result["structures"]) == ["whole"]
    assert set(result["annotators"][0]["staple"]) == {"label_1", "label_2"}


def test_the_page_is_whole_and_requests_nothing(people: Path) -> None:
    (people / "c").rename(people / "<i>c")
    _run(people)
    folder = people.parent / "out"
    assert {entry.name for entry in folder.iterdir()} == set(FILES)
    html = (folder / "agreement.html").read_text()
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
    assert all(load.startswith("data:") for load in loads)
    assert not re.search(r"@import|url\(|https?://|fetch\(|XMLHttpRequest", html)
    assert "<i>c" not in html


def test_command_line(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(people), "--structure", "core=1", "--structure", "edge=2", "--tolerance", "2"]
    assert _status(["agreement", *given, "--model", str(tmp_path / "model"), "--output", str(tmp_path / "o")]) == 0
    shown = capsys.readouterr()
    assert "surface Dice 2 mm" in shown.out
    assert "below 0.75 q, core: Dice 0.500 of a and c" in shown.err
    assert _status(["agreement", str(people / "a")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert _status(["agreement", str(people), "--structure", "core=1", "--ignore-unknown"]) == 0
    assert _status(["agreement", str(people), "--flag-below", "2"]) == 2
    (people / "b" / "p_seg.nii.gz").write_bytes(b"nothing")
    assert _status(["agreement", *given]) == 1


def test_the_order_of_the_rows_does_not_matter(people: Path) -> None:
    one = _run(people, workers=1)[1]
    other = _run(people, people / "d", people / "c", people / "b", people / "a")[1]
    first = {a["name"]: a["mean_dice"] for a in one["annotators"]}
    assert first == pytest.approx({a["name"]: a["mean_dice"] for a in other["annotators"]})
    assert one["structures"]["core"]["pairs"]["dice"]["mean"] == other["structures"]["core"]["pairs"]["dice"]["mean"]
    assert not math.isnan(one["matrix"][0][1])
