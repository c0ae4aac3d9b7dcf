"""One configuration out of the base, the overlays, the dataset's facts and what the command line sets.

Order, later wins: ``common.yaml``, the stage's file, the dataset's facts and plan, ``configs/networks/NAME.yaml``,
``configs/losses/NAME.yaml``, the ``--config`` files, the options and ``--set`` values. An overlay's top-level key
replaces the whole entry; ``key#inner`` replaces what is inside.
"""

from __future__ import annotations

import inspect
import pydoc
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.errors import RequestError, nearest

# Beside this package; not through an import, which a run's own folder of that name would answer there.
CONFIGS = Path(__file__).resolve().parent.parent / "configs"
PLAN_FILE = "plan.yaml"
OPEN = ("gates", "post_processing")
"""Mappings by structure, whose inner keys a setting may add; whoever reads them checks the names."""
STAGES = {"train": ("train",), "evaluate": ("inference", "evaluate"), "inference": ("inference",)}


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A configuration file (YAML or JSON); one without a key (all commented out) is empty.

    Raises:
        RequestError: missing, not readable as YAML, or not a mapping.
    """
    path = Path(path)
    if path.is_dir():
        raise RequestError(f"{path} is a folder; give a YAML file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"configuration file {path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise RequestError(f"{path} must be a mapping of configuration keys, not {type(content).__name__}")
    return content


def overlay(kind: str, name: str) -> dict[str, Any]:
    """The overlay ``configs/KIND/NAME.yaml``; ``kind`` is ``networks``, ``losses`` or ``tasks``.

    Raises:
        RequestError: there is no such overlay; the nearest name is given.
    """
    path = CONFIGS / kind / f"{name}.yaml"
    names = [file.stem for file in (CONFIGS / kind).glob("*.yaml")]
    if name not in names:
        raise RequestError(f"no {kind.rstrip('s').replace('losse', 'loss')} is called {name!r}: {nearest(name, names)}")
    return read_yaml(path)


def user_config(file: str | Path) -> dict[str, Any]:
    """A ``--config`` argument: a file, or the name of a ``configs/tasks`` overlay (no suffix, no such file).

    Raises:
        RequestError: neither.
    """
    named = not Path(file).suffix and not Path(file).is_file()
    return overlay("tasks", str(file)) if named else read_yaml(file)


def parse_setting(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` with the value read as YAML (and 1e-4 as the number it is).

    >>> parse_setting("optimizer#lr=1e-4"), parse_setting("patch_size=[32, 32, 32]")
    (('optimizer#lr', 0.0001), ('patch_size', [32, 32, 32]))

    Raises:
        RequestError: no ``=``, or a value that is not YAML.
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise RequestError(f"--set {text} is not KEY=VALUE; for example --set optimizer#lr=1e-4")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RequestError(f"--set {text}: the value is not valid YAML; put it in quotes") from error
    if isinstance(parsed, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", parsed):
        parsed = float(parsed)
    return key.strip().replace("::", "#"), parsed


def put(config: dict[str, Any], key: str, value: Any) -> None:
    """Set ``a#b#0`` in nested mappings and lists, refusing a key that does not exist.

    Inside a component (``_target_``) the arguments of what it builds may be added; elsewhere only what is there may
    be replaced.

    Raises:
        RequestError: no such key; the nearest valid one is given.
    """
    place: Any = config
    *path, last = key.split("#")
    is_open = bool(path) and path[0] in OPEN and path[0] in config
    for step in path:
        if is_open and isinstance(place, dict):
            place.setdefault(step, {})
        place = _step(place, step, key)
    if isinstance(place, list):
        place[_index(place, last, key)] = value
        return
    if not isinstance(place, dict):
        raise RequestError(f"--set {key}: {'#'.join(path)} is a single value and has nothing inside; set it whole")
    if last not in place and not is_open:
        known = set(place) | arguments(place)
        if last not in known and "**" not in known:
            raise RequestError(f"no configuration key {key!r}: {nearest(last, known - {'_target_'})}")
    place[last] = value


def _step(place: Any, step: str, key: str) -> Any:
    """One level into a mapping or a list."""
    if isinstance(place, dict) and step in place:
        return place[step]
    if isinstance(place, list):
        return place[_index(place, step, key)]
    known = place if isinstance(place, dict) else []
    raise RequestError(f"no configuration key {key!r}: {nearest(step, known)}")


def _index(place: list[Any], step: str, key: str) -> int:
    if not step.isdigit() or int(step) >= len(place):
        raise RequestError(f"no configuration key {key!r}: the list there has entries 0 to {len(place) - 1}")
    return int(step)


def arguments(component: Mapping[str, Any]) -> set[str]:
    """Names of the arguments of what ``_target_`` builds; ``**`` where it takes any."""
    target = component.get("_target_")
    if not isinstance(target, str):
        return set()
    found = locate(target)
    if found is None:
        return {"**"}
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return {"**"}
    return {"**" if p.kind is p.VAR_KEYWORD else p.name for p in parameters}


def locate(target: str) -> Any:
    """What a ``_target_`` names: a dotted path, or a name of MONAI's own."""
    if "." in target:
        return pydoc.locate(target)
    from monai.bundle.config_item import ComponentLocator

    path = ComponentLocator().get_component_module_name(target)
    module = path[0] if isinstance(path, list) else path
    return pydoc.locate(f"{module}.{target}") if module else None


