from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training.record.run_log import read_rows
from rarevox.pipeline.training.steps.weight_average import WeightAverage
from rarevox.pipeline.training.train import train
from tests.conftest import SMALL

LOGS = ("logs", "train.jsonl")


def test_the_average_by_hand() -> None:
    """Weights 1, 3, 5 with decay 0.1, which is below the warm-up's 2/11 and 3/12: 1; 0.1 + 0.9·3 = 2.8; 0.28 + 4.5."""
    network = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(network, decay=0.1)
    found = []
    for value in (1.0, 3.0, 5.0):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update()
        found.append(average.network.weight.item())
    assert found == pytest.approx([1.0, 2.8, 4.78])


def test_the_decay_warms_up() -> None:
    """After the first, which copies, update t keeps (1 + t) / (10 + t): 2/11 of 0 and 9/11 of 11 are 9."""
    network = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(network, decay=0.999)
    for value in (0.0, 11.0):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update()
    assert average.network.weight.item() == pytest.approx(9.0)


def test_statistics_are_averaged_and_counters_taken_over() -> None:
    network = torch.nn.BatchNorm1d(1)
    average = WeightAverage(network, decay=0.0)
    for step in range(3):
        network(torch.full((4, 1), float(step)))
        average.update()
    assert torch.equal(average.network.running_mean, network.running_mean)
    assert average.network.num_batches_tracked.item() == 3
    slow = WeightAverage(network, decay=0.5)
    slow.update()
    with torch.no_grad():
        network.running_mean.fill_(7.0)
    before = slow.network.running_mean.item()
    slow.update()
    assert before < slow.network.running_mean.item() < 7.0


def test_a_decay_of_1_is_refused() -> None:
    with pytest.raises(RequestError, match="ema_decay is 1"):
        WeightAverage(torch.nn.Linear(1, 1), decay=1.0)


def test_training_is_untouched_and_the_average_is_kept_and_resumed(dataset_dir: Path, tmp_path: Path) -> None:
    plain, whole, parts = tmp_path / "plain", tmp_path / "whole", tmp_path / "parts"
    once = [*SMALL, "validations=1"]  # so that the last weights are the best
    assert train(dataset_dir, plain, settings=once, iterations=8, device="cpu") == 0
    assert train(dataset_dir, whole, config_files=["ema"], settings=once, iterations=8, device="cpu") == 0
    losses = [[row["loss"] for row in read_rows(run.joinpath(*LOGS))] for run in (plain, whole)]
    assert losses[0] == losses[1]

    kept, last = (torch.load(whole / "models" / name, weights_only=True) for name in ("model.pt", "last.pt"))
    averaged = {name: tensor for name, tensor in last["ema"].items() if name != "n_averaged"}
    assert all(torch.equal(tensor, averaged[f"module.{name}"]) for name, tensor in kept.items())
    assert not all(torch.equal(tensor, last["network"][name]) for name, tensor in kept.items())

    settings = [*SMALL, "schedule#power=0", "schedule#warmup=0"]  # a rate that does not depend on the budget
    for run, steps, again in ((whole.with_name("w"), 8, False), (parts, 4, False), (parts, 8, True)):
        options = {} if again else {"settings": settings, "config_files": ["ema"]}
        assert train(dataset_dir, run, iterations=steps, device="cpu", resume=again, **options) == 0
    states = [torch.load(run / "models" / "last.pt", weights_only=True)["ema"] for run in (tmp_path / "w", parts)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
