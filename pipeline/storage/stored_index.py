"""A sampler's index of a case as arrays and plain facts, and back; what is stored is data, never code."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from rarevox.transforms.sampling.background import MixedIndex
from rarevox.transforms.sampling.foreground_index import ForegroundIndex
from rarevox.transforms.sampling.valid_starts import ValidStarts

KINDS = {"ForegroundIndex": ForegroundIndex, "ValidStarts": ValidStarts, "MixedIndex": MixedIndex}


def can_store(index: object) -> bool:
    """Whether this kind of index is known; another sampler's own is made at every start instead."""
    if type(index) is MixedIndex:
        return can_store(index.inner)
    return _is_kind(index)


def _is_kind(value: object) -> bool:
    return KINDS.get(type(value).__name__) is type(value)


def index_arrays(index: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of an index (groups of arrays end to end, with their ends) and the rest as plain facts.

    >>> arrays, facts = index_arrays(ForegroundIndex.of(np.array([1, 2, 2])))
    >>> arrays["voxels"].tolist(), facts["groups"], facts["classes"]
    ([0, 1, 2], {'voxels': [1, 3]}, [1, 2])
    """
    arrays: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {"kind": type(index).__name__, "groups": {}}
    for field in fields(index):
        value = getattr(index, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
        elif _is_kind(value):
            within, facts.setdefault("parts", {})[field.name] = index_arrays(value)
            arrays |= {f"{field.name}.{name}": array for name, array in within.items()}
        elif field.name == "voxels":
            arrays[field.name] = np.concatenate(value) if value else np.zeros(0, np.int32)
            facts["groups"][field.name] = np.cumsum([len(part) for part in value], dtype=np.int64).tolist()
        else:
            facts[field.name] = [int(v) for v in value] if isinstance(value, tuple) else value
    return arrays, facts


def index_from(arrays: dict[str, torch.Tensor], facts: dict[str, Any]) -> Any:
    """The index again, its arrays memory-mapped where they were."""
    kind = KINDS[facts["kind"]]
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in facts["groups"]:
            ends = facts["groups"][field.name]
            whole = arrays[field.name].numpy()
            values[field.name] = tuple(whole[a:b] for a, b in pairwise([0, *ends]))
        elif field.name in facts.get("parts", {}):
            start = f"{field.name}."
            within = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
            values[field.name] = index_from(within, facts["parts"][field.name])
        elif field.name in arrays:
            values[field.name] = arrays[field.name].numpy()
        else:
            value = facts[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
