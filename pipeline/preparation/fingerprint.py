"""What the data is like: sizes, spacing, intensities, and how rare each structure is; and a hash that names it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from rarevox.pipeline.preparation.checks.case import Loaded, ignored_voxels
from rarevox.pipeline.preparation.checks.signature import signature
from rarevox.transforms import common_tissue

SURROUND = 0.25
"""From this share of voxels that are 0 on, zeros surround the tissue."""
INSIDE = 0.999
"""Of every case's foreground so much lies in the tissue that all channels share, else nothing is cut to it."""
_SAMPLES = 2000  # foreground voxels a case lends to the cohort's percentiles: enough for 0.5 %, and equal shares
_PERCENTILES = {"p00_5": 0.5, "p05": 5.0, "p50": 50.0, "p95": 95.0, "p99_5": 99.5}


@dataclass(frozen=True)
class CaseFacts:
    """The figures of one case.

    Attributes:
        case: its name.
        size: voxels per axis.
        spacing_mm: voxel edges.
        orientation: where the axes run to, such as ``RAS``.
        channels: per channel the mean, standard deviation, extremes and percentiles over the image (``image``) and
            over the foreground (``foreground``, absent without any).
        structures: per label value present its ``voxels``, ``volume_ml`` and connected ``components`` (26 neighbours).
        right_mm: per label value present, how far to the right of the image's middle its centre lies.
        sha256: hash of voxel values, labels, size and affine (rounded to 1e-3); storage types do not matter.
        image_sha256: hash of the image's voxel values alone, to find copies.
        samples: per channel up to 2000 foreground intensities, evenly picked.
        signature: of the first channel, see :mod:`rarevox.pipeline.preparation.checks.signature`.
        ignored_voxels: voxels that nobody annotated.
        common: of several channels, the share of the tissue of some channel (voxels that are not 0) that lies in that
            of every one (``tissue``), and the share of the foreground that does (``foreground``, absent without any);
            see :func:`rarevox.transforms.common_tissue`.
    """

    case: str
    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    orientation: str
    channels: tuple[dict[str, dict[str, float]], ...]
    structures: dict[int, dict[str, float]]
    right_mm: dict[int, float]
    sha256: str
    image_sha256: str
    samples: tuple[np.ndarray, ...]
    signature: np.ndarray
    ignored_voxels: int = 0
    common: dict[str, float] = field(default_factory=dict)

    @property
    def annotated_voxels(self) -> int:
        """All voxels but those that nobody annotated."""
        return int(np.prod(self.size)) - self.ignored_voxels

    @property
    def foreground_voxels(self) -> int:
        """Voxels of all structures together."""
        return int(sum(structure["voxels"] for structure in self.structures.values()))


