"""Whole trainings whose steps are read late, as on a GPU: the same weights, log and record, also taken up anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rarevox.losses import GeneralizedDiceCELoss
from rarevox.pipeline.training.kept.checkpoint import load_tensors
from rarevox.pipeline.training.record.batch_record import read_record
from rarevox.pipeline.training.record.run_log import read_rows
from rarevox.pipeline.training.steps import muon
from rarevox.pipeline.training.steps.late import LateLoss
from rarevox.pipeline.training.steps.step import TrainingStep
from rarevox.pipeline.training.train import train
from tests.conftest import SMALL

QUICK = (*SMALL, "validation_cases=0", "batch_record#keep=true", "schedule#power=0", "schedule#warmup=0")
BAD = 4


def run_of(monkeypatch, dataset_dir: Path, run: Path, *, late: bool, parts: tuple[int, ...] = (6,)) -> Path:
    """A training of which step ``BAD`` has no loss, in parts that end after so many steps."""
    begun, called, forward = TrainingStep.__init__, TrainingStep.__call__, GeneralizedDiceCELoss.forward
    now, kinds = [0], []

    def begin(self, *args, **options):
        begun(self, *args, **options)
        self.late = late

    def call(self, engine, batch):
        now[0] = engine.state.iteration
        output = called(self, engine, batch)
        kinds.append(isinstance(output["loss"], LateLoss))
        return output

    def loss(self, *args):
        return forward(self, *args) * (float("nan") if now[0] == BAD else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(muon, "is_on_gpu", lambda tensor: True)
        patch.setattr(TrainingStep, "__init__", begin)
        patch.setattr(TrainingStep, "__call__", call)
        patch.setattr(GeneralizedDiceCELoss, "forward", loss)
        for number, steps in enumerate(parts):
            more = {"resume": True} if number else {"settings": QUICK}
            assert train(dataset_dir, run, iterations=steps, device="cpu", **more) == 0
    assert any(kinds) is late
    return run


@pytest.fixture(scope="module")
def at_once(dataset_dir, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return run_of(patch, dataset_dir, tmp_path_factory.mktemp("late") / "at_once", late=False)


@pytest.mark.parametrize("parts", [(6,), (4, 6), (3, 6)], ids=str)
def test_weights_log_and_record_are_those_of_steps_read_at_once(
    at_once, dataset_dir, tmp_path, monkeypatch, parts
) -> None:
    """Taken up after the step that was skipped, and before it."""
    run = run_of(monkeypatch, dataset_dir, tmp_path / "run", late=True, parts=parts)
    weights = [torch.load(one / "models" / "model.pt", weights_only=True) for one in (at_once, run)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    logs = [
        [(row["iteration"], row["loss"]) for row in read_rows(one / "logs" / "train.jsonl")] for one in (at_once, run)
    ]
    assert logs[0] == logs[1] and [loss is None for _, loss in logs[1]] == [step == BAD for step in range(1, 7)]
    records = [read_record(one) for one in (at_once, run)]
    assert records[0] is not None and records[1] is not None
    for key, values in records[0].items():
        assert ((values == records[1][key]) | (values != values)).all() and values.shape == records[1][key].shape
    kept = [load_tensors(one / "models" / "last.pt") for one in (at_once, run)]
    assert kept[0]["step"]["skipped"] == kept[1]["step"]["skipped"] == 1
    counts = [{int(state["step"]) for state in one["optimizer"]["state"].values() if "step" in state} for one in kept]
    assert counts[0] == counts[1] == {5}
