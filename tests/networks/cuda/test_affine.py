"""The affine map with its activation under Triton's interpreter, on the CPU, against PyTorch's own operations."""

from __future__ import annotations

import pytest

from tests.interpreted import INTERPRETED

if INTERPRETED:
    import torch
    import torch.nn.functional as F

    from rarevox.networks.cuda.affine import Added, affine_act
    from tests.bounds import assert_within, sum_bound, unit_roundoff

    def example(shape, dtype):
        torch.manual_seed(0)
        layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
        x = (3 * torch.randn(shape)).to(dtype).contiguous(memory_format=layout)
        channels = shape[1]
        mask = (torch.rand(shape[0], 1, *shape[2:]) > 0.3).to(dtype)
        return x, torch.rand(channels) + 0.5, torch.randn(channels), torch.linspace(0, 0.5, channels), mask

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize(
        "shape", [(2, 16, 5, 6, 7), (1, 3, 9, 4, 5), (2, 80, 3, 3, 3), (2, 5, 7, 11), (1, 1, 4, 4, 4)]
    )
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("scaled", [False, True])
    def test_it_is_norm_activation_and_mask(shape, dtype, masked, scaled):
        """Two roundings in float32, and one to the type of the volume; the interpreter cuts bfloat16 off (2 u)."""
        x, scale, shift, slope, mask = example(shape, dtype)
        exact = x.double()
        channels = (1, -1, *(1,) * (len(shape) - 2))
        a = exact * (scale.double().view(channels) if scaled else 1) + shift.double().view(channels)
        expected = torch.where(a > 0, a, slope.double().view(channels) * a) * (mask.double() if masked else 1)
        y = affine_act(
            x.clone(memory_format=torch.preserve_format),
            scale if scaled else None,
            shift,
            slope,
            mask if masked else None,
        )
        assert y.dtype == dtype and y.stride() == x.stride()
        size = (exact.abs() * (scale.max() if scaled else 1) + shift.abs().max()).double()
        rounded = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}[dtype] * unit_roundoff(dtype)
        assert_within(y.double(), expected, (sum_bound(4, torch.float32) + rounded) * size)

    def test_it_is_batch_norm_in_evaluation_with_relu():
        x, scale, shift, _, _ = example((2, 16, 4, 5, 6), torch.float32)
        mean, variance = torch.randn(16), torch.rand(16) + 0.5
        expected = F.relu(F.batch_norm(x, mean, variance, scale, shift, training=False, eps=1e-5))
        factor = scale * (variance + 1e-5).rsqrt()
        y = affine_act(x, factor, shift - mean * factor, torch.zeros(16))
        assert_within(y, expected, sum_bound(8, torch.float32) * (x.abs() * 3 + 8))

    def test_in_place_it_overwrites_and_gives_the_same():
        x, scale, shift, slope, mask = example((2, 16, 5, 6, 7), torch.bfloat16)
        kept = x.clone(memory_format=torch.preserve_format)
        expected = affine_act(x, scale, shift, slope, mask)
        assert torch.equal(x, kept)
        y = affine_act(x, scale, shift, slope, mask, in_place=True)
        assert y.data_ptr() == x.data_ptr() and torch.equal(y, expected)

    def test_what_is_not_finite_is_as_in_pytorch():
        """ReLU gives 0 for minus infinity, where a product with 0 would be NaN; outside the volume all is 0."""
        nan = torch.full((1, 2, 1, 1), float("nan"))
        assert affine_act(nan, torch.ones(2), torch.zeros(2), torch.tensor([0.0, 0.5])).isnan().all()
        x = torch.tensor([float("inf"), -float("inf"), 1.0, 2.0]).view(1, 2, 1, 2)
        x = x.contiguous(memory_format=torch.channels_last)
        ones, zeros = torch.ones(2), torch.zeros(2)
        assert affine_act(x, ones, zeros, zeros).flatten().tolist() == [float("inf"), 0.0, 1.0, 2.0]
        outside = torch.zeros(1, 1, 1, 2)
        assert affine_act(x, ones, zeros, zeros, outside).flatten().tolist() == [0.0] * 4

    @pytest.mark.parametrize("dims", [2, 3])
    @pytest.mark.parametrize("before", [False, True])
    def test_a_crop_of_fewer_channels_is_added(dims, before):
        shape = (2, 8, *(4, 5, 6)[-dims:])
        x, _, shift, slope, _ = example(shape, torch.float32)
        larger = torch.randn(2, 5, *(n + 4 for n in shape[2:]))
        larger = larger.contiguous(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d)
        crop = larger[(..., *(slice(2, -2),) * dims)]
        y = affine_act(x, None, shift, slope, add=Added(crop, before=before))
        a = x.double() + shift.double().view(1, -1, *(1,) * dims)
        more = F.pad(crop.double(), (0, 0) * dims + (0, 3))
        a = a + more if before else a
        expected = torch.where(a > 0, a, a * slope.view(1, -1, *(1,) * dims)) + (0 if before else more)
        assert_within(y, expected, sum_bound(4, torch.float32) * (x.abs() + shift.abs().max() + more.abs()))

    @pytest.mark.parametrize("dims", [2, 3])
    def test_voxels_of_a_coarser_volume_are_added_to_those_that_they_stand_for(dims):
        """Planes 1 to 5 of a volume of 6, each of whose blocks of 2 voxels along an axis is one coarse voxel."""
        coarse = torch.randn(2, 8, *(3, 2, 4)[:dims])
        coarse = coarse.contiguous(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d)
        fine = coarse
        for axis in range(2, 2 + dims):
            fine = fine.repeat_interleave(2, dim=axis)
        x, _, shift, slope, _ = example((2, 8, 4, *(4, 8)[: dims - 1]), torch.float32)
        y = affine_act(x, None, shift, slope, add=Added(coarse, 2, first=1, before=True))
        a = x.double() + shift.double().view(1, -1, *(1,) * dims) + fine[:, :, 1:5]
        expected = torch.where(a > 0, a, a * slope.view(1, -1, *(1,) * dims))
        assert_within(y, expected, sum_bound(4, torch.float32) * (x.abs() + shift.abs().max() + fine.abs().max()))