def merge(config: dict[str, Any], addition: Mapping[str, Any], where: str) -> None:
    """Merge an overlay: plain keys replace or add, ``a#b`` goes inside; an added key must be used by some reference.

    Raises:
        RequestError: a key that neither exists nor is referred to; the nearest valid one is given.
    """
    text = str(config) + str(addition)
    known = set(config)
    for key, value in addition.items():
        if "#" in key or "::" in key:
            put(config, key.replace("::", "#"), value)
        elif key in known or re.search(rf"[@%]{re.escape(key)}(?![\w])", text):
            config[key] = value
        else:
            raise RequestError(f"{where}: no configuration key {key!r}: {nearest(key, known)}")


def compose(
    stage: str,
    *,
    dataset: Dataset | None = None,
    network: str | None = None,
    loss: str | None = None,
    config_files: Sequence[str | Path] = (),
    settings: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The merged, complete configuration of a stage; the order is the module's.

    Args:
        stage: ``train``, ``evaluate`` or ``inference``.
        dataset: gives channels, structures, label values and, for training, the plan.
        network: overlay of ``configs/networks``.
        loss: overlay of ``configs/losses`` (training only).
        config_files: files of the user; a name without a path may be an overlay of ``configs/tasks``.
        settings: ``KEY=VALUE`` texts.
        options: top-level or nested keys set by command-line options.
    """
    config: dict[str, Any] = read_yaml(CONFIGS / "common.yaml")
    for name in STAGES[stage]:
        config.update(read_yaml(CONFIGS / f"{name}.yaml"))
    if dataset is not None:
        config.update(dataset_facts(dataset))
        if stage == "train":
            merge(config, plan_of(dataset), str(dataset.path.parent / PLAN_FILE))
    for kind, chosen in (("networks", network), ("losses", loss)):
        if chosen is not None:
            merge(config, overlay(kind, chosen), f"configs/{kind}/{chosen}.yaml")
    for file in config_files:
        merge(config, user_config(file), str(file))
    for key, value in (options or {}).items():
        put(config, key, value)
    for text in settings:
        put(config, *parse_setting(text))
    return config


def plan_of(dataset: Dataset) -> dict[str, Any]:
    """The plan that prepare wrote beside ``dataset.json``, perhaps edited since; empty where there is none.

    Raises:
        RequestError: not YAML, or not a mapping.
    """
    path = dataset.path.parent / PLAN_FILE
    return read_yaml(path) if path.is_file() else {}


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    """What a configuration takes over from the dataset, so that the trained bundle needs it no more."""
    return {
        "dataset_dir": str(dataset.path.parent.resolve()),
        "channels": list(dataset.channels),
        "structures": list(dataset.structures),
        "label_values": list(dataset.label_values),
        "composites": {name: list(values) for name, values in dataset.composites.items()},
        "ignored_value": dataset.ignored,
    }


def derive(stage: str, trained: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a stage that shares with a training configuration whatever ``common.yaml`` names.

    Evaluation is of the dataset and fold that the run was trained on, unless it is told otherwise.
    """
    config: dict[str, Any] = {}
    for name in STAGES[stage]:
        config.update(read_yaml(CONFIGS / f"{name}.yaml"))
    shared = set(read_yaml(CONFIGS / "common.yaml"))
    own = set(config) | set(read_yaml(CONFIGS / "train.yaml"))
    extra = {key for key in trained if key not in own}
    merged = {key: value for key, value in trained.items() if key in shared or key in extra}
    if stage == "evaluate":
        config.update({key: trained[key] for key in ("dataset_dir", "fold")})
    return {**merged, **config}


def write_yaml(config: Mapping[str, Any]) -> str:
    """The configuration as YAML text, in its own order, short lists on one line, other letters than ASCII escaped.

    MONAI reads configuration files in the encoding of the platform.
    """
    return yaml.dump(dict(config), sort_keys=False, default_flow_style=None, width=120)
