"""A synthetic cohort: brains with white-matter lesions, written as a Medical Segmentation Decathlon task folder."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from rarevox.pipeline.console import progress_bar
from rarevox.pipeline.cores import cores
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import atomic, claim_folder, read_json, write_json
from rarevox.pipeline.phantom.anatomy import Atlas, build_atlas, subject_shape, template_positions, warp_atlas
from rarevox.pipeline.phantom.contrast import render
from rarevox.pipeline.phantom.lesions import lesion_target, place_lesions

LESION, VENTRICLES = 1, 2
_LABELS = {"0": "background", "1": "lesion", "2": "ventricles"}
_DESCRIPTION = (
    "SYNTHETIC: no person was scanned. ICBM152 template anatomy under random smooth deformations, with simulated T1 "
    "and FLAIR contrast, bias field, noise and {lesions}; for demonstrations and tests only"
)
_REFERENCE = (
    "Anatomy: ICBM 2009a nonlinear symmetric template (Fonov et al., NeuroImage 54, 2011), as shipped with nilearn; "
    "copyright 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill "
    "University"
)


@dataclass(frozen=True, kw_only=True)
class PhantomSettings:
    """What a phantom looks like, apart from how many there are.

    Args:
        spacing_mm: edge of the cubic voxels, 0.8 to 6 mm.
        lesion_share: lesion voxels as a share of all voxels of a volume, averaged over the cohort; 0 (none anywhere) to
            0.02.
        contrast: how far lesions outshine grey matter on FLAIR, as a share of it: lowest and highest, -0.15 to 3.
        noise: standard deviation of the noise as a share of the white matter's brightness, 0 to 0.5.
        seed: whole number, 0 or more; the same seed gives the same arrays.

    Raises:
        RequestError: a value outside its range; the message names it.
    """

    spacing_mm: float = 2.0
    lesion_share: float = 1e-3
    contrast: tuple[float, float] = (0.05, 0.5)
    noise: float = 0.025
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.contrast) != 2:
            raise RequestError(f"phantom cohort: contrast is {self.contrast}; give two numbers (lowest, highest)")
        low, high = self.contrast
        checks = (
            (0.8 <= self.spacing_mm <= 6, f"spacing_mm is {self.spacing_mm}; give 0.8 to 6"),
            (0 <= self.lesion_share <= 0.02, f"lesion_share is {self.lesion_share}; give 0 to 0.02"),
            (
                -0.15 <= low <= high <= 3,
                f"contrast is ({low}, {high}); give the lowest and the highest, in this order, within -0.15 to 3",
            ),
            (0 <= self.noise <= 0.5, f"noise is {self.noise}; give 0 to 0.5, a share of the white matter's brightness"),
            (isinstance(self.seed, int) and self.seed >= 0, f"seed is {self.seed}; give a whole number, 0 or more"),
        )
        for holds, message in checks:
            if not holds:
                raise RequestError(f"phantom cohort: {message}")


@dataclass(frozen=True)
class Phantom:
    """One synthetic subject.

    ``image`` is (2, X, Y, Z) int16, T1 and FLAIR, 0 outside the brain; ``labels`` is (X, Y, Z) uint8 with 1 lesion and
    2 lateral ventricles; ``affine`` is 4 × 4, RAS+, in mm.
    """

    image: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]


def make_subject(index: int, settings: PhantomSettings, atlas: Atlas) -> Phantom:
    """Subject ``index`` of a cohort: a pure function of the three arguments, however many subjects there are.

    Heads, look-alikes and scanners do not depend on the lesions: with ``lesion_share=0`` the same subject comes out
    without any, every other voxel as it was.

    Args:
        index: number of the subject, 0 or more; with the seed it fixes every random draw.
        settings: what the cohort looks like.
        atlas: :func:`rarevox.pipeline.phantom.anatomy.build_atlas` of the settings' spacing.
    """
    anatomy, disease, scanner = (np.random.default_rng([settings.seed, index, part]) for part in range(3))
    shape = subject_shape(settings.spacing_mm)
    maps = warp_atlas(atlas, template_positions(anatomy, shape, settings.spacing_mm))
    target = lesion_target(
        index, seed=settings.seed, lesion_share=settings.lesion_share, voxels=shape[0] * shape[1] * shape[2]
    )
    lesions = place_lesions(disease, maps, target, spacing_mm=settings.spacing_mm)
    image = render(
        scanner,
        maps,
        lesions,
        spacing_mm=settings.spacing_mm,
        contrast=settings.contrast,
        noise=settings.noise,
    )
    labels = np.where(maps["ventricles"] > 0.5, VENTRICLES, 0).astype(np.uint8)
    for lesion in lesions:
        labels[lesion.box][lesion.core] = LESION
    affine = np.diag([settings.spacing_mm] * 3 + [1.0])
    # Roughly centred on the brain, as scanners do, and never twice on the same voxel grid.
    affine[:3, 3] = -settings.spacing_mm * (np.array(shape) - 1) / 2 + anatomy.uniform(-10, 10, 3).round(1)
    return Phantom(np.clip(np.rint(image), 0, 32767).astype(np.int16), labels, affine)


def write_cohort(
    folder: str | Path,
    *,
    subjects: int = 16,
    spacing_mm: float = 2.0,
    lesion_share: float = 1e-3,
    contrast: tuple[float, float] = (0.05, 0.5),
    noise: float = 0.025,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Write a synthetic cohort as a Medical Segmentation Decathlon task folder and give its path back.

    ``imagesTr/phantom_000.nii.gz`` … are 4D int16 (X, Y, Z, 2) with the channels T1 and FLAIR, ``labelsTr`` the label
    maps in uint8 (1 lesion, 2 lateral ventricles); ``dataset.json`` is written last and says that all is synthetic.
    A folder that already holds this very cohort is left as it is; an interrupted one is written again.

    Args:
        folder: where to; made if need be.
        subjects: how many, 1 or more; subject k does not depend on it.
        spacing_mm, lesion_share, contrast, noise, seed: see :class:`PhantomSettings`.
        workers: subjects made at the same time; None takes the CPUs that this process may use.

    Raises:
        RequestError: a value out of its range, nilearn missing, or a folder that holds something else.

    Example: ``write_cohort("Task_Phantom", subjects=4, lesion_share=1e-4)``.
    """
    settings = PhantomSettings(
        spacing_mm=float(spacing_mm),
        lesion_share=float(lesion_share),
        contrast=tuple(float(value) for value in contrast),  # type: ignore[arg-type]  # its length is checked there
        noise=float(noise),
        seed=seed,
    )
    if subjects < 1:
        raise RequestError(f"phantom cohort: subjects is {subjects}; give 1 or more")
    if workers is not None and workers < 1:
        raise RequestError(f"phantom cohort: workers is {workers}; give 1 or more")
    description = describe(subjects, settings)
    folder = claim_folder(folder, lambda held: _is_ours(held, description), "the phantom cohort")
    if _is_complete(folder, description):
        return folder
    try:
        atlas = build_atlas(settings.spacing_mm)
        _write_subjects(folder, subjects, settings, atlas, workers or cores())
        write_json(folder / "dataset.json", description)
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(
            f"cannot write the phantom cohort into {folder}: {reason}; free space there or choose another folder"
        ) from error
    return folder


