"""The overlay of MRI artefacts on a patch: every transform that it names works, and strengths are as it says."""

from __future__ import annotations

import numpy as np
import torch

from rarevox.pipeline.build import build
from rarevox.pipeline.compose import compose


def patch() -> dict[str, torch.Tensor]:
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 24, 16, 20)).astype(np.float32))
    return {"image": image, "label": (image[:1] > 2).to(torch.uint8)}


def test_every_artefact_comes_and_labels_stay() -> None:
    settings = ["patch_size=[24, 16, 20]", "mirror_axes=[]"]
    augmentation = build(compose("train", config_files=["mri_artefacts"], settings=settings).config, "augmentation")
    names = [type(part).__name__ for part in augmentation.transforms]
    assert {"RandBiasFieldd", "RandGibbsNoised", "RandKSpaceSpikeNoised", "RandSimulateLowResolutiond"} <= set(names)
    assert {"RandMotiond", "RandGhostingd"} <= set(names)
    for part in augmentation.transforms:
        assert 0 < part.prob < 1
        part.prob = 1.0
        before = patch()
        after = part.set_random_state(seed=1)(patch())
        assert after["image"].shape == before["image"].shape and bool(torch.isfinite(after["image"]).all())
        assert not torch.equal(torch.as_tensor(after["image"]), before["image"]), type(part).__name__
        assert torch.equal(torch.as_tensor(after["label"]), before["label"])


def test_slices_are_blurred_within_their_planes_alone() -> None:
    """Across an axis of one voxel zeros would be mixed in, and the slice would become darker."""
    settings = ["slice_axis=axial", "patch_size=[24, 16, 1]"]
    augmentation = build(compose("train", config_files=["mri_artefacts"], settings=settings).config, "augmentation")
    (smooth,) = (part for part in augmentation.transforms if type(part).__name__ == "RandGaussianSmoothd")
    smooth.prob = 1.0
    level = {"image": torch.ones(1, 24, 16, 1)}
    inside = torch.as_tensor(smooth.set_random_state(seed=0)(level)["image"])[0, 6:-6, 6:-6, 0]
    # A kernel ends after four standard deviations: 6.3e-5 of its sum are cut off along each of the two axes.
    torch.testing.assert_close(inside, torch.ones_like(inside), rtol=0, atol=1.5e-4)


def test_spikes_are_waves_of_the_strength_stated() -> None:
    """A pair of spikes of log magnitude log(a·N) in k-space of N voxels is a wave of amplitude 2a at most, so that its
    root mean square is at most √2·a; a lies between 0.02 and 0.1. What the patch had at that frequency goes: of N
    standard normal voxels |k| is about √N, root mean square √2/√N = 0.016."""
    config = compose("train", config_files=["mri_artefacts"], settings=["patch_size=[24, 16, 20]"]).config
    spikes = next(
        part for part in build(config, "augmentation").transforms if type(part).__name__ == "RandKSpaceSpikeNoised"
    )
    spikes.prob = 1.0
    for seed in range(5):
        before = patch()
        change = torch.as_tensor(spikes.set_random_state(seed=seed)(patch())["image"]) - before["image"]
        assert 0.005 < float(change.std()) < 2**0.5 * 0.1 + 3 * 0.016
