"""Every kind of training step on CUDA: launches, waits of the host and copies, site by site."""

from __future__ import annotations

import collections

import pytest
import torch
from monai.networks.nets import DynUNet

from rarevox import losses, networks
from rarevox.pipeline.training.steps import graphed, graphed_loss, recording
from rarevox.pipeline.training.steps.alternating import AlternatingStep
from rarevox.pipeline.training.steps.projected import ProjectedStep
from tests.pretended_cuda.inside.training import default_loss, take_steps

READ = ("pipeline/training/steps/step.py:_update", "tolist")  # of a step that is read at once
LATE = "pipeline/training/steps/late.py:settle"
SENT = {"pipeline/training/steps/step.py:__call__": 2}  # the patches and their labels
FUSED = {"triton sums_kernel": 1, "triton gradient_kernel": 1}


def norms(forward, backward=None):
    """Norms in few passes: of 32 MiB and more, as 80 channels of 2×48³ voxels in half precision are, or padded."""
    counts = {"moments": forward, "norm_act": forward}
    counts |= dict.fromkeys(("gradient_sums", "gradient"), forward if backward is None else backward)
    return {f"triton norm {name}_kernel": count for name, count in counts.items()}


def deepmedic():
    return networks.DeepMedic(in_channels=1, out_channels=3, residual=True)


def deeply_supervised():
    """As `--network resenc_unet` builds it, narrower."""
    return DynUNet(
        in_channels=1,
        out_channels=3,
        spatial_dims=3,
        kernel_size=[3, 3, 3, 3],
        strides=[1, 2, 2, 2],
        upsample_kernel_size=[2, 2, 2],
        filters=[8, 16, 24, 32],
        res_block=True,
        deep_supervision=True,
        deep_supr_num=2,
    )


def one_layer(classes=3):
    """The least network, for what depends on the loss alone: every other operation of a step is in `STEPS` already."""
    return lambda: torch.nn.Conv3d(1, classes, 3, padding=1)


