"""Runs, datasets and plans with code in them: nothing of it runs, and the sentence says where it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rarevox.pipeline.compose import compose, derive, write_yaml
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.calibrate import calibrate
from rarevox.pipeline.evaluation.evaluate import evaluate
from rarevox.pipeline.evaluation.tune import tune_post_processing
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.inference.segment import Segmenter
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.training.train import train
from rarevox.pipeline.trust.sums import SUMS_FILE
from rarevox.pipeline.trust.verify import verify
from tests.conftest import SMALL, write_task

STAGES = ("train", "evaluate", "inference")


class Planted:
    """Ways to make a folder that must never be there."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "planted"

    @property
    def expression(self) -> str:
        return f"$__import__('os').makedirs({str(self.path)!r}, exist_ok=True) or 1"

    @property
    def target(self) -> dict[str, Any]:
        return {"_target_": "os.makedirs", "name": str(self.path), "exist_ok": True}

    def ran(self) -> bool:
        return self.path.exists()


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path)


@pytest.fixture
def own_run(run_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_dir, tmp_path / "run"))


def change(run: Path, stage: str, **entries: object) -> None:
    path = run / "configs" / f"{stage}.yaml"
    path.write_text(write_yaml(yaml.safe_load(path.read_text()) | entries))


def scan(task_dir: Path) -> Path:
    return task_dir / "imagesTr" / "case_00.nii.gz"


