"""`rarevox tune-threshold`: the points reach the run and its labels, the figures their files.

The run here hardly finds its ball at a threshold of a half.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from rarevox.pipeline.cli import cli
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.learnt import note_learnt
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.calibrate import calibrate
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.evaluation.metrics.options import MetricOptions
from rarevox.pipeline.evaluation.operating.candidates import Candidates, StoredCase
from rarevox.pipeline.evaluation.operating.choose import Aim
from rarevox.pipeline.evaluation.operating.parts import Parts
from rarevox.pipeline.evaluation.tune import tune_post_processing
from rarevox.pipeline.evaluation.tune_threshold import RESULT_FILE, STAGES, _print, points_of, tune_threshold
from rarevox.pipeline.trust.sums import write_sums
from rarevox.pipeline.trust.verify import verify
from rarevox.transforms.decision import Decision
from tests.pipeline.evaluation.operating.test_candidates import VALUES, stored


@pytest.fixture(scope="module")
def shy_run(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with the logit of the ball lowered, whose best threshold is then below a half."""
    run = tmp_path_factory.mktemp("shy") / "run"
    shutil.copytree(run_dir, run)
    path = run / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    last = [key for key in state if state[key].ndim == 5][-1]
    state[last][1] -= 0.3  # of features that are never negative
    torch.save(state, path)
    write_sums(run)
    return run


def _labels(folder: Path) -> list[np.ndarray]:
    return [np.asarray(nib.load(path).dataobj) for path in sorted(folder.glob("*_seg.nii.gz"))]


def test_the_points_reach_the_run_its_labels_and_its_sums(shy_run: Path, dataset_dir: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"section": "validation", "device": "cpu"}
    assert evaluate(shy_run, dataset_dir, output=tmp_path / "before", **options) == 0
    done = CliRunner().invoke(cli, ["tune-threshold", str(shy_run), str(dataset_dir), "--device", "cpu"])
    assert (done.exception, done.exit_code) == (None, 0)
    tuned = json.loads((shy_run / "evaluation" / RESULT_FILE).read_text())
    point = tuned["chosen"]["ball"]
    assert point["threshold"] < 0.3
    assert point["aim"] == "dice"
    assert tuned["context"]["section"] == "validation"
    assert tuned["n_cases"] == len(Dataset.load(dataset_dir).section("validation"))
    assert "chosen on the other subjects' cases" in done.output
    for stage in STAGES:
        config = yaml.safe_load((shy_run / "configs" / f"{stage}.yaml").read_text())
        assert config["operating_points"] == tuned["chosen"]
    assert verify(shy_run) == 0
    assert evaluate(shy_run, dataset_dir, output=tmp_path / "after", **options) == 0
    before, after = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("before", "after"))
    told = tuned["structures"]["ball"]
    # The figures that the choice was told by are those of the evaluation, on the same cases.
    assert before["structures"]["ball"]["dice"]["mean"] == pytest.approx(told["without"]["mean"], abs=1e-12)
    volumes = [row["volume_ml"] for row in before["cases"] if row["structure"] == "ball"]
    assert told["without"]["volume_ml"] == pytest.approx(sum(volumes) / len(volumes))
    if "box" not in tuned["chosen"]:
        assert after["structures"]["ball"]["dice"]["mean"] == pytest.approx(told["with"]["mean"], abs=1e-12)
    assert told["with"]["mean"] > told["without"]["mean"]
    assert after["context"]["operating_points"] == tuned["chosen"]
    curve = after["curves"]["structures"]["ball"]
    assert curve["threshold"] == point["threshold"]
    page = (tmp_path / "after" / "report.html").read_text()
    assert 'id="operating"' in page
    assert (tmp_path / "after" / "curves.csv").is_file()
    # What the run's threshold gives on the curve is what its labels hold, where no component was cut.
    if not point.get("confidence"):
        at = curve["voxels"]["threshold"].index(point["threshold"])
        pooled = after["structures"]["ball"]["pooled"]
        assert curve["voxels"]["true"][at] == pooled["tp"]
        assert curve["voxels"]["predicted"][at] == pooled["tp"] + pooled["fp"]


