"""The compiled pass on the CPU against the same sums in float64 by PyTorch, and what it leaves to PyTorch."""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rarevox.compiled import team
from rarevox.losses import Columns, GeneralizedDiceCELoss, NonFiniteLogitsError, overlap_sums
from rarevox.losses.sums.chunks import Volume
from rarevox.losses.sums.cpu import overlap as cpu_overlap
from rarevox.losses.sums.cpu.overlap import fits
from tests.bounds import assert_within, random_sum_bound, sum_bound, unit_roundoff

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="Numba is not installed")

LAYOUTS = {
    "contiguous": lambda z: z,
    "channels last": lambda z: z.movedim(1, -1).contiguous().movedim(-1, 1),
    "crop": lambda z: torch.nn.functional.pad(z, (1, 2, 3, 0)[: 2 * (z.ndim - 2)])[
        (..., slice(3, None), slice(1, -2)) if z.ndim > 3 else (..., slice(1, -2))
    ],
    "transposed": lambda z: z.transpose(2, -1).contiguous().transpose(2, -1),
    "channel slice": lambda z: torch.cat((z, z), 1)[:, : z.shape[1]],
}


def table_and_gradient(logits, labels, weight, **options):
    """The table and the gradient of a mixture of its columns."""
    leaf = logits.detach().requires_grad_()
    assert leaf.stride() == logits.stride()
    table = torch.stack(tuple(overlap_sums(leaf, labels, weight, **options)))
    mixture = torch.linspace(0.5, 1.5, table.numel(), dtype=table.dtype).view(table.shape)
    (gradient,) = torch.autograd.grad(table, leaf, mixture)
    return table.detach(), gradient


# Voxels whose sum is made in float32, one after the other on a CPU without vectors; float64 adds these sums.
CHUNK = 512
# Roundings of a probability, a logarithm or a term with them, all told: exponential and logarithm are right to two
# units in the last place (4 u each), and difference, reciprocal and products round six times more. The sum over the
# classes rounds once for each.
OF_A_TERM = 14


def table_bound(classes: int, *, equal: bool = False) -> float:
    """Of sums of numbers of one sign, over themselves; ``equal`` voxels round to the same side every time."""
    if equal:
        return sum_bound(CHUNK + OF_A_TERM + classes, torch.float32)
    return random_sum_bound(CHUNK, torch.float32) + sum_bound(OF_A_TERM + classes, torch.float32)


def gradient_bound(dtype: torch.dtype, classes: int) -> float:
    """Over the largest: p d, the sum of that over the classes and their difference, rounded to ``dtype`` in the end."""
    in_float32 = sum_bound(2 * OF_A_TERM + 2 * classes, torch.float32)
    return in_float32 if dtype == torch.float32 else in_float32 + unit_roundoff(dtype) * (1 + in_float32)


def assert_as_in_float64(logits, labels, weight, *, equal=False, **options):
    """Sums and gradient to the rounding of float32, and the gradient to that of the logits."""
    assert fits(Volume(logits, labels, sigmoid=options.get("sigmoid", False)), options.get("columns", Columns()))
    table, gradient = table_and_gradient(logits, labels, weight, **options)
    exact, exact_gradient = table_and_gradient(logits.double(), labels, weight, **options)
    assert gradient.dtype == logits.dtype
    classes = 2 if options.get("sigmoid") else logits.shape[1]
    assert_within(table, exact, table_bound(classes, equal=equal) * exact.abs() + of_certain_voxels(classes, labels))
    assert_within(gradient, exact_gradient, gradient_bound(logits.dtype, classes) * exact_gradient.abs().max())


