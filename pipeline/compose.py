"""One configuration out of the base, the overlays, the dataset's facts and what the command line sets.

Order, later wins: ``common.yaml``, the stage's file, the dataset's facts and plan (the overlay of the network that it
names first), ``configs/networks/NAME.yaml``, ``configs/losses/NAME.yaml``, the ``--config`` files, the options and
``--set`` values. An overlay's top-level key replaces the whole entry; ``key#inner`` replaces what is inside.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rarevox.pipeline.data.dataset import Dataset
from rarevox.pipeline.entries import merge, parse_setting, put
from rarevox.pipeline.errors import RequestError, nearest
from rarevox.pipeline.plain_data import read_yaml
from rarevox.pipeline.trust.gate import require_plain
from rarevox.pipeline.trust.vocabulary import CONFIGS

PLAN_FILE = "plan.yaml"
STAGES = {"train": ("train",), "evaluate": ("inference", "evaluate"), "inference": ("inference",)}


def overlay(kind: str, name: str) -> dict[str, Any]:
    """The overlay ``configs/KIND/NAME.yaml``; ``kind`` is ``networks``, ``losses`` or ``tasks``.

    Raises:
        RequestError: there is no such overlay; the nearest name is given.
    """
    path = CONFIGS / kind / f"{name}.yaml"
    names = [file.stem for file in (CONFIGS / kind).glob("*.yaml")]
    if name not in names:
        raise RequestError(f"no {kind.rstrip('s').replace('losse', 'loss')} is called {name!r}: {nearest(name, names)}")
    return packaged(path)


@functools.cache
def packaged_once(path: Path) -> dict[str, Any]:
    """A file of the packaged configuration, which nobody may change; see :func:`packaged`."""
    return read_yaml(path)


def packaged(path: Path) -> dict[str, Any]:
    """A file of the packaged configuration, read once a process: parsing the templates takes 0.1 s."""
    return deepcopy(packaged_once(path))


def user_config(file: str | Path) -> dict[str, Any]:
    """A ``--config`` argument: a file, or the name of a ``configs/tasks`` overlay (no suffix, no such file).

    Raises:
        RequestError: neither.
    """
    named = not Path(file).suffix and not Path(file).is_file()
    return overlay("tasks", str(file)) if named else read_yaml(file)


class Source(enum.Enum):
    """Who had the last word on a configuration key."""

    TEMPLATE = "template"
    DATASET = "facts of the dataset"
    PLAN = "plan of the dataset"
    NETWORK = "overlay of configs/networks"
    LOSS = "overlay of configs/losses"
    FILE = "configuration file"
    OPTION = "command-line option"
    SETTING = "--set"


BY_USER = (Source.FILE, Source.OPTION, Source.SETTING)


@dataclass(frozen=True)
class Composition:
    """A merged, complete configuration, and where its entries come from.

    Attributes:
        config: the configuration.
        origin: top-level key → who had the last word on it, or on something inside it.
        replaced: configuration file of the user → the entries of the dataset's plan that it replaces as a whole.

    >>> composed = compose("train", network="deepmedic", settings=["optimizer#lr=1e-4"])
    >>> composed.origin["patch_size"].value, composed.set_by_user("optimizer"), composed.set_by_user("patch_size")
    ('overlay of configs/networks', True, False)
    """

    config: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Source] = field(default_factory=dict)
    replaced: dict[str, list[str]] = field(default_factory=dict)

    def set_by_user(self, key: str) -> bool:
        """Whether the user set a top-level key, whole or in part, in a file, a task overlay or on the command line."""
        return self.origin.get(key) in BY_USER

    def take(self, content: Mapping[str, Any], source: Source) -> None:
        """Whole entries, new ones too."""
        self.config.update(content)
        self._note(content, source)

    def merge(self, content: Mapping[str, Any], source: Source, where: str) -> None:
        """An overlay; see :func:`merge`."""
        merge(self.config, content, where)
        self._note(content, source)

    def put(self, key: str, value: object, source: Source) -> None:
        """One entry or a part of one; see :func:`put`."""
        put(self.config, key, value)
        self._note([key], source)

    def _note(self, keys: Iterable[str], source: Source) -> None:
        self.origin.update((key.replace("::", "#").partition("#")[0].strip(), source) for key in keys)


def compose(
    stage: str,
    *,
    dataset: Dataset | None = None,
    network: str | None = None,
    loss: str | None = None,
    config_files: Sequence[str | Path] = (),
    settings: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Composition:
    """The merged, complete configuration of a stage, each file read once; the order is the module's.

    Args:
        stage: ``train``, ``evaluate`` or ``inference``.
        dataset: gives channels, structures, label values and, for training, the plan.
        network: overlay of ``configs/networks``; None is the plan's, else HighResNet.
        loss: overlay of ``configs/losses`` (training only).
        config_files: files of the user; a name without a path may be an overlay of ``configs/tasks``.
        settings: ``KEY=VALUE`` texts.
        options: top-level or nested keys set by command-line options.
    """
    composed, planned = Composition(), ""
    files = [(str(file), user_config(file)) for file in config_files]
    parsed = [parse_setting(text) for text in settings]
    for name in ("common", *STAGES[stage]):
        composed.take(packaged(CONFIGS / f"{name}.yaml"), Source.TEMPLATE)
    if dataset is not None:
        composed.take(dataset_facts(dataset), Source.DATASET)
        if stage == "train":
            given = {key for _, content in files for key in content} | {key for key, _ in parsed}
            own = network is not None or "network_def" in given
            planned = _follow_plan(composed, plan_of(dataset), str(dataset.path.parent / PLAN_FILE), own_network=own)
    for kind, chosen, source in (("networks", network, Source.NETWORK), ("losses", loss, Source.LOSS)):
        if chosen is not None:
            composed.merge(overlay(kind, chosen), source, f"configs/{kind}/{chosen}.yaml")
    with _telling(planned):
        for where, content in files:
            planned_of = [key for key in content if composed.origin.get(key) is Source.PLAN]
            changed = [key for key in planned_of if composed.config[key] != content[key]]
            composed.replaced.update({where: changed} if changed else {})
            composed.merge(content, Source.FILE, where)
        for key, value in (options or {}).items():
            composed.put(key, value, Source.OPTION)
        for key, value in parsed:
            composed.put(key, value, Source.SETTING)
    return composed


def _follow_plan(composed: Composition, plan: dict[str, Any], where: str, *, own_network: bool) -> str:
    """Take a plan over, and first the overlay of the network that it names.

    Args:
        composed: takes it.
        plan: of the dataset.
        where: its file.
        own_network: the user names another network, or brings one: the plan's goes, with what its overlay says of it.

    Returns:
        The plan's network; empty where it names none, or it goes.

    Raises:
        RequestError: what it names is no network.
    """
    name = plan.pop("network") if not isinstance(plan.get("network", {}), Mapping) else None
    if name is not None and not own_network:
        try:
            content = overlay("networks", str(name))
        except RequestError as error:
            raise RequestError(f"{where}: {error}") from None
        # Patch and batch of the overlay are nobody's choice yet: where the plan has none, they are fitted.
        composed.merge(content, Source.TEMPLATE, f"configs/networks/{name}.yaml")
        composed.origin.update(dict.fromkeys(content.keys() - {"patch_size", "batch_size"}, Source.PLAN))
    composed.merge(plan, Source.PLAN, where)
    return str(name) if name is not None and not own_network else ""


@contextmanager
def _telling(network: str) -> Iterator[None]:
    """To what is refused of a network's entries add that the plan chose it."""
    try:
        yield
    except RequestError as error:
        if network and "network_def" in str(error):
            raise RequestError(
                f"{error}; the network is {network}, as plan.yaml says: --network names another"
            ) from None
        raise


