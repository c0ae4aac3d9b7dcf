"""A share of a list for each call of a job array."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rarevox.pipeline.errors import RequestError

Item = TypeVar("Item")
_SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
_KUBERNETES = "JOB_COMPLETION_INDEX"


@dataclass(frozen=True)
class Shard:
    """Every ``count``-th entry of a list, from the ``index``-th on, counted from 1.

    >>> Shard(2, 3).of("abcdefg")
    ['b', 'e']
    """

    index: int
    count: int

    def of(self, items: Sequence[Item]) -> list[Item]:
        """The share. The shares of all calls with one list hold each entry once, and differ by one in length."""
        return list(items[self.index - 1 :: self.count])


def parse_shard(text: str, environment: Mapping[str, str] | None = None) -> Shard:
    """The share that ``i/n``, ``auto`` or ``auto/n`` stands for.

    ``auto`` asks the environment of a job array: ``SLURM_ARRAY_TASK_ID`` of ``SLURM_ARRAY_TASK_COUNT``, counted from
    ``SLURM_ARRAY_TASK_MIN`` in steps of ``SLURM_ARRAY_TASK_STEP``; or Kubernetes' ``JOB_COMPLETION_INDEX``, counted
    from 0, which needs the count: ``auto/n``.

    Args:
        text: of the option.
        environment: for ``auto``; the process's own where None.

    Raises:
        RequestError: another text, or an environment that does not tell.

    >>> parse_shard("2/8")
    Shard(index=2, count=8)
    >>> parse_shard("auto", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5"})
    Shard(index=3, count=4)
    >>> parse_shard("auto/8", {"JOB_COMPLETION_INDEX": "0"})
    Shard(index=1, count=8)
    """
    found = re.fullmatch(r"(?:(\d{1,9})|auto)(?:/(\d{1,9}))?", text)
    if found is None or (found[1] is not None and found[2] is None):
        raise RequestError(f"--shard {text} is neither i/n, such as 2/8, nor auto, nor auto/n")
    if found[1] is not None:
        return _checked(int(found[1]), int(found[2]), text)
    where: Mapping[str, str] = os.environ if environment is None else environment
    if _SLURM[0] in where:
        count = int(found[2]) if found[2] else _whole(where, _SLURM[1], None)
        first, step = _whole(where, "SLURM_ARRAY_TASK_MIN", 1), _whole(where, "SLURM_ARRAY_TASK_STEP", 1)
        return _checked((_whole(where, _SLURM[0], None) - first) // max(1, step) + 1, count, text)
    if _KUBERNETES in where:
        if not found[2]:
            raise RequestError(f"--shard auto: {_KUBERNETES} does not tell of how many; give auto/n")
        return _checked(_whole(where, _KUBERNETES, None) + 1, int(found[2]), text)
    raise RequestError(f"--shard {text}: neither {_SLURM[0]} nor {_KUBERNETES} is set here; give i/n")


def _whole(where: Mapping[str, str], name: str, default: int | None) -> int:
    value = where.get(name, "" if default is None else str(default))
    if not re.fullmatch(r"\d{1,9}", value):
        raise RequestError(f"--shard auto: {name} is {value!r}, and no whole number; give i/n")
    return int(value)


def _checked(index: int, count: int, text: str) -> Shard:
    if not 1 <= index <= count:
        raise RequestError(f"--shard {text}: there is no share {index} of {count}; they count from 1")
    return Shard(index, count)
