"""Planes pushed through valid layers a few at a time: the numbers of the whole, however many are pushed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rarevox.networks import DeepMedic
from rarevox.networks.blocks import crop_faces
from rarevox.networks.cpu import planes
from rarevox.networks.cpu.ops import add_channels
from rarevox.networks.cpu.planes import PlaneStream, planes_at_once
from tests.bounds import assert_within, network_bound


class Valid(nn.Conv3d):
    """A valid 3³ convolution that writes where it is told."""

    def forward(
        self, x: torch.Tensor, out: torch.Tensor | None = None, add: torch.Tensor | None = None
    ) -> torch.Tensor:
        y = super().forward(x)
        y = y if add is None else add_channels(y, add)
        return y if out is None else out.copy_(y)


def residual_pass(layers: list[Valid], residual: frozenset[int], x: torch.Tensor) -> torch.Tensor:
    """The layers one after the other on the whole volume."""
    inputs = [x]
    for number, layer in enumerate(layers, start=1):
        y = layer(inputs[-1])
        inputs.append(add_channels(y, crop_faces(inputs[-2], 2)) if number in residual else y)
    return inputs[-1]


@settings(max_examples=60)
@given(
    channels=st.lists(st.integers(1, 5), min_size=2, max_size=6).map(sorted),
    residual=st.frozensets(st.integers(2, 5)),
    more=st.integers(1, 9),
    pushed=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    seed=st.integers(0, 10**6),
)
def test_any_pushes_give_the_planes_of_one_pass(channels, residual, more, pushed, seed) -> None:
    torch.manual_seed(seed)
    layers = [Valid(a, b, 3) for a, b in zip(channels, channels[1:], strict=False)]
    x = torch.randn(1, channels[0], 2 * len(layers) + more, 2 * len(layers) + 2, 2 * len(layers) + 3)
    stream, found, start = PlaneStream(layers, residual), [], 0
    with torch.no_grad():
        for count in [*pushed, *[4] * 20]:
            block = x.narrow(2, start, min(count, x.shape[2] - start))
            start += block.shape[2]
            y = stream.push(block) if block.shape[2] else None
            found += [] if y is None else [y.clone()]
        whole = residual_pass(layers, residual, x)
    bound = 2 * network_bound(nn.ModuleList(layers))  # both are in float32
    assert_within(torch.cat(found, dim=2), whole, bound * max(x.abs().max().item(), whole.abs().max().item()))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"low_resolution_factors": (3, 5)},
        {"preactivation": True},
        {"residual": True},
        {"residual": True, "channels": (16, 18, 20, 30, 30, 40, 40, 50)},
        {"residual": True, "channels": (16, 18, 18, 19, 33, 34, 34, 35), "preactivation": True},
        {"residual": True, "wide": True, "low_resolution_factors": (2, 3)},
        {"channels": (17,) * 5, "residual": True},
    ],
)
def test_deepmedic_goes_through_in_planes_with_the_same_result(options, monkeypatch) -> None:
    torch.manual_seed(0)
    options = {"channels": (16, 18) * 4 if "residual" not in options else (16, 18, 20, 20, 24, 24, 24, 30), **options}
    network = DeepMedic(in_channels=1, out_channels=3, joint=(20, 12), **options).eval()
    x = torch.randn(1, 1, *network.geometry.input_size((30, 15, 15)))
    with torch.no_grad():
        monkeypatch.setattr(planes, "streams", lambda x: False)
        whole = network(x)
        monkeypatch.undo()
        for voxels in (1, 20_000, 10**9):
            monkeypatch.setattr(planes, "VOXELS", voxels)
            logits, labels = network(x), network(x, lambda logits: logits.argmax(1, keepdim=True))
            bound = 2 * network_bound(network) * max(x.abs().max().item(), whole.abs().max().item())
            assert_within(logits, whole, bound)
            # Where two classes are nearer than what both are off by, either may win.
            best, second = whole.topk(2, dim=1).values.unbind(1)
            clear = best - second > 2 * bound
            assert clear.float().mean() > 0.9
            assert torch.equal(labels[:, 0][clear], whole.argmax(1)[clear])


def test_large_planes_are_pushed_fewer_at_a_time() -> None:
    counts = [planes_at_once(torch.empty(1, 1, 9, n, n)) for n in (20, 100, 300, 1000)]
    assert counts == sorted(counts, reverse=True)
    assert all(count % 4 == 0 and count >= 4 for count in counts)
