"""DeepMedic: the paper's sizes, the alignment of its paths, its options."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rarevox.networks import DeepMedic
from rarevox.networks.cpu import planes
from tests.bounds import assert_within, network_bound


def _small(**options: object) -> DeepMedic:
    torch.manual_seed(0)
    return DeepMedic(
        **{"in_channels": 1, "out_channels": 2, "spatial_dims": 2, "channels": (2,) * 8, "joint": (3, 3), **options}
    ).double()


@pytest.mark.parametrize(("size", "expected"), [(51, 3), (63, 15), (87, 39)])
def test_sizes_of_table_1(size: int, expected: int) -> None:
    network = DeepMedic(in_channels=1, out_channels=2)
    # out = (in / 3 − 16) · 3
    assert network.geometry.output_size((size,) * 3) == (expected,) * 3 == ((size // 3 - 16) * 3,) * 3
    small = _small(spatial_dims=3).float().eval()  # a coarse path of one voxel has no batch statistics
    assert small(torch.zeros(1, 1, size, 51, 51)).shape == (1, 2, expected, 3, 3)


def test_layers_of_the_paper() -> None:
    network = DeepMedic(in_channels=2, out_channels=5)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
    path = [30, 30, 40, 40, 40, 40, 50, 50]
    assert [m.out_channels for m in convolutions] == path + path + [150, 150, 5]
    assert [m.kernel_size[0] for m in convolutions] == [3] * 16 + [1] * 3
    assert [m.in_channels for m in convolutions][16] == 100
    assert all((m.bias is not None) == (m is network.classifier) for m in convolutions)
    assert sum(isinstance(m, nn.PReLU) for m in network.modules()) == 18
    assert sum(isinstance(m, nn.BatchNorm3d) for m in network.modules()) == 18


def test_state_dict_layout() -> None:
    unit = ["conv.weight", "norm.weight", "norm.bias"]
    unit += [f"norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")] + ["activation.weight"]
    paths = ["full", "low.0", "low.1"]
    expected = [f"{path}.layers.{layer}.{key}" for path in paths for layer in range(8) for key in unit]
    expected += [f"joint.{layer}.{key}" for layer in range(2) for key in unit]
    expected += ["classifier.weight", "classifier.bias"]
    assert list(_small(low_resolution_factors=(3, 5)).state_dict()) == expected


def _identity(network: DeepMedic, path: int) -> DeepMedic:
    """Every layer takes the centre of its kernel; only one path (0 is the full one) reaches the logits."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.zeros_(module.weight)
            centre = tuple(n // 2 for n in module.kernel_size)
            module.weight.data[(0, 0, *centre)] = 1.0
    first = network.joint[0].conv
    centre = tuple(n // 2 for n in first.kernel_size)
    first.weight.data[(0, 0, *centre)] = 0.0
    first.weight.data[(0, 2 * path, *centre)] = 1.0
    return network.eval()


@pytest.mark.parametrize("factors", [(3,), (2,), (3, 5), (5, 3), (2, 4)])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("wide", [False, True])
def test_impulses_show_that_a_coarse_sample_describes_its_own_block(
    factors: tuple[int, ...], dims: int, wide: bool
) -> None:
    if dims == 3 and (len(factors) > 1 or wide):
        factors, wide = (3,), False
    options = {} if wide else {"joint": (2,)}
    network = _small(low_resolution_factors=factors, channels=(2,) * 8, spatial_dims=dims, wide=wide, **options)
    geometry = network.geometry
    size = geometry.input_size((max(geometry.multiple),) * dims)
    margin = geometry.margin[0]
    extra = 1 if wide else 0
    for path in range(1 + len(factors)):
        factor = (1, *factors)[path]
        _identity(network, path)
        for place in (0, 1, geometry.output_size(size)[0] - 1):
            x = torch.zeros(1, 1, *size, dtype=torch.float64)
            at = (place + margin,) * dims
            x[(0, 0, *at)] = 1.0
            with torch.no_grad():
                y = network(x)[0, 0] - network(torch.zeros_like(x))[0, 0]
            # The block of ``factor`` voxels that holds the impulse, in coordinates before the joint layer cropped
            # ``extra`` voxels; the average of an impulse over the block is 1 / factor^n.
            block = (place + extra) // factor * factor - extra
            expected = torch.zeros_like(y)
            inside = slice(max(block, 0), block + factor)
            expected[(inside,) * dims] = 1.0 / factor**dims
            value = y.max()
            assert value > 0
            torch.testing.assert_close(y / value, expected / expected.max(), rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(value.item(), 1.0 / factor**dims, rtol=1e-3, atol=0.0)  # batch norm's ε


def test_factors_3_and_5_need_common_multiples() -> None:
    geometry = DeepMedic(in_channels=1, out_channels=2, low_resolution_factors=(3, 5)).geometry
    # The path of factor 5 needs o + 80 voxels and o is a multiple of 15: 95, 110, 125 …
    assert geometry.output_size((95, 110, 125)) == (15, 30, 45)
    with pytest.raises(ValueError, match=r"the nearest sizes that work: 95 x 95 or 110 x 95"):
        geometry.check((95, 100, 80))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("factors", [(), (2,), (3,), (5, 3)])
def test_receptive_field_by_gradient(factors: tuple[int, ...], wide: bool) -> None:
    network = _small(low_resolution_factors=factors, wide=wide).eval()
    geometry = network.geometry
    size = geometry.input_size((2 * geometry.multiple[0], 1))
    x = torch.randn(1, 1, *size, dtype=torch.float64, requires_grad=True)
    extents = []
    for line in network(x)[0].sum(0)[:, 0]:
        (gradient,) = torch.autograd.grad(line, x, retain_graph=True)
        seen = torch.nonzero(gradient[0, 0].abs().sum(1)).flatten()
        extents.append(int(seen[-1] - seen[0] + 1))
    # 17 samples of the coarsest path; the three neighbours of a 3³ joint layer can touch a further block (or two
    # further voxels without low paths).
    largest = max(factors, default=1)
    assert max(extents) == geometry.receptive_field[0] == 17 * largest + (wide and (largest if factors else 2))


def test_without_low_paths_any_size_from_17_works() -> None:
    network = _small(low_resolution_factors=())
    assert network(torch.zeros(1, 1, 17, 20, dtype=torch.float64)).shape == (1, 2, 1, 4)


def test_residual_additions_are_at_layers_4_6_and_8() -> None:
    network = _small(channels=(1, 1, 2, 3, 3, 3, 3, 3), residual=True).eval()
    path = network.full
    for number, layer in enumerate(path.layers, start=1):
        for parameter in layer.parameters():
            nn.init.ones_(parameter)
        if number > 2:
            nn.init.zeros_(layer.conv.weight)
            nn.init.zeros_(layer.norm.bias)
    x = torch.rand(1, 1, 17, 17, dtype=torch.float64)
    with torch.no_grad():
        second = path.layers[1](path.layers[0](x))
        y = path(x)
    # Layers 3 to 8 give 0, so the input of layer 3 passes through three additions, each cropping 2 voxels a face:
    # 13 − 12 = 1 voxel, the central one; two channels of zeros follow.
    assert y[0, :, 0, 0].tolist() == [second[0, 0, 6, 6].item(), 0.0, 0.0]
    plain = _small(channels=(1, 1, 2, 3, 3, 3, 3, 3)).full
    plain.load_state_dict(path.state_dict())
    assert not plain.eval()(x).any()


def test_wide_has_a_spatial_joint_layer_of_250() -> None:
    network = DeepMedic(in_channels=1, out_channels=2, wide=True)
    assert [layer.conv.weight.shape[0] for layer in network.joint] == [250, 250]
    assert network.joint[0].conv.kernel_size == (3, 3, 3)
    assert network.geometry.output_size((54, 54, 54)) == (4, 4, 4)  # 54 − 48 − 2


def test_preactivation_begins_with_a_convolution_and_ends_with_a_norm() -> None:
    network = _small(preactivation=True)
    assert isinstance(network.full.layers[0].norm, nn.Identity)
    assert isinstance(network.last.norm, nn.BatchNorm2d)
    # The first layer of each path is bare: 2 · 7 + 2 joint norms, and one before the classifier.
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 17
    network.eval()
    assert network(torch.randn(1, 1, 51, 54, dtype=torch.float64)).shape == (1, 2, 3, 6)


def test_dropout_acts_before_the_last_joint_layer_and_the_logits() -> None:
    network = _small(dropout=0.5, joint=(40, 40)).train()
    seen: list[torch.Tensor] = []
    for module in (*network.joint, network.classifier):
        module.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0] == 0).double().mean().item()))
    network(torch.randn(2, 1, 51, 51, dtype=torch.float64))
    assert seen[0] == 0
    assert all(0.3 < share < 0.7 for share in seen[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low_resolution_factors": (1,)}, "low_resolution_factors must be a list of whole numbers of at least 2"),
        ({"low_resolution_factors": 3}, "low_resolution_factors must be a list"),
        ({"channels": ()}, "channels needs at least one number"),
        ({"joint": (0,)}, "joint must be a list of whole numbers of at least 1"),
        ({"residual": True, "channels": (4, 4, 2, 2)}, "residual=True no layer may have fewer channels"),
        ({"dropout": 2}, "dropout must be"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepMedic(in_channels=1, out_channels=2, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"low_resolution_factors": (3, 5)},
        {"low_resolution_factors": ()},
        {"wide": True},
        {"preactivation": True, "residual": True},
        {"spatial_dims": 2},
    ],
)
def test_evaluation_in_pieces_and_with_folded_norms_gives_the_same(
    options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = DeepMedic(in_channels=2, out_channels=3, channels=(3,) * 6 + (4,) * 2, joint=(6, 6), **options)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.normal_(module.weight, 1.0, 0.3)
            torch.nn.init.normal_(module.bias, 0.0, 0.3)
            module.running_mean.normal_(0.0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    network.eval()
    output = (15, 30, 15)[: network.geometry.spatial_dims]
    x = torch.randn(1, 2, *network.geometry.input_size(output))
    expected = network(x)
    assert expected.requires_grad
    expected = expected.detach()
    with torch.no_grad():
        bound = 2 * network_bound(network) * max(x.abs().max().item(), expected.abs().max().item())
        assert_within(network(x), expected, bound)
        for voxels in (1, 1000, 2000):  # pieces of one plane, and of several that do not end with a block
            monkeypatch.setattr(planes, "PIECE_VOXELS", voxels)
            assert_within(network(x), expected, bound)