def of_certain_voxels(classes: int, labels: torch.Tensor) -> float:
    """What −log p of voxels whose p is 1 to rounding may be off by, in all: each by that rounding, not by a share."""
    return sum_bound(OF_A_TERM + classes, torch.float32) * labels.numel()


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 12), st.integers(1, 9), st.integers(1, 9), st.integers(1, 37)),
    axes=st.integers(1, 3),
    layout=st.sampled_from(sorted(LAYOUTS)),
    dtype=st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32]),
    half=st.booleans(),
    weighted=st.booleans(),
    ignore=st.sampled_from([None, 0, 1, 100]),
    columns=st.sampled_from([Columns(), Columns(False, True), Columns(True, False), Columns(False, False)]),
    seed=st.integers(0, 100),
)
def test_sums_and_gradients(shape, axes, layout, dtype, half, weighted, ignore, columns, seed):
    random = torch.Generator().manual_seed(seed)
    shape = shape[: 2 + axes]
    logits = 4 * torch.randn(shape, generator=random)
    if half:
        logits = logits.bfloat16()
    labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]), generator=random).to(dtype)
    if ignore == 100:
        labels[..., -1] = 100
    weight = torch.rand(labels.shape, generator=random) if weighted else None
    assert_as_in_float64(LAYOUTS[layout](logits), labels, weight, ignore_index=ignore, columns=columns)


@pytest.mark.parametrize("classes", [2, 5, 33, 64])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_many_blocks_and_an_odd_rest(printed, classes, layout):
    voxels = 3 * cpu_overlap.BLOCK_ELEMENTS // classes + 7
    logits, labels, weight = printed.example((2, classes, voxels), dtype=torch.float32)
    assert_as_in_float64(LAYOUTS[layout](logits), labels, weight)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "crop"])
@pytest.mark.parametrize("weighted", [False, True])
def test_logits_that_are_problems_of_their_own(printed, channels, layout, weighted):
    logits, _, weight = printed.example((2, channels, 4, 5, 700), dtype=torch.float32)
    labels = torch.randint(0, 2, logits.shape, generator=torch.Generator().manual_seed(0))
    assert_as_in_float64(LAYOUTS[layout](logits), labels, weight if weighted else None, sigmoid=True)


def test_large_logits(printed):
    logits, labels, _ = printed.example((1, 3, 1000), dtype=torch.float32)
    assert_as_in_float64(80 * logits.sign(), labels, None, equal=True)
    assert_as_in_float64(logits + 1e4, labels, None)
    assert_as_in_float64(torch.zeros_like(logits), labels, None, equal=True)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_does_not_change_a_bit(printed, threads, monkeypatch):
    monkeypatch.setattr(cpu_overlap, "BLOCK_ELEMENTS", 3000)
    logits, labels, weight = printed.example((2, 3, 20, 20, 21), dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        table, gradient = table_and_gradient(logits, labels, weight)
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(team, "_team", lambda: None)
    alone, alone_gradient = table_and_gradient(logits, labels, weight)
    assert torch.equal(table, alone)
    assert torch.equal(gradient, alone_gradient)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 700, 1999])
def test_a_single_logit_that_is_not_finite_is_refused(printed, value, place):
    logits, labels, _ = printed.example((2, 3, 2000), dtype=torch.float32)
    logits[1, 2, place] = value
    for half in (logits, logits.bfloat16()):
        with pytest.raises(NonFiniteLogitsError, match="NaN or an infinity"):
            overlap_sums(half, labels)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.float32])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y, w: (y + 1, w), "labels reach from 1 to 3; 3 classes allow 0 to 2|labels reach from 0 to 3"),
        (lambda y, w: (y - 1, w), "labels reach from -1"),
        (lambda y, w: (y + 256, w), "labels reach from (256|0) to 258"),
        (lambda y, w: (y, w - 1), "weight reaches down to -0"),
        (lambda y, w: (y, w / 0), "sums to inf"),
        (lambda y, w: (y, w * float("nan")), "sums to nan"),
    ],
)
def test_bad_labels_and_weights_are_refused(printed, dtype, change, message):
    logits, labels, weight = printed.example(dtype=torch.float32)
    labels, weight = change(labels.to(dtype), weight)
    with pytest.raises(ValueError, match=message):
        overlap_sums(logits, labels, weight)


@pytest.mark.parametrize("wrong", [1.5, float("nan"), float("inf"), -1e30])
def test_labels_in_float32_must_be_whole(printed, wrong):
    logits, labels, _ = printed.example(dtype=torch.float32)
    labels = labels.float()
    labels[1, 0, 2, 3, 4] = wrong
    with pytest.raises(ValueError, match="not whole numbers"):
        overlap_sums(logits, labels)


