"""Cross-validation: every case once, out of fold; pooled sums are the folds'; the folder predicts as a run does."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.files import read_json, write_json
from rarevox.pipeline.inference.members import with_members
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.preparation.cases import named_subject
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.study.crossval import _threads, crossval
from rarevox.pipeline.study.places import Places
from rarevox.pipeline.study.plan import read_plan
from rarevox.pipeline.study.pooled import EVALUATED, pool
from rarevox.pipeline.study.rows import Row, read_rows
from rarevox.pipeline.training.kept.checkpoint import load_tensors
from rarevox.transforms.reader import read_scan
from tests import forked
from tests.conftest import SMALL, write_task

MAIN = "from rarevox.pipeline.cli import main; import sys; main(sys.argv[1:])"
OPTIONS: dict[str, Any] = {"settings": SMALL, "iterations": 12, "device": "cpu"}


@pytest.fixture(scope="module")
def folds(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds of the synthetic cases, by two shards, the two folds of the first at once."""
    folder = tmp_path_factory.mktemp("crossval") / "out"
    assert crossval(dataset_dir, folder, places=Places(workers=2), shard="1/2", **OPTIONS) == 0
    assert not (folder / "metrics.json").exists() and not (folder / "ensemble.json").exists()
    assert crossval(dataset_dir, folder, places=Places(workers=2), shard="2/2", **OPTIONS) == 0
    return folder


