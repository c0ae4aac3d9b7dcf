"""Kinds of DICOM folders: slices damaged, missing, repeated or of another series, and what may lie beside them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK

from tests.hostile.kinds import refused, sound, voxels, warned
from tests.transforms.series import NORMAL, write_series

IMAGES_IN_ACQUISITION, SLICES, MODALITY, KIND = "0020|1002", "0054|0081", "0008|0060", "0008|0008"
SPACING_BETWEEN_SLICES = b"\x18\x00\x88\x00"


def series(folder: Path, tags: Mapping[str, str] | None = None, count: int = 8) -> list[Path]:
    """A sound series and its files in the order of their positions."""
    write_series(folder / "SERIES", voxels((12, 10, count)), tags=tags)
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / "SERIES"))
    return [Path(name) for name in names]


def renamed(files: list[Path], pattern: str) -> list[Path]:
    """The files under names with their numbers."""
    return [path.rename(path.with_name(pattern.format(number))) for number, path in enumerate(files)]


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:count])


@sound
def dicom_series(folder: Path) -> Path:
    return series(folder)[0].parent


@sound
def dicom_called_ima(folder: Path) -> Path:
    return renamed(series(folder), "{}.IMA")[0].parent


@sound
def dicom_without_suffixes(folder: Path) -> Path:
    return renamed(series(folder), "IM{:04d}")[0].parent


@sound
def dicom_under_any_suffix(folder: Path) -> Path:
    return renamed(series(folder), "{}.image")[0].parent


@sound
def dicom_beside_other_things(folder: Path) -> Path:
    files = series(folder)
    here = files[0].parent
    (here / "README.txt").write_text("scanned on a Tuesday")
    (here / "thumb.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    (here / "._s00.dcm").write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    (here / "LOCKFILE").touch()
    (here / "pictures.dcm").mkdir()
    meta = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"
    (here / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + meta)
    return here


@refused("s00.dcm in .* is empty")
def dicom_with_an_empty_first_slice(folder: Path) -> Path:
    files = series(folder)
    files[0].write_bytes(b"")
    return files[0].parent


@refused("is empty")
def dicom_with_an_empty_last_slice(folder: Path) -> Path:
    files = series(folder)
    files[-1].write_bytes(b"")
    return files[-1].parent


@refused("is truncated")
def dicom_with_a_truncated_last_slice(folder: Path) -> Path:
    files = series(folder)
    cut(files[-1], files[-1].stat().st_size - 40)
    return files[-1].parent


@refused("is truncated")
def dicom_with_a_slice_cut_in_its_header(folder: Path) -> Path:
    files = series(folder)
    cut(files[0], 300)
    return files[0].parent


@refused("is damaged")
def dicom_with_a_zeroed_slice(folder: Path) -> Path:
    files = series(folder)
    files[-1].write_bytes(bytes(files[-1].stat().st_size))
    return files[-1].parent


@refused("IM0007 in .* is empty")
def dicom_with_an_empty_slice_without_suffix(folder: Path) -> Path:
    files = renamed(series(folder), "IM{:04d}")
    files[-1].write_bytes(b"")
    return files[-1].parent


@refused("notes.dcm in .* is damaged")
def dicom_with_a_text_called_dcm(folder: Path) -> Path:
    files = series(folder)
    (files[0].parent / "notes.dcm").write_text("not DICOM at all")
    return files[0].parent


@refused("x.dcm in .* is a named pipe")
def dicom_with_a_pipe(folder: Path) -> Path:
    files = series(folder)
    os.mkfifo(files[0].parent / "x.dcm")
    return files[0].parent


@sound
def dicom_with_a_pipe_beside_it(folder: Path) -> Path:
    files = series(folder)
    os.mkfifo(files[0].parent / "pipe")
    return files[0].parent


@refused("x.dcm in .* is a link to a file that does not exist")
def dicom_with_a_dangling_link(folder: Path) -> Path:
    files = series(folder)
    (files[0].parent / "x.dcm").symlink_to("gone.dcm")
    return files[0].parent


@refused("slices are missing")
def dicom_without_a_slice_within(folder: Path) -> Path:
    files = series(folder)
    files[3].unlink()
    return files[0].parent


@refused(r"slices are missing .*: 7 slices are there, 8 by their headers \(ImagesInAcquisition\); .* the numbers 8")
def dicom_without_its_last_slice(folder: Path) -> Path:
    files = series(folder, {IMAGES_IN_ACQUISITION: "8"})
    files[-1].unlink()
    return files[0].parent


@refused("slices are missing .* the numbers 1")
def dicom_without_its_first_slice(folder: Path) -> Path:
    files = series(folder, {IMAGES_IN_ACQUISITION: "8"})
    files[0].unlink()
    return files[-1].parent


@warned("numbered from 2")
def dicom_without_its_first_slice_and_count(folder: Path) -> Path:
    files = series(folder)
    files[0].unlink()
    return files[-1].parent


@warned("are some left out")
def dicom_of_one_phase_of_three(folder: Path) -> Path:
    """ImagesInAcquisition counts all phases, which were sorted into folders."""
    return series(folder, {IMAGES_IN_ACQUISITION: "24", KIND: "ORIGINAL\\PRIMARY"})[0].parent


@warned("are some left out")
def dicom_resampled(folder: Path) -> Path:
    """A reformatted series keeps the count of the one that it was made of."""
    return series(folder, {IMAGES_IN_ACQUISITION: "35", KIND: "DERIVED\\SECONDARY"})[0].parent


@refused("slices are missing .* 8 are there, 9 by their headers")
def dicom_of_pet_without_its_last_slice(folder: Path) -> Path:
    return series(folder, {SLICES: "9", MODALITY: "PT"})[0].parent


@warned("2 times as far as their headers say")
def dicom_of_every_other_slice(folder: Path) -> Path:
    files = series(folder)
    for path in files:  # the writer puts the true distance there
        content = path.read_bytes()
        at = content.index(b"2.5 ", content.index(SPACING_BETWEEN_SLICES))
        path.write_bytes(content[:at] + b"1.25" + content[at + 4 :])
    return files[0].parent


@refused("copy.dcm .* repeated; remove the copies")
def dicom_with_a_copy(folder: Path) -> Path:
    files = series(folder)
    shutil.copy(files[2], files[0].parent / "copy.dcm")
    return files[0].parent


@refused("it mixes several acquisitions")
def dicom_of_two_acquisitions(folder: Path) -> Path:
    files = series(folder)
    write_series(files[0].parent, voxels((12, 10, 8)) + 1, prefix="t", tags={"0008|0018": "1.2.3.77"})
    return files[0].parent


@refused(r"found 2 series \(8 file\(s\) .* 1 file\(s\) such as t00.dcm\)")
def dicom_with_a_slice_of_another_series(folder: Path) -> Path:
    files = series(folder)
    write_series(files[0].parent, voxels((12, 10, 1)), prefix="t", series="1.2.4")
    return files[0].parent


@refused("differ in size")
def dicom_with_a_slice_of_another_size(folder: Path) -> Path:
    files = series(folder)
    place = np.array([5.0, -7.0, 11.0]) + 2.5 * 8 * NORMAL
    write_series(files[0].parent, voxels((14, 10, 1)), place[None], prefix="t")
    return files[0].parent


@refused("gantry tilt")
def dicom_with_gantry_tilt(folder: Path) -> Path:
    places = np.arange(8)[:, None] * (2.5 * NORMAL + np.array([0.5, 0.0, 0.0]))
    return write_series(folder / "SERIES", voxels(), places)


@refused("one position|do not say where")
def dicom_without_positions(folder: Path) -> Path:
    return write_series(folder / "SERIES", voxels(), np.zeros((8, 3)))


@refused("holds no DICOM files")
def folder_without_scans(folder: Path) -> Path:
    (folder / "SERIES").mkdir()
    (folder / "SERIES" / "readme.txt").write_text("nothing here")
    return folder / "SERIES"


@refused("holds no DICOM files")
def folder_with_an_index_alone(folder: Path) -> Path:
    (folder / "SERIES").mkdir()
    (folder / "SERIES" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    return folder / "SERIES"


@refused("DICOM and no image .a structured report.")
def dicom_with_a_report(folder: Path) -> Path:
    files = series(folder)
    meta = b"\x02\x00\x02\x00UI\x1e\x001.2.840.10008.5.1.4.1.1.88.11\x00"
    (files[0].parent / "SR000001").write_bytes(bytes(128) + b"DICM" + meta)
    return files[0].parent


def _frames(folder: Path, told: bytes) -> Path:
    """Six frames in one file, whose header tells of another number (two letters)."""
    image = SimpleITK.GetImageFromArray(voxels((6, 10, 12)).astype(np.uint16))
    SimpleITK.WriteImage(image, str(folder / "scan.dcm"))
    content = (folder / "scan.dcm").read_bytes()
    at = content.index(b"\x28\x00\x08\x00") + 8
    (folder / "scan.dcm").write_bytes(content[:at] + told + content[at + 2 :])
    return folder / "scan.dcm"


@sound
def dicom_of_several_frames(folder: Path) -> Path:
    return _frames(folder, b"6 ")


@refused("its header tells of 60")
def dicom_of_fewer_frames_than_told(folder: Path) -> Path:
    return _frames(folder, b"60")


@refused("its header tells of 3")
def dicom_of_more_frames_than_told(folder: Path) -> Path:
    return _frames(folder, b"3 ")


@refused("is empty")
def dicom_file_that_is_empty(folder: Path) -> Path:
    (folder / "scan.dcm").touch()
    return folder / "scan.dcm"
