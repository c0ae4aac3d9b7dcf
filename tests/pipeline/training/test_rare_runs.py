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


def mined(run: Path) -> list[dict[str, int] | None]:
    return [json.loads(line).get("mined") for line in (run / "logs" / "validation.jsonl").read_text().splitlines()]


def test_whole_training_scans_are_mined_after_validations(
    dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each but the last, and as in a row where a signal comes in the midst of the second mining."""
    settings, whole, parts = (*SMALL, *RARE, *MINED), tmp_path / "whole", tmp_path / "parts"
    assert train(dataset_dir, whole, settings=settings, iterations=12, device="cpu") == 0
    told = mined(whole)
    assert [row and row["scans"] for row in told] == [2, 2, 2, None]
    assert sum(row["patches"] for row in told if row) > 0
    one_scan, seen = ScanMining._mine, []

    def interrupted(self: ScanMining, *arguments: Any) -> Any:
        seen.append(self.turn)
        if len(seen) == 3:
            signal.raise_signal(signal.SIGTERM)
        return one_scan(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ScanMining, "_mine", interrupted)
        assert train(dataset_dir, parts, settings=settings, iterations=12, device="cpu") == 143
    assert seen == [0, 0, 2] and mined(parts) == told[:1]
    assert train(dataset_dir, parts, device="cpu", resume=True) == 0
    assert mined(parts) == told and rows(parts) == rows(whole)


def test_scans_are_mined_where_nothing_is_validated(dataset_dir: Path, tmp_path: Path) -> None:
    settings = (*SMALL, *RARE, *MINED, "validation_cases=0")
    assert train(dataset_dir, tmp_path / "run", settings=settings, iterations=12, device="cpu") == 0
    state = load_tensors(tmp_path / "run" / "models" / "last.pt")
    assert state["scan_mining"] == {"turn": 6} and (tmp_path / "run" / "models" / "model.pt").exists()
