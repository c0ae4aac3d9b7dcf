"""Lines of k-space: each from the image that it should be of, energies, copies by hand, and TorchIO's definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarevox.transforms.intensity.k_space import ghosted, moved, put_together

U = torch.finfo(torch.float32).eps / 2
# A transform of n ≤ 24 numbers in float32 errs by fewer than 8 log2(n) < 40 roundings of the largest sum of magnitudes,
# n times the largest value (Higham 2002, theorem 24.2); there and back with a sum between, by fewer than 100.
FFT = 100 * U


def image(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def error(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


@given(st.integers(0, 1000), st.integers(0, 2), st.integers(1, 4))
def test_each_line_is_of_the_image_of_its_moment(seed: int, axis: int, count: int) -> None:
    """Against the transform along all three axes, of which the lines were chosen along one."""
    random = np.random.default_rng(seed)
    shape = tuple(int(n) for n in random.integers(5, 12, 3))
    poses = [image(seed + k, *shape) for k in range(count)]
    bounds = sorted(int(b) for b in random.integers(0, shape[axis] + 1, count - 1))
    together = put_together(poses, bounds, axis)
    spectrum = torch.fft.fftshift(torch.fft.fftn(together.to(torch.complex128)))
    ends, energy = [0, *bounds, shape[axis]], 0.0
    largest = 5 * np.prod(shape)
    for pose, first, end in zip(poses, ends[:-1], ends[1:], strict=True):
        theirs = torch.fft.fftshift(torch.fft.fftn(pose.double()))
        lines = (slice(None),) * axis + (slice(first, end),)
        assert first == end or error(spectrum[lines], theirs[lines]) <= FFT * largest
        energy += float((theirs[lines].abs() ** 2).sum())
    # Parseval: the energy is that of the lines, and the real part has no more.
    assert float((together.abs() ** 2).sum()) * np.prod(shape) == pytest.approx(energy, rel=FFT * np.prod(shape))
    assert float((together.real**2).sum()) <= energy / np.prod(shape) * (1 + FFT * np.prod(shape))


def test_lines_of_one_image_are_that_image() -> None:
    one = image(0, 2, 9, 8, 7)
    for axis in (1, 2, 3):
        together = put_together([one, one, one], [2, 4], axis)
        assert error(together.real, one) <= FFT * 5 * 9 and float(together.imag.abs().max()) <= FFT * 5 * 9


def test_moved_by_whole_voxels_and_right_angles() -> None:
    one = image(1, 2, 6, 6, 5)
    # Places are rounded twice or so in units of the size, and weigh neighbours that differ by 10 at the most.
    bound = 10 * 16 * 6 * U
    assert error(moved(one, [0, 0, 0], [0, 0, 0]), one) <= bound
    shifted = moved(one, [0, 0, 0], [2, 0, -1])
    assert error(shifted[:, :4, :, 1:], one[:, 2:, :, :-1]) <= bound
    assert error(shifted[:, 4:, :, 1:], one[:, 5:, :, :-1].expand(-1, 2, -1, -1)) <= bound  # as at the face
    turned = moved(one, [90, 0, 0], [0, 0, 0])
    assert min(error(turned, torch.rot90(one, k, (1, 2))) for k in (1, 3)) <= bound
    flat = image(2, 1, 7, 7)
    assert min(error(moved(flat, [90], [0, 0]), torch.rot90(flat, k, (1, 2))) for k in (1, 3)) <= bound


def test_there_and_back_is_where_it_was() -> None:
    """Of a smooth image, inside: turned by 20° in one plane and back."""
    axes = torch.stack(torch.meshgrid(*[torch.arange(17.0)] * 3, indexing="ij"))
    smooth = torch.exp(-((axes - torch.tensor([7.0, 9.0, 8.0]).reshape(3, 1, 1, 1)) ** 2).sum(0) / 50)[None]
    for plane in range(3):
        angle = [20.0 * (plane == k) for k in range(3)]
        back = moved(moved(smooth, angle, [0, 0, 0]), [-a for a in angle], [0, 0, 0])
        # Linear interpolation errs by h²/8 · |f''| an axis, here 1/8 · 1/25 at most; twice three axes.
        assert error(back[:, 5:-5, 5:-5, 5:-5], smooth[:, 5:-5, 5:-5, 5:-5]) <= 6 / 8 / 25
        assert error(moved(smooth, angle, [0, 0, 0])[:, 5:-5, 5:-5, 5:-5], smooth[:, 5:-5, 5:-5, 5:-5]) > 0.03


@given(st.integers(0, 1000), st.sampled_from([2, 3, 4, 6]), st.integers(0, 2), st.floats(0, 1))
def test_ghosts_are_copies_moved_round(seed: int, ghosts: int, axis: int, intensity: float) -> None:
    """x − s/n Σ_j x moved by jN/n + s mean(x), the last term for frequency 0, which stays."""
    one = image(seed, 12, 24, 12).double()
    size = one.shape[axis]
    copies = sum(one.roll(size // ghosts * j, axis) for j in range(ghosts))
    wanted = one - intensity / ghosts * copies + intensity * one.mean(axis, keepdim=True)
    found = ghosted(one.float(), ghosts, intensity, axis)
    assert error(found, wanted) <= FFT * 5 * size
    # Damping adds no energy, and leaves what a line sums up to.
    assert float((found**2).sum()) <= float((one**2).sum()) * (1 + FFT * size)
    assert error(found.sum(axis), one.sum(axis)) <= FFT * 5 * size**2


def test_ghosts_of_no_strength_and_all_lines_restored_are_nothing() -> None:
    one = image(0, 10, 9)
    assert error(ghosted(one, 3, 0.0, 0), one) <= FFT * 50
    assert error(ghosted(one, 3, 1.0, 1, restore=1.0), one) <= FFT * 50
    assert error(ghosted(one, 3, 1.0, 1, restore=0.5), one) > 0.01


@pytest.mark.parametrize(("size", "ghosts"), [(16, 4), (16, 2), (24, 6), (20, 5)])
def test_ghosting_as_torchio_defines_it(size: int, ghosts: int) -> None:
    """Its planes begin at the lowest frequency, so they are ours where n divides size / 2: here in three axes."""
    one = image(3, 6, size, 5)
    spectrum = torch.fft.fftshift(torch.fft.fftn(one.double()))
    centre = spectrum[:, size // 2].clone()
    spectrum[:, ::ghosts] *= 1 - 0.7
    spectrum[:, size // 2] = centre
    wanted = torch.fft.ifftn(torch.fft.ifftshift(spectrum)).real
    assert error(ghosted(one, ghosts, 0.7, 1), wanted) <= FFT * 5 * size
