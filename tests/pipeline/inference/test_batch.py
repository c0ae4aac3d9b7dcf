"""A batch with anything in it: the good scans are done, all else is a row, and every row's maps are there."""

from __future__ import annotations

import json
import os
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from rarevox.pipeline import locks
from rarevox.pipeline.compose import dataset_facts
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.device import is_out_of_memory
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.predict import predict
from rarevox.pipeline.inference.probabilities import ProbabilityMaps
from rarevox.pipeline.inference.segment import Segmentation, Segmenter
from rarevox.pipeline.locks import held
from rarevox.pipeline.preparation.prepare import prepare
from tests.hostile.of_entries import ENTRIES
from tests.pipeline.inference.books import BOOKS


@pytest.fixture
def scans(task_dir: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, name in enumerate("ab"):
        shutil.copy(task_dir / "imagesTr" / f"case_{number:02}.nii.gz", folder / f"{name}.nii.gz")
    return folder


def rows(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "predictions.json").read_text(encoding="utf-8"))["scans"]


def status(out: Path) -> dict[str, str]:
    return {row["case"]: row["status"] for row in rows(out)}


def test_entries_that_are_no_scans_are_rows_beside_the_good_ones(run_dir: Path, scans: Path, tmp_path: Path) -> None:
    for make in ENTRIES:
        inner = scans / make.__name__
        inner.mkdir()
        make(inner)
    out = tmp_path / "out"
    assert predict(run_dir, [scans], out, device="cpu") == 1
    found = rows(out)
    assert [row["case"] for row in found if row["status"] == "ok"] == ["a", "b"]
    others = [row for row in found if row["status"] != "ok"]
    assert len(others) == len(ENTRIES)
    assert all(row["reason"] for row in others)


