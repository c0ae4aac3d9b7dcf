"""Runs of earlier versions, and new ones, trust a network as near to its padding as its loss did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from rarevox.networks import Geometry
from rarevox.pipeline.build import build
from rarevox.pipeline.compose import compose
from rarevox.pipeline.export.export import export, load
from rarevox.pipeline.inference.brought_up import brought_up
from rarevox.pipeline.inference.ensemble import EnsembleSegmenter
from rarevox.pipeline.inference.segment import Segmenter
from rarevox.pipeline.training.train import train


def edit(file: Path, change: Any) -> None:
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    change(config)
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


@pytest.fixture
def earlier(run_dir: Path, tmp_path: Path) -> Path:
    """A run whose loss left out 2 voxels, written when only the training's configuration said so."""
    run = tmp_path / "earlier"
    shutil.copytree(run_dir, run)
    for stage in ("inference", "evaluate"):

        def forget(config: dict[str, Any]) -> None:
            del config["loss_margin"], config["inferer"]["loss_margin"]

        edit(run / "configs" / f"{stage}.yaml", forget)

    def leave_out(config: dict[str, Any]) -> None:
        config["loss_margin"] = 2
        del config["inferer"]["loss_margin"]

    edit(run / "configs" / "train.yaml", leave_out)
    return run


@pytest.fixture
def item(task_dir: Path) -> dict[str, str]:
    return {"case": "case_00", "image": str(task_dir / "imagesTr" / "case_00.nii.gz")}


@pytest.mark.parametrize("stage", ["inference", "evaluate"])
def test_a_run_of_an_earlier_version_gets_the_zeros(earlier: Path, run_dir: Path, stage: str) -> None:
    assert Segmenter(earlier, stage, device="cpu").inferer.surround == (2, 2, 2)
    assert Segmenter(run_dir, stage, device="cpu").inferer.surround == (0, 0, 0)
    assert Segmenter(earlier, stage, device="cpu", settings=["inferer#loss_margin=0"]).inferer.surround == (0, 0, 0)


def test_an_exported_network_tells_what_its_inferer_does(earlier: Path, run_dir: Path, tmp_path: Path) -> None:
    assert load(earlier)[2]["geometry"]["loss_margin"] == [2, 2, 2]
    own = tmp_path / "own"
    shutil.copytree(run_dir, own)
    edit(own / "configs" / "inference.yaml", lambda config: config["inferer"].update(loss_margin=3))
    assert export(own, tmp_path / "network.ts") == 0
    assert json.loads((tmp_path / "network.json").read_text())["geometry"]["loss_margin"] == [3, 3, 3]


def test_what_is_no_number_and_other_inferers_are_left(tmp_path: Path) -> None:
    ours: dict[str, Any] = {"inferer": {"_target_": "rarevox.pipeline.inference.DenseInferer"}, "decision": {}}
    other = {"inferer": {"_target_": "monai.inferers.SlidingWindowInferer"}, "decision": {}}
    assert brought_up(ours, tmp_path) == ours, "no configuration of the training"
    (tmp_path / "configs").mkdir()
    for text, margin in (("0", None), ("18", 18), ("[4, 4, 0]", [4, 4, 0]), ("$9 + 9", None), ("true", None)):
        (tmp_path / "configs" / "train.yaml").write_text(f"loss_margin: {text}\n")
        assert brought_up(ours, tmp_path)["inferer"].get("loss_margin") == margin
        assert brought_up(other, tmp_path) == other
    (tmp_path / "configs" / "train.yaml").write_text("loss_margin: 18\n")
    said = {**ours, "inferer": {**ours["inferer"], "loss_margin": 0}}
    assert brought_up(said, tmp_path) == said


def test_the_margin_of_the_loss_is_the_inferers() -> None:
    config = compose("train", network="highresnet_paper", settings=["in_channels=1", "out_channels=2"]).config
    assert config["loss_margin"] == 18
    assert build(config, "inferer").surround == (18, 18, 18)


@pytest.mark.parametrize("stage", ["inference", "evaluate"])
def test_a_new_run_has_it_in_every_configuration(dataset_dir: Path, tmp_path: Path, stage: str) -> None:
    settings = ("network_def#width=2", "epoch_length=1", "validation_cases=0", "loss_margin=1")
    assert train(dataset_dir, tmp_path / "run", settings=settings, iterations=1, device="cpu") == 0
    assert Segmenter(tmp_path / "run", stage, device="cpu").inferer.surround == (1, 1, 1)


def test_runs_that_differ_in_it_share_their_preprocessing(earlier: Path, run_dir: Path, item: dict[str, str]) -> None:
    both = EnsembleSegmenter([run_dir, earlier], device="cpu")
    data = both.read(item)
    assert data["members"][0] is data["members"][1]


def test_slices_keep_all_of_them() -> None:
    settings = ["in_channels=1", "out_channels=2", "loss_margin=18"]
    config = compose("train", network="highresnet2d", settings=settings).config
    inferer = build(config, "inferer")
    assert inferer.surround == (18, 18, 0)
    assert isinstance(inferer.geometry, Geometry)
