"""What becomes of a segmentation: files in the folder of the predictions, and entries of the scan's row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rarevox.pipeline.cohort.rows import FILES, TABLES
from rarevox.pipeline.inference.watch import Together
from rarevox.transforms.reader import Scan, read_scan

if TYPE_CHECKING:  # whoever hands scans to workers asks for the files' names alone
    import numpy as np

    from rarevox.pipeline.inference.segment import Segmentation
    from rarevox.pipeline.inference.watch import Watch


@dataclass
class Result:
    """One scan with its labels, as outputs see it.

    Attributes:
        found: what the segmenter made of the scan; its labels are there.
        grid: where the scan lies, with the header that it came with; no voxels.
        structures: name to label value.
        composites: unions of structures, name to values.
        made: how it was made, see :func:`rarevox.pipeline.inference.calls.kept.origin`.
    """

    found: Segmentation
    grid: Scan
    structures: Mapping[str, int]
    composites: Mapping[str, Sequence[int]] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    @property
    def case(self) -> str:
        """The scan's name."""
        return self.found.case

    @property
    def item(self) -> Mapping[str, Any]:
        """The entry of the data list: ``case``, ``image`` (a file, or one for each channel), ``mask``, ``roi``."""
        return self.found.item

    @property
    def labels(self) -> np.ndarray:
        """(X, Y, Z) label values on the scan's grid."""
        assert self.found.labels is not None
        return self.found.labels

    @cached_property
    def scan(self) -> Scan:
        """The scan with its voxels as they are in its files, read when first asked for and shared by all outputs."""
        return read_scan(self.item["image"])


class Output(Protocol):
    """Something that is written of each scan. Plain options only: it is sent to other processes.

    Class probabilities are shown only while the network runs: who needs them gives a
    :class:`~rarevox.pipeline.inference.watch.Watch` for each scan and gets it back when it is time to write.
    """

    def names(self, item: Mapping[str, Any]) -> list[str]:
        """The files that :meth:`write` writes of a scan, relative to the folder, ``/`` between folders.

        By these an earlier call's files are removed, or with ``--keep`` found to be there.
        """

    def watch(self, item: Mapping[str, Any], folder: Path) -> Watch | None:
        """Who is shown the scan's class probabilities; None where labels are enough."""

    def write(self, result: Result, folder: Path, watch: Watch | None) -> dict[str, Any]:
        """Write the files of a scan; what is added to its row (see :mod:`rarevox.pipeline.cohort.rows`).

        Runs beside the next scan's computing, perhaps in a thread.

        Raises:
            OSError, ValueError: the scan's row is ``failed`` with the reason, and no file of the scan stays.
        """


def watches_of(outputs: Sequence[Output], item: Mapping[str, Any], folder: Path) -> Together | None:
    """Who is shown a scan's class probabilities; None where no output needs them."""
    several = [output.watch(item, folder) for output in outputs]
    return Together(several) if any(watch is not None for watch in several) else None


def write_all(outputs: Sequence[Output], result: Result, folder: Path) -> dict[str, Any]:
    """Write all outputs of a scan, one after the other; their entries of its row together.

    Raises:
        OSError, ValueError: as the first output that failed.
    """
    shown = result.found.watch
    watches = shown.watches if isinstance(shown, Together) else (None,) * len(outputs)
    row: dict[str, Any] = {}
    for output, watch in zip(outputs, watches, strict=True):
        added = output.write(result, folder, watch)
        files = [*row.get(FILES, []), *added.get(FILES, [])]
        tables = {**row.get(TABLES, {}), **added.get(TABLES, {})}
        row |= added
        row |= ({FILES: files} if files else {}) | ({TABLES: tables} if tables else {})
    return row


def names_of(outputs: Sequence[Output], item: Mapping[str, Any]) -> list[str]:
    """All files that the outputs write of a scan."""
    return [name for output in outputs for name in output.names(item)]
