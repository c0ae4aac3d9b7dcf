"""Cases that can be read; each of the others is left out with its reason, and stops none of the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

from rarevox.pipeline.console import console, progress_bar
from rarevox.pipeline.errors import RequestError, reason_of
from rarevox.pipeline.shortage import is_out_of_memory
from rarevox.pipeline.words import counted
from rarevox.transforms.reader import ScanError, same_affine, size_text

Case = Mapping[str, Any]
T = TypeVar("T")


class ReadCases(list[dict[str, Any]]):
    """Cases in memory.

    Attributes:
        left: ``{"case", "reason"}`` of each that was left out, since it cannot be read.
    """

    left: Sequence[dict[str, str]] = ()


GRID_TOLERANCE_MM = 1e-2
"""Between image and label after preprocessing: ten times what `prepare` allows, for the roundoff of resampling."""


def require_sound(case: Mapping[Any, Any], channels: int | None = None) -> None:
    """Refuse a preprocessed case that would spoil a batch or the weights: files may have changed since `prepare`.

    Args:
        case: ``image`` (C, *spatial), perhaps ``label`` and ``mask`` (1, *spatial).
        channels: what C must be; None takes any.

    Raises:
        ValueError: another number of channels, NaN or infinite voxels, a label map or mask on another grid.
    """
    image = case["image"]
    if channels is not None and image.shape[0] != channels:
        there = counted(image.shape[0], "channel")
        raise ValueError(f"the scan has {there} after preprocessing and the network takes {channels} (in_channels)")
    if not bool(torch.isfinite(image.sum())):
        raise ValueError("the scan holds NaN or infinite voxels")
    for key, name in (("label", "label map"), ("mask", "mask")):
        other = case.get(key)
        if other is None:
            continue
        sizes = [size_text(tuple(volume.shape[1:])) for volume in (other, image)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"the {name} is {sizes[0]} voxels and the scan {sizes[1]}")
        affines = [np.asarray(volume.affine) for volume in (other, image) if hasattr(volume, "affine")]
        if len(affines) == 2 and not same_affine(affines[0], affines[1], GRID_TOLERANCE_MM):
            gap = float(np.abs(affines[0] - affines[1]).max())
            raise ValueError(f"{name} and scan are on different grids: their affines differ by {gap:.3g}")


class LeftOut:
    """Gathers the cases that cannot be read.

    Args:
        what: the cases in words, for the messages.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.reasons: dict[int, str] = {}
        self._of_the_code: dict[int, str] = {}

    def tried(self, number: int, work: Callable[[], T]) -> T | None:
        """What ``work`` makes of a case; None, and a reason kept, where its files do not let it.

        Raises:
            MemoryError and its kin: what is short is no fault of the case.
        """
        if number in self.reasons:
            return None
        try:
            return work()
        except Exception as error:
            # A reader's own error stands for the file, whatever it comes from: headers that lie ask for terabytes.
            if is_out_of_memory(error) and not isinstance(_first_of_ours(error), ScanError):
                raise
            self.reasons[number] = reason_of(error)
            if isinstance(_innermost(error), _OF_THE_CODE):
                self._of_the_code[number] = _transform_of(error)
            return None

    def kept(self, cases: Sequence[Case]) -> list[int]:
        """The numbers of the others, once all were tried; those left out are told.

        Raises:
            RequestError: none of the cases can be read.
        """
        for number, reason in sorted(self.reasons.items()):
            console.say("[red]left out[/red] {}: {}", cases[number].get("case", number), reason)
        if cases and len(self.reasons) == len(cases):
            first = min(self.reasons)
            said = f"none of the {len(cases)} {self.what} can be read; {self.reasons[first]}"
            if transform := self._of_the_code.get(first):
                said += f" ({transform}); correct the entry of the configuration that this is about (preprocessing …)"
            raise RequestError(said)
        return [number for number in range(len(cases)) if number not in self.reasons]

    def rows(self, cases: Sequence[Case]) -> list[dict[str, str]]:
        """``{"case", "reason"}`` of those left out."""
        found = sorted(self.reasons.items())
        return [{"case": str(cases[number].get("case", number)), "reason": reason} for number, reason in found]


_OF_THE_CODE = (TypeError, AttributeError, LookupError, NameError)
"""What files do not raise, but arguments of a wrong kind."""
_TRANSFORM = re.compile(r"applying transform <(?:[\w.]+\.)?(\w+) object")


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None and not type(error).__module__.startswith("rarevox."):
        error = error.__cause__
    return error


def _transform_of(error: BaseException | None) -> str:
    """The innermost transform that MONAI says was being applied; else the kind of the error."""
    found, kind = "", ""
    while error is not None:
        kind, match = type(error).__name__, _TRANSFORM.search(str(error))
        found = match[1] if match else found
        error = error.__cause__
    return f"{found}: {kind}" if found else kind


def _first_of_ours(error: BaseException | None) -> BaseException | None:
    while error is not None and not type(error).__module__.startswith("rarevox."):
        error = error.__cause__
    return error


@contextmanager
def progress_of(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar of the first process's; called once a case."""
    first = not (
        torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank()
    )
    if not first:
        yield lambda: None
        return
    with progress_bar() as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def each(pool: ThreadPoolExecutor, work: Callable[[int], T], numbers: Iterable[int], what: str) -> list[T]:
    """``work`` on every number in the pool, in order, with a progress bar."""
    listed = list(numbers)
    with progress_of(what, len(listed)) as done:

        def counting(number: int) -> T:
            found = work(number)
            done()
            return found

        return list(pool.map(counting, listed))


class WholeCases(Dataset[Any]):
    """Whole cases for validation, those of them that can be read, as a map-style dataset.

    Args:
        data: the cases, file names by key.
        transform: the deterministic transforms.
        channels: of a scan.
        cache_rate: the share that is held in memory; the rest is read each time.
        workers: threads that read.

    Attributes:
        data: the cases that can be read.
        left: ``{"case", "reason"}`` of the others.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Callable[[Any], Any],
        *,
        channels: int | None = None,
        cache_rate: float = 1.0,
        workers: int = 2,
    ) -> None:
        self.transform, self.channels = transform, channels
        left, held = LeftOut("validation cases"), int(len(data) * cache_rate)

        def read(number: int) -> Any:
            found = left.tried(number, lambda: self._read(data[number]))
            return found if number < held else None

        with ThreadPoolExecutor(max(workers, 1)) as pool:
            found = each(pool, read, range(len(data)), "reading validation cases")
        try:
            kept = left.kept(data)
        except RequestError as error:
            console.say("[red]no validation[/red]: {}", error)
            kept = []
        self.data = [data[number] for number in kept]
        self.left = left.rows(data)
        self._held = [found[number] for number in kept]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, number: int) -> Any:
        held = self._held[number]
        return self._read(self.data[number]) if held is None else dict(held)

    def _read(self, case: Case) -> Any:
        found = self.transform(dict(case))
        require_sound(found, self.channels)
        return found
