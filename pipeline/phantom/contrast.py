"""The contrast of a phantom: a T1-like and a FLAIR-like image from tissue shares, lesions and look-alikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rarevox.pipeline.phantom.fields import Array, random_field
from rarevox.pipeline.phantom.lesions import Blob, place_lookalikes

#: Mean brightness of white matter in the stored int16 images; the gain of each subject and channel varies about it.
WHITE_LEVEL = 1000.0
# Tissue brightness as a share of white matter: white, grey, CSF. FLAIR has CSF dark and grey above white.
_T1 = {"white": 1.0, "grey": 0.68, "csf": 0.28}
_FLAIR = {"white": 1.0, "grey": 1.25, "csf": 0.30}


@dataclass(frozen=True)
class Tissue:
    """Brightness of the tissues of one subject in one channel, white matter near 1."""

    white: float
    grey: float
    csf: float


def draw_tissue(generator: np.random.Generator, means: Mapping[str, float], deviation: float = 0.03) -> Tissue:
    """Tissue brightness of a subject: ``means``, each moved by a normal factor of ``deviation`` (cut at two)."""
    white, grey, csf = 1 + deviation * np.clip(generator.standard_normal(3), -2, 2)
    return Tissue(float(means["white"] * white), float(means["grey"] * grey), float(means["csf"] * csf))


def render(
    generator: np.random.Generator,
    maps: Mapping[str, Array],
    lesions: Sequence[Blob],
    *,
    spacing_mm: float,
    contrast: tuple[float, float],
    noise: float,
) -> Array:
    """The channels T1 and FLAIR of a subject: (2, X, Y, Z) float32, 0 outside the brain.

    signal = Σ tissue share × tissue brightness, blended into lesions and look-alikes, × bias field, then Rician noise
    √((s + n₁)² + n₂²) with deviation ``noise`` of the white matter, × gain.

    Args:
        generator: the source of randomness.
        maps: the subject's tissue maps (:data:`rarevox.pipeline.phantom.anatomy.CHANNELS`).
        lesions: where the lesions are.
        spacing_mm: edge of a voxel in mm.
        contrast: lesion brightness above grey matter on FLAIR, as a share of it: drawn between the two per lesion.
        noise: standard deviation of the noise as a share of the white matter's brightness.
    """
    # One stream of numbers for each part, so that a lesion more or less leaves the rest of the image as it was.
    tissue, unevenness, rim, lookalikes, disease, scanner = generator.spawn(6)
    t1_tissue, flair_tissue = draw_tissue(tissue, _T1), draw_tissue(tissue, _FLAIR)
    t1 = _mix(maps, t1_tissue, detail=t1_tissue.white - t1_tissue.grey)
    # Where the T1 detail is bright (myelin, iron), FLAIR is dark; half as strong.
    flair = _mix(maps, flair_tissue, detail=0.5 * (flair_tissue.white - flair_tissue.grey))
    uneven = random_field(unevenness, maps["white"].shape, spacing_mm=spacing_mm, knot_mm=14.0)
    flair *= 1 + 0.025 * uneven
    _add_rim(rim, flair, maps, uneven, flair_tissue)
    _add_lookalikes(lookalikes, flair, maps, flair_tissue, spacing_mm)
    for lesion in lesions:
        _add_lesion(disease, lesion, t1, flair, maps, t1_tissue, flair_tissue, contrast)
    return np.stack([_scan(scanner, image, maps["brain"], spacing_mm, noise) for image in (t1, flair)])


def _mix(maps: Mapping[str, Array], tissue: Tissue, *, detail: float) -> Array:
    """Tissue shares times their brightness, and the template's fine structure in units of the white-grey step."""
    image = maps["grey"] * tissue.grey + maps["white"] * tissue.white + maps["csf"] * tissue.csf
    return np.maximum(image + detail * maps["detail"], 0.02).astype(np.float32)


def _add_rim(
    generator: np.random.Generator, flair: Array, maps: Mapping[str, Array], uneven: Array, tissue: Tissue
) -> None:
    """Brighten the white matter along the ventricles up to grey matter, unevenly: caps and rims that are no lesions."""
    strength = generator.uniform(0.1, 0.8) * (tissue.grey - tissue.white)
    flair += strength * maps["near"] * maps["white"] * np.clip(0.6 + 0.6 * uneven, 0, 1)


def _add_lookalikes(
    generator: np.random.Generator, flair: Array, maps: Mapping[str, Array], tissue: Tissue, spacing_mm: float
) -> None:
    """Bright cortex and bright flowing CSF on FLAIR; T1 shows neither, and no label does."""
    cortex = place_lookalikes(generator, maps["grey"] > 0.75, mean_count=14, median_mm3=150, spacing_mm=spacing_mm)
    flow = place_lookalikes(generator, maps["csf"] > 0.75, mean_count=6, median_mm3=120, spacing_mm=spacing_mm)
    for blobs, tissue_map, low, high in ((cortex, maps["grey"], 1.02, 1.4), (flow, maps["csf"], 0.8, 1.4)):
        for blob in blobs:
            _blend(flair, blob, tissue_map, tissue.grey * generator.uniform(low, high))


def _add_lesion(
    generator: np.random.Generator,
    lesion: Blob,
    t1: Array,
    flair: Array,
    maps: Mapping[str, Array],
    t1_tissue: Tissue,
    flair_tissue: Tissue,
    contrast: tuple[float, float],
) -> None:
    """Brighten a lesion on FLAIR to grey × (1 + contrast) and darken it on T1, the plainer ones more."""
    draw = generator.uniform()
    above = contrast[0] + (contrast[1] - contrast[0]) * draw
    darkness = np.clip(0.2 + 0.6 * draw + generator.normal(0, 0.15), 0, 1.2)
    _blend(flair, lesion, maps["white"], flair_tissue.grey * (1 + above))
    _blend(t1, lesion, maps["white"], t1_tissue.white - darkness * (t1_tissue.white - t1_tissue.grey))


def _blend(image: Array, blob: Blob, tissue: Array, brightness: float) -> None:
    """Move ``image`` towards ``brightness`` by the blob's membership, only where its tissue fills the voxel.

    The step from 0 to 1 is centred on a tissue share of one half, as the label's edge is: a voxel more blob than not
    is labelled, one less blob than not is not.
    """
    share = blob.membership * np.clip((tissue[blob.box] - 0.3) / 0.4, 0, 1)
    image[blob.box] += share * (np.float32(brightness) - image[blob.box])


def _scan(generator: np.random.Generator, image: Array, brain: Array, spacing_mm: float, noise: float) -> Array:
    """Bias field (a factor of 0.7 to 1.43), Rician noise, gain; 0 outside the brain, at least 1 inside."""
    bias = np.exp(0.18 * random_field(generator, image.shape, spacing_mm=spacing_mm, knot_mm=70.0))
    real = image * bias + np.float32(noise) * generator.standard_normal(image.shape, dtype=np.float32)
    imaginary = np.float32(noise) * generator.standard_normal(image.shape, dtype=np.float32)
    gain = np.float32(WHITE_LEVEL * generator.uniform(0.7, 1.4))
    return np.where(brain > 0.5, np.maximum(gain * np.hypot(real, imaginary), 1), 0).astype(np.float32)
