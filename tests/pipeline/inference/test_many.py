"""One cohort, many workers and calls: each scan once, whatever ends on the way, and the same maps as of one process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rarevox.pipeline.cli import cli
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import LOCK_FILE
from rarevox.pipeline.inference import predict as module
from rarevox.pipeline.inference.calls import crew, working
from rarevox.pipeline.inference.calls.prediction import Prediction
from rarevox.pipeline.inference.predict import predict
from tests import forked
from tests.pipeline.inference.ill_fated import IllFated


def rows(out: Path) -> dict[str, dict[str, Any]]:
    listed = json.loads((out / "predictions.json").read_text(encoding="utf-8"))["scans"]
    found = {row["case"]: row for row in listed}
    assert len(found) == len(listed), "every case once"
    return found


def copies(task_dir: Path, folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        shutil.copy(task_dir / "imagesTr" / f"case_{number % 4:02}.nii.gz", folder / f"{name}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def alone(run_dir: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    """The map of each of the four volumes, by one process."""
    base = tmp_path_factory.mktemp("alone")
    copies(task_dir, base / "scans", list("0123"))
    assert predict(run_dir, [base / "scans"], base / "out", device="cpu") == 0
    return {number: (base / "out" / f"{number}_seg.nii.gz").read_bytes() for number in range(4)}


def test_what_ends_a_worker_costs_its_scan_and_no_other(
    run_dir: Path, task_dir: Path, tmp_path: Path, alone: dict[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Prediction", IllFated)
    names = ["a", "b", "crash", "c", "once", "d", "e", "f"]
    scans = copies(task_dir, tmp_path / "scans", names)
    assert predict(run_dir, [scans], tmp_path / "out", device="cpu", workers=2) == 1
    found = rows(tmp_path / "out")
    assert list(found) == sorted(names), "in the order of the list, whoever was first"
    assert {case for case, row in found.items() if row["status"] != "ok"} == {"crash"}
    assert "SIGSEGV" in found["crash"]["reason"]
    for case in ("a", "b", "c", "once", "d", "e", "f"):
        assert (tmp_path / "out" / f"{case}_seg.nii.gz").read_bytes() == alone[names.index(case) % 4]
    assert not list((tmp_path / "out" / "journal" / "claims").iterdir())
    assert not list((tmp_path / "out").glob(".*.part.*"))


def test_a_decoder_that_crashes_in_a_plain_call_is_a_failed_row(
    run_dir: Path, task_dir: Path, tmp_path: Path, alone: dict[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Prediction", IllFated)
    scans, out = copies(task_dir, tmp_path / "scans", ["a", "b", "crash", "c"]), tmp_path / "out"
    arguments = ["predict", str(run_dir), str(scans), "--output", str(out), "--device", "cpu"]
    assert cli.main(arguments, standalone_mode=False) == 1
    found = rows(out)
    assert {case: row["status"] for case, row in found.items()} == {"a": "ok", "b": "ok", "c": "ok", "crash": "failed"}
    assert "SIGSEGV" in found["crash"]["reason"]
    for number, case in ((0, "a"), (1, "b"), (3, "c")):  # of one thread for each core, as in this process
        assert (out / f"{case}_seg.nii.gz").read_bytes() == alone[number]


def test_a_run_that_is_moved_away_is_one_sentence_and_nothing_is_lost(
    run_dir: Path, task_dir: Path, tmp_path: Path, alone: dict[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Prediction", IllFated)
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(run_dir, run)
    scans = copies(task_dir, tmp_path / "scans", ["a", "b", "c", "gone"])
    with pytest.raises(RequestError, match=r"run.*; what is done stands in .*out, and the same call with --keep goes"):
        predict(run, [scans], out, device="cpu", workers=1)
    before = rows(out)
    assert all(row["status"] == "ok" for row in before.values())
    Path(f"{run}.away").rename(run)
    monkeypatch.undo()
    assert predict(run, [scans], out, device="cpu", overwrite=False) == 0
    found = rows(out)
    assert list(found) == ["a", "b", "c", "gone"]
    assert before.items() <= found.items(), "what was done before stands as it was"
    assert all((out / f"{case}_seg.nii.gz").read_bytes() == alone[n] for n, case in enumerate(found))


def test_a_scan_that_hangs_is_ended(
    run_dir: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Prediction", IllFated)
    scans = copies(task_dir, tmp_path / "scans", ["hang"])
    assert predict(run_dir, [scans], tmp_path / "out", device="cpu", scan_minutes=0.01) == 1
    assert "0.01 minutes (--scan-minutes)" in rows(tmp_path / "out")["hang"]["reason"]


def test_a_call_that_is_killed_twice_and_goes_on(
    run_dir: Path, task_dir: Path, tmp_path: Path, alone: dict[int, bytes]
) -> None:
    names = [f"s{n:02}" for n in range(40)]
    scans, out = copies(task_dir, tmp_path / "scans", names), tmp_path / "out"
    arguments = ["-m", "rarevox.pipeline.cli", "predict", str(run_dir), str(scans), "--output", str(out), "--keep"]
    for least in (4, 12):
        process = forked.Forked([*arguments, "--device", "cpu"])
        while process.is_alive() and len(list(out.glob("*_seg.nii.gz"))) < least:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*_seg.nii.gz")}
    assert 12 <= len(before) < 40
    assert predict(run_dir, [scans], out, device="cpu", overwrite=False) == 0
    found = rows(out)
    assert list(found) == names
    for number, name in enumerate(names):
        assert (out / f"{name}_seg.nii.gz").read_bytes() == alone[number % 4]
    again = [name for name, moment in before.items() if (out / name).stat().st_mtime_ns != moment]
    assert len(again) <= 2 * 3, "no more than what was in work at a kill"


def test_two_calls_at_once_share_the_scans(
    run_dir: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"s{n:02}" for n in range(12)]
    scans, out = copies(task_dir, tmp_path / "scans", names), tmp_path / "out"
    stored: Counter[str] = Counter()
    both = threading.Barrier(2, timeout=60)
    real_store, real_begin = module.Prediction.open, module.begin

    def begin(*arguments: Any, **options: Any) -> Any:
        session = real_begin(*arguments, **options)
        both.wait()
        return session

    def opened(self: Any) -> Any:
        station = real_store(self)
        store = station.store

        def storing(found: Any, earlier: Any) -> Any:
            stored[found.case] += 1
            return store(found, earlier)

        station.store = storing
        return station

    monkeypatch.setattr(module.Prediction, "open", opened)
    monkeypatch.setattr(module, "begin", begin)
    statuses: list[int] = []
    calls = [
        threading.Thread(target=lambda: statuses.append(predict(run_dir, [scans], out, device="cpu"))) for _ in "12"
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert statuses == [0, 0]
    assert stored == Counter(names)
    assert list(rows(out)) == names


def test_what_killed_calls_left_is_cleared_away_while_the_folder_is_held(
    run_dir: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call on another machine that has done its scans may be writing the files made of the journals."""
    scans, out = copies(task_dir, tmp_path / "scans", ["a"]), tmp_path / "out"
    held: list[bool] = []
    monkeypatch.setattr(working, "clear_parts_below", lambda folder: held.append((folder / LOCK_FILE).is_file()))
    assert predict(run_dir, [scans], out, device="cpu") == 0
    assert held == [True]