def test_calibration_moves_the_points_and_no_label(shy_run: Path, dataset_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(shy_run, run)
    points = {"ball": {"threshold": 0.07, "confidence": 0.2}, "box": {"threshold": 0.6}}
    for stage in STAGES:
        path = run / "configs" / f"{stage}.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"operating_points": points}))
    options: dict[str, Any] = {"section": "validation", "device": "cpu"}
    assert evaluate(run, dataset_dir, output=tmp_path / "before", **options) == 0
    assert calibrate(run, dataset_dir, device="cpu") == 0
    config = yaml.safe_load((run / "configs" / "inference.yaml").read_text())
    assert config["temperature"] != 1.0
    assert config["operating_points"]["ball"]["threshold"] != 0.07
    assert evaluate(run, dataset_dir, output=tmp_path / "after", **options) == 0
    for one, other in zip(*(_labels(tmp_path / n / "predictions") for n in ("before", "after")), strict=True):
        assert np.array_equal(one, other)


def test_evaluate_takes_thresholds_and_leaves_curves_out(shy_run: Path, dataset_dir: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", str(shy_run), str(dataset_dir), "--section", "validation", "--device", "cpu"]
    more = ["--output", str(tmp_path), "--threshold", "ball=0.9", "--set", "curves=false"]
    assert CliRunner().invoke(cli, [*arguments, *more]).exit_code == 0
    told = json.loads((tmp_path / "metrics.json").read_text())
    assert told["context"]["operating_points"]["ball"]["threshold"] == 0.9
    assert "curves" not in told
    assert not (tmp_path / "curves.csv").exists()


def test_a_case_that_fails_is_listed_and_counts_as_missed(shy_run: Path, dataset_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(shy_run, run)
    data = json.loads((dataset_dir / "dataset.json").read_text())
    (tmp_path / "broken.nii.gz").write_bytes(b"")
    broken = next(case for case in data["training"] if case["fold"] == 0)
    broken["image"] = str(tmp_path / "broken.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps(data))
    assert tune_threshold(run, tmp_path, aim="recall", false_lesions=2.0, device="cpu") == 1
    tuned = json.loads((run / "evaluation" / RESULT_FILE).read_text())
    assert list(tuned["failed"]) == [broken["case"]]
    assert tuned["structures"]["ball"]["with"]["false_per_scan"] <= 2.0
    assert evaluate(run, tmp_path, section="validation", output=tmp_path / "out", device="cpu") == 1
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())
    curve = told["curves"]
    assert curve["n_cases"] == told["n_cases"]
    pooled = told["structures"]["ball"]["pooled"]
    assert curve["structures"]["ball"]["voxels"]["positives"] == pooled["tp"] + pooled["fn"]


def test_a_point_that_harms_another_structure_is_not_taken(tmp_path: Path) -> None:
    """Where the reference is what b's own labels say, any other threshold of b can only harm it."""
    files = [stored(tmp_path, seed)[0] for seed in (11, 12, 13)]
    result = points_of(files, Parts({"a": VALUES[1], "b": VALUES[2]}), Aim("dice"), MetricOptions(distances=False))
    assert set(result["structures"]) == {"a", "b"}
    for name, one in result["structures"].items():
        assert (name in result["chosen"]) == one["taken"]
        if one["taken"]:
            assert one["cross_validated"]["gain"]["mean"] > 0


def test_structures_that_take_each_others_false_voxels_are_raised_together(tmp_path: Path) -> None:
    """False voxels are a little more a than b, or b than a: raised alone, either leaves its own to the other.

    With w = (1 − t) / t of both below 0.2 / 0.45, so t above 9/13, all of them are background.
    """
    kinds = {0: (0.98, 0.01, 0.01), 1: (0.02, 0.96, 0.02), 2: (0.02, 0.02, 0.96), 3: (0.2, 0.45, 0.35)}
    kinds[4] = (0.2, 0.35, 0.45)
    files = []
    for number in range(3):
        kind = np.zeros((12, 3, 3), int)
        kind[1:3], kind[5:7], kind[3, 0, 0], kind[8, 0, : number + 1], kind[10, 0, 0] = 1, 2, 0, 3, 4
        logs = torch.tensor([kinds[int(k)] for k in kind.ravel()]).log().T.reshape(3, *kind.shape)
        case = Candidates(3)
        case.begin(kind.shape)
        case.take(logs, (slice(0, 12), slice(0, 3), slice(0, 3)))
        files.append(tmp_path / f"{number}.npz")
        case.save(files[-1], str(number), np.where(kind < 3, kind, 0).astype(np.uint8), (1.0, 1.0, 1.0))
    result = points_of(files, Parts({"a": 1, "b": 2}), Aim("dice"), MetricOptions(distances=False))
    assert set(result["chosen"]) == {"a", "b"}
    decision = Decision(result["chosen"], ["a", "b"])
    for file in files:
        case_ = StoredCase.load(file)
        assert np.array_equal(case_.labels(decision, [0, 1, 2]), case_.reference)


def test_wrong_requests(run_dir: Path, dataset_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not a run"):
        tune_threshold(tmp_path, dataset_dir)
    with pytest.raises(RequestError, match="expected one of dice"):
        tune_threshold(run_dir, dataset_dir, aim="best")
    with pytest.raises(RequestError, match="0 or more"):
        tune_threshold(run_dir, dataset_dir, aim="recall", false_lesions=-1)


@pytest.fixture
def folds(shy_run: Path, dataset_dir: Path, tmp_path: Path) -> Path:
    """A folder as crossval leaves it, of two folds by one network."""
    study = tmp_path / "study"
    for fold in (0, 1):
        run = study / "cells" / f"fold_{fold}"
        shutil.copytree(shy_run, run)
        for stage in STAGES:
            path = run / "configs" / f"{stage}.yaml"
            rules = {"ball": {"min_ml": 9.0}}  # that of before, which no choice can be
            config = yaml.safe_load(path.read_text()) | {"fold": fold, "operating_points": {}, "post_processing": rules}
            path.write_text(yaml.safe_dump(config, sort_keys=False))
        write_sums(run)
        note_learnt(run, Dataset.load(dataset_dir), fold)
        assert evaluate(run, dataset_dir, section="validation", device="cpu") == 0
    (study / "ensemble.json").write_text('{"members": ["cells/fold_0", "cells/fold_1"]}')
    return study


def test_the_folds_of_a_cross_validation_choose_together(
    folds: Path, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one network the choice over both folds is that over all training cases at once."""
    data = Dataset.load(dataset_dir)
    done = CliRunner().invoke(cli, ["tune-threshold", str(folds), str(dataset_dir), "--device", "cpu"])
    assert (done.exception, done.exit_code) == (None, 0)
    assert "the configurations of all 2 runs" in done.output
    tuned = json.loads((folds / RESULT_FILE).read_text())
    assert tuned["context"]["folds"] == [0, 1]
    assert tuned["n_cases"] == sum(case["fold"] in (0, 1) for case in data.training)
    assert tuned["chosen"]["ball"]["threshold"] < 0.3
    runs = [folds / "cells" / f"fold_{fold}" for fold in (0, 1)]
    for run in runs:
        for stage in STAGES:
            config = yaml.safe_load((run / "configs" / f"{stage}.yaml").read_text())
            assert config["operating_points"] == tuned["chosen"]
        assert verify(run) == 0
    listed = json.loads((dataset_dir / "dataset.json").read_text())
    for case in listed["training"]:
        case["fold"] = 0 if case["fold"] in (0, 1) else case["fold"]
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    assert tune_threshold(runs[0], tmp_path, device="cpu") == 0
    assert f"{runs[0]} has operating points ball: threshold" in capsys.readouterr().err
    together = json.loads((runs[0] / "evaluation" / RESULT_FILE).read_text())
    for key in ("chosen", "n_cases"):
        assert together[key] == tuned[key]
    for name, one in tuned["structures"].items():
        for figures in ("with", "without"):
            assert one[figures]["mean"] == pytest.approx(together["structures"][name][figures]["mean"], abs=1e-12)


def test_rules_are_chosen_over_the_folds_too(folds: Path, dataset_dir: Path) -> None:
    assert tune_post_processing(folds, dataset_dir, device="cpu") == 0
    tuned = json.loads((folds / "post_processing.json").read_text())
    assert tuned["context"]["folds"] == [0, 1]
    for fold in (0, 1):
        config = yaml.safe_load((folds / "cells" / f"fold_{fold}" / "configs" / "inference.yaml").read_text())
        assert config["post_processing"] == tuned["chosen"]


def test_two_runs_of_one_fold_are_refused(folds: Path, dataset_dir: Path) -> None:
    (folds / "ensemble.json").write_text('{"members": ["cells/fold_0", "cells/fold_0"]}')
    with pytest.raises(RequestError, match="several runs of .* have fold 0, whose cases would count twice"):
        tune_threshold(folds, dataset_dir, device="cpu")


def test_a_dataset_that_was_dealt_out_anew_is_refused(folds: Path, dataset_dir: Path, tmp_path: Path) -> None:
    """Of the same cases and the same sum: a run may have learnt from what is its fold's now."""
    listed = json.loads((dataset_dir / "dataset.json").read_text())
    for case in listed["training"]:
        case["fold"] = (case["fold"] + 1) % 3
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    with pytest.raises(RequestError, match=r"fold 0 of .* holds other cases than .*fold_0 was validated on"):
        tune_threshold(folds, tmp_path, device="cpu")
    shutil.rmtree(folds / "cells" / "fold_1" / "evaluation")
    with pytest.raises(RequestError, match=r"fold_1 has no evaluation/validation/metrics.json"):
        tune_threshold(folds, dataset_dir, device="cpu")


@pytest.mark.parametrize(
    ("threshold", "said"), [(0.99, "highest threshold tried"), (0.01, "lowest threshold tried"), (0.5, "")]
)
def test_the_end_of_what_was_tried_is_told(threshold: float, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"mean": 0.3, "ci95": [0.2, 0.4], "volume_ml": 1.0, "reference_ml": 1.0, "dice": 0.3}
    one = {"threshold": threshold, "confidence": 0, "taken": True, "without": figures, "with": figures}
    _print({"aim": "dice", "structures": {"lesion": {**one, "cross_validated": None}}}, 3)
    told = " ".join(capsys.readouterr().out.split())
    assert said in told and ("better train longer" in told) is bool(said)
    assert "times what is there" not in told


def test_what_marks_much_more_than_there_is_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"mean": 1.0, "ci95": [1.0, 1.0], "volume_ml": 38.2, "reference_ml": 2.0, "dice": 0.05}
    one = {"threshold": 0.3, "confidence": 0, "taken": True, "without": figures, "with": figures}
    _print({"aim": "lesion_f1", "structures": {"lesion": {**one, "cross_validated": None}}}, 3)
    assert "marks 19 times what is there" in " ".join(capsys.readouterr().out.split())
