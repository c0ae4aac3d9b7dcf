from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.training.kept.checkpoint import save_tensors
from rarevox.pipeline.training.kept.initial_weights import InitialWeights, match, weights_of
from rarevox.pipeline.training.train import train
from tests.conftest import SMALL


def network(classes: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.BatchNorm1d(2), torch.nn.Conv1d(2, classes, 1))


def test_what_fits_is_taken_and_the_rest_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three classes instead of five: the last layer stays as it was initialised."""
    old, new = network(5), network(3)
    save_tensors({**old.state_dict(), "3.weight": torch.zeros(1)}, tmp_path / "model.pt")
    last = new[2].weight.clone()
    InitialWeights(new, weights=tmp_path / "model.pt", folder=tmp_path / "logs").load()
    assert torch.equal(new[0].weight, old[0].weight)
    assert torch.equal(new[2].weight, last)
    told = json.loads((tmp_path / "logs" / "initial_weights.json").read_text())
    assert told["not_taken"] == [
        {"layer": "2.weight", "here": [3, 2, 1], "there": [5, 2, 1]},
        {"layer": "2.bias", "here": [3], "there": [5]},
        {"layer": "3.weight", "here": None, "there": [1]},
    ]
    assert len(told["taken"]) == 7
    text = capsys.readouterr().err
    assert "7 tensors" in text
    assert "2.weight: (3, 2, 1) here, (5, 2, 1) there" in text
    assert "3.weight: absent here, (1,) there" in text


def test_another_network_is_refused(tmp_path: Path) -> None:
    save_tensors({"other.weight": torch.zeros(2), "num_batches_tracked": torch.tensor(1)}, tmp_path / "model.pt")
    with pytest.raises(RequestError, match="no layer of"):
        match(network(2), tmp_path / "model.pt")
    save_tensors({"optimizer": {"a": 1}}, tmp_path / "last.pt")
    with pytest.raises(RequestError, match="not a file of weights"):
        match(network(2), tmp_path / "last.pt")
    with pytest.raises(RequestError, match=r"no models/model\.pt"):
        weights_of(tmp_path / "nothing")


def test_a_run_starts_from_another_and_is_resumed_without_it(dataset_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    """With a rate of next to nothing the weights stay those of the other run; another network is refused at once."""
    still = [*SMALL, "optimizer#lr=1e-12"]
    run = tmp_path / "run"
    assert train(dataset_dir, run, settings=still, iterations=1, device="cpu", start_from=run_dir) == 0
    states = [torch.load(folder / "models" / "model.pt", weights_only=True) for folder in (run_dir, run)]
    for name, tensor in states[0].items():
        if tensor.is_floating_point() and "running" not in name:
            torch.testing.assert_close(states[1][name], tensor, rtol=1e-5, atol=1e-8)
    assert (run / "logs" / "initial_weights.json").exists()
    assert train(dataset_dir, run, iterations=2, device="cpu", resume=True) == 0
    with pytest.raises(RequestError, match="no layer of"):
        train(dataset_dir, tmp_path / "b", network="unet", iterations=1, device="cpu", start_from=run_dir)
    assert not (tmp_path / "b" / "configs").exists()
