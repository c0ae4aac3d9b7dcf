"""The table of sums against full-size tensors, its gradient, its memory and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rarevox.losses import Columns, NonFiniteLogitsError, SumTable, overlap_sums
from rarevox.losses.sums import chunks, workers
from tests.bounds import random_sum_bound, sum_bound

EVERYTHING = Columns(squares=True, entropy=True, uniform=True, focal_gamma=2.0)


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of a few voxels, so that every test crosses their borders."""
    monkeypatch.setattr(chunks, "CPU_PIECE_ELEMENTS", 50)


def assert_tables_equal(table, expected, rtol=1e-12):
    for name in SumTable._fields:
        torch.testing.assert_close(getattr(table, name), getattr(expected, name), rtol=rtol, atol=rtol, msg=name)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (2, 4, 7, 9), (1, 2, 11), (3, 2, 1, 1, 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_are_those_of_the_full_size_tensors(printed, small_pieces, shape, weighted):
    logits, labels, weight = printed.example(shape) if shape[2:] != (1, 1, 1) else ones(shape)
    weight = weight if weighted else None
    table = overlap_sums(logits, labels, weight, columns=EVERYTHING)
    assert_tables_equal(table, printed.sums(logits, labels, weight))


def ones(shape):
    return torch.ones(shape).double(), torch.zeros(shape[0], 1, *shape[2:]).long(), torch.ones(shape[0], 1, 1, 1, 1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32, torch.float64, torch.float16])
def test_labels_of_any_type_give_the_same_sums(printed, small_pieces, dtype):
    logits, labels, weight = printed.example()
    assert_tables_equal(overlap_sums(logits, labels.to(dtype), weight), overlap_sums(logits, labels, weight), rtol=0)


def test_boolean_labels_are_two_classes(printed):
    logits, labels, _ = printed.example((1, 2, 3, 4))
    assert_tables_equal(overlap_sums(logits, labels.bool()), overlap_sums(logits, labels), rtol=0)


@pytest.mark.parametrize(
    "layout",
    [
        lambda z: z.contiguous(memory_format=torch.channels_last_3d),
        lambda z: torch.nn.functional.pad(z, (1, 2, 3, 0, 1, 1))[..., 1:-1, 3:, 1:-2],
        lambda z: torch.cat((z, z), 1)[:, : z.shape[1]],
        lambda z: z.transpose(2, 4).contiguous().transpose(2, 4),
    ],
    ids=["channels_last", "crop", "channel slice", "transposed axes"],
)
def test_memory_layout_changes_neither_sums_nor_gradient(printed, small_pieces, layout):
    logits, labels, weight = printed.example()
    gradients = []
    for variant in (logits, layout(logits)):
        leaf = variant.detach().requires_grad_()
        assert leaf.stride() == variant.stride()
        table = overlap_sums(leaf, labels, weight)
        assert_tables_equal(table, overlap_sums(logits, labels, weight))
        (table.intersection * torch.arange(6.0).view(2, 3)).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.float64
@pytest.mark.parametrize("columns", [None, EVERYTHING, Columns(squares=False, entropy=False, focal_gamma=0.5)])
@pytest.mark.parametrize("variant", ["plain", "weight", "ignore", "entropy weight"])
def test_gradient(printed, small_pieces, columns, variant):
    logits, labels, weight = printed.example((2, 3, 2, 3, 4))
    options = {
        "plain": {},
        "weight": {"weight": weight},
        "ignore": {"ignore_index": 1, "weight": weight},
        "entropy weight": {"entropy_weight": weight.flip(-1), "ignore_index": 2},
    }[variant]
    assert torch.autograd.gradcheck(
        lambda z: torch.stack(tuple(overlap_sums(z, labels, columns=columns, **options))), logits.requires_grad_()
    )


@pytest.mark.float64
@pytest.mark.parametrize("channels", [1, 3])
def test_sigmoid_gradient(printed, small_pieces, channels):
    logits, _, weight = printed.example((2, channels, 3, 4))
    labels = torch.randint(0, 2, logits.shape)
    assert torch.autograd.gradcheck(
        lambda z: torch.stack(tuple(overlap_sums(z, labels, weight, sigmoid=True))), logits.requires_grad_()
    )


