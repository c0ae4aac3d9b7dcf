from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import SlidingWindowInferer

from rarevox.networks import Geometry
from rarevox.pipeline.inference.dense import DenseInferer
from rarevox.pipeline.inference.tiling.windows import first_voxels, window_slabs

CPU = torch.device("cpu")


def network() -> torch.nn.Module:
    """One whose values depend on where a window begins: the zeros at its faces reach two voxels far."""
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Conv3d(2, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 3, 3, padding=1)
    )


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(*[st.integers(1, 17)] * 3),
    window=st.tuples(*[st.integers(1, 8)] * 3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.8]),
    batch=st.integers(1, 5),
)
def test_the_scores_are_those_of_monai(shape, window, overlap, batch) -> None:
    image, net = torch.randn(2, *shape), network()
    with torch.no_grad():
        expected = SlidingWindowInferer(window, batch, overlap, "gaussian")(image[None], net)[0]
        inferer = DenseInferer(
            Geometry(receptive_field=(5, 5, 5)),
            mode="window",
            window_size=window,
            overlap=overlap,
            window_batch=batch,
        )
        torch.testing.assert_close(inferer(image[None], net)[0], expected, atol=1e-5, rtol=1e-4)
        labels = inferer.inside(image, net, reduce="labels")
    least = expected.sort(0).values
    clear = least[-1] - least[-2] > 1e-4
    assert torch.equal(labels[0][clear], expected.argmax(0)[clear].to(torch.uint8))


def test_no_more_than_a_window_s_length_of_class_scores_is_held() -> None:
    slabs = list(window_slabs(torch.randn(2, 40, 6, 7), (8, 4, 4), 0.5, network(), device=CPU, batch=3))
    assert [where for where, _ in slabs[:3]] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    assert slabs[-1][0] == slice(32, 40)
    assert all(scores.shape[1:] == (where.stop - where.start, 6, 7) for where, scores in slabs)


def test_results_that_do_not_fit_the_device_gather_on_the_cpu(monkeypatch) -> None:
    """A device that never takes the sums: after single windows they gather on the CPU, and the result is the same."""
    from rarevox.pipeline.inference import dense

    whole, image = window_slabs, torch.randn(1, 1, 9, 9, 9)
    asked = []

    def greedy(*args, on_device, batch, **kwargs):
        asked.append((batch, on_device))
        if on_device:
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield from whole(*args, on_device=False, batch=batch, **kwargs)

    class Pretended:
        type = "cuda"

    inferer = DenseInferer(Geometry(receptive_field=(1, 1, 1)), mode="window", window_size=(4, 4, 4))
    net = torch.nn.Conv3d(1, 2, 1)
    expected = inferer(image, net)
    monkeypatch.setattr(dense, "window_slabs", lambda *a, device, **k: greedy(*a, device=CPU, **k))
    monkeypatch.setattr(dense, "voxels_in_memory", lambda *_, **__: 1e9)
    monkeypatch.setattr(dense, "_device_of", lambda *_: Pretended())
    monkeypatch.setattr(dense, "sent", lambda image, _: image)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    torch.testing.assert_close(inferer(image, net), expected)
    assert asked == [(4, True), (1, True), (1, False)]
    assert inferer.notes["out_of_memory"] == ["window batch 4 to 1", "results gathered on the CPU"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_windows_on_a_gpu_are_those_on_the_cpu() -> None:
    image, net = torch.randn(1, 2, 20, 18, 16), network()
    inferer = DenseInferer(Geometry(receptive_field=(5, 5, 5)), mode="window", window_size=(8, 8, 8))
    expected = inferer(image, net)
    torch.testing.assert_close(inferer(image, net.cuda()), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("length", "window", "expected"), [(5, 5, [0]), (6, 5, [0, 1]), (1, 4, [-1]), (9, 1, list(range(9)))]
)
def test_windows_along_an_axis(length, window, expected) -> None:
    assert first_voxels(length, window, 0.5) == expected


@settings(deadline=None, max_examples=25)
@given(data=st.data(), margin=st.integers(0, 1), overlap=st.sampled_from([0.0, 0.3, 0.5, 0.8]))
def test_the_windows_of_a_box_are_those_of_the_whole_scan(data, margin, overlap) -> None:
    """Of a network that knows where its windows begin: their faces reach two voxels far, and their norms farther."""
    shape = data.draw(st.tuples(*[st.integers(1, 17)] * 3))
    box = []
    for n in shape:
        begin = data.draw(st.integers(0, n - 1))
        box.append((begin, data.draw(st.integers(begin + 1, n))))
    net = torch.nn.Sequential(network(), torch.nn.InstanceNorm3d(3)).double()
    image = torch.randn(2, *shape, dtype=torch.float64)
    how = {"loss_margin": margin, "mode": "window", "window_size": (6, 5, 8), "overlap": overlap, "window_batch": 3}
    inferer = DenseInferer(Geometry(receptive_field=(5, 5, 5)), **how)
    inner = (slice(None), *(slice(*span) for span in box))
    expected = inferer.inside(image, net)
    torch.testing.assert_close(inferer.inside(image, net, box), expected[inner], atol=1e-5, rtol=1e-5)
    labels = inferer.inside(image, net, box, reduce="labels")
    least = expected[inner].sort(0).values
    clear = least[-1] - least[-2] > 1e-4
    assert torch.equal(labels[0][clear], expected[inner].argmax(0)[clear].to(torch.uint8))


def test_no_window_is_computed_that_does_not_reach_a_box() -> None:
    """Along 16 voxels windows of 4 begin at 0, 2, …, 12; voxels 5 and 6 are in those from 2, 4 and 6."""
    seen = []

    def forward(blocks: torch.Tensor) -> torch.Tensor:
        seen.extend(int(block[0, 0, 0, 0]) for block in blocks)
        return blocks

    image = torch.arange(16.0)[None, :, None, None].expand(1, 16, 4, 4)
    slabs = list(window_slabs(image, (4, 4, 4), 0.5, forward, device=CPU, box=[(5, 7), (0, 4), (1, 2)]))
    assert seen == [2, 4, 6]
    assert torch.equal(torch.cat([scores.clone() for _, scores in slabs], 1)[0, :, 0, 0], torch.tensor([5.0, 6.0]))
