"""Values of a training configuration that are of a wrong kind, looked at before anything is computed with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rarevox.pipeline.compose import CONFIGS, packaged_once
from rarevox.pipeline.data.dataset import ALL_FOLDS
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.hints import check_hints
from rarevox.pipeline.names import shown


class Kind(NamedTuple):
    """What a key's value may be: a test of it, and the words for it.

    ``written`` is True where the value is needed before the configuration is resolved, so that a reference (``@``) or
    an expression (``$``) will not do.
    """

    fits: Callable[[Any], bool]
    words: str
    written: bool = False


def check_values(config: Mapping[str, Any]) -> None:
    """Refuse values of a wrong kind; what is referred to or computed (``@``, ``$``) is mostly left.

    Entries that the packaged configuration builds (``_target_``) must be built or referred to here too; keys of one's
    own may hold anything. Arguments of what is built are held against its annotations.

    Args:
        config: a training configuration.

    Raises:
        RequestError: names the key, its value and what was expected.

    >>> check_values({"batch_size": 2, "patch_size": [32, 32, 32], "spacing": None})
    """
    kinds = _built() | KINDS
    for key, value in config.items():
        kind = kinds.get(key)
        if kind is None or (_computed(value) and not kind.written):
            continue
        if _computed(value):
            raise RequestError(f"{key} is {value!r}; expected {kind.words}, written out")
        if not kind.fits(value):
            raise RequestError(f"{key} is {value!r}; expected {kind.words}")
    check_hints(config)
    _check_built(_templates(), config, "")


def _templates() -> dict[str, Any]:
    """What a training is composed of; only read."""
    return packaged_once(CONFIGS / "common.yaml") | packaged_once(CONFIGS / "train.yaml")


def _check_built(packaged_value: Any, value: Any, place: str) -> None:
    """Refuse a plain value within a mapping or a list where the packaged files build one or refer to one that is built.

    Arguments of what is built are held against its annotations instead.
    """
    if isinstance(packaged_value, dict) and isinstance(value, dict):
        pairs = [(key, packaged_value[key], one) for key, one in value.items() if key in packaged_value]
        arguments = "_target_" in packaged_value
    elif isinstance(packaged_value, list) and isinstance(value, list):
        pairs = [(number, *two) for number, two in enumerate(zip(packaged_value, value, strict=False))]
        arguments = False
    else:
        return
    for key, there, one in pairs:
        at = f"{place}#{key}" if place else str(key)
        if place and not arguments and _becomes_built(there) and not (one is None or _computed(one) or _is_built(one)):
            raise RequestError(f"{at} is {shown(one)}; expected {BUILT.words}")
        _check_built(there, one, at)


def _becomes_built(value: object) -> bool:
    """Whether an entry of the packaged files is built, or refers to one that is."""
    for _ in range(9):
        if not (isinstance(value, str) and value.startswith("@")):
            return _is_built(value)
        found: Any = _templates()
        for step in value[1:].split("#"):
            found = found.get(step) if isinstance(found, dict) else None
        value = found
    return False


def _built() -> dict[str, Kind]:
    """The keys of the packaged configuration whose values are built, or hold what is built."""
    found = {}
    for key, default in _templates().items():
        if isinstance(default, dict) and "_target_" in default:
            found[key] = BUILT
        elif isinstance(default, dict):
            found[key] = SECTION
        elif isinstance(default, list):
            found[key] = Kind(lambda value: isinstance(value, list), "a list")
    return found


def _computed(value: object) -> bool:
    return isinstance(value, str) and value[:1] in ("@", "$", "%")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _three(value: object, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(fits, value))


def _names(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(name, str) and name for name in value)


def _or_null(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _is_built(value: object) -> bool:
    return isinstance(value, dict) and "_target_" in value


def _whole_from(least: int, *, written: bool = False) -> Kind:
    return Kind(lambda value: _whole(value, least), f"a whole number from {least}", written)


BUILT = Kind(_is_built, "an entry with _target_, or @ with the name of one")
SHARE = Kind(lambda value: _number(value) and 0 <= value <= 1, "a share from 0 to 1")
SECTION = Kind(lambda value: isinstance(value, dict), "a mapping")
FLAG = Kind(lambda value: isinstance(value, bool), "true or false")

KINDS = {
    "batch_size": _whole_from(1),
    "workers": Kind(lambda value: value == "auto" or _whole(value), "auto, or a whole number from 0"),
    "fold": Kind(lambda value: value == ALL_FOLDS or _whole(value, 0), "a whole number from 0, or all", True),
    "seed": _whole_from(0),
    "epoch_length": _whole_from(1),
    "validations": _whole_from(1),
    "validation_cases": Kind(_or_null(_whole), "a whole number (0: no validation), or null for all"),
    "iterations": Kind(_or_null(_number), "a positive number of steps"),
    "minutes": Kind(_or_null(_number), "a positive number of minutes, or null for --iterations", True),
    "patience": Kind(_or_null(lambda value: _whole(value, 1)), "a number of validations from 1, or null"),
    "ema_decay": Kind(
        _or_null(lambda value: _number(value) and 0 <= value < 1), "0 to below 1, or null for no average"
    ),
    "augmentation_strength": Kind(lambda value: value in ("light", "strong"), "light or strong"),
    "intensity_change": Kind(lambda value: _number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "rotations": Kind(lambda value: _three(value, lambda a: _number(a) and a >= 0), "three angles in radians, from 0"),
    "cache_rate": SHARE,
    "cache_days": Kind(_or_null(lambda v: _number(v) and v >= 0), "a number of days, or null to keep all"),
    "cache_gb": Kind(_or_null(lambda v: _number(v) and v > 0), "a size in GB, or null for no limit"),
    "cache_dir": Kind(_text, "a folder"),
    "ignored_value": Kind(_or_null(lambda v: _whole(v, 1)), "a label value from 1, or null for none"),
    "ignore_index": Kind(_or_null(_whole), "a class, or null for none"),
    "temperature": Kind(lambda v: _number(v) and v > 0, "a positive number"),
    "mlflow": Kind(_or_null(_text), "local, a folder, a URI, or null for none"),
    "initial_weights": Kind(_or_null(_text), "a file of weights, or null"),
    "n4": FLAG,
    "deterministic": FLAG,
    "rarevox_installed": FLAG,
    "cuda_graphs": FLAG,
    "scan_statistics": SHARE,
    "norm_statistics": Kind(_or_null(_is_built), f"{BUILT.words}, or null for none"),
    "background_share": SHARE,
    "hard_share": SHARE,
    "hard_scans": _whole_from(0),
    "planting_share": SHARE,
    "channel_dropout": SHARE,
    "lesion_maps": Kind(_or_null(_text), "a folder of lesion maps, or null"),
    "optional_channels": Kind(lambda value: isinstance(value, list), "a list of channels"),
    "required_channels": Kind(lambda value: isinstance(value, list), "a list of channels"),
    "spacing_seen_mm": Kind(
        _or_null(lambda value: isinstance(value, list)), "the shortest and longest voxel edges, or null"
    ),
    "fill_surround": FLAG,
    "channel_files": Kind(
        _or_null(lambda value: isinstance(value, list)), "a pattern or a number for each channel's files, or null"
    ),
    "crop_to_content": FLAG,
    "batch_augmentation": Kind(_or_null(_is_built), f"{BUILT.words}, or null for none"),
    "post_processing": Kind(lambda value: True, "rules by structure"),  # whoever reads them says what is wrong
    "gates": Kind(lambda value: True, "limits by structure"),
    "patch_size": Kind(
        lambda value: isinstance(value, list) and all(_whole(n, 1) for n in value),
        "a list of voxels along each axis, such as [40, 40, 40]",
        True,
    ),
    "learn": Kind(
        lambda value: value in ("labels", "regions") or (isinstance(value, list) and _names(value)),
        "labels, regions, or the names of all regions, such as [whole, core, enhancing]",
        True,
    ),
    "loss_margin": Kind(
        lambda value: _whole(value) or _three(value, _whole), "a whole number from 0, or a list of three", True
    ),
    "spacing": Kind(
        _or_null(lambda value: _three(value, lambda mm: _number(mm) and mm > 0)),
        "millimetres along three axes, such as [1, 1, 1], or null for each scan's own",
        True,
    ),
    "slice_axis": Kind(_or_null(_text), "auto, sagittal, coronal, axial or null (no slices)", True),
    "mirror_axes": Kind(
        lambda value: isinstance(value, list) and all(_whole(axis) and axis <= 2 for axis in value),
        "a list of axes: 0 right-left, 1 anterior-posterior, 2 superior-inferior; [] for none",
        True,
    ),
}
