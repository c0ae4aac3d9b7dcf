from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from rarevox.networks import DeepMedic, Geometry, HighResNet, SliceWise
from rarevox.networks.norms import SampleNorm
from rarevox.pipeline.device import Precision
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference import dense
from rarevox.pipeline.inference.dense import DenseInferer
from rarevox.pipeline.inference.tiling.memory import activation_bytes
from rarevox.pipeline.inference.tiling.stitch import all_class_indices
from rarevox.transforms.decision import Decision


def deepmedic() -> DeepMedic:
    torch.manual_seed(0)
    return DeepMedic(in_channels=2, out_channels=3, channels=(3,) * 8, joint=(4, 4)).double().eval()


def highresnet() -> HighResNet:
    torch.manual_seed(0)
    return HighResNet(in_channels=2, out_channels=3, width=2).double().eval()


def budget_for(network: torch.nn.Module, voxels: int) -> float:
    """The memory_gb that allows blocks of ``voxels``."""
    return voxels * activation_bytes(network, 4) / 1e9


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(shape=st.tuples(*[st.integers(1, 40)] * 3), voxels=st.integers(52**3, 70**3))
def test_valid_networks_are_stitched_to_the_single_pass(shape: tuple[int, int, int], voxels: int) -> None:
    network = deepmedic()
    image = torch.randn(1, 2, *shape, dtype=torch.float64)
    tiled = DenseInferer(network.geometry, memory_gb=budget_for(network, voxels))(image, network)
    sizes = network.geometry.input_size(shape)
    pad = [s for n, total in reversed(list(zip(shape, sizes, strict=True))) for s in (24, total - n - 24)]
    with torch.inference_mode():
        single = network(torch.nn.functional.pad(image, pad))[..., : shape[0], : shape[1], : shape[2]]
    assert tiled.shape == single.shape
    assert torch.allclose(tiled.double(), single, atol=1e-5)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(shape=st.tuples(st.integers(90, 110), st.integers(1, 9), st.integers(1, 7)))
def test_size_keeping_networks_are_stitched_to_the_single_pass(shape: tuple[int, int, int]) -> None:
    network = highresnet()
    image = torch.randn(1, 2, *shape, dtype=torch.float64)
    inferer = DenseInferer(network.geometry, mode="exact", memory_gb=budget_for(network, shape[1] * shape[2] * 100))
    tiled = inferer(image, network)
    with torch.inference_mode():
        assert torch.allclose(tiled.double(), network(image), atol=1e-5)


def test_several_tiles_were_really_used() -> None:
    network = highresnet()
    inferer = DenseInferer(network.geometry, mode="exact", memory_gb=budget_for(network, 92 * 4 * 4))
    inferer(torch.randn(1, 2, 120, 4, 4, dtype=torch.float64), network)
    assert inferer.notes["tiles"] > 1


def test_labels_are_the_argmax_of_the_scores() -> None:
    network = deepmedic()
    image = torch.randn(2, 2, 9, 7, 5, dtype=torch.float64)
    scores = DenseInferer(network.geometry)(image, network)
    labels = DenseInferer(network.geometry, reduce="labels")(image, network)
    assert labels.dtype == torch.uint8
    assert labels.shape == (2, 1, 9, 7, 5)
    assert torch.equal(labels[:, 0].long(), scores.argmax(1))


@pytest.mark.parametrize(("flips", "temperature"), [((), 1.0), ((0,), 2.0)])
def test_labels_follow_the_decision_tile_by_tile(flips: tuple[int, ...], temperature: float) -> None:
    network, decision = highresnet(), Decision({"a": {"threshold": 0.2}}, ["a", "b"])
    image = torch.randn(1, 2, 200, 4, 4, dtype=torch.float64)
    how: dict[str, Any] = {"mode": "exact", "memory_gb": budget_for(network, 60 * 4 * 4), "flips": flips}
    inferer = DenseInferer(network.geometry, **how, temperature=temperature, decision=decision, reduce="labels")
    labels = inferer(image, network)
    assert inferer.notes["tiles"] > 1
    plain = DenseInferer(network.geometry, **how, temperature=temperature)
    logs = plain.log_probabilities(plain(image, network)[0])
    assert torch.equal(labels[0, 0].long(), decision.weighted(logs.exp()).argmax(0))
    assert not torch.equal(labels[0, 0].long(), logs.argmax(0))


