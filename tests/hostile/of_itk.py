"""Kinds of NRRD and MetaImage files: headers that name other files, and headers that lie."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from tests.hostile.kinds import refused, sound, voxels, warned

SIZES = "12 10 8"


def mhd(folder: Path, data: str = "scan.raw", **fields: str) -> Path:
    """A MetaImage header; its data file only where the name is left alone."""
    written = {"ObjectType": "Image", "NDims": "3", "DimSize": SIZES, "ElementSpacing": "1 1 2"}
    written |= {"ElementType": "MET_SHORT", **fields, "ElementDataFile": data}
    (folder / "scan.mhd").write_text("".join(f"{key} = {value}\n" for key, value in written.items()))
    if data == "scan.raw":
        (folder / "scan.raw").write_bytes(voxels().tobytes("F"))
    return folder / "scan.mhd"


def nrrd(folder: Path, *further: str, **fields: str) -> Path:
    """A NRRD file with its voxels behind the header, or a header alone where it names a data file."""
    written = {"type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": SIZES}
    written |= {"space directions": "(1,0,0) (0,1,0) (0,0,2)", "endian": "little", "encoding": "raw", **fields}
    lines = ["NRRD0004", *(f"{key}: {value}" for key, value in written.items()), *further, "", ""]
    body = b"" if any(line.startswith("data file") for line in further) else voxels().tobytes("F")
    path = folder / ("scan.nrrd" if body else "scan.nhdr")
    path.write_bytes("\n".join(lines).encode() + body)
    return path


@sound
def mhd_and_its_data(folder: Path) -> Path:
    return mhd(folder)


@refused(r"scan\.raw is a named pipe")
def mhd_with_a_pipe(folder: Path) -> Path:
    path = mhd(folder)
    (folder / "scan.raw").unlink()
    os.mkfifo(folder / "scan.raw")
    return path


@refused(r"gone\.raw does not exist")
def mhd_without_its_data(folder: Path) -> Path:
    return mhd(folder, "gone.raw")


@refused("outside its folder")
def mhd_with_a_file_elsewhere(folder: Path) -> Path:
    return mhd(folder, "/etc/passwd")


@refused("outside its folder")
def mhd_with_a_file_above(folder: Path) -> Path:
    return mhd(folder, "../../secret.raw")


@refused("a device")
def mhd_with_a_device(folder: Path) -> Path:
    (folder / "zero.raw").symlink_to("/dev/zero")
    return mhd(folder, "zero.raw")


@refused(r"is a named pipe")
def mhd_with_a_list_of_pipes(folder: Path) -> Path:
    path = mhd(folder, "LIST")
    os.mkfifo(folder / "a.raw")
    path.write_text(path.read_text() + "a.raw\n" * 8)
    return path


@refused(r"is a named pipe")
def mhd_with_a_pattern_of_pipes(folder: Path) -> Path:
    for number in range(1, 9):
        os.mkfifo(folder / f"slice{number:02d}.raw")
    return mhd(folder, "slice%02d.raw 1 8 1")


@refused("names its files by")
def mhd_with_an_evil_pattern(folder: Path) -> Path:
    return mhd(folder, "%n%n%999999999d.raw 1 8 1")


@refused("names its files by")
def mhd_with_endless_files(folder: Path) -> Path:
    return mhd(folder, "s%d.raw 1 999999999 1")


@refused("truncated or its header is wrong")
def mhd_that_declares_too_much(folder: Path) -> Path:
    return mhd(folder, DimSize="100000 100000 100000")


@refused("dimensions")
def mhd_of_a_billion_dimensions(folder: Path) -> Path:
    return mhd(folder, NDims="1000000000")


@refused("sizes")
def mhd_with_too_few_sizes(folder: Path) -> Path:
    return mhd(folder, DimSize="12 10")


@refused("its size is")
def mhd_of_a_negative_size(folder: Path) -> Path:
    return mhd(folder, DimSize="12 -10 8")


@refused("holds no voxels")
def mhd_without_voxels(folder: Path) -> Path:
    return mhd(folder, DimSize="12 0 8")


@refused("of the type")
def mhd_of_an_unknown_type(folder: Path) -> Path:
    return mhd(folder, ElementType="MET_NONE")


@refused("letters")
def mhd_with_an_endless_line(folder: Path) -> Path:
    return mhd(folder, Comment="a" * 200_000)


@refused("no ElementDataFile")
def mhd_cut_off(folder: Path) -> Path:
    path = mhd(folder)
    path.write_text(path.read_text().partition("ElementDataFile")[0])
    return path


@refused("outside its folder")
def mhd_with_a_data_file_hidden_by_a_comment(folder: Path) -> Path:
    return mhd(folder, "/etc/passwd", Comment="ElementDataFile = LOCAL")


@refused("outside its folder")
def mhd_with_a_colon_before_a_file_elsewhere(folder: Path) -> Path:
    path = mhd(folder, "/etc/passwd")
    path.write_text(path.read_text().replace(" = ", " : "))
    return path


@refused("says 'DimSize' twice")
def mhd_with_two_sizes(folder: Path) -> Path:
    path = mhd(folder, DimSize="100000 100000 100000")
    path.write_text(path.read_text().replace("ElementType", "DimSize = 12 10 8\nElementType", 1))
    return path


@refused("cannot be read|truncated|memory")
def mhd_whose_compressed_size_lies(folder: Path) -> Path:
    return mhd(folder, CompressedData="True", CompressedDataSize="1000000000000")


@refused("cannot be read|truncated")
def mhd_whose_header_size_lies(folder: Path) -> Path:
    return mhd(folder, HeaderSize="999999999999")


@refused("cannot be read|truncated")
def nrrd_that_skips_to_the_moon(folder: Path) -> Path:
    return nrrd(folder, **{"byte skip": "999999999999999"})


@refused("cannot be read|truncated")
def nrrd_that_skips_endless_lines(folder: Path) -> Path:
    return nrrd(folder, **{"line skip": "999999999999999999"})


@refused("singular|cannot be read|no scan's")
def mhd_of_no_spacing(folder: Path) -> Path:
    return mhd(folder, ElementSpacing="0 1 1")


@refused("singular|cannot be read|NaN|no scan's")
def mhd_whose_spacing_is_no_number(folder: Path) -> Path:
    return mhd(folder, ElementSpacing="nan nan nan")


@refused("singular|cannot be read")
def mhd_whose_axes_are_alike(folder: Path) -> Path:
    return mhd(folder, TransformMatrix="1 0 0 1 0 0 0 0 1")


@refused("which no scan's are")
def mhd_of_huge_voxels(folder: Path) -> Path:
    return mhd(folder, ElementSpacing="1e12 1e12 1e12")


@sound
def nrrd_and_its_data(folder: Path) -> Path:
    return nrrd(folder)


@sound
def nrrd_in_micrometres(folder: Path) -> Path:
    units = 'space units: "um" "um" "um"'
    return nrrd(folder, units, **{"space directions": "(900,0,0) (0,900,0) (0,0,2000)"})


@warned("lengths are taken as millimetres")
def nrrd_in_parsecs(folder: Path) -> Path:
    return nrrd(folder, 'space units: "pc" "pc" "pc"')


@refused("truncated or its header is wrong")
def nrrd_cut_off(folder: Path) -> Path:
    path = nrrd(folder)
    path.write_bytes(path.read_bytes()[:-500])
    return path


@refused("truncated or its header is wrong")
def nrrd_that_declares_too_much(folder: Path) -> Path:
    return nrrd(folder, sizes="1000000 1000000 1000000")


@refused("its size is")
def nrrd_of_a_negative_size(folder: Path) -> Path:
    return nrrd(folder, sizes="12 -10 8")


@refused("its encoding is")
def nrrd_of_an_unknown_encoding(folder: Path) -> Path:
    return nrrd(folder, encoding="rot13")


@refused("of the type")
def nrrd_of_an_unknown_type(folder: Path) -> Path:
    return nrrd(folder, type="block")


@refused("is a named pipe")
def nhdr_with_a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "scan.raw")
    return nrrd(folder, "data file: scan.raw")


@refused("outside its folder")
def nhdr_with_a_file_elsewhere(folder: Path) -> Path:
    return nrrd(folder, "data file: /etc/hostname")


@refused("outside its folder")
def nhdr_with_a_list_of_files_above(folder: Path) -> Path:
    return nrrd(folder, "data file: LIST", "../a.raw")


@refused("a gzipped NRRD")
def nrrd_gzipped_whole(folder: Path) -> Path:
    path = nrrd(folder)
    path.write_bytes(gzip.compress(path.read_bytes()))
    return path


@refused("cannot be read as an image|truncated")
def nrrd_with_a_damaged_gz(folder: Path) -> Path:
    path = nrrd(folder, encoding="gzip")
    head, _, _ = path.read_bytes().partition(b"\n\n")
    body = bytearray(gzip.compress(voxels().tobytes("F")))
    body[len(body) // 2] ^= 0xFF
    path.write_bytes(head + b"\n\n" + bytes(body[:-20]))
    return path


@refused("singular|cannot be read")
def nrrd_whose_axes_are_alike(folder: Path) -> Path:
    return nrrd(folder, **{"space directions": "(1,0,0) (1,0,0) (0,0,1)"})


@refused("NaN|singular|cannot be read")
def nrrd_whose_axes_are_no_numbers(folder: Path) -> Path:
    return nrrd(folder, **{"space directions": "(nan,0,0) (0,1,0) (0,0,1)"})
