"""HighResNet: the paper's counts, the sub-lattices, pieces, folding, recomputation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rarevox.networks import HighResNet
from rarevox.networks.cpu import ops
from rarevox.networks.lattices import pieces
from rarevox.networks.residual import ResidualBlock
from tests.bounds import assert_within, network_bound

FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}


def _random(dims: int = 3, **options: object) -> HighResNet:
    """A narrow network in float64 whose norms and slopes differ from their initial values."""
    torch.manual_seed(0)
    network = HighResNet(**{"in_channels": 2, "out_channels": 3, "spatial_dims": dims, "width": 3, **options}).double()
    for name, tensor in network.state_dict().items():
        if name.endswith(("norm.weight", "norm.bias", "activation.weight", "running_mean", "running_var")):
            tensor.copy_(torch.rand_like(tensor) * 0.5 + (0.6 if name.endswith(("weight", "var")) else -0.25))
    return network


@pytest.mark.parametrize("classes", [2, 160])
def test_counts_of_the_paper(classes: int) -> None:
    network = HighResNet(in_channels=1, out_channels=classes)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
    assert len(convolutions) == 20 + 1  # the paper's 20 layers (1 + 3·3·2 + 1) and the classifier
    assert all(m.bias is None for m in convolutions)
    # 27·16 + 6·27·16² + 27·(16·32 + 5·32²) + 27·(32·64 + 5·64²) + 64·80 + 80·C
    assert sum(m.weight.numel() for m in convolutions) == 807_344 + 80 * classes
    assert [m.dilation[0] for m in convolutions] == [1] + [1] * 6 + [2] * 6 + [4] * 6 + [1, 1]
    # 1 + 2 for each 3³ convolution times its dilation: 1 + 2·(1 + 6·1 + 6·2 + 6·4) = 87
    field = 1 + sum((m.kernel_size[0] - 1) * m.dilation[0] for m in convolutions)
    assert network.geometry.receptive_field == (field,) * 3 == (87,) * 3
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
    assert {(m.momentum, m.eps) for m in norms} == {(0.1, 1e-5)}
    assert len(norms) == 1 + 18 + 1


def test_width_scales_all_channels() -> None:
    network = HighResNet(in_channels=1, out_channels=2, width=8)
    widths = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv3d)]
    assert widths == [8] * 7 + [16] * 6 + [32] * 6 + [40, 2]


def test_state_dict_layout() -> None:
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    expected = [f"stem.{key}" for key in ["conv.weight", *(f"norm.norm.{n}" for n in norm)]]
    for stage in range(3):
        for block in range(3):
            for half in (1, 2):
                prefix = f"stages.{stage}.{block}"
                expected += [f"{prefix}.norm{half}.norm.{n}" for n in norm] + [f"{prefix}.conv{half}.weight"]
    expected += ["features.conv.weight", *(f"features.norm.norm.{n}" for n in norm), "classifier.weight"]
    assert list(HighResNet(in_channels=1, out_channels=2).state_dict()) == expected
    with_slopes = HighResNet(in_channels=1, out_channels=2, activation="prelu").state_dict()
    slopes = {k for k in with_slopes if k.endswith("activation.weight")}
    assert len(slopes) == 20
    assert set(with_slopes) - slopes == set(expected)


@pytest.mark.parametrize("grad", [False, True])
def test_identity_is_padded_half_before_and_half_after(grad: bool) -> None:
    block = ResidualBlock(2, 7, 2, 1, "batch", "relu").eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(1, 2, 3, 3)
    with torch.set_grad_enabled(grad):
        y = block(x)
    # 5 more channels: 2 before and 3 after.
    assert y[:, 2:4].equal(x)
    assert not y[:, :2].any()
    assert not y[:, 4:].any()


@pytest.mark.float64
@pytest.mark.parametrize(("dims", "size"), [(2, (12, 8)), (2, (13, 18)), (3, (8, 4, 12)), (3, (9, 11, 8))])
@pytest.mark.parametrize("options", [{}, {"activation": "prelu"}, {"norm": "instance"}])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_sub_lattices_change_nothing(
    dims: int, size: tuple[int, ...], options: dict, training: bool, last: bool
) -> None:
    plain = _random(dims, sub_lattices=False, **options).train(training)
    dealt = _random(dims, **options).train(training)
    padded = any(n % 4 for n in size)
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    x = x.to(memory_format=FORMATS[dims]) if last else x
    assert dealt._runs_on_lattices(x) == (not padded or "norm" not in options)
    results = []
    for network in (plain, dealt):
        with torch.no_grad():
            fast = copy.deepcopy(network)(x)
        leaf = x.clone().requires_grad_()
        y = network(leaf)
        torch.manual_seed(3)
        y.backward(torch.randn(y.shape, dtype=y.dtype))
        results.append([fast, y, leaf.grad, *(p.grad for p in network.parameters()), *network.buffers()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-10)


def test_sub_lattices_in_float32_agree_to_rounding() -> None:
    plain, dealt = (_random(3, sub_lattices=flag).float().eval() for flag in (False, True))
    x = torch.randn(1, 2, 12, 8, 16)
    a, b = plain(x), dealt(x)
    bound = 2 * network_bound(plain)  # each of the two is off by as much
    assert_within(b, a, bound * max(x.abs().max().item(), a.abs().max().item()))


@pytest.mark.parametrize("options", [{}, {"activation": "prelu"}, {"dead": True}])
@pytest.mark.parametrize("last", [False, True])
def test_sub_lattices_side_by_side_agree_to_rounding(
    monkeypatch: pytest.MonkeyPatch, options: dict, last: bool
) -> None:
    """Where tiles of kernels are filled better so; with PReLU, and with channels that a norm makes constant, the zeros
    between sub-lattices cannot stand for themselves on the way into a convolution."""
    dead, options = "dead" in options, {key: value for key, value in options.items() if key != "dead"}
    network = _random(3, width=8, **options).float().eval()
    if dead:
        for name, tensor in network.state_dict().items():
            if name.endswith("norm1.norm.weight"):
                tensor[::2] = 0.0
    plain = HighResNet(in_channels=2, out_channels=3, width=8, sub_lattices=False, **options).eval()
    plain.load_state_dict(network.state_dict())
    x = torch.randn(2, 2, 17, 14, 16)
    x = x.to(memory_format=torch.channels_last_3d) if last else x
    taken: list[int] = []
    packed = pieces.packed
    monkeypatch.setattr(pieces, "packed", lambda *args: taken.append(1) or packed(*args))
    before = x.clone()
    with torch.no_grad():
        found = network(x)
        expected = plain.double()(x.double())
    assert torch.equal(x, before)
    with torch.no_grad():
        assert taken == [1] * ops.takes_tiles(x)
    bound = network_bound(network)
    assert_within(found.double(), expected, bound * max(x.abs().max().item(), expected.abs().max().item()))


@pytest.mark.float64
@pytest.mark.parametrize("size", [(8, 12, 8), (9, 11, 8)])
@pytest.mark.parametrize("voxels", [1, 200])
def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch, size: tuple[int, ...], voxels: int) -> None:
    network = _random(3).eval()
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    with torch.no_grad():
        whole = network(x)
        monkeypatch.setattr(pieces, "PIECE_VOXELS", voxels)
        called = []
        original = pieces.in_pieces
        monkeypatch.setattr(pieces, "in_pieces", lambda *a: called.append(1) or original(*a))
        torch.testing.assert_close(network(x), whole, rtol=1e-11, atol=1e-11)
    assert called


@pytest.mark.parametrize("size", [(8, 12, 8), (9, 11, 8)])
def test_norms_of_several_processes_are_plain_ones_in_evaluation(monkeypatch, size) -> None:
    """Trained by several processes on CUDA the norms span all of them; scans go through in pieces all the same."""
    network = _random().eval()
    together = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
    assert together.peak_bytes(4) == network.peak_bytes(4) is not None
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    monkeypatch.setattr(pieces, "piece_voxels", lambda *_: 200)
    taken: list[int] = []
    in_pieces = pieces.in_pieces
    monkeypatch.setattr(pieces, "in_pieces", lambda *args: taken.append(1) or in_pieces(*args))
    with torch.no_grad():
        assert torch.equal(together(x), network(x))
    assert taken == [1, 1]


def test_instance_norm_never_goes_through_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _random(2, norm="instance").eval()
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        whole = network(x)
        monkeypatch.setattr(pieces, "PIECE_VOXELS", 1)
        assert network(x).equal(whole)


@pytest.mark.parametrize("size", [(8, 8), (9, 8)])
def test_recomputation_changes_nothing_but_memory(size: tuple[int, ...]) -> None:
    results = []
    for flag in (False, True):
        network = _random(2, checkpointing=flag).train()
        y = network(torch.linspace(-1, 1, 4 * size[0] * size[1], dtype=torch.float64).view(2, 2, *size))
        y.square().sum().backward()
        results.append([y, *(p.grad for p in network.parameters()), *network.buffers()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)


def test_input_and_weights_are_left_as_they_are() -> None:
    network = _random(2).eval()
    x = torch.randn(1, 2, 8, 9, dtype=torch.float64)
    before, weights = x.clone(), copy.deepcopy(network.state_dict())
    with torch.no_grad():
        network(x)
    assert x.equal(before)
    assert all(value.equal(weights[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 1)])
def test_small_volumes_have_logits(size: tuple[int, ...]) -> None:
    network = _random(2).eval()
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    plain = _random(2, sub_lattices=False).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(x), plain(x), rtol=1e-9, atol=1e-10)


def test_dropout_acts_on_the_features_in_training_alone() -> None:
    network = _random(2, dropout=0.9)
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    network.eval()
    assert network(x).equal(network(x))
    network.train()
    first, second = network(x), network(x)
    assert not first.equal(second)
    seen = []
    network.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(x)
    assert (seen[0] == 0).double().mean() > 0.85  # ReLU alone leaves about half


def test_channels_last_weights_give_channels_last_features() -> None:
    network = HighResNet(in_channels=2, out_channels=3, width=4).to(memory_format=torch.channels_last_3d)
    seen = []
    for conv in (network.features.conv, network.classifier):
        assert conv.weight.is_contiguous(memory_format=torch.channels_last_3d)
    network.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.randn(2, 2, 8, 8, 8))
    assert seen[0].is_contiguous(memory_format=torch.channels_last_3d)


def test_bfloat16_autocast_keeps_the_stream_in_bfloat16() -> None:
    network = HighResNet(in_channels=1, out_channels=2, spatial_dims=2, width=2)
    seen = []
    for block in (block for stage in network.stages for block in stage):
        block.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    for training in (True, False):
        network.train(training)
        for size in ((8, 8), (7, 8)):
            with torch.autocast("cpu", torch.bfloat16):
                network(torch.randn(1, 1, *size)).float().sum().backward()
            assert set(seen) == {torch.bfloat16}
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())


@pytest.mark.parametrize("option", [{"activation": "gelu"}, {"norm": "group"}, {"width": 0}, {"dropout": -0.1}])
def test_bad_options_are_refused(option: dict) -> None:
    (name,) = option
    with pytest.raises(ValueError, match=f"{name} must be"):
        HighResNet(in_channels=1, out_channels=2, **option)


def test_memory_of_a_pass_is_stated_where_it_is_done_in_pieces() -> None:
    """Three tensors of the first stage's width, the scan and the logits."""
    network = HighResNet(in_channels=2, out_channels=5)
    assert (network.peak_bytes(4), network.peak_bytes(2, reduced=True)) == (4 * (3 * 16 + 2 + 5), 2 * (3 * 16 + 2))
    assert HighResNet(in_channels=2, out_channels=5, norm="instance").peak_bytes(4) is None
    assert HighResNet(in_channels=2, out_channels=5, sub_lattices=False).peak_bytes(4) is None
