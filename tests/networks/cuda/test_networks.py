"""Whole networks on the paths of a GPU, taken on the CPU under Triton's interpreter, beside PyTorch's operations."""

from __future__ import annotations

import pytest

from tests.interpreted import INTERPRETED

if INTERPRETED:
    import copy

    import torch
    import torch.nn.functional as F

    from rarevox import networks
    from rarevox.networks.cpu import ops, plain, planes
    from rarevox.networks.cpu.pointwise import chain
    from rarevox.networks.cpu.winograd import convolution as winograd
    from rarevox.networks.cuda import affine, channels, norm
    from rarevox.networks.cuda.launch import channels_last
    from tests.bounds import assert_within, least_cosine, network_bound

    PATHS = {"channels": (5, 5, 6, 6, 9, 9, 10, 10), "joint": (11, 11)}
    AGAIN = {"width": 3, "activation": "prelu", "checkpointing": True}
    FACTORS = {"low_resolution_factors": (2, 3)}
    NETWORKS = {
        "HighResNet": (networks.HighResNet, {"width": 4}, (4, 4, 8)),
        "HighResNet, padded": (networks.HighResNet, {"width": 4}, (7, 9, 6)),
        "HighResNet, again": (
            networks.HighResNet,
            {"width": 3, "activation": "prelu", "checkpointing": True},
            (6, 7, 8),
        ),
        "HighResNet, slices": (networks.HighResNet, {"width": 4, "spatial_dims": 2}, (18, 17)),
        "DeepMedic, residual": (networks.DeepMedic, {**PATHS, "spatial_dims": 2, "residual": True}, (57, 60)),
        "DeepMedic, two low paths": (networks.DeepMedic, {**PATHS, **FACTORS, "spatial_dims": 2}, (60, 60)),
        "DeepMedic, volumes": (networks.DeepMedic, {**PATHS, "residual": True}, (51, 51, 51)),
        "DeepMedic, pre-activated": (networks.DeepMedic, {**PATHS, "spatial_dims": 2, "preactivation": True}, (57, 57)),
    }

    @pytest.fixture
    def taken(monkeypatch):
        """As if the tensors were on a GPU, in half precision where channels are asked about; what was taken."""
        counts = {"norm": 0, "affine": 0, "coarse": 0, "channels": set()}

        def fits(x, layer, activation, padded=False):
            layout = x.is_contiguous(memory_format=channels_last(x))
            large = padded or norm.is_large(2 * x.numel())
            return norm.knows(layer, activation) and large and layout and x.numel() > x.shape[1]

        def counted(function, name):
            def call(x, *args, **kwargs):
                counts[name] += 1
                counts["channels"].add(x.shape[1])
                counts["coarse"] += kwargs.get("add") is not None and kwargs["add"].before
                return function(x, *args, **kwargs)

            return call

        def on_gpu(x):
            return not torch.is_grad_enabled()

        def as_on_gpu(*args, **kwargs):  # cuDNN gives back the layout of what it is given
            y = plain.convolve(*args, **kwargs)
            return y.contiguous(memory_format=channels_last(y))

        monkeypatch.setattr(ops, "convolve", as_on_gpu)
        monkeypatch.setattr(planes, "PIECE_VOXELS", 20)  # more than one piece of the joint layers
        monkeypatch.setattr(winograd, "pays", lambda *_: False)
        monkeypatch.setattr(chain, "applies", lambda *_: False)
        monkeypatch.setattr(norm, "fits", fits)
        monkeypatch.setattr(norm, "is_large", lambda _: True)
        monkeypatch.setattr(channels, "pay", lambda _: True)
        monkeypatch.setattr(affine, "works", on_gpu)
        monkeypatch.setattr(affine, "fits", lambda x: on_gpu(x) and x.is_contiguous(memory_format=channels_last(x)))
        monkeypatch.setattr(norm, "norm_act", counted(norm.norm_act, "norm"))
        monkeypatch.setattr(affine, "affine_act", counted(affine.affine_act, "affine"))
        assert ops.affine is affine and ops.gpu_training is norm
        return counts

    def make(name):
        """A network whose norms are not those it is born with, a copy for PyTorch's operations in float64, a scan."""
        kind, options, size = NETWORKS[name]
        torch.manual_seed(0)
        network = kind(**{"in_channels": 2, "out_channels": 3, **options})
        x = torch.randn(2, 2, *size)
        x = x.contiguous(memory_format=channels_last(x))
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.uniform_(-0.5, 0.5)
        network.to(memory_format=channels_last(x))
        return network, copy.deepcopy(network).double(), x

    def of(network, kinds):
        return sum(isinstance(module, kinds) for module in network.modules())

    @pytest.mark.parametrize("name", NETWORKS)
    def test_a_step_of_training_and_a_scan(taken, name, monkeypatch):
        network, peer, x = make(name)
        norms = of(network, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d))
        logits = network.train()(x)
        steps = taken["norm"]
        # A step back goes through the blocks again where they are not kept. Pre-activated paths are PyTorch's.
        assert steps == (norms if "pre-activated" not in name else 0)
        g = torch.randn_like(logits)
        logits.backward(g)
        if "DeepMedic" in name and "pre-activated" not in name:
            assert all(width % 8 == 0 for width in taken["channels"])
        network.eval()
        with torch.no_grad():
            scores = network(x)
        assert taken["affine"] >= (norms if "pre-activated" not in name else 0)
        if "DeepMedic" in name and "pre-activated" not in name:
            assert taken["coarse"] >= 2
        monkeypatch.undo()
        expected = agree(network, peer, x, logits, g)
        largest = max(x.abs().max().item(), expected.abs().max().item())
        assert_within(scores, expected, 2 * network_bound(network) * largest)

    @pytest.mark.parametrize("least", [2500, 5000, 9000])
    def test_layers_that_are_large_enough_beside_others_that_are_not(taken, monkeypatch, least):
        """The paths then end in different numbers of channels of zeros."""
        monkeypatch.setattr(norm, "is_large", lambda count: count >= least)
        network, peer, x = make("DeepMedic, two low paths")
        logits = network.train()(x)
        assert 0 < taken["norm"] < of(network, torch.nn.BatchNorm2d)
        g = torch.randn_like(logits)
        logits.backward(g)
        monkeypatch.undo()
        agree(network, peer, x, logits, g)

    def agree(network, peer, x, logits, g):
        """A step's logits, gradients and running statistics are those of float64; what its evaluation gives then."""
        expected = peer.train()(x.double())
        expected.backward(g.double())
        bound = 2 * network_bound(network)
        size = max(x.abs().max().item(), expected.abs().max().item())
        assert_within(logits, expected, bound * size)
        for (place, one), other in zip(network.named_parameters(), peer.parameters(), strict=True):
            cosine = F.cosine_similarity(one.grad.double().flatten(), other.grad.flatten(), dim=0)
            assert cosine > least_cosine(network), (place, cosine)
            # With 1 − cos = 2 s the change is of 4 s of the square.
            changed = (2 * (1 - least_cosine(network))) ** 0.5
            assert abs(one.grad.double().norm() / other.grad.norm() - 1) < changed, place
        for one, other in zip(network.buffers(), peer.buffers(), strict=True):
            assert_within(one, other, bound * max(1.0, other.abs().max().item()))
        with torch.no_grad():
            return peer.eval()(x.double())
