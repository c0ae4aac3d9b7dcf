"""A run on every training case (``--fold all``): nothing is set aside, and nothing can be judged or tuned on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from rarevox.pipeline.cli import cli
from rarevox.pipeline.compose import read_yaml
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.calibrate import calibrate
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.evaluation.tune import tune_post_processing
from rarevox.pipeline.evaluation.tune_threshold import tune_threshold
from rarevox.pipeline.files import read_json
from rarevox.pipeline.training.train import train
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def whole_run(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train(dataset_dir, folder, settings=SMALL, iterations=6, device="cpu", fold="all") == 0
    return folder


def test_every_training_case_is_learnt_from_and_none_validates(whole_run: Path) -> None:
    assert read_yaml(whole_run / "configs" / "train.yaml")["fold"] == "all"
    rows = [json.loads(line) for line in (whole_run / "logs" / "train.jsonl").read_text().splitlines()]
    assert all("mean_dice" not in row for row in rows)


def test_held_out_cases_are_scored(whole_run: Path, dataset_dir: Path) -> None:
    assert evaluate(whole_run, dataset_dir, device="cpu") == 0
    assert read_json(whole_run / "evaluation" / "test" / "metrics.json")["n_cases"] == 2


def _validated(run: Path, dataset: Path, **how: str) -> int:
    return evaluate(run, dataset, section="validation", **how)


@pytest.mark.parametrize("judge", [_validated, calibrate, tune_post_processing, tune_threshold])
def test_no_case_is_left_to_judge_or_tune_on(whole_run: Path, dataset_dir: Path, judge) -> None:
    with pytest.raises(RequestError, match="learnt from every training case.* train with --fold 0, or cross-validate"):
        judge(whole_run, dataset_dir, device="cpu")


def test_it_goes_on_as_it_began(whole_run: Path, dataset_dir: Path) -> None:
    with pytest.raises(RequestError, match="is a run of fold all, not 1"):
        train(dataset_dir, whole_run, iterations=8, device="cpu", fold=1, resume=True)
    assert train(dataset_dir, whole_run, iterations=8, device="cpu", fold="all", resume=True) == 0


@pytest.mark.parametrize("word", ["al", "-1", "0.5"])
def test_a_word_that_is_no_fold_is_refused(dataset_dir: Path, tmp_path: Path, word: str) -> None:
    result = CliRunner().invoke(cli, ["train", str(dataset_dir), "--output", str(tmp_path / "run"), "--fold", word])
    assert result.exit_code == 2
    assert "expected a whole number from 0, or all" in result.output
    assert not (tmp_path / "run").exists()