def test_flips_average_the_probabilities_of_all_mirror_images() -> None:
    network = deepmedic()
    image = torch.randn(1, 2, 6, 6, 6, dtype=torch.float64)
    plain = DenseInferer(network.geometry)
    parts = [
        plain(image.flip(dims) if dims else image, network).softmax(1).flip(dims)
        if dims
        else plain(image, network).softmax(1)
        for dims in ([], [2], [4], [2, 4])
    ]
    found = DenseInferer(network.geometry, flips=(0, 2))(image, network)
    assert torch.allclose(found, torch.stack(parts).mean(0), atol=1e-6)


def test_a_network_with_mirror_symmetry_is_unchanged_by_flips() -> None:
    class Identity(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, -x], 1)

    image = torch.randn(1, 1, 5, 6, 7)
    found = DenseInferer(Geometry(receptive_field=(1, 1, 1)), flips=(0, 1, 2))(image, Identity())
    assert torch.allclose(found, torch.cat([image, -image], 1).softmax(1), atol=1e-6)


def test_networks_that_need_multiples_see_zeros_at_the_far_faces() -> None:
    class Halving(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert all(n % 4 == 0 for n in x.shape[2:])
            return torch.nn.functional.interpolate(torch.nn.functional.avg_pool3d(x, 4), scale_factor=4)

    geometry = Geometry(receptive_field=(7, 7, 7), multiple=4)
    image = torch.randn(1, 1, 10, 9, 5)
    found = DenseInferer(geometry)(image, Halving())
    padded = torch.nn.functional.pad(image, (0, 3, 0, 3, 0, 2))
    assert torch.allclose(found, Halving()(padded)[..., :10, :9, :5])
    tiled = DenseInferer(geometry, mode="exact", memory_gb=2e-9 * 12 * 8 * 8)(image, Halving())
    assert torch.allclose(tiled, found)


def test_windows_reproduce_a_pointwise_network() -> None:
    network = torch.nn.Conv3d(1, 2, 1)
    image = torch.randn(1, 1, 13, 11, 9)
    inferer = DenseInferer(Geometry(receptive_field=(1, 1, 1)), mode="window", window_size=(8, 8, 8))
    assert torch.allclose(inferer(image, network), network(image), atol=1e-5)


def test_the_affine_goes_through() -> None:
    network = torch.nn.Conv3d(1, 2, 1)
    image = MetaTensor(torch.randn(1, 1, 4, 4, 4), affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])))
    assert torch.equal(DenseInferer(Geometry(receptive_field=(1, 1, 1)))(image, network).affine, image.affine)


def test_a_box_has_the_numbers_of_the_whole_scan() -> None:
    """Of both kinds of network, and where one pass puts pooled grids and coarse blocks."""
    for network, size in ((deepmedic(), (31, 20, 9)), (highresnet(), (100, 9, 6))):
        image = torch.randn(2, *size, dtype=torch.float64)
        inferer = DenseInferer(network.geometry, mode="exact")
        whole = inferer(image[None], network)[0]
        for box in ([(4, 11), (0, 20 if size[1] == 20 else 9), (2, 3)], [(17, 30), (1, 8), (0, 6)]):
            part = inferer.inside(image, network, box)
            assert torch.allclose(part, whole[(slice(None), *(slice(*span) for span in box))], atol=1e-5)
        labels = inferer.inside(image, network, [(4, 11), (0, 9), (2, 3)], reduce="labels")
        assert torch.equal(labels[0].long(), whole[:, 4:11, 0:9, 2:3].argmax(0))


def test_only_a_box_and_its_context_are_computed() -> None:
    seen = []

    class Counting(torch.nn.Conv3d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(x.shape[2:]))
            return super().forward(x)

    network = Counting(1, 2, 3, padding=1)
    inferer = DenseInferer(Geometry(receptive_field=(3, 3, 3)))
    inferer.inside(torch.randn(1, 30, 30, 30), network, [(10, 12), (0, 5), (29, 30)])
    assert seen == [(4, 6, 2)]  # one voxel of context at each face, but none beyond the scan's


