from __future__ import annotations

import pytest

from rarevox.pipeline.inference.calls import crew
from rarevox.pipeline.inference.calls.crew import Crew


@pytest.mark.parametrize(
    ("workers", "scans", "threads"), [(0, 9, 0), (1, 9, 0), (4, 9, 4), (8, 2, 8), (8, 1, 0), (32, 99, 1)]
)
def test_cores_are_shared_out_among_the_workers_that_begin(
    workers: int, scans: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 16 cores; 0 leaves all of them to PyTorch."""
    monkeypatch.setattr(crew, "cores", lambda: 16)
    assert Crew(workers).threads(scans) == threads


def test_an_actor_has_the_threads_that_are_set_aside_for_it() -> None:
    assert Crew(4, engine="ray").threads(9) == 1
    assert Crew(4, engine="ray", cpus=3.0).threads(1) == 3