def measure(loaded: Loaded) -> CaseFacts:
    """The figures of a case that passed its checks."""
    image, labels, foreground = loaded.image, loaded.label.array[0].astype(np.int32), loaded.foreground
    inside = [channel[foreground] for channel in image.array]
    step = max(1, -(-inside[0].size // _SAMPLES))
    image_hash, full_hash = _hashes(image.array, labels, image.affine)
    named = labels if loaded.ignored is None else np.where(foreground, labels, 0)
    wholes = [intensities(channel) | {"zero_share": float(np.mean(channel == 0))} for channel in image.array]
    return CaseFacts(
        case=loaded.case.case,
        size=tuple(image.shape),
        spacing_mm=tuple(image.spacing_mm),
        orientation="".join(nib.aff2axcodes(image.affine)),
        channels=tuple(
            {"image": whole, **({"foreground": intensities(part)} if part.size else {})}
            for whole, part in zip(wholes, inside, strict=True)
        ),
        structures=structures(named, image.voxel_ml),
        right_mm=right_of_middle_mm(named, image.affine),
        sha256=full_hash,
        image_sha256=image_hash,
        samples=tuple(part[::step].copy() for part in inside),
        signature=signature(image.array[0], image.affine, wholes[0]["p00_5"], wholes[0]["p99_5"]),
        ignored_voxels=ignored_voxels(loaded),
        common=in_common(image.array, foreground) if len(image.array) > 1 else {},
    )


def in_common(channels: np.ndarray, foreground: np.ndarray) -> dict[str, float]:
    """How much of the tissue, and of the foreground, lies where all channels have tissue.

    >>> in_common(np.array([[0, 0, 3, 3], [0, 2, 2, 2]]), np.array([False, False, False, True]))
    {'tissue': 0.6666666666666666, 'foreground': 1.0}
    """
    shared, some = common_tissue(channels)[0].numpy(), (channels != 0).any(axis=0)
    found = {"tissue": float(shared[some].mean()) if some.any() else 1.0}
    return found | ({"foreground": float(shared[foreground].mean())} if foreground.any() else {})


def intensities(values: np.ndarray) -> dict[str, float]:
    """Mean, standard deviation, extremes and percentiles of some voxels.

    >>> found = intensities(np.array([0.0, 1.0, 2.0, 3.0, 4.0]))
    >>> found["mean"], found["p50"], found["max"]
    (2.0, 2.0, 4.0)
    """
    flat = np.asarray(values).reshape(-1)
    percentiles = np.percentile(flat, list(_PERCENTILES.values()))
    return {
        "mean": float(flat.mean(dtype=np.float64)),
        "std": float(flat.std(dtype=np.float64)),
        "min": float(flat.min()),
        "max": float(flat.max()),
        **{name: float(value) for name, value in zip(_PERCENTILES, percentiles, strict=True)},
    }


def structures(labels: np.ndarray, voxel_ml: float) -> dict[int, dict[str, float]]:
    """Voxels, volume and 26-connected components of every label value but 0, by value.

    Args:
        labels: (X, Y, Z) whole numbers, none negative.
        voxel_ml: the volume of a voxel in millilitres.

    >>> structures(np.array([[[1, 0, 1, 3, 3]]]), 0.5)
    {1: {'voxels': 2, 'volume_ml': 1.0, 'components': 2}, 3: {'voxels': 2, 'volume_ml': 1.0, 'components': 1}}
    """
    found: dict[int, dict[str, float]] = {}
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            part = labels[box] == value  # only the bounding box is searched: rare structures cost next to nothing
            voxels = int(part.sum())
            components = int(ndimage.label(part, np.ones((3, 3, 3)))[1])
            found[value] = {"voxels": voxels, "volume_ml": voxels * voxel_ml, "components": components}
    return found


def right_of_middle_mm(labels: np.ndarray, affine: np.ndarray) -> dict[int, float]:
    """How far to the right of the volume's middle the centre of every label value but 0 lies, by value.

    Args:
        labels: (X, Y, Z) whole numbers, none negative.
        affine: voxel indices to mm, right, anterior, superior.

    >>> right_of_middle_mm(np.array([[[2]], [[0]], [[1]]]), np.diag([-1.5, 1.0, 1.0, 1.0]))  # the first axis runs left
    {1: -1.5, 2: 1.5}
    """
    found = {}
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            inside = np.argwhere(labels[box] == value).mean(0) + [part.start for part in box]
            found[value] = float(np.asarray(affine)[0, :3] @ (inside - (np.array(labels.shape) - 1) / 2))
    return found


def _hashes(image: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> tuple[str, str]:
    voxels = hashlib.sha256(str(image.shape).encode())
    voxels.update(np.ascontiguousarray(image, np.float32))
    everything = voxels.copy()
    everything.update(np.ascontiguousarray(labels, np.int32))
    everything.update((np.round(np.asarray(affine), 3) + 0.0).tobytes())  # + 0.0 turns −0 into 0
    return voxels.hexdigest(), everything.hexdigest()


def data_sha256(
    facts: Iterable[CaseFacts], channels: Sequence[str], labels: dict[str, int], ignored: int | None = None
) -> str:
    """One hash for the whole dataset: names and content of its cases (in any order), channels and labels."""
    digest = hashlib.sha256(repr((list(channels), sorted(labels.items()))).encode())
    digest.update(b"" if ignored is None else f"ignored {ignored}\n".encode())
    for fact in sorted(facts, key=lambda fact: fact.case):
        digest.update(f"{fact.case}\0{fact.sha256}\n".encode())
    return digest.hexdigest()


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, smallest and largest; empty for no values.

    >>> spread([3, 1, 2])
    {'median': 2.0, 'min': 1.0, 'max': 3.0}
    """
    array = np.asarray(list(values), np.float64)
    if not array.size:
        return {}
    return {"median": float(np.median(array)), "min": float(array.min()), "max": float(array.max())}


def summarise(
    facts: Sequence[CaseFacts], channels: Sequence[str], labels: dict[str, int], ignored: int | None = None
) -> dict[str, Any]:
    """The content of ``fingerprint.json`` (described in ``docs/prepare.md``) from the cases' figures."""
    return {
        "sha256": data_sha256(facts, channels, labels, ignored),
        "cases": len(facts),
        "size": [spread(fact.size[axis] for fact in facts) for axis in range(3)],
        "spacing_mm": [spread(fact.spacing_mm[axis] for fact in facts) for axis in range(3)],
        "orientations": dict(Counter(fact.orientation for fact in facts).most_common()),
        "channels": {name: _channel(facts, number) for number, name in enumerate(channels)},
        "structures": {name: _structure(facts, value) for name, value in labels.items() if value != 0},
        "foreground_share": spread(fact.foreground_voxels / fact.annotated_voxels for fact in facts),
        "foreground_share_held": spread(
            fact.foreground_voxels / fact.annotated_voxels for fact in facts if fact.structures
        ),
        "ignored_share": spread(fact.ignored_voxels / np.prod(fact.size) for fact in facts if fact.ignored_voxels),
        "common_tissue": {
            key: spread(fact.common[key] for fact in facts if key in fact.common) for key in ("tissue", "foreground")
        },
        "cases_without_foreground": [fact.case for fact in facts if not fact.structures],
        "per_case": [_row(fact) for fact in facts],
    }


def _row(fact: CaseFacts) -> dict[str, Any]:
    return {key: value for key, value in asdict(fact).items() if key not in ("samples", "image_sha256", "signature")}


def _channel(facts: Sequence[CaseFacts], number: int) -> dict[str, Any]:
    """Cohort figures of a channel: medians over cases, and the pooled foreground with equal weight for each case."""
    images = [fact.channels[number]["image"] for fact in facts]
    image = {
        key: float(np.median([row[key] for row in images])) for key in ("mean", "std", "zero_share", *_PERCENTILES)
    }
    pooled = np.concatenate([fact.samples[number] for fact in facts])
    return {
        "image_median_over_cases": image,
        "image_min": min(row["min"] for row in images),
        "image_max": max(row["max"] for row in images),
        "foreground_pooled": intensities(pooled) if pooled.size else {},
    }


def _structure(facts: Sequence[CaseFacts], value: int) -> dict[str, Any]:
    """How large and how rare a structure is, over the cases that hold it."""
    present = [fact for fact in facts if value in fact.structures]
    share = spread(fact.structures[value]["voxels"] / fact.annotated_voxels for fact in present)
    return {
        "value": value,
        "cases": len(present),
        "voxels": spread(fact.structures[value]["voxels"] for fact in present),
        "volume_ml": spread(fact.structures[value]["volume_ml"] for fact in present),
        "share": share,
        "imbalance": 1.0 / share["median"] if share else None,
        "components": spread(fact.structures[value]["components"] for fact in present),
    }
