"""CUDA graphs without a device: which blocks are captured, when graphs go, and what happens where capturing fails."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch

from rarevox.networks import Geometry
from rarevox.pipeline.inference.dense import DenseInferer
from rarevox.pipeline.inference.tiling import graphs as module
from rarevox.pipeline.inference.tiling.graphs import Captured, Graphs
from rarevox.transforms.decision import Decision

USABLE = module.usable


class Recorder:
    """Stands for CUDA: a graph computes into the memory that it was captured with."""

    def __init__(self) -> None:
        self.captured: list[tuple[int, ...]] = []
        self.replays = 0
        self.error: Exception | None = None

    def capture(self, run: module.Pass, block: torch.Tensor) -> Captured:
        if self.error is not None:
            raise self.error
        self.captured.append(tuple(block.shape[2:]))
        inputs = torch.empty_like(block)
        outputs = torch.full_like(run(block), 77)  # what stands there before the first start is nothing

        def replay() -> None:
            self.replays += 1
            outputs.copy_(run(inputs))

        return Captured(type("Graph", (), {"replay": staticmethod(replay)}), inputs, outputs)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(module, "capture", made.capture)
    monkeypatch.setattr(module, "usable", lambda network, block: USABLE(network, OnCuda(block)))
    return made


class OnCuda:
    """A block that says that it lies on a GPU."""

    is_cuda = True

    def __init__(self, block: torch.Tensor) -> None:
        self.block = block


def network_of(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Conv3d(1, 3, 3, padding=1), torch.nn.BatchNorm3d(3)).eval()


def inferer_of(network_graphs: bool = True, **options) -> DenseInferer:
    options = {"reduce": "labels", **options}
    return DenseInferer(Geometry(receptive_field=(3, 3, 3)), cuda_graphs=network_graphs, **options)


def scan(*shape: int) -> torch.Tensor:
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduce": "scores"},
        {"flips": [0, 2]},
        {"memory_gb": 2e-5},
        {"mode": "window", "window_size": (6, 6, 6)},
        {"memory_gb": 2e-5, "tile_batch": 2},
    ],
    ids=str,
)
def test_scans_of_several_sizes_come_out_as_without_graphs(recorder, options) -> None:
    network, inferer, plain = network_of(), inferer_of(**options), inferer_of(False, **options)
    for shape in ((12, 10, 8), (7, 9, 11), (12, 10, 8), (7, 9, 11), (12, 10, 8)):
        assert torch.equal(inferer(scan(*shape), network), plain(scan(*shape), network))
        assert inferer.notes == plain.notes
    assert recorder.replays > 0 and len(set(recorder.captured)) <= len(recorder.captured)


def test_a_size_is_captured_when_it_comes_again(recorder) -> None:
    network, inferer = network_of(), inferer_of()
    for count, replays in ((0, 0), (1, 1), (1, 2)):
        inferer(scan(6, 6, 6), network)
        assert (len(recorder.captured), recorder.replays) == (count, replays)
    inferer(scan(6, 6, 7), network)
    assert len(recorder.captured) == 1
    inferer(scan(6, 6, 6).to(torch.float64), network.double())  # other weights: another network
    assert len(recorder.captured) == 1 and len(inferer.graphs) == 0


def test_weights_that_change_in_their_place_are_seen_and_others_begin_anew(recorder) -> None:
    network, inferer, plain = network_of(), inferer_of(), inferer_of(False)
    for _ in range(2):
        inferer(scan(6, 6, 6), network)
    with torch.no_grad():
        network[0].weight.neg_()
    assert torch.equal(inferer(scan(6, 6, 6), network), plain(scan(6, 6, 6), network))
    assert len(recorder.captured) == 1
    network[0].weight.data = network[0].weight.data.clone()
    assert torch.equal(inferer(scan(6, 6, 6), network), plain(scan(6, 6, 6), network))
    assert len(recorder.captured) == 1 and recorder.replays == 2
    other = network_of(1)
    del network
    gc.collect()
    assert torch.equal(inferer(scan(6, 6, 6), other), plain(scan(6, 6, 6), other))


def test_graphs_are_few_and_the_longest_unused_goes() -> None:
    graphs, network, made = Graphs(most=2), network_of(), Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "capture", made.capture)
        patch.setattr(module, "usable", lambda *_: True)
        with torch.no_grad():
            run = graphs.of(network, network, "labels")
            for length in (4, 5, 4, 5, 4, 6, 6, 4, 5, 4):  # 5 has gone when it comes last
                assert torch.equal(run(scan(4, 4, length)), network(scan(4, 4, length)))
    assert made.captured == [(4, 4, 4), (4, 4, 5), (4, 4, 6), (4, 4, 5)]
    assert len(graphs) == 2
    sides = 4 * 4 * 4 * (1 + 3) + 4 * 4 * 5 * (1 + 3)
    assert graphs.buffer_bytes == 4 * sides


@pytest.mark.parametrize("error", [RuntimeError("operation not permitted when stream is capturing"), MemoryError()])
def test_where_capturing_fails_it_is_said_once_and_scans_go_through_without(recorder, error, capsys) -> None:
    recorder.error = error
    network, inferer, plain = network_of(), inferer_of(), inferer_of(False)
    for _ in range(4):
        assert torch.equal(inferer(scan(6, 6, 6), network), plain(scan(6, 6, 6), network))
    said = "".join(capsys.readouterr())
    assert " ".join(said.split()).count("no CUDA graphs from here on: a pass over 6×6×6 voxels was not captured") == 1


def test_what_is_out_of_memory_is_tried_again_without_graphs_before_less_is_asked_for(recorder) -> None:
    network, inferer = network_of(), inferer_of()
    for _ in range(2):
        inferer(scan(6, 6, 6), network)
    fails: list[Callable[[], None]] = []
    network.register_forward_pre_hook(lambda *_: fails.pop()() if fails else None)

    def short() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    fails += [short]
    inferer(scan(8, 8, 8), network)
    assert inferer.notes == {"tiles": 1} and len(inferer.graphs) == 0
    fails += [short]
    inferer(scan(9, 8, 8), network)
    assert "out_of_memory" in inferer.notes  # nothing was left to give back


def test_what_a_graph_must_not_hold_is_not_captured(recorder) -> None:
    network = network_of()
    training = network_of().train()
    moved = Decision({"lesion": {"threshold": 0.2}}, ["lesion", "other"])
    for inferer, called, more in (
        (inferer_of(), training, ()),
        (inferer_of(), lambda block: network(block), ()),  # whose weights nobody knows
    ):
        for _ in range(3):
            inferer(scan(6, 6, 6), called, *more)
    block = OnCuda(scan(4, 4, 4))
    with torch.no_grad():
        assert USABLE(network, block) and not USABLE(network, scan(4, 4, 4))
        assert not USABLE(training, block)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
            assert not USABLE(network, block)
    assert not USABLE(network, block)  # gradients are wanted
    assert not recorder.captured
    inferer = inferer_of(decision=moved)
    plain = inferer_of(False, decision=moved)
    for _ in range(3):  # this network does not reduce by itself: its scores come by a graph, and are weighted after
        assert torch.equal(inferer(scan(6, 6, 6), network), plain(scan(6, 6, 6), network))
    assert recorder.captured
