"""The study file: axes, a base, what is recorded; read as data, and written down complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rarevox.pipeline.errors import RequestError, nearest
from rarevox.pipeline.plain_data import read_yaml
from rarevox.pipeline.study.overlays import NAMES, NUMBERS, Overlay, configuration_keys, file_of, plain, read_overlay

KEYS = ("name", "base", "axes", "record", "threads", "structures", "layout")
SHORT = (*NAMES, *NUMBERS, "config")
"""Axes of these names list values: ``loss: [gdl, ss]``; so do axes that are called as a configuration key."""
LONGEST = 100
"""Characters of a label."""


@dataclass(frozen=True)
class StudyFile:
    """A study as its file says, complete.

    Attributes:
        name: of the study.
        base: what all cells have in common.
        axes: axis to label to what the label lays over the base, in the order of the file.
        last: iterations over which the Dice of training batches is summarised.
        test: whether cells are evaluated on the held-out cases.
        threads: of a cell.
        structures: that the datasets must have, and whose Dice count; none are all.
        layout: hints for the report.
    """

    name: str
    base: Overlay
    axes: Mapping[str, Mapping[str, Overlay]]
    last: int = 200
    test: bool = True
    threads: int = 1
    structures: tuple[str, ...] = ()
    layout: Mapping[str, Any] | None = None

    def content(self) -> dict[str, Any]:
        """The file, complete: reading it gives this again."""
        record = {"last": self.last, "test": self.test}
        found = {"name": self.name, "base": self.base, "axes": self.axes, "record": record, "threads": self.threads}
        found |= {"structures": list(self.structures)} if self.structures else {}
        return plain(found | ({"layout": self.layout} if self.layout else {}))  # type: ignore[no-any-return]

    def text(self) -> str:
        """The content as YAML."""
        return yaml.safe_dump(self.content(), sort_keys=False, default_flow_style=None, width=120, allow_unicode=False)

    def digest(self) -> str:
        """SHA-256 of what the file says; comments, order within an entry and hints of layout do not count."""
        said = {key: value for key, value in self.content().items() if key != "layout"}
        said["axes"] = [[axis, list(labels.items())] for axis, labels in said["axes"].items()]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def read_study(path: str | Path) -> StudyFile:
    """A study file (YAML), or the name of one in ``configs/studies``.

    Raises:
        RequestError: missing, not YAML, an unknown key or axis (the nearest is named), no axes, a label twice.
    """
    from rarevox.pipeline.compose import CONFIGS

    file = Path(path)
    if not file.suffix and not file.is_file():
        names = [one.stem for one in (CONFIGS / "studies").glob("*.yaml")]
        if str(path) not in names:
            raise RequestError(
                f"no study is called {str(path)!r} and there is no such file: {nearest(str(path), names)}"
            )
        file = CONFIGS / "studies" / f"{path}.yaml"
    content = read_yaml(file)
    for key in content:
        if key not in KEYS:
            raise RequestError(f"{file}: no key {key!r} of a study: {nearest(str(key), KEYS)}")
    axes = content.get("axes")
    if not isinstance(axes, Mapping) or not axes:
        raise RequestError(f"{file}: axes is {axes!r}; expected at least one axis, such as loss: [gdl, dl2]")
    base = read_overlay(content.get("base") or {}, f"{file}: base")
    record = _mapping(content.get("record"), f"{file}: record")
    for key in record:
        if key not in ("last", "test"):
            raise RequestError(f"{file}: record: no key {key!r}: {nearest(str(key), ('last', 'test'))}")
    study = StudyFile(
        name=str(content.get("name") or file.stem),
        base=base,
        axes={str(axis): _axis(str(axis), values, f"{file}: axis {axis}") for axis, values in axes.items()},
        last=_whole(record.get("last", 200), f"{file}: record: last"),
        test=_flag(record.get("test", True), f"{file}: record: test"),
        threads=_whole(content.get("threads", 1), f"{file}: threads"),
        structures=_names(content.get("structures"), f"{file}: structures"),
        layout=_mapping(content.get("layout"), f"{file}: layout") or None,
    )
    return _with_files(study, file.parent)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise RequestError(f"{where} is {value!r}; expected a mapping")
    return dict(value or {})


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RequestError(f"{where} is {value!r}; expected a whole number from 1")
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"{where} is {value!r}; expected true or false")
    return value


def _names(value: Any, where: str) -> tuple[str, ...]:
    if value is not None and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        raise RequestError(f"{where} is {value!r}; expected a list of names")
    return tuple(value or ())


def _axis(axis: str, values: Any, where: str) -> dict[str, Overlay]:
    """Label to overlay, from any of the forms."""
    if isinstance(values, Mapping) and set(values) == {"key", "values"}:
        if not isinstance(values["key"], str) or not isinstance(values["values"], list):
            raise RequestError(f"{where}: expected {{key: optimizer#lr, values: [1e-4, 1e-3]}}")
        return _of_values(values["key"], values["values"], where)
    if isinstance(values, list):
        return _of_values(_key_of(axis, where), values, where)
    if isinstance(values, Mapping) and values:
        named = {_label(label, where): value for label, value in values.items()}
        if len(named) < len(values):
            raise RequestError(f"{where}: two labels read alike; name each differently")
        return {
            label: read_overlay(
                value if isinstance(value, Mapping) else {_key_of(axis, where): value}, f"{where} {label}"
            )
            for label, value in named.items()
        }
    raise RequestError(f"{where} is {values!r}; expected labels with what they mean, or a list of values")


def _key_of(axis: str, where: str) -> str:
    """What the bare values of an axis set: the axis's own name, where that is an overlay's or a configuration's key."""
    known = configuration_keys()
    if axis in SHORT or axis.partition("#")[0] in known:
        return axis
    raise RequestError(
        f"{where}: bare values need an axis that is called as what they set, or {{key: KEY, values: […]}}: "
        f"{nearest(axis, {*SHORT, *known})}"
    )


