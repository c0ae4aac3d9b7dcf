"""Which cases a run has learnt from is known by their content, so that their figures never pass for held-out ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.data.learnt import LEARNT_FROM, noted_cases, seen_cases
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.calibrate import calibrate
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.evaluation.tune import tune_post_processing
from rarevox.pipeline.evaluation.tune_threshold import tune_threshold
from rarevox.pipeline.files import read_json, write_json
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.training.train import train
from tests.conftest import SMALL, write_task


@pytest.fixture
def run(run_dir: Path, tmp_path: Path) -> Path:
    """A copy that may be written into."""
    return Path(shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation")))


@pytest.fixture(scope="module")
def split_anew(task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same cases, five of the eight held out; the run of ``run_dir`` has learnt from some of these."""
    folder = tmp_path_factory.mktemp("anew") / "dataset"
    assert prepare(task_dir, folder, holdout=0.6, folds=3, seed=3) == 0
    return folder


def test_a_run_notes_the_cases_of_its_fold(run_dir: Path, dataset_dir: Path) -> None:
    data = Dataset.load(dataset_dir)
    noted = noted_cases(run_dir)
    assert [row["case"] for row in noted] == sorted(case["case"] for case in data.section("train", fold=0))
    assert all(len(row["sha256"]) == 64 for row in noted)