def test_one_binary_logit_is_the_softmax_of_zero_and_it(printed):
    logits, labels, weight = printed.example((2, 2, 4, 5))
    binary = logits[:, 1:] - logits[:, :1]
    assert_tables_equal(overlap_sums(binary, labels, weight, sigmoid=True), overlap_sums(logits, labels, weight))


def test_overlapping_labels_are_two_class_problems_of_their_own(printed):
    logits, _, weight = printed.example((2, 3, 4, 5))
    labels = torch.randint(0, 2, logits.shape)
    table = overlap_sums(logits, labels, weight, sigmoid=True)
    assert table.probability.shape == (2, 3, 2)
    for channel in range(3):
        alone = overlap_sums(logits[:, [channel]], labels[:, [channel]], weight, sigmoid=True)
        assert_tables_equal(table.map(lambda column, c=channel: column[:, c]), alone, rtol=0)


def test_second_backward_gives_the_same_gradient(printed):
    logits, labels, _ = printed.example()
    table = overlap_sums(logits.requires_grad_(), labels)
    target = table.intersection.sum() + table.cross_entropy.sum()
    (first,) = torch.autograd.grad(target, logits, retain_graph=True)
    (second,) = torch.autograd.grad(target, logits)
    torch.testing.assert_close(first, second, rtol=1e-12, atol=0)


def test_halves_of_a_batch_add_up(printed):
    logits, labels, weight = printed.example((4, 3, 5, 6))
    halves = [overlap_sums(logits[part], labels[part], weight[part]).pooled() for part in (slice(2), slice(2, 4))]
    added = SumTable(*(a + b for a, b in zip(*halves, strict=True)))
    assert_tables_equal(overlap_sums(logits, labels, weight).pooled(), added)


