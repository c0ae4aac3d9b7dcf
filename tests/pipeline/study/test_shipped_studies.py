"""The studies that come with rarevox: the paper's axes, cells that can be composed, no part of a run's vocabulary."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rarevox.pipeline.build import build
from rarevox.pipeline.compose import CONFIGS
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.study.cells import cells_of
from rarevox.pipeline.study.checks import composed_cell
from rarevox.pipeline.study.plan import PlannedCell
from rarevox.pipeline.study.results.outcomes import edge
from rarevox.pipeline.study.results.paper import LOSSES, SETTINGS, loss_name, network_name
from rarevox.pipeline.study.study_file import read_study
from rarevox.pipeline.trust.vocabulary import vocabulary

SHIPPED = {"paper_2d": 72, "paper_3d": 72, "paper_3d_small": 72, "imbalance": 72, "networks": 8}


def cells(name: str) -> tuple[PlannedCell, ...]:
    return cells_of(read_study(name))


def of_one_rate_and_loss(name: str) -> list[PlannedCell]:
    """The cells that differ in network and patch."""
    first = cells(name)[0].labels
    return [cell for cell in cells(name) if (cell.labels["loss"], cell.labels["lr"]) == (first["loss"], first["lr"])]


def effective(config: dict[str, Any]) -> float:
    """The edge of what the loss sees."""
    geometry = build(config, "geometry")
    out = geometry.output_size(config["patch_size"])
    margins = geometry.loss_margins(config["loss_margin"])
    return edge([n - 2 * m for n, m in zip(out, margins, strict=True)])


def test_every_shipped_study_has_its_cells() -> None:
    assert {path.stem: len(cells(path.stem)) for path in (CONFIGS / "studies").glob("*.yaml")} == SHIPPED


@pytest.mark.parametrize("name", ["paper_2d", "paper_3d"])
def test_the_papers_studies_have_the_papers_axes(name: str, dataset_dir: Path) -> None:
    study = read_study(name)
    assert [loss_name(label) for label in study.axes["loss"]] == list(LOSSES)
    assert list(study.axes["lr"]) == ["1e-5", "1e-4", "1e-3"]
    assert (study.last, study.base["iterations"]) == (200, 1000 if name == "paper_2d" else 3000)
    data = Dataset.load(dataset_dir)
    for cell in of_one_rate_and_loss(name):
        config = composed_cell(cell, data, device="cpu")
        setting = SETTINGS[network_name(cell.labels["network"]), cell.labels["patch"]]
        assert config["batch_size"] == setting.batch
        assert edge(config["patch_size"]) == setting.initial
        assert effective(config) == setting.effective, cell.name


def test_the_small_study_halves_the_effective_patches(dataset_dir: Path) -> None:
    data = Dataset.load(dataset_dir)
    for cell in of_one_rate_and_loss("paper_3d_small"):
        config = composed_cell(cell, data, device="cpu")
        setting = SETTINGS[network_name(cell.labels["network"]), cell.labels["patch"]]
        step = 3 if cell.labels["network"] == "DeepMedic" else 2  # multiples that each network's patches lead to
        assert config["batch_size"] == setting.batch
        assert effective(config) == max(step, step * round(setting.effective / 2 / step + 1e-9)), cell.name


def test_the_study_of_imbalance_tries_every_loss_at_every_share() -> None:
    study = read_study("imbalance")
    overlays = {path.stem for path in (CONFIGS / "losses").glob("*.yaml")}
    # two_optimizers sets how weights change, which the other losses leave to the study.
    assert set(study.axes["loss"]) == overlays - {"two_optimizers"}
    datasets = Counter(cell.settings["dataset"] for cell in cells("imbalance"))
    assert set(datasets.values()) == {len(study.axes["loss"])}
    assert list(datasets) == [f"share_1e-{k}" for k in (2, 3, 4, 5)]


@pytest.mark.parametrize("loss", sorted(read_study("imbalance").axes["loss"]))
def test_every_loss_of_the_study_of_imbalance_composes(loss: str, dataset_dir: Path) -> None:
    cell = next(cell for cell in cells("imbalance") if cell.labels["loss"] == loss)
    config = composed_cell(cell, Dataset.load(dataset_dir), device="cpu")
    assert config["optimizer"]["_target_"] == "torch.optim.Adam"


def test_studies_give_a_run_no_words() -> None:
    assert "axes" not in vocabulary().entries
    assert "record" not in vocabulary().entries
