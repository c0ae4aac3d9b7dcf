"""What every network must obey; it finds the public networks, and the overlays that name one, by itself."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from rarevox import networks
from rarevox.networks import Geometry, geometry_of
from rarevox.networks.cpu import fourier
from tests.bounds import assert_within, network_bound

CLASSES = [
    item
    for name in networks.__all__
    if inspect.isclass(item := getattr(networks, name))
    and issubclass(item, nn.Module)
    and "in_channels" in inspect.signature(item).parameters  # SliceWise wraps a network
]
OVERLAYS = sorted((Path(networks.__file__).parent.parent / "configs" / "networks").glob("*.yaml"))
# Options that make a network small enough to be tested in float64; one that is not listed is tested as it comes.
SMALL: dict[str, dict] = {
    "HighResNet": {"width": 4},
    "DeepMedic": {"channels": (4,) * 8, "joint": (6, 6)},
    "ValidUNet": {"width": 4},
    "TwoPathCNN": {"local_features": 1, "global_features": 1},
}
# Float32 in 3D, where float64 convolutions are an order of magnitude slower.
DTYPES = {2: torch.float64, 3: torch.float32}
FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}

every_network = pytest.mark.parametrize("network_class", CLASSES, ids=lambda c: c.__name__)
every_dims = pytest.mark.parametrize("dims", [2, 3])


def _build(network_class: type[nn.Module], dims: int, seed: int = 0, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    small = SMALL.get(network_class.__name__, {})
    return network_class(**{"in_channels": 2, "out_channels": 3, "spatial_dims": dims, **small, **options}).to(
        DTYPES[dims]
    )


def _input(size: tuple[int, ...], batch: int = 1, seed: int = 1) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(batch, 2, *size, dtype=DTYPES[len(size)])


def assert_same(network: nn.Module, x: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> None:
    """Two results for the same numbers of ``x``, each off by the network's rounding."""
    bound = 2 * network_bound(network, x.dtype)
    assert_within(one, other, bound * max(x.abs().max().item(), other.abs().max().item()))


def _some_sizes(geometry: Geometry) -> list[tuple[int, ...]]:
    """The smallest size, and one that is larger by different amounts on each axis."""
    larger = (n + (1 + axis) * m for axis, (n, m) in enumerate(zip(geometry.minimum, geometry.multiple, strict=True)))
    return [geometry.minimum, tuple(larger)]