@pytest.mark.parametrize("ignore", [1, 255, -1])
def test_ignored_voxels_might_as_well_not_be_there(printed, ignore):
    logits, labels, weight = printed.example((1, 3, 40))
    labels[..., 25:] = ignore
    labels[..., :25][labels[..., :25] == ignore] = 0
    table = overlap_sums(logits, labels, weight, ignore_index=ignore)
    assert_tables_equal(table, overlap_sums(logits[..., :25], labels[..., :25], weight[..., :25]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_logits_stay_finite_and_exact(printed, either_path, dtype):
    # One voxel of four is wrong by 160 nats, the others right: cross-entropy 160, one voxel predicted as class 1.
    logits = torch.tensor([[[80.0, 80, 80, -80], [-80, -80, -80, 80]]], dtype=dtype, requires_grad=True)
    table = overlap_sums(logits, torch.zeros(1, 1, 4))
    assert table.cross_entropy.tolist() == [[160.0, 0.0]]
    assert table.probability.tolist() == [[3.0, 1.0]]
    sum(column.sum() for column in table).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_as_float32(printed, dtype):
    logits, labels, _ = printed.example((1, 2, 300, 300), dtype=dtype)  # 90,000 voxels: a float16 sum would overflow
    # The compiled pass takes bfloat16 and float32; float16 goes through in pieces.
    rtol = 2 * random_sum_bound(512, torch.float32) if dtype == torch.float16 else 0
    assert_tables_equal(overlap_sums(logits, labels), overlap_sums(logits.float(), labels), rtol=rtol)


def test_autocast_changes_nothing(printed, either_path):
    logits, labels, weight = printed.example(dtype=torch.float32)
    gradients = []
    for enabled in (False, True):
        leaf = logits.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            table = overlap_sums(leaf, labels, weight)
            table.cross_entropy.sum().backward()
        assert_tables_equal(table, overlap_sums(logits, labels, weight), rtol=0)
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_float32_sums_hold_over_a_million_equal_voxels(either_path):
    # Equal values are the worst case of a float32 sum: every rounding error points the same way.
    logits = torch.zeros(1, 2, 1 << 20)
    logits[:, 1] = -2.302585  # p_1 = 1 / (1 + e^2.302585) = 1 / 11
    table = overlap_sums(logits, torch.zeros(1, 1, 1 << 20, dtype=torch.uint8))
    expected = (1 << 20) / (1 + torch.tensor(2.302585, dtype=torch.float32).double().exp())
    # Chunks of 512 voxels at most are summed in float32, and each term brings 16 roundings of its own.
    assert table.probability[0, 1].item() == pytest.approx(expected.item(), rel=sum_bound(512 + 16, torch.float32))


class _LargeBlocks(TorchDispatchMode):
    """Counts the different blocks of memory of at least half the logits' size that operations return."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.seen: dict[int, torch.UntypedStorage] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, torch.Tensor) and value.untyped_storage().nbytes() >= self.size // 2:
                self.seen[value.untyped_storage().data_ptr()] = value.untyped_storage()
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_no_block_of_the_logits_size_but_the_gradient(printed, either_path, monkeypatch, dtype, memory_format):
    monkeypatch.setattr(chunks, "CPU_PIECE_ELEMENTS", 4000)
    monkeypatch.setattr(workers, "_buffers", workers._Buffers())  # scratch of a few pieces, none from before
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # the counter sees its own thread alone
    logits, labels, weight = printed.example((1, 5, 24, 24, 24), dtype=dtype)
    logits = logits.contiguous(memory_format=memory_format).requires_grad_()
    given = {tensor.untyped_storage().data_ptr() for tensor in (logits, labels, weight)}
    with _LargeBlocks(logits.numel() * logits.element_size()) as blocks:
        table = overlap_sums(logits, labels, weight)
        sum(column.sum() for column in table).backward()
    assert set(blocks.seen) - given == {logits.grad.untyped_storage().data_ptr()}


def test_no_second_derivative_is_claimed(printed):
    logits, labels, _ = printed.example()
    (gradient,) = torch.autograd.grad(
        overlap_sums(logits.requires_grad_(), labels).intersection.square().sum(), logits, create_graph=True
    )
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_logits_that_are_not_finite_are_named(printed, either_path, value, dtype):
    logits, labels, _ = printed.example(dtype=dtype)
    logits[1, 2, 3, 4, 5] = value
    with pytest.raises(NonFiniteLogitsError, match="NaN or an infinity"):
        overlap_sums(logits, labels, columns=Columns(squares=False, entropy=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, y, w: (z, y + 1, w), "labels reach from 1 to 3; 3 classes allow 0 to 2"),
        (lambda z, y, w: (z, y - 1, w), "labels reach from -1"),
        (lambda z, y, w: (z, y + 256, w), "labels reach from 256"),
        (lambda z, y, w: (z, y + 0.5, w), "not whole numbers"),
        (lambda z, y, w: (z, y * float("nan"), w), "not whole numbers"),
        (lambda z, y, w: (z, y[:, 0], w), r"labels have shape \(2, 4, 5, 6\).*\(2, 1, 4, 5, 6\)"),
        (lambda z, y, w: (z, y[:1], w), "labels have shape"),
        (lambda z, y, w: (z, y, w[..., 1:]), r"weight has shape \(2, 1, 4, 5, 5\)"),
        (lambda z, y, w: (z, y, w - 1), "weight reaches down to -0"),
        (lambda z, y, w: (z, y, w / 0), "sums to inf"),
        (lambda z, y, w: (z, y, w * float("nan")), "sums to nan"),
        (lambda z, y, w: (z[:, :1], y, w), "single class"),
        (lambda z, y, w: (z[:0], y[:0], w[:0]), "empty"),
        (lambda z, y, w: (z[..., :0], y[..., :0], w[..., :0]), "empty"),
        (lambda z, y, w: (z[0, 0, 0], y, w), "expected .batch, classes"),
    ],
)
def test_bad_input_is_a_value_error_that_says_what(printed, change, message):
    with pytest.raises(ValueError, match=message):
        overlap_sums(*change(*printed.example()))


def test_integer_logits_are_a_type_error(printed):
    logits, labels, _ = printed.example()
    with pytest.raises(TypeError, match="int64"):
        overlap_sums(logits.long(), labels)
