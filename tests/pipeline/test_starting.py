from __future__ import annotations

import gc
import getpass
import os
import subprocess
import sys

import pytest

from rarevox.pipeline.starting import importing, name_the_user

PROGRAM = """
import atexit, sys, threading, time
from rarevox.pipeline.starting import leaving_at_once

class Slow:
    def __del__(self):
        print("taken apart")

leave = leaving_at_once()
atexit.register(print, "registered later")
threading.Thread(target=lambda: (time.sleep(0.1), print("thread done"))).start()
held = [Slow()]
held.append(held)
print("unflushed", end=" ")
if {told}:
    leave(3)
sys.exit({status})
"""


@pytest.mark.parametrize("told", [True, False])
def test_a_program_that_leaves_at_once_does_all_that_was_asked_of_its_end(told: bool) -> None:
    """Threads end, what others registered is done, and what was printed comes out; only objects stay as they are."""
    code = PROGRAM.format(told=told, status=3 if told else 4)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = ["unflushed thread done", "registered later", *([] if told else ["taken apart"])]
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (said, "", 3 if told else 4)


def test_the_collector_is_as_before_after_an_import_that_fails() -> None:
    def failing() -> None:
        with importing():
            assert not gc.isenabled()
            raise ImportError

    with pytest.raises(ImportError):
        failing()
    assert gc.isenabled()
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_user_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user is a number that no file there knows."""
    pwd = pytest.importorskip("pwd")
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    monkeypatch.setenv("LOGNAME", "")  # so that what is set is taken back
    name_the_user()
    assert getpass.getuser() == f"user{os.getuid()}"
