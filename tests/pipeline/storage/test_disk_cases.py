from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import shutil
import signal
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandCropByPosNegLabeld

from rarevox.pipeline.storage import disk_cases, entry
from rarevox.pipeline.storage.disk_cases import DiskCases
from rarevox.pipeline.training.draws.loader import patch_loader
from rarevox.pipeline.training.draws.patch_dataset import PatchDataset
from rarevox.transforms import ForegroundUniformSampler, IndexForegroundd, LabelsToClassesd, RandForegroundPatchd

FORK = multiprocessing.get_context("fork")


class Noted:
    """Loads a case and leaves a line for each one that was prepared."""

    def __init__(self, log: Path) -> None:
        self.log = str(log)
        keys = ["image", "label"]
        self.load = Compose([LoadImaged(keys), EnsureChannelFirstd(keys), LabelsToClassesd("label", [0, 1, 4])])

    def __call__(self, data: dict[str, Any]) -> Any:
        with Path(self.log).open("a") as handle:
            handle.write(data["case"] + "\n")
        return self.load(data)


@pytest.fixture
def scans(tmp_path: Path) -> list[dict[str, Any]]:
    cases = []
    for number in range(5):
        random = np.random.default_rng(number)
        labels = np.zeros((12, 11, 10), np.uint8)
        labels[number, 4:6, 3] = 4
        labels[8, 8, number] = 1
        files = {}
        for key, array in (("image", random.normal(size=labels.shape).astype(np.float32)), ("label", labels)):
            files[key] = str(tmp_path / f"{key}{number}.nii.gz")
            nib.save(nib.Nifti1Image(array, np.diag([1, 2, 3, 1])), files[key])
        cases.append({**files, "case": f"case{number}"})
    return cases


def prepared(log: Path) -> list[str]:
    return sorted(log.read_text().split()) if log.exists() else []


def make(scans: list[dict[str, Any]], tmp_path: Path, **options: Any) -> DiskCases:
    indexer = options.pop("indexer", IndexForegroundd("label"))
    return DiskCases(scans, Noted(tmp_path / "log"), indexer, folder=tmp_path / "cache", **options)


def test_cases_are_what_the_transforms_make_of_them(scans, tmp_path: Path) -> None:
    cases = make(scans, tmp_path)
    assert len(cases) == 5
    for number, case in enumerate(cases):
        direct = IndexForegroundd("label")(Noted(tmp_path / "other")(scans[number]))
        assert torch.equal(case["image"], direct["image"].as_tensor())
        assert torch.equal(case["label"], direct["label"].as_tensor())
        assert (case["image"].dtype, case["label"].dtype) == (torch.float32, torch.uint8)
        assert torch.equal(case["affine"], torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64)))
        assert case["case"] == f"case{number}"
        assert case["foreground"].classes == direct["foreground"].classes
        for a, b in zip(case["foreground"].voxels, direct["foreground"].voxels, strict=True):
            assert np.array_equal(a, b)


def test_a_second_run_prepares_nothing_and_other_files_or_options_are_prepared(scans, tmp_path: Path) -> None:
    log = tmp_path / "log"
    make(scans, tmp_path)
    assert prepared(log) == [f"case{n}" for n in range(5)]
    log.unlink()
    make(scans, tmp_path)
    assert prepared(log) == []
    image = nib.load(scans[2]["image"])
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32) + 1, image.affine), scans[2]["image"])
    changed = make(scans, tmp_path)
    assert prepared(log) == ["case2"]
    assert torch.equal(
        changed[2]["image"][0], torch.from_numpy(nib.load(scans[2]["image"]).get_fdata(dtype=np.float32))
    )
    log.unlink()
    half = make(scans, tmp_path, image_type=torch.float16)
    assert len(prepared(log)) == 5
    assert half[0]["image"].dtype == torch.float16