# Options, the most launches, whether a step is read late, kernels of the loss. Bounds on launches leave a twentieth to
# PyTorch, whose operations are made of more or fewer kernels from release to release.
STEPS = {
    "default": ({}, 540, True, FUSED | norms(1)),
    "float16": ({"dtype": torch.float16}, 550, True, FUSED | norms(1)),
    # And the five of 64 channels.
    "float32": ({"dtype": torch.float32}, 495, True, FUSED | norms(6)),
    "AdamW": ({"optimizer": torch.optim.AdamW}, 890, False, FUSED | norms(1)),
    "average of the weights": ({"ema": True}, 545, True, FUSED | norms(1)),
    "second device": ({"device": torch.device("cuda", 1)}, 540, True, FUSED | norms(1)),
    "loss on a crop": ({"loss_margin": 8}, 550, True, FUSED | norms(1)),
    # Of two stages and the features, which are padded.
    "size not divisible by 4": ({"size": (50, 47, 33)}, 535, True, FUSED | norms(13)),
    "DeepMedic": ({"make": deepmedic, "size": (75,) * 3, "margin": (24,) * 3}, 715, True, FUSED),
    "two optimisers": (
        # Each optimiser begins with one read at once.
        {"kind": AlternatingStep, "loss": losses.DiceCELoss(batch=True), "steps": 5},
        520,
        True,
        FUSED | norms(1),
    ),
    "projected": (
        {"kind": ProjectedStep, "loss": losses.DiceCELoss(batch=True)},
        1160,
        True,
        {"triton sums_kernel": 1, "triton gradient_kernel": 2} | norms(1, 2),
    ),
    # A loss for each of three heads.
    "deep supervision": (
        {"make": deeply_supervised},
        1390,
        True,
        {"triton sums_kernel": 3, "triton gradient_kernel": 3},
    ),
    "64 classes": ({"make": one_layer(64)}, 210, True, FUSED),
    "65 classes": ({"make": one_layer(65)}, 210, True, FUSED),
    "257 classes": ({"make": one_layer(257)}, 410, True, {}),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_waits_once_if_at_all_and_launches_little(ledger, name):
    options, most, late, kernels = STEPS[name]
    outputs = take_steps(ledger, **options)
    # The host waits for the step before, when all of this one is queued behind it.
    assert ledger.late == ({LATE: ledger.total} if late else {}), ledger.report()
    assert dict(ledger.waits) == ({} if late else {READ: 1}), ledger.report()
    assert dict(ledger.returned) == ({"pipeline/training/steps/late.py:__init__": 1} if late else {})
    assert all(float(output["loss"]) == float(output["loss"]) for output in outputs), "a step was skipped"
    assert dict(ledger.pinned) == SENT, ledger.report()
    assert ledger.total <= most, ledger.report()
    assert {kernel: n for kernel, n in ledger.launches.items() if kernel.startswith("triton")} == kernels
    assert not ledger.pageable, ledger.report()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_measurement_of_the_gradients_waits_once(ledger, dtype):
    take_steps(ledger, gradient_log=True, dtype=dtype)
    assert dict(ledger.waits) == {("pipeline/training/record/gradient_log.py:measure", "tolist"): 1}, ledger.report()
    assert not ledger.pageable, ledger.report()


def test_the_optimiser_launches_less_than_150_kernels(ledger):
    take_steps(ledger)
    ours = sum(n for place, n in ledger.sites.items() if place.startswith("pipeline/training/steps/muon.py"))
    assert 0 < ours <= 150, ledger.report()


def test_without_triton_a_step_goes_on_in_operations_of_pytorch(ledger, monkeypatch):
    from rarevox.losses.sums.triton import overlap
    from rarevox.networks.cuda import norm

    for module in (overlap, norm):
        monkeypatch.setattr(module, "why_none", lambda: "no C compiler")
    take_steps(ledger)
    assert not ledger.waits and set(ledger.late) == {LATE}, ledger.report()
    assert not any(kernel.startswith("triton") for kernel in ledger.launches)


# Options, the most launches of a step beside its two graphs, and the norms in these.
IN_GRAPHS = {
    "default": ({}, 80, norms(20)),
    "DeepMedic": ({"make": deepmedic, "size": (75,) * 3, "margin": (24,) * 3}, 90, norms(18)),
    # Losses that no kernel of ours makes, or that have weights or options of their own, go by a graph all the same.
    "focal": ({"make": one_layer(), "loss": losses.DiceFocalLoss(batch=True)}, 60, {}),
    "smoothed labels": ({"make": one_layer(), "loss": losses.CrossEntropyLoss(label_smoothing=0.1)}, 60, {}),
    "weights of classes": (
        {"make": one_layer(), "loss": losses.CrossEntropyLoss(class_weights=[1.0, 2.0, 3.0])},
        60,
        {},
    ),
}


@pytest.mark.parametrize("name", IN_GRAPHS)
def test_a_step_by_graphs_launches_what_is_beside_the_network(ledger, name, monkeypatch):
    """In the graphs, where launches cost nothing, every norm is done in few passes; nothing waits for the device."""
    options, most, kernels = IN_GRAPHS[name]
    captured: collections.Counter[str] = collections.Counter()
    calls = []

    def recorded(run, pool, stream):
        ledger.clear()
        found = run()
        captured.update(ledger.launches)
        assert not ledger.waits and not ledger.pageable and not ledger.late, ledger.report()
        return (lambda: calls.append(run.__qualname__.split(".")[0])), (found, "a pool")

    for module in (graphed, graphed_loss, recording):
        monkeypatch.setattr(module, "recorded", recorded)
    monkeypatch.setattr(graphed, "require_plain_statistics", lambda network, before: None)  # there are no numbers
    take_steps(ledger, cuda_graphs=True, steps=4, **options)
    # Of four steps three pass by graphs (there and back) and take their directions so, and two have such a loss.
    assert collections.Counter(calls) == {"Captured": 6, "_Call": 3, "_CapturedLoss": 2}
    assert {kernel: n for kernel, n in captured.items() if kernel.startswith("triton norm")} == kernels
    assert not any("batch_norm" in kernel for kernel in captured), captured
    assert not ledger.waits and not ledger.pageable and ledger.late == {LATE: ledger.total}, ledger.report()
    assert ledger.total <= most, ledger.report()


LOSSES = {
    "dice": (losses.DiceLoss(batch=True), FUSED, {}),
    "dice_ce": (losses.DiceCELoss(batch=True, ignore_index=255), FUSED, {}),
    "tversky": (losses.TverskyLoss(), FUSED, {}),
    "weighted cross-entropy": (losses.WeightedCrossEntropyLoss(), FUSED, {}),
    "weights of classes": (losses.CrossEntropyLoss(class_weights=[1.0, 2.0, 3.0]), FUSED, {}),
    "cross-entropy": (losses.CrossEntropyLoss(), FUSED, {}),
    "sensitivity and specificity": (losses.SensitivitySpecificityLoss(), FUSED, {}),
    "two-class dice": (losses.TwoClassDiceLoss(), FUSED, {}),
    "generalised dice": (losses.GeneralizedDiceLoss(), FUSED, {}),
    "dice_focal": (losses.DiceFocalLoss(), {}, {}),
    "dice_topk": (losses.DiceTopKLoss(batch=True), FUSED, {}),
    "focal tversky": (losses.FocalTverskyLoss(), FUSED, {}),
    "generalised dice and cross-entropy": (default_loss(), FUSED, {}),
    "sigmoid": (losses.DiceCELoss(sigmoid=True), FUSED, {}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_fused_where_it_is_meant_to_be(ledger, name):
    loss, kernels, more = LOSSES[name]
    take_steps(ledger, loss=loss, make=one_layer(1 if loss.sigmoid else 3), steps=1, size=(16, 16, 16))
    assert {kernel: n for kernel, n in ledger.launches.items() if kernel.startswith("triton")} == kernels
    assert dict(ledger.waits) == {READ: 1, **more} and not ledger.pageable, ledger.report()


def test_every_loss_is_in_the_table():
    kinds = {value for name, value in vars(losses).items() if isinstance(value, type) and name.endswith("Loss")}
    abstract = {losses.Loss, losses.TableLoss, losses.CombinedLoss, losses.CombinedTableLoss}
    elsewhere = {losses.ComponentDiceCELoss}
    assert kinds - abstract - elsewhere == {type(loss) for loss, *_ in LOSSES.values()}


def test_the_component_loss_waits_for_its_number_of_regions_alone(ledger):
    loss = losses.ComponentDiceCELoss()
    take_steps(ledger, loss=loss, make=one_layer(), label_channels=3, steps=1, size=(16, 16, 16))
    regions = "losses/sums/regions.py"
    asked = {(f"{regions}:check_regions", "tolist"): 1}
    assert dict(ledger.waits) == {READ: 1, **asked}, ledger.report()
