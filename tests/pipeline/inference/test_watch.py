"""Whoever watches sees the probabilities of every voxel once, on the scan's grid, whatever lies between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from rarevox.networks import Geometry
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.inference.dense import DenseInferer
from rarevox.pipeline.inference.native_watch import NativeWatch, chunks
from rarevox.pipeline.inference.segment import Segmenter
from rarevox.transforms.native_grid import labels_on_grid, native_block

POINT = Geometry(receptive_field=(1, 1, 1))


class Recorder:
    """Keeps the probabilities of the whole scan, and how often each voxel was shown."""

    def begin(self, shape: tuple[int, ...]) -> None:
        self.shape, self.seen = shape, np.zeros(shape, int)
        self.logs: Any = None

    def take(self, log_probabilities: torch.Tensor, where: tuple[slice, ...]) -> None:
        if self.logs is None:
            self.logs = np.full((len(log_probabilities), *self.shape), np.nan, np.float32)
        self.logs[(slice(None), *where)] = log_probabilities.numpy()
        self.seen[where] += 1


class Scale(torch.nn.Module):
    """Logits (x, −x, 0) of a one-channel scan; out of memory for inputs above ``most`` voxels."""

    def __init__(self, most: int = 10**9) -> None:
        super().__init__()
        self.most = most

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x[0, 0].numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.cat([x, -x, 0 * x], 1)


def _expected(image: torch.Tensor, temperature: float = 1.0) -> np.ndarray:
    return torch.log_softmax(torch.cat([image, -image, 0 * image], 0) / temperature, 0).numpy()


def _watch(inferer: DenseInferer, shape: tuple[int, ...], lattice: Any = None) -> Recorder:
    recorder = Recorder()
    inferer.watch = NativeWatch(recorder, inferer.log_probabilities, shape, lattice or ([0, 1, 2], [1, 1, 1], [0] * 3))
    return recorder


@pytest.mark.parametrize("options", [{}, {"memory_gb": 1e-6}, {"mode": "window", "window_size": (4, 4, 4)}])
def test_every_voxel_is_shown_once_with_its_probabilities(options: dict[str, Any]) -> None:
    image = torch.randn(1, 9, 8, 7)
    inferer = DenseInferer(POINT, reduce="labels", temperature=2.0, **options)
    recorder = _watch(inferer, (9, 8, 7))
    labels = inferer(image[None], Scale())[0, 0]
    assert (recorder.seen == 1).all()
    np.testing.assert_allclose(recorder.logs, _expected(image, 2.0), atol=1e-5)
    assert np.array_equal(recorder.logs.argmax(0), labels.numpy())


def test_a_pass_that_ran_out_of_memory_does_not_count() -> None:
    image = torch.randn(1, 8, 8, 8)
    inferer = DenseInferer(POINT, reduce="labels", memory_gb=1.0)
    recorder = _watch(inferer, (8, 8, 8))
    inferer(image[None], Scale(most=300))
    assert inferer.notes["out_of_memory"]
    assert (recorder.seen == 1).all()


def test_a_box_is_shown_at_its_place() -> None:
    image = torch.randn(1, 9, 8, 7)
    inferer = DenseInferer(POINT, reduce="labels", memory_gb=1e-6)
    recorder = _watch(inferer, (9, 8, 7))
    inferer.inside(image, Scale(), [(2, 6), (0, 8), (3, 5)])
    assert (recorder.seen[2:6, :, 3:5] == 1).all()
    assert recorder.seen.sum() == 4 * 8 * 2
    np.testing.assert_allclose(recorder.logs[:, 2:6, :, 3:5], _expected(image)[:, 2:6, :, 3:5], atol=1e-5)


def test_flips_show_the_mean_probabilities_and_temperature_never_changes_a_label() -> None:
    image = torch.randn(1, 1, 6, 5, 4)
    network = torch.nn.Conv3d(1, 3, 3, padding=1)
    geometry = Geometry(receptive_field=(3, 3, 3))
    mean = DenseInferer(geometry, flips=(0, 1))(image, network)[0]
    for temperature in (0.2, 1.0, 5.0):
        inferer = DenseInferer(geometry, flips=(0, 1), reduce="labels", temperature=temperature)
        recorder = _watch(inferer, (6, 5, 4))
        assert np.array_equal(inferer(image, network)[0, 0], mean.argmax(0))
        powers = mean.double() ** (1 / temperature)
        np.testing.assert_allclose(np.exp(recorder.logs), powers / powers.sum(0), atol=1e-5)


def test_without_anyone_watching_nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    inferer = DenseInferer(POINT, reduce="labels")
    monkeypatch.setattr(inferer, "log_probabilities", lambda scores: pytest.fail("nobody asked"))
    inferer(torch.randn(1, 1, 4, 4, 4), Scale())


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(RequestError, match="positive number"):
        DenseInferer(POINT, temperature=temperature)


def test_tiles_land_where_their_labels_do() -> None:
    """Axes permuted, two of them turned, and a model grid that is cropped on one side and reaches beyond on another."""
    lattice = ([2, 0, 1], [-1, 1, -1], [5, -2, 6])
    scores = torch.randn(2, 7, 6, 8)
    native_shape = (9, 10, 5)
    place = torch.full((2, *native_shape), float("nan"))
    for begin in range(0, 7, 3):
        where = (slice(begin, min(begin + 3, 7)), slice(0, 6), slice(0, 8))
        block, target = native_block(scores[:, where[0]], where, lattice, native_shape)
        place[(slice(None), *target)] = block
    for native in np.ndindex(native_shape):
        model = [0, 0, 0]
        for n, a, sign, offset in zip(native, *lattice, strict=True):
            model[a] = sign * n + offset
        inside = all(0 <= m < size for m, size in zip(model, scores.shape[1:], strict=True))
        found = place[(slice(None), *native)]
        assert torch.equal(found, scores[(slice(None), *model)]) if inside else bool(found.isnan().all())


def test_resampled_scans_are_shown_on_their_own_grid_and_background_outside() -> None:
    scores = torch.randn(3, 6, 5, 7)
    model, native, shape = np.diag([2.0, 2.0, 2.0, 1.0]), np.diag([1.0, 1.3, 0.9, 1.0]), (14, 8, 15)
    recorder = Recorder()
    inferer = DenseInferer(POINT)
    shown = NativeWatch(recorder, inferer.log_probabilities, shape, None)
    shown.begin()
    labels = labels_on_grid(scores, model, shape, native, watch=shown.native)
    assert (recorder.seen == 1).all()
    assert np.array_equal(recorder.logs.argmax(0), labels.numpy())
    np.testing.assert_allclose(np.exp(recorder.logs).sum(0), 1, atol=1e-5)
    # x = 13 mm lies beyond the last model voxel at 10 mm by more than half of its 2 mm
    assert (np.exp(recorder.logs[:, 13]) == np.array([1.0, 0.0, 0.0])[:, None, None]).all()


def test_chunks_cover_the_block() -> None:
    where = (slice(3, 20), slice(1, 4), slice(0, 5))
    parts = list(chunks(where, voxels=31))
    assert [place[0].start for _, place in parts] == list(range(3, 20, 2))
    assert sum(part.stop - part.start for part, _ in parts) == 17


def test_a_run_shows_its_probabilities(run_dir: Path, task_dir: Path) -> None:
    """Of a scan with a mirrored axis: the most probable class is the label, and each voxel is shown once."""
    item = {"case": "1", "image": str(task_dir / "imagesTr" / "case_01.nii.gz")}
    segmenter = Segmenter(run_dir, device="cpu")
    found = next(iter(segmenter([item], lambda _: Recorder())))
    assert found.labels is not None
    assert (found.watch.seen == 1).all()
    assert np.array_equal(found.watch.logs.argmax(0), found.labels)
    assert next(iter(segmenter([item]))).watch is None
    assert nib.load(item["image"]).shape == found.watch.shape