def _seen(network: nn.Module, size: tuple[int, ...], place: int) -> set[int]:
    """The places of the first axis that one output voxel depends on, by gradient, over a few inputs."""
    found: set[int] = set()
    for seed in range(3):
        # In float64 convolutions are plain sums; Winograd's leave rounding of 1e-8 beside what a voxel depends on.
        x = _input(size, seed=seed).double().requires_grad_()
        y = network(x)
        centre = tuple(n // 2 for n in y.shape[3:])
        voxel = y[(0, slice(None), place, *centre)]
        (gradient,) = torch.autograd.grad((voxel * torch.randn_like(voxel)).sum(), x)
        found |= set(torch.nonzero(gradient[0].abs().flatten(2).sum((0, 2))).flatten().tolist())
    return found


def test_the_networks_are_found() -> None:
    assert {"HighResNet", "DeepMedic"} <= {c.__name__ for c in CLASSES}


@every_network
@every_dims
def test_output_size_is_as_stated(network_class: type[nn.Module], dims: int) -> None:
    network = _build(network_class, dims).eval()
    geometry = geometry_of(network)
    assert geometry.spatial_dims == dims
    for size in _some_sizes(geometry):
        with torch.no_grad():
            assert network(_input(size)).shape == (1, 3, *geometry.output_size(size))


@pytest.mark.float64
@every_network
@every_dims
def test_receptive_field_by_gradient_is_as_stated(
    network_class: type[nn.Module], dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fourier, "pays", lambda x, weight: False)  # products of spectra leave rounding everywhere
    network = _build(network_class, dims).eval().double()
    geometry = geometry_of(network)
    field, margin, multiple = (figure[0] for figure in (geometry.receptive_field, geometry.margin, geometry.multiple))
    first = geometry.input_size(max(field - 2 * margin, 0) + 2 * multiple)[0]
    size = (first, *geometry.minimum[1:])
    start = (first - 2 * margin) // 2 // multiple * multiple
    places = range(start, min(start + multiple, first - 2 * margin))
    seen = [_seen(network, size, place) for place in places]
    assert max(max(s) - min(s) + 1 for s in seen) == field
    if margin == 0:
        assert all(place - min(s) == max(s) - place == field // 2 for place, s in zip(places, seen, strict=True))


@every_network
@every_dims
def test_sizes_that_do_not_fit_are_refused_with_the_nearest(network_class: type[nn.Module], dims: int) -> None:
    network = _build(network_class, dims).eval()
    geometry = geometry_of(network)
    below = geometry.minimum[0] - 1
    for wrong in {below, geometry.minimum[0] + 1}:
        size = (wrong, *geometry.minimum[1:])
        if wrong < 1 or geometry.accepts(size):
            continue
        nearest = geometry.nearest_sizes(size)[0]
        with pytest.raises(ValueError, match="nearest sizes that work: " + " or ".join(map(str, nearest))):
            network(torch.zeros(1, 2, *size, dtype=DTYPES[dims]))


@every_network
@every_dims
def test_wrong_channels_and_axes_are_refused(network_class: type[nn.Module], dims: int) -> None:
    network = _build(network_class, dims).eval()
    size = geometry_of(network).minimum
    with pytest.raises(ValueError, match="in_channels=2 and got 5"):
        network(torch.zeros(1, 5, *size))
    with pytest.raises(ValueError, match=f"takes a batch with {dims + 2} axes"):
        network(torch.zeros(2, *size))


@every_network
@pytest.mark.parametrize(
    "option", [{"in_channels": 0}, {"out_channels": 0}, {"spatial_dims": 4}, {"dropout": 1.5}], ids=str
)
def test_bad_options_are_refused_by_name(network_class: type[nn.Module], option: dict) -> None:
    (name,) = option
    with pytest.raises(ValueError, match=f"{name} must be"):
        network_class(**{"in_channels": 1, "out_channels": 2, **option})


@every_network
def test_options_are_keywords(network_class: type[nn.Module]) -> None:
    with pytest.raises(TypeError):
        network_class(1, 2)


@every_network
@every_dims
def test_logits_are_linear(network_class: type[nn.Module], dims: int) -> None:
    # Large inputs drive linear logits far to both sides; a ReLU, sigmoid or softmax behind them would bound them. A
    # few draws of the weights, for those of one small network may all lie on one side.
    logits = []
    for seed in range(4):
        network = _build(network_class, dims, seed).eval()
        with torch.no_grad():
            logits.append(network(1e6 * _input(geometry_of(network).minimum)))
    assert torch.cat(logits).min() < -1e3
    assert torch.cat(logits).max() > 1e3


@every_network
@every_dims
def test_state_dict_comes_back(network_class: type[nn.Module], dims: int) -> None:
    network = _build(network_class, dims).train()
    x = _input(_some_sizes(geometry_of(network))[1], batch=2)
    network(x)  # moves running statistics away from where they began
    other = _build(network_class, dims, seed=9)
    other.load_state_dict(network.state_dict(), strict=True)
    with torch.no_grad():
        assert other.eval()(x).equal(network.eval()(x))


@every_network
@every_dims
def test_shifts_by_the_multiple_shift_the_output(network_class: type[nn.Module], dims: int) -> None:
    network = _build(network_class, dims).eval()
    geometry = geometry_of(network)
    for axis in range(dims):
        field, margin, shift = geometry.receptive_field[axis], geometry.margin[axis], geometry.multiple[axis]
        border = 0 if margin else field // 2
        size = list(geometry.minimum)
        size[axis] = geometry.input_size([2 * border + 3 * shift if a == axis else 1 for a in range(dims)])[axis]
        long = list(size)
        long[axis] += shift
        x = _input(tuple(long))
        with torch.no_grad():
            at = network(x.narrow(2 + axis, 0, size[axis])).narrow(2 + axis, border + shift, shift)
            shifted = network(x.narrow(2 + axis, shift, size[axis])).narrow(2 + axis, border, shift)
        assert_same(network, x, shifted, at)


@every_network
@every_dims
def test_samples_are_independent_in_evaluation(network_class: type[nn.Module], dims: int) -> None:
    network = _build(network_class, dims).eval()
    x = _input(geometry_of(network).minimum, batch=2)
    with torch.no_grad():
        assert_same(network, x, network(x)[1:], network(x[1:]))


@every_network
@every_dims
def test_every_parameter_has_a_gradient(network_class: type[nn.Module], dims: int) -> None:
    network = _build(network_class, dims).train()
    network(_input(_some_sizes(geometry_of(network))[1], batch=2)).square().sum().backward()
    dead = [
        n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert not dead


@every_network
@every_dims
def test_channels_last_gives_the_same(network_class: type[nn.Module], dims: int) -> None:
    network = _build(network_class, dims).eval()
    x = _input(_some_sizes(geometry_of(network))[1], batch=2)
    with torch.no_grad():
        expected = network(x)
        network.to(memory_format=FORMATS[dims])
        y = network(x.to(memory_format=FORMATS[dims]))
    assert_same(network, x, y, expected)


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_overlays_name_networks_whose_patches_fit(path: Path) -> None:
    parser = ConfigParser(ConfigParser.load_config_file(path))
    parser.update({"in_channels": 2, "out_channels": 3, "rarevox_installed": True})
    network = parser.get_parsed_content("network_def")
    geometry = parser.get_parsed_content("geometry")
    assert isinstance(geometry, Geometry)
    geometry.check(parser["patch_size"])
    assert parser["batch_size"] >= 1
    margins = geometry.loss_margins(parser["loss_margin"])
    seen = [n - 2 * m for n, m in zip(geometry.output_size(parser["patch_size"]), margins, strict=True)]
    assert min(seen) >= 1
    fast = [n % m == 0 for n, m in zip(parser["patch_size"], geometry.preferred_multiple, strict=True)]
    assert all(fast) or "paper" in path.stem or any(geometry.margin)
    if not hasattr(network, "geometry"):  # a network from elsewhere, whose geometry the overlay states
        size = [2 * n for n in geometry.minimum]
        with torch.no_grad():
            assert network.eval()(torch.zeros(1, 2, *size)).shape[2:] == geometry.output_size(size)
        step = geometry.multiple[0]
        with pytest.raises(Exception):  # noqa: B017 (MONAI's networks fail as they like at sizes out of step)
            network(torch.zeros(1, 2, 2 * step + step // 2 + 1, *size[1:]))


def _reach(network: nn.Module, length: int, period: int) -> int:
    """The farthest that an output voxel reaches along the first axis, over the places of a period.

    Norms of the whole image are left out; positive weights leave no path without a gradient.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, (nn.InstanceNorm2d, nn.GroupNorm)):
                setattr(module, name, nn.Identity())
    for parameter in network.parameters():
        parameter.data = parameter.data.abs() + 1e-3
    farthest = 0
    for place in range(length // 2, length // 2 + period):
        x = torch.rand(1, 1, length, period, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(network(x)[0, :, place].sum(), x)
        seen = torch.nonzero(gradient[0, 0].sum(1)).flatten()
        farthest = max(farthest, place - int(seen[0]), int(seen[-1]) - place)
    return farthest


@pytest.mark.float64
@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_overlays_state_the_receptive_field_of_networks_from_elsewhere(path: Path) -> None:
    parser = ConfigParser(ConfigParser.load_config_file(path))
    if parser["network_def"]["_target_"].startswith("rarevox."):
        return  # states its own, and is tested above
    field, multiple = parser["geometry"]["receptive_field"][0], parser["geometry"]["multiple"]
    parser.update({"in_channels": 1, "out_channels": 2, "network_def::spatial_dims": 2})
    network = parser.get_parsed_content("network_def").double().eval()
    length = (field // 2 // multiple + 3) * 2 * multiple
    assert 2 * _reach(network, length, multiple) + 1 == field


def test_configurations_can_state_a_geometry() -> None:
    content = {"_target_": "rarevox.networks.Geometry", "receptive_field": [65, 65, 65], "margin": 0, "multiple": 16}
    geometry = ConfigParser({"geometry": content}).get_parsed_content("geometry")
    assert geometry.nearest_sizes((20, 32, 5)) == ((16, 32), (32,), (16,))
