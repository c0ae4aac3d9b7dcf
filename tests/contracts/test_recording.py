"""Networks that are traced, exported or compiled give the numbers that they give, at sizes that were not shown."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from rarevox import networks
from rarevox.networks import geometry_of

IN_OUT = {"in_channels": 2, "out_channels": 3}
# As few channels as the compiled kernels take, and layers until there is one after a residual one, the fourth.
NARROW = {"channels": (16,) * 5, "joint": (16, 16)}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "highresnet": lambda: networks.HighResNet(**IN_OUT),
    "highresnet2d": lambda: networks.HighResNet(**IN_OUT, spatial_dims=2),
    "highresnet instance": lambda: networks.HighResNet(**IN_OUT, width=8, norm="instance", activation="prelu"),
    "deepmedic": lambda: networks.DeepMedic(**IN_OUT, **NARROW),
    "deepmedic residual": lambda: networks.DeepMedic(**IN_OUT, **NARROW, residual=True, preactivation=True),
    "deepmedic wide": lambda: networks.DeepMedic(**IN_OUT, **NARROW, wide=True),
    "deepmedic2d": lambda: networks.DeepMedic(**IN_OUT, **NARROW, spatial_dims=2),
    "unet": lambda: networks.ValidUNet(**IN_OUT, spatial_dims=3, width=16),
    "unet2d": lambda: networks.ValidUNet(**IN_OUT, width=16),
    "twopathcnn": lambda: networks.TwoPathCNN(**IN_OUT, local_features=4, global_features=4),
    "slices": lambda: networks.SliceWise(networks.ValidUNet(**IN_OUT, width=8)),
}
every_network = pytest.mark.parametrize("name", list(NETWORKS))


def _network(name: str) -> nn.Module:
    """With weights and running statistics as after training, so that none of its numbers is trivial."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def _inputs(network: nn.Module) -> Iterator[torch.Tensor]:
    """The example, of two samples; then three of other sizes."""
    geometry = geometry_of(network)
    for step, batch in enumerate((2, 1, 3, 1)):
        # The output has two places at least: exporters take sizes of one for special.
        longer = [(1 + step + axis) * multiple for axis, multiple in enumerate(geometry.multiple)]
        least = [max(n, 12) for n in geometry.minimum]
        size = geometry.input_size([n - 2 * m + k for n, m, k in zip(least, geometry.margin, longer, strict=True)])
        yield torch.randn(batch, 2, *size)


def _check(network: nn.Module, program: Callable[[torch.Tensor], torch.Tensor], inputs: list[torch.Tensor]) -> None:
    """Plain sums and Winograd's differ by rounding, in proportion to the logits."""
    for x in inputs:
        with torch.no_grad():
            expected, y = network(x), program(x)
        assert y.shape == expected.shape
        assert float((y - expected).abs().max()) <= 1e-4 * max(1.0, float(expected.abs().max()) / 10)


def _dynamic(network: nn.Module) -> dict[str, dict[int, object]]:
    return {"x": dict.fromkeys([0, *range(2, 2 + geometry_of(network).spatial_dims)], torch.export.Dim.DYNAMIC)}


@every_network
@pytest.mark.parametrize("gradients", [False, True])
def test_traced_networks_take_other_sizes(name: str, gradients: bool) -> None:
    network = _network(name)
    example, *others = _inputs(network)
    with torch.set_grad_enabled(gradients), warnings.catch_warnings():
        # The tracer warns where a size decides anything; group norms of PyTorch's own ask for it.
        warnings.simplefilter("error", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module="torch.nn.functional")
        traced = torch.jit.trace(network, example, check_trace=False)
    _check(network, traced, others)


@pytest.mark.parametrize("name", ["deepmedic", "unet"])
def test_traced_networks_refuse_sizes_that_do_not_fit(name: str) -> None:
    network = _network(name)
    example = next(iter(_inputs(network)))
    traced = torch.jit.freeze(torch.jit.trace(network, example, check_trace=False))
    with pytest.raises(torch.jit.Error, match="does not fit the network"):
        traced(example[..., 1:])


@every_network
def test_exported_networks_take_other_sizes(name: str) -> None:
    network = _network(name)
    example, *others = _inputs(network)
    program = torch.export.export(network, (example,), dynamic_shapes=_dynamic(network))
    _check(network, program.module(), others)


@every_network
def test_graphs_are_plain(name: str) -> None:
    network = _network(name)
    example = next(iter(_inputs(network)))
    _check(network, make_fx(network)(example), [example])


@pytest.mark.parametrize("name", ["highresnet", "deepmedic", "unet2d"])
def test_compiled_networks_are_the_same(name: str) -> None:
    network = _network(name)
    example = next(iter(_inputs(network)))
    torch._dynamo.reset()
    _check(network, torch.compile(network, backend="aot_eager", dynamic=False), [example])


@pytest.mark.parametrize("name", ["highresnet", "deepmedic", "unet"])
def test_networks_go_through_vmap(name: str) -> None:
    network = _network(name)
    example = next(iter(_inputs(network)))
    _check(network, lambda x: torch.func.vmap(network)(x[:, None])[:, 0], [example])


@every_network
def test_scripting_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(RuntimeError, match=r"is traced, not scripted: torch\.jit\.trace"):
        torch.jit.script(NETWORKS[name]())
