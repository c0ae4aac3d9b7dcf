"""Uploads: archives that would do harm are refused, and leave nothing outside their folder."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from rarevox.pipeline.service.upload import UploadError, scan_in, unpack


def archive(path: Path, files: dict[str, bytes], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = options.get("method", zipfile.ZIP_DEFLATED)
            entry.external_attr = options.get("mode", 0) << 16
            packed.writestr(entry, content)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "out").mkdir(parents=True)
    return tmp_path / "in" / "out"


def test_files_come_out_under_names_of_our_own(tmp_path: Path, folder: Path) -> None:
    files = {
        "a/one": b"1" * 9,
        "b\\two.dcm": b"2",
        "a/.hidden": b"3",
        "__MACOSX/a": b"4",
        "x/DICOMDIR": b"5",
        "d/": b"",
    }
    assert unpack(archive(tmp_path / "a.zip", files), folder, 100) == 2
    assert [path.read_bytes() for path in sorted(folder.iterdir())] == [b"1" * 9, b"2"]


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:/../evil"])
def test_names_that_lead_out_are_refused(tmp_path: Path, folder: Path, name: str) -> None:
    with pytest.raises(UploadError, match="leads out of its folder"):
        unpack(archive(tmp_path / "a.zip", {"sound": b"1", name: b"2"}), folder, 100)
    assert list(folder.iterdir()) == []
    assert not list(tmp_path.rglob("evil"))


def test_links_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UploadError, match="a link or a special file"):
        unpack(archive(tmp_path / "a.zip", {"link": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777), folder, 100)


def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path, folder: Path) -> None:
    path = archive(tmp_path / "a.zip", {"bomb": bytes(50_000_000)})
    assert path.stat().st_size < 100_000
    with pytest.raises(UploadError, match="unpacks to 50000000 bytes; 1000000 are allowed"):
        unpack(path, folder, 1_000_000)


def test_a_bomb_that_declares_little_fills_nothing(tmp_path: Path, folder: Path) -> None:
    content = bytearray(archive(tmp_path / "a.zip", {"bomb": bytes(5_000_000)}).read_bytes())
    central = content.rfind(b"PK\x01\x02")
    struct.pack_into("<I", content, central + 24, 10)  # the size that the directory tells
    struct.pack_into("<I", content, 22, 10)  # and that of the entry itself
    (tmp_path / "b.zip").write_bytes(content)
    with pytest.raises(UploadError):
        unpack(tmp_path / "b.zip", folder, 1_000_000)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1_000_000


def test_many_files_other_methods_and_damage_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UploadError, match="3 files; 2 are allowed"):
        unpack(archive(tmp_path / "a.zip", dict.fromkeys("abc", b"")), folder, 100, 2)
    with pytest.raises(UploadError, match="another method"):
        unpack(archive(tmp_path / "b.zip", {"a": b"1"}, method=zipfile.ZIP_LZMA), folder, 100)
    content = bytearray(archive(tmp_path / "c.zip", {"a": b"1" * 500}).read_bytes())
    content[40] ^= 0xFF
    (tmp_path / "c.zip").write_bytes(content)
    with pytest.raises(UploadError, match="damaged"):
        unpack(tmp_path / "c.zip", folder, 1000)
    with pytest.raises(UploadError, match="damaged"):
        unpack(tmp_path / "nothing", folder, 1) if (tmp_path / "nothing").write_bytes(b"PK\x03\x04rest") else None
    with pytest.raises(UploadError, match="holds no files"):
        unpack(archive(tmp_path / "d.zip", {"d/": b""}), folder, 100)


def test_an_encrypted_archive_is_refused(tmp_path: Path, folder: Path) -> None:
    content = bytearray(archive(tmp_path / "a.zip", {"a": b"1"}).read_bytes())
    content[6] |= 1
    content[content.rfind(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UploadError, match="encrypted"):
        unpack(tmp_path / "a.zip", folder, 100)


def test_what_is_sent_is_told_by_its_content(tmp_path: Path) -> None:
    """And stays as it was sent: another attempt finds it."""
    heads = {b"\x1f\x8b\x08": "upload.nii.gz", b"\x5c\x01\x00\x00": "upload.nii", bytes(128) + b"DICM": "upload.dcm"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("a", bytes(128) + b"DICM")
    heads[buffer.getvalue()] = "series"
    for number, (content, name) in enumerate(heads.items()):
        (tmp_path / f"body{number}").write_bytes(content)
        for attempt in range(2):
            folder = tmp_path / f"{number}.{attempt}"
            folder.mkdir()
            assert scan_in(tmp_path / f"body{number}", folder, 1000) == folder / name
            assert (folder / name).exists()
        assert (tmp_path / f"body{number}").read_bytes() == content
    (tmp_path / "other").write_bytes(b"<html>")
    with pytest.raises(UploadError, match="neither NIfTI nor a ZIP") as caught:
        scan_in(tmp_path / "other", tmp_path, 100)
    assert caught.value.status == 415


def test_on_a_disk_without_second_names_the_file_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("not on this disk")

    monkeypatch.setattr("os.link", refuse)
    (tmp_path / "body").write_bytes(b"\x5c\x01\x00\x00")
    assert scan_in(tmp_path / "body", tmp_path, 100).read_bytes() == b"\x5c\x01\x00\x00"


def test_of_an_archive_the_files_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    slices = {f"CD/{n}": bytes(128) + b"DICM" for n in range(3)}
    found = {}
    for name, entries in {
        "disc": {**slices, "CD/README.txt": b"read me", "viewer.exe": b"MZ"},
        "image": {"a.nii": b"\x5c\x01\x00\x00", "b.txt": b"a text"},
        "images": {"a.nii": b"\x5c\x01\x00\x00", "b.nii": b"\x5c\x01\x00\x00"},
        "texts": {"a.txt": b"1"},
    }.items():
        (tmp_path / name).mkdir()
        try:
            found[name] = scan_in(archive(tmp_path / f"{name}.zip", entries), tmp_path / name, 10_000)
        except UploadError as error:
            found[name] = (error.status, str(error))
    assert len(list(found["disc"].iterdir())) == 3
    assert found["image"].name == "upload.nii"
    assert found["images"] == (415, "of the 2 files in the ZIP archive none is DICOM; send a series, or one NIfTI file")
    assert found["texts"][0] == 415


def test_a_form_is_told_how_to_send_a_file(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"--------------------------4f1\r\nContent-Disposition: form-data")
    with pytest.raises(UploadError, match="is a form; send the file itself"):
        scan_in(tmp_path / "body", tmp_path, 100)
