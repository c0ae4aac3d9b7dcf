"""Datasets that differ in their imbalance alone: the phantom's subjects with lesions on ever smaller shares."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import atomic, read_json, write_json
from rarevox.pipeline.phantom.cohort import LESION, write_cohort
from rarevox.pipeline.preparation.prepare import prepare

SHARES = (1e-2, 1e-3, 1e-4, 1e-5)
"""Lesion voxels over all voxels of a volume. At 1 : 100 000 and 2 mm a subject has some 8 lesion voxels."""


def write_phantom_series(
    folder: str | Path,
    *,
    shares: Sequence[float] = SHARES,
    subjects: int = 16,
    spacing_mm: float = 2.0,
    seed: int = 0,
    holdout: float = 0.25,
) -> Path:
    """Write and prepare a phantom cohort for each share, ``FOLDER/share_1e-2`` and so on: the data of ``imbalance``.

    Subject k has the same head and the same scanner in every cohort; only its lesions differ. The lesions are the one
    structure: the ventricles, which fill more than any of them, are background. What is there already stays.

    Args:
        folder: where to; the cohorts stand in ``FOLDER/cohorts``.
        shares: lesion voxels over all voxels, see :class:`rarevox.pipeline.phantom.cohort.PhantomSettings`.
        subjects: of each cohort.
        spacing_mm: edge of the voxels.
        seed: of the cohorts and of the split.
        holdout: share of the subjects held out.

    Returns:
        The folder, to be given to ``rarevox study imbalance``.

    Raises:
        RequestError: a value out of its range, nilearn missing, or a cohort that cannot be prepared.
    """
    folder = Path(folder)
    if not all(shares):
        raise RequestError(
            "a share of the phantom series is 0, and there would be nothing to learn; give shares above 0"
        )
    for share in shares:
        name = share_name(share)
        dataset = folder / name
        if (dataset / "dataset.json").is_file():
            continue
        whole = write_cohort(
            folder / "cohorts" / f"{name}_whole",
            subjects=subjects,
            spacing_mm=spacing_mm,
            lesion_share=share,
            seed=seed,
        )
        task = lesions_alone(whole, folder / "cohorts" / name)
        if prepare(task, dataset, holdout=holdout, folds=1, seed=seed):
            raise RequestError(f"the phantom cohort {task} could not be prepared; what is wrong with it stands above")
    return folder


def share_name(share: float) -> str:
    """The folder of a share.

    >>> share_name(1e-5), share_name(0.01), share_name(2.5e-3)
    ('share_1e-5', 'share_1e-2', 'share_2.5e-3')
    """
    mantissa, exponent = f"{share:e}".split("e")
    return f"share_{float(mantissa):g}e{int(exponent)}"


def lesions_alone(cohort: Path, folder: Path) -> Path:
    """Make a cohort's files into one whose label maps hold the lesions alone; the images are moved, not copied."""
    content = read_json(cohort / "dataset.json")
    for pair in content["training"]:
        for path in pair.values():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
        labels = nib.load(cohort / pair["label"])
        lesions = (np.asarray(labels.dataobj) == LESION).astype(np.uint8)
        with atomic(folder / pair["label"]) as temporary:
            nib.save(nib.Nifti1Image(lesions, labels.affine, labels.header), temporary)
        shutil.move(cohort / pair["image"], folder / pair["image"])
    write_json(folder / "dataset.json", content | {"labels": {"0": "background", "1": "lesion"}})
    shutil.rmtree(cohort)
    return folder
