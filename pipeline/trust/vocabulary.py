"""What the packaged configurations say under each top-level key: what they build, compute, refer to and name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

# Beside this package; not through an import, which a run's own folder of that name would answer there.
CONFIGS = Path(__file__).resolve().parents[2] / "configs"

TARGET = "_target_"
MARKS = ("$", "@", "%")
"""With which a text begins that MONAI computes, looks up or replaces."""

FURTHER: Mapping[str, tuple[str, ...]] = {
    "normalisation": ("Compose",),
    "sampler": (
        "rarevox.transforms.LesionBalancedSampler",
        "rarevox.transforms.UniformSampler",
        "rarevox.transforms.GridSampler",
    ),
    "n4": ("rarevox.pipeline.data.is_uncorrected",),
    "optimizer": ("torch.optim.SGD",),
    "validate": ("CacheDataset",),
}
"""Targets beside those of the packaged files: what ``docs/configuration.md`` offers, what runs are written with."""

EARLIER: Mapping[str, tuple[str, ...]] = {
    "train": ("@sampler", "@batch_augmentation", "@planting", "$len(@channels)"),
    "validate": ("$len(@channels)",),
    "step": ("@cuda_graphs",),
    "rarevox_installed": (
        "$monai.utils.optional_import('rarevox.networks')[1] or exit('This bundle needs the package rarevox, which is "
        "not installed here; install it with: pip install rarevox')",
    ),
}
"""What the packaged files of earlier versions referred to or computed, by top-level key: their runs say no more than
ours. (The last one named a package of an index where rarevox does not lie.)"""


@dataclass
class Entry:
    """What stands under one top-level key in any of the packaged files.

    Attributes:
        targets: what is built there.
        marked: expressions and references, ``::`` spelled ``#``.
    """

    targets: set[str] = field(default_factory=set)
    marked: set[str] = field(default_factory=set)


@dataclass
class Argument:
    """What the packaged files give to one argument of one target.

    Attributes:
        texts: the plain texts among it.
        only_built: whether it is always something built, computed or referred to, and never plain.
    """

    texts: set[str] = field(default_factory=set)
    only_built: bool = True


@dataclass
class Vocabulary:
    """All that the packaged configurations say, by top-level key and by target and argument."""

    entries: dict[str, Entry] = field(default_factory=dict)
    arguments: dict[tuple[str, str], Argument] = field(default_factory=dict)

    def entry(self, key: str) -> Entry:
        """Of a top-level key; nothing for one that no packaged file has."""
        return self.entries.get(key, Entry())


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def _read(file: Path) -> dict[str, Any]:
    """One of the packaged files, which need none of the bounds that files from elsewhere have: every command that takes
    a run reads all of them, and the reader that is written in Python takes half a second for it."""
    content: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), _LOADER)
    return content


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """Collected from every file in ``configs/`` but the studies, which are no configurations.

    >>> "rarevox.transforms.CTWindowd" in vocabulary().entry("normalisation").targets
    True
    >>> vocabulary().entry("out_channels").marked
    {'$len(@label_values)'}
    """
    found = Vocabulary()
    for file in sorted(file for file in CONFIGS.rglob("*.yaml") if file.parent != CONFIGS / "studies"):
        content = _read(file)
        for key, value in content.items():
            _collect(found, content, key, value)
    for key, targets in FURTHER.items():
        found.entries.setdefault(key, Entry()).targets.update(targets)
    for key, marked in EARLIER.items():
        found.entries[key].marked.update(marked)
    found.entries["n4"].marked.add("@dataset_dir")
    found.entries["train"].marked.add("@out_channels")  # of the component regions, in runs of earlier versions
    return found


def _collect(found: Vocabulary, content: Mapping[str, Any], path: str, value: object) -> None:
    """What one top-level entry of a file says; ``step#loss`` speaks of an argument of what ``step`` builds."""
    head, *inner = path.split("#")
    entry = found.entries.setdefault(head, Entry())
    if inner[-1:] == [TARGET]:
        entry.targets.add(str(value))
    elif inner:
        target = content.get(f"{head}#{TARGET}") or _target_of_template(head)
        _note(found, (target, inner[0]), value)
    for part in walk(value):
        if isinstance(part, dict) and TARGET in part:
            entry.targets.add(part[TARGET])
            for name, given in part.items():
                _note(found, (part[TARGET], name), given)
        elif isinstance(part, str) and part.startswith(MARKS):
            entry.marked.add(normal(part))


@cache
def _target_of_template(key: str) -> str:
    """What the stages' own files build under a key that an overlay speaks of."""
    for stage in ("common", "train"):
        value = _read(CONFIGS / f"{stage}.yaml").get(key)
        if isinstance(value, dict):
            return str(value.get(TARGET, ""))
    return ""


def _note(found: Vocabulary, place: tuple[str, str], given: object) -> None:
    argument = found.arguments.setdefault(place, Argument())
    for part in walk(given, built=False):
        if isinstance(part, (dict, list)) or (isinstance(part, str) and part.startswith(MARKS)):
            continue
        argument.only_built = False
        if isinstance(part, str):
            argument.texts.add(part)


def walk(value: object, *, built: bool = True) -> Iterator[object]:
    """A value and all within it; ``built=False`` leaves out the insides of what is built."""
    yield value
    if isinstance(value, dict):
        if built or TARGET not in value:
            for inner in value.values():
                yield from walk(inner, built=built)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner, built=built)


def normal(text: str) -> str:
    """A reference or an expression as it is compared.

    >>> normal("@train::data")
    '@train#data'
    """
    return text.replace("::", "#").strip()