def test_arguments_that_are_no_scans_are_rows_beside_the_good_ones(run_dir: Path, scans: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.nii.gz")
    bad = [tmp_path / "empty", tmp_path / "pipe.nii.gz", tmp_path / "none.nii.gz", scans / "a.nii.gz"]
    out = tmp_path / "out"
    assert predict(run_dir, [*bad, scans], out, device="cpu") == 1
    assert [(row["case"], row["status"]) for row in rows(out)] == [
        ("a", "ok"),
        ("b", "ok"),
        ("empty", "failed"),
        ("pipe", "failed"),
        ("none", "failed"),
        ("a", "ignored"),
    ]
    with pytest.raises(RequestError, match="no scans in"):
        predict(run_dir, bad[:3], tmp_path / "nothing", device="cpu")


def test_names_that_are_not_utf8_and_of_every_length(run_dir: Path, scans: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"sc\xffan")
    (scans / "a.nii.gz").rename(scans / f"{odd}.nii.gz")
    long, longer = "l" * 244, "m" * 248  # with "_seg.nii.gz" 255 bytes, and 259
    shutil.copy(scans / "b.nii.gz", scans / f"{long}.nii.gz")
    shutil.copy(scans / "b.nii.gz", scans / f"{longer}.nii.gz")
    out = tmp_path / "out"
    for _ in range(2):
        assert predict(run_dir, [scans], out, device="cpu") == 1
        assert status(out) == {odd: "ok", "b": "ok", long: "ok", longer: "failed"}
    assert {path.name for path in out.glob("*.nii.gz")} == {f"{case}_seg.nii.gz" for case in (odd, "b", long)}
    assert "259 bytes where 255 are allowed" in rows(out)[-1]["reason"]


def test_two_calls_into_one_folder(run_dir: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.0)
    out = tmp_path / "out"
    out.mkdir()
    with held(out), pytest.raises(RequestError, match="another call is writing into"):
        predict(run_dir, [scans], out, device="cpu")
    assert predict(run_dir, [scans], out, device="cpu") == 0
    assert {path.name for path in out.iterdir()} == {"a_seg.nii.gz", "b_seg.nii.gz", *BOOKS}


def _after_the_first(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Act when the first scan has been stored."""
    real = Segmenter.__call__

    def call(self: Segmenter, *arguments: Any) -> Iterator[Segmentation]:
        for number, found in enumerate(real(self, *arguments)):
            if number == 1:
                act()
            yield found

    monkeypatch.setattr(Segmenter, "__call__", call)


def test_a_folder_that_is_moved_away_midway_is_noticed(
    run_dir: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _after_the_first(monkeypatch, lambda: out.rename(tmp_path / "moved"))
    assert predict(run_dir, [scans], out, device="cpu") == 1
    assert status(out) == {"a": "failed", "b": "ok"}
    assert "the folder was moved or emptied" in rows(out)[0]["reason"]
    assert (out / "b_seg.nii.gz").is_file()


def test_maps_of_other_settings_are_refused_unless_all_are_written_anew(
    run_dir: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert predict(run_dir, [scans], out, device="cpu") == 0
    before = (out / "b_seg.nii.gz").read_bytes()
    with pytest.raises(RequestError, match=r"maps that this call would not write anew, .*: b_seg\.nii\.gz;"):
        predict(run_dir, [scans / "a.nii.gz"], out, device="cpu", settings=["inferer#flips=[0]"])
    assert (out / "b_seg.nii.gz").read_bytes() == before
    assert predict(run_dir, [scans], out, device="cpu", settings=["inferer#flips=[0]"]) == 0
    assert status(out) == {"a": "ok", "b": "ok"}


def test_maps_of_the_same_run_and_settings_stay_listed(run_dir: Path, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(run_dir, [scans / "a.nii.gz"], out, device="cpu") == 0
    assert predict(run_dir, [scans / "b.nii.gz"], out, device="cpu") == 0
    assert status(out) == {"a": "ok", "b": "ok"}


def test_a_map_that_nobody_listed_is_refused(run_dir: Path, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(scans / "a.nii.gz", out / "z_seg.nii.gz")
    with pytest.raises(RequestError, match="z_seg"):
        predict(run_dir, [scans], out, device="cpu")


@pytest.mark.parametrize("content", ["[]", '{"scans": {}}', '{"scans": [1]}', '{"scans": [{"case": 1}]}'])
def test_an_earlier_list_of_another_form_is_refused_in_a_sentence(
    content: str, run_dir: Path, scans: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.json").write_text(content)
    with pytest.raises(RequestError, match="remove the file, or give another --output"):
        predict(run_dir, [scans], tmp_path / "out", device="cpu")


def test_scratch_that_does_not_fit_is_an_error_and_no_signal(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: memory mapped beyond it would end the process."""
    maps = ProbabilityMaps(["x"], "uint8", tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(OSError, match="no room for 0.001 GB of probabilities"):
            maps.begin((100, 100, 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    maps.begin((20, 20, 20))
    assert not maps.maps[0].any()


def test_the_scratch_is_on_the_disk_before_it_is_used(tmp_path: Path) -> None:
    maps = ProbabilityMaps(["x"], "uint16", tmp_path)
    maps.begin((64, 64, 64))
    (file,) = tmp_path.glob(".*.part.*/0.raw")
    assert file.stat().st_blocks * 512 >= 64**3 * 2


@pytest.mark.parametrize(
    "words",
    [
        "could not create a primitive",
        "could not create a memory object",
        "std::bad_alloc",
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
        "Failed to allocate memory for image.",
    ],
)
def test_lack_of_memory_in_everybody_s_words(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = MemoryError()
    assert is_out_of_memory(wrapped)
    assert not is_out_of_memory(RuntimeError("could not create a window"))


def _items(scans: Path) -> list[dict[str, str]]:
    return [{"case": name, "image": str(scans / f"{name}.nii.gz")} for name in "ab"]


def test_a_scan_that_is_too_large_ends_no_later_one(
    run_dir: Path, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network's first scan never fits, in oneDNN's words, and while it is there nothing else is read."""
    segmenter = Segmenter(run_dir, device="cpu")
    real_read, real_call = segmenter.read, segmenter.inferer.inside
    large = threading.Event()

    def read(item: dict[str, str]) -> dict[str, Any]:
        if item["case"] == "b" and large.is_set():
            raise MemoryError
        data = real_read(item)
        if item["case"] == "a":
            large.set()
        return data | {"case": item["case"]}

    def inside(image: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        if large.is_set():
            large.clear()
            raise RuntimeError("could not create a primitive")
        return real_call(image, *arguments, **options)

    monkeypatch.setattr(segmenter, "read", read)
    monkeypatch.setattr(segmenter.inferer, "inside", inside)
    found = list(segmenter(_items(scans)))
    assert [one.case for one in found] == ["a", "b"]
    assert "memory ran out" in found[0].reason
    assert found[1].reason == ""


def test_what_could_not_be_read_beside_another_scan_is_read_alone(
    run_dir: Path, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter(run_dir, device="cpu")
    real_read, tried = segmenter.read, []

    def read(item: dict[str, str]) -> dict[str, Any]:
        tried.append(item["case"])
        if tried == ["a", "b"]:
            raise MemoryError
        return real_read(item)

    monkeypatch.setattr(segmenter, "read", read)
    assert [one.reason for one in segmenter(_items(scans))] == ["", ""]
    assert tried == ["a", "b", "b"]


def test_what_prepare_fix_mends_is_mended_in_prediction(
    run_dir: Path, task_dir: Path, scans: Path, tmp_path: Path
) -> None:
    """NaN around the head: a run whose dataset was mended takes such a scan, and says so; another run refuses it."""
    source = tmp_path / "source"
    shutil.copytree(task_dir, source)
    (target,) = source.glob("imagesTr/case_00.nii.gz")
    for file in (target, scans / "a.nii.gz"):
        volume = nib.load(file)
        array = np.asarray(volume.dataobj).copy()
        array[0], array[-1] = np.nan, np.nan
        nib.save(nib.Nifti1Image(array, volume.affine), file)
    dataset = tmp_path / "dataset"
    assert prepare(source, dataset, holdout=0.25, folds=3, seed=0, fix=True) == 0
    facts = dataset_facts(Dataset.load(dataset))
    assert facts["fill_surround"]
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    config = yaml.safe_load((run / "configs" / "inference.yaml").read_text())
    assert not config["fill_surround"]
    (run / "configs" / "inference.yaml").write_text(yaml.safe_dump(config | facts, sort_keys=False))
    assert predict(run_dir, [scans], tmp_path / "plain", device="cpu") == 1
    assert status(tmp_path / "plain") == {"a": "failed", "b": "ok"}
    assert predict(run, [scans], tmp_path / "mended", device="cpu") == 0
    assert "NaN voxels of the surround set to 0" in rows(tmp_path / "mended")[0]["warning"]