def plan_of(dataset: Dataset) -> dict[str, Any]:
    """The plan that prepare wrote beside ``dataset.json``, perhaps edited since; empty where there is none.

    It is data: plain values, and what the packaged configurations build under the same keys; as ``network`` the name of
    an overlay of ``configs/networks``.

    Raises:
        RequestError: not YAML, not a mapping, or more than data.
    """
    path = dataset.path.parent / PLAN_FILE
    plan = read_yaml(path) if path.is_file() else {}
    require_plain(plan, path)
    return plan


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    """What a configuration takes over from the dataset, so that the trained bundle needs it no more."""
    from rarevox.pipeline.data.spacing import seen_spacing  # imports MONAI, which requests are checked without

    return {
        "dataset_dir": str(dataset.path.parent.resolve()),
        "channels": list(dataset.channels),
        "channel_files": None if dataset.channel_files is None else list(dataset.channel_files),
        "structures": list(dataset.structures),
        "label_values": list(dataset.label_values),
        "composites": {name: list(values) for name, values in dataset.composites.items()},
        "ignored_value": dataset.ignored,
        "fill_surround": "not-finite" in dataset.fixed,
        "spacing_seen_mm": seen_spacing(dataset.path),
    }


def derive(stage: str, trained: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a stage that shares with a training configuration whatever ``common.yaml`` names.

    Evaluation is of the dataset and fold that the run was trained on, unless it is told otherwise.
    """
    config: dict[str, Any] = {}
    for name in STAGES[stage]:
        config.update(packaged(CONFIGS / f"{name}.yaml"))
    shared = set(packaged(CONFIGS / "common.yaml"))
    own = set(config) | set(packaged(CONFIGS / "train.yaml"))
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
