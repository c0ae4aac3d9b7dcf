"""A study of four cells that take a second each, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rarevox.pipeline.study.job import Job
from rarevox.pipeline.study.places import Places
from rarevox.pipeline.study.study import study

TINY: dict[str, Any] = {
    "name": "tiny",
    "base": {
        "iterations": 6,
        "network_def#width": 2,
        "patch_size": [8, 8, 8],
        "batch_size": 1,
        "precision#name": "float32",
        "checkpoint#minutes": 0,
        "epoch_length": 2,
    },
    "axes": {"loss": ["gdl", "ss"], "lr": {"key": "optimizer#lr", "values": ["1e-3", "1e-2"]}},
    "record": {"last": 4},
}


def write_study(folder: Path, **changes: Any) -> Path:
    """The file of the study, with some of its entries replaced; those of ``base`` one by one."""
    content = {**TINY, **changes, "base": {**TINY["base"], **changes.get("base", {})}}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture(autouse=True)
def no_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports take seconds and have their own tests; a test that is about them asks for the fixture ``with_report``."""
    if "with_report" not in request.fixturenames:
        monkeypatch.setattr("rarevox.pipeline.study.study.tell_report", lambda folder: 0)


@pytest.fixture
def with_report() -> None:
    """The study writes its report."""


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> list[list[Job]]:
    """No cell runs; the jobs that would be."""
    asked: list[list[Job]] = []

    def run(jobs: list[Job], *_: object) -> list[Any]:
        asked.append(list(jobs))
        return []

    monkeypatch.setattr("rarevox.pipeline.study.study.run_jobs", run)
    monkeypatch.setattr("rarevox.pipeline.study.study.step_seconds", lambda shapes, threads: dict.fromkeys(shapes, 1.0))
    return asked


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the cells of the study have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_study(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The file and the folder of a study that two workers have run, weights kept."""
    folder = tmp_path_factory.mktemp("study")
    file = write_study(folder)
    assert study(file, dataset_dir, folder / "whole", places=Places(workers=2), keep_weights=True, device="cpu") == 0
    return file, folder / "whole"