class Rimmed(torch.nn.Module):
    """Marks what lies within ``reach`` voxels of its own padding, and nothing else, as a network may that was never
    judged there."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(x.shape[2:]))
        inside = torch.nn.functional.avg_pool3d(torch.ones_like(x), 2 * self.reach + 1, 1, self.reach)
        marked = (inside < 0.999).float()
        return torch.cat([0.5 - marked, marked - 0.5], 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "exact", "tile_batch": 3},
        {"mode": "window", "window_size": (9, 9, 9)},
        {"mode": "window", "window_size": (15, 12, 30), "overlap": 0.25, "window_batch": 1},
    ],
)
@pytest.mark.parametrize("box", [None, [(0, 5), (7, 20), (3, 17)]])
def test_nothing_is_taken_from_near_the_networks_own_padding(options: dict[str, Any], box: Any) -> None:
    """Of the scan as of its tiles and windows; without the margin its rim, and each window's, is marked."""
    shape, network = (20, 21, 17), Rimmed(4)
    image = torch.randn(1, *shape)
    geometry = Geometry(receptive_field=(9, 9, 9))
    plain, careful = (DenseInferer(geometry, loss_margin=m, reduce="labels", **options) for m in (0, 4))
    assert plain.inside(image, network, box).any()
    found = careful.inside(image, network, box)
    assert tuple(found.shape[1:]) == (shape if box is None else tuple(end - begin for begin, end in box))
    assert not found.any()


@pytest.mark.parametrize("voxels", [10**6, 900])
@pytest.mark.parametrize("margin", [3, (4, 0, 2)])
@pytest.mark.parametrize("multiple", [1, 4])
def test_a_scan_lies_in_zeros_as_far_as_the_loss_never_saw(margin: Any, voxels: int, multiple: int) -> None:
    """As a patch at the scan's border did: one pass over the padded scan, its faces cut off, and the same in tiles."""
    network: Any
    if multiple == 1:
        network = torch.nn.Sequential(torch.nn.Conv3d(2, 4, 3, padding=1), torch.nn.Conv3d(4, 3, 3, padding=1)).double()
        geometry = Geometry(receptive_field=(5, 5, 5))
    else:  # what it computes depends on where its pooling begins
        network = torch.nn.Sequential(
            torch.nn.AvgPool3d(4), torch.nn.Conv3d(2, 3, 1), torch.nn.Upsample(scale_factor=4)
        ).double()
        geometry = Geometry(receptive_field=(7, 7, 7), multiple=4)
    image = torch.randn(1, 2, 24, 10, 9, dtype=torch.float64) + 1
    each = (margin,) * 3 if isinstance(margin, int) else margin
    size = [n + 2 * m for n, m in zip(image.shape[2:], each, strict=True)]
    more = [-n % multiple for n in size]
    pad = [n for m, end in zip(reversed(each), reversed(more), strict=True) for n in (m, m + end)]
    with torch.inference_mode():
        single = network(torch.nn.functional.pad(image, pad))
    expected = single[(..., *(slice(m, m + n) for m, n in zip(each, image.shape[2:], strict=True)))]
    inferer = DenseInferer(geometry, mode="exact", loss_margin=margin, memory_gb=budget_for(network, voxels))
    assert torch.allclose(inferer(image, network).double(), expected, atol=1e-5)
    assert (inferer.notes["tiles"] > 1) == (voxels < 10**6)
    box = [(0, 3), (4, 10), (8, 9)]
    part = inferer.inside(image[0], network, box)
    assert torch.allclose(part.double(), expected[0][(..., *(slice(*span) for span in box))], atol=1e-5)

    class Seen:
        def begin(self) -> None:
            self.scores = torch.full(expected.shape[1:], torch.nan)

        def take(self, scores: torch.Tensor, where: tuple[slice, ...]) -> None:
            self.scores[(slice(None), *where)] = scores.float()

    inferer.watch = seen = Seen()
    labels = inferer.inside(image[0], network, reduce="labels")
    assert torch.equal(labels[0].long(), expected[0].argmax(0))
    assert torch.allclose(seen.scores.double(), expected[0], atol=1e-5)


