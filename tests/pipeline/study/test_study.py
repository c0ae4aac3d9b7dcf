"""Studies that run: equal to trainings, sharded, extended, listed; and what is refused before anything runs."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.study.job import Job
from rarevox.pipeline.study.places import Places
from rarevox.pipeline.study.plan import read_plan
from rarevox.pipeline.study.rows import Row, read_rows
from rarevox.pipeline.study.study import study
from rarevox.pipeline.training.train import train
from tests import forked
from tests.pipeline.study.conftest import TINY, write_study

ONE = Places(workers=1)
DEEPMEDIC = {
    "_target_": "rarevox.networks.DeepMedic",
    "in_channels": "@in_channels",
    "out_channels": "@out_channels",
}
CELLS = ["gdl_1e-3", "gdl_1e-2", "ss_1e-3", "ss_1e-2"]


def figures(folder: Path) -> list[dict[str, Any]]:
    return [row.same_figures() for row in read_rows(folder)]


def test_rows_are_in_the_plans_order_and_hold_what_was_recorded(tiny_study: tuple[Path, Path]) -> None:
    _, folder = tiny_study
    rows = read_rows(folder)
    assert [row.cell for row in rows] == CELLS == [cell.name for cell in read_plan(folder).cells]
    for row in rows:
        assert row.state == "done" and row.iterations == 6 and row.last == 4
        assert row.patch_size == row.effective_patch == (8, 8, 8) and row.batch_size == 1
        record = np.load(folder / "cells" / row.cell / "iterations.npz")
        dice = np.nanmean(record["dice"], axis=1)[-4:]
        assert row.train_dice.median == pytest.approx(float(np.nanmedian(dice)), abs=1e-15)
        share = record["foreground_share"]
        assert share.shape == (6, 1) and row.foreground_share.median == np.median(share) > 0
        assert row.test is not None and {case.structure for case in row.test.cases} == {"ball", "box"}
        assert len(row.test.cases) == 4
        assert set(row.seconds) == {"start", "steps", "evaluation"} and min(row.seconds.values()) >= 0
    with (folder / "cells.csv").open() as handle:
        table = list(csv.DictReader(handle))
    assert [line["lr"] for line in table] == ["1e-3", "1e-2", "1e-3", "1e-2"]
    assert [float(line["train_dice"]) for line in table] == [row.train_dice.median for row in rows]


def test_a_cell_is_the_run_that_train_makes_bit_for_bit(
    tiny_study: tuple[Path, Path], dataset_dir: Path, tmp_path: Path, one_thread: None
) -> None:
    """Weights of two cells of kept processes, and Dice of held-out cases as ``rarevox evaluate`` has it."""
    _, folder = tiny_study
    settings = [f"{key}={value}" for key, value in TINY["base"].items() if key != "iterations"]
    for name in ("gdl_1e-2", "ss_1e-3"):
        loss, rate = name.split("_")
        run, more = tmp_path / name, (f"optimizer#lr={rate}", "validation_cases=0")
        assert train(dataset_dir, run, loss=loss, settings=[*settings, *more], iterations=6, device="cpu") == 0
        weights = [torch.load(one / "models" / "model.pt") for one in (run, folder / "cells" / name)]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    evaluate(run, dataset_dir, device="cpu")
    result = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    row = next(row for row in read_rows(folder) if row.cell == name)
    assert row.test is not None and row.test.mean_dice == result["mean_dice"]


def test_a_second_call_does_nothing_twice(
    tiny_study: tuple[Path, Path], dataset_dir: Path, no_engine: list[list[Job]]
) -> None:
    file, folder = tiny_study
    before = figures(folder)
    assert study(file, dataset_dir, folder, device="cpu") == 0
    assert no_engine == [[]]
    assert figures(folder) == before


def test_shards_that_begin_at_once_give_the_same_rows(
    tiny_study: tuple[Path, Path], dataset_dir: Path, tmp_path: Path
) -> None:
    """Two jobs of an array into a new folder, each with one process: one plans, and the rows are those of the whole."""
    file, whole = tiny_study
    output = tmp_path / "parts"
    words = ["study", str(file), str(dataset_dir), "--output", str(output), "--workers", "1", "--device", "cpu"]
    code = "from rarevox.pipeline.cli import main; import sys; main(sys.argv[1:])"
    jobs = [forked.Forked(["-c", code, *words, "--shard", f"{number}/2"]) for number in (1, 2)]
    ended = [job.wait(timeout=600) for job in jobs]
    assert [job.returncode for job in ended] == [0, 0], [job.stderr for job in ended]
    assert all("2 of 4 cells to run" in job.stderr for job in ended)
    assert figures(output) == figures(whole)
    assert not list(output.glob("cells/*/models"))  # weights are kept on request
    assert sum(file.stat().st_size for file in (output / "cells" / CELLS[0]).rglob("*")) < 150_000


def test_a_choice_of_cells_leaves_the_others_waiting(
    dataset_dir: Path, tmp_path: Path, no_engine: list[list[Job]]
) -> None:
    assert study(write_study(tmp_path), dataset_dir, tmp_path / "out", cells="^gdl_1e-2$", device="cpu") == 0
    assert [job.cell.name for job in no_engine[0]] == ["gdl_1e-2"]
    assert study(write_study(tmp_path), dataset_dir, tmp_path / "out", cells="1e-2", shard="2/2", device="cpu") == 0
    assert [job.cell.name for job in no_engine[1]] == ["ss_1e-2"]


def test_a_cell_that_fails_is_a_row_and_the_rest_is_done(dataset_dir: Path, tmp_path: Path) -> None:
    """A negative rate passes the plan, which looks at numbers once, and fails when the optimiser is built."""
    axes = {"lr": {"key": "optimizer#lr", "values": [0.01, -1.0]}, "loss": ["gdl"]}
    file, output = write_study(tmp_path, axes=axes), tmp_path / "out"
    assert study(file, dataset_dir, output, places=ONE, device="cpu") == 1
    done, bad = read_rows(output)
    assert done.state == "done" and bad.state == "failed" and "-1.0" in bad.reason
    assert math.isnan(bad.train_dice.median) and bad.labels == {"lr": "-1", "loss": "gdl"}
    (output / "cells" / bad.cell / "cell.json").write_text(json.dumps(bad.to_json() | {"reason": "power"}))
    assert study(file, dataset_dir, output, places=ONE, device="cpu") == 1
    assert read_rows(output)[1].reason == "power"
    assert study(file, dataset_dir, output, places=ONE, device="cpu", cells=f"^{done.cell}$") == 0
    assert study(file, dataset_dir, output, places=ONE, device="cpu", retry=True) == 1
    assert "-1.0" in read_rows(output)[1].reason


def test_the_list_shows_states_and_runs_nothing(
    tiny_study: tuple[Path, Path], dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tiny_study
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "cells" / "gdl_1e-2" / "cell.json").unlink()
    shutil.rmtree(copy / "cells" / "ss_1e-2")
    failed = Row("ss_1e-3", {"loss": "ss", "lr": "1e-3"}, "failed", "[red]no memory")
    (copy / "cells" / "ss_1e-3" / "cell.json").write_text(json.dumps(failed.to_json()))
    assert study(file, dataset_dir, copy, list_only=True, device="cpu") == 0
    said = capsys.readouterr().err
    states = [line.split("│")[2].strip() for line in said.splitlines() if line.startswith("│")]
    assert states == ["done", "begun", "failed", "waiting"]
    assert "[red]no memory" in said
    assert study(file, dataset_dir, tmp_path / "none", list_only=True, device="cpu") == 0
    assert not (tmp_path / "none").exists()


def test_a_changed_file_is_refused_and_extended_by_word(
    dataset_dir: Path, tmp_path: Path, no_engine: list[list[Job]]
) -> None:
    output = tmp_path / "out"
    study(write_study(tmp_path), dataset_dir, output, device="cpu")
    planned = (output / "plan.json").read_text()
    with pytest.raises(RequestError, match=r"4 cells changed \(gdl_1e-3: epoch_length was .* and is 3 …\)"):
        study(write_study(tmp_path, base={"epoch_length": 3}), dataset_dir, output, device="cpu", extend=True)
    with pytest.raises(RequestError, match="last was 4 and is 5"):
        study(write_study(tmp_path, record={"last": 5}), dataset_dir, output, device="cpu", extend=True)
    with pytest.raises(RequestError, match="2 cells gone"):
        study(write_study(tmp_path, axes={**TINY["axes"], "loss": ["gdl"]}), dataset_dir, output, device="cpu")
    with pytest.raises(RequestError, match="begun with --device cpu"):
        study(write_study(tmp_path), dataset_dir, output)
    more = write_study(tmp_path, axes={**TINY["axes"], "loss": ["gdl", "ss", "dl2"]})
    with pytest.raises(RequestError, match=r"2 cells new \(dl2_1e-3 …\); .*add the new cells with --extend"):
        study(more, dataset_dir, output, device="cpu")
    assert (output / "plan.json").read_text() == planned
    study(more, dataset_dir, output, device="cpu", extend=True)
    assert [cell.name for cell in read_plan(output).cells] == [*CELLS, "dl2_1e-3", "dl2_1e-2"]
    assert len(no_engine[-1]) == 6
    study(
        write_study(tmp_path, layout={"rows": ["lr"]}, axes={**TINY["axes"], "loss": ["gdl", "ss", "dl2"]}),
        dataset_dir,
        output,
        device="cpu",
    )
    assert read_plan(output).layout == {"rows": ["lr"]}


def test_other_data_are_refused(dataset_dir: Path, tmp_path: Path, no_engine: list[list[Job]]) -> None:
    study(write_study(tmp_path), dataset_dir, tmp_path / "out", device="cpu")
    other = shutil.copytree(dataset_dir, tmp_path / "other")
    content = json.loads((other / "dataset.json").read_text())
    content |= {"fingerprint": "0" * 64, "root": str((dataset_dir / content["root"]).resolve())}
    (other / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(RequestError, match="holds other data"):
        study(write_study(tmp_path), other, tmp_path / "out", device="cpu")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"axes": {"patch": {"S": {"patch_size": [9, 9, 9]}, "M": {"network_def": DEEPMEDIC}}}},
            r"the cell patch M: patch_size .*nearest sizes that work: 51 x 51 x 51",
        ),
        ({"axes": {"lr": {"key": "optimizer#lrr", "values": [1, 2]}}}, "did you mean 'lr'"),
        ({"axes": {"loss": ["gdl", "gld"]}}, "loss gld: .*did you mean 'gdl'"),
        ({"axes": {"network": ["highresnet", "higresnet"]}}, "did you mean 'highresnet'"),
        ({"axes": {"seed": [0, 1], "config": ["papr"]}}, "did you mean 'paper'"),
        ({"structures": ["bal"]}, "no structure 'bal': did you mean 'ball'"),
        ({"axes": {"dataset": ["nowhere"]}}, "not a prepared dataset"),
        ({"base": {"fold": 7}}, "fold"),
        ({"base": {"settings": {"augmentation": {"_target_": "os.system"}}}}, "--trust"),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(
    dataset_dir: Path, tmp_path: Path, no_engine: list[list[Job]], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        study(write_study(tmp_path, **changes), dataset_dir, tmp_path / "out", device="cpu")
    assert not no_engine and not (tmp_path / "out" / "plan.json").exists()
    study(write_study(tmp_path), dataset_dir, tmp_path / "out", device="cpu")  # the folder is as good as new


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cells": "("}, "no regular expression"),
        ({"cells": "nothing"}, "found in no cell"),
        ({"shard": "0/2"}, "expected i/n"),
        ({"shard": "3/2"}, "expected i/n"),
        ({"shard": "half"}, "expected i/n"),
    ],
)
def test_choices_that_choose_nothing_are_refused(
    dataset_dir: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        study(write_study(tmp_path), dataset_dir, tmp_path / "out", device="cpu", **options)


def test_one_value_is_said_to_compare_nothing(
    dataset_dir: Path, tmp_path: Path, no_engine: list[list[Job]], capsys: pytest.CaptureFixture[str]
) -> None:
    study(write_study(tmp_path, axes={"loss": ["gdl"], "seed": [0, 1]}), dataset_dir, tmp_path / "out", device="cpu")
    said = capsys.readouterr().err
    assert "axis loss has one value, gdl" in said and "axis seed" not in said
    assert "2 of 2 cells to run" in said and "about 1 min by steps timed here" in said


def test_a_folder_of_something_else_is_left_alone(dataset_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(RequestError, match="already holds other files"):
        study(write_study(tmp_path), dataset_dir, tmp_path / "out", device="cpu")
