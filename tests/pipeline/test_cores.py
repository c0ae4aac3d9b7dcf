from __future__ import annotations

import os
from pathlib import Path

import pytest

from rarevox.pipeline import cores as module


@pytest.mark.parametrize(
    ("limit", "found"),
    [("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("max 100000", 16), ("", 16), (None, 16)],
)
def test_a_limit_of_the_container_counts(
    limit: str | None, found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a machine of 16 cores."""
    file = tmp_path / "cpu.max"
    if limit is not None:
        file.write_text(limit + "\n")
    monkeypatch.setattr(module, "_LIMIT", file)
    monkeypatch.setattr(module, "_seen", lambda: 16)
    assert module.cores() == found
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # to be put back
    monkeypatch.delenv("OMP_NUM_THREADS")
    module.share_threads()
    assert os.environ.get("OMP_NUM_THREADS") == (str(found) if found < 16 else None)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    module.share_threads()
    assert os.environ["OMP_NUM_THREADS"] == "7"
