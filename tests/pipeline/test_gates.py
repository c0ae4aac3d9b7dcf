"""Gates: what they ask by hand, how they are declared and refused, how they reach a run, and the exit status."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from rarevox.pipeline.cli import main
from rarevox.pipeline.compose import compose, derive
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.entries import put
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.evaluation.metrics.aggregate import aggregate
from rarevox.pipeline.evaluation.metrics.rows import failed_rows
from rarevox.pipeline.evaluation.report.page import write_report
from rarevox.pipeline.gates import check_gates, failed_gates, read_gates
from rarevox.pipeline.training.configured import check

NAMES = ["ball", "box"]


def _result(dice: list[float]) -> dict[str, Any]:
    rows = [failed_rows(str(i), {"ball": 1}, "")[0] | {"dice": d, "status": "ok"} for i, d in enumerate(dice)]
    return aggregate(rows, {"ball": 1})


def test_gates_by_hand() -> None:
    # 0.5, 0.7, 0.9: mean 0.7, worst 0.5; the interval of the mean lies strictly between 0.5 and 0.9.
    gates = {"ball": {"mean": 0.7, "lower": 0.5, "worst": 0.5}}
    result = _result([0.7, 0.5, 0.9])
    assert [row["passed"] for row in check_gates(gates, result)] == [True, True, True]
    tighter = {"ball": {"mean": 0.71, "lower": 0.7, "worst": 0.51}}
    rows = check_gates(tighter, result)
    assert [row["passed"] for row in rows] == [False, False, False]
    assert rows[1]["value"] == result["structures"]["ball"]["dice"]["ci95"][0]
    assert failed_gates({"gates": rows})[0] == "ball: mean Dice is 0.700, the gate asks for 0.710"


def test_what_was_not_measured_has_not_passed() -> None:
    one = check_gates({"ball": {"mean": 0.0, "lower": 0.0}}, _result([0.9]))
    assert [row["passed"] for row in one] == [True, False]  # one case has no interval
    assert "was not measured" in failed_gates({"gates": one})[0]
    nothing = check_gates({"ball": {"mean": 0.0, "worst": 0.0}}, _result([math.nan]))
    assert [row["passed"] for row in nothing] == [False, False]


def test_a_failed_case_is_the_worst_case() -> None:
    rows = [failed_rows("a", {"ball": 1}, "")[0] | {"dice": 1.0, "status": "ok"}, *failed_rows("b", {"ball": 1}, "")]
    found = check_gates({"ball": {"mean": 0.5, "worst": 0.1}}, aggregate(rows, {"ball": 1}))
    assert [(row["value"], row["passed"]) for row in found] == [(0.5, True), (0.0, False)]


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"bal": {"mean": 0.5}}, "no structure is called 'bal': did you mean 'ball'"),
        ({"ball": {"maen": 0.5}}, "no rule 'maen': did you mean 'mean'"),
        ({"ball": {"mean": 75}}, "is 75; expected a Dice from 0 to 1"),
        ({"ball": {"mean": "high"}}, "expected a Dice"),
        ({"ball": {"mean": True}}, "expected a Dice"),
        ({"ball": 0.7}, "expected rules"),
        ([0.7], "expected for example"),
    ],
)
def test_wrong_gates_are_refused(declared: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        read_gates(declared, NAMES)


def test_no_gates() -> None:
    assert read_gates(None, NAMES) == read_gates({}, NAMES) == {}
    assert check_gates({}, _result([0.5])) == []
    assert failed_gates({}) == []


def test_gates_are_set_rule_by_rule() -> None:
    config: dict[str, Any] = {"gates": {"box": {"mean": 0.5}}, "other": {}}
    put(config, "gates#ball#mean", 0.7)
    put(config, "gates#box#worst", 0.2)
    assert config["gates"] == {"box": {"mean": 0.5, "worst": 0.2}, "ball": {"mean": 0.7}}
    with pytest.raises(RequestError, match="no configuration key"):
        put(config, "other#ball", 1)


def test_gates_of_a_config_file_reach_the_run(dataset_dir: Path, tmp_path: Path) -> None:
    data = Dataset.load(dataset_dir)
    (tmp_path / "mine.yaml").write_text("gates: {ball: {mean: 0.75}}\n")
    trained = compose(
        "train", dataset=data, config_files=[tmp_path / "mine.yaml"], settings=["gates#box={worst: 0.1}"]
    ).config
    assert derive("evaluate", trained)["gates"] == {"ball": {"mean": 0.75}, "box": {"worst": 0.1}}
    wrong = compose("train", dataset=data, settings=["gates#bal#mean=0.5"]).config
    with pytest.raises(RequestError, match="did you mean 'ball'"):
        check(wrong, data)


def test_evaluation_ends_with_status_1_and_names_what_failed(
    run_dir: Path, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(run_dir, run)
    config = yaml.safe_load((run / "configs" / "evaluate.yaml").read_text())
    assert config["gates"] == {}
    config["gates"] = {"box": {"worst": 0.0}}
    (run / "configs" / "evaluate.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    given = ["evaluate", str(run), str(dataset_dir), "--device", "cpu", "--output", str(out)]
    with pytest.raises(SystemExit) as ended:
        main([*given, "--set", "gates#ball#mean=1.0"])
    assert ended.value.code == 1
    shown = capsys.readouterr()
    assert "1 of 2 gates passed" in shown.out
    assert "gate not passed ball: mean Dice is" in shown.err
    result = json.loads((out / "metrics.json").read_text())
    assert [(g["structure"], g["rule"], g["minimum"], g["passed"]) for g in result["gates"]] == [
        ("box", "worst", 0.0, True),
        ("ball", "mean", 1.0, False),
    ]
    assert "without_post_processing" not in result  # none is declared
    assert result["context"]["post_processing"] == "none"
    html = (out / "report.html").read_text()
    assert "✗ 1 of 2" in html
    assert "not passed" in html
    with pytest.raises(RequestError, match="did you mean 'box'"):
        evaluate(run, dataset_dir, output=tmp_path / "no", device="cpu", settings=["gates={bxo: {mean: 1}}"])
    assert not (tmp_path / "no").exists()


def test_a_report_of_a_result_without_gates_has_no_gates(tmp_path: Path) -> None:
    assert "Gates" not in write_report(tmp_path / "r.html", _result([0.5]), title="t").read_text()
