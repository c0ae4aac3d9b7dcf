"""The GPU kernels under Triton's interpreter, on the CPU, against the PyTorch path: values, gradients, refusals."""

from __future__ import annotations

import pytest

from tests.interpreted import INTERPRETED

if INTERPRETED:
    import torch

    from rarevox.losses import Columns
    from rarevox.losses.sums.checks import check_values
    from rarevox.losses.sums.chunks import Volume
    from rarevox.losses.sums.pieces import InPieces
    from rarevox.losses.sums.triton.overlap import TritonKernels

    COLUMNS = Columns()
    VARIANTS = ("plain", "weight", "ignore", "channels last", "crop", "channels-last crop")

    def volume_of(printed, classes, dtype, variant):
        shape = (2, classes, 5, 6, 7 if classes < 200 else 10)
        logits, labels, weight = printed.example(shape, dtype=dtype)
        if "channels" in variant:
            logits = logits.contiguous(memory_format=torch.channels_last_3d)
        if "crop" in variant:
            logits, labels = logits[:, :, 1:-1, 2:-1, :-2], labels[:, :, 1:-1, 2:-1, :-2]
        weight = weight.float() if variant == "weight" else None
        return Volume(logits, labels, weight, ignore_index=1 if variant == "ignore" else None)

    def agree(volume, columns=COLUMNS):
        """Sums of 100 to 420 terms in float32, in another order: 420 · 2⁻²⁴ = 3e-5 at most, relative to the terms."""
        kernels, torch_path = TritonKernels(columns), InPieces(columns, keep=False)
        sums, seen = kernels.sums(volume)
        expected, expected_seen = torch_path.sums(volume)
        torch.testing.assert_close(sums, expected, rtol=3e-5, atol=3e-5)
        assert (seen.label_low, seen.label_high) == (expected_seen.label_low, expected_seen.label_high)
        pull = torch.linspace(0.5, 1.5, sums.numel(), dtype=sums.dtype).view(sums.shape)
        grad, expected_grad = kernels.gradient(volume, pull), torch_path.gradient(volume, pull)
        assert grad.stride() == expected_grad.stride()
        dtype = volume.logits.dtype
        unit = 2 * torch.finfo(dtype).eps if dtype != torch.float32 else 1e-5
        torch.testing.assert_close(grad, expected_grad, rtol=unit, atol=unit)

    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize(
        ("classes", "dtype"), [(2, torch.float32), (3, torch.float16), (5, torch.float32), (33, torch.float16)], ids=str
    )
    def test_kernels_agree_with_torch(printed, classes, dtype, variant):
        agree(volume_of(printed, classes, dtype, variant))

    @pytest.mark.parametrize("variant", ("ignore", "channels-last crop"))
    @pytest.mark.parametrize("classes", [64, 65, 256])
    def test_many_classes(printed, classes, variant):
        agree(volume_of(printed, classes, torch.float32, variant))

    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize(
        ("channels", "columns"), [(1, Columns(squares=False)), (3, COLUMNS), (3, Columns(entropy=False))], ids=str
    )
    def test_each_channel_a_problem_of_its_own(printed, channels, columns, variant):
        """Sigmoid: C binary problems a sample, with labels (B, C, *spatial) of zeros and ones."""
        base = volume_of(printed, max(channels, 2), torch.float32, variant)
        logits = base.logits[:, :channels]
        labels = (torch.arange(channels).view(1, -1, 1) < base.labels).long().view(logits.shape[:2] + logits.shape[2:])
        weight = None if base.weight is None else base.weight.view(-1, 1, *logits.shape[2:])
        agree(Volume(logits, labels, weight, sigmoid=True, ignore_index=base.ignore_index), columns)

    @pytest.mark.parametrize("sigmoid", [False, True])
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_a_weight_for_the_cross_entropy_alone(printed, variant, sigmoid):
        """As of the voxels chosen by Dice + TopK; an ignored voxel counts nowhere all the same."""
        base = volume_of(printed, 3, torch.float32, variant)
        logits, spatial = base.logits, base.logits.shape[2:]
        labels = base.labels.view(2, 1, *spatial)
        if sigmoid:
            labels = (torch.arange(3).view(1, -1, 1, 1, 1) < labels).long()
        weight = None if base.weight is None else base.weight.view(2, 1, *spatial)
        entropy_weight = torch.linspace(0, 2, labels.numel()).view(labels.shape)
        entropy_weight[entropy_weight < 1] = 0
        options = {"sigmoid": sigmoid, "ignore_index": base.ignore_index}
        agree(Volume(logits, labels, weight, entropy_weight, **options))

    def test_weights_of_half_precision_sum_beyond_its_largest_number(printed):
        """70 000 in all, where float16 ends at 65 504."""
        logits, labels, _ = printed.example((1, 2, 10, 10, 10), dtype=torch.float16)
        weight = torch.full((1, 1, 10, 10, 10), 70.0, dtype=torch.float16)
        sums, seen = TritonKernels(COLUMNS).sums(Volume(logits, labels, weight))
        check_values(seen, 2)
        assert seen.weight_sum == 70_000 and sums[0].tolist() == [[70_000.0, 70_000.0]]

    @pytest.mark.parametrize("label", [-1, 3, 2**32, 2**32 + 1, -(2**32)])
    def test_a_label_outside_the_classes_is_seen_as_it_is(printed, label):
        logits, labels, _ = printed.example((1, 3, 4, 4, 4), dtype=torch.float32)
        labels = labels + 0 * label
        labels.view(-1)[7] = label
        _, seen = TritonKernels(COLUMNS).sums(Volume(logits, labels))
        with pytest.raises(ValueError, match="labels reach"):
            check_values(seen, 3)

    def test_the_message_tells_the_labels_that_there_are(printed):
        """As on the CPU: all labels moved up by one reach from 1, though places beyond the volume are read as 0."""
        logits, labels, _ = printed.example((1, 3, 3, 3, 3), dtype=torch.float32)
        _, seen = TritonKernels(COLUMNS).sums(Volume(logits, labels + 1))
        with pytest.raises(ValueError, match="labels reach from 1 to 3"):
            check_values(seen, 3)
