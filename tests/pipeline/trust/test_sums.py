from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.trust import sums
from rarevox.pipeline.trust.sums import COMING_FILE, SUMS_FILE, forget_sums, keeping_sums, read_sums, write_sums
from rarevox.pipeline.trust.verify import compare


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name in (
        "configs/train.yaml",
        "configs/metadata.json",
        "models/model.pt",
        "models/last.pt",
        "logs/train.jsonl",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    write_sums(tmp_path)
    return tmp_path


def test_the_sums_are_of_configuration_and_weights(run: Path) -> None:
    """Not of checkpoints, which training goes on changing, nor of logs."""
    expected = {
        name: hashlib.sha256(name.encode()).hexdigest()
        for name in ("configs/metadata.json", "configs/train.yaml", "models/model.pt")
    }
    assert read_sums(run) == expected


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_sha256sum_checks_them(run: Path) -> None:
    def agrees() -> bool:
        return subprocess.run(["sha256sum", "-c", SUMS_FILE], cwd=run, capture_output=True).returncode == 0

    assert agrees()
    (run / "models" / "model.pt").write_text("other")
    assert not agrees()


def test_what_is_written_within_the_block_is_summed_anew(run: Path) -> None:
    with keeping_sums(run) as texts:
        texts["configs/train.yaml"] = "new"
    assert (run / "configs" / "train.yaml").read_text() == "new"
    assert read_sums(run)["configs/train.yaml"] == hashlib.sha256(b"new").hexdigest()


def test_what_was_changed_before_is_never_made_to_look_right(run: Path) -> None:
    before = read_sums(run)
    (run / "configs" / "train.yaml").write_text("changed by someone")
    with keeping_sums(run) as texts:
        texts["configs/train.yaml"] = "changed by someone, and written by us"
    assert read_sums(run) == before


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("written", [0, 1, 2])
def test_killed_midway_a_run_is_right_before_and_after_the_next_call(
    run: Path, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many of two files; the sums come last."""
    left = [1 + written]  # the file of what is coming is the first

    def write_or_die(path: Path, text: str) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        path.write_text(text)

    monkeypatch.setattr(sums, "write_text", write_or_die)
    monkeypatch.setattr(Path, "replace", _killed)
    with pytest.raises(KeyboardInterrupt), keeping_sums(run) as texts:
        texts.update({"configs/train.yaml": "new", "configs/metadata.json": "new too"})
    monkeypatch.undo()
    assert compare(run) == []
    with keeping_sums(run) as texts:
        texts.update({"configs/train.yaml": "new", "configs/metadata.json": "new too"})
    assert compare(run) == []
    assert (run / "configs" / "metadata.json").read_text() == "new too"
    assert not (run / COMING_FILE).exists()


def test_what_someone_changes_after_a_kill_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", _killed)
    monkeypatch.setattr(sums, "write_text", Path.write_text)
    with pytest.raises(KeyboardInterrupt), keeping_sums(run) as texts:
        texts["configs/train.yaml"] = "new"
    monkeypatch.undo()
    (run / "configs" / "train.yaml").write_text("by someone")
    assert compare(run) == ["configs/train.yaml is not what it was: its SHA-256 differs from sha256sums.txt"]


def test_a_run_without_sums_gets_none(run: Path) -> None:
    forget_sums(run)
    with keeping_sums(run) as texts:
        texts["configs/train.yaml"] = "new"
    assert (run / "configs" / "train.yaml").read_text() == "new"
    assert not (run / SUMS_FILE).exists()
    with pytest.raises(RequestError, match="carries no sha256sums.txt"):
        read_sums(run)


@pytest.mark.parametrize("line", ["x", "0" * 64 + "  ../up", "0" * 64 + "  /etc/passwd", "0" * 63 + "  a"])
def test_lines_of_another_form_are_refused(run: Path, line: str) -> None:
    (run / SUMS_FILE).write_text(line + "\n")
    with pytest.raises(RequestError, match="line 1"):
        read_sums(run)