def describe(subjects: int, settings: PhantomSettings) -> dict[str, Any]:
    """The content of ``dataset.json``: the Decathlon's keys, and the settings under ``phantom``.

    >>> content = describe(2, PhantomSettings())
    >>> content["modality"], content["labels"]["1"], content["training"][1]["label"]
    ({'0': 'T1', '1': 'FLAIR'}, 'lesion', './labelsTr/phantom_001.nii.gz')
    """
    names = [_name(index) for index in range(subjects)]
    return {
        "name": "SyntheticLesions",
        "description": _DESCRIPTION.format(lesions="white-matter lesions" if settings.lesion_share else "no lesion"),
        "reference": _REFERENCE,
        "licence": "Apache-2.0 for the synthesis; the ICBM template's terms for the anatomy (free use with its notice)",
        "release": "1.0",
        "synthetic": True,
        "tensorImageSize": "4D",
        "modality": {"0": "T1", "1": "FLAIR"},
        "labels": _LABELS,
        "numTraining": subjects,
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
        "test": [],
        "phantom": asdict(settings) | {"contrast": list(settings.contrast)},
    }


def _name(index: int) -> str:
    return f"phantom_{index:03d}.nii.gz"


def _write_subjects(folder: Path, subjects: int, settings: PhantomSettings, atlas: Atlas, workers: int) -> None:
    """Make and write the subjects, ``workers`` at a time; an interruption drops those not yet begun."""

    def write(index: int) -> None:
        _write_subject(folder, index, make_subject(index, settings, atlas))

    pool = ThreadPoolExecutor(min(workers, subjects))
    try:
        with progress_bar() as bar:
            results: Iterator[None] = pool.map(write, range(subjects))
            for _ in bar.track(results, total=subjects, description="phantom cohort"):
                pass
    finally:
        pool.shutdown(cancel_futures=True)


def _write_subject(folder: Path, index: int, phantom: Phantom) -> None:
    """Write the image and the label map of one subject, sform and qform both in scanner space."""
    channels_last = np.moveaxis(phantom.image, 0, -1)
    for part, array in (("imagesTr", channels_last), ("labelsTr", phantom.labels)):
        image = nibabel.Nifti1Image(array, phantom.affine)
        image.set_sform(phantom.affine, code="scanner")
        image.set_qform(phantom.affine, code="scanner")
        image.header.set_xyzt_units("mm", "sec")
        image.header["descrip"] = b"SYNTHETIC phantom (rarevox)"
        with atomic(folder / part / _name(index)) as temporary:
            nibabel.save(image, temporary)


def _is_complete(folder: Path, description: dict[str, Any]) -> bool:
    """Whether the folder holds exactly the cohort described, every file in its place."""
    listing = folder / "dataset.json"
    if not listing.is_file() or read_json(listing) != description:
        return False
    return all((folder / path).is_file() for pair in description["training"] for path in pair.values())


def _is_ours(folder: Path, description: dict[str, Any]) -> bool:
    """Whether the folder holds this cohort, whole or in part, and nothing else that writing would mix with it."""
    listing = folder / "dataset.json"
    if listing.exists():
        return bool(read_json(listing) == description)
    wanted = {Path(path) for pair in description["training"] for path in pair.values()}
    present = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and ".part." not in path.name}
    return present <= wanted