def test_shares_of_a_job_array_fill_one_folder(run_dir: Path, task_dir: Path, tmp_path: Path) -> None:
    scans, out = copies(task_dir, tmp_path / "scans", list("abcde")), tmp_path / "out"
    (scans / "torn.nii.gz").write_bytes(b"torn")
    statuses = [predict(run_dir, [scans], out, device="cpu", shard=f"{n}/3") for n in (1, 2, 3)]
    found = rows(out)
    assert list(found) == [*"abcde", "torn"]
    assert [row["status"] for row in found.values()] == ["ok"] * 5 + ["failed"]
    assert statuses == [0, 0, 1], "a share's status is of its own scans"


def test_a_call_of_other_settings_does_not_join(
    run_dir: Path, task_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, out = copies(task_dir, tmp_path / "scans", list("ab")), tmp_path / "out"
    real = module.begin

    def begin(*arguments: Any, **options: Any) -> Any:
        session = real(*arguments, **options)
        monkeypatch.setattr(module, "begin", real)
        for different in ({"settings": ["inferer#flips=[0]"]}, {"entropy": True}):
            with pytest.raises(RequestError, match="another call is writing into"):
                predict(run_dir, [scans], out, device="cpu", **different)
        return session

    monkeypatch.setattr(module, "begin", begin)
    assert predict(run_dir, [scans], out, device="cpu") == 0


def test_a_scan_at_which_two_calls_ended_is_a_failed_row(run_dir: Path, task_dir: Path, tmp_path: Path) -> None:
    from rarevox.pipeline.cohort.claims import Claims

    scans, out = copies(task_dir, tmp_path / "scans", list("abc")), tmp_path / "out"
    out.mkdir()
    for owner in ("first", "second"):
        assert Claims(out, owner, lambda owner: False).take("b") is not None
    assert predict(run_dir, [scans], out, device="cpu") == 1
    found = rows(out)
    assert {case: row["status"] for case, row in found.items()} == {"a": "ok", "b": "failed", "c": "ok"}
    assert "2 calls ended while it was segmented" in found["b"]["reason"]
    assert predict(run_dir, [scans], out, device="cpu", overwrite=False) == 0, "asked again, it has its trials again"


def test_a_manifest_with_bad_lines(run_dir: Path, task_dir: Path, tmp_path: Path) -> None:
    scans, out = copies(task_dir, tmp_path / "scans", list("ab")), tmp_path / "out"
    lines = [
        {"case": "first", "image": "scans/a.nii.gz", "site": "=1"},
        {"case": "first", "image": "scans/b.nii.gz"},
        {"case": "../up", "image": "scans/b.nii.gz"},
        {"image": 3},
        {"image": "scans/b.nii.gz"},
        {"case": "none", "image": "scans/none.nii.gz"},
    ]
    manifest = tmp_path / "list.jsonl"
    manifest.write_text("\n".join([*map(json.dumps, lines), "{", ""]))
    assert predict(run_dir, [], out, device="cpu", manifest=manifest) == 1
    found = json.loads((out / "predictions.json").read_text())["scans"]
    assert [(row["case"], row["status"]) for row in found] == [
        ("first", "ok"),
        ("b", "ok"),
        ("none", "failed"),
        ("first", "failed"),
        ("../up", "failed"),
        ("line 4", "failed"),
        ("line 7", "failed"),
    ]
    assert found[0]["manifest"] == {"site": "=1"}
    assert {path.name for path in out.glob("*.nii.gz")} == {"first_seg.nii.gz", "b_seg.nii.gz"}
    assert scans.is_dir()


LIGHT = """
import sys
from rarevox.pipeline.cli import cli
status = cli.main(sys.argv[1:], standalone_mode=False)
heavy = ("torch", "monai", "scipy.ndimage", "SimpleITK", "numba", "matplotlib", "pandas", "highdicom")
print("status", status, "loaded", [name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize("more", [[], ["--lesions", "--entropy", "--probabilities", "uint8", "--previews"]])
def test_who_hands_out_scans_waits_for_no_library_of_the_workers(
    run_dir: Path, task_dir: Path, tmp_path: Path, more: list[str], alone: dict[int, bytes]
) -> None:
    """PyTorch and MONAI take seconds and half a gigabyte, which the workers' server spends once."""
    scans, out = copies(task_dir, tmp_path / "scans", ["a", "b"]), tmp_path / "out"
    arguments = ["predict", str(run_dir), str(scans), "--output", str(out), "--device", "cpu", *more]
    done = subprocess.run([sys.executable, "-c", LIGHT, *arguments], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["status 0 loaded []"], done.stderr
    assert [(out / f"{case}_seg.nii.gz").read_bytes() for case in "ab"] == [alone[0], alone[1]]


@pytest.mark.parametrize("workers", [0, 1])
def test_nobody_begins_where_nothing_is_left_to_do(
    run_dir: Path, task_dir: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, out = copies(task_dir, tmp_path / "scans", ["a", "b"]), tmp_path / "out"
    arguments = ["predict", str(run_dir), str(scans), "--output", str(out), "--device", "cpu"]
    arguments += ["--workers", str(workers)]
    assert cli.main(arguments, standalone_mode=False) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Prediction, "open", lambda job: pytest.fail("a network is loaded"))
        patch.setattr(crew, "Processes", lambda *given: pytest.fail("workers begin"))
        assert cli.main([*arguments, "--keep"], standalone_mode=False) == 0
    (out / "b_seg.nii.gz").unlink()
    assert cli.main([*arguments, "--keep"], standalone_mode=False) == 0
    assert (out / "b_seg.nii.gz").is_file()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("begun", [False, True])
def test_a_fault_of_the_run_is_told_before_anything_is_written_with_keep_too(
    run_dir: Path, task_dir: Path, tmp_path: Path, workers: int, begun: bool
) -> None:
    scans, out = copies(task_dir, tmp_path / "scans", ["a", "b"]), tmp_path / "out"
    how: dict[str, Any] = {"overwrite": False, "workers": workers, "settings": ["inferer#overlap=much"]}
    if begun:
        assert predict(run_dir, [scans / "a.nii.gz"], out, device="cpu") == 0
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}
    with pytest.raises(RequestError) as told:
        predict(run_dir, [scans], out, device="cpu", **how)
    assert str(told.value).startswith("inferer#overlap is 'much'") and "--keep" not in str(told.value)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("setting", ["structures=5", "channels=5", "normalisation=zscore", "label_values=[0]"])
def test_settings_of_another_form_are_told_at_once(run_dir: Path, tmp_path: Path, setting: str) -> None:
    key, _, value = setting.partition("=")
    with pytest.raises(RequestError, match=f"^--set: {key} (is .*{re.escape(value)}|must be)"):
        predict(run_dir, [tmp_path], tmp_path / "out", device="cpu", settings=[setting])
