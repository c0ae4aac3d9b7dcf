"""Runs with patches without foreground, hard ones among them, and planted lesions: what was drawn is as asked."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from rarevox.pipeline.compose import write_yaml
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.plain_data import read_yaml
from rarevox.pipeline.training.draws.scan_mining import ScanMining
from rarevox.pipeline.training.kept.checkpoint import load_tensors
from rarevox.pipeline.training.record.run_log import read_rows
from rarevox.pipeline.training.train import train
from tests.conftest import SMALL

RARE = (
    "patch_size=[8,8,8]",
    "background_share=0.5",
    "hard_share=0.5",
    "planting_share=0.5",
    "lesion_library#sizes=[1,200]",
)


def rows(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "logs" / "train.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rare") / "run"
    assert train(dataset_dir, folder, settings=(*SMALL, *RARE), iterations=30, device="cpu") == 0
    return folder


def test_a_run_says_what_it_drew(run: Path) -> None:
    """30 steps of 2 patches: one without foreground in each, which stays so; half of the others are planted, but for
    what finds no place: of 30 draws with p = ½ at most 15 + 5·√7.5 = 28."""
    found = json.loads((run / "logs" / "patches.json").read_text())
    assert (found["patches"], found["without_foreground"]) == (60, 30)
    planted = found["planted"]
    assert 3 <= planted["patches"] <= 28 and planted["patches"] <= planted["lesions"] < planted["voxels"]
    assert sum(planted["sizes"].values()) == sum(planted["donors"].values()) == planted["lesions"]
    assert sum(row["voxels"] for row in planted["structures"].values()) == planted["voxels"]
    assert all(name.startswith("case") for name in planted["donors"]) and planted["maps"] == 0
    assert 0 < found["redrawn"] <= 30
    page = (run / "logs" / "planting.html").read_text()
    assert "training patches before and after planting" in page
    assert f"{planted['lesions']} lesions of {planted['voxels']} voxels in {planted['patches']} patches" in page
    assert all(name in page for name in planted["donors"])


@pytest.mark.parametrize(
    ("settings", "loss", "said"),
    [
        (["planting_share=0.5"], "component_dice_ce", "ComponentDiceCELoss needs the regions"),
        (["hard_share=0.5"], None, "set both, or neither"),
        (["hard_scans=1", "background_share=0.5"], None, "hard_share, 0, draws none; set both, or neither"),
        (["hard_scans=half"], None, "hard_scans is 'half'; expected a whole number from 0"),
        (["planting_share=0.5", "background_share=1"], None, "no patch is drawn for foreground"),
        (["planting_share=0.5", "lesion_maps=maps"], None, r"map_class to be one of .*: 1, 2 \(1: ball, 2: box\)"),
        (
            ["planting_share=0.5", "lesion_maps=absent", "lesion_library#map_class=1"],
            None,
            "lesion_maps: absent holds no lesion",
        ),
        (["lesion_maps=maps"], None, "planting_share is 0: none is planted; set both"),
        (["planting_share=0.5", "planting#into=nowhere"], None, "into is 'nowhere'; expected one of"),
        (["planting_share=0.5", "lesion_library#sizes=[9,3]"], None, r"sizes are \[9, 3\]"),
        (
            ["sampler={_target_: rarevox.transforms.ForegroundUniformSampler, min_foreground: 0}"],
            None,
            "min_foreground is 0",
        ),
        (["required_channels=[intensity]"], None, "channel_dropout is 0: no channel may be missing"),
        (["channel_dropout=0.2", "required_channels=[XYZ]"], None, "required_channels names 'XYZ'"),
        (["train#dataset#patch=null", "background_share=0.5"], None, r"background_share \(0.5\) has no effect"),
        (
            ["train#dataset#patch=null", "background_share=0.5", "planting_share=0.5"],
            None,
            "have no effect on it; set planting_share=0, background_share=0",
        ),
        (["patience=0"], None, "patience is 0; expected a number of validations from 1"),
        (["ema_decay=1"], None, "ema_decay is 1; expected 0 to below 1"),
        (["planting_share=0.5", "spacing_seen_mm=[[1,1],[1,1],[1,3]]"], None, "voxels of 1 to 3 mm .*; set spacing"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(
    dataset_dir: Path, tmp_path: Path, settings: list[str], loss: str | None, said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        train(dataset_dir, tmp_path / "run", settings=(*SMALL, *settings), loss=loss, iterations=1, device="cpu")
    assert not (tmp_path / "run" / "models").exists()


def test_a_run_that_began_when_more_was_planted_goes_on(
    run: Path, dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between scans of several voxel sizes, and with maps of a class that nobody named: as it began, and it is said."""
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "configs" / "train.yaml"
    config = read_yaml(file)
    config["spacing_seen_mm"] = [[1, 1], [1, 1], [1, 3]]
    config["lesion_maps"] = str(tmp_path / "maps")
    del config["lesion_library"]["map_class"]
    file.write_text(write_yaml(config), encoding="utf-8")
    (tmp_path / "maps").mkdir()
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[2:5, 2:5, 2:5] = 1
    nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / "maps" / "one.nii.gz")
    steps = len(rows(run)) + 1
    assert train(dataset_dir, tmp_path / "run", iterations=steps, device="cpu", resume=True) == 0
    assert "the run goes on as it began" in capsys.readouterr().err
    assert len(rows(tmp_path / "run")) == steps
    assert read_yaml(file)["lesion_library"]["map_class"] == 1


