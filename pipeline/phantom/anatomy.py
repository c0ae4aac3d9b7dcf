"""The anatomy of a phantom: tissue maps of the ICBM152 template, warped into one subject's head.

The template (2009a nonlinear symmetric, 1 mm) and its grey- and white-matter maps ship inside the package nilearn;
nothing is downloaded. Source: Fonov et al., NeuroImage 54 (2011) 313; Collins et al. (1999).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.phantom.fields import Array, displacement

#: Channels of :class:`Atlas`: three tissue shares and the ventricles' share (0 to 1, ventricles ⊂ csf), brain or not,
#: what the T1 template shows beyond its tissue shares, and where lesions sit: near the ventricles, deep in the white.
CHANNELS = ("grey", "white", "csf", "ventricles", "brain", "detail", "near", "deep")
#: The field of view in mm, right to left, back to front, bottom to top: the template's brain is 145 × 181 × 155 mm.
FIELD_OF_VIEW_MM = (168.0, 208.0, 180.0)

_FILES = {
    name: f"mni_icbm152_{key}_tal_nlin_sym_09a_converted.nii.gz"
    for name, key in (("t1", "t1"), ("grey", "gm"), ("white", "wm"))
}
_REMEDY = "install it from the clone (pip install -e '.[demo]') or by itself (pip install nilearn)"
_WARP_KNOT_MM, _WARP_DEVIATION_MM = 24.0, 5.0


@dataclass(frozen=True)
class Atlas:
    """Template maps ``(8, X, Y, Z)`` float32 on a 1 mm RAS+ grid, named by :data:`CHANNELS`.

    ``origin_mm`` is the MNI position of voxel (0, 0, 0).
    """

    maps: torch.Tensor
    origin_mm: tuple[float, float, float]


def load_template() -> tuple[dict[str, Array], tuple[float, float, float]]:
    """T1, grey and white matter of ICBM152 at 1 mm, each scaled to 0 … 1, and the MNI position of voxel (0, 0, 0).

    The packaged files are read directly, which takes 0.3 s; nilearn's functions, whose import alone takes 2 s, step in
    where a release of nilearn keeps the files elsewhere.

    Raises:
        RequestError: nilearn is not installed.
    """
    package = importlib.util.find_spec("nilearn")
    if package is None or not package.submodule_search_locations:
        raise RequestError(f"the phantom cohort needs the brain template inside the package nilearn; {_REMEDY}")
    folder = Path(next(iter(package.submodule_search_locations))) / "datasets" / "data"
    if all((folder / name).is_file() for name in _FILES.values()):
        images = {name: nibabel.load(folder / file) for name, file in _FILES.items()}
    else:
        images = _template_by_nilearn()
    arrays = {name: np.asarray(image.dataobj, dtype=np.float32) for name, image in images.items()}
    origin = images["t1"].affine[:3, 3]
    return {name: array / array.max() for name, array in arrays.items()}, (origin[0], origin[1], origin[2])


def _template_by_nilearn() -> dict[str, nibabel.Nifti1Image]:
    """The same three images through nilearn's public functions."""
    try:
        from nilearn import datasets
    except ImportError as error:
        raise RequestError(f"the package nilearn is broken ({error}); {_REMEDY}") from error
    return {
        "t1": datasets.load_mni152_template(resolution=1),
        "grey": datasets.load_mni152_gm_template(resolution=1),
        "white": datasets.load_mni152_wm_template(resolution=1),
    }


def build_atlas(spacing_mm: float) -> Atlas:
    """The template's maps, cropped to the brain and smoothed for sampling every ``spacing_mm``.

    Raises:
        RequestError: nilearn is not installed.
    """
    template, (x, y, z) = load_template()
    box = tuple(slice(max(where.min() - 3, 0), where.max() + 4) for where in np.nonzero(template["t1"] > 0))
    origin_mm = (x + box[0].start, y + box[1].start, z + box[2].start)
    t1, grey, white = (template[name][box] for name in ("t1", "grey", "white"))
    return smooth_atlas(template_maps(t1, grey, white, origin_mm), origin_mm, spacing_mm)


def smooth_atlas(maps: dict[str, Array], origin_mm: tuple[float, float, float], spacing_mm: float) -> Atlas:
    """Maps (each (X, Y, Z), 1 mm) smoothed so that sampling every ``spacing_mm`` gives partial volumes, not aliases.

    A Gaussian of 0.35·√(spacing² − 1) mm stands in for averaging over a voxel of that size (a box of width w has
    the standard deviation w/√12 ≈ 0.29·w; the rest is the scanner's point spread).
    """
    sigma = 0.35 * max(spacing_mm**2 - 1.0, 0.0) ** 0.5
    if sigma:
        maps = {name: ndimage.gaussian_filter(array, sigma, mode="constant") for name, array in maps.items()}
    return Atlas(torch.from_numpy(np.stack([maps[name] for name in CHANNELS])), origin_mm)