def test_labels_beyond_int32_are_seen(printed):
    logits, labels, _ = printed.example(dtype=torch.float32)
    labels[0, 0, 0, 0, 0] += 2**32
    with pytest.raises(ValueError, match=r"to 4.29\d*e\+09; 3 classes"):
        overlap_sums(logits, labels)


def test_weights_of_any_type(printed):
    logits, labels, weight = printed.example(dtype=torch.float32)
    whole = (3 * weight).round()
    for dtype in (torch.float64, torch.float16, torch.uint8):
        torch.testing.assert_close(
            torch.stack(overlap_sums(logits, labels, whole.to(dtype))),
            torch.stack(overlap_sums(logits, labels, whole)),
            rtol=0,
            atol=0,
        )


def test_what_it_leaves_to_pytorch(monkeypatch):
    logits, labels = torch.zeros(1, 2, 8), torch.zeros(1, 1, 8, dtype=torch.int64)

    def taken(z=logits, y=labels, columns=None, **options):
        return fits(Volume(z, y, **options), columns or Columns())

    assert taken()
    assert taken(logits.bfloat16())
    assert not taken(columns=Columns(uniform=True))
    assert not taken(columns=Columns(focal_gamma=2.0))
    assert not taken(entropy_weight=torch.ones(1, 1, 8))
    assert not taken(logits.double())
    assert not taken(logits.half())
    assert not taken(y=labels.bool())
    assert not taken(torch.zeros(1, 65, 8))
    assert not taken(logits.to("meta"), labels.to("meta"))
    monkeypatch.setattr(cpu_overlap, "compiled_module", lambda _: None)
    assert not taken()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pytorch_gives_the_same_where_the_kernels_are_absent(printed, monkeypatch, dtype):
    logits, labels, weight = printed.example((2, 4, 9, 10, 11), dtype=dtype)
    table, gradient = table_and_gradient(logits, labels, weight)
    monkeypatch.setattr(cpu_overlap, "fits", lambda *_: False)
    in_pieces, gradient_in_pieces = table_and_gradient(logits, labels, weight)
    # Each of the two is off by as much; what both round to bfloat16 may be next to each other.
    assert_within(table, in_pieces, 2 * table_bound(4) * table.abs())
    assert_within(gradient, gradient_in_pieces, 2 * gradient_bound(dtype, 4) * gradient.abs().max())


@pytest.mark.parametrize("columns", [Columns(uniform=True), Columns(focal_gamma=2.0)])
def test_columns_of_pytorch_alone_stand_beside_the_same_sums(printed, columns):
    logits, labels, weight = printed.example((2, 4, 9, 10, 11), dtype=torch.float32)
    table, _ = table_and_gradient(logits, labels, weight)
    more, _ = table_and_gradient(logits, labels, weight, columns=columns)
    assert_within(table[:7], more[:7], 2 * table_bound(4) * table[:7].abs())


def test_a_second_backward_gives_the_same_gradient(printed):
    logits, labels, _ = printed.example(dtype=torch.float32)
    loss = GeneralizedDiceCELoss()(logits.requires_grad_(), labels)
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (second,) = torch.autograd.grad(loss, logits)
    assert torch.equal(first, second)


def in_a_fork(queue):
    torch.set_num_threads(2)
    queue.put(overlap_sums(torch.zeros(1, 2, 1000), torch.zeros(1, 1, 1000)).probability.tolist())


@pytest.mark.skipif(sys.platform != "linux", reason="fork is the default on Linux alone")
def test_a_forked_process_computes_alone():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        overlap_sums(torch.zeros(1, 2, 1000), torch.zeros(1, 1, 1000))
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        child = context.Process(target=in_a_fork, args=(queue,))
        child.start()
        child.join(300)
    finally:
        torch.set_num_threads(before)
    if child.is_alive():
        child.kill()
        pytest.fail("the forked process waits for threads that it does not have")
    assert queue.get() == [[500.0, 500.0]]
