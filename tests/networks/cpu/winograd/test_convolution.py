from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rarevox.compiled import team
from rarevox.networks import HighResNet
from rarevox.networks.cpu.convolution import conv3d
from rarevox.networks.cpu.volumes import channels_last, numbers
from rarevox.networks.cpu.winograd import convolution as winograd
from tests.bounds import assert_within, least_cosine, network_bound, unit_roundoff, winograd_bound

pytestmark = pytest.mark.skipif(winograd.kernels() is None, reason="Numba is not installed")


def gradients(convolve, x, weight, direction):
    x, weight = x.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_()
    y = convolve(x, weight)
    return y, *torch.autograd.grad(y, (x, weight), direction.to(y.dtype))


def assert_like_the_plain_sum(x: torch.Tensor, weight: torch.Tensor, padding: int) -> None:
    """Values and gradients within Winograd's rounding of the sums in float64."""
    shape = (x.shape[0], weight.shape[0], *(n + 2 * padding - 2 for n in x.shape[2:]))
    direction = torch.randn(shape)
    ours = gradients(lambda a, b: winograd.conv3d(a, b, padding), x, weight, direction)
    in_float64 = [tensor.double() for tensor in (x, weight, direction)]
    exact = gradients(lambda a, b: F.conv3d(a, b, padding=padding), *in_float64)
    summed = gradients(lambda a, b: F.conv3d(a, b, padding=padding), *(tensor.square() for tensor in in_float64))
    bounds = (
        winograd_bound(weight.shape[1]),
        winograd_bound(weight.shape[0]),
        winograd_bound(tiles(shape), of_weights=True),
    )
    for one, other, squares, bound in zip(ours, exact, summed, bounds, strict=True):
        # A tile's rounding is that of its largest sums.
        assert_within(one, other, bound * squares.max().sqrt())


def tiles(shape: tuple[int, ...]) -> int:
    """Blocks of 4³ voxels in all samples."""
    return shape[0] * math.prod(-(-length // 4) for length in shape[2:])


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 35), st.integers(1, 35)),
    size=st.tuples(*[st.integers(3, 11)] * 3),
    padding=st.integers(0, 2),
    channels_last=st.booleans(),
    seed=st.integers(0, 10),
)
def test_values_and_gradients_are_those_of_the_sum_over_the_taps(batch, channels, size, padding, channels_last, seed):
    torch.manual_seed(seed)
    x = torch.randn(batch, channels[0], *size)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    weight = torch.randn(channels[1], channels[0], 3, 3, 3)
    assert_like_the_plain_sum(x, weight, padding)


def test_the_result_does_not_depend_on_the_groups(monkeypatch) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 16, 13, 9, 18), torch.randn(24, 16, 3, 3, 3)
    direction = torch.randn(2, 24, 13, 9, 18)
    whole = gradients(lambda a, b: winograd.conv3d(a, b, 1), x, weight, direction)
    monkeypatch.setattr(winograd, "NEAR_BYTES", 1)
    monkeypatch.setattr(winograd, "NEAR_BYTES_OF_SUMS", 1)
    monkeypatch.setattr(winograd, "MOST_BYTES_OF_SUMS", 1)
    pieces = gradients(lambda a, b: winograd.conv3d(a, b, 1), x, weight, direction)
    assert torch.equal(whole[0], pieces[0])
    assert torch.equal(whole[1], pieces[1])
    # The sums of the weights' gradient are added in another order: both are off by as much.
    largest = torch.nn.grad.conv3d_weight(x.square(), weight.shape, direction.square(), padding=1).max().sqrt()
    assert_within(whole[2], pieces[2], 2 * winograd_bound(tiles(direction.shape), of_weights=True) * largest)


def test_numbers_of_an_earlier_call_leave_no_trace() -> None:
    """The memory of the domain is used again; what is not a number must not come back from it."""
    torch.manual_seed(0)
    poisoned = torch.full((1, 32, 16, 16, 16), float("nan"))
    weight = torch.randn(32, 32, 3, 3, 3)
    gradients(lambda a, b: winograd.conv3d(a, b, 1), poisoned, weight, torch.randn(1, 32, 16, 16, 16))
    assert_like_the_plain_sum(torch.randn(1, 17, 5, 6, 7), torch.randn(19, 17, 3, 3, 3), 1)


