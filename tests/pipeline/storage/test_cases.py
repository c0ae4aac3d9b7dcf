from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.preparation.prepare import prepare
from rarevox.pipeline.storage import cases as module
from rarevox.pipeline.storage.cases import on_device, training_cases
from rarevox.pipeline.storage.disk_cases import DiskCases
from rarevox.pipeline.storage.prepare_case import case_bytes, compact
from rarevox.pipeline.training.record.run_log import read_rows
from rarevox.pipeline.training.train import train
from rarevox.transforms import ForegroundIndex, IndexForegroundd
from tests.conftest import SMALL


def plain_case(number: int) -> dict[str, Any]:
    label = torch.zeros(1, 6, 6, 6, dtype=torch.uint8)
    label[0, number % 6, 2, 3] = 1
    return {"image": torch.full((1, 6, 6, 6), float(number)), "label": label, "case": str(number)}


def build(tmp_path: Path, cache: str, **options: Any) -> Any:
    data = [plain_case(number) for number in range(5)]
    return training_cases(data, dict, IndexForegroundd("label"), cache=cache, folder=tmp_path / "cache", **options)


@pytest.mark.parametrize("cache", ["auto", "memory", "disk", "device"])
@pytest.mark.parametrize("image_type", ["float32", "float16"])
def test_every_place_holds_the_same_cases(tmp_path: Path, cache: str, image_type: str) -> None:
    found = build(tmp_path, cache, image_type=image_type)
    assert isinstance(found, DiskCases) == (cache == "disk")
    for number, case in enumerate(found):
        assert torch.equal(case["image"].float(), plain_case(number)["image"])
        assert case["image"].dtype == getattr(torch, image_type)
        assert torch.equal(case["label"], plain_case(number)["label"])
        assert case["foreground"].classes == (1,)


def test_auto_is_the_disk_where_the_cases_take_over_half_of_the_memory(tmp_path: Path, monkeypatch, capsys) -> None:
    """A case: 6³ voxels of 4 + 1 bytes and 4 for the foreground voxel = 1084 bytes; five of them 5420."""
    assert case_bytes(build(tmp_path, "memory")[0]) == 1084
    monkeypatch.setattr(module, "available_memory_gb", lambda device: 2 * 5420e-9 + 1e-12)
    assert isinstance(build(tmp_path, "auto"), list)
    monkeypatch.setattr(module, "available_memory_gb", lambda device: 2 * 5420e-9 - 1e-12)
    assert isinstance(build(tmp_path, "auto"), DiskCases)
    assert "cached on disk" in capsys.readouterr().err


def test_what_does_not_fit_on_the_device_stays_in_memory(monkeypatch, capsys) -> None:
    monkeypatch.setattr(module, "available_memory_gb", lambda device: 1e-9)
    cases = [plain_case(0)]
    assert on_device(cases, torch.device("meta")) is cases
    assert "stay in memory" in capsys.readouterr().err
    monkeypatch.setattr(module, "available_memory_gb", lambda device: 1.0)
    assert on_device(cases, torch.device("meta"))[0]["image"].device.type == "meta"


def test_unknown_places_and_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cache is 'disc'; expected auto, memory, disk, device"):
        build(tmp_path, "disc")
    with pytest.raises(RequestError, match="cache_type is 'int8'; expected float32, float16"):
        build(tmp_path, "disk", image_type="int8")


def test_masks_of_whole_numbers_take_a_byte_and_others_stay() -> None:
    case = {"mask": torch.tensor([[0.0, 1.0]]), "image": torch.rand(1, 2, dtype=torch.float64), "meta": {"a": 1}}
    assert compact(case)["mask"].dtype == torch.uint8
    assert compact({"mask": torch.tensor([[0.5]])})["mask"].dtype == torch.float32
    assert set(compact(case)) == {"mask", "image"}
    assert case_bytes({"foreground": ForegroundIndex((3,), (), ())}) == 0


@pytest.mark.parametrize("cache", ["disk", "device"])
def test_training_does_not_depend_on_where_the_cases_are(dataset_dir: Path, tmp_path: Path, cache: str) -> None:
    losses = []
    for place in ("memory", cache):
        settings = [*SMALL, f"cache={place}", f"cache_dir={tmp_path / 'cache'}"]
        assert train(dataset_dir, tmp_path / place, settings=settings, iterations=4, device="cpu") == 0
        losses.append([row["loss"] for row in read_rows(tmp_path / place / "logs" / "train.jsonl")])
    assert losses[0] == losses[1]
    assert (tmp_path / "cache").is_dir() == (cache == "disk")


def test_a_run_with_batch_augmentation_resumes_exactly(dataset_dir: Path, tmp_path: Path) -> None:
    """Six steps in one go, and three, then three more; the overlay's augmentation in batches where the cases are."""
    options = {"config_files": ["device"], "settings": SMALL, "device": "cpu"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    kept = [*SMALL, "schedule#power=0.0", "schedule#warmup=0.0"]
    for folder, first in ((whole, 6), (parts, 3)):
        shutil.rmtree(folder, ignore_errors=True)
        assert train(dataset_dir, folder, iterations=first, **{**options, "settings": kept}) == 0
    assert train(dataset_dir, parts, iterations=6, device="cpu", resume=True) == 0
    losses = [{row["iteration"]: row["loss"] for row in read_rows(f / "logs" / "train.jsonl")} for f in (whole, parts)]
    assert losses[0] == losses[1]
    plain = tmp_path / "plain"
    settings = [*kept, "batch_augmentation=null"]
    assert train(dataset_dir, plain, iterations=2, **{**options, "settings": settings}) == 0
    assert read_rows(plain / "logs" / "train.jsonl")[0]["loss"] != losses[0][1]


def test_a_dataset_with_a_cache_can_be_prepared_again(task_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    for _ in range(2):
        assert prepare(task_dir, folder, holdout=0.25, folds=3, seed=0) == 0
        (folder / "cache" / "contents").mkdir(parents=True, exist_ok=True)


def test_the_default_cache_folder_is_the_datasets(dataset_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(dataset_dir, run, settings=[*SMALL, "cache=disk"], iterations=1, device="cpu") == 0
    assert list((dataset_dir / "cache").glob("case-*"))
    with pytest.raises(RequestError, match="cache is 'nowhere'"):
        train(dataset_dir, tmp_path / "other", settings=[*SMALL, "cache=nowhere"], iterations=1, device="cpu")
