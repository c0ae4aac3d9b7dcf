from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rarevox.pipeline import locks
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import LOCK_FILE
from rarevox.pipeline.locks import held

HOLD = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def other(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / LOCK_FILE)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_call_is_refused_in_one_sentence(
    tmp_path: Path, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(RequestError, match="another call is writing into --output"), held(tmp_path):
        pass
    assert (tmp_path / LOCK_FILE).exists()  # it is the other's


def test_the_lock_of_a_killed_call_is_taken_over(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / LOCK_FILE).exists()
    with held(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text() == str(os.getpid())
    assert not list(tmp_path.iterdir())


def test_two_calls_of_one_process_exclude_one_another_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.0)
    with held(tmp_path), pytest.raises(RequestError, match=rf"process {os.getpid()}\)"), held(tmp_path):
        pass
    with held(tmp_path):
        pass


def test_a_folder_that_goes_meanwhile_does_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with held(folder):
        folder.rename(tmp_path / "moved")