def test_windows_see_the_scan_and_zeros_beyond_it() -> None:
    """A network that looks no further than its margin, whose windows then tell what one pass over the scan in zeros
    tells; a box's windows see the scan around it."""
    network = torch.nn.Conv3d(1, 2, 3, padding=1).double()
    image = torch.randn(1, 1, 23, 21, 9, dtype=torch.float64)
    inferer = DenseInferer(
        Geometry(receptive_field=(3, 3, 3)), loss_margin=1, mode="window", window_size=(8, 8, 8), overlap=0.3
    )
    expected = network(torch.nn.functional.pad(image, [1] * 6))[..., 1:-1, 1:-1, 1:-1]
    assert torch.allclose(inferer(image, network).double(), expected, atol=1e-5)
    box = [(9, 10), (12, 15), (0, 9)]
    part = inferer.inside(image[0], network, box)
    assert torch.allclose(part.double(), expected[0, :, 9:10, 12:15], atol=1e-5)


def test_valid_convolutions_have_zeros_enough() -> None:
    """Nothing is moved: coarse grids lie where they lie without a margin."""
    inferer = DenseInferer(Geometry(receptive_field=(51, 51, 1), margin=(24, 24, 0), multiple=(3, 3, 1)), loss_margin=5)
    assert inferer.surround == (0, 0, 0)


def test_exact_tiles_are_dearer_than_windows_or_not() -> None:
    """Of a scan of 200³ and a context of 40, in a memory for a fifth: tiles of 117³ compute 6³ · 117³ voxels, windows
    of 24³ that step by 12 some 16³ · 24³, but 66³ · 24³ where they lose 9 at each face and step by 3."""
    geometry = Geometry(receptive_field=(81, 81, 81))
    options: dict[str, Any] = {"window_size": (24, 24, 24)}
    assert DenseInferer(geometry, **options)._prefer_windows((200, 200, 200), 200**3 / 5)
    assert not DenseInferer(geometry, loss_margin=9, **options)._prefer_windows((200, 200, 200), 200**3 / 5)
    assert not DenseInferer(geometry, loss_margin=12, **options)._prefer_windows((200, 200, 200), 200**3 / 5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss_margin": -2}, "whole numbers of voxels from 0"),
        ({"loss_margin": [1.7, 0, 0]}, "whole numbers of voxels from 0"),
        ({"loss_margin": True}, "whole numbers of voxels from 0"),
        ({"loss_margin": [1, 2]}, "inferer#loss_margin"),
        ({"loss_margin": 4, "mode": "window", "window_size": [8, 9, 9]}, "nothing but the margins"),
    ],
)
def test_margins_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        DenseInferer(Geometry(receptive_field=(9, 9, 9)), **options)


def test_windows_of_a_box() -> None:
    network = torch.nn.Conv3d(1, 2, 1)
    image = torch.randn(1, 13, 11, 9)
    inferer = DenseInferer(Geometry(receptive_field=(1, 1, 1)), mode="window", window_size=(8, 8, 8))
    box = [(3, 5), (0, 11), (8, 9)]
    assert torch.allclose(inferer.inside(image, network, box), network(image[None])[0, :, 3:5, :, 8:9], atol=1e-5)


