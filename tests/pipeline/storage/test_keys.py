from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad, LoadImaged, Orientationd, ScaleIntensityd, Spacingd

from rarevox.pipeline.storage import keys
from rarevox.pipeline.storage.keys import ContentHashes, configuration_key, describe
from rarevox.transforms import (
    CTWindowd,
    ForegroundUniformSampler,
    IndexForegroundd,
    NyulNormalised,
    ScanReader,
    ZScored,
)
from rarevox.transforms.reader import ScanError


def preprocessing(spacing: float = 1.0, region: str = "image") -> Compose:
    return Compose(
        [
            LoadImaged(["image", "label"], reader=ScanReader(), ensure_channel_first=True, image_only=True),
            Orientationd(["image", "label"], axcodes="RAS", labels=None),
            Spacingd(["image", "label"], (spacing,) * 3, mode=["bilinear", "nearest"]),
            ZScored("image", region),
        ]
    )


def test_equal_configurations_have_equal_keys_whatever_was_drawn_before() -> None:
    first = configuration_key(preprocessing())
    np.random.seed(5)
    torch.manual_seed(5)
    second = preprocessing()
    second.set_random_state(seed=9)
    assert configuration_key(second) == first


def test_keys_are_the_same_in_another_process() -> None:
    code = (
        "from tests.pipeline.storage.test_keys import preprocessing\n"
        "from rarevox.pipeline.storage.keys import configuration_key\n"
        "print(configuration_key(preprocessing()))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == configuration_key(preprocessing())


def test_every_option_changes_the_key() -> None:
    offset = 2.0
    variants = [
        preprocessing(),
        preprocessing(spacing=1.1),
        preprocessing(region="nonzero"),
        Compose(preprocessing().transforms[:-1]),
        Compose(list(preprocessing().transforms)[::-1]),
        CTWindowd("image", "brain"),
        CTWindowd("image", "lung"),
        ScaleIntensityd("image", 0, 1),
        ScaleIntensityd("image", 0, 2),
        Lambdad("image", lambda x: x + 1),
        Lambdad("image", lambda x: x + 2),
        Lambdad("image", lambda x: x * 2),
        Lambdad("image", lambda x: x + offset),
        Lambdad("image", functools.partial(torch.add, other=1)),
        Lambdad("image", functools.partial(torch.add, other=2)),
        NyulNormalised("image", landmarks=[[0.0] + [float(n) for n in range(1, 11)]]),
        NyulNormalised("image", landmarks=[[0.0] + [float(n) for n in range(1, 10)] + [10.5]]),
        IndexForegroundd("label", sampler=ForegroundUniformSampler(), patch_size=(4, 4, 4)),
        IndexForegroundd("label", sampler=ForegroundUniformSampler(2), patch_size=(4, 4, 4)),
        IndexForegroundd("label", sampler=ForegroundUniformSampler(), patch_size=(4, 4, 5)),
    ]
    found = [configuration_key(variant) for variant in variants]
    assert len(set(found)) == len(variants)
    assert configuration_key(preprocessing(), image_type="float16") not in found


def test_versions_and_sources_change_the_key(monkeypatch) -> None:
    before = configuration_key(preprocessing())
    monkeypatch.setattr(keys, "_version", lambda package: "0.0.1")
    keys._origin.cache_clear()
    changed = configuration_key(preprocessing())
    monkeypatch.undo()
    keys._origin.cache_clear()
    assert changed != before
    monkeypatch.setattr(keys, "_files_digest", lambda files: "another source")
    keys._origin.cache_clear()
    changed = configuration_key(preprocessing())
    monkeypatch.undo()
    keys._origin.cache_clear()
    assert changed != before
    assert configuration_key(preprocessing()) == before


def test_arrays_count_with_every_value_and_circles_end() -> None:
    a, b = torch.zeros(1000), torch.zeros(1000)
    b[500] = 1e-3
    assert describe(a) != describe(b)
    loop: dict[str, object] = {}
    loop["itself"] = loop
    assert describe(loop) == {"itself": "itself"}


def old(path: Path, content: bytes, seconds: float = 1000.0) -> Path:
    path.write_bytes(content)
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_contents_name_a_file_not_its_name_or_time(tmp_path: Path) -> None:
    hashes = ContentHashes(tmp_path / "notes")
    first, copy = old(tmp_path / "a.nii.gz", b"voxels"), old(tmp_path / "b.nii.gz", b"voxels", 5)
    assert hashes.of(first) == hashes.of(copy)
    assert hashes.of_case({"image": str(first), "case": "a"}) == hashes.of_case({"image": str(copy), "case": "b"})
    other = old(tmp_path / "c.nii.gz", b"Voxels")
    assert hashes.of(other) != hashes.of(first)
    assert hashes.of_case({"image": str(first)}) != hashes.of_case({"label": str(first)})
    assert hashes.of_case({"image": [str(first), str(other)]}) != hashes.of_case({"image": [str(other), str(first)]})


def test_a_changed_file_is_read_again_even_with_its_old_time(tmp_path: Path, monkeypatch) -> None:
    """Content of the same length, and the modification time set back: the change time gives it away."""
    monkeypatch.setattr(keys, "FRESH_SECONDS", -1.0)
    hashes, path = ContentHashes(tmp_path / "notes"), old(tmp_path / "a.nii", b"voxels")
    before = hashes.of(path)
    assert any((tmp_path / "notes").iterdir())
    state = path.stat()
    while path.stat().st_ctime_ns == state.st_ctime_ns:  # the file system's clock has ticks of its own
        path.write_bytes(b"VOXELS")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert hashes.of(path) != before


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(keys, "FRESH_SECONDS", -1.0)
    hashes, path = ContentHashes(tmp_path / "notes"), old(tmp_path / "a.nii", b"voxels")
    found = hashes.of(path)
    monkeypatch.setattr(keys.hashlib, "sha256", None)
    monkeypatch.setattr(keys, "digest", lambda content: next((tmp_path / "notes").iterdir()).stem)
    assert hashes.of(path) == found


def test_a_dicom_folder_counts_with_all_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "1.dcm").write_bytes(b"one")
    hashes = ContentHashes(tmp_path / "notes")
    before = hashes.of(folder)
    (folder / "2.dcm").write_bytes(b"two")
    assert hashes.of(folder) != before


