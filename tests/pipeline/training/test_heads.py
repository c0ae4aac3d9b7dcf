"""Deep supervision: weights, the objective of a step by hand, and a run whose inference sees the final head alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer

from rarevox.losses import GeneralizedDiceCELoss
from rarevox.pipeline.device import Precision
from rarevox.pipeline.inference.segment import Segmenter
from rarevox.pipeline.training.heads import head_weights, heads_of, weighted_sum
from rarevox.pipeline.training.steps.step import TrainingStep
from rarevox.pipeline.training.train import train
from tests.bounds import unit_roundoff


class Heads(torch.nn.Module):
    """Three heads, the second and third the first one scaled."""

    def __init__(self, supervised: bool = True) -> None:
        super().__init__()
        self.conv = torch.nn.Conv3d(1, 2, 1, bias=False)
        torch.nn.init.constant_(self.conv.weight, 0.3)
        self.conv.weight.data[1] = 0.7
        self.supervised = supervised

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        return torch.stack([out, 0.5 * out, -out], 1) if self.training and self.supervised else out


def _step(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, margin: int = 0) -> float:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    engine: Any = SimpleNamespace(
        network=network,
        optimizer=optimizer,
        inferer=SimpleInferer(),
        loss_function=GeneralizedDiceCELoss(),
        state=SimpleNamespace(device=torch.device("cpu"), iteration=1, output=None),
        fire_event=lambda event: None,
    )
    step = TrainingStep(Precision(torch.device("cpu"), torch.float32), loss_margin=margin, clip_norm=None)
    done: SupervisedTrainer = engine
    return float(step(done, {"image": images, "label": labels})["loss"])


def test_weights_halve_and_add_up() -> None:
    for count in range(1, 6):
        weights = head_weights(count)
        assert sum(weights) == pytest.approx(1.0, abs=count * unit_roundoff(torch.float64))
        assert all(first == 2 * second for first, second in zip(weights, weights[1:], strict=False))


def test_plain_logits_are_one_head() -> None:
    logits = torch.zeros(2, 3, 4, 4, 4)
    assert heads_of(logits, 3)[0] is logits


@pytest.mark.parametrize("margin", [0, 1])
def test_a_step_minimises_the_weighted_sum_over_heads(margin: int) -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(2, 1, 6, 6, 6), torch.randint(0, 2, (2, 1, 6, 6, 6))
    network, by_hand = Heads(), Heads()
    value = _step(network, images, labels, margin)
    loss = GeneralizedDiceCELoss()
    inner = (..., *[slice(margin, 6 - margin)] * 3)
    out = by_hand.conv(images)[inner]
    terms = [loss(scale * out, labels[inner]) for scale in (1.0, 0.5, -1.0)]
    wanted = (4 * terms[0] + 2 * terms[1] + terms[2]) / 7
    wanted.backward()
    assert by_hand.conv.weight.grad is not None
    by_hand.conv.weight.data -= 0.5 * by_hand.conv.weight.grad
    # The loss sums 432 voxels in float32 or better; the weights add two roundings.
    bound = 432 * unit_roundoff(torch.float32)
    assert value == pytest.approx(float(wanted.detach()), rel=bound)
    assert torch.allclose(network.conv.weight, by_hand.conv.weight, rtol=bound, atol=bound)
    assert _step(Heads(supervised=False), images, labels, margin) == pytest.approx(float(terms[0].detach()), rel=bound)


def test_sums_of_tensors_keep_their_graph() -> None:
    values = [torch.tensor(float(n), requires_grad=True) for n in (1, 2, 3)]
    weighted_sum(values).backward()
    assert [float(value.grad) for value in values if value.grad is not None] == pytest.approx([4 / 7, 2 / 7, 1 / 7])


def test_the_overlay_trains_and_infers_with_the_final_head(dataset_dir: Path, task_dir: Path, tmp_path: Path) -> None:
    small = ["network_def#filters=[4,4,4,4,4]", "patch_size=[32,32,32]", "epoch_length=2", "precision#name=float32"]
    run = tmp_path / "run"
    how: dict[str, Any] = {"network": "resenc_unet", "iterations": 4, "device": "cpu"}
    assert train(dataset_dir, run, settings=small, **how) == 0
    segmenter = Segmenter(run, device="cpu")
    data = segmenter.read({"case": "x", "image": str(task_dir / "imagesTr" / "case_00.nii.gz")})
    with torch.no_grad():
        shape = [16 * -(-n // 16) for n in data["image"].shape[1:]]
        padded = torch.zeros(1, 1, *shape)
        final = segmenter.network.eval()(padded)
        supervised = segmenter.network.train()(padded)
    assert final.shape == (1, 3, *shape)
    assert supervised.shape == (1, 3, 3, *shape)
    segmenter.network.eval()
    assert np.isin(segmenter.segment(data), [0, 1, 2]).all()