def test_every_training_case_is_scored_once_by_the_run_that_had_not_seen_it(folds: Path, dataset_dir: Path) -> None:
    data = Dataset.load(dataset_dir)
    with (folds / "cases.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    held = {(row["case"], int(row["fold"])) for row in rows if row["structure"] == "ball"}
    assert held == {(case["case"], case["fold"]) for case in data.training}
    assert len(rows) == 2 * len(data.training)
    for fold in range(3):
        config = (folds / "cells" / f"fold_{fold}" / "configs" / "train.yaml").read_text()
        assert f"\nfold: {fold}\n" in config
        assert (folds / "cells" / f"fold_{fold}" / "models" / "model.pt").is_file()
    assert [row.cell for row in read_rows(folds)] == ["fold_0", "fold_1", "fold_2"]


def test_pooled_sums_are_the_sums_of_the_folds(folds: Path) -> None:
    result = read_json(folds / "metrics.json")
    assert [fold["fold"] for fold in result["folds"]] == [0, 1, 2]
    assert sum(fold["cases"] for fold in result["folds"]) == result["n_cases"] == 6
    for name, summary in result["structures"].items():
        parts = [fold["structures"][name]["pooled"] for fold in result["folds"]]
        for count in ("tp", "fp", "fn"):
            assert summary["pooled"][count] == sum(part[count] for part in parts)
        whole = summary["pooled"]
        assert whole["dice"] == 2 * whole["tp"] / (2 * whole["tp"] + whole["fp"] + whole["fn"])
        dice = [row["dice"] for row in result["cases"] if row["structure"] == name]
        # A mean of six numbers under 1, summed in either order: six roundings each.
        assert summary["dice"]["mean"] == pytest.approx(np.mean(dice), abs=12 * np.finfo(float).eps)
        assert summary["dice"]["ci95"][0] < summary["dice"]["mean"] < summary["dice"]["ci95"][1]
    page = (folds / "report.html").read_text()
    assert "3 folds" in page and "fold 2" in page


def test_curves_and_calibration_are_of_all_cases(folds: Path) -> None:
    """That they are what all cases at once give is in ``tests/pipeline/evaluation/operating/test_added.py``."""
    result = read_json(folds / "metrics.json")
    own = [read_json(folds / "cells" / f"fold_{fold}" / EVALUATED / "metrics.json") for fold in range(3)]
    assert result["curves"]["n_cases"] == result["calibration"]["n_cases"] == result["n_cases"]
    for name, summary in result["structures"].items():
        curve = result["curves"]["structures"][name]
        voxels, lesions = curve["voxels"], curve["lesions"]
        at = voxels["threshold"].index(curve["threshold"])
        assert voxels["true"][at] == summary["pooled"]["tp"]
        assert voxels["predicted"][at] == summary["pooled"]["tp"] + summary["pooled"]["fp"]
        rows = [row for row in result["cases"] if row["structure"] == name]
        assert lesions["reference"] == sum(row["lesions_reference"] for row in rows)
        assert lesions["detected"][0] == sum(row["lesions_detected"] for row in rows)  # nothing cut
        bins = [fold["calibration"]["structures"][name]["near"]["count"] for fold in own]
        assert result["calibration"]["structures"][name]["near"]["count"] == np.sum(bins, 0).tolist()
    page = (folds / "report.html").read_text()
    assert 'id="operating"' in page and 'id="calibration"' in page
    assert (folds / "curves.csv").is_file()


def test_folds_that_cannot_be_added_up_have_no_common_curves(
    folds: Path, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(folds, tmp_path / "copy")
    evaluated = copy / "cells" / "fold_1" / EVALUATED
    (evaluated / "detections.json").unlink()
    content = read_json(evaluated / "metrics.json")
    write_json(evaluated / "metrics.json", content | {"calibration": content["calibration"] | {"temperature": 2.0}})
    runs = {fold: f"cells/fold_{fold}" for fold in range(3)}
    result = pool(copy, runs, Dataset.load(dataset_dir), trust=False)
    assert not {"curves", "calibration"} & set(result) and not (copy / "curves.csv").exists()
    told = " ".join(capsys.readouterr().err.split())
    assert "no curves over all folds" in told and "detections.json does not exist" in told
    assert "no calibration over all folds" in told and "temperatures" in told


def test_the_folder_predicts_as_its_folds_together(folds: Path, dataset_dir: Path, tmp_path: Path) -> None:
    scan = Dataset.load(dataset_dir).section("test")[0]
    image, name = Path(scan["image"]), scan["case"]
    members = [folds / "cells" / f"fold_{fold}" for fold in range(3)]
    assert with_members([folds]) == members
    assert predict(folds, [image], tmp_path / "folder", device="cpu") == 0
    assert predict(members[0], [image], tmp_path / "runs", others=members[1:], device="cpu") == 0
    maps = [read_scan(tmp_path / out / f"{name}_seg.nii.gz", dtype=None).array for out in ("folder", "runs")]
    np.testing.assert_array_equal(*maps)
    assert evaluate(folds, dataset_dir, device="cpu") == 0
    assert read_json(folds / "evaluation" / "test_ensemble" / "metrics.json")["n_cases"] == 2


def test_a_configuration_file_that_says_something_else_is_refused(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rarevox.pipeline.study.study.run_jobs", lambda *_: [])
    monkeypatch.setattr("rarevox.pipeline.study.study.step_seconds", lambda shapes, threads: dict.fromkeys(shapes, 1.0))
    mine, options = tmp_path / "mine.yaml", OPTIONS | {"config_files": [tmp_path / "mine.yaml"]}
    for text in ("seed: 1\n", "seed: 1  # the same\n"):
        mine.write_text(text)
        assert crossval(dataset_dir, tmp_path / "out", places=Places(workers=1), **options) == 0
    mine.write_text("seed: 2\n")
    with pytest.raises(RequestError, match=r"mine\.yaml says something else"):
        crossval(dataset_dir, tmp_path / "out", places=Places(workers=1), **options)


def test_a_plan_that_says_something_else_is_refused(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folds would not be trained alike."""
    monkeypatch.setattr("rarevox.pipeline.study.study.run_jobs", lambda *_: [])
    monkeypatch.setattr("rarevox.pipeline.study.study.step_seconds", lambda shapes, threads: dict.fromkeys(shapes, 1.0))
    copy = shutil.copytree(dataset_dir, tmp_path / "dataset")
    content = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps({**content, "root": str((dataset_dir / content["root"]).resolve())}))
    plan = (copy / "plan.yaml").read_text(encoding="utf-8")
    for text in (plan, f"{plan}# the same\n"):
        (copy / "plan.yaml").write_text(text, encoding="utf-8")
        assert crossval(copy, tmp_path / "out", **OPTIONS) == 0
    (copy / "plan.yaml").write_text(f"{plan}seed: 3\n", encoding="utf-8")
    with pytest.raises(RequestError, match=r"plan\.yaml says something else"):
        crossval(copy, tmp_path / "out", **OPTIONS)
    (copy / "plan.yaml").write_text(plan, encoding="utf-8")
    content = json.loads((copy / "dataset.json").read_text())
    for case in content["training"]:
        case["fold"] = (case["fold"] + 1) % 3
    (copy / "dataset.json").write_text(json.dumps(content))
    moved = shutil.copytree(copy, tmp_path / "moved")
    for place in (copy, moved):
        with pytest.raises(RequestError, match="the split of the dataset says something else"):
            crossval(place, tmp_path / "out", **OPTIONS)


def test_threads_are_shared_out_and_no_more_than_a_process_is_to_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rarevox.pipeline.study.crossval.cores", lambda: 16)
    for own, found in (("1", [1, 1]), ("8", [8, 5]), ("64", [16, 5]), ("4,2", [4, 4]), ("0", [16, 5]), ("", [16, 5])):
        monkeypatch.setenv("OMP_NUM_THREADS", own)
        assert [_threads(tmp_path, Places(workers=workers)) for workers in (1, 3)] == found


MOMENTS = (
    (signal.SIGKILL, "cells/*/logs/train.jsonl", 1),
    (signal.SIGTERM, "cells/*/cell.json", 1),
    (signal.SIGKILL, "cells/*/cell.json", 2),
)
"""How it is ended, as soon as so many of these files are there: a fold has begun, one is scored, two are."""


@pytest.mark.slow
def test_ended_at_any_moment_and_called_again_it_ends_the_same(folds: Path, dataset_dir: Path, tmp_path: Path) -> None:
    """All of its processes; the next call goes on each time."""
    output = tmp_path / "out"
    settings = [part for setting in SMALL for part in ("--set", setting)]
    words = ["crossval", str(dataset_dir), "--output", str(output), "--workers", "2", "--device", "cpu"]
    for number, marks, count in MOMENTS:
        process = forked.Forked(["-c", MAIN, *words, "--iterations", "12", *settings], new_session=True)
        until = time.monotonic() + 300
        while len(list(output.glob(marks))) < count and process.is_alive() and time.monotonic() < until:
            time.sleep(0.02)
        with suppress(ProcessLookupError):  # where the last cells were done between two looks
            os.killpg(process.pid, number)
        done = process.wait(timeout=300)
        assert done.returncode in (-number, 128 + number, 0) and "Traceback" not in done.stderr, done.stderr
        for path in (*output.glob("*.json"), *output.glob("cells/*/*.json")):
            read_json(path)  # whole, or not there
    assert crossval(dataset_dir, output, places=Places(workers=2), **OPTIONS) == 0
    ours, theirs = (read_json(folder / "metrics.json") for folder in (output, folds))
    assert (ours["cases"], ours["structures"]) == (theirs["cases"], theirs["structures"])
    for fold in range(3):
        weights = [load_tensors(folder / f"cells/fold_{fold}/models/model.pt") for folder in (output, folds)]
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_case_that_cannot_be_read_stops_no_fold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = write_task(tmp_path / "task", cases=6)
    assert prepare(task, tmp_path / "dataset", holdout=0, folds=3, seed=0) == 0
    data = Dataset.load(tmp_path / "dataset")
    broken = next(case for case in data.training if case["fold"] == 0)
    image = Path(data.root) / broken["image"]
    content = image.read_bytes()
    image.write_bytes(b"")
    out, options = tmp_path / "out", OPTIONS | {"iterations": 2}
    for _ in range(2):
        assert crossval(tmp_path / "dataset", out, places=Places(workers=1), **options) == 1
        rows = read_rows(out)
        assert [row.done for row in rows] == [True] * 3
        assert [row.left_out for row in rows] == [(), (broken["case"],), (broken["case"],)]
        told = " ".join(capsys.readouterr().err.split())
        assert f"fold_1 is without {broken['case']}, which could not be read" in told
    assert {row["left_out"] for row in csv.DictReader((out / "cells.csv").open())} == {"", broken["case"]}
    result = read_json(out / "metrics.json")
    assert [row["case"] for row in result["failed"]] == [broken["case"]] and result["n_cases"] == 6
    assert (out / "ensemble.json").is_file()
    image.write_bytes(content)
    with monkeypatch.context() as patch:  # a call that ends before its folds do leaves no ensemble of some of them
        patch.setattr("rarevox.pipeline.study.study.run_jobs", lambda *_: shutil.rmtree(out / "cells" / "fold_1") or [])
        crossval(tmp_path / "dataset", out, places=Places(workers=1), retry=True, **options)
        assert not (out / "ensemble.json").exists() and (out / "metrics.json").exists()
        assert "are of the folds before" in " ".join(capsys.readouterr().err.split())
    # Fold 0 was trained on all of its cases, and stays; only its scores are from before.
    assert crossval(tmp_path / "dataset", out, places=Places(workers=1), retry=True, **options) == 1
    assert [row.left_out for row in read_rows(out)] == [()] * 3
    assert evaluate(out / "cells" / "fold_0", tmp_path / "dataset", section="validation", device="cpu") == 0
    assert crossval(tmp_path / "dataset", out, places=Places(workers=1), **options) == 0
    assert not read_json(out / "metrics.json")["failed"]


def test_a_fold_that_had_failed_is_told_by_the_status(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rarevox.pipeline.study.study.run_jobs", lambda *_: [])
    monkeypatch.setattr("rarevox.pipeline.study.study.step_seconds", lambda shapes, threads: dict.fromkeys(shapes, 1.0))
    out = tmp_path / "out"
    assert crossval(dataset_dir, out, **OPTIONS) == 0  # all wait
    (out / "cells" / "fold_2").mkdir(parents=True)
    write_json(out / "cells" / "fold_2" / "cell.json", Row("fold_2", {"fold": "2"}, "failed", "no memory").to_json())
    assert crossval(dataset_dir, out, **OPTIONS) == 1
    assert crossval(dataset_dir, out, shard="1/3", **OPTIONS) == 0


@pytest.mark.parametrize("said", ["file", "plan"])
def test_the_budget_of_a_configuration_is_that_of_the_folds(
    said: str, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``train`` has it: an option counts first, then ``--config``, then the plan, and minutes before iterations."""
    monkeypatch.setattr("rarevox.pipeline.study.study.run_jobs", lambda *_: [])
    monkeypatch.setattr("rarevox.pipeline.study.study.step_seconds", lambda shapes, threads: dict.fromkeys(shapes, 1.0))
    data = tmp_path / "data"
    shutil.copytree(dataset_dir, data)
    options: dict[str, Any] = {**OPTIONS, "iterations": None}
    text = "iterations: 37\n"
    if said == "plan":
        plan = data / "plan.yaml"
        plan.write_text(plan.read_text() + text)
    else:
        (tmp_path / "own.yaml").write_text(text)
        options["config_files"] = [tmp_path / "own.yaml"]
    assert crossval(data, tmp_path / "steps", **options) == 0
    assert {cell.settings["iterations"] for cell in read_plan(tmp_path / "steps").cells} == {37}
    assert crossval(data, tmp_path / "told", **{**options, "iterations": 3}) == 0
    assert {cell.settings["iterations"] for cell in read_plan(tmp_path / "told").cells} == {3}
    timed = {**options, "settings": [*SMALL, "minutes=2"]}
    assert crossval(data, tmp_path / "minutes", **timed) == 0
    assert {cell.settings.get("minutes") for cell in read_plan(tmp_path / "minutes").cells} == {2.0}
    assert crossval(data, tmp_path / "usual", **{**OPTIONS, "iterations": None}) == 0
    usual = {cell.settings["iterations"] for cell in read_plan(tmp_path / "usual").cells}
    assert usual == ({37} if said == "plan" else {2000})


def test_a_fold_without_time_for_a_step_has_failed(dataset_dir: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "iterations": None, "minutes": 1e-6}
    assert crossval(dataset_dir, tmp_path / "out", places=Places(workers=1), **options) == 1
    assert ["over before the first step" in row.reason for row in read_rows(tmp_path / "out")] == [True] * 3


def test_it_goes_on_and_refuses_other_options(folds: Path, dataset_dir: Path) -> None:
    before = (folds / "metrics.json").read_text()
    assert crossval(dataset_dir, folds, places=Places(workers=2), **OPTIONS) == 0
    assert (folds / "metrics.json").read_text() == before
    with pytest.raises(RequestError, match=r"3 cells changed \(fold_0: iterations was 12 and is 13 …\)"):
        crossval(dataset_dir, folds, **{**OPTIONS, "iterations": 13})


def test_cases_that_are_not_the_datasets_are_not_pooled(folds: Path, dataset_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folds, tmp_path / "copy")
    runs = {fold: f"cells/fold_{fold}" for fold in range(3)}
    with pytest.raises(RequestError, match="each once"):
        pool(copy, {**runs, 2: runs[1]}, Dataset.load(dataset_dir), trust=False)


def test_folds_that_were_scored_unlike_are_not_pooled(folds: Path, dataset_dir: Path, tmp_path: Path) -> None:
    runs, data = {fold: f"cells/fold_{fold}" for fold in range(3)}, Dataset.load(dataset_dir)
    copy = shutil.copytree(folds, tmp_path / "copy")
    file = copy / runs[1] / EVALUATED / "metrics.json"
    before = read_json(file)
    tuned = before["context"] | {"operating_points": {"ball": {"threshold": 0.2}}}
    write_json(file, before | {"context": tuned})
    with pytest.raises(
        RequestError, match=r"fold 1 was evaluated with operating_points .*0\.2.*, and fold 0 with none"
    ):
        pool(copy, runs, data, trust=False)
    write_json(file, before | {"conventions": before["conventions"] | {"lesion_dilation": 2}})
    with pytest.raises(RequestError, match="fold 1 was evaluated with lesion_dilation 2, and fold 0 with 0: evaluate"):
        pool(copy, runs, data, trust=False)
    earlier = {key: value for key, value in before["conventions"].items() if key != "panoptic_iou"}
    write_json(file, before | {"conventions": earlier})  # of a version that knew no panoptic quality
    assert pool(copy, runs, data, trust=False)["n_cases"] == 6
    write_json(file, before | {"cases": [row for row in before["cases"] if row["structure"] == "ball"]})
    with pytest.raises(RequestError, match=r"fold 1 was scored for other structures .*\(box\).*--section validation"):
        pool(copy, runs, data, trust=False)
    write_json(file, before)
    assert pool(copy, runs, data, trust=False)["n_cases"] == 6
    for run in runs.values():  # all of them anew by conventions of a --set: those are what the pooled figures have
        file = copy / run / EVALUATED / "metrics.json"
        told = read_json(file)
        write_json(file, told | {"conventions": told["conventions"] | {"empty": "nan", "tolerances_mm": [1.0, 2.0]}})
    stated = pool(copy, runs, data, trust=False)["conventions"]
    assert (stated["empty"], stated["tolerances_mm"]) == ("nan", [1.0, 2.0])


@pytest.mark.parametrize("members", [None, [], "cells", [3], ["../run"], ["/run"], ["cells/../../run"]])
def test_members_elsewhere_are_refused(tmp_path: Path, members: Any) -> None:
    write_json(tmp_path / "ensemble.json", {"members": members})
    with pytest.raises(RequestError, match="expected runs in that folder"):
        with_members([tmp_path])


def test_one_fold_and_a_fold_of_ones_own_are_refused(dataset_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(dataset_dir, tmp_path / "one")
    content = json.loads((copy / "dataset.json").read_text())
    content |= {"folds": 1, "root": str((dataset_dir / content["root"]).resolve())}
    content["training"] = [case | {"fold": 0} for case in content["training"]]
    (copy / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(RequestError, match="has one fold"):
        crossval(copy, tmp_path / "out")
    with pytest.raises(RequestError, match="leave out --set fold"):
        crossval(dataset_dir, tmp_path / "out", settings=["fold=1"])
    with pytest.raises(RequestError, match="batch_record#keep is false"):
        crossval(dataset_dir, tmp_path / "out", settings=["batch_record#keep=false"])


def test_scans_of_a_subject_at_several_times_stay_in_one_fold(tmp_path: Path) -> None:
    """Named as those of ``ms_lesions`` are: five subjects, one of them at three times."""
    task = write_task(tmp_path / "task", cases=7)
    names = ["ms_14_time1", "ms_14_time2", "ms_14_time3", "ms_1", "ms_2", "ms_3", "ms_4"]
    for number, name in enumerate(names):
        for kind in ("imagesTr", "labelsTr"):
            (task / kind / f"case_{number:02}.nii.gz").rename(task / kind / f"{name}.nii.gz")
    listed = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    content = json.loads((task / "dataset.json").read_text()) | {"training": listed}
    (task / "dataset.json").write_text(json.dumps(content))
    assert prepare(task, tmp_path / "dataset", holdout=0, folds=4, seed=0) == 0
    data = Dataset.load(tmp_path / "dataset")
    assert data.folds == 4
    assert len({case["fold"] for case in data.training if named_subject(case["case"]) == "ms_14"}) == 1


def test_a_subject_in_two_folds_is_said(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A subject is what the dataset says it is, and what the case's name says where it says nothing."""
    monkeypatch.setattr("rarevox.pipeline.study.crossval.named_subject", lambda case: "all")
    monkeypatch.setattr("rarevox.pipeline.study.study.run_jobs", lambda *_: [])
    monkeypatch.setattr("rarevox.pipeline.study.study.step_seconds", lambda shapes, threads: dict.fromkeys(shapes, 1.0))
    assert crossval(dataset_dir, tmp_path / "out", **OPTIONS) == 0
    assert "all lies in 3 folds" in capsys.readouterr().err
    copy = shutil.copytree(dataset_dir, tmp_path / "stated")
    content = json.loads((copy / "dataset.json").read_text())
    content["root"] = str((dataset_dir / content["root"]).resolve())
    for parted in (False, True):
        for number, case in enumerate(content["training"]):
            case["subject"] = "one" if parted else f"subject {number}"
        (copy / "dataset.json").write_text(json.dumps(content))
        assert crossval(copy, tmp_path / f"out_{parted}", **OPTIONS) == 0
        assert ("one lies in 3 folds" in capsys.readouterr().err) is parted