def test_tiles_of_one_size_are_computed_in_batches() -> None:
    network = highresnet()
    image = torch.randn(1, 2, 200, 4, 4, dtype=torch.float64)
    budget = budget_for(network, 2 * 120 * 4 * 4)
    shapes = []

    def recorded(x: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return network(x)

    recorded.parameters = network.parameters  # type: ignore[attr-defined]
    recorded.modules = network.modules  # type: ignore[attr-defined]
    recorded.peak_bytes = network.peak_bytes  # type: ignore[attr-defined]
    inferer = DenseInferer(network.geometry, mode="exact", tile_batch=2, memory_gb=budget)
    found = inferer(image, recorded)
    assert max(shape[0] for shape in shapes) == 2
    assert all(shape[0] * shape[2] <= 2 * 120 for shape in shapes)
    assert torch.allclose(found.double(), network(image), atol=1e-5)


class Greedy(torch.nn.Conv3d):
    """Runs out of memory above so many voxels in a pass."""

    limit = 200

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x[:, 0].numel() > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


def test_out_of_memory_steps_down_and_says_so() -> None:
    network = Greedy(1, 2, 1)
    image = torch.randn(1, 1, 10, 10, 10)
    inferer = DenseInferer(Geometry(receptive_field=(1, 1, 1)), tile_batch=4)
    expected = torch.nn.Conv3d.forward(network, image)
    assert torch.allclose(inferer(image, network), expected, atol=1e-6)
    # 1000 voxels, single tiles of as many, of a quarter (two halves of 5×10×10 cut again), of a quarter of those
    assert inferer.notes["out_of_memory"][0] == "tile batch 4 to 1"
    assert inferer.notes["out_of_memory"][1].startswith("tiles of 1000 voxels to 250")
    assert inferer.notes["tiles"] >= 5
    assert "out_of_memory" not in DenseInferer(Geometry(receptive_field=(1, 1, 1))).notes


def test_memory_that_is_never_enough_is_an_error() -> None:
    network = Greedy(1, 2, 1)
    network.limit = 0
    with pytest.raises(torch.OutOfMemoryError):
        DenseInferer(Geometry(receptive_field=(1, 1, 1)))(torch.randn(1, 1, 10, 10, 10), network)


def test_windows_out_of_memory_go_one_by_one() -> None:
    network = Greedy(1, 2, 1)
    network.limit = 600
    image = torch.randn(1, 1, 13, 11, 9)
    inferer = DenseInferer(Geometry(receptive_field=(1, 1, 1)), mode="window", window_size=(8, 8, 8))
    assert torch.allclose(inferer(image, network), torch.nn.Conv3d.forward(network, image), atol=1e-5)
    assert inferer.notes["out_of_memory"] == ["window batch 4 to 1"]


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    class Broken(torch.nn.Conv3d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("a bad shape")

    with pytest.raises(RuntimeError, match="a bad shape"):
        DenseInferer(Geometry(receptive_field=(1, 1, 1)))(torch.randn(1, 1, 4, 4, 4), Broken(1, 2, 1))


@pytest.mark.parametrize("options", [{"mode": "dense"}, {"reduce": "mean"}, {"mode": "window"}])
def test_wrong_options(options: dict[str, str]) -> None:
    with pytest.raises(RequestError):
        DenseInferer(Geometry(receptive_field=(1, 1, 1)), **options)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu() -> None:
    network = HighResNet(in_channels=1, out_channels=3, width=4).eval()
    image = torch.randn(1, 1, 40, 37, 31)
    expected = DenseInferer(network.geometry)(image, network)
    device = torch.device("cuda")
    network = network.to(device)
    found = DenseInferer(network.geometry, precision=Precision(device, torch.float32))(image, network)
    assert np.allclose(found, expected, atol=2e-3)
    low = DenseInferer(network.geometry, precision=Precision(device, torch.bfloat16))(image, network)
    assert (low.argmax(1) == expected.argmax(1)).float().mean() > 0.97


@pytest.mark.gpu
def test_pinned_transfers_give_what_one_pass_gives() -> None:
    network = HighResNet(in_channels=1, out_channels=3, width=4).eval().cuda()
    image = torch.randn(1, 1, 200, 16, 12)
    inferer = DenseInferer(network.geometry, mode="exact", memory_gb=budget_for(network, 110 * 16 * 12))
    found = inferer(image, network)
    assert inferer.notes["tiles"] > 1
    with torch.no_grad():
        assert torch.allclose(found, network(image.cuda()).cpu(), atol=1e-3)


@pytest.mark.parametrize("flips", [(3,), (-1,), (0, 0)])
def test_flips_along_what_is_no_axis_are_refused(flips: tuple[int, ...]) -> None:
    """Axis −1 would turn the channels round, and say nothing."""
    with pytest.raises(RequestError, match=r"inferer#flips is .*; expected axes of the volume, each once: 0, 1, 2"):
        DenseInferer(Geometry(receptive_field=(1, 1, 1)), flips=flips)


@pytest.mark.parametrize(
    "network", [HighResNet(in_channels=2, out_channels=7), DeepMedic(in_channels=2, out_channels=7)]
)
def test_labels_are_reduced_within_the_network_a_piece_at_a_time(network, monkeypatch) -> None:
    """The same labels as from the logits of the whole scan, of which no more than pieces are ever held."""
    from rarevox.networks.cpu import planes
    from rarevox.networks.lattices import pieces

    torch.manual_seed(0)
    network = network.eval()
    image = torch.randn(1, 2, 36, 30, 27)
    sizes = []

    def recorded(scores: torch.Tensor) -> torch.Tensor:
        sizes.append(scores[:, 0].numel())
        return all_class_indices(scores)

    for module, name in ((pieces, "PIECE_VOXELS"), (planes, "PIECE_VOXELS"), (planes, "VOXELS")):
        monkeypatch.setattr(module, name, 2000)
    monkeypatch.setattr(dense, "all_class_indices", recorded)
    labels = DenseInferer(network.geometry, mode="exact", reduce="labels")(image, network)
    scores = DenseInferer(network.geometry, mode="exact")(image, network)
    assert bool((labels == scores.argmax(1, keepdim=True)).float().mean() > 0.999)
    assert len(sizes) > 1
    assert max(sizes) < image[0, 0].numel() / 2
    # Mirror images are averaged and a watch looks on, for which the scores of a tile are needed.
    sizes.clear()
    flipped = DenseInferer(network.geometry, mode="exact", reduce="labels", flips=(0,))(image, network)
    assert flipped.shape == labels.shape
    assert not sizes


SEES_NEAR = Geometry(receptive_field=(5, 5, 5))
LOOKING = {
    "instance": lambda: torch.nn.InstanceNorm3d(4, affine=True),
    "group": lambda: torch.nn.GroupNorm(2, 4),
    "sample": lambda: SampleNorm(4),
    "batch of its own": lambda: torch.nn.BatchNorm3d(4, track_running_stats=False),
}


def looking(kind: str = "instance") -> torch.nn.Module:
    """A network whose convolutions reach two voxels far, and whose norm looks at all that it is given."""
    torch.manual_seed(3)
    layers = torch.nn.Conv3d(1, 4, 3, padding=1), LOOKING[kind](), torch.nn.ReLU(), torch.nn.Conv3d(4, 3, 3, padding=1)
    return torch.nn.Sequential(*layers).double().eval()


def uneven(shape: tuple[int, ...] = (24, 18, 16)) -> torch.Tensor:
    """A scan whose parts have other statistics than the whole."""
    torch.manual_seed(4)
    return torch.randn(1, *shape, dtype=torch.float64) * torch.linspace(0.1, 5, shape[0]).view(1, -1, 1, 1) + 1


@pytest.mark.parametrize("kind", LOOKING)
@pytest.mark.parametrize("options", [{"window_size": (8, 8, 8)}, {"mode": "exact"}, {}])
def test_no_memory_and_no_box_changes_what_norms_of_the_whole_scan_see(kind: str, options: dict[str, Any]) -> None:
    network, image = looking(kind), uneven()
    with torch.no_grad():
        expected = network(image[None])[0]
    for memory_gb in (None, 1e-6):
        inferer = DenseInferer(SEES_NEAR, memory_gb=memory_gb, **options)
        for box in (None, [(2, 7), (0, 18), (15, 16)], [(0, 12), (3, 9), (0, 16)]):
            inner = expected if box is None else expected[(slice(None), *(slice(*span) for span in box))]
            found = inferer.inside(image, network, box)
            assert torch.allclose(found.double(), inner, atol=1e-5)
            assert inferer.notes == {"tiles": 1}
            labels = inferer.inside(image, network, box, reduce="labels")
            assert torch.equal(labels[0].long(), inner.argmax(0))


def test_the_size_of_a_scan_alone_decides_whether_its_norms_see_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that is too large for one pass on the machine of every day has windows on each, and so have its boxes."""
    network, image = looking(), uneven((20, 12, 12))
    windows = DenseInferer(SEES_NEAR, mode="window", window_size=(8, 8, 8)).inside(image, network)
    monkeypatch.setattr(dense, "usual_voxels", lambda _: image.numel() - 1)
    for memory_gb in (None, 1e-6, 50.0):
        inferer = DenseInferer(SEES_NEAR, window_size=(8, 8, 8), memory_gb=memory_gb)
        for box in (None, [(2, 7), (0, 12), (11, 12)]):
            inner = windows if box is None else windows[(slice(None), *(slice(*span) for span in box))]
            assert torch.allclose(inferer.inside(image, network, box), inner, atol=1e-5)
            assert inferer.notes == {"windows": True}
    one_pass = DenseInferer(SEES_NEAR, mode="exact", window_size=(8, 8, 8), memory_gb=1.0)
    with torch.no_grad():
        assert torch.allclose(one_pass(image[None], network).double(), network(image[None]), atol=1e-5)


@pytest.mark.parametrize("options", [{"mode": "exact"}, {"loss_margin": 1}])
def test_a_scan_that_its_norms_see_in_pieces_is_told_of(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no windows are to be had, or exact tiles were asked for."""
    network, image = looking(), uneven()
    monkeypatch.setattr(dense, "usual_voxels", lambda _: 1000)
    inferer = DenseInferer(SEES_NEAR, memory_gb=1e-6, **options)
    inferer.inside(image, network)
    assert inferer.notes["tiles"] > 1 and "may differ" in inferer.notes["warning"]
    plain = DenseInferer(SEES_NEAR, memory_gb=1e-6, **options)
    plain.inside(image, torch.nn.Conv3d(1, 3, 3, padding=1).double())
    assert plain.notes["tiles"] > 1 and "warning" not in plain.notes


@pytest.mark.parametrize(("window_size", "way"), [((8, 8, 8), "windows"), (None, "tiles")])
def test_memory_that_runs_out_in_the_one_pass_is_told_of(window_size: Any, way: str) -> None:
    network, image = looking(), uneven()

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x[:, 0].numel() > 5000:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.network(x)

    inferer = DenseInferer(SEES_NEAR, window_size=window_size, reduce="labels")
    found = inferer.inside(image, Small())
    assert inferer.notes["out_of_memory"][0] == f"one pass to {way}"
    assert way in inferer.notes and "may differ" in inferer.notes["warning"]
    if window_size:
        windows = DenseInferer(SEES_NEAR, mode="window", window_size=window_size, reduce="labels")
        assert torch.equal(found, windows.inside(image, network))
        assert windows.notes == {"windows": True}


def test_networks_on_slices_are_cut_between_slices_whatever_their_norms() -> None:
    torch.manual_seed(0)
    plane = HighResNet(in_channels=1, out_channels=2, spatial_dims=2, width=2, norm="instance")
    network, image = SliceWise(plane).double().eval(), uneven((20, 16, 9))
    with torch.no_grad():
        expected = network(image[None])[0]
    inferer = DenseInferer(network.geometry, window_size=(8, 8, 1), memory_gb=1e-6)
    assert torch.allclose(inferer.inside(image, network).double(), expected, atol=1e-5)
    assert inferer.notes == {"tiles": 5}  # of two slices: twice the smallest block
    part = inferer.inside(image, network, [(3, 5), (0, 16), (4, 6)])
    assert torch.allclose(part.double(), expected[:, 3:5, :, 4:6], atol=1e-5)


def test_a_box_takes_the_way_of_its_scan() -> None:
    """Here windows, because exact tiles of the scan would be dearer, though one of the box would not."""
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.Conv3d(4, 3, 3, padding=1)).double()
    image, box = uneven((30, 30, 30)), [(3, 6), (20, 25), (29, 30)]
    options: dict[str, Any] = {"window_size": (10, 10, 10), "overlap": 0.0, "memory_gb": budget_for(network, 20000)}
    inferer = DenseInferer(Geometry(receptive_field=(21, 21, 21)), **options)
    whole = inferer.inside(image, network)
    assert inferer.notes == {"windows": True}
    assert torch.allclose(inferer.inside(image, network, box), whole[:, 3:6, 20:25, 29:], atol=1e-5)
    assert inferer.notes == {"windows": True}