@pytest.mark.parametrize("place", ["cache=disk", "cache=device", "workers=1"])
def test_planted_patches_are_the_same_wherever_they_are_made(
    run: Path, dataset_dir: Path, tmp_path: Path, place: str
) -> None:
    """The first loss is that of the same patches, planted among them; the rates of later ones are another run's."""
    assert train(dataset_dir, tmp_path / "run", settings=(*SMALL, *RARE, place), iterations=1, device="cpu") == 0
    assert rows(tmp_path / "run")[0] == rows(run)[0]
    assert json.loads((tmp_path / "run" / "logs" / "patches.json").read_text())["planted"]["patches"] == 1


def test_shapes_of_lesion_maps_are_planted_in_the_size_that_they_have(dataset_dir: Path, tmp_path: Path) -> None:
    """A cube of 2×2×2 voxels of 2×2×3 mm is one of 4×4×4 voxels of 1×1×1.5 mm."""
    (tmp_path / "maps").mkdir()
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[2:4, 2:4, 2:4] = 1
    nib.save(nib.Nifti1Image(mask, np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "maps" / "a.nii.gz")
    maps = [f"lesion_maps={tmp_path / 'maps'}", "lesion_library#map_class=2", "lesion_library#maps_share=1.0"]
    assert train(dataset_dir, tmp_path / "run", settings=(*SMALL, *RARE, *maps), iterations=8, device="cpu") == 0
    planted = json.loads((tmp_path / "run" / "logs" / "patches.json").read_text())["planted"]
    assert planted["lesions"] == planted["maps"] == planted["structures"]["box"]["lesions"] > 0
    assert planted["voxels"] == 64 * planted["lesions"]


def test_it_goes_on_where_it_stopped(run: Path, dataset_dir: Path, tmp_path: Path) -> None:
    """The losses of the steps after resuming are those of the run in a row, from the same rates."""
    settings = (*SMALL, *RARE, "schedule#power=0.0")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(dataset_dir, whole, settings=settings, iterations=12, device="cpu") == 0
    assert train(dataset_dir, parts, settings=settings, iterations=6, device="cpu") == 0
    assert train(dataset_dir, parts, resume=True, iterations=12, device="cpu") == 0
    assert rows(parts)[6:] == rows(whole)[6:]


MINED = ("hard_scans=2", "validations=4", "validation#share=1e9", "schedule#power=0.0")


def mined(run: Path) -> list[dict[str, int]]:
    return read_rows(run / "logs" / "mining.jsonl")


@pytest.fixture(scope="module")
def whole(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve steps, validated at 3, 6, 9 and 12."""
    run = tmp_path_factory.mktemp("mined") / "run"
    assert train(dataset_dir, run, settings=(*SMALL, *RARE, *MINED), iterations=12, device="cpu") == 0
    return run


def test_whole_training_scans_are_mined_after_each_validation_but_the_last(whole: Path) -> None:
    assert [(row["iteration"], row["scans"]) for row in mined(whole)] == [(3, 2), (6, 2), (9, 2)]
    assert 0 < sum(row["patches"] for row in mined(whole)) <= sum(row["false_lesions"] for row in mined(whole))


@pytest.mark.parametrize("moment", ["in the first scan", "in the last scan", "after the last scan"])
def test_a_signal_during_mining_leaves_it_to_be_done(
    moment: str, whole: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the second validation; then the rows, the losses and what is remembered are those of the run in a row."""
    look, one_scan, seen = ScanMining.look, ScanMining._mine, []

    def scan(self: ScanMining, *arguments: Any) -> Any:
        seen.append(self.turn)
        if seen.count(2) == {"in the first scan": 1, "in the last scan": 2}.get(moment):
            signal.raise_signal(signal.SIGTERM)
        return one_scan(self, *arguments)

    def all_scans(self: ScanMining, *arguments: Any) -> Any:
        found = look(self, *arguments)
        if self.turn == 2 and moment == "after the last scan":
            signal.raise_signal(signal.SIGTERM)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(ScanMining, "_mine", scan)
        patch.setattr(ScanMining, "look", all_scans)
        options: dict[str, Any] = {"settings": (*SMALL, *RARE, *MINED), "iterations": 12, "device": "cpu"}
        assert train(dataset_dir, tmp_path / "run", **options) == 143
    assert mined(tmp_path / "run") == mined(whole)[:1]
    assert train(dataset_dir, tmp_path / "run", device="cpu", resume=True) == 0
    assert mined(tmp_path / "run") == mined(whole) and rows(tmp_path / "run") == rows(whole)
    found, expected = (load_tensors(run / "models" / "last.pt") for run in (tmp_path / "run", whole))
    assert found["hard_patches"] == expected["hard_patches"] and found["scan_mining"] == {"turn": 6}


@pytest.mark.parametrize("place", ["cache=disk", "cache=device", "cache_type=float16", "ema_decay=0.9", "workers=1"])
def test_scans_are_mined_wherever_they_are_held(whole: Path, dataset_dir: Path, tmp_path: Path, place: str) -> None:
    """With the same false lesions where the network and the volumes are the same."""
    settings = (*SMALL, *RARE, *MINED, "validations=2", place)
    assert train(dataset_dir, tmp_path / "run", settings=settings, iterations=6, device="cpu") == 0
    assert [(row["iteration"], row["scans"]) for row in mined(tmp_path / "run")] == [(3, 2)]
    if place not in ("cache_type=float16", "ema_decay=0.9"):
        assert mined(tmp_path / "run") == mined(whole)[:1]


def test_scans_are_mined_where_nothing_is_validated(dataset_dir: Path, tmp_path: Path) -> None:
    settings = (*SMALL, *RARE, *MINED, "validation_cases=0")
    assert train(dataset_dir, tmp_path / "run", settings=settings, iterations=12, device="cpu") == 0
    state = load_tensors(tmp_path / "run" / "models" / "last.pt")
    assert state["scan_mining"] == {"turn": 6} and (tmp_path / "run" / "models" / "model.pt").exists()
    assert [row["iteration"] for row in mined(tmp_path / "run")] == [3, 6, 9]
