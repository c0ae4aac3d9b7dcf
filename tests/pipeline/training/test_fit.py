from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from rarevox.losses import ComponentDiceCELoss, GeneralizedDiceCELoss
from rarevox.networks import DeepMedic, Geometry, HighResNet
from rarevox.pipeline.compose import compose
from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.device import Precision
from rarevox.pipeline.training import fit
from rarevox.pipeline.training.fit import fit_batch, fit_to_data, seconds_per_patch, shrink_patch

KEEPS = Geometry(receptive_field=(87, 87, 87), preferred_multiple=4)


@pytest.mark.parametrize(("seconds", "expected"), [(0.01, 8), (0.25, 4), (0.5, 2), (1.0, 1), (50.0, 1)])
def test_the_batch_is_halved_until_600_steps_fit_into_600_seconds(seconds: float, expected: int) -> None:
    """600 s / 600 steps allow 1 s a step: 8 · 0.01, 4 · 0.25, 2 · 0.5, 1 · 1.0."""
    assert fit_batch(8, seconds, 600) == expected


def test_timing_leaves_the_network_as_it_was() -> None:
    network = HighResNet(in_channels=1, out_channels=2, width=2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    precision = Precision(torch.device("cpu"), torch.float32)
    assert seconds_per_patch(network, GeneralizedDiceCELoss(), (8, 8, 8), 1, 2, precision) > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_one_of_several_processes_times_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait for the configuration meanwhile: a sum over the processes would never end."""

    def refuse(_: torch.Tensor) -> None:
        raise AssertionError("the other processes were asked")

    for name, value in (("is_initialized", lambda: True), ("get_world_size", lambda: 2), ("all_reduce", refuse)):
        monkeypatch.setattr(torch.distributed, name, value)
    network, precision = (
        HighResNet(in_channels=1, out_channels=2, width=2),
        Precision(torch.device("cpu"), torch.float32),
    )
    loss = GeneralizedDiceCELoss(batch=True)
    with pytest.raises(AssertionError, match="were asked"):
        loss(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4, dtype=torch.uint8))
    assert seconds_per_patch(network, loss, (8, 8, 8), 1, 2, precision) > 0


def test_a_loss_of_component_regions_is_timed() -> None:
    precision = Precision(torch.device("cpu"), torch.float32)
    network = HighResNet(in_channels=1, out_channels=3, width=2)
    assert seconds_per_patch(network, ComponentDiceCELoss(batch=True), (8, 8, 8), 1, 3, precision) > 0


def test_a_patch_shrinks_in_proportion_and_not_below_24() -> None:
    """Half the voxels: 0.794 of each axis, 36 → 28.6 and 48 → 38.1, down to multiples of 4."""
    assert shrink_patch([36, 48, 36], KEEPS, 0.5) == [28, 36, 28]
    assert shrink_patch([36, 48, 36], KEEPS, 0.01) == [24, 24, 24]
    assert shrink_patch([20, 48, 36], KEEPS, 0.01) == [20, 24, 24]
    assert shrink_patch([36, 48, 36], KEEPS, 1.5) == [36, 48, 36]
    valid = DeepMedic(in_channels=1, out_channels=2).geometry
    assert shrink_patch([75, 75, 75], valid, 0.1) == [75, 75, 75]


@pytest.mark.parametrize(
    ("network", "settings", "stands"),
    [
        (None, [], True),
        (None, ["batch_size=3"], True),
        (None, ["patch_size=[16,16,16]"], False),
        (None, ["spacing=[2,2,2]"], False),
        (None, ["network_def#width=8"], False),
        ("deepmedic", [], False),
    ],
)
def test_a_plan_s_patch_stands_while_nothing_that_it_was_fitted_to_is_set(
    dataset_dir: Path, tmp_path: Path, network: str | None, settings: list[str], stands: bool
) -> None:
    """[40, 8, 8] is no patch that fitting would give."""
    dataset = tmp_path / "dataset"
    shutil.copytree(dataset_dir, dataset)
    plan = yaml.safe_load((dataset / "plan.yaml").read_text())
    (dataset / "plan.yaml").write_text(yaml.safe_dump(plan | {"patch_size": [40, 8, 8]}))
    data = Dataset.load(dataset)
    config = fit_to_data(compose("train", dataset=data, network=network, settings=settings), data)
    assert (config["patch_size"] == [40, 8, 8]) == stands
    assert ("patch_size=[16,16,16]" not in settings) or config["patch_size"] == [16, 16, 16]


def test_time_reduces_what_the_user_left_open(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A patch takes 1 s: 10 minutes hold 600 steps of one patch, the 600 that are enough; 5 minutes half as many."""
    monkeypatch.setattr(fit, "seconds_per_patch", lambda *_: 1.0)

    def fitted(minutes: float | None, *settings: str) -> tuple[int, list[int]]:
        composed = compose("train", settings=settings)
        usual = {"minutes": minutes, "batch_size": 4, "patch_size": [48, 48, 48]}
        config = fit.fit_to_time(composed, composed.config | usual)
        return config["batch_size"], config["patch_size"]

    assert fitted(None) == (4, [48, 48, 48])
    assert fitted(10) == (1, [48, 48, 48])
    said = "1.00 s here: batches of 1 instead of 4 (--set batch_size=4 keeps them), so that enough steps fit into"
    assert f"{said} 10 minutes" in capsys.readouterr().err
    assert fitted(1)[0] == 1
    said = capsys.readouterr().err
    assert "batches of 1 instead of 4 and patches of [32, 32, 32] instead of [48, 48, 48] (" in said
    assert said.rstrip().endswith("enough steps fit into 1 minute")
    assert fitted(5) == (1, [32, 32, 32])  # half the voxels: 38.1 an axis, down to a multiple of 16
    assert fitted(10, "patch_size=[48,48,48]") == (1, [48, 48, 48])
    assert fitted(5, "batch_size=4") == (4, [32, 32, 32])  # an eighth: 24 an axis, of which 32 is the next multiple
    assert fitted(5, "batch_size=4", "patch_size=[48,48,48]") == (4, [48, 48, 48])
