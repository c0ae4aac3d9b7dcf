from __future__ import annotations

import os
from pathlib import Path

import pytest

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import (
    LOCK_FILE,
    atomic,
    claim_folder,
    clear_parts,
    clear_parts_below,
    leaving_no_empty_folders,
    read_json,
    write_json,
)


def test_two_writes_of_one_file_at_once_are_both_whole(tmp_path: Path) -> None:
    """As threads do that treat two cases of one name: the later one to end stays."""
    path = tmp_path / "case.nii.gz"
    with atomic(path) as first:
        with atomic(path) as second:
            first.write_text("first")
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert first.name.endswith(".nii.gz")


def test_the_temporary_name_fits_wherever_the_final_one_does(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 248 + ".nii.gz")  # 255 bytes, the most that file systems take
    for _ in range(2):
        with atomic(path, keep=tmp_path / ("b" * 255)) as temporary:
            assert temporary.name.endswith(".nii.gz")
            temporary.write_text("whole")
    assert sorted(file.name[0] for file in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("moved", [True, False])
def test_a_folder_that_goes_while_a_file_in_it_is_written_is_named(tmp_path: Path, moved: bool) -> None:
    folder = tmp_path / "out"
    said = pytest.raises(FileNotFoundError, match="the folder was moved or emptied meanwhile: .*/out")
    with said, atomic(folder / "a.json") as temporary:
        temporary.write_text("{}")
        folder.rename(tmp_path / "moved") if moved else temporary.unlink()


def test_names_that_are_not_utf8_come_back_from_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"sc\xffan")
    write_json(tmp_path / "a.json", {"case": name})
    (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert read_json(tmp_path / "a.json") == {"case": name}


def test_what_a_killed_call_left_does_not_take_a_folder(tmp_path: Path) -> None:
    for name in (LOCK_FILE, ".123.part.0.json", ".123.part.probe"):
        (tmp_path / name).write_text("")
    assert claim_folder(tmp_path, holds=lambda _: False, what="a run") == tmp_path
    (tmp_path / "configs" / "deep").mkdir(parents=True)
    (tmp_path / "configs" / ".123.part.1.yaml").write_text("half")
    assert claim_folder(tmp_path, holds=lambda _: False, what="a run") == tmp_path
    (tmp_path / "configs" / "deep" / "notes.txt").write_text("")
    with pytest.raises(RequestError, match="already holds other files"):
        claim_folder(tmp_path, holds=lambda _: False, what="a run")
    (tmp_path / "configs" / "deep" / "notes.txt").unlink()
    (tmp_path / ".part").write_text("")
    with pytest.raises(RequestError, match="already holds other files"):
        claim_folder(tmp_path, holds=lambda _: False, what="a run")


def test_what_killed_writers_left_is_cleared_away(tmp_path: Path) -> None:
    left = [tmp_path / ".4194305.part.1.pt", tmp_path / "a" / "b" / ".4194305.part.1"]  # above Linux's greatest number
    others = [tmp_path / ".1.part.1.pt", tmp_path / ".x.part.1.pt", tmp_path / "a" / "c.part.1"]
    left[1].mkdir(parents=True)
    for path in (left[0], *others):
        path.write_bytes(b"half")
    clear_parts(tmp_path, tmp_path / "absent")
    assert [path.exists() for path in left] == [False, True]
    clear_parts_below(tmp_path)
    assert not left[1].exists()
    assert all(path.exists() for path in others)


def test_folders_that_a_call_made_and_left_empty_go_again(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(RequestError, match="refused"), leaving_no_empty_folders():
        claim_folder(tmp_path / "old", lambda folder: False, "a set")
        claim_folder(tmp_path / "new" / "inner" / "deep", lambda folder: False, "a set")
        (claim_folder(tmp_path / "used" / "inner", lambda folder: False, "a set") / "a.json").write_text("{}")
        raise RequestError("refused")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "used"]
    assert (tmp_path / "used" / "inner" / "a.json").is_file()
    claim_folder(tmp_path / "kept", lambda folder: False, "a set")
    assert (tmp_path / "kept").is_dir()  # outside of a call nobody takes it away
