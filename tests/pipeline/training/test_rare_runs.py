"""Runs with patches without foreground, hard ones among them, and planted lesions: what was drawn is as asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rarevox.pipeline.errors import RequestError
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
    """30 steps of 2 patches, one without foreground in each; half of all are planted, some in such patches."""
    found = json.loads((run / "logs" / "patches.json").read_text())
    assert found["patches"] == 60
    assert 5 <= found["without_foreground"] <= 30
    assert found["without_foreground_share"] == found["without_foreground"] / 60
    assert 5 <= found["planted"]["patches"] <= found["planted"]["lesions"] < found["planted"]["voxels"]
    assert 0 < found["redrawn"] <= 30
    assert "training patches before and after planting" in (run / "logs" / "planting.html").read_text()


@pytest.mark.parametrize(
    ("settings", "loss", "said"),
    [
        (["planting_share=0.5"], "component_dice_ce", "ComponentDiceCELoss needs the regions"),
        (["hard_share=0.5"], None, "set both, or neither"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(
    dataset_dir: Path, tmp_path: Path, settings: list[str], loss: str | None, said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        train(dataset_dir, tmp_path / "run", settings=(*SMALL, *settings), loss=loss, iterations=1, device="cpu")
    assert not (tmp_path / "run" / "models").exists()


def test_it_goes_on_where_it_stopped(run: Path, dataset_dir: Path, tmp_path: Path) -> None:
    """The losses of the steps after resuming are those of the run in a row, from the same rates."""
    settings = (*SMALL, *RARE, "schedule#power=0.0")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(dataset_dir, whole, settings=settings, iterations=12, device="cpu") == 0
    assert train(dataset_dir, parts, settings=settings, iterations=6, device="cpu") == 0
    assert train(dataset_dir, parts, resume=True, iterations=12, device="cpu") == 0
    assert rows(parts)[6:] == rows(whole)[6:]
