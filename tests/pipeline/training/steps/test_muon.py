from __future__ import annotations

import copy

import pytest
import torch

from rarevox.pipeline.training.steps import muon
from rarevox.pipeline.training.steps.muon import Muon, orthogonalise, orthogonalised, pooled
from tests.bounds import unit_roundoff


def small_network() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Conv3d(2, 4, 3, bias=False),
        torch.nn.BatchNorm3d(4),
        torch.nn.ReLU(),
        torch.nn.Conv3d(4, 4, 3),
    )


def backward(network: torch.nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    network.zero_grad()
    network(torch.randn(2, 2, 7, 7, 7)).square().mean().backward()


@pytest.mark.parametrize("shape", [(2, 5, 40), (1, 40, 5), (3, 6, 6), (1, 1, 27)])
def test_all_directions_have_about_the_same_length(shape) -> None:
    matrices = torch.randn(shape, dtype=torch.float64)
    orthogonal = orthogonalise(matrices)
    values = torch.linalg.svdvals(orthogonal)
    assert float(values.max()) < 1.3
    assert float(values.median()) > 0.65
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    cosine = (orthogonal * (u @ vh)).sum() / (orthogonal.norm() * (u @ vh).norm())
    assert float(cosine) > 0.9
    assert not orthogonalise(torch.zeros(shape)).any()


def test_matrices_are_stepped_as_by_pytorch_s_muon() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 20)
    mine, theirs = torch.nn.Parameter(weight.clone()), torch.nn.Parameter(weight.clone())
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    ours = Muon([mine], **options)
    peer = torch.optim.Muon([theirs], **options, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        gradient = torch.randn_like(weight)
        mine.grad, theirs.grad = gradient.clone(), gradient.clone()
        ours.step()
        peer.step()
    # PyTorch's iteration runs in bfloat16: five times three products, each rounded to 2⁻⁸ of its largest number, which
    # is three times the mean of a step's, 0.2 · lr. Four steps add up.
    mean, rounding = 0.2 * options["lr"], 3 * 15**0.5 * unit_roundoff(torch.bfloat16)
    torch.testing.assert_close(mine - weight, theirs - weight, rtol=rounding, atol=4 * mean * rounding)


def test_vectors_are_stepped_as_by_adamw() -> None:
    mine, theirs = torch.nn.Parameter(torch.arange(5.0)), torch.nn.Parameter(torch.arange(5.0))
    options = {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.3}
    ours, peer = Muon([mine], **options), torch.optim.AdamW([theirs], **options)
    for seed in range(5):
        torch.manual_seed(seed)
        mine.grad = torch.randn(5)
        theirs.grad = mine.grad.clone()
        ours.step()
        peer.step()
    torch.testing.assert_close(mine, theirs)


def test_it_goes_on_from_its_state_bit_for_bit() -> None:
    network = small_network()
    optimizer = Muon(network.parameters())
    for seed in range(3):
        backward(network, seed)
        optimizer.step()
    other, state = copy.deepcopy(network), copy.deepcopy(optimizer.state_dict())
    resumed = Muon(other.parameters())
    resumed.load_state_dict(state)
    for net, opt in ((network, optimizer), (other, resumed)):
        for seed in range(3, 6):
            backward(net, seed)
            opt.step()
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_memory_format_of_the_weights_makes_no_difference() -> None:
    plain, last = small_network(), small_network()
    for parameter in last.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    for network in (plain, last):
        backward(network, 0)
        Muon(network.parameters()).step()
    for a, b in zip(plain.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_length_of_a_step_does_not_depend_on_the_scale_of_the_loss() -> None:
    steps = []
    for scale in (1e-3, 1e3):
        weight = torch.nn.Parameter(torch.zeros(3, 2, 3, 3, 3))
        torch.manual_seed(1)
        weight.grad = scale * torch.randn(weight.shape)
        Muon([weight], lr=0.1).step()
        steps.append(weight.detach().clone())
    torch.testing.assert_close(*steps, rtol=1e-2, atol=1e-4)
    assert float(steps[0].square().mean().sqrt()) == pytest.approx(0.1 * 0.2, rel=0.25)


def test_parameters_without_a_gradient_stay() -> None:
    frozen = torch.nn.Parameter(torch.ones(2, 3))
    Muon([frozen]).step()
    assert torch.equal(frozen, torch.ones(2, 3))


def test_a_closure_is_called_with_gradients() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([weight])

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 4.0
    assert float(weight.detach().abs().max()) < 1.0


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"momentum": 1.0}, {"betas": (0.9, 1.0)}, {"weight_decay": -0.1}])
def test_values_outside_their_range_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Muon([torch.nn.Parameter(torch.ones(2))], **wrong)


def test_matrices_in_the_corner_of_larger_ones_come_out_as_by_themselves(monkeypatch) -> None:
    """Zeros beside a matrix change neither its norm nor its products; in float64, to roundoff of five rounds."""
    torch.manual_seed(5)
    matrices = [torch.randn(size, dtype=torch.float64) for size in [(4, 9), (9, 4), (3, 5), *[(6, 20)] * 16]]
    alone = orthogonalised(matrices)
    batches: list[int] = []
    monkeypatch.setattr(muon, "is_on_gpu", lambda _: True)
    monkeypatch.setattr(muon, "orthogonalise", lambda some: batches.append(len(some)) or orthogonalise(some))
    for one, other in zip(orthogonalised(matrices), alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert batches == [19]


def test_no_batch_grows_by_more_than_a_quarter() -> None:
    sizes = {(16, 27): [0], (16, 432): [1, 2, 3, 4], (32, 432): [5], (32, 864): [6, 7], (400, 400): [8]}
    found = pooled(sizes)
    assert sorted(n for numbers in found.values() for n in numbers) == list(range(9))
    assert found == {(16, 432): [1, 2, 3, 4, 0], (32, 432): [5], (32, 864): [6, 7], (400, 400): [8]}
