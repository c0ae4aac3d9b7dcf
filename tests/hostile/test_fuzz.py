"""Headers of any content: a finite scan on a sane grid or one sentence; never another exception, a crash or a hang."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarevox.transforms.reading.geometry import FARTHEST_MM, POSSIBLE_MM
from tests.hostile.kinds import voxels
from tests.hostile.of_dicom import series
from tests.hostile.of_itk import mhd, nrrd
from tests.hostile.test_reading import LEAKS
from tests.hostile.trial import MEMORY_BYTES, Told, Trial, reading

NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 3.0, 1e-9, 1e-45, 1e12, 3e38, -3e38, np.nan, np.inf, -np.inf])
SIZES = st.sampled_from([-32768, -1, 0, 1, 2, 3, 5, 7, 8, 10, 12, 300, 32767])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "sizeof_hdr": st.sampled_from([348, 540, 0, -1, 349]),
    "dim": st.lists(SIZES, min_size=8, max_size=8),
    "pixdim": st.lists(NUMBERS, min_size=8, max_size=8),
    "datatype": st.sampled_from(
        [0, 1, 2, 4, 8, 16, 32, 64, 128, 255, 256, 512, 768, 1024, 1280, 1536, 1792, 2304, 9999]
    ),
    "bitpix": st.sampled_from([-1, 0, 1, 8, 16, 64, 32767]),
    "vox_offset": st.one_of(NUMBERS, st.sampled_from([0.0, 348.0, 351.5, 352.0, 360.0, 1000.0, -352.0])),
    "scl_slope": NUMBERS,
    "scl_inter": NUMBERS,
    "xyzt_units": st.integers(0, 255),
    "qform_code": st.integers(-1, 6),
    "sform_code": st.integers(-1, 6),
    "quatern_b": NUMBERS,
    "quatern_c": NUMBERS,
    "quatern_d": NUMBERS,
    "qoffset_x": NUMBERS,
    "srow_x": st.lists(NUMBERS, min_size=4, max_size=4),
    "srow_y": st.lists(NUMBERS, min_size=4, max_size=4),
    "srow_z": st.lists(NUMBERS, min_size=4, max_size=4),
    "intent_code": st.sampled_from([0, 1002, 1007, -1, 3000]),
    "magic": st.sampled_from([b"n+1", b"ni1", b"n+2", b"", b"n+9"]),
}
HEADERS = st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=4, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names})
)
ENDS = st.one_of(st.none(), st.integers(0, 1500))
FLIPS = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=3)
TEXTS = [
    "",
    "0",
    "-1",
    "1e400",
    "nan",
    "99999999999999999999",
    "LIST",
    "LOCAL",
    "%s",
    "\x00",
    "ü" * 50,
    "1 1 1",
    "12 10 8",
]
TEXTS += ["true", "gzip", "scan.raw", "(1,0,0) (0,1,0) (0,0,1)", "none none none", "(nan,inf,0) none"]
FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def homecoming(path: Path) -> Told:
    """Reading, and for what could be read a label map written on its grid: whether it lies where the scan does."""
    from rarevox.pipeline.data.volumes import write_labels
    from rarevox.transforms.reader import read_grid, read_scan, same_affine

    told = reading(path)
    if told.outcome == "refused":
        return told
    grid, labels = read_grid(path), path.parent / "labels.nii.gz"
    written = read_scan(write_labels(labels, np.ones(grid.shape, np.uint8), grid), dtype=None)
    same = written.shape == grid.shape and same_affine(written.affine, grid.affine, 1e-3 * max(grid.spacing_mm))
    return Told(told.outcome, told.sentence, told.facts | {"home": same})


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    with Trial(homecoming) as running:
        yield running


def require_told(told: Told, path: Path) -> None:
    assert told.outcome in ("read", "warned", "refused"), told
    assert told.peak_bytes < MEMORY_BYTES
    assert "\n" not in told.sentence
    assert not LEAKS.search(told.sentence.replace(str(path), ""))
    if told.outcome == "refused":
        assert path.parent.name in told.sentence  # the file, that with its voxels, or its folder
        return
    low, high = POSSIBLE_MM
    assert np.isfinite(told.facts["affine"]).all()
    assert np.abs(told.facts["affine"][:3, 3]).max() <= FARTHEST_MM
    assert all(low <= edge <= high for edge in told.facts["spacing_mm"])
    assert told.facts["voxel_ml"] > 0
    assert told.facts["same_grid"]
    assert told.facts["home"]


def fitted(value: Any, dtype: np.dtype) -> Any:
    """A value as a field of a header takes it: NIfTI-2 has whole numbers where NIfTI-1 has floats."""
    if dtype.kind != "i":
        return value
    return np.clip(np.nan_to_num(np.asarray(value, float)), -(2.0 ** (8 * dtype.itemsize - 1)), 2.0**15).astype(dtype)


def broken(content: bytes, flips: list[tuple[int, int]], end: int | None) -> bytes:
    changed = bytearray(content)
    for place, value in flips:
        changed[place % len(changed)] = value
    return bytes(changed[:end])


@FUZZ
@given(fields=HEADERS, flips=FLIPS, end=ENDS, packed=st.booleans(), version=st.sampled_from([1, 2]))
def test_any_nifti_header(
    fields: dict[str, Any],
    flips: list[tuple[int, int]],
    end: int | None,
    packed: bool,
    version: int,
    trial: Trial,
    tmp_path: Path,
) -> None:
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    file = io.BytesIO()
    kind(voxels((8, 7, 5)), np.diag([1.0, 1.5, 2.0, 1.0])).to_file_map(kind.make_file_map({"image": file}))
    content, size = file.getvalue(), 348 if version == 1 else 540
    header = kind.header_class(content[:size], check=False)
    for name, value in fields.items():
        if name != "magic" or version == 1:
            header[name] = fitted(value, header[name].dtype)
    content = broken(header.binaryblock + content[size:], flips, end)
    path = tmp_path / ("scan.nii.gz" if packed else "scan.nii")
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    require_told(trial(path), path)


@FUZZ
@given(flips=FLIPS, end=ENDS)
def test_any_damage_to_a_gz(flips: list[tuple[int, int]], end: int | None, trial: Trial, tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    nib.Nifti1Image(voxels((8, 7, 5)), np.eye(4)).to_filename(path)
    path.write_bytes(broken(path.read_bytes(), flips, end))
    require_told(trial(path), path)


@FUZZ
@given(data=st.data(), flips=FLIPS, end=ENDS)
@pytest.mark.parametrize("make", [mhd, nrrd])
def test_any_header_in_words(
    make: Any, data: st.DataObject, flips: list[tuple[int, int]], end: int | None, trial: Trial, tmp_path: Path
) -> None:
    path = make(tmp_path)
    head, mark, body = path.read_bytes().partition(b"\n\n")
    lines = head.decode().split("\n")
    for _ in range(data.draw(st.integers(1, 2))):
        number = data.draw(st.integers(0, len(lines) - 1))
        separator = " = " if make is mhd else ": "
        lines[number] = lines[number].split(separator)[0] + separator + data.draw(st.sampled_from(TEXTS))
    path.write_bytes(broken("\n".join(lines).encode() + mark + body, flips, end))
    require_told(trial(path), path)


@FUZZ
@given(which=st.integers(0, 3), flips=FLIPS, end=ENDS)
def test_any_damage_to_a_dicom_series(
    which: int, flips: list[tuple[int, int]], end: int | None, trial: Trial, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = series(tmp_path_factory.mktemp("fuzz"), count=4)
    files[which].write_bytes(broken(files[which].read_bytes(), flips, end))
    require_told(trial(files[0].parent), files[0].parent / "any")
