from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rarevox.transforms.reader import ScanError, read_grid, read_scan
from rarevox.transforms.reading import memory
from rarevox.transforms.reading.files import open_regular, require_declared, require_memory
from tests.hostile import of_files, of_itk
from tests.hostile.kinds import nifti


@pytest.mark.parametrize("make", [of_files.pipe, of_files.pipe_behind_a_link, of_files.endless_device])
def test_nothing_but_a_regular_file_is_ever_opened(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path)

    def opened(*_: object, **__: object) -> int:
        raise AssertionError("it was opened")

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr("builtins.open", opened)
    for read in (read_scan, read_grid, open_regular):
        with pytest.raises(ScanError, match="expected a file"):
            read(path)


def test_a_pipe_that_takes_the_place_of_a_file_meanwhile_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "scan.nii")
    monkeypatch.setattr("rarevox.transforms.reading.files.require_regular", lambda path: path.stat())
    with pytest.raises(ScanError, match="no regular file any more"):
        open_regular(tmp_path / "scan.nii")


def test_a_file_in_the_same_folder_may_be_named_whole(tmp_path: Path) -> None:
    path = of_itk.mhd(tmp_path)
    path.write_text(path.read_text().replace("scan.raw", str(tmp_path / "scan.raw")))
    assert read_scan(path).shape == (12, 10, 8)


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    path = nifti(tmp_path / "scan.nii")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(ScanError, match="permission denied"):
        read_scan(path)


def test_what_is_declared_is_held_against_the_file_and_deflates_best(tmp_path: Path) -> None:
    require_declared(tmp_path, 100, 100, "x")
    require_declared(tmp_path, 103200, 100, "x", compressed=True)
    with pytest.raises(ScanError, match="declares x, 101 bytes, of 100 in the file"):
        require_declared(tmp_path, 101, 100, "x")
    with pytest.raises(ScanError, match="which 100 bytes of compressed data cannot hold"):
        require_declared(tmp_path, 103201, 100, "x", compressed=True)


def test_a_volume_beyond_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rarevox.transforms.reading.files.available_bytes", lambda: 1e9)
    require_memory(tmp_path, 1e9, "x")
    with pytest.raises(ScanError, match="declares x, which take 2 GB in memory where 1 GB are free"):
        require_memory(tmp_path, 2e9, "x")


def test_the_least_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_of_machine", 5.0), ("_of_group", 3.0), ("_of_process", -1.0)):
        monkeypatch.setattr(memory, name, lambda value=value: value)
    assert memory.available_bytes() == 0