def test_a_header_counts_with_the_files_that_hold_its_voxels(tmp_path: Path) -> None:
    """Named in the header, by a pattern or one by one, or called like it; what belongs to other headers does not."""
    meta = "ObjectType = Image\nNDims = 3\nDimSize = 2 3 1\nElementType = MET_UCHAR\n"
    nrrd = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 3 1\nencoding: raw\n"
    headers = {
        "a.mhd": f"{meta}ElementDataFile = voxels.raw\n",
        "b.nhdr": f"{nrrd}data file: ./voxels.raw\n",
        "c.nhdr": f"{nrrd}data file: LIST\nvoxels.raw\nmore.raw\n",
        "d.mhd": f"{meta}ElementDataFile = slice%03d.raw 1 2 1\n",
        "f.mhd": f"{meta}ElementDataFile = LOCAL\n" + "x" * 5000,
        "g.nii": f"{meta}ElementDataFile = voxels.raw\n",
    }
    for name, text in headers.items():
        (tmp_path / name).write_text(text)
    for name in ("voxels.raw", "more.raw", "slice001.raw", "slice002.raw"):
        (tmp_path / name).write_bytes(b"voxels")
    nib.Nifti1Pair(np.zeros((2, 3, 1), np.uint8), np.eye(4)).to_filename(tmp_path / "e.img")
    headers["e.hdr"] = ""
    hashes = ContentHashes(tmp_path / "notes")

    def changed(file: str) -> set[str]:
        before = {name: hashes.of(tmp_path / name) for name in headers}
        (tmp_path / file).write_bytes(b"others")
        return {name for name in headers if hashes.of(tmp_path / name) != before[name]}

    assert changed("voxels.raw") == {"a.mhd", "b.nhdr", "c.nhdr", "g.nii"}
    assert changed("more.raw") == {"c.nhdr"}
    assert changed("slice001.raw") == {"d.mhd"}
    assert changed("e.img") == {"e.hdr"}


def test_a_pipe_is_refused_and_never_opened(tmp_path: Path) -> None:
    hashes = ContentHashes(tmp_path / "notes")
    os.mkfifo(tmp_path / "scan.nii.gz")
    with pytest.raises(ScanError, match="is a named pipe"):
        hashes.of(tmp_path / "scan.nii.gz")
    with pytest.raises(ScanError, match="does not exist"):
        hashes.of(tmp_path / "gone.nii.gz")
    os.mkfifo(tmp_path / "voxels.raw")
    (tmp_path / "a.mhd").write_text("ObjectType = Image\nElementDataFile = voxels.raw\n")
    assert hashes.of(tmp_path / "a.mhd")  # what is wrong with it is told when it is read
