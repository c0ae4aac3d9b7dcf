"""Studies that go on: how long they will take, and configuration files that say something else since."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.study.job import Job
from rarevox.pipeline.study.places import Places
from rarevox.pipeline.study.rows import Row, read_rows
from rarevox.pipeline.study.study import study
from tests.pipeline.study.conftest import write_study

ONE = Places(workers=1)


def test_who_goes_on_is_told_how_long_by_the_cells_that_are_done(
    tiny_study: tuple[Path, Path],
    dataset_dir: Path,
    tmp_path: Path,
    no_engine: list[list[Job]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two cells of 600 and 1800 s are done, one has failed, one waits: by their mean, one cell takes 20 minutes.

    With the failed one to be tried again, two take 40, on two processes 20 each.
    """
    file, whole = tiny_study
    folder = shutil.copytree(whole, tmp_path / "part", ignore=shutil.ignore_patterns("models"))
    done = {row.cell: row for row in read_rows(folder)}
    for name, seconds in (("gdl_1e-3", 600.0), ("gdl_1e-2", 1800.0)):
        row = replace(done[name], seconds={"steps": seconds})
        (folder / "cells" / name / "cell.json").write_text(json.dumps(row.to_json()))
    failed = Row("ss_1e-3", done["ss_1e-3"].labels, "failed", "power")
    (folder / "cells" / "ss_1e-3" / "cell.json").write_text(json.dumps(failed.to_json()))
    shutil.rmtree(folder / "cells" / "ss_1e-2")
    for retry, workers, said in ((False, 1, "1 of 4 cells to run, 1 at once, 1 thread each: about 20 min"),
                                 (True, 1, "2 of 4 cells to run, 1 at once, 1 thread each: about 40 min"),
                                 (True, 2, "2 of 4 cells to run, 2 at once, 1 thread each: about 20 min")):  # fmt: skip
        assert study(file, dataset_dir, folder, places=Places(workers=workers), device="cpu", retry=retry) == 1
        assert f"{said} by the cells that are done" in " ".join(capsys.readouterr().err.split())


def test_who_goes_on_before_any_cell_is_done_is_told_how_long_too(
    dataset_dir: Path, tmp_path: Path, no_engine: list[list[Job]], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        study(write_study(tmp_path), dataset_dir, tmp_path / "out", places=ONE, device="cpu")
        said = " ".join(capsys.readouterr().err.split())
        assert "4 of 4 cells to run, 1 at once, 1 thread each: about 1 min by steps timed here" in said


def test_a_configuration_file_that_says_something_else_is_refused(
    dataset_dir: Path, tmp_path: Path, no_engine: list[list[Job]]
) -> None:
    """Its name stands in the cells and not what it says. A study of earlier versions, which kept no sum of it, goes on
    and keeps it from then on."""
    output, mine = tmp_path / "out", tmp_path / "mine.yaml"
    file = write_study(tmp_path, base={"config": ["mine.yaml"]})

    def go_on(text: str) -> None:
        mine.write_text(text)
        study(file, dataset_dir, output, device="cpu")

    go_on("epoch_length: 2\nseed: 1\n")
    go_on("# the same\nseed: 1\nepoch_length: 2\n")
    with pytest.raises(RequestError, match=r"mine\.yaml says something else.*give another --output"):
        go_on("epoch_length: 2\nseed: 2\n")
    content = json.loads((output / "plan.json").read_text())
    (output / "plan.json").write_text(json.dumps({key: value for key, value in content.items() if key != "files"}))
    go_on("epoch_length: 2\nseed: 2\n")
    assert len(no_engine) == 3
    with pytest.raises(RequestError, match="says something else"):
        go_on("epoch_length: 2\nseed: 1\n")
    mine.unlink()
    with pytest.raises(RequestError, match=r"mine\.yaml"):
        study(file, dataset_dir, output, device="cpu")