def _of_values(key: str, values: list[Any], where: str) -> dict[str, Overlay]:
    """A label for each value of a key."""
    found: dict[str, Overlay] = {}
    for value in values:
        label = _label(value, where)
        if label in found:
            raise RequestError(f"{where}: {label} stands there twice; a label must differ from the others")
        found[label] = read_overlay({key: value}, f"{where} {label}")
    if not found:
        raise RequestError(f"{where} has no values")
    return found


def _label(value: Any, where: str) -> str:
    """What a value is called.

    >>> [_label(value, "lr") for value in (1e-05, 0.5, True, None, [16, 16, 1])]
    ['1e-5', '0.5', 'true', 'null', '[16, 16, 1]']
    """
    if isinstance(value, float):
        mantissa, e, exponent = f"{value:.12g}".partition("e")
        label = f"{mantissa}{e}{int(exponent)}" if e else mantissa
    else:
        label = value if isinstance(value, str) else json.dumps(value)
    if not label or len(label) > LONGEST:
        raise RequestError(f"{where}: a label of {len(label)} characters; give the value a name of 1 to {LONGEST}")
    return label


def _with_files(study: StudyFile, folder: Path) -> StudyFile:
    """The study with its configuration files named from the root, since the study is kept elsewhere."""

    def placed(overlay: Overlay) -> Overlay:
        found = dict(overlay)
        if "config" in found:
            found["config"] = [file_of(name, folder) for name in found["config"]]
        if "by" in found:
            found["by"] = {
                axis: {label: placed(one) for label, one in labels.items()} for axis, labels in found["by"].items()
            }
        return found

    axes = {axis: {label: placed(one) for label, one in labels.items()} for axis, labels in study.axes.items()}
    return StudyFile(**{**vars(study), "base": placed(study.base), "axes": axes})
