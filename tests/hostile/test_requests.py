"""What a request names as a whole and cannot be used: status 2 and one sentence, whatever it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.calls import call
from tests.hostile.home import write_good

CODE = "$__import__('pathlib').Path('canary').touch()"
DEEP = "[" * 5000 + "]" * 5000
Change = Callable[[Path], object]


def _text(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text)


def _changed(file: str, **changes: object) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text(encoding="utf-8")) | changes
        (folder / file).write_text(json.dumps(content))

    return change


def _pipe(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def _case(**changes: object) -> Change:
    """The first held-out case of a dataset, changed."""

    def change(folder: Path) -> None:
        content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        content["test"][0] |= changes
        (folder / "dataset.json").write_text(json.dumps(content))

    return change


SOURCES = {
    "deep": (_text("dataset.json", DEEP), "deeper than 64 levels"),
    "no JSON": (_text("dataset.json", "{"), "not valid JSON"),
    "a list": (_text("dataset.json", "[]"), 'has no "labels"'),
    "a number for a name": (_changed("dataset.json", name=3), "name"),
    "numbers for labels": (_changed("dataset.json", labels={"0": 1, "1": 2}), "expected a text"),
    "code for a label": (_changed("dataset.json", labels={"0": "background", "1": CODE}), "begins an expression"),
    "code for a channel": (_changed("dataset.json", modality={"0": CODE}), "begins an expression"),
    "numbers for files": (_changed("dataset.json", training=[{"image": 3, "label": 4}]), "a file or a list of files"),
    "cases that are none": (_changed("dataset.json", training=[3]), "must list"),
    "a pipe": (_pipe("dataset.json"), "cannot tell how|pipe"),
}
DATASETS = {
    "deep": (_text("dataset.json", DEEP), "deeper than 64 levels"),
    "a pipe": (_pipe("dataset.json"), "is not a prepared dataset"),
    "code for a label": (_changed("dataset.json", labels={"background": 0, CODE: 1}), "begins an expression"),
    "a case above": (_case(case="../../../victim"), "parts folders"),
    "a case without files": (_case(image=3), "the name of a file"),
    "code in the plan": (_text("plan.yaml", f"patch_size: {CODE}"), "plan"),
    "a deep plan": (_text("plan.yaml", "patch_size: " + DEEP), "plan.yaml"),
}


@pytest.mark.parametrize(("change", "says"), SOURCES.values(), ids=SOURCES)
def test_a_source_that_prepare_refuses(change: Change, says: str, task_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "home" / "source"
    source.mkdir(parents=True)
    shutil.copy(task_dir / "dataset.json", source)
    change(source)
    called = call(["prepare", source, "--output", tmp_path / "out"], tmp_path / "home", None)
    assert called.status == 2, called.said
    assert says in called.said or any(one in called.said for one in says.split("|"))


@pytest.mark.parametrize(("change", "says"), DATASETS.values(), ids=DATASETS)
def test_a_dataset_that_train_and_evaluate_refuse(
    change: Change, says: str, dataset_dir: Path, run_dir: Path, tmp_path: Path
) -> None:
    data = tmp_path / "home" / "data"
    data.mkdir(parents=True)
    for name in ("dataset.json", "fingerprint.json", "plan.yaml"):
        shutil.copy(dataset_dir / name, data)
    change(data)
    calls = [["train", data, "--output", tmp_path / "run", "--device", "cpu"]]
    if "plan" not in says:
        calls.append(["evaluate", run_dir, data, "--output", tmp_path / "evaluation", "--device", "cpu"])
    for arguments in calls:
        called = call(arguments, tmp_path / "home", None)
        assert called.status == 2, called.said
        assert says in called.said


def test_folders_and_options_that_are_refused(tmp_path: Path) -> None:
    home, odd = tmp_path / "home", os.fsdecode(b"sc\xffan")
    write_good(home / "ann", 0)
    write_good(home / "bob", 1)
    (home / "text.db").write_text("no database")
    os.mkfifo(home / "pipe")
    for arguments, says in (
        (["score", home / "pipe", home / "ann"], "is a named pipe"),
        (["score", home / "gone", home / "ann"], "does not exist"),
        (["score", home / odd, home / "ann"], "sc\\xffan does not exist"),
        (["score", home / "ann", home / "bob" / "label.nii.gz"], "a file and a folder"),
        (["agreement", home / "ann"], "at most"),
        (["agreement", home / "pipe", home / "ann"], "is not a folder"),
        (["agreement", home / "ann", home / "ann"], "given twice"),
        (["monitor", home / "text.db"], "no SQLite file"),
        (["monitor", home / "pipe"], "pipe"),
        (["monitor", home / "new.db", "--add", home / "ann"], "has no metrics.json"),
        (["monitor", home / "new.db", "--add", home / "ann", "--date", "tomorrow"], "is not an ISO date"),
        (["prepare", home / "pipe", "--output", home / "out"], "expected a folder of scans"),
        (["prepare", home, "--output", home / "out", "--images", "ann", "--labels", "gone"], "does not exist"),
    ):
        called = call(arguments, home, None)
        assert called.status == 2, (arguments, called.said)
        assert says in called.said, (arguments, called.said)