def reference(x, weight, padding, around):
    """The convolution with what is around it, in float64, step by step; and the root of its largest Σ product²."""

    def activated(v, slope):
        return torch.where(v > 0, v, v * slope.view(-1, 1, 1, 1).double())

    def inside(v):
        if around.extents is None:
            return torch.ones_like(v[:, :1])
        mask = torch.zeros_like(v[:, :1])
        for sample, (depth, height, width) in enumerate(around.extents.tolist()):
            mask[sample, :, :depth, :height, :width] = 1
        return mask

    x, weight = x.double(), weight.double()
    if around.norm is not None:
        scale, shift, slope = around.norm
        x = activated(x * scale.view(-1, 1, 1, 1).double() + shift.view(-1, 1, 1, 1).double(), slope)
    y = F.conv3d(x * inside(x), weight, padding=padding)
    largest = F.conv3d((x * inside(x)).square(), weight.square(), padding=padding).max().sqrt()
    if around.bias is not None:
        bias, slope = around.bias
        y = activated(y + bias.view(-1, 1, 1, 1).double(), slope)
    if around.add is not None:
        y[:, around.first : around.first + around.add.shape[1]] += around.add
    return y * inside(y), largest


def with_room(x: torch.Tensor) -> torch.Tensor:
    """The numbers of ``x`` with room for whole eights of channels, in which there is what is not a number."""
    roomy = channels_last(tuple(x.shape), torch.full((numbers(tuple(x.shape)),), float("nan")))
    return roomy.copy_(x)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 26), st.sampled_from([8, 16, 19, 32, 40])),
    size=st.tuples(st.integers(3, 10), st.integers(3, 10), st.one_of(st.integers(3, 10), st.integers(50, 60))),
    padding=st.integers(0, 2),
    parts=st.tuples(*[st.booleans()] * 4),
    rooms=st.tuples(*[st.booleans()] * 4),
    stream=st.booleans(),
    seed=st.integers(0, 10),
)
def test_what_is_done_around_a_convolution_is_what_it_says(batch, channels, size, padding, parts, rooms, stream, seed):
    with patch.object(winograd, "STREAM_BYTES", 0 if stream else 2**40):
        assert_what_it_says(batch, channels, size, padding, parts, rooms, seed)


def assert_what_it_says(batch, channels, size, padding, parts, rooms, seed) -> None:
    """`convolve` gives what `reference` does; with ``rooms`` in the sum, the result, the input, and around the sum."""
    torch.manual_seed(seed)
    x, weight = torch.randn(batch, channels[0], *size), torch.randn(channels[1], channels[0], 3, 3, 3)
    norm, bias, add, extents = parts
    shape = [length + 2 * padding - 2 for length in size]
    added = channels[1] if channels[1] % 8 else channels[1] - channels[1] // 16 * 8
    around = winograd.Around(
        norm=torch.randn(3, channels[0]) if norm else None,
        bias=torch.randn(2, channels[1]) if bias else None,
        add=torch.randn(batch, added, *shape) if add else None,
        first=0 if channels[1] % 8 else (channels[1] - added) // 16 * 8,
        # An output inside the extents exists where the input's size is kept.
        extents=torch.stack([torch.randint(0, n + 1, (batch,)) for n in size], 1) if extents and padding == 1 else None,
    )
    exact, largest = reference(x, weight, padding, around)
    if add and rooms[3]:
        larger = F.pad(around.add, (1, 2, 3, 1, 2, 1), value=float("nan"))
        larger = with_room(larger) if rooms[0] else larger.contiguous(memory_format=torch.channels_last_3d)
        around = replace(around, add=larger[:, :, 2:-1, 3:-1, 1:-2])
    elif add and rooms[0]:
        around = replace(around, add=with_room(around.add))
    out = with_room(torch.zeros(exact.shape)) if rooms[1] else None
    ours = winograd.convolve(with_room(x) if rooms[2] else x, weight, padding, around, out=out)
    assert out is None or ours is out
    # A slope beyond 1 magnifies what the sum was off by; norm, bias and sum round a few times more, at their own size.
    slope = max(1.0, around.bias[1].abs().max().item()) if bias else 1.0
    others = sum(part.abs().max() for part in (around.bias[0] if bias else None, around.add) if part is not None)
    rounding = 4 * unit_roundoff(ours.dtype) * slope * (exact.abs().max() + others)
    assert_within(ours, exact, winograd_bound(channels[0]) * slope * largest + rounding)
    if add and added == channels[1]:
        into = with_room(around.add) if rooms[1] else around.add.contiguous(memory_format=torch.channels_last_3d)
        assert winograd.convolve(x, weight, padding, replace(around, add=into), out=into) is into
        assert torch.equal(into, ours)


