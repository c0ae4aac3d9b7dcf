"""What a request names is looked at before the libraries are imported: a mistake is told at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rarevox.pipeline.cli import main
from rarevox.pipeline.commands.beforehand import (
    require_begun,
    require_dataset,
    require_overlays,
    require_runs,
    require_there,
)
from rarevox.pipeline.errors import RequestError

MISTAKES = """
import sys
from rarevox.pipeline.cli import main

dataset, none = sys.argv[1:]
requests = (
    ("prepare", none, "--output", none),
    ("train", none, "--output", none),
    ("train", dataset, "--output", none, "--network", "highresent"),
    ("train", dataset, "--output", none, "--resume"),
    ("crossval", dataset, "--output", none, "--loss", "dise"),
    ("evaluate", dataset, dataset),
    ("predict", dataset, dataset, "--output", none),
    *((name, dataset, dataset) for name in ("calibrate", "tune-threshold", "tune-postprocessing")),
    ("serve", none),
    ("export", none, "--output", none),
    ("study", dataset),
)
for request in requests:
    try:
        main(request)
    except SystemExit as ended:
        assert ended.code == 2, request
    assert not {"torch", "monai"} & set(sys.modules), request
print("looked at", len(requests))
"""


def test_a_mistake_is_told_without_waiting_for_the_libraries(dataset_dir: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISTAKES, str(dataset_dir), str(tmp_path / "none")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["looked", "at", "13"]
    told = [line for line in done.stderr.splitlines() if line.startswith(("rarevox: ", "Error: "))]
    assert len(told) == 13
    assert not (tmp_path / "none").exists()


def test_what_is_meant_passes(dataset_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    require_dataset(dataset_dir)
    require_overlays("deepmedic", "gdl")
    require_overlays(None, None)
    (tmp_path / "ensemble.json").write_text("{}")
    require_runs([run_dir, tmp_path], "inference")
    require_there([tmp_path], "a folder")


def test_what_is_no_run_is_told_by_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no training has begun in .*leave out --resume"):
        require_begun(tmp_path)
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "cells" / "fold_0" / "configs").mkdir(parents=True)
    for require in (require_begun, lambda folder: require_runs([folder], "evaluate")):
        with pytest.raises(RequestError, match="a run is wanted; give one of its own, such as .*fold_0"):
            require(tmp_path)


def test_an_option_of_another_aim_is_refused(
    dataset_dir: Path, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["tune-threshold", str(run_dir), str(dataset_dir), "--false-lesions", "2"])
    assert "--aim is dice; add --aim recall" in " ".join(capsys.readouterr().err.split())


def test_what_is_not_there_is_named_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nothing does not exist; give a folder of scans"):
        require_there([tmp_path / "nothing"], "a folder of scans")
    with pytest.raises(RequestError, match="did you mean 'deepmedic'"):
        require_overlays("depmedic", None)