def test_another_sampler_or_patch_makes_new_indices_only(scans, tmp_path: Path) -> None:
    make(scans, tmp_path)
    (tmp_path / "log").unlink()
    for size in ((4, 4, 4), (5, 5, 5)):
        sampler = ForegroundUniformSampler()
        cases = make(scans, tmp_path, indexer=IndexForegroundd("label", sampler=sampler, patch_size=size))
        assert cases[0]["foreground"].rule == sampler.rule(RandForegroundPatchd("image", size).frame)
    assert prepared(tmp_path / "log") == []


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "entry.json"])
def test_damaged_entries_are_made_anew(scans, tmp_path: Path, name: str) -> None:
    expected = [case["image"].clone() for case in make(scans, tmp_path)]
    victim = sorted((tmp_path / "cache").glob("case-*"))[1]
    os.truncate(victim / name, (victim / name).stat().st_size - 7)
    shutil.rmtree(sorted((tmp_path / "cache").glob("index-*"))[3])
    (tmp_path / "log").unlink()
    again = make(scans, tmp_path)
    assert len(prepared(tmp_path / "log")) == 1
    assert all(torch.equal(case["image"], image) for case, image in zip(again, expected, strict=True))
    assert not list((tmp_path / "cache").glob(".*part"))


def test_processes_that_fill_one_folder_at_once_share_the_work(scans, tmp_path: Path) -> None:
    processes = [FORK.Process(target=make, args=(scans, tmp_path)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert prepared(tmp_path / "log") == [f"case{n}" for n in range(5)]
    assert len(list((tmp_path / "cache").glob("case-*"))) == 5


def die_while_writing(scans, tmp_path: Path) -> None:
    def kill(_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    entry._sync = kill
    make(scans, tmp_path)


def test_a_process_killed_while_it_writes_leaves_nothing_torn(scans, tmp_path: Path) -> None:
    process = FORK.Process(target=die_while_writing, args=(scans, tmp_path))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert list((tmp_path / "cache").glob(".case-*.part"))
    assert not list((tmp_path / "cache").glob("case-*"))
    cases = make(scans, tmp_path)
    assert not list((tmp_path / "cache").glob(".*part"))
    assert cases[0]["image"].shape == (1, 12, 11, 10)


def test_a_full_disk_is_told_once_and_the_cases_are_held_in_memory(scans, tmp_path: Path, monkeypatch, capsys) -> None:
    real, written = entry.write_entry, []

    def full(folder: Path, *rest: Any) -> bool:
        if len(written) >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(folder)
        return real(folder, *rest)

    monkeypatch.setattr(disk_cases, "write_entry", full)
    cases = make(scans, tmp_path)
    words = capsys.readouterr().err
    assert words.count("No space left on device") == 1
    assert "held in memory" in words
    monkeypatch.undo()
    for number, case in enumerate(cases):
        assert torch.equal(case["image"], Noted(tmp_path / "other").load(scans[number])["image"].as_tensor())
        assert case["foreground"].classes == (1, 2)
    assert len(prepared(tmp_path / "log")) == 5


def test_a_folder_that_cannot_be_made_leaves_the_cases_in_memory(scans, tmp_path: Path, capsys) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    cases = make(scans, tmp_path)
    assert "held in memory" in capsys.readouterr().err
    assert [case["case"] for case in cases] == [f"case{n}" for n in range(5)]


def test_worker_processes_draw_from_it_what_one_draws_from_memory(scans, tmp_path: Path) -> None:
    cases = make(scans, tmp_path)
    patch = RandForegroundPatchd(["image", "label"], (6, 6, 6))
    memory = [{key: v.clone() if isinstance(v, torch.Tensor) else v for key, v in case.items()} for case in cases]
    stored, held = PatchDataset(cases, patch=patch), PatchDataset(memory, patch=patch)
    loader = iter(patch_loader(stored, 4, workers=2))
    for step in range(5):
        batch, expected = next(loader), held.__getitems__(list(range(4 * step, 4 * step + 4)))
        assert all(torch.equal(batch[key], expected[key]) for key in expected)


def test_a_process_that_is_started_anew_opens_the_files(scans, tmp_path: Path) -> None:
    cases = make(scans, tmp_path)
    there = pickle.loads(pickle.dumps(cases))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(cases, there, strict=True))


def test_monais_own_transforms_cut_the_mapped_volumes(scans, tmp_path: Path) -> None:
    crop = RandCropByPosNegLabeld(["image", "label"], "label", (4, 4, 4), pos=1, neg=0)
    patch = crop(dict(make(scans, tmp_path)[0]))[0]
    assert patch["image"].shape == (1, 4, 4, 4)
    assert bool(patch["label"].any())
