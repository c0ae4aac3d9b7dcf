from __future__ import annotations

from pathlib import Path

from rarevox.pipeline.files import atomic


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