@pytest.mark.parametrize("first", [0, 4, 12])
def test_some_channels_of_a_volume_are_convolved_without_the_others(first) -> None:
    torch.manual_seed(0)
    whole, weight = with_room(torch.randn(1, 16, 5, 6, 7)), torch.randn(8, 4, 3, 3, 3)
    some = whole.narrow(1, first, 4)
    ours = winograd.convolve(some, weight, 1)
    exact = F.conv3d(some.double(), weight.double(), padding=1)
    largest = F.conv3d(some.square(), weight.square(), padding=1).max().sqrt()
    assert_within(ours, exact, winograd_bound(4) * largest)


def test_weights_may_have_any_strides() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 16, 6, 7, 8), torch.randn(24, 16, 3, 3, 3)
    expected = winograd.convolve(x, weight, 1)
    last = weight.contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(winograd.convolve(x, last, 1), expected)
    turned = weight.transpose(0, 1).flip(2, 3, 4)
    assert torch.equal(winograd.convolve(x, turned.contiguous(), 1, transposed=True), expected)
    assert torch.equal(winograd.convolve(x, turned, 1, transposed=True), expected)


def test_the_gradient_of_the_weights_is_the_same_each_time() -> None:
    """A run that goes on after a kill repeats the uninterrupted one to the bit, whichever thread was faster."""
    torch.manual_seed(0)
    x, gradient = torch.randn(2, 32, 24, 24, 24), torch.randn(2, 32, 24, 24, 24)
    first = winograd.weight_gradient(x, gradient, 1)
    assert all(torch.equal(winograd.weight_gradient(x, gradient, 1), first) for _ in range(10))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_does_not_change_the_numbers(threads, monkeypatch) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 16, 12, 12, 12), torch.randn(16, 16, 3, 3, 3)
    expected = winograd.conv3d(x, weight, 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert torch.equal(winograd.conv3d(x, weight, 1), expected)
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(team, "_team", lambda: None)
    assert torch.equal(winograd.conv3d(x, weight, 1), expected)


def test_python_threads_keep_their_memory_apart() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(1, 16, 10, 10, 10) for _ in range(4)]
    weight = torch.randn(16, 16, 3, 3, 3)
    expected = [winograd.conv3d(x, weight, 1) for x in inputs]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(10):
            if not torch.equal(winograd.conv3d(inputs[index], weight, 1), expected[index]):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_convolutions_take_it_where_it_pays() -> None:
    x, weight = torch.randn(1, 16, 16, 16, 16), torch.randn(16, 16, 3, 3, 3)
    assert winograd.pays(x, weight, (1, 1, 1))
    assert not winograd.pays(x.double(), weight.double(), (1, 1, 1))
    assert not winograd.pays(x, weight, (1, 1, 0))
    assert not winograd.pays(x[:, :8], weight[:, :8], (1, 1, 1))
    with torch.no_grad():
        assert winograd.pays(x[:, :8], weight[:, :8], (1, 1, 1))
        assert not winograd.pays(x[:, :2], weight[:, :2], (1, 1, 1))
        few = conv3d(x[:, :5], weight[:, :5], None, (1, 1, 1))
        largest = F.conv3d(x[:, :5].square(), weight[:, :5].square(), padding=1).max().sqrt()
        exact = F.conv3d(x[:, :5].double(), weight[:, :5].double(), padding=1)
        assert_within(few, exact, winograd_bound(5) * largest)
    assert not winograd.pays(x, weight[..., :1, :1, :1], (0, 0, 0))
    assert not winograd.pays(torch.randn(64, 16, 5, 5, 5), weight, (1, 1, 1)), "8³ computed for 5³"
    assert not winograd.pays(x[..., :6], weight, (1, 1, 1)), "1536 voxels"
    wide = torch.randn(32, 32, 3, 3, 3)
    assert winograd.pays(torch.randn(64, 32, 9, 9, 9), wide, (1, 1, 1)), "2.4 computed for one"
    assert not winograd.pays(torch.randn(64, 16, 9, 9, 9), weight, (1, 1, 1))
    assert not winograd.pays(torch.randn(64, 32, 5, 9, 5), wide, (1, 1, 1)), "3.4 computed for one"
    assert not winograd.pays(x.to("meta"), weight.to("meta"), (1, 1, 1))
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.pays(x, weight, (1, 1, 1))
    bias = torch.randn(16)
    exact = F.conv3d(x.double(), weight.double(), bias.double(), padding=1)
    largest = F.conv3d(x.square(), weight.square(), bias.square(), padding=1).max().sqrt()
    assert_within(conv3d(x, weight, bias, (1, 1, 1)), exact, winograd_bound(16) * largest)