Command = Callable[[Path, Path, Path, Path], int]
COMMANDS: dict[str, Command] = {
    "predict": lambda run, data, task, out: predict(run, [scan(task)], out, device="cpu"),
    "evaluate": lambda run, data, task, out: evaluate(run, data, output=out, device="cpu"),
    "calibrate": lambda run, data, task, out: calibrate(run, data, device="cpu"),
    "tune": lambda run, data, task, out: tune_post_processing(run, data, device="cpu"),
    "resume": lambda run, data, task, out: train(data, run, resume=True, device="cpu"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_code_in_a_run_is_refused_and_never_runs(
    command: str, own_run: Path, dataset_dir: Path, task_dir: Path, planted: Planted, tmp_path: Path
) -> None:
    for entries in ({"seed": planted.expression}, {"temperature": planted.target}, {"imports": ["$import os"]}):
        for stage in STAGES:
            shutil.copy(own_run / "configs" / f"{stage}.yaml", tmp_path / f"{stage}.yaml")
            change(own_run, stage, **entries)
        with pytest.raises(RequestError, match=f"{next(iter(entries))}.*--trust"):
            COMMANDS[command](own_run, dataset_dir, task_dir, tmp_path / "out")
        assert not planted.ran()
        for stage in STAGES:
            shutil.copy(tmp_path / f"{stage}.yaml", own_run / "configs" / f"{stage}.yaml")


def test_another_run_of_an_ensemble_passes_the_same_gate(
    run_dir: Path, own_run: Path, task_dir: Path, planted: Planted, tmp_path: Path
) -> None:
    change(own_run, "inference", seed=planted.expression)
    with pytest.raises(RequestError, match="seed"):
        predict(run_dir, [scan(task_dir)], tmp_path / "out", device="cpu", others=[own_run])
    assert not planted.ran()


def test_trust_is_what_it_says(own_run: Path, task_dir: Path, planted: Planted, tmp_path: Path) -> None:
    """The planted side effect is one: with --trust it happens."""
    change(own_run, "inference", temperature=planted.expression)
    assert predict(own_run, [scan(task_dir)], tmp_path / "out", device="cpu", trust=True) == 0
    assert planted.ran()


def test_weights_are_tensors_only(own_run: Path, task_dir: Path, planted: Planted, tmp_path: Path) -> None:
    class Strange:
        def __reduce__(self) -> Any:
            return os.makedirs, (str(planted.path),)

    torch.save({"a": Strange()}, own_run / "models" / "model.pt")
    with pytest.raises(RequestError, match="not a readable checkpoint"):
        predict(own_run, [scan(task_dir)], tmp_path / "out", device="cpu")
    assert not planted.ran()


def test_users_own_words_train_and_need_trust_afterwards(
    dataset_dir: Path, task_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    own = 'preprocessing#transforms#1={_target_: Lambdad, keys: image, func: "$lambda x: x"}'
    assert train(dataset_dir, run, settings=[*SMALL, own], iterations=1, device="cpu") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "predict, evaluate and train --resume will need --trust for this run" in said and "Lambdad" in said
    with pytest.raises(RequestError, match="Lambdad"):
        predict(run, [scan(task_dir)], tmp_path / "out", device="cpu")
    assert predict(run, [scan(task_dir)], tmp_path / "out", device="cpu", trust=True) == 0


def test_a_training_ends_with_sums_that_hold(run_dir: Path, own_run: Path) -> None:
    assert (run_dir / SUMS_FILE).is_file() and verify(own_run) == 0
    change(own_run, "inference", seed=3)
    assert verify(own_run) == 1


@pytest.mark.parametrize("name", ["$__import__('os').getpid()", "a#b", "a@seed", "%x", "a::b"])
def test_a_run_may_lie_in_any_folder(
    name: str, run_dir: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given relatively, as it is typed: a folder is a folder, whatever MONAI would read in its name."""
    shutil.copytree(run_dir, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert predict(name, [scan(task_dir)], tmp_path / "out", device="cpu") == 0


def test_a_training_may_read_and_write_in_any_folder(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(dataset_dir, tmp_path / "$d#1")
    monkeypatch.chdir(tmp_path)
    assert train("$d#1", "r@1#2::3", settings=[*SMALL, "cache=disk"], iterations=1, device="cpu") == 0
    assert (tmp_path / "r@1#2::3" / "models" / "model.pt").is_file()
    assert train("$d#1", "r@1#2::3", iterations=2, device="cpu", resume=True) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"$d#1", "r@1#2::3"}


@pytest.mark.parametrize(("key", "value"), [("labels", {"0": "background", "1": "{}"}), ("modality", {"0": "{}"})])
def test_code_in_a_name_is_refused_where_a_source_is_prepared(
    key: str, value: dict[str, str], planted: Planted, tmp_path: Path
) -> None:
    task = write_task(tmp_path / "task", cases=2)
    file = task / "dataset.json"
    named = {number: name.format(planted.expression) for number, name in value.items()}
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: named}))
    with pytest.raises(RequestError, match=r"dataset\.json.*holds '\$'"):
        prepare(task, tmp_path / "out")
    assert not planted.ran()


@pytest.fixture
def own_dataset(dataset_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset_dir, tmp_path / "data"))


def rewrite(dataset: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    file = dataset / "dataset.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("key", ["labels", "channels", "name", "composites"])
def test_code_in_a_name_is_refused_where_a_dataset_is_loaded(
    key: str, own_dataset: Path, run_dir: Path, planted: Planted, tmp_path: Path
) -> None:
    values = {"labels": {"background": 0, planted.expression: 1, "box": 2}, "channels": [planted.expression]}
    values |= {"name": planted.expression, "composites": {planted.expression: [1, 2]}}
    rewrite(own_dataset, lambda content: content.update({key: values[key]}))
    for command in (lambda: train(own_dataset, tmp_path / "r"), lambda: evaluate(run_dir, own_dataset)):
        with pytest.raises(RequestError, match=r"dataset\.json.*holds '\$'"):
            command()
    assert not planted.ran()


@pytest.mark.parametrize("plan", ["batch_size", "normalisation", "normalisation#_target_"])
def test_code_in_a_plan_never_runs(plan: str, own_dataset: Path, planted: Planted, tmp_path: Path) -> None:
    value = planted.expression if plan == "batch_size" else planted.target
    value = value["_target_"] if plan.endswith("_target_") and isinstance(value, dict) else value
    (own_dataset / "plan.yaml").write_text(yaml.safe_dump({plan: value}))
    with pytest.raises(RequestError, match=r"plan\.yaml"):
        train(own_dataset, tmp_path / "run", iterations=1, device="cpu")
    assert not planted.ran()


@pytest.mark.parametrize("case", ["../../../victim", "/tmp/victim", "a/b", "..", "$x"])
def test_a_cases_name_leads_nowhere(case: str, own_dataset: Path, run_dir: Path, tmp_path: Path) -> None:
    rewrite(own_dataset, lambda content: content["test"][0].update(case=case))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(RequestError, match=r'"test"\[0\] in .*dataset\.json'):
        evaluate(run_dir, own_dataset, output=tmp_path / "a" / "b" / "c" / "out", device="cpu")
    assert set(tmp_path.rglob("*")) == before


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a configuration."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


TEMPLATE = derive("inference", compose("train", settings=list(SMALL)).config)
PLACES = [place for place in places(TEMPLATE) if place]
KEYS = st.sampled_from(
    ["_target_", "_mode_", "_requires_", "_disabled_", "_debug_", "x", "imports", "network::x", "a#b"]
)


@settings(max_examples=150)
@given(st.sampled_from(PLACES), st.integers(0, 4), KEYS, st.booleans(), st.sampled_from(["", " ", "@seed", "%seed"]))
def test_whatever_is_injected_wherever_nothing_of_it_runs(
    own_injected: Path, planted_once: Planted, place: tuple[Any, ...], how: int, key: str, built: bool, before: str
) -> None:
    """A value replaced, an entry added, a list lengthened, by an expression or by what is to be built."""
    evil: Any = planted_once.target if built else before + planted_once.expression
    config = yaml.safe_load(write_yaml(TEMPLATE))
    inner: Any = config
    for step in place[:-1]:
        inner = inner[step]
    last = place[-1]
    if how == 0 or not isinstance(inner[last], (dict, list)):
        inner[last] = evil
    elif isinstance(inner[last], list):
        inner[last].insert(how % 2, evil)
    elif key == "_target_":
        inner[last].clear()
        inner[last].update(planted_once.target)
    else:
        inner[last][key] = [evil] if how == 4 else evil
    (own_injected / "configs" / "inference.yaml").write_text(write_yaml(config))
    try:
        Segmenter(own_injected, device="cpu")
    except RequestError as error:
        assert "\n" not in str(error)
    assert not planted_once.ran()


@pytest.fixture(scope="module")
def own_injected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with weights that fit the template's configuration."""
    from rarevox.pipeline.build import build
    from rarevox.pipeline.training.kept.checkpoint import save_weights

    run = tmp_path_factory.mktemp("injected")
    for folder in ("configs", "models"):
        (run / folder).mkdir()
    save_weights(build(TEMPLATE, "network_def"), run / "models" / "model.pt")
    return run


@pytest.fixture(scope="module")
def planted_once(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return Planted(tmp_path_factory.mktemp("planted"))
