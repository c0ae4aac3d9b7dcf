from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from rarevox.pipeline.storage.entry import LIST, TornEntryError, map_array, open_entry, write_entry

ARRAYS = {
    "image": torch.randn(2, 40, 50, 60),
    "half": torch.randn(1, 4, 4, 4).half(),
    "label": torch.randint(0, 3, (1, 40, 50, 60), dtype=torch.uint8),
    "turned": np.arange(12, dtype=np.int32).reshape(3, 4).T,
    "affine": np.eye(4),
    "empty": np.zeros((0, 3), np.int64),
}


def test_what_is_opened_is_what_was_written(tmp_path: Path) -> None:
    assert write_entry(tmp_path / "case", ARRAYS, {"classes": [1, 2], "rule": "class"})
    arrays, facts = open_entry(tmp_path / "case")
    assert facts == {"classes": [1, 2], "rule": "class"}
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert torch.equal(arrays[name], torch.as_tensor(np.asarray(array)))
    assert [entry.name for entry in tmp_path.iterdir()] == ["case"]


def test_files_are_mapped_not_read_and_no_file_stays_open(tmp_path: Path) -> None:
    write_entry(tmp_path / "case", ARRAYS, {})
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.is_dir() else 0
    volume = open_entry(tmp_path / "case")[0]["image"]
    if before:
        assert len(list(descriptors.iterdir())) == before
        assert "image.npy" in Path("/proc/self/maps").read_text()
    assert np.array_equal(np.load(tmp_path / "case" / "image.npy"), volume.numpy())


def test_the_files_cannot_be_changed_through_the_tensors(tmp_path: Path) -> None:
    write_entry(tmp_path / "case", ARRAYS, {})
    open_entry(tmp_path / "case")[0]["label"].fill_(7)
    assert torch.equal(open_entry(tmp_path / "case")[0]["label"], ARRAYS["label"])


def damage_list(folder: Path) -> None:
    (folder / LIST).write_text('{"arrays": {"image"')


def truncate(folder: Path) -> None:
    os.truncate(folder / "image.npy", 5000)


def lose_a_file(folder: Path) -> None:
    (folder / "label.npy").unlink()


def lose_the_list(folder: Path) -> None:
    (folder / LIST).unlink()


def blank_the_end(folder: Path) -> None:
    """What a file system may leave of data that was never synced."""
    size = (folder / "image.npy").stat().st_size
    with (folder / "image.npy").open("r+b") as handle:
        handle.seek(size // 2)
        handle.write(bytes(size - size // 2))


@pytest.mark.parametrize("damage", [damage_list, truncate, lose_a_file, lose_the_list, blank_the_end])
def test_damage_is_found(tmp_path: Path, damage) -> None:
    write_entry(tmp_path / "case", ARRAYS, {})
    damage(tmp_path / "case")
    with pytest.raises(TornEntryError):
        open_entry(tmp_path / "case")


def test_an_absent_entry_is_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_entry(tmp_path / "case")


def test_the_first_of_two_writers_wins_and_nothing_is_left_of_the_other(tmp_path: Path) -> None:
    assert write_entry(tmp_path / "case", {"a": np.ones(3)}, {})
    assert not write_entry(tmp_path / "case", {"a": np.zeros(3)}, {})
    assert open_entry(tmp_path / "case")[0]["a"].tolist() == [1, 1, 1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["case"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The limit on a file's size stands for a full disk: the write fails halfway."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError) as caught:
            write_entry(tmp_path / "case", ARRAYS, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_only_plain_arrays_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises((TypeError, ValueError)):
        map_array(tmp_path / "objects.npy")