def template_maps(t1: Array, grey: Array, white: Array, origin_mm: tuple[float, float, float]) -> dict[str, Array]:
    """The channels of :data:`CHANNELS` from the template's three images (each (X, Y, Z), 0 to 1, 1 mm)."""
    brain = ndimage.binary_fill_holes(t1 > 0)
    grey, white = grey * brain, white * brain
    csf = np.clip(brain - grey - white, 0, 1).astype(np.float32)
    ventricles = lateral_ventricles(csf, origin_mm)
    tissues = np.stack([grey, white, csf], axis=-1)
    inside = tissues[brain]
    shares, *_ = np.linalg.lstsq(inside[::16], t1[brain][::16], rcond=None)
    shares = shares.round(3)  # so that the last bits of the solver, which depend on its threads, reach no image
    detail = np.zeros_like(t1)
    # In units of the white-grey step, so that any contrast can borrow it: the basal ganglia and the thalamus, whose
    # brightness lies between the two, show here and nowhere in the tissue shares.
    detail[brain] = (t1[brain] - (inside * shares).sum(axis=1)) / (shares[1] - shares[0])
    z = origin_mm[2] + np.arange(t1.shape[2], dtype=np.float32)
    # White-matter hyperintensities are a disease of the cerebrum; the ramp keeps them out of cerebellum and brain stem.
    cerebrum = np.clip((z - 2) / 6, 0, 1)
    from_ventricles = ndimage.distance_transform_edt(ventricles < 0.5).astype(np.float32)
    in_white = ndimage.distance_transform_edt(white > 0.7).astype(np.float32)
    near = np.exp(-from_ventricles / 4) * cerebrum
    deep = np.clip((from_ventricles - 8) / 4, 0, 1) * np.clip((in_white - 1) / 2, 0, 1) * cerebrum
    named = {"grey": grey, "white": white, "csf": csf, "ventricles": ventricles, "brain": brain}
    named |= {"detail": np.clip(detail, -1, 1), "near": near, "deep": deep}
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in named.items()}


def lateral_ventricles(csf: Array, origin_mm: tuple[float, float, float]) -> Array:
    """The share of CSF that belongs to the lateral ventricles: bodies, frontal horns and trigones, 17.7 ml at 1 mm.

    CSF above one half falls into pieces once two leaks are closed: the midline (|x| < 3 mm: third ventricle, septum,
    interhemispheric fissure) and the cisterns round the midbrain (|x| ≤ 20, y < −5, z < 4 mm). The piece on each side
    that passes the ventricle's body (8 to 16 mm from the midline, y −5 to 14, z 15 to 25 mm) is the ventricle; growing
    it by two voxels gives the medial wall and the partial volumes back, less what solid CSF that brings in of others.
    """
    x, y, z = (
        (start + np.arange(size)).reshape([-1 if axis == i else 1 for i in range(3)])
        for axis, (start, size) in enumerate(zip(origin_mm, csf.shape, strict=True))
    )
    leak = (np.abs(x) < 3) | ((np.abs(x) <= 20) & (y < -5) & (z < 4))
    pieces, _ = ndimage.label((csf > 0.5) & ~leak)
    body = (np.abs(x) >= 8) & (np.abs(x) <= 16) & (y >= -5) & (y <= 14) & (z >= 15) & (z <= 25)
    core = np.isin(pieces, np.unique(pieces[body & (pieces > 0)]))
    kept = ndimage.binary_dilation(core, iterations=2)
    solid = kept & (csf > 0.5)
    kept &= ~solid | ndimage.binary_propagation(core, mask=solid)
    return np.where(kept, csf, 0).astype(np.float32)


def subject_shape(spacing_mm: float) -> tuple[int, int, int]:
    """Voxels along each axis of a subject's grid: the field of view over the spacing, rounded.

    >>> subject_shape(2.0)
    (84, 104, 90)
    """
    x, y, z = (round(length / spacing_mm) for length in FIELD_OF_VIEW_MM)
    return x, y, z


def head_affine(generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """A random 3 × 3 matrix: rotations up to about 8°, scales of 0.92 to 1.08, shears up to 0.04 (subject → template).

    Its determinant is above 0.92³·(1 − 0.04·0.04) > 0: it never mirrors a head.
    """
    a, b, c = np.clip(generator.normal(0, np.deg2rad(3.5), 3), -0.14, 0.14)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    shear = np.eye(3)
    shear[np.triu_indices(3, 1)] = generator.uniform(-0.04, 0.04, 3)
    return about_x @ about_y @ about_z @ shear @ np.diag(generator.uniform(0.92, 1.08, 3))


def template_positions(generator: np.random.Generator, shape: Sequence[int], spacing_mm: float) -> Array:
    """Where each voxel of the subject lies in the template: (3, X, Y, Z) MNI positions in mm.

    T(x) = A·(x + u(x)) + t, with x measured from the centre of the field of view, u the one-to-one spline displacement
    and A :func:`head_affine`; a one-to-one map followed by an invertible one cannot fold.
    """
    matrix = head_affine(generator)
    centre_mm = np.array([0.0, -17.0, 4.0]) + np.clip(generator.normal(0, 2, 3), -4, 4)
    positions = displacement(
        generator, shape, spacing_mm=spacing_mm, knot_mm=_WARP_KNOT_MM, deviation_mm=_WARP_DEVIATION_MM
    )
    for axis, size in enumerate(shape):
        along = (np.arange(size) - (size - 1) / 2) * spacing_mm
        positions[axis] += along.astype(np.float32).reshape([-1 if axis == i else 1 for i in range(3)])
    mapped = np.einsum("ij,jxyz->ixyz", matrix.astype(np.float32), positions)
    return mapped + centre_mm.astype(np.float32).reshape(3, 1, 1, 1)


def warp_atlas(atlas: Atlas, positions_mm: Array) -> dict[str, Array]:
    """Every channel of ``atlas`` at ``positions_mm`` (3, X, Y, Z), linearly interpolated, 0 outside the template."""
    sizes = torch.tensor(atlas.maps.shape[1:], dtype=torch.float32)
    origin = torch.tensor(atlas.origin_mm, dtype=torch.float32)
    index = torch.from_numpy(positions_mm).permute(1, 2, 3, 0) - origin
    grid = (2 * index / (sizes - 1) - 1).flip(-1)  # grid_sample wants the last axis first
    sampled = torch.nn.functional.grid_sample(atlas.maps[None], grid[None], padding_mode="zeros", align_corners=True)
    return dict(zip(CHANNELS, sampled[0].numpy(), strict=True))
