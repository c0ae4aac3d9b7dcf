"""The GPU kernels under Triton's interpreter, on the CPU, against the PyTorch path: values, gradients, refusals."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED:  # which Triton reads once, when its kernels are defined

    @pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
    def test_kernels_under_the_interpreter():
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", __file__]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        done = subprocess.run(
            command,
            cwd=Path(__file__).parents[4],
            env={**environment, "TRITON_INTERPRET": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]

else:
    import torch

    from rarevox.losses import Columns
    from rarevox.losses.sums.checks import check_values
    from rarevox.losses.sums.chunks import Volume
    from rarevox.losses.sums.pieces import InPieces
    from rarevox.losses.sums.triton.overlap import TritonKernels

    COLUMNS = Columns()
    VARIANTS = ("plain", "weight", "ignore", "channels last", "crop", "channels-last crop")

    def volume_of(printed, classes, dtype, variant):
        shape = (2, classes, 5, 6, 7)
        logits, labels, weight = printed.example(shape, dtype=dtype)
        if "channels" in variant:
            logits = logits.contiguous(memory_format=torch.channels_last_3d)
        if "crop" in variant:
            logits, labels = logits[:, :, 1:-1, 2:-1, :-2], labels[:, :, 1:-1, 2:-1, :-2]
        weight = weight.float() if variant == "weight" else None
        return Volume(logits, labels, weight, ignore_index=1 if variant == "ignore" else None)

    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("classes", [2, 3, 5, 33, 64])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
    def test_kernels_agree_with_torch(printed, classes, dtype, variant):
        """Sums of 100 to 420 terms in float32, in another order: 420 · 2⁻²⁴ = 3e-5 at most, relative to the terms."""
        volume = volume_of(printed, classes, dtype, variant)
        kernels, torch_path = TritonKernels(COLUMNS), InPieces(COLUMNS, keep=False)
        sums, seen = kernels.sums(volume)
        expected, expected_seen = torch_path.sums(volume)
        torch.testing.assert_close(sums, expected, rtol=3e-5, atol=3e-5)
        assert (seen.label_low, seen.label_high) == (expected_seen.label_low, expected_seen.label_high)
        pull = torch.linspace(0.5, 1.5, sums.numel(), dtype=sums.dtype).view(sums.shape)
        grad, expected_grad = kernels.gradient(volume, pull), torch_path.gradient(volume, pull)
        assert grad.stride() == expected_grad.stride()
        unit = 2 * torch.finfo(dtype).eps if dtype != torch.float32 else 1e-5
        torch.testing.assert_close(grad, expected_grad, rtol=unit, atol=unit)

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