def test_cases_that_were_learnt_from_are_told_and_never_become_the_runs_own_figures(
    run: Path, split_anew: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Dataset.load(split_anew)
    learnt = {row["case"] for row in noted_cases(run)}
    expected = [case["case"] for case in data.test if case["case"] in learnt]
    assert expected and len(expected) < len(data.test)
    before = (run / "docs" / "README.md").read_text()
    assert evaluate(run, split_anew, device="cpu") == 0
    said = " ".join(capsys.readouterr().err.split())
    verb = "was" if len(expected) == 1 else "were"
    assert (
        f"{len(expected)} of {len(data.test)} cases in section test of {data.path} {verb} learnt from by {run}" in said
    )
    result = read_json(run / "evaluation" / "test_other_split" / "metrics.json")
    assert result["context"]["learnt_from"] == expected
    assert [row["case"] for row in result["warnings"]] == sorted(expected)
    assert all(row["warning"] == "the run learnt from this case" for row in result["warnings"])
    assert "the run learnt from this case" in (run / "evaluation" / "test_other_split" / "report.html").read_text()
    assert (run / "docs" / "README.md").read_text() == before


def test_held_out_cases_of_its_own_dataset_are_told_of_nothing(run: Path, dataset_dir: Path) -> None:
    assert evaluate(run, dataset_dir, device="cpu") == 0
    result = read_json(run / "evaluation" / "test" / "metrics.json")
    assert "learnt_from" not in result["context"] and not result["warnings"]
    assert "held out of training (2 cases)" in (run / "docs" / "README.md").read_text()


def test_other_data_are_scored_into_a_folder_of_their_own(run: Path, tmp_path: Path) -> None:
    assert prepare(write_task(tmp_path / "others", cases=4, seed=9), tmp_path / "dataset", holdout=0.5, folds=2) == 0
    assert evaluate(run, tmp_path / "dataset", device="cpu") == 0
    name = Dataset.load(tmp_path / "dataset").name
    assert (run / "evaluation" / f"test_{name}" / "metrics.json").is_file()
    assert not (run / "evaluation" / "test").exists()


def test_a_resumed_run_is_not_given_another_split(run: Path, split_anew: Path, dataset_dir: Path) -> None:
    with pytest.raises(RequestError, match="it was split anew; give the dataset as it was"):
        train(split_anew, run, resume=True, iterations=90, device="cpu")
    config = (run / "configs" / "train.yaml").read_text()
    assert str(split_anew) not in config


def test_a_dataset_that_was_prepared_anew_in_its_place_is_noticed(task_dir: Path, tmp_path: Path) -> None:
    dataset, run = tmp_path / "dataset", tmp_path / "run"
    assert prepare(task_dir, dataset, holdout=0.25, folds=3, seed=0) == 0
    assert train(dataset, run, settings=(*SMALL, "validation_cases=0"), iterations=2, device="cpu") == 0
    assert prepare(task_dir, dataset, holdout=0.25, folds=3, seed=5) == 0
    with pytest.raises(RequestError, match="it was split anew"):
        train(dataset, run, resume=True, iterations=4, device="cpu")
    shutil.rmtree(dataset)
    assert prepare(write_task(tmp_path / "others", cases=5, seed=9), dataset, folds=3) == 0
    with pytest.raises(RequestError, match="which holds other data now; give its own"):
        train(dataset, run, resume=True, iterations=4, device="cpu")


def test_a_run_that_was_ended_before_its_cases_were_noted_goes_on(run: Path, dataset_dir: Path) -> None:
    """The configuration of a training is there first, then the metadata, then the note."""
    (run / LEARNT_FROM).unlink()
    (run / "configs" / "metadata.json").unlink()
    assert train(dataset_dir, run, resume=True, iterations=81, device="cpu") == 0
    assert noted_cases(run) and (run / "configs" / "metadata.json").is_file()


def test_what_is_not_known_is_not_said(run: Path, split_anew: Path) -> None:
    """A run of an earlier version, a damaged note, a dataset without its fingerprint."""
    data = Dataset.load(split_anew)
    assert seen_cases([run], data, data.test)
    for text in ("", "{", '{"cases": 3}', '{"cases": [{"case": "a"}]}'):
        (run / LEARNT_FROM).write_text(text)
        assert seen_cases([run], data, data.test) == []
    (run / LEARNT_FROM).unlink()
    assert seen_cases([run], data, data.test) == [] and noted_cases(run) is None


def test_cases_of_the_run_that_the_weights_come_from_are_known_too(
    run: Path, split_anew: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    tuned, again, file, setting = (tmp_path / name for name in ("tuned", "again", "file", "setting"))
    short: dict[str, Any] = {"iterations": 1, "device": "cpu"}
    weights = run / "models" / "model.pt"
    for folder, start in ((tuned, run), (again, tuned), (file, weights), (setting, None)):
        said = ["validation_cases=0"] if start is not None else ["validation_cases=0", f"initial_weights={weights}"]
        assert train(split_anew, folder, settings=(*SMALL, *said), start_from=start, **short) == 0
        data = Dataset.load(split_anew)
        learnt = {row["case"] for row in noted_cases(run)}
        assert seen_cases([folder], data, data.test) == [case["case"] for case in data.test if case["case"] in learnt]


def test_without_the_fingerprint_of_the_cases_a_run_goes_on(task_dir: Path, tmp_path: Path) -> None:
    """The content is known by the dataset's own fingerprint; names tell of the split."""
    dataset, run = tmp_path / "dataset", tmp_path / "run"
    assert prepare(task_dir, dataset, holdout=0.25, folds=3, seed=0) == 0
    assert train(dataset, run, settings=(*SMALL, "validation_cases=0"), iterations=1, device="cpu") == 0
    (dataset / "fingerprint.json").unlink()
    assert train(dataset, run, resume=True, iterations=2, device="cpu") == 0


def _rotated(dataset_dir: Path, folder: Path) -> Path:
    """The dataset with its folds dealt out anew: what the run of fold 0 learnt from is in its validation section."""
    shutil.copytree(dataset_dir, folder)
    content = read_json(folder / "dataset.json")
    content["root"] = str(Dataset.load(dataset_dir).root)
    for case in content["training"]:
        case["fold"] = (case["fold"] + 1) % content["folds"]
    write_json(folder / "dataset.json", content)
    return folder


@pytest.mark.parametrize(
    ("choose", "file"),
    [
        (tune_threshold, "operating_points.json"),
        (tune_post_processing, "post_processing.json"),
        (calibrate, "calibration.json"),
    ],
)
def test_a_choice_on_cases_that_were_learnt_from_says_so(
    choose: Callable[..., int],
    file: str,
    run: Path,
    dataset_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert choose(run, dataset_dir, device="cpu") == 0
    assert "learnt from" not in capsys.readouterr().err
    assert "learnt_from" not in read_json(run / "evaluation" / file)["context"]
    anew = _rotated(dataset_dir, tmp_path / "anew")
    assert choose(run, anew, device="cpu") == 0
    cases = [case["case"] for case in Dataset.load(anew).section("validation", fold=0)]
    said = " ".join(capsys.readouterr().err.split())
    assert f"2 of 2 cases in section validation of {anew / 'dataset.json'} were learnt from by {run}" in said
    assert read_json(run / "evaluation" / file)["context"]["learnt_from"] == cases


def test_a_run_set_otherwise_for_one_call_leaves_its_own_figures_alone(run: Path, dataset_dir: Path) -> None:
    before = [(run / file).read_text() for file in ("docs/README.md", "configs/metadata.json")]
    assert evaluate(run, dataset_dir, device="cpu", thresholds={"ball": "0.9"}) == 0
    assert read_json(run / "evaluation" / "test_other_settings" / "metrics.json")["context"]["operating_points"]
    assert not (run / "evaluation" / "test").exists()
    assert [(run / file).read_text() for file in ("docs/README.md", "configs/metadata.json")] == before
    judged = ["metric_options#surface=area", "curves=false", "inferer#memory_gb=1"]
    assert evaluate(run, dataset_dir, device="cpu", settings=judged) == 0
    assert (run / "evaluation" / "test" / "metrics.json").is_file()
    assert [(run / file).read_text() for file in ("docs/README.md", "configs/metadata.json")] != before
