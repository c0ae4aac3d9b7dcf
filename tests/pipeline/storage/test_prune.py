from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from rarevox.pipeline.cli import main
from rarevox.pipeline.storage.disk_cases import DiskCases
from rarevox.pipeline.storage.entry import write_entry
from rarevox.pipeline.storage.prune import DAY, Stored, describe_cache, prune, stored_in, superfluous
from tests.pipeline.storage.test_disk_cases import make, prepared, scans

__all__ = ["scans"]


def entry(folder: Path, name: str, size: int, days: float) -> Path:
    """An entry of one array of so many bytes (and a header of 128), last used so many days ago."""
    write_entry(folder / name, {"image": np.zeros(size, np.uint8)}, {})
    aged(folder / name, days)
    return folder / name


def aged(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path / "entry.json", (then, then))


def names(folder: Path) -> set[str]:
    return {stored.path.name for stored in stored_in(folder)}


GB = 10**9
ENTRIES = [Stored(Path(f"case-{name}"), GB, used * DAY) for name, used in (("a", 0), ("b", 5), ("c", 8), ("d", 9))]


@pytest.mark.parametrize(
    ("days", "limit_gb", "keep", "gone"),
    [
        (None, None, (), ""),
        (4, None, (), "ab"),
        (4, None, ("case-a",), "b"),
        (None, 2, (), "ab"),
        (None, 2.5, (), "ab"),
        (None, 2, ("case-a", "case-c"), "bd"),
        (6, 1, (), "abc"),
        (0, None, ("case-d",), "abc"),
    ],
)
def test_the_old_ones_go_and_then_the_oldest_until_the_rest_fits(
    days: float | None, limit_gb: float | None, keep: tuple[str, ...], gone: str
) -> None:
    """Four entries of 1 GB each, last used on days 0, 5, 8 and 9; it is day 10."""
    found = superfluous(ENTRIES, keep, days=days, limit_gb=limit_gb, now=10 * DAY)
    assert "".join(stored.path.name[-1] for stored in found) == gone


def test_what_goes_with_an_entry_and_what_was_left_behind_is_removed_too(tmp_path: Path) -> None:
    old = entry(tmp_path, "case-old", 1000, 40)
    entry(tmp_path, "index-new", 1000, 1)
    left, fresh = tmp_path / ".case-x.7.part", tmp_path / ".case-y.8.part"
    for path in (left, fresh):
        path.mkdir()
    os.utime(left, (0, 0))
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "case-old").touch()
    (tmp_path / "contents").mkdir()
    for name, file in (("there", __file__), ("gone", tmp_path / "absent.nii.gz")):
        (tmp_path / "contents" / f"{name}.json").write_text(json.dumps({"stamp": [str(file), 1], "sha256": ""}))
    size = sum(file.stat().st_size for file in old.iterdir())
    assert prune(tmp_path, (), shutil.rmtree, days=30) == size
    assert names(tmp_path) == {"index-new"}
    assert [path.name for path in (tmp_path / "contents").iterdir()] == ["there.json"]
    assert (left.exists(), fresh.exists(), (tmp_path / "locks" / "case-old").exists()) == (False, True, False)


def test_a_training_removes_what_nothing_used_and_keeps_its_own(scans, tmp_path: Path, capsys) -> None:
    """All are 40 days old: those of two cases that are no longer in the data go, its own are used and young again."""
    own = {name for listed in make(scans, tmp_path).names[:3] for name in listed}
    for stored in stored_in(tmp_path / "cache"):
        aged(stored.path, 40)
    cases = make(scans[:3], tmp_path, keep_days=30)
    assert names(tmp_path / "cache") == own
    assert len(cases) == 3
    assert prepared(tmp_path / "log") == [f"case{n}" for n in range(5)]  # none anew
    assert "removed from" in capsys.readouterr().err
    assert all(time.time() - stored.used < DAY for stored in stored_in(tmp_path / "cache"))


def test_nothing_is_removed_while_another_has_cases_open(scans, tmp_path: Path) -> None:
    others: DiskCases | None = make(scans, tmp_path)
    for stored in stored_in(tmp_path / "cache"):
        aged(stored.path, 40)
    mine = make(scans[:1], tmp_path, keep_days=30)
    assert len(names(tmp_path / "cache")) == 10
    assert others is not None
    assert len(others) == 5
    del others, mine
    mine = make(scans[:1], tmp_path, keep_days=30)
    assert names(tmp_path / "cache") == set(mine.names[0])


def test_doctor_tells_the_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry(tmp_path, "case-old", 200_000_000, 40)
    entry(tmp_path, "index-new", 1000, 1)
    assert describe_cache(tmp_path) == "0.2 GB, 1 case and 1 index, 0.2 GB of it not used for 30 days"
    assert describe_cache(tmp_path, days=50) == "0.2 GB, 1 case and 1 index"
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    (dataset / "dataset.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(["doctor", str(dataset), str(tmp_path)])
    words = capsys.readouterr().err
    assert f"cache {dataset / 'cache'}: nothing is stored" in words
    assert f"cache {tmp_path}: 0.2 GB, 1 case" in words
    with pytest.raises(SystemExit) as ended:
        main(["doctor", str(tmp_path / "absent")])
    assert ended.value.code == 2
    assert "does not exist; give a prepared dataset" in capsys.readouterr().err
