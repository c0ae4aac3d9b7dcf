"""What is measured and under which conventions; every result file states them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any

from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.evaluation.metrics import centreline, panoptic
from rarevox.pipeline.evaluation.metrics.centreline import is_there
from rarevox.pipeline.evaluation.metrics.lesions import CONNECTIVITIES, SIZES
from rarevox.pipeline.evaluation.metrics.surface import SURFACES
from rarevox.pipeline.extras import install
from rarevox.pipeline.plain_data import parse_yaml

EMPTY_RULES = ("one", "nan", "zero")
Structures = Mapping[str, "int | Sequence[int]"]
"""Names of structures and their label value, or the values whose union they are; a value of 0 is the background."""


@dataclass(frozen=True, kw_only=True)
class MetricOptions:
    """The metrics and their conventions.

    Attributes:
        empty: what an overlap ratio is when a mask is empty. ``one``: 1 if both are, 0 if one is. ``nan``: left out
            whenever the reference is empty, and counted. ``zero``: 0 in both cases.
        tolerances_mm: the tolerances of the surface Dice; each gives a column ``surface_dice_<t>mm``.
        distances: measure surface distances and surface Dice.
        lesions: measure lesion-wise detection and Dice.
        panoptic: measure panoptic quality, see :mod:`rarevox.pipeline.evaluation.metrics.panoptic`.
        panoptic_iou: the IoU above which two components are a pair there.
        centreline: measure centreline Dice, see :mod:`rarevox.pipeline.evaluation.metrics.centreline`; it needs
            scikit-image.
        surface: ``voxels`` or ``area``, see :mod:`rarevox.pipeline.evaluation.metrics.surface`.
        distance_penalty_mm: what distances are when exactly one mask is empty (0 when both are); None leaves them out.
        connectivity: 6, 18 or 26 neighbours join the voxels of a lesion.
        lesion_dilation, lesion_min_ml, lesion_penalty_mm, lesion_sizes_ml: see
            :func:`rarevox.pipeline.evaluation.metrics.lesions.lesion_scores`.
        composites_in_mean: count a union whose every value is a structure by itself (whole = 1 + 2 beside 1 and 2) in
            ``mean_dice`` too; by default its voxels count once, in those structures.
        include_background: give the background, where it is among the structures, a row and a share in the mean.
        ignored_value: the label of reference voxels that nobody annotated (nnU-Net's ``ignore``): neither map has any
            structure there. None for none.
        resamples: bootstrap resamples of the 95 % confidence intervals.
        seed: their seed.

    Raises:
        ValueError: a value outside these, or of another kind.
    """

    empty: str = "one"
    tolerances_mm: tuple[float, ...] = (1.0,)
    distances: bool = True
    lesions: bool = True
    panoptic: bool = False
    panoptic_iou: float = 0.5
    centreline: bool = False
    surface: str = "voxels"
    distance_penalty_mm: float | None = None
    connectivity: int = 26
    lesion_dilation: int = 0
    lesion_min_ml: float = 0.0
    lesion_penalty_mm: float | None = None
    lesion_sizes_ml: tuple[float, float] = (0.1, 1.0)
    composites_in_mean: bool = False
    include_background: bool = False
    ignored_value: int | None = None
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        _check_kinds(self)
        for name, valid in (("empty", EMPTY_RULES), ("surface", SURFACES), ("connectivity", tuple(CONNECTIVITIES))):
            if getattr(self, name) not in valid:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(map(str, valid))}")
        if any(not tolerance >= 0 for tolerance in self.tolerances_mm):
            raise ValueError(f"tolerances_mm are {self.tolerances_mm}; expected distances of 0 mm or more")
        for name in ("distance_penalty_mm", "lesion_penalty_mm"):
            penalty = getattr(self, name)
            if penalty is not None and not 0 <= penalty < math.inf:
                raise ValueError(f"{name} is {penalty}; expected a distance of 0 mm or more, or null")
        if self.resamples < 2:
            raise ValueError(f"resamples is {self.resamples}; expected at least 2 (2000 are usual)")
        if self.lesion_dilation < 0 or self.lesion_min_ml < 0:
            raise ValueError("lesion_dilation and lesion_min_ml must not be negative; 0 switches them off")
        if not 0 <= self.panoptic_iou < 1:
            raise ValueError(f"panoptic_iou is {self.panoptic_iou}; expected an IoU from 0 to below 1 (0.5 is usual)")
        if self.centreline and not is_there():
            raise ValueError(f"centreline needs scikit-image, which is not installed; {install('centreline')}")
        if len(self.lesion_sizes_ml) != 2 or not 0 < self.lesion_sizes_ml[0] < self.lesion_sizes_ml[1]:
            raise ValueError(f"lesion_sizes_ml are {self.lesion_sizes_ml}; expected two volumes, the smaller first")

    def conventions(self) -> dict[str, Any]:
        """The options, and in words what they mean; goes into every result file."""
        return {
            **asdict(self),
            "tolerances_mm": list(self.tolerances_mm),
            "lesion_sizes_ml": list(self.lesion_sizes_ml),
            **_WORDS,
            "empty_rule": _EMPTY[self.empty],
        }


def _check_kinds(options: MetricOptions) -> None:
    """Refuse switches that are no booleans, counts that are no whole numbers and measures that are no numbers."""
    for names, kind, expected in _KINDS:
        for name in names:
            value = getattr(options, name)
            values = value if isinstance(value, (tuple, list)) and name in _SEVERAL else (value,)
            if value is None and name in (*_OPTIONAL, "ignored_value"):
                continue
            if any(not isinstance(one, kind) or (isinstance(one, bool) and kind is not bool) for one in values):
                raise ValueError(f"{name} is {value!r}; expected {expected}")
    for name in _SEVERAL:
        if not isinstance(getattr(options, name), (tuple, list)):
            raise ValueError(f"{name} is {getattr(options, name)!r}; expected a list of numbers, such as [0.5, 1]")
    if options.seed < 0:
        raise ValueError(f"seed is {options.seed}; expected a whole number of 0 or more")


_SEVERAL = ("tolerances_mm", "lesion_sizes_ml")
_OPTIONAL = ("distance_penalty_mm", "lesion_penalty_mm")
_KINDS: tuple[tuple[tuple[str, ...], type, str], ...] = (
    (("distances", "lesions", "panoptic", "centreline"), bool, "true or false"),
    (("composites_in_mean", "include_background"), bool, "true or false"),
    (("connectivity", "lesion_dilation", "ignored_value", "resamples", "seed"), Integral, "a whole number"),
    ((*_SEVERAL, *_OPTIONAL, "lesion_min_ml", "panoptic_iou"), Real, "numbers"),
)
_EMPTY = {
    "one": "overlap ratios are 1 where reference and prediction are both empty, 0 where one of them is",
    "nan": "overlap ratios are left out, and counted, where the reference is empty; 0 where only the prediction is",
    "zero": "overlap ratios are 0 where reference or prediction is empty, also where both are",
}
_WORDS = {
    "overlap": "hard labels on the grid of the reference; per case, then averaged over cases",
    "failed_cases": "overlap ratios of missing or failed predictions count as 0 in every mean; the cases are listed",
    "distances_where_empty": "left out and counted (n says how many remain) unless distance_penalty_mm is given",
    "background_in_mean": "never, unless include_background",
    "mean_dice": "mean over the structures in mean_over of the mean over cases",
    "intervals": "95 %, percentile bootstrap over subjects, each with all its cases (without a named one, a case)",
    "hd95": "larger of the two directed 95th percentiles",
    "std": "sample standard deviation (n - 1)",
}


def read_options(settings: Mapping[str, str], **given: object) -> MetricOptions:
    """The options from texts by their name, over those ``given`` as values.

    Raises:
        RequestError: no such option, or a value that it does not take.

    >>> read_options({"lesion_dilation": "3", "lesion_sizes_ml": "[0.05, 0.5]"}, empty="nan").lesion_sizes_ml
    (0.05, 0.5)
    """
    known = [field.name for field in fields(MetricOptions)]
    for name in settings:
        if name not in known:
            raise RequestError(f"--set {name}: there is no such convention; known are {', '.join(known)}")
    try:
        values = {name: parse_yaml(text) for name, text in settings.items()}
    except ValueError as error:
        raise RequestError(f"--set {_typed(settings)}: {' '.join(str(error).split())}") from error
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return MetricOptions(**{**given, **values})
    except (TypeError, ValueError) as error:
        raise RequestError(f"--set {_typed(settings)}: {error}" if settings else str(error)) from error


def _typed(settings: Mapping[str, str]) -> str:
    return " ".join(f"{name}={text}" for name, text in settings.items())


def foreground(structures: Structures, options: MetricOptions) -> dict[str, tuple[int, ...]]:
    """The structures that get a row, each with its values; the background only if the options ask for it.

    Raises:
        RequestError: ``ignored_value`` is the value of a structure or of the background.

    >>> foreground({"background": 0, "core": 1, "whole": (1, 2)}, MetricOptions())
    {'core': (1,), 'whole': (1, 2)}
    """
    values = {
        n: tuple(int(v) for v in (value if isinstance(value, Sequence) else (value,)))
        for n, value in structures.items()
    }
    for name, held in ({"background": (0,)} | values).items():
        if options.ignored_value in held:
            raise RequestError(
                f"ignored_value is {options.ignored_value}, which is {name}; expected a value of its own"
            )
    return {name: value for name, value in values.items() if options.include_background or value != (0,)}


def mean_structures(structures: Structures, options: MetricOptions) -> list[str]:
    """The structures that ``mean_dice`` is over: all but the unions whose every value is a structure by itself.

    >>> mean_structures({"core": 1, "oedema": 2, "whole": (1, 2)}, MetricOptions())
    ['core', 'oedema']
    >>> mean_structures({"enhancing": 3, "core": (2, 3), "whole": (1, 2, 3)}, MetricOptions())  # nested regions
    ['enhancing', 'core', 'whole']
    """
    given = foreground(structures, options)
    single = {values[0] for values in given.values() if len(values) == 1}
    return [n for n, vs in given.items() if options.composites_in_mean or len(vs) == 1 or not set(vs) <= single]


def overlap_columns(options: MetricOptions) -> list[str]:
    """The columns that are ratios between 0 and 1, to which the empty rule applies."""
    columns = ["dice", "iou", "precision", "recall"]
    if options.distances:
        columns += surface_dice_columns(options)
    if options.lesions:
        columns += ["lesion_precision", "lesion_recall", "lesion_f1", "lesion_dice"]
    columns += panoptic.COLUMNS if options.panoptic else ()
    return columns + ([centreline.COLUMN] if options.centreline else [])


def quality_columns(options: MetricOptions) -> list[str]:
    """The columns that are means over pairs of components, not defined where there is none, whatever the empty rule."""
    return [panoptic.QUALITY] if options.panoptic else []


def distance_columns(options: MetricOptions) -> list[str]:
    """The columns in millimetres."""
    columns = ["hd95_mm", "hd_mm", "assd_mm"] if options.distances else []
    return columns + (["lesion_hd95_mm"] if options.lesions and options.lesion_penalty_mm is not None else [])


def surface_dice_columns(options: MetricOptions) -> list[str]:
    """One column for each tolerance: ``surface_dice_1mm``, ``surface_dice_0.5mm``."""
    return [f"surface_dice_{tolerance:g}mm" for tolerance in options.tolerances_mm]


VOLUMES = ("volume_ml", "reference_ml", "volume_error_ml", "false_positive_ml")
COUNTS = ("tp", "fp", "fn")
_LESIONS = ("reference", "predicted", "detected", "true")
LESION_SIZES = tuple(f"lesions_{kind}_{size}" for kind in _LESIONS for size in SIZES)
LESION_SIZE_DICE = tuple(f"lesion_dice_{size}" for size in SIZES)
LESION_COUNTS = tuple(f"lesions_{kind}" for kind in _LESIONS)