def test_without_numba_the_plain_convolution_is_taken(monkeypatch) -> None:
    x, weight = torch.randn(8, 16, 8, 8, 8), torch.randn(16, 16, 3, 3, 3)
    monkeypatch.setattr(winograd, "kernels", lambda: None)
    assert torch.equal(conv3d(x, weight, None, (1, 1, 1)), F.conv3d(x, weight, padding=1))


def test_a_network_gives_the_same_logits_and_gradients_with_it(monkeypatch) -> None:
    torch.manual_seed(0)
    network = HighResNet(in_channels=1, out_channels=3)
    x = torch.randn(2, 1, 16, 20, 16)
    direction = torch.randn(2, 3, 16, 20, 16)

    def run() -> tuple[torch.Tensor, ...]:
        logits = network(x)
        return logits, *torch.autograd.grad(logits, list(network.parameters()), direction)

    ours = run()
    monkeypatch.setattr(winograd, "kernels", lambda: None)
    plain = run()
    bound = 2 * network_bound(network)
    assert_within(ours[0], plain[0], bound * max(x.abs().max().item(), plain[0].abs().max().item()))
    for one, other in zip(ours[1:], plain[1:], strict=True):
        assert F.cosine_similarity(one.flatten(), other.flatten(), dim=0) > least_cosine(network)


COMPILED_THEN_KEPT = """
import os, pathlib, sys, torch
from rarevox.networks.cpu.winograd import convolution as winograd
assert "numba" not in sys.modules, "what is forked has compiled nothing"
for _ in range(2):
    if os.fork() == 0:
        torch.manual_seed(0)
        x, weight = torch.randn(2, 17, 9, 8, 7, requires_grad=True), torch.randn(20, 17, 3, 3, 3, requires_grad=True)
        y = winograd.conv3d(x, weight, 1)
        parts = (y, *torch.autograd.grad(y, (x, weight), torch.randn(y.shape)))
        print([part.contiguous().view(torch.int32).sum().item() for part in parts], flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
    kept = sorted(pathlib.Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*.nbc"))
    print([(file.name, file.stat().st_mtime_ns) for file in kept], flush=True)
"""


def test_code_that_was_just_compiled_rounds_as_kept_code_does(tmp_path) -> None:
    """Else a run that is killed and goes on would not be the uninterrupted one to the bit."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILED_THEN_KEPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, kept, second, still_kept = done.stdout.splitlines()
    assert kept != "[]" and kept == still_kept, "the second compiled nothing"
    assert first == second
