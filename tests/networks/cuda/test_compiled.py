"""The kernels of norms compiled for compute capability 9.0, without a device: registers a thread, none that spill."""

from __future__ import annotations

import pytest

from rarevox.networks.cuda import affine, kernels, norm_gradient_kernels, norm_kernels, norm_passes
from tests.assembled import REGISTERS, assembled

pytest.importorskip("triton", reason="needs Triton")
pytestmark = pytest.mark.skipif(not hasattr(kernels.triton, "compile"), reason="needs Triton's compiler")

TYPES = {
    **dict.fromkeys(("x", "out", "gradient", "mask", "add"), "*bf16"),
    **dict.fromkeys(("weight", "bias", "scale", "shift", "slope", "partial", "running_mean", "running_var"), "*fp32"),
    **dict.fromkeys(("statistics", "of_parameters"), "*fp32"),
    **dict.fromkeys(("momentum", "epsilon"), "fp32"),
    "counts": "*i32",
    "batches": "*i64",
}
KERNELS = {
    "moments": norm_kernels,
    "norm_act": norm_kernels,
    "gradient_sums": norm_gradient_kernels,
    "gradient": norm_gradient_kernels,
}
# Channels, those of the norm, of what is added, a mask, a slope: HighResNet's padded volumes, DeepMedic's layers.
VOLUMES = {
    "64 channels, padded": (64, 64, 0, True, False),
    "30 channels in 32": (32, 30, 0, False, True),
    "50 channels in 56, 40 added": (56, 50, 40, False, True),
}


@pytest.mark.parametrize("volume", VOLUMES)
@pytest.mark.parametrize("name", KERNELS)
def test_registers_suffice(name, volume, tmp_path):
    channels, real, added, masked, sloped = VOLUMES[volume]
    padded = 1 << (channels - 1).bit_length()
    kernel = getattr(KERNELS[name], f"{name}_kernel")
    options = {
        "CHANNELS": channels,
        "REAL": real,
        "PADDED": padded,
        "ROWS": norm_passes.ELEMENTS // padded,
        "CHUNK": norm_passes._chunk(padded),
        "ADDED": added,
        "MASKED": masked,
        "SLOPED": sloped,
        "RUNNING": True,
    }
    options = {key: value for key, value in options.items() if key in kernel.arg_names}
    registers, spilled = assembled(kernel, TYPES, {**options, "num_warps": norm_passes.WARPS}, tmp_path)
    # So many programs are launched for a processor, and run at once.
    most = REGISTERS // (norm_passes.PROGRAMS * norm_passes.WARPS * 32)
    assert spilled == 0 and registers <= most, (registers, spilled)


@pytest.mark.parametrize(("channels", "added", "factor"), [(16, 0, 1), (56, 40, 1), (152, 152, 3)])
def test_in_evaluation_four_programs_of_a_processor_run_at_once(channels, added, factor, tmp_path):
    padded = 1 << (channels - 1).bit_length()
    sizes = {"CHANNELS": channels, "REAL": channels, "PADDED": padded, "ROWS": affine.TILE_ELEMENTS // padded}
    ways = {"SCALED": added == 0, "MASKED": added == 0, "ADDED": added, "FACTOR": factor, "BEFORE": factor > 1}
    registers, spilled = assembled(kernels.affine_act_kernel, TYPES, {**sizes, **ways, "num_warps": 4}, tmp_path)
    assert spilled == 0 and registers <= REGISTERS // (4 * 4 * 32), (registers, spilled)
